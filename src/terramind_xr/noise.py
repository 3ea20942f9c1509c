"""Random fields as pure functions of (seed, stream, position): no generator, no state.

The bits come from Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3", doi:10.1145/2063384.2063405), a keyed bijection of 64 bits. A key is refined step by step
(seed, then stream, then band or place), so that any field can be evaluated at any position, in any
order, with the same result. The same code runs on numpy and on torch arrays and gives the same bits.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_WORD = 0xFFFFFFFF
_SINE = (
    1.5707962899027921,
    -0.64596335827099183,
    0.079688474797467893,
    -0.0046722202649205373,
    0.00015081716045371594,
)
"""Of q, q³ … q⁹ in the sine of q quarters of a turn, |q| ≤ 1: a fit at the nodes of Chebyshev."""

Words = tuple[Any, Any]
"""Two 32-bit words: numpy uint32 arrays, or torch int32 tensors of the same bits."""


def threefry(key: Words, counter: Words) -> Words:
    """Threefry-2x32-20 of `counter` under `key`: two words of 32 random bits.

    Parameters
    ----------
    key, counter
        Two words each, that broadcast against each other: numpy uint32 arrays, or torch int32 tensors of
        the same bits (torch has no complete uint32 arithmetic).

    Returns
    -------
    tuple
        Two arrays of 32-bit words, of the type of the input.

    Examples
    --------
    The first known answer of the authors' own test suite (Random123, ``kat_vectors``):

    >>> zero = np.zeros(1, np.uint32)
    >>> [hex(word[0]) for word in threefry((zero, zero), (zero, zero))]
    ['0x6b200159', '0x99ba4efe']
    """
    k0, k1 = key
    k2 = k0 ^ k1 ^ _PARITY
    schedule = (k0, k1, k2)
    x1 = counter[1] + k1
    x0 = counter[0] + k0 + x1
    x1 = _rotated(x1 + 0, _ROTATIONS[0][0]) ^ x0  # full arrays from here on, in place
    for number in range(1, 20):
        group, within = divmod(number, 4)
        x0 += x1
        x1 = _rotated(x1, _ROTATIONS[group % 2][within])
        x1 ^= x0
        if within == 3:
            x0 += schedule[(group + 1) % 3]
            x1 += schedule[(group + 2) % 3] + (group + 1)
    return x0, x1


def _rotated(word: Any, by: int) -> Any:
    """The same array, its bits rotated to the left."""
    top = word >> (32 - by)
    if not isinstance(word, np.ndarray):
        top &= (1 << by) - 1  # the sign came down with them
    word <<= by
    word |= top
    return word


def _uint32(value: Any) -> NDArray[np.uint32]:
    # At least one axis: numpy warns of wrapping in scalars, where wrapping is the point.
    return np.atleast_1d(np.asarray(value, dtype=np.int64) & _WORD).astype(np.uint32)


def _on(words: Words, device: Any) -> Words:
    """Words of numpy as tensors."""
    import torch

    first, second = (torch.from_numpy(word.view(np.int32)).to(device) for word in words)
    return first, second


def _real(bits: Any) -> Any:
    """The number that 32 bits stand for, as float64."""
    if isinstance(bits, np.ndarray):
        return bits.astype(np.float64)
    return (bits.long() & _WORD).double()


def _normal(first: Any, second: Any) -> Any:
    """Standard normal numbers from two words, float64, by Box and Muller's transform."""
    functions = _functions(first)
    radius = _real(first)
    radius += 1  # (0, 1]: the logarithm must be finite
    radius *= 2.0**-32
    functions.log(radius, out=radius)
    radius *= -2
    functions.sqrt(radius, out=radius)
    radius *= _cosine(second)
    return radius


def _cosine(word: Any) -> Any:
    """Cosine of a word as a part of a full turn, within 4e-9, float64.

    It is the sine of what is missing to a quarter, by a polynomial: the same operations everywhere, and
    several times faster than numpy's cosine.
    """
    quarters = word.view(np.int32).astype(np.float64) if isinstance(word, np.ndarray) else word.double()
    _functions(word).abs(quarters, out=quarters)
    quarters *= -(2.0**-30)
    quarters += 1
    square = quarters * quarters
    result = square * _SINE[-1]
    for coefficient in _SINE[-2:0:-1]:
        result += coefficient
        result *= square
    result += _SINE[0]
    result *= quarters
    return result


def _functions(array: Any) -> Any:
    """The module whose functions take an array: numpy, or torch."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


@dataclass(frozen=True)
class Stream:
    """One independent source of random fields.

    Parameters
    ----------
    seed
        Any integer of 64 bits.
    name
        What the numbers are for, e.g. a modality with its use.
    step, sample
        Decoding step and number of the sample; each pair is a stream of its own.

    Examples
    --------
    >>> noise = Stream(seed=0, name="NDVI/diffusion")
    >>> whole = noise.normal(y=0, x=0, height=64, width=64, bands=1)
    >>> part = noise.normal(y=16, x=32, height=8, width=8, bands=1)
    >>> bool((whole[:, 16:24, 32:40] == part).all())
    True
    """

    seed: int
    name: str
    step: int = 0
    sample: int = 0

    @property
    def key(self) -> Words:
        """Two words that stand for this stream."""
        root = (_uint32(self.seed), _uint32(self.seed >> 32))
        # The checksum of the name is stable over processes, unlike hash().
        named = threefry(root, (_uint32(zlib.crc32(self.name.encode())), _uint32(0)))
        return threefry(named, (_uint32(self.step), _uint32(self.sample)))

    def normal(self, *, y: int, x: int, height: int, width: int, bands: int) -> NDArray[np.float32]:
        """Standard normal numbers of the pixels of a window, float32 (`bands`, `height`, `width`).

        Parameters
        ----------
        y, x
            First row and column of the window, from the scene's origin.
        height, width, bands
            Size of the window and number of bands.

        Notes
        -----
        Box and Muller's transform of two uniform numbers (doi:10.1214/aoms/1177706645); one pixel and
        band takes the cosine half only, so that it depends on nothing but its own position.
        """
        rows = _uint32(np.arange(y, y + height))[:, None]
        cols = _uint32(np.arange(x, x + width))[None, :]
        result = np.empty((bands, height, width), np.float32)
        for band in range(bands):  # one fits a cache
            result[band] = _normal(*threefry(self._folded(band), (rows, cols)))
        return result

    def normal_on(
        self, device: Any, places: NDArray[np.int64], *, height: int, width: int, bands: int
    ) -> torch.Tensor:
        """The same of several windows at once, made on a device of torch: (window, band, row, column).

        `places` (window, 2) are their first rows and columns.
        """
        import torch

        rows = _uint32(places[:, :1] + np.arange(height))[:, None, :, None]
        cols = _uint32(places[:, 1:] + np.arange(width))[:, None, None, :]
        key = (word[:, None, None] for word in self._folded(np.arange(bands)))
        words = threefry(_on((next(key), next(key)), device), _on((rows, cols), device))
        result: torch.Tensor = _normal(*words).to(torch.float32)
        return result

    def _folded(self, number: Any) -> Words:
        return threefry(self.key, (_uint32(number), _uint32(0)))

    def uniform(self, y: Any, x: Any, item: Any) -> Any:
        """Uniform numbers in (0, 1) of places (`y`, `x`) and items, e.g. patches and token ids.

        The three broadcast; float64, so that the tails of a logarithm of them are smooth. Where `item` is a
        tensor, so are they, on its device.
        """
        place = threefry(self.key, (_uint32(y), _uint32(x)))
        if isinstance(item, int | np.ndarray | np.generic):
            words = _uint32(item)
        else:
            place, words = _on(place, item.device), item.int()
        result = _real(threefry(place, (words, 0))[0])
        result += 0.5
        result *= 2.0**-32
        return result

    def gumbel(self, y: Any, x: Any, item: Any) -> Any:
        """Standard Gumbel numbers of places and items, as `uniform` has them: ``-log(-log(u))``.

        The item with the largest sum of log-probability and Gumbel number is a draw from the
        distribution (Gumbel-max; Maddison et al. 2014, arXiv 1411.0030).
        """
        result = self.uniform(y, x, item)
        for _ in range(2):
            _functions(result).log(result, out=result)
            result *= -1
        return result

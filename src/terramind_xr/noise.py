"""Random fields as pure functions of (seed, stream, position): no generator, no state.

The bits come from Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3", doi:10.1145/2063384.2063405), a keyed bijection of 64 bits. A key is refined step by step
(seed, then stream, then band or place), so that any field can be evaluated at any position, in any
order, with the same result. The same code runs on numpy and on torch arrays and gives the same bits.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_WORD = 0xFFFFFFFF

Words = tuple[Any, Any]
"""Two 32-bit words: ints, numpy uint32 arrays, or torch int64 arrays that hold 32 bits."""


def threefry(key: Words, counter: Words) -> Words:
    """Threefry-2x32-20 of `counter` under `key`: two words of 32 random bits.

    Parameters
    ----------
    key, counter
        Two words each, that broadcast against each other: numpy uint32 arrays, or torch int64 tensors
        with values below 2**32 (torch has no complete uint32 arithmetic).

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
    # Masks keep torch's 64-bit words to 32 bits; numpy's uint32 wraps by itself.
    wide = not isinstance(k2 ^ counter[0], np.ndarray | np.generic)

    def fit(word: Any) -> Any:
        return word & _WORD if wide else word

    x0, x1 = fit(counter[0] + k0), fit(counter[1] + k1)
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = fit(x0 + x1)
            x1 = fit(x1 << rotation) | (x1 >> (32 - rotation))
            x1 = x1 ^ x0
        x0 = fit(x0 + schedule[(group + 1) % 3])
        x1 = fit(x1 + schedule[(group + 2) % 3] + (group + 1))
    return x0, x1


def _uint32(value: Any) -> NDArray[np.uint32]:
    # At least one axis: numpy warns of wrapping in scalars, where wrapping is the point.
    return np.atleast_1d(np.asarray(value, dtype=np.int64) & _WORD).astype(np.uint32)


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
        for band in range(bands):
            first, second = threefry(self._folded(band), (rows, cols))
            # (0, 1]: the logarithm of the first must be finite.
            radius = np.sqrt(-2 * np.log((first.astype(np.float64) + 1) * 2**-32))
            result[band] = radius * np.cos(second * (2 * np.pi * 2**-32))
        return result

    def _folded(self, number: int) -> Words:
        return threefry(self.key, (_uint32(number), _uint32(0)))

    def uniform(self, y: Any, x: Any, item: Any) -> NDArray[np.float64]:
        """Uniform numbers in (0, 1) of places (`y`, `x`) and items, e.g. patches and token ids.

        The three broadcast; float64, so that the tails of a logarithm of them are smooth.
        """
        place = threefry(self.key, (_uint32(y), _uint32(x)))
        bits, _ = threefry(place, (_uint32(item), _uint32(0)))
        return (np.asarray(bits, np.float64) + 0.5) * 2.0**-32

    def gumbel(self, y: Any, x: Any, item: Any) -> NDArray[np.float64]:
        """Standard Gumbel numbers of places and items: ``-log(-log(u))``.

        The item with the largest sum of log-probability and Gumbel number is a draw from the
        distribution (Gumbel-max; Maddison et al. 2014, arXiv 1411.0030).
        """
        result: NDArray[np.float64] = -np.log(-np.log(self.uniform(y, x, item)))
        return result

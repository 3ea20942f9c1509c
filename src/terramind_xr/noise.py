"""Random fields as pure functions of (seed, stream, position): no generator, no state.

The bits come from SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
doi:10.1145/2660193.2660195), whose n-th output is a function of its seed and of n. An output is the seed of
what is finer (seed, then stream, then row or place, then column or token), so that any field can be evaluated
at any position, in any order, with the same result. The same code runs on numpy and on torch arrays and gives
the same bits.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD = (1 << 64) - 1
_ROWS = 56
"""Rows of a tile that are made at once: their bits fit a cache."""


def splitmix(seed: Any, number: Any) -> Any:
    """The output number `number` (from 0) of SplitMix64 under `seed`: 64 random bits.

    Parameters
    ----------
    seed, number
        64-bit words that broadcast against each other: numpy uint64 arrays, or torch int64 tensors of the
        same bits (torch has no complete uint64 arithmetic).

    Returns
    -------
    array
        Words of the same type.

    Examples
    --------
    The first output under the seed 0 is that of Java's ``SplittableRandom(0).nextLong()``:

    >>> hex(splitmix(np.zeros(1, np.uint64), np.zeros(1, np.uint64))[0])
    '0xe220a8397b1dcdaf'
    """
    is_numpy = isinstance(seed, np.ndarray)
    gamma, first, second = (each if is_numpy else _signed(each) for each in (_GAMMA, *_FACTORS))
    word = seed + (number + 1) * gamma
    word ^= _shifted(word, 30)
    word *= first
    word ^= _shifted(word, 27)
    word *= second
    word ^= _shifted(word, 31)
    return word


def _signed(word: int) -> int:
    """The number that torch reads from 64 bits."""
    return word - (word >> 63 << 64)


def _shifted(word: Any, by: int) -> Any:
    """Bits moved to the right, zeros coming from the left."""
    moved = word >> by
    if not isinstance(word, np.ndarray):
        moved &= _WORD >> by  # the sign came down with them
    return moved


def _uint64(value: Any) -> NDArray[np.uint64]:
    # At least one axis: numpy warns of wrapping in scalars, where wrapping is the point.
    return np.atleast_1d(np.asarray(value, dtype=np.int64)).view(np.uint64)


def _on(words: NDArray[np.uint64], device: Any) -> torch.Tensor:
    """Words of numpy as a tensor."""
    import torch

    return torch.from_numpy(words.view(np.int64)).to(device)


@functools.cache
def _quantiles() -> NDArray[np.float32]:
    """Halves of 65,536 normal numbers of equal probability, together of variance 1/4."""
    count = 1 << 15
    positive = [NormalDist().inv_cdf((count + number + 0.5) / (2 * count)) for number in range(count)]
    numbers = np.concatenate([-np.array(positive[::-1]), positive])
    halves: NDArray[np.float32] = (numbers / np.sqrt(np.mean(numbers**2)) / 2).astype(np.float32)
    return halves


def _four_normals(bits: Any, quantiles: Any) -> tuple[Any, Any, Any, Any]:
    """Four independent standard normal numbers, float32, from 64 bits.

    Each is half the sum of four, with signs whose products cancel (rows of a Hadamard matrix, an orthogonal
    one): the sums of independent normal numbers are independent, too. Of the four, each is one of 65,536
    quantiles; of their sums, the tails reach beyond 8. Nothing is rounded but sums of two: all devices agree
    to the last bit.
    """
    first, second, third, fourth = (_taken(quantiles, bits >> by & 0xFFFF) for by in (0, 16, 32, 48))
    left, right = first + second, third + fourth
    first -= second
    third -= fourth
    return left + right, left - right, first + third, first - third


def _taken(values: Any, at: Any) -> Any:
    if isinstance(values, np.ndarray):
        return values.take(at.view(np.int64), mode="clip")  # clipping nothing, it is the fastest
    return values[at]


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
    def key(self) -> NDArray[np.uint64]:
        """The word that stands for this stream."""
        key = _uint64(self.seed)
        # The checksum of the name is stable over processes, unlike hash().
        for number in (zlib.crc32(self.name.encode()), self.step, self.sample):
            key = splitmix(key, _uint64(number))
        return key

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
        The 64 bits of a pixel serve four bands; a pixel depends on nothing but its own position.
        """
        cols = _uint64(np.arange(x, x + width))
        result = np.empty((bands, height, width), np.float32)
        for band in range(0, bands, 4):
            keys = self._row_keys(np.arange(y, y + height), band)[:, None]
            for first in range(0, height, _ROWS):
                rows = slice(first, first + _ROWS)
                four = _four_normals(splitmix(keys[rows], cols), _quantiles())
                for to, values in zip(result[band : band + 4, rows], four, strict=False):
                    to[...] = values
        return result

    def normal_on(
        self, device: Any, places: NDArray[np.int64], *, height: int, width: int, bands: int
    ) -> torch.Tensor:
        """The same of several windows at once, made on a device of torch: (window, band, row, column).

        `places` (window, 2) are their first rows and columns.
        """
        import torch

        rows, cols = places[:, :1] + np.arange(height), places[:, 1:] + np.arange(width)
        keys = np.stack([self._row_keys(rows, band) for band in range(0, bands, 4)], axis=1)
        words = splitmix(_on(keys[..., None], device), _on(_uint64(cols)[:, None, None], device))
        four = _four_normals(words, torch.from_numpy(_quantiles()).to(device))
        return torch.stack(four, dim=2).flatten(1, 2)[:, :bands]

    def _row_keys(self, rows: Any, band: int) -> NDArray[np.uint64]:
        """Seeds of rows, for the four bands from one on."""
        keys: NDArray[np.uint64] = splitmix(splitmix(self.key, _uint64(band // 4)), _uint64(rows))
        return keys

    def uniform(self, y: Any, x: Any, item: Any) -> Any:
        """Uniform numbers in (0, 1) of places (`y`, `x`) and items, e.g. patches and token ids.

        The three broadcast; float64, so that the tails of a logarithm of them are smooth. Where `item` is a
        tensor, so are they, on its device.
        """
        place = splitmix(splitmix(self.key, _uint64(y)), _uint64(x))
        if isinstance(item, int | np.ndarray | np.generic):
            result = _shifted(splitmix(place, _uint64(item)), 12).view(np.int64).astype(np.float64)
        else:
            result = _shifted(splitmix(_on(place, item.device), item), 12).double()
        result += 0.5
        result *= 2.0**-52
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

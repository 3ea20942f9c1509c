"""How a block's raw regions become what a model reads: units, offsets, nodata and masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.data.units import Conversion
from terramind_xr.data.values import check_values
from terramind_xr.engine import Layer
from terramind_xr.errors import InputError
from terramind_xr.facts import PATCH, Modality, modalities
from terramind_xr.model.scaling import standardize_into

Mask = NDArray[np.bool_]

_ROWS = 32
"""Rows that are read at once: what becomes of twelve bands of a block then stays in a cache."""

NODATA = 65535
"""Stands for patches without a valid pixel; no vocabulary reaches it."""


@dataclass(frozen=True)
class KernelInput:
    """How one input is read.

    Parameters
    ----------
    name
        Modality.
    conversion
        From the user's units to the model's.
    offset
        Radiometric offset within Sentinel-2 digital numbers, taken off before the model; None where dates
        differ, and each one's offset follows among the sources.
    nodata
        Value that means no data in any band, besides NaN; None for none.
    masked
        Whether a mask of pixels not to be used follows among the sources.
    check
        Whether blocks check that the numbers can be what they are taken for.
    variables
        The user's variables, for messages.
    bands
        Bands that there are, in this order; empty for all of the modality.
    """

    name: str
    conversion: Conversion
    offset: float | None = 0.0
    nodata: float | None = None
    masked: bool = False
    check: bool = True
    variables: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()

    @property
    def modality(self) -> Modality:
        """Row of the table, with the bands that there are."""
        whole = modalities[self.name]
        return whole.only(self.bands) if self.bands else whole

    def layer(
        self,
        regions: Iterator[NDArray[Any]],
        scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> Layer:
        """Checked and standardised values from the next regions, 0 (the band's mean) where not valid.

        `scale` is the mean and standard deviation of each band, by default those of the modality.
        """
        mean, std = scale or (self.modality.mean, self.modality.std)
        raw = next(regions)
        offset = next(regions) if self.offset is None else None
        hidden = next(regions)[0].astype(bool) if self.masked else None
        # All of them finite, so that nothing has to be converted to see where there is data.
        is_plain = raw.dtype.kind in "iu" and not self.conversion.decibel and offset is None
        if is_plain:
            values, valid = raw, self._with_data(raw)
        else:
            values, valid = np.empty(raw.shape, np.float32), np.empty(raw.shape[1:], bool)
            for first in range(0, raw.shape[1], _ROWS):
                rows = slice(first, first + _ROWS)
                read = self._in_units(raw[:, rows], None if offset is None else offset[:, rows])
                valid[rows] = self._with_data(raw[:, rows], read)
                standardize_into(values[:, rows], mean, std, read)
        if hidden is not None:
            valid &= ~hidden
        if self.check:  # what a mask hides may be anything
            check_values(self.name, raw, valid, self.conversion, self.variables, hidden)
        if is_plain:
            return Layer(values, valid, convert=partial(self._standardize, mean, std))
        if not valid.all():
            np.copyto(values, 0, where=~valid)
        return Layer(values, valid)

    def _in_units(self, raw: NDArray[Any], offset: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Values in model units, offset removed."""
        values = self.conversion.apply(raw)
        if offset is not None:
            return values - offset.astype(np.float32)
        return values - np.float32(self.offset) if self.offset else values

    def _with_data(self, raw: NDArray[Any], values: NDArray[np.float32] | None = None) -> Mask:
        """Where all bands hold data (y, x); `values` in model units, if they may be other than finite."""
        valid = np.ones(raw.shape[1:], bool)
        for band in () if values is None else values:
            valid &= np.isfinite(band)
        own = modalities[self.name].nodata
        if own is not None:
            # One dark band can be 0 by chance; all of them are not.
            valid &= ~_everywhere(raw, own)
        if self.nodata not in (None, own):
            for band in raw:
                valid &= band != self.nodata
        return valid

    def _standardize(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        out: NDArray[np.float32],
        raw: NDArray[np.integer],
    ) -> None:
        """Write standardised values of whole numbers to `out`, band by band: one fits a cache."""
        is_in_units = self.conversion == Conversion() and not self.offset
        standardize_into(out, mean, std, raw if is_in_units else map(self._in_units, raw))


@dataclass(frozen=True)
class TokenInput:
    """How tokens of one modality are read.

    Parameters
    ----------
    name
        Modality.
    codebook
        Levels of the quantizer; the vocabulary is their product.
    model
        Whose vocabulary it is, for messages.
    """

    name: str
    codebook: tuple[int, ...]
    model: str

    def layer(self, regions: Iterator[NDArray[Any]]) -> Layer:
        """Tokens of the vocabulary from the next region, and in which patches there are some.

        Patches without data take the centre of the codebook: a decoder sees all patches of a tile.
        """
        raw = next(regions)
        valid = raw[0] != NODATA
        size = math.prod(self.codebook)
        wrong = raw[:, valid & ((raw[0] < 0) | (raw[0] >= size))]
        if wrong.size:
            raise InputError(
                f"{self.name}_tokens: a block holds the token {int(wrong.max())}, expected 0 to {size - 1}, "
                f"the vocabulary of {self.name} in {self.model}, or {NODATA} for no data. Use the model that "
                "made them: model=…"
            )
        return Layer(np.where(valid, raw, _centre(self.codebook)).astype(np.int64), valid, cell=PATCH)


def _everywhere(raw: NDArray[Any], value: float) -> Mask:
    """Pixels (y, x) that are `value` in all bands; those after one in which none is are not looked at."""
    found = raw[0] == value
    for band in raw[1:]:
        if not found.any():
            break
        found &= band == value
    return np.asarray(found)


def in_patches(valid: Mask) -> Mask:
    """Patches (tile, row, column) that hold a valid pixel of (tile, y, x)."""
    tiles, height, width = valid.shape
    if valid.all():
        return np.ones((tiles, height // PATCH, width // PATCH), bool)
    patches = valid.reshape(tiles, height // PATCH, PATCH, width // PATCH, PATCH)
    return np.asarray(patches.any(axis=(2, 4)))


def _centre(codebook: tuple[int, ...]) -> int:
    """Token of the middle level in each dimension; the first dimension counts fastest, as in FSQ."""
    bases = np.cumprod((1, *codebook[:-1]))
    return int(sum(level // 2 * int(base) for level, base in zip(codebook, bases, strict=True)))

"""How a block's raw regions become what a model reads: units, offsets, nodata and masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.data.units import Conversion
from terramind_xr.data.values import check_values
from terramind_xr.engine import Layer
from terramind_xr.errors import InputError
from terramind_xr.facts import PATCH, Modality, modalities
from terramind_xr.model.scaling import standardize_by

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

    def read(self, raw: NDArray[Any], offset: NDArray[Any] | None = None) -> tuple[NDArray[np.float32], Mask]:
        """Values in model units, offset removed (band, y, x), and where they are valid (y, x)."""
        values = self.conversion.apply(raw)
        if offset is not None:
            values = values - offset.astype(np.float32)
        elif self.offset:
            values = values - np.float32(self.offset)
        valid = np.ones(values.shape[1:], bool)
        if raw.dtype.kind == "f" or self.conversion.decibel or offset is not None:
            for band in values:
                valid &= np.isfinite(band)
        own = modalities[self.name].nodata
        if own is not None:
            # One dark band can be 0 by chance; all of them are not.
            valid &= ~_everywhere(raw, own)
        if self.nodata not in (None, own):
            for band in raw:
                valid &= band != self.nodata
        return values, valid

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
        values, valid = np.empty(raw.shape, np.float32), np.empty(raw.shape[1:], bool)
        for first in range(0, raw.shape[1], _ROWS):
            rows = slice(first, first + _ROWS)
            read, valid[rows] = self.read(raw[:, rows], None if offset is None else offset[:, rows])
            standardize_by(mean, std, read, out=values[:, rows])
        if hidden is not None:
            valid &= ~hidden
        if self.check:  # what a mask hides may be anything
            check_values(self.name, raw, valid, self.conversion, self.variables, hidden)
        if not valid.all():
            np.copyto(values, 0, where=~valid)
        return Layer(values, valid)


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

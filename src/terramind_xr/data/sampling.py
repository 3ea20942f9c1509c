"""A few pixels of a scene, at places that depend on its size alone.

What metadata cannot settle is settled by looking: up to sixteen windows of 32 × 32 pixels a date. They begin
at multiples of 32 from the north-west corner, so that each lies in one chunk of the usual sizes; which pixels
they are depends neither on chunks nor on other dates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data.layout import ModalityInput
from terramind_xr.data.units import Conversion, conversion

SIDE = 32
ACROSS = 4

Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """The sampled pixels of one modality.

    Parameters
    ----------
    given
        The modality.
    raw
        (*extra, band, pixel), as the user has them.
    """

    given: ModalityInput
    raw: Array

    @classmethod
    def of(cls, given: ModalityInput) -> Sample:
        """Read the sample; this computes the chunks that it touches."""
        data = given.grid.upright(given.data)
        rows, columns = (starts(data.sizes[dim]) for dim in given.grid.dims)
        windows = [
            data.isel({given.y_dim: slice(y, y + SIDE), given.x_dim: slice(x, x + SIDE)}).variable
            for y in rows
            for x in columns
        ]
        joined: Array = np.asarray(xr.Variable.concat(windows, "window").values)  # type: ignore[no-untyped-call]
        joined = np.moveaxis(joined, 0, -3)  # (*extra, band, window, y, x)
        return cls(given, joined.reshape(*joined.shape[:-3], -1))

    @cached_property
    def conversion(self) -> Conversion:
        """From the user's units to the model's."""
        return conversion(self.given.modality, self.given.units)

    @property
    def dates(self) -> tuple[int, ...]:
        """Sizes of the dims that are neither band nor space."""
        return self.raw.shape[:-2]

    def valid(self, at: tuple[int, ...]) -> Array:
        """Pixels (band, pixel) of one date that hold data, as the user has them."""
        raw = self.raw[at]
        fills = [value for value in (self.given.nodata,) if value is not None]
        usable = ~np.isnan(raw).any(axis=0) if raw.dtype.kind == "f" else np.ones(raw.shape[1], bool)
        for value in fills:
            usable &= (raw != value).all(axis=0)
        if self.given.modality.nodata is not None:  # one dark band can be 0 by chance; all of them are not
            usable &= (raw != self.given.modality.nodata).any(axis=0)
        kept: Array = raw[:, usable]
        return kept

    def numbers(self, at: tuple[int, ...]) -> NDArray[np.float32]:
        """Valid pixels (band, pixel) of one date in the model's units, the offset still in them."""
        values = self.conversion.apply(self.valid(at))
        return values[:, np.isfinite(values).all(axis=0)]


def starts(size: int) -> list[int]:
    """First pixels of the windows along an axis.

    Examples
    --------
    >>> starts(100_000), starts(64), starts(20)
    ([12480, 37472, 62464, 87456], [0, 32], [0])
    """
    last = max(0, size - SIDE)
    centres = (size * (2 * place + 1) // (2 * ACROSS) for place in range(ACROSS))
    return sorted({min(max(0, (centre - SIDE // 2) // SIDE * SIDE), last) for centre in centres})

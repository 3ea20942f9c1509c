"""One spatial dimension of a grid: where its pixels lie, and in which steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Axis:
    """One spatial dimension of a grid.

    Parameters
    ----------
    dim, size
        Its name, and how many pixels it has.
    coordinate
        Coordinate of the pixel centres as the data holds it; None where there is none.
    step
        From one pixel to the next, in the order of the data, in units of the coordinate; None where it
        cannot be told.
    """

    dim: str
    size: int
    coordinate: xr.Variable | None = None
    step: float | None = None

    @classmethod
    def of(cls, data: xr.DataArray, dim: str, step: float | None) -> Axis:
        """Axis of a variable; `step` is that of its GeoTransform, for single pixels."""
        axis = cls(dim, data.sizes[dim], data.coords[dim].variable if dim in data.coords else None, step)
        if axis.centres is None or axis.size < 2:
            return axis
        return replace(axis, step=float(axis.centres[-1] - axis.centres[0]) / (axis.size - 1))

    @cached_property
    def centres(self) -> NDArray[np.float64] | None:
        """Places of the pixel centres; None where no coordinate of numbers tells them."""
        if self.coordinate is None or self.coordinate.dtype.kind not in "iuf":
            return None
        return np.asarray(self.coordinate.values, dtype=np.float64)

    @property
    def edge(self) -> float | None:
        """Outer edge of the first pixel; None where it cannot be told."""
        if self.centres is None or self.step is None or not self.size:
            return None
        return float(self.centres[0]) - self.step / 2

    @property
    def units(self) -> str:
        """Units that the coordinate declares, in small letters; empty without any."""
        return "" if self.coordinate is None else str(self.coordinate.attrs.get("units", "")).lower()

    @property
    def tolerance(self) -> float:
        """How far coordinates of one grid may be apart: a hundredth of a pixel, or their last bits."""
        places = np.zeros(1) if self.centres is None or not self.size else self.centres
        return max(0.01 * abs(self.step or 0.0), 1e-9 * float(np.max(np.abs(places))))

    @property
    def irregularity(self) -> str | None:
        """What is wrong with the spacing, in words; None when it is regular."""
        if self.coordinate is None or self.centres is None or self.step is None or self.size < 2:
            return None
        if not np.isfinite(self.centres).all():
            return f"coordinate {self.dim!r} holds NaN"
        gaps = np.diff(self.centres)
        # float32 northings cannot tell half a metre: what rounding does is not the user's fault.
        is_float = self.coordinate.dtype.kind == "f"
        rounding = 2 * float(np.max(np.abs(np.spacing(self.coordinate.values)))) if is_float else 0.0
        if self.step != 0 and np.max(np.abs(gaps - self.step)) <= 0.01 * abs(self.step) + rounding:
            return None
        return f"spacing along {self.dim!r} runs from {np.min(np.abs(gaps)):g} to {np.max(np.abs(gaps)):g}"

    def difference(self, other: Axis) -> str | None:
        """How it differs from an axis of the same name and size, in words; None when it does not."""
        if self.centres is None or other.centres is None or not self.size:
            return None
        shift = np.max(np.abs(self.centres - other.centres))
        return None if shift <= self.tolerance else f"coordinate {self.dim!r} differs by up to {shift:g}"

    def patches(self, size: int, *, is_backwards: bool) -> Axis:
        """Axis of patches of `size` pixels, counted from the other end where it runs backwards."""
        count = math.ceil(self.size / size)
        if self.step is None or self.edge is None:
            return Axis(self.dim, count, step=None if self.step is None else size * self.step)
        step = size * self.step
        # The last patch reaches beyond the data: at the start of an axis that runs backwards.
        start = self.edge + self.size * self.step - count * step if is_backwards else self.edge
        attrs = {} if self.coordinate is None else self.coordinate.attrs
        centres = start + step * (np.arange(count) + 0.5)
        return Axis(self.dim, count, xr.Variable(self.dim, centres, attrs), step)

    def tiles(self, dim: str, starts: tuple[int, ...], size: int, *, is_backwards: bool) -> Axis:
        """Axis called `dim` of the centres of tiles of `size` pixels, as far as they lie within this one.

        `starts` count from the other end where it runs backwards.
        """
        if self.step is None or self.edge is None:
            return Axis(dim, len(starts))
        middles = np.array([(start + min(start + size, self.size)) / 2 for start in starts])
        if is_backwards:
            middles = self.size - middles[::-1]
        attrs = {} if self.coordinate is None else self.coordinate.attrs
        return Axis(dim, len(starts), xr.Variable(dim, self.edge + self.step * middles, attrs))

    def pixels(self, size: int, count: int, *, is_backwards: bool) -> Axis:
        """Axis of `count` pixels of which `size` make a patch of this one: the inverse of `patches`."""
        if self.step is None or self.edge is None:
            return Axis(self.dim, count, step=None if self.step is None else self.step / size)
        step = self.step / size
        start = self.edge + self.size * self.step - count * step if is_backwards else self.edge
        attrs = {} if self.coordinate is None else self.coordinate.attrs
        centres = start + step * (np.arange(count) + 0.5)
        return Axis(self.dim, count, xr.Variable(self.dim, centres, attrs), step)

"""Labels of a scene: checked by their metadata, north up, with classes counted from 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data.metadata import flagged_classes, missing_value
from terramind_xr.data.placement import laid_on
from terramind_xr.errors import InputError, OptionError
from terramind_xr.finetune.tiles import Tile
from terramind_xr.scene import Scene

IGNORED = -1
"""Stands for pixels without a label, as terratorch's data modules have it by default."""


@dataclass(frozen=True)
class Labels:
    """Labels of one scene.

    Parameters
    ----------
    data
        (*extra, y, x), north up and west left; its extra dims are some of the scene's.
    classes
        Name of each code, in the order in which the codes become 0, 1, …; empty for a quantity.
    missing
        What stands for no label, besides NaN.
    """

    data: xr.DataArray
    classes: dict[int, str]
    missing: float | None

    @classmethod
    def of(cls, data: xr.DataArray, scene: Scene, classes: Mapping[int, str] | None, task: str) -> Labels:
        """Check labels against their scene; no pixel is read.

        Raises
        ------
        InputError
            They lie on another grid, or have dims that the scene does not have.
        OptionError
            Nothing says which classes there are.
        """
        remedy = "ds = ds.terramind.align()"
        data = laid_on(data, scene.grid, what="labels", whose="the scene", remedy=remedy)
        data = scene.grid.upright(data)
        for dim in set(data.dims) - set(scene.grid.dims):
            if dim not in scene.extra:
                raise InputError(
                    f"labels: {data.name!r} has the dim {dim!r}, which the inputs do not have. Select one: "
                    f"ds[{data.name!r}].isel({dim}=0)."
                )
            if not data.get_index(dim).equals(scene.extra[str(dim)].to_index()):
                raise InputError(f"labels: {data.name!r} has other places along {dim!r} than the inputs.")
        if not data.variable._in_memory and data.chunks is None:
            data = data.chunk("auto")
        own = [dim for dim in scene.extra if dim in data.dims]
        found = {} if task == "regression" else dict(classes or flagged_classes(data))
        if task == "segmentation" and not found:
            raise OptionError(
                f"nothing says which classes {data.name!r} holds (no flag_values). Say it: "
                "classes={0: 'dry', 1: 'water'}."
            )
        return cls(data.transpose(*own, *scene.grid.dims), dict(sorted(found.items())), missing_value(data))

    def read(self, tile: Tile, side: int, extra: Mapping[str, Any]) -> NDArray[Any]:
        """Labels (y, x) of a tile: int64 with -1 for none, or float32 with NaN.

        Raises
        ------
        InputError
            A code is no class.
        """
        (values,) = dask.compute(self._window(tile, side, extra).data, scheduler="synchronous")
        valid = ~np.isnan(values)
        if self.missing is not None:
            valid &= values != self.missing
        if not self.classes:
            return np.where(valid, values, np.nan).astype(np.float32)
        codes = np.array(list(self.classes))
        other = values[valid & ~np.isin(values, codes)]
        if other.size:
            raise InputError(
                f"labels: {self.data.name!r} holds the code {other[0]:g}, expected one of "
                f"{', '.join(map(str, codes))}. Name it in classes=, or say that it means no label: "
                f"ds[{self.data.name!r}].attrs['nodata'] = {other[0]:g}."
            )
        return np.where(valid, np.searchsorted(codes, values), IGNORED).astype(np.int64)

    def are_in(self, tile: Tile, side: int, extra: Mapping[str, Any]) -> Any:
        """Whether a tile holds any label; lazy if they are."""
        window = self._window(tile, side, extra).variable
        valid = window.notnull()
        return (valid if self.missing is None else valid & (window != self.missing)).any().data

    def _window(self, tile: Tile, side: int, extra: Mapping[str, Any]) -> xr.DataArray:
        y, x = self.data.dims[-2:]
        place = {dim: at for dim, at in zip(extra, tile.place, strict=True) if dim in self.data.dims}
        rows, columns = slice(tile.row, tile.row + side), slice(tile.column, tile.column + side)
        return self.data.isel({**place, y: rows, x: columns})

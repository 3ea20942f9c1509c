"""`align`: all modalities on one grid, lazily."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, overload

import xarray as xr

from terramind_xr.alignment import (
    finest_grid,
    grid_of_affine,
    laid_on,
    target_grid,
    unfit,
    unplaced,
    without_place,
)
from terramind_xr.data import Check, Report
from terramind_xr.data.layout import variable
from terramind_xr.data.trees import scene_groups
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import RESOLUTION
from terramind_xr.grid import Grid

Pieces = Mapping[str, xr.DataArray | xr.Dataset]


@overload
def align(obj: xr.DataArray, to: Any = None, resolution: float = RESOLUTION) -> xr.DataArray: ...
@overload
def align(
    obj: xr.Dataset | xr.DataTree | Pieces, to: Any = None, resolution: float = RESOLUTION
) -> xr.Dataset: ...
def align(
    obj: xr.Dataset | xr.DataArray | xr.DataTree | Pieces, to: Any = None, resolution: float = RESOLUTION
) -> xr.Dataset | xr.DataArray:
    """Bring bands and modalities of different grids onto one grid.

    Bands of 10, 20 and 60 m, another UTM zone or degrees: everything with rows and columns is laid on one
    grid. Codes and flags take the nearest pixel. Numbers are averaged where pixels get larger, and
    interpolated bilinearly otherwise; where grids differ by whole pixels, they are taken over. A pixel
    whose centre falls on no data is no data, and pixels without data take no part in others.

    Parameters
    ----------
    obj
        A Dataset, whose variables may have rows and columns of different names (``y`` and ``y_20m``); a
        DataArray; a DataTree, of which a band in several groups is taken from the finest; or a mapping
        from names to DataArrays and Datasets.
    to
        The grid: an object that lies on it (DataArray, Dataset, or odc-geo's GeoBox), or a CRS that is
        projected in metres. None takes the first grid of the object that has pixels of `resolution`. Where
        there is none, a new grid is made over the finest raster, in its CRS if that measures metres on the
        ground, else in the UTM zone of its centre.
    resolution
        Side of a pixel in metres, where `to` is not a grid. Edges of the pixels of a new grid are
        multiples of it.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        A DataArray for a DataArray, else a Dataset. dask stays dask, and no pixel is read; numpy stays
        numpy, and has the same bytes. Attributes, packing, bands and times are kept; coordinates along
        the old rows and columns are not. Integers become floats where the grid reaches beyond a raster that
        declares no value for that.

    Raises
    ------
    InputError
        A grid is irregular, its place is not known, or the data lies in radar geometry; all faults at once.
    OptionError
        `to` or `resolution` cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> def band(size, step):
    ...     axes = {"y": 5e6 - step * (np.arange(size) + 0.5), "x": 5e5 + step * (np.arange(size) + 0.5)}
    ...     data = xr.DataArray(np.ones((size, size), "uint16"), dims=("y", "x"), coords=axes)
    ...     return data.rio.write_crs("EPSG:32632")
    >>> ds = align({"B02": band(6, 10), "B05": band(3, 20), "B01": band(1 + 1, 60).isel(y=[0, 1])})
    >>> dict(ds.sizes), ds["B05"].dtype
    ({'y': 6, 'x': 6}, dtype('uint16'))
    """
    if not (isinstance(resolution, int | float) and math.isfinite(resolution) and resolution > 0):
        raise OptionError(f"resolution is {resolution!r}; expected the side of a pixel in metres.")
    ds, faults = aligned(obj, to, float(resolution))
    Report(tuple(faults)).raise_for_errors()
    if isinstance(obj, xr.DataArray):
        return ds[next(iter(ds.data_vars))].rename(obj.name)
    return ds


def aligned(obj: Any, to: Any, resolution: float) -> tuple[xr.Dataset, list[Check]]:
    """All of an object on one grid, and what hinders it: with faults, the dataset is empty."""
    parts, faults = _parts(obj)
    rasters, others = {}, {}
    for ds in parts:
        found = {str(name): variable(ds, str(name)) for name in ds.data_vars}
        mappings = {
            data.encoding.get("grid_mapping", data.attrs.get("grid_mapping")) for data in found.values()
        }
        for name, data in found.items():
            if Grid.find(data) is not None:
                rasters[name] = data
            elif name not in {*mappings, "spatial_ref"}:
                others[name] = ds[name]
    grids = {name: Grid.of(data) for name, data in rasters.items()}
    faults += [fault for name, grid in grids.items() for fault in unplaced(name, grid)]
    if not (faults or rasters):
        listed = ", ".join(others) or "none"
        faults.append(Check(
            listed, "dimensions.spatial", "error", "no variable with rows and columns",
            "two spatial dimensions, (y, x) or (lat, lon)",
            "Rename them: ds = ds.rename({'rows': 'y', 'columns': 'x'}).",
        ))  # fmt: skip
    if faults:
        return xr.Dataset(), faults
    target = target_grid(grids, _asked(to), resolution)
    faults += [fault for name, data in rasters.items() for fault in unfit(name, data, grids[name], target)]
    if faults:
        return xr.Dataset(), faults
    ds = _together({name: laid_on(data, target) for name, data in rasters.items()})
    attrs = without_place(parts[0].attrs if len(parts) == 1 else {})
    kept = {name: data.drop_vars(set(ds.coords) & set(data.coords)) for name, data in others.items()}
    return ds.assign(kept).assign_attrs(attrs), []


def _parts(obj: Any) -> tuple[list[xr.Dataset], list[Check]]:
    """Datasets of which each lies on grids of its own."""
    if isinstance(obj, xr.DataTree):
        groups, fault = scene_groups(obj)
        return groups, [] if fault is None else [fault]
    if isinstance(obj, xr.Dataset):
        return [obj], []
    if isinstance(obj, xr.DataArray):
        return [obj.to_dataset(name=obj.name if obj.name and obj.name not in obj.coords else "data")], []
    if not (isinstance(obj, Mapping) and all(isinstance(e, xr.Dataset | xr.DataArray) for e in obj.values())):
        raise InputError(
            f"the input is a {type(obj).__module__}.{type(obj).__qualname__}; expected a Dataset, DataArray, "
            'DataTree, or a mapping of such: terramind_xr.align({"S2L2A": optical, "DEM": heights}).'
        )
    banded = [name for name, each in obj.items() if isinstance(each, xr.DataArray) and "band" in each.dims]
    parts: list[xr.Dataset] = []
    for name, each in obj.items():
        if isinstance(each, xr.DataArray):
            # A dataset holds one coordinate of a name.
            each = each.rename(band=f"band_{name}") if name in banded and len(banded) > 1 else each
            each = each.to_dataset(name=name)
        parts.append(each)
    names = [str(name) for ds in parts for name in ds.data_vars]
    twice = sorted({name for name in names if names.count(name) > 1} - {"spatial_ref"})
    if twice:
        raise InputError(f"{', '.join(twice)}: in several of {', '.join(obj)}; expected once. Rename them.")
    return parts, []


def _asked(to: Any) -> Any:
    """What `to` means: a Grid, a CRS, or None."""
    if to is None:
        return None
    if isinstance(to, xr.DataArray | xr.Dataset):
        ds = to.to_dataset(name="to") if isinstance(to, xr.DataArray) else to
        found = [Grid.find(variable(ds, str(name))) for name in ds.data_vars]
        grids = [grid for grid in found if grid is not None]
        if not grids:
            raise OptionError("to has no rows and columns; expected an object with y and x coordinates.")
        grid = finest_grid([each for each in grids if each.transform is not None] or grids)
        Report(tuple(unplaced("to", grid))).raise_for_errors()
        return grid
    affine = getattr(to, "affine", getattr(to, "transform", None))
    from rasterio.crs import CRS

    try:
        if affine is not None and hasattr(to, "shape"):  # odc-geo's GeoBox
            crs = None if to.crs is None else CRS.from_user_input(str(to.crs))
            return grid_of_affine(affine, tuple(to.shape), crs)
        return CRS.from_user_input(to)
    except Exception as error:  # rasterio's CRSError, or whatever GDAL says of it
        raise OptionError(
            f"to is {to!r}, which is no grid and no CRS ({error}); expected an xarray object, a GeoBox or a "
            "CRS such as 'EPSG:32632'."
        ) from error


def _together(made: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """One dataset; coordinates that variables do not agree on are left out."""
    parts = [data.to_dataset(name=name) for name, data in made.items()]
    try:
        ds: xr.Dataset = xr.merge(parts, join="exact", compat="minimal", combine_attrs="override")
    except ValueError as error:
        raise InputError(
            f"{', '.join(made)}: other places along a dimension that they share ({error}); expected the same "
            "dates and bands. Choose them first: b = b.sel(time=a['time'], method='nearest'), "
            "then b = b.assign_coords(time=a['time'])."
        ) from error
    return ds

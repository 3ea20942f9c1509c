"""Variables of different grids brought onto one: which grid, and how the numbers get there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from terramind_xr.axis import Axis
from terramind_xr.crs import CRS_KEYS, lonlat
from terramind_xr.data import Check
from terramind_xr.data.labels import band_of
from terramind_xr.data.metadata import missing_value
from terramind_xr.data.placement import regularly
from terramind_xr.engine.warp import Lattice, Method, Warp, warp
from terramind_xr.errors import OptionError
from terramind_xr.facts import Modality, modalities
from terramind_xr.grid import Grid

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_TOLERATED = 0.01  # what `validate` lets pass as 10 m
# Names under which products carry codes or flags that nothing else declares.
_CODES = re.compile(r"(^|[_\W])(scl|mask|masks|fmask|qa\w*|flags?|class(es|ification)?|lulc)($|[_\W])", re.I)
_PLACES = re.compile(r"(proj|spatial):|(crs|transform|res|bounds|grid_mapping)$")
"""Attributes that say where pixels lie: they would outlive the grid they are of."""


def target_grid(grids: Mapping[str, Grid], to: Any, resolution: float) -> Grid:
    """The grid to bring everything onto.

    Parameters
    ----------
    grids
        Regular ones whose places are known, by variable.
    to
        A Grid, a CRS to make one in, or None: the first of pixels of `resolution`; else a new one, in the
        CRS of the finest that is projected in metres or in the UTM zone of the finest.
    resolution
        Side of a pixel in metres, where there is a choice.

    Raises
    ------
    OptionError
        A CRS that is not projected in metres.
    """
    if isinstance(to, Grid):
        return to
    metric = [grid for grid in grids.values() if _is_metric(grid)]
    finest = min(metric or grids.values(), key=_pixel)
    if to is None:
        for grid in metric:
            if all(abs(side / resolution - 1) <= _TOLERATED for side in grid.ground_resolution or ()):
                return grid
        return _snapped(lattice(finest), finest.crs if metric else _utm(finest), resolution)
    if not (to.is_projected and to.linear_units_factor[1] == 1):
        raise OptionError(
            f"to is {to}, which is not projected in metres, as resolution is; expected such a CRS, or a "
            "grid: to=ds['S2L2A']."
        )
    return _snapped(lattice(finest), to, resolution)


def finest_grid(grids: Sequence[Grid]) -> Grid:
    """The grid of the smallest pixels; the first one of several."""
    return min(grids, key=_pixel)


def grid_of_affine(affine: Any, shape: tuple[int, int], crs: Any) -> Grid:
    """Grid with dims y and x from a transform; a rotated one has no coordinates."""
    if affine.b or affine.d:
        return Grid(Axis("y", shape[0], step=affine.e), Axis("x", shape[1], step=affine.a), crs, told=affine)
    y, x = (
        Axis(dim, size, xr.Variable(dim, start + step * (np.arange(size) + 0.5)), step)
        for dim, size, start, step in (
            ("y", shape[0], affine.f, affine.e),
            ("x", shape[1], affine.c, affine.a),
        )
    )
    return Grid(y, x, crs, told=affine)


def lattice(grid: Grid) -> Lattice:
    """A grid as the engine takes it. Without a CRS, degrees are those of WGS 84."""
    crs = "EPSG:4326" if grid.crs is None and grid.is_geographic else ""
    return Lattice(crs if grid.crs is None else grid.crs.to_wkt(), tuple(grid.transform[:6]), grid.shape)


def unplaced(name: str, grid: Grid) -> list[Check]:
    """What hinders to tell where the pixels of a grid lie."""
    if grid.crs_fault is not None:
        found = f"a CRS that cannot be read ({grid.crs_fault})"
        remedy = "Write it: ds = ds.rio.write_crs('EPSG:…')."
        return [Check(name, "crs.unreadable", "error", found, "a CRS", remedy)]
    if grid.irregularity is not None:
        remedy = regularly(grid)
        return [Check(name, "resolution.irregular", "error", grid.irregularity, "a regular grid", remedy)]
    if grid.transform is None:
        remedy = f"Give it coordinates {grid.y.dim} and {grid.x.dim}, of two pixels or more."
        found = "nothing that tells where its pixels lie"
        return [Check(name, "resolution.silent", "error", found, "coordinates", remedy)]
    return []


def unfit(name: str, data: xr.DataArray, grid: Grid, target: Grid) -> list[Check]:
    """What hinders to bring a variable onto a grid."""
    if is_on(data, grid, target):
        return []
    if data.dtype.kind not in "biuf":
        remedy = f"Convert it, or leave it out: ds = ds.drop_vars({name!r})."
        return [Check(name, "dtype.unfit", "error", f"dtype {data.dtype}", "real numbers", remedy)]
    if bool(lattice(grid).crs) != bool(lattice(target).crs):
        with_crs = "it" if lattice(grid).crs else "the grid to lie on"
        found = f"a CRS of {with_crs} alone"
        remedy = "Write the other: ds = ds.rio.write_crs('EPSG:…')."
        return [Check(name, "crs.missing", "error", found, "one on both sides, or on none", remedy)]
    return []


def is_on(data: xr.DataArray, grid: Grid, target: Grid) -> bool:
    """Whether a variable lies on a grid already."""
    return bool(0 in data.shape) or (target.same_as(grid) is None and grid.transform is not None)


def laid_on(data: xr.DataArray, target: Grid) -> xr.DataArray:
    """A variable on a grid, with its own metadata; as it is where it lies there already."""
    own = Grid.of(data)
    stays = is_on(data, own, target)
    data = data.transpose(..., *own.dims)
    stale = {own.mapping, *CRS_KEYS} | {
        str(name) for name, coord in data.coords.items() if not stays and set(coord.dims) & set(own.dims)
    }
    encoding = {
        key: value for key, value in data.encoding.items()
        if key in ("_FillValue", "missing_value", "dtype", "scale_factor", "add_offset", "units", "calendar")
    }  # fmt: skip
    made = data.drop_vars(stale & set(map(str, data.coords)))
    if not stays:
        dims = (*data.dims[:-2], *target.dims)
        made = xr.DataArray(warp(data.data, _how(data, own, target)), made.coords, dims, name=data.name)
    made.attrs = {key: value for key, value in data.attrs.items() if not _PLACES.match(str(key))}
    made.encoding = encoding
    return target.assign(made)


def without_place(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes without those that say where pixels lie."""
    return {key: value for key, value in attrs.items() if not _PLACES.match(str(key)) and key not in CRS_KEYS}


def _how(data: xr.DataArray, own: Grid, target: Grid) -> Warp:
    source, aim = lattice(own), lattice(target)
    dtype, nodata = data.dtype, _nodata(data)
    method = _method(data, source, aim)
    if dtype.kind == "f":
        fill = math.nan if nodata is None else nodata
    elif nodata is not None:
        fill = nodata
    elif is_coded(data) or _covers(source, aim):
        fill = 0.0
    else:  # an integer that nothing declares would be invented beyond the edges
        dtype, nodata, fill = np.result_type(dtype, np.float32), math.nan, math.nan
    return Warp(source, aim, method, nodata, fill, dtype.str)


def _nodata(data: xr.DataArray) -> float | None:
    """Number of pixels without data: declared, or by the convention of its modality."""
    declared = missing_value(data)
    modality = _modality(data)
    if declared is None and modality is not None and data.dtype.kind in "iu":
        declared = modality.nodata
    if declared is None or data.dtype.kind == "f":
        return declared
    if data.dtype.kind == "b" or not math.isfinite(declared):
        return None
    limits = np.iinfo(data.dtype)
    return declared if limits.min <= declared <= limits.max and declared == int(declared) else None


def _modality(data: xr.DataArray) -> Modality | None:
    """Modality of a variable, or one that a variable of its name is a band of."""
    said = (str(data.attrs.get("modality")), str(data.name))
    named = next((modalities[name] for name in said if name in modalities), None)
    if named is not None:
        return named
    return next((each for each in modalities.values() if band_of(said[1], each)), None)


def is_coded(data: xr.DataArray) -> bool:
    """Whether numbers are codes or flags, of which no mean can be taken.

    Integers are, unless something says that they measure: a name of a band or modality, units, packing.
    """
    modality = _modality(data)
    is_flagged = data.dtype.kind == "b" or any(key.startswith("flag_") for key in map(str, data.attrs))
    if is_flagged or (modality is not None and modality.name == "LULC") or _CODES.search(str(data.name)):
        return True
    measures = modality is not None or {"units", "scale_factor"} & data.attrs.keys()
    return data.dtype.kind in "iu" and not (measures or "band" in data.dims)


def _method(data: xr.DataArray, source: Lattice, target: Lattice) -> Method:
    if is_coded(data) or _is_shifted_by_pixels(source, target):
        return "nearest"
    rows, cols = (size / 2 for size in target.shape)
    x, y = target.places(source, np.array([cols, cols + 1, cols]), np.array([rows, rows, rows + 1]))
    sides = np.hypot(x[1:] - x[0], y[1:] - y[0])
    return "average" if sides.max() > 1 + _TOLERATED else "bilinear"


def _is_shifted_by_pixels(source: Lattice, target: Lattice) -> bool:
    """Whether each pixel of one is a pixel of the other: numbers are taken over as they are."""
    if source.crs != target.crs:
        return False
    rows, cols = target.shape
    found = np.stack(target.places(source, np.array([0, cols, 0]), np.array([0, 0, rows])))
    origin, sides = found[:, 0], np.abs(found[:, 1:] - found[:, :1])
    is_whole = np.abs(origin - np.round(origin)).max() < _TOLERATED
    return bool(is_whole and np.abs(sides - np.diag([cols, rows])).max() < _TOLERATED)


def _samples(shape: tuple[int, int]) -> Sequence[np.ndarray[Any, Any]]:
    """Columns and rows all over a raster, its edges included."""
    return [each.ravel() for each in np.meshgrid(*(np.linspace(0, size, 33) for size in reversed(shape)))]


def _covers(source: Lattice, target: Lattice) -> bool:
    """Whether all of the target lies within the source."""
    cols, rows = target.places(source, *_samples(target.shape))
    inside = [
        (places >= -_TOLERATED) & (places <= size + _TOLERATED)
        for places, size in zip((rows, cols), source.shape, strict=True)
    ]
    return bool(np.all(inside))


def _is_metric(grid: Grid) -> bool:
    """Whether a step of its coordinates is one metre on the ground, and rows and columns follow them."""
    size, transform = grid.ground_resolution, grid.transform
    if size is None or transform.b or transform.d or (grid.crs is None and grid.is_geographic):
        return False
    if grid.crs is not None and not grid.crs.is_projected:
        return False
    steps = abs(transform.e), abs(transform.a)
    return all(abs(side / step - 1) <= _TOLERATED for side, step in zip(size, steps, strict=True))


def _pixel(grid: Grid) -> float:
    """Side of a pixel in metres; of a rotated one, in units of its CRS."""
    size = grid.ground_resolution
    return math.sqrt(abs(grid.transform.determinant)) if size is None else math.sqrt(size[0] * size[1])


def _utm(grid: Grid) -> Any:
    """UTM zone of the centre of a grid; UPS at the poles."""
    from rasterio.crs import CRS

    placed = lattice(grid)
    plane = Lattice(placed.crs, _IDENTITY, (1, 1))
    middle = (np.array([size / 2]) for size in reversed(placed.shape))
    ((lon, lat),) = lonlat(placed.crs, *placed.places(plane, *middle))
    if not -80 <= lat <= 84:
        return CRS.from_epsg(5041 if lat > 0 else 5042)
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1)


def _snapped(source: Lattice, crs: Any, resolution: float) -> Grid:
    """New grid over a raster whose pixel edges are multiples of the resolution."""
    from rasterio import Affine

    plane = Lattice("" if crs is None else crs.to_wkt(), _IDENTITY, (1, 1))
    x, y = (each[np.isfinite(each)] / resolution for each in source.places(plane, *_samples(source.shape)))
    west, south = (math.floor(each.min() + 1e-6) for each in (x, y))
    east, north = (math.ceil(each.max() - 1e-6) for each in (x, y))
    affine = Affine(resolution, 0, west * resolution, 0, -resolution, north * resolution)
    return grid_of_affine(affine, (north - south, east - west), crs)

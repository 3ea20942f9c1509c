"""The grid of a variable: dims, orientation, CRS, transform, and the true size of its pixels.

Reads no pixel. Whoever asks where data lies asks here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from terramind_xr.axis import Axis
from terramind_xr.crs import distance, find_crs
from terramind_xr.errors import InputError
from terramind_xr.facts import PATCH

_NAMES = (
    ("y", "x"),
    ("lat", "lon"),
    ("latitude", "longitude"),
    ("northing", "easting"),
    ("Y", "X"),
    ("row", "col"),
)
TILE_DIMS = ("tile_y", "tile_x")
"""Dims of results with a cell for each tile: no raster, since tiles overlap and the last ones are shifted."""

_LATITUDES = ("lat", "latitude")
# Counted from the upper left corner of an image, they grow southwards and eastwards.
_COUNTS = ("row", "col")


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the pixels of a variable lie.

    Parameters
    ----------
    y, x
        The spatial dimensions.
    crs
        `rasterio.crs.CRS`; None where none is declared or it cannot be read.
    crs_fault
        What is wrong with what is declared, where it cannot be read.
    mapping
        Name of the coordinate that holds the CRS, by CF the grid mapping.
    told
        Transform that the grid mapping holds. Coordinates count first, since it outlives a crop.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> axes = {"y": 5e6 - 10 * np.arange(20), "x": 4e5 + 10 * np.arange(40)}
    >>> grid = Grid.of(xr.DataArray(np.zeros((20, 40)), dims=("y", "x"), coords=axes))
    >>> grid.shape, grid.transform.a, grid.runs_backwards, grid.same_as(grid)
    ((20, 40), 10.0, (), None)
    >>> patches = grid.patches()
    >>> patches.shape, patches.x.centres.tolist(), (patches.transform.c, patches.transform.f)
    ((2, 3), [400075.0, 400235.0, 400395.0], (399995.0, 5000005.0))
    """

    y: Axis
    x: Axis
    crs: Any = None
    crs_fault: str | None = None
    mapping: str = "spatial_ref"
    told: Any = None

    @classmethod
    def find(cls, data: xr.DataArray) -> Grid | None:
        """Grid of a variable; None where no dims are known as rows and columns.

        They are known by their names, else as rioxarray finds them (CF attributes).
        """
        dims = _spatial_dims(data)
        if dims is None:
            return None
        name = data.encoding.get("grid_mapping", data.attrs.get("grid_mapping"))
        mapping = str(name) if name in data.coords else "spatial_ref"
        told = _geotransform(data.coords[mapping].attrs if mapping in data.coords else {})
        told = _transform_attribute(data) if told is None else told
        try:
            crs, fault = find_crs(data), None
        except ValueError as error:
            crs, fault = None, str(error)
        y = Axis.of(data, dims[0], None if told is None else told.e)
        x = Axis.of(data, dims[1], None if told is None else told.a)
        return cls(y, x, crs, fault, mapping, told)

    @classmethod
    def of(cls, data: xr.DataArray) -> Grid:
        """Grid of a variable.

        Raises
        ------
        InputError
            No dims are known as rows and columns.
        """
        found = cls.find(data)
        if found is None:
            raise InputError(
                f"{data.name}: dimensions {tuple(map(str, data.dims))}; expected two spatial ones, (y, x) or "
                "(lat, lon). Rename them: data.rename({'rows': 'y', 'columns': 'x'})."
            )
        return found

    @property
    def dims(self) -> tuple[str, str]:
        """Names of the dimensions, (y, x)."""
        return self.y.dim, self.x.dim

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.size, self.x.size

    @property
    def axes(self) -> dict[str, Axis]:
        """Both axes by their dims, y first."""
        return {self.y.dim: self.y, self.x.dim: self.x}

    @property
    def runs_backwards(self) -> tuple[str, ...]:
        """Dims that run south to north, or east to west."""
        turns = ((self.y, 1.0), (self.x, -1.0))
        return tuple(
            axis.dim
            for axis, sign in turns
            if axis.dim not in _COUNTS and axis.centres is not None and sign * (axis.step or 0.0) > 0
        )

    def upright(self, data: xr.DataArray) -> xr.DataArray:
        """Data of this grid, north up and west left."""
        return data.isel(dict.fromkeys(self.runs_backwards, slice(None, None, -1)))

    def as_stored(self, array: Any) -> Any:
        """Array (…, y, x) that is north up and west left, in the orientation of this grid."""
        for axis, dim in zip((-2, -1), self.dims, strict=True):
            if dim in self.runs_backwards:
                array = array[(..., slice(None, None, -1), *(slice(None),) * (-1 - axis))]
        return np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array

    @property
    def is_geographic(self) -> bool:
        """Whether coordinates are degrees; without a CRS, whether names or units of the axes say so."""
        if self.crs is not None:
            return bool(self.crs.is_geographic)
        return self.y.dim in _LATITUDES or self.y.units.startswith("degree")

    @property
    def irregularity(self) -> str | None:
        """What is wrong with the spacing along the dims, in words; None when it is regular."""
        return "; ".join(text for axis in (self.y, self.x) if (text := axis.irregularity)) or None

    @property
    def transform(self) -> Any:
        """`affine.Affine` from (column, row) to places, as stored; None where it cannot be told."""
        from rasterio import Affine

        if self.y.centres is None or self.x.centres is None:
            return self.told
        if self.y.edge is None or self.x.edge is None:
            return None
        return Affine(self.x.step, 0.0, self.x.edge, 0.0, self.y.step, self.y.edge)

    @property
    def lies_on_corners(self) -> bool:
        """Whether coordinates are the upper left corners of the pixels of the transform, not their centres.

        The transform outlives a crop, so that whole pixels do not matter. Of one row or column nothing is
        told: rioxarray gives it a transform of its own making.
        """
        if self.told is None:
            return False
        parts = []
        for axis, step, edge in ((self.y, self.told.e, self.told.f), (self.x, self.told.a, self.told.c)):
            if axis.centres is None or axis.size < 2 or not math.isclose(axis.step or 0, step, rel_tol=1e-6):
                return False
            parts.append((float(axis.centres[0]) - edge) / step)
        return all(abs(part - round(part)) < 0.01 for part in parts)

    @property
    def ground_resolution(self) -> tuple[float, float] | None:
        """Size of the centre pixel on the ground, (y, x) in metres; None where it cannot be told.

        Measured as geodesics on WGS 84 between neighbouring pixel centres, so that degrees, feet and map
        projections with a scale of their own (Web Mercator) come out as metres. Without a CRS the
        coordinates are taken for metres, or for degrees where names or units say so.
        """
        y, x = _centre(self.y), _centre(self.x)
        if y is None or x is None or self.y.step is None or self.x.step is None or self.crs_fault:
            return None
        steps = abs(self.y.step), abs(self.x.step)
        if self.crs is None and not self.is_geographic:
            return steps
        half = steps[0] / 2, steps[1] / 2
        lines = ((x, y - half[0], x, y + half[0]), (x - half[1], y, x + half[1], y))
        crs = "EPSG:4326" if self.crs is None else self.crs.to_wkt()
        try:
            height, width = (distance(crs, *line) for line in lines)
        except Exception:  # pyproj: a local CRS that has no place on Earth
            return steps
        return height, width

    def same_as(self, other: Grid) -> str | None:
        """How it differs from another grid, in words; None when they are the same.

        Coordinates may differ by a hundredth of a pixel: files of one grid differ in the last bits.
        """
        if self.dims != other.dims:
            return f"dimensions {self.dims} against {other.dims}"
        if self.shape != other.shape:
            return f"{self.y.size} × {self.x.size} pixels against {other.y.size} × {other.x.size}"
        for own, its in ((self.y, other.y), (self.x, other.x)):
            how = own.difference(its)
            if how is not None:
                return how
        # A CRS that cannot be read is None, and a finding of its own.
        both = None not in (self.crs, other.crs)
        return f"CRS {self.crs} against {other.crs}" if both and self.crs != other.crs else None

    def patches(self, size: int = PATCH) -> Grid:
        """Grid of the patches of `size` pixels a side, stored in the same orientation.

        Patches are counted from the north-west corner, as the model sees them, and the last ones reach
        beyond the grid where its shape is no multiple of `size`: beyond its south and east sides, which
        are the first rows and columns of a grid that runs backwards.
        """
        from rasterio import Affine

        y, x = (axis.patches(size, is_backwards=axis.dim in self.runs_backwards) for axis in (self.y, self.x))
        told = self.told
        if told is not None:  # the same corner, larger steps
            told = Affine(*(size * told.a, size * told.b, told.c), *(size * told.d, size * told.e, told.f))
        return replace(self, y=y, x=x, told=told)

    def tiles(self, starts: tuple[tuple[int, ...], tuple[int, ...]], size: int) -> Grid:
        """Grid of one cell for each tile of `size` pixels a side, with the dims `TILE_DIMS`.

        Its coordinates are the centres of what the tiles hold of the grid. `starts` are their first rows and
        columns, counted from the north-west corner; the cells lie in the grid's own orientation. They need
        not be regular.
        """
        axes = [
            axis.tiles(name, first, size, is_backwards=axis.dim in self.runs_backwards)
            for axis, name, first in zip((self.y, self.x), TILE_DIMS, starts, strict=True)
        ]
        return replace(self, y=axes[0], x=axes[1], told=None)

    def pixels(self, shape: tuple[int, int], size: int = PATCH) -> Grid:
        """Grid of `shape` pixels of which `size` a side make a patch of this one: the inverse of `patches`.

        Examples
        --------
        >>> import numpy as np, xarray as xr
        >>> axes = {"y": 5e6 - 10 * np.arange(20), "x": 4e5 + 10 * np.arange(40)}
        >>> grid = Grid.of(xr.DataArray(np.zeros((20, 40)), dims=("y", "x"), coords=axes))
        >>> grid.patches().pixels((20, 40)).same_as(grid) is None
        True
        """
        from rasterio import Affine

        y, x = (
            axis.pixels(size, count, is_backwards=axis.dim in self.runs_backwards)
            for axis, count in zip((self.y, self.x), shape, strict=True)
        )
        told = self.told
        if told is not None:
            told = Affine(*(told.a / size, told.b / size, told.c), *(told.d / size, told.e / size, told.f))
        return replace(self, y=y, x=x, told=told)

    def assign(self, data: xr.DataArray) -> xr.DataArray:
        """Give an array of this grid its coordinates and its CRS, as CF, rioxarray and GDAL read them.

        Parameters
        ----------
        data
            With the dims and the shape of the grid, whatever other dims it has. Coordinates of its own
            along these dims are replaced.

        Returns
        -------
        xarray.DataArray
            A new one around the same values.
        """
        import rioxarray  # noqa: F401  (it registers the accessor)

        data = data.copy(deep=False)
        for axis, letter in ((self.y, "Y"), (self.x, "X")):
            if axis.coordinate is not None:
                variable = axis.coordinate.copy(deep=False)
                variable.attrs = self._axis_attributes(letter) | variable.attrs
                data = data.assign_coords({axis.dim: variable})
        if self.mapping in data.coords:
            data.encoding["grid_mapping"] = self.mapping
        if self.crs is not None and data.rio.crs is None:
            data = data.rio.write_crs(self.crs, self.mapping, inplace=True)
        return self._with_geotransform(data)

    def _with_geotransform(self, data: xr.DataArray) -> xr.DataArray:
        """With a GeoTransform where coordinates do not say it all, and without one where they do.

        They do not tell the height of a single row. Of more rows, a GeoTransform would outlive a crop.
        """
        are_enough = 1 not in self.shape and self.y.centres is not None and self.x.centres is not None
        fitting = None if are_enough else self.transform
        text = None if fitting is None else " ".join(map(str, fitting.to_gdal()))
        if self.mapping in data.coords:
            reference = data.coords[self.mapping].variable.copy(deep=False)
        elif text is not None:
            reference = xr.Variable((), 0)
        else:
            return data
        kept = {key: value for key, value in reference.attrs.items() if key != "GeoTransform"}
        reference.attrs = kept if text is None else kept | {"GeoTransform": text}
        data = data.assign_coords({self.mapping: reference})
        data.encoding["grid_mapping"] = self.mapping
        return data

    def _axis_attributes(self, axis: str) -> dict[str, str]:
        """CF attributes of a spatial coordinate."""
        if self.is_geographic:
            name, units = ("latitude", "degrees_north") if axis == "Y" else ("longitude", "degrees_east")
            return {"axis": axis, "standard_name": name, "units": units}
        if self.crs is None or not self.crs.is_projected:
            return {"axis": axis}
        metres = {"units": "m"} if self.crs.linear_units_factor[1] == 1 else {}
        return {"axis": axis, "standard_name": f"projection_{axis.lower()}_coordinate", **metres}


def is_by_tile(data: xr.DataArray) -> bool:
    """Whether a result has cells of tiles, or is a row of them."""
    return bool(set(TILE_DIMS) & set(data.dims))


def _spatial_dims(data: xr.DataArray) -> tuple[str, str] | None:
    for y_dim, x_dim in _NAMES:
        if y_dim in data.dims and x_dim in data.dims:
            return y_dim, x_dim
    # Several grids in one dataset: y_20m and x_20m.
    for dim in map(str, data.dims):
        if dim.startswith("y_") and f"x_{dim[2:]}" in data.dims:
            return dim, f"x_{dim[2:]}"
    import rioxarray

    try:
        found = str(data.rio.y_dim), str(data.rio.x_dim)
    except rioxarray.exceptions.MissingSpatialDimensionError:
        return None
    return found if set(found) <= set(data.dims) else None


def _geotransform(attrs: Mapping[Any, Any]) -> Any:
    """Affine of a grid mapping; None without a readable one."""
    from rasterio import Affine

    try:
        return Affine.from_gdal(*map(float, str(attrs.get("GeoTransform", "")).split()))
    except (TypeError, ValueError):
        return None


def _transform_attribute(data: xr.DataArray) -> Any:
    """Affine that stackstac leaves among the attributes; None without a readable one."""
    from rasterio import Affine

    try:
        return Affine(*map(float, tuple(data.attrs.get("transform", ()))[:6]))
    except (TypeError, ValueError):
        return None


def _centre(axis: Axis) -> float | None:
    if axis.centres is None or axis.size < 2 or not np.isfinite(axis.centres).all():
        return None
    return float(axis.centres[axis.size // 2])

"""The grid of a variable: spatial dimensions, CRS, and the true size of its pixels. Reads no pixel."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xarray as xr

_NAMES = (
    ("y", "x"),
    ("lat", "lon"),
    ("latitude", "longitude"),
    ("northing", "easting"),
    ("Y", "X"),
    ("row", "col"),
)
_GEOGRAPHIC = ("lat", "latitude")
CRS_KEYS = ("epsg", "proj:code", "proj:epsg", "proj:wkt2")
"""Where STAC loaders leave the CRS: attributes or coordinates, scalar or one for each item."""


def spatial_dims(data: xr.DataArray) -> tuple[str, str] | None:
    """Names of the (y, x) dimensions: by name, else as rioxarray finds them (CF attributes), else None."""
    for y_dim, x_dim in _NAMES:
        if y_dim in data.dims and x_dim in data.dims:
            return y_dim, x_dim
    import rioxarray

    try:
        found = str(data.rio.y_dim), str(data.rio.x_dim)
    except rioxarray.exceptions.MissingSpatialDimensionError:
        return None
    return found if set(found) <= set(data.dims) else None


def crs_of(data: xr.DataArray) -> Any:
    """CRS as `rasterio.crs.CRS`, or None; raises ValueError when what is declared cannot be read.

    The grid mapping counts first (``spatial_ref``), then what STAC loaders say: see `CRS_KEYS`.
    """
    import rioxarray  # noqa: F401  (it registers the accessor)
    from rasterio.crs import CRS

    try:
        found = data.rio.crs
        if found is not None:
            return found
        said = {CRS.from_user_input(value) for value in _said_crs(data)}
    except Exception as error:  # rasterio's CRSError, or whatever GDAL says of a broken text
        raise ValueError(str(error)) from error
    if len(said) > 1:
        listed = ", ".join(sorted(map(str, said)))
        raise ValueError(f"several: {listed}")
    return next(iter(said), None)


def _said_crs(data: xr.DataArray) -> list[str]:
    values: list[Any] = []
    for key in CRS_KEYS:
        if key in data.attrs:
            values += np.ravel(data.attrs[key]).tolist()
        if key in data.coords and data.coords[key].chunks is None:
            values += np.ravel(data.coords[key].values).tolist()
    # NaN and None stand for items without.
    known = {str(value).strip() for value in values if value is not None and value == value} - {""}
    return sorted(f"EPSG:{float(text):.0f}" if _is_number(text) else text for text in known)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def is_geographic(crs: Any, y_dim: str) -> bool:
    """Whether coordinates are degrees; without a CRS, whether the dimension is called so."""
    return y_dim in _GEOGRAPHIC if crs is None else bool(crs.is_geographic)


def axis_values(data: xr.DataArray, dim: str) -> npt.NDArray[np.float64] | None:
    """Coordinates of the pixel centres along a dimension, in the CRS; None where there are none."""
    if dim not in data.coords or data.coords[dim].dtype.kind not in "iuf":
        return None
    return np.asarray(data.coords[dim].values, dtype=np.float64)


def irregularity(data: xr.DataArray, dim: str) -> str | None:
    """What is wrong with the spacing along a dimension, in words; None when it is regular."""
    values = axis_values(data, dim)
    if values is None or values.size < 2:
        return None
    if not np.isfinite(values).all():
        return f"coordinate {dim!r} holds NaN"
    step = (values[-1] - values[0]) / (values.size - 1)
    gaps = np.diff(values)
    # float32 northings cannot tell half a metre: what rounding does is not the user's fault.
    rounding = 2 * float(np.max(np.abs(np.spacing(data.coords[dim].values)))) if _is_float(data, dim) else 0.0
    if step != 0 and np.max(np.abs(gaps - step)) <= 0.01 * abs(step) + rounding:
        return None
    return f"spacing along {dim!r} runs from {np.min(np.abs(gaps)):g} to {np.max(np.abs(gaps)):g}"


def _is_float(data: xr.DataArray, dim: str) -> bool:
    return bool(data.coords[dim].dtype.kind == "f")


def ground_resolution(data: xr.DataArray, y_dim: str, x_dim: str) -> tuple[float, float] | None:
    """Size of the centre pixel on the ground, (y, x) in metres; None where it cannot be told.

    Measured as geodesics on WGS 84 between neighbouring pixel centres, so that degrees, feet and map
    projections with a scale of their own (Web Mercator) come out as metres. Without a CRS the coordinates
    are taken for metres, or for degrees when they are called latitude and longitude.
    """
    axes = axis_values(data, y_dim), axis_values(data, x_dim)
    y_axis, x_axis = (_around_centre(values) for values in axes)
    if y_axis is None or x_axis is None:
        return None
    y, y_step = y_axis
    x, x_step = x_axis
    crs = crs_of(data)
    if crs is None and not is_geographic(crs, y_dim):
        return abs(y_step), abs(x_step)
    points = ((x, y - y_step / 2, x, y + y_step / 2), (x - x_step / 2, y, x + x_step / 2, y))
    try:
        height, width = (_geodesic("EPSG:4326" if crs is None else crs.to_wkt(), *line) for line in points)
    except Exception:  # pyproj: a local CRS that has no place on Earth
        return abs(y_step), abs(x_step)
    return height, width


def _around_centre(values: npt.NDArray[np.float64] | None) -> tuple[float, float] | None:
    if values is None or values.size < 2 or not np.isfinite(values).all():
        return None
    return float(values[values.size // 2]), float((values[-1] - values[0]) / (values.size - 1))


def _geodesic(crs: str, x0: float, y0: float, x1: float, y1: float) -> float:
    geod, transformer = _geodesy(crs)
    (lon0, lon1), (lat0, lat1) = transformer.transform((x0, x1), (y0, y1), errcheck=True)
    return float(geod.inv(lon0, lat0, lon1, lat1)[2])


@lru_cache(maxsize=32)
def _geodesy(crs: str) -> tuple[Any, Any]:
    import pyproj

    return pyproj.Geod(ellps="WGS84"), pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def difference(
    one: xr.DataArray, one_dims: tuple[str, str], other: xr.DataArray, other_dims: tuple[str, str]
) -> str | None:
    """How the grid of `one` differs from that of `other`, in words; None when they are the same.

    Coordinates may differ by a hundredth of a pixel: files of one grid differ in the last bits.
    """
    if one_dims != other_dims:
        return f"dimensions {one_dims} against {other_dims}"
    shapes = [tuple(data.sizes[dim] for dim in one_dims) for data in (one, other)]
    if shapes[0] != shapes[1]:
        return f"{shapes[0][0]} × {shapes[0][1]} pixels against {shapes[1][0]} × {shapes[1][1]}"
    for dim in one_dims:
        here, there = axis_values(one, dim), axis_values(other, dim)
        if here is None or there is None or not here.size:
            continue
        step = abs(here[-1] - here[0]) / max(here.size - 1, 1)
        shift = np.max(np.abs(here - there))
        if not shift <= max(0.01 * step, 1e-9 * np.max(np.abs(here))):
            return f"coordinate {dim!r} differs by up to {shift:g}"
    try:
        crs = [crs_of(data) for data in (one, other)]
    except ValueError:  # a CRS that cannot be read is a finding of its own
        return None
    return f"CRS {crs[0]} against {crs[1]}" if None not in crs and crs[0] != crs[1] else None

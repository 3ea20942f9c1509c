"""The CRS that data declares, and distances in it. Reads no pixel."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

CRS_KEYS = ("epsg", "proj:code", "proj:epsg", "proj:wkt2")
"""Where STAC loaders leave the CRS: attributes or coordinates, scalar or one for each item."""


def find_crs(data: xr.DataArray) -> Any:
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


def distance(crs: str, x0: float, y0: float, x1: float, y1: float) -> float:
    """Metres between two places of a CRS, as a geodesic on WGS 84."""
    geod, transformer = _geodesy(crs)
    (lon0, lon1), (lat0, lat1) = transformer.transform((x0, x1), (y0, y1), errcheck=True)
    return float(geod.inv(lon0, lat0, lon1, lat1)[2])


def lonlat(crs: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitude and latitude on WGS 84, in degrees, of places of a CRS: (place, 2)."""
    _, transformer = _geodesy(crs)
    return np.stack(transformer.transform(x, y, errcheck=True), axis=-1)


@lru_cache(maxsize=32)
def _geodesy(crs: str) -> tuple[Any, Any]:
    import pyproj

    return pyproj.Geod(ellps="WGS84"), pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)

"""Small inputs for the tests: right ones, to be broken one thing at a time, and unreadable ones."""

from __future__ import annotations

from pathlib import Path

import dask.array
import numpy as np
import rioxarray  # noqa: F401
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from terramind_xr.facts import modalities

TILES = Path(__file__).parents[2] / "shared" / "data" / "terramesh"


def axes(height=6, width=5, step=10.0):
    """UTM coordinates of pixel centres, north up."""
    return {"y": 5_000_000.0 - step * np.arange(height), "x": 500_000.0 + step * np.arange(width)}


def plain(name, height=6, width=5, step=10.0, dtype="int16", **attrs):
    """A right (band, y, x) array of a modality; every pixel of it differs."""
    modality = modalities[name]
    shape = (len(modality.bands), height, width)
    values = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)
    coords = {"band": list(modality.band_names), **axes(height, width, step)}
    data = xr.DataArray(values, dims=("band", "y", "x"), coords=coords, name=name, attrs=attrs)
    return data.rio.write_crs("EPSG:32632")


def single(name, height=6, width=5, dtype="int16", **attrs):
    """A right (y, x) array of a modality of one band."""
    data = plain(name, height, width, dtype=dtype, **attrs)
    return data.isel(band=0, drop=True)


def split(data, names=None):
    """A dataset with a variable for each band, as odc-stac gives it."""
    names = dict(zip(data.band.values, data.band.values, strict=True)) if names is None else names
    return xr.Dataset({new: data.sel(band=band, drop=True) for band, new in names.items()})


class Unreadable(BackendArray):
    """An array on disk that must not be read."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key):
        raise AssertionError("a pixel was read")


def unreadable(data, kind):
    """The same array, unreadable: ``"dask"`` raises when computed, ``"lazy"`` when indexed for values."""
    if kind == "lazy":
        values = indexing.LazilyIndexedArray(Unreadable(data.shape, data.dtype))
        return data.copy(data=xr.Variable(data.dims, values)._data)

    def read(block):
        raise AssertionError("a pixel was read")

    return data.copy(
        data=dask.array.zeros(data.shape, data.dtype, chunks=3).map_blocks(read, dtype=data.dtype)
    )

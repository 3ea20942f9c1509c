"""Rasters as datasets, with their bands named."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Literal

import xarray as xr

from terramind_xr.data import lookup
from terramind_xr.data.labels import best_labels
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import Modality, band_dims
from terramind_xr.grid import Grid

Chunks = int | Literal["auto"] | Mapping[str, int] | None


def open_rasters(paths: Mapping[str, str | PathLike[str]], chunks: Chunks = 512) -> xr.Dataset:
    """Open a raster file for each modality, lazily, with their bands named.

    Parameters
    ----------
    paths
        File (GeoTIFF or whatever rasterio reads) by modality, all on one grid.
    chunks
        Chunk size in pixels, ``"auto"``, or sizes by dimension, as rioxarray takes them. None leaves the
        arrays lazily indexed, without dask.

    Returns
    -------
    xarray.Dataset
        It has a variable for each modality, as stored (nothing masked or scaled): (y, x) for DEM, LULC and
        NDVI, (band, y, x) for the others. The band dimension is called ``band``, or ``band_<modality>`` where
        several modalities have one: a dataset cannot hold two coordinates of one name. The attribute
        ``band_names`` of a variable is ``"file"`` where the file's own descriptions name the bands, in
        any order and with others among them, and ``"declared"`` where it has no names and the modality
        that was declared gives them, in model order. A file that names its bands may hold some of the
        modality's; what needs the others says so.

    Raises
    ------
    InputError
        A file is missing or unreadable, has another number of bands than the modality and no names for them,
        names no band of the modality, or one twice, or lies on another grid. All faults at once.
    OptionError
        A modality is unknown, no path is given, or `chunks` is something else.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, rioxarray
    >>> heights = xr.DataArray(np.ones((4, 4)), dims=("y", "x"), coords={"y": range(4), "x": range(4)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     heights.rio.to_raster(f"{folder}/dem.tif", crs="EPSG:32632")
    ...     ds = open_rasters({"DEM": f"{folder}/dem.tif"}, chunks=None).load()
    >>> ds["DEM"].dims, ds["DEM"].attrs["band_names"]
    (('y', 'x'), 'declared')
    """
    if not paths:
        raise OptionError('no files: give paths by modality, for example {"S2L2A": "scene.tif"}.')
    known = chunks in ("auto", None) or isinstance(chunks, Mapping)
    if not known and not (isinstance(chunks, int) and chunks > 0):
        raise OptionError(f"chunks is {chunks!r}; expected pixels, 'auto', sizes by dimension, or None.")
    faults: list[str] = []
    opened: dict[str, xr.DataArray] = {}
    for name, modality in [(name, lookup(name)) for name in paths]:  # unknown names come before any file
        try:
            opened[name] = _named(_read(paths[name], modality, chunks), modality, paths[name])
        except InputError as error:
            faults += error.faults
    first = next(iter(opened), "")
    for name, data in opened.items():
        how = Grid.of(data).same_as(Grid.of(opened[first]))
        if how is not None:
            faults.append(
                f"{name}: {paths[name]} lies on another grid than {first} ({how}); expected one grid. "
                "Bring them onto one: ds = terramind_xr.align({name: terramind_xr.open_rasters({name: path})"
                "[name] for name, path in paths.items()})."
            )
    if faults:
        raise InputError(faults)
    return _merged(opened)


def _read(path: str | PathLike[str], modality: Modality, chunks: Chunks) -> xr.DataArray:
    import rioxarray

    if "://" not in str(path) and not str(path).startswith("/vsi") and not Path(path).exists():
        raise InputError(f"{modality.name}: no file {str(path)!r}; expected a raster. Correct the path.")
    # Bands are used together: they stay in one chunk. (And rioxarray's own "auto" warns.)
    sizes = {"band": -1, "y": "auto", "x": "auto"} if chunks == "auto" else chunks
    try:
        data = rioxarray.open_rasterio(path, chunks=sizes)
    except Exception as error:  # rasterio's own classes, or GDAL's, or xarray's for containers
        raise InputError(
            f"{modality.name}: {str(path)!r} cannot be read as a raster ({error}); expected a GeoTIFF or "
            "another format of GDAL's. Check the file, or open it with xarray and name its variables."
        ) from error
    if not isinstance(data, xr.DataArray):
        raise InputError(
            f"{modality.name}: {str(path)!r} holds several rasters; expected one. Open it with xarray and "
            "rename its variables after the modalities or bands."
        )
    return data


def _named(data: xr.DataArray, modality: Modality, path: str | PathLike[str]) -> xr.DataArray:
    """With the bands named by the file or, where it has no names at all, by the declared modality."""
    wanted, count = modality.band_names, data.sizes["band"]
    labels, matched = best_labels(data, "band", modality)
    is_named = labels is not None and labels.is_named
    if count == len(wanted) == 1:
        is_named, matched = False, {}  # a single layer cannot be taken for another
    if not is_named and not matched and count != len(wanted):
        raise InputError(
            f"{modality.name}: {str(path)!r} has {count} bands without names; expected the {len(wanted)} "
            f"bands {', '.join(wanted)}. Select them, and write their names as band descriptions."
        )
    said = [str(value) for value in labels.values] if labels is not None else []
    wrong = [name for name, places in matched.items() if len(places) > 1] or (wanted if not matched else ())
    if (is_named or matched) and wrong:
        raise InputError(
            f"{modality.name}: {str(path)!r} names its bands {', '.join(said)}, which does not give one for "
            f"{', '.join(wrong)}; expected {', '.join(wanted)}, or some of them. Correct the band "
            "descriptions of the file."
        )
    names = list(wanted)
    if matched:
        names = said
        for name, (position,) in matched.items():
            names[position] = name
    attrs = {key: value for key, value in data.attrs.items() if key != "long_name"}
    attrs |= {"band_names": "file" if matched else "declared"}
    if len(wanted) > 1:
        data = data.assign_coords(band=names)
    else:
        data = data.isel(band=matched.get(wanted[0], [0])[0], drop=True)
    data.attrs = attrs
    return data.rename(modality.name)


def _merged(opened: Mapping[str, xr.DataArray]) -> xr.Dataset:
    dims = band_dims(opened)
    first = next(iter(opened.values()))
    ds = xr.Dataset()
    for name, data in opened.items():
        if name in dims:
            data = data.rename(band=dims[name])
        # Files of one grid differ in the last bits of their coordinates, which would not align.
        ds[name] = data.assign_coords(y=first["y"], x=first["x"])
    return ds

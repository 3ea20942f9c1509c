"""Results as Cloud Optimized GeoTIFF, with all that a GIS asks of one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.conventions import encode_cf_variable

from terramind_xr.data.labels import BAND_DIMS, band_dim, labels_along
from terramind_xr.data.metadata import missing_value, packing
from terramind_xr.engine.cog import Place, Raster, write_cog
from terramind_xr.engine.progress import square_kilometres
from terramind_xr.errors import InputError, OptionError, warn
from terramind_xr.facts import LandCoverClass, modalities
from terramind_xr.grid import Grid
from terramind_xr.legend import named_classes

Overviews = Literal[
    "auto", "nearest", "mode", "average", "rms", "bilinear", "cubic", "cubicspline", "lanczos"
]
Compression = Literal["deflate", "zstd", "lzw"]

_OWN_BAND_DIMS = ("lulc_class", "category", "feature", "coordinate")
"""Dims of results whose positions are bands of a raster."""

_KEEPS_CODES = ("nearest", "mode")
_PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value")
_PIECE = 64 * 2**20
"""Bytes of an array without chunks that are read at a time."""

# Said by the raster itself, or true of the file that data came from alone.
_NOT_TAGS = frozenset(
    {"scale_factor", "add_offset", "_FillValue", "missing_value", "nodata", "units", "long_name",
     "grid_mapping", "coordinates", "dtype", "AREA_OR_POINT", "LAYOUT", "COMPRESSION", "INTERLEAVE",
     "OVR_RESAMPLING_ALG", "scales", "offsets", "descriptions"}
)  # fmt: skip
# True of the codes that a mask was made of (lulc == 3), which keeps them, not of its 0 and 1.
_OF_CODES = {"modality", "flag_values", "flag_meanings", "flag_colors", "terramind_nodata"}


def to_raster(
    da: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    overviews: Overviews | None = "auto",
    compress: Compression | None = "deflate",
    progress: bool = True,
) -> Path:
    """Write an array to a Cloud Optimized GeoTIFF, block by block, as a GIS expects it.

    The file has the CRS, no data, band descriptions, units, overviews, and for classes their colour table
    and names. Numbers that are packed (``scale_factor``, ``add_offset``) stay packed, and the file says how.
    Attributes become tags. Data that runs south to north or east to west is written north up and west left.

    A lazy array is computed on dask's scheduler in force, in the moving window of `to_zarr`: its blocks go
    to an uncompressed file in a folder beside the target, from which GDAL makes the result. Memory does not
    follow the size of the scene. The target appears, or is replaced, when all is done.

    Parameters
    ----------
    da
        Any array (y, x), or with one more dimension whose positions become the bands, such as ``band``,
        ``lulc_class`` or ``feature``. Other dimensions have one position. Spatial dims may have any name
        that `generate` accepts. Floats have NaN for no data, unless they say otherwise; LULC codes 0, tokens
        65535. True and false become 1 and 0, float16 becomes float32.
    path
        Local file. What was there is replaced.
    overviews
        How overviews are made. ``"auto"`` is ``"nearest"`` for classes, tokens and whatever integers may be
        codes, and ``"average"`` for quantities. None makes none.
    compress
        Lossless compression; None for none.
    progress
        Whether to show how far it is, on a cluster too: blocks, km²/s where the CRS is projected, and the
        time left. It is a bar in a terminal or notebook, and elsewhere a line a minute to standard error.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        `da` is no DataArray, is empty, holds no numbers, has no rows and columns, unequal steps along them,
        or more dimensions than bands, rows and columns.
    OptionError
        An option is unknown, overviews would average classes, or the file cannot be written there.

    Warns
    -----
    TerramindWarning
        Nothing says where the array lies: it has no CRS, or no coordinates.

    Examples
    --------
    >>> import tempfile, rasterio, terramind_xr
    >>> lulc = terramind_xr.synthetic.scene(100).terramind.generate("LULC", model="demo")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = lulc.terramind.to_raster(f"{folder}/lulc.tif", progress=False)
    ...     with rasterio.open(path) as file:
    ...         file.shape, file.nodata, file.crs.to_epsg(), file.colormap(1)[1][:3]
    ((100, 100), 0.0, 32632, (65, 155, 223))
    """
    data = _checked(da)
    target = _checked_path(path)
    _check_choice("overviews", overviews, get_args(Overviews))
    _check_choice("compress", compress, get_args(Compression))
    grid = _checked_grid(data)
    band = _bands(data, grid)
    data = data.squeeze([dim for dim in data.dims if dim not in (*grid.dims, band)])
    data = data.transpose(*(() if band is None else (band,)), *grid.dims)
    raster = _place(_describe(data, band, grid), grid)
    raster = replace(raster, resampling=_resampling(data, raster, overviews))
    turned = data.variable.isel({dim: slice(None, None, -1) for dim in _turns(grid)})
    pieces = _pieces(turned, raster) if turned.chunks is None else _encoded(turned, raster.dtype).data
    area = square_kilometres(grid)
    write_cog(pieces, raster, target, compress=compress, progress=progress, area=area)
    return target


def _checked(da: Any) -> xr.DataArray:
    if not isinstance(da, xr.DataArray):
        names = [repr(name) for name in da.data_vars] if isinstance(da, xr.Dataset) else ["'LULC'"]
        raise InputError(
            f"to_raster writes a DataArray, found {type(da).__name__}. Pick one variable, and a file for "
            f"each: ds[{names[0] if names else ''}].terramind.to_raster(…)."
        )
    if da.dtype.kind not in "biufc":
        raise InputError(
            f"{da.name}: found dtype {da.dtype}, expected numbers. Convert it: da.astype('float32')."
        )
    if 0 in da.shape:
        raise InputError(f"{da.name}: found no pixel ({dict(da.sizes)}), expected some. Widen the selection.")
    return da


def _checked_path(path: Any) -> Path:
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str) or "://" in text or text.startswith("/vsi"):
        raise OptionError(
            f"path is {path!r}; expected a local file, such as 'map.tif'. Write there, and copy the file."
        )
    target = Path(os.path.abspath(os.path.expanduser(text)))
    if target.is_dir():
        raise OptionError(f"path is the folder {text!r}; expected a file in it, such as '{text}/map.tif'.")
    return target


def _check_choice(option: str, value: Any, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise OptionError(f"{option} is {value!r}; expected one of {', '.join(map(repr, known))}, or None.")


def _checked_grid(data: xr.DataArray) -> Grid:
    grid = Grid.of(data)
    if grid.irregularity is not None:
        y, x = grid.dims
        raise InputError(
            f"{data.name}: {grid.irregularity}; a GeoTIFF has equal steps. Resample it, for example with "
            f"da.interp({y}=…, {x}=…, method='nearest'), or store it with to_zarr, which keeps coordinates."
        )
    return grid


def _bands(data: xr.DataArray, grid: Grid) -> str | None:
    """The dimension whose positions become bands; None where there is none."""
    rest = [str(dim) for dim in data.dims if dim not in grid.dims]
    known = [band_dim(data, grid.dims), *(dim for dim in _OWN_BAND_DIMS if dim in rest)]
    band = next((dim for dim in known if dim is not None), None)
    longer = [dim for dim in rest if data.sizes[dim] > 1 and dim != band]
    if band is None and len(longer) == 1 and not _is_time(data, longer[0]):
        return longer[0]
    if longer:
        found = ", ".join(f"{dim} ({data.sizes[dim]})" for dim in longer)
        choice = ", ".join(f"{dim}=0" for dim in longer)
        beside = ", ".join(filter(None, (band, *grid.dims)))
        raise InputError(
            f"{data.name}: found the dimensions {found} beside {beside}, expected bands, rows and columns "
            f"alone. Write a file for each: da.isel({choice})."
        )
    # A single band is a map, whose classes have colours.
    return None if band is None or data.sizes[band] == 1 else band


def _is_time(data: xr.DataArray, dim: str) -> bool:
    return dim == "time" or (dim in data.coords and data.coords[dim].dtype.kind == "M")


def _turns(grid: Grid) -> tuple[str, ...]:
    """Dims that are to be turned, so that the raster is north up and west left."""
    told = grid.told
    if grid.y.centres is not None or grid.x.centres is not None or told is None or told.b or told.d:
        return grid.runs_backwards
    return tuple(dim for dim, turn in zip(grid.dims, (told.e > 0, told.a < 0), strict=True) if turn)


def _place(raster: Raster, grid: Grid) -> Raster:
    """With CRS and transform; a warning tells what is not known."""
    transform = _transform(grid)
    lacks = []
    if transform is None:
        lacks.append(f"no coordinates of pixels (da.assign_coords({grid.y.dim}=…, {grid.x.dim}=…))")
    if grid.crs is None:
        fault = f", the declared one cannot be read: {grid.crs_fault}" if grid.crs_fault else ""
        lacks.append(f"no CRS (da.rio.write_crs('EPSG:…')){fault}")
    if lacks:
        warn(f"The raster is written without a place on Earth: found {', and '.join(lacks)}.")
    return replace(raster, crs=grid.crs, transform=transform)


def _transform(grid: Grid) -> Any:
    """Transform of the raster as it is written; None where nothing tells it."""
    from rasterio import Affine

    found, told = grid.transform, grid.told
    rows, columns = grid.shape
    if found is None:
        return None
    if told is not None and found is not told:
        # Coordinates follow from it, but for the last bits.
        gap = np.abs(np.subtract(found[:6], told[:6])) * (columns, rows, 1, columns, rows, 1)
        found = told if gap.max() <= 0.01 * min(abs(found.a), abs(found.e)) else found
    a, b, c, d, e, f = found[:6]
    turns = _turns(grid)
    if grid.y.dim in turns:
        b, c, e, f = -b, c + rows * b, -e, f + rows * e
    if grid.x.dim in turns:
        a, c, d, f = -a, c + columns * a, -d, f + columns * d
    # Else rows are counted from the top: these are no places.
    return Affine(a, b, c, d, e, f) if b or d or (a > 0 and e < 0) else None


def _describe(data: xr.DataArray, band: str | None, grid: Grid) -> Raster:
    """What the raster says of its numbers, but for its place."""
    blank = xr.Variable(data.dims, np.empty((0,) * data.ndim, data.dtype), data.attrs, data.encoding)
    stored = xr.DataArray(_encoded(blank, None), name=data.name)
    count = 1 if band is None else data.sizes[band]
    scale, offset = packing(stored.attrs)
    is_coded = stored.dtype.kind in "iu" and band is None and (scale, offset) == (1.0, 0.0)
    classes = {each.code: each for each in named_classes(data)} if is_coded else {}
    return Raster(
        (count, *grid.shape),
        str(stored.dtype),
        None if data.dtype.kind == "b" else _nodata(stored),
        None,
        None,
        scale,
        offset,
        _units(data, count),
        _descriptions(data, band),
        colors=_color_table(classes, stored.dtype),
        categories={code: each.name for code, each in classes.items() if 0 <= code <= 65535},
        tags=_tags(data),
        predicts=stored.dtype.kind != "c" and _is_quantity(data),
    )


def _encoded(variable: xr.Variable, dtype: str | None) -> xr.Variable:
    """Numbers as they are in the file, packed by the encoding."""
    if variable.dtype.kind == "b":
        variable = variable.astype("uint8")
    encoding = {} if "_Unsigned" in variable.encoding else variable.encoding
    variable = variable.copy(deep=False)
    variable.encoding = {
        key: encoding[key] for key in _PACKING if key in encoding and key not in variable.attrs
    }
    found = encode_cf_variable(variable)
    if found.dtype == "float16":  # GDAL's came late
        found = found.astype("float32")
    dtype = dtype or found.dtype.newbyteorder("=")  # netCDF 3 gives the other one
    return found.astype(dtype, copy=False)


def _nodata(stored: xr.DataArray) -> float | None:
    """Number of pixels without data; None where the type cannot hold it, so that no pixel has it."""
    value = missing_value(stored)
    if value is None and stored.dtype.kind == "f":
        return math.nan
    if value is None or stored.dtype.kind not in "iu":
        return value
    limits = np.iinfo(stored.dtype)
    return value if limits.min <= value <= limits.max and float(value).is_integer() else None


def _units(data: xr.DataArray, count: int) -> tuple[str | None, ...]:
    units = data.attrs.get("units")
    if isinstance(units, list | tuple | np.ndarray):  # rioxarray gives one for each band
        return tuple(map(str, units)) if len(units) == count else ()
    return () if units is None else (str(units),) * count


def _descriptions(data: xr.DataArray, band: str | None) -> tuple[str | None, ...]:
    """What is seen as the name of each band."""
    if band is None:
        chosen = [data.coords[dim] for dim in (*BAND_DIMS, *_OWN_BAND_DIMS) if dim in data.coords]
        texts = [str(each.item()) for each in chosen if not each.dims and each.dtype.kind in "OUT"]
        title = next(iter(texts), data.attrs.get("long_name", data.name))
        return (str(title) if isinstance(title, str) else None,)
    named = [labels.values for labels in labels_along(data, band) if labels.is_named]
    if named:
        return tuple(map(str, named[0]))
    if band in BAND_DIMS:
        return ()
    return tuple(f"{band} {value}" for value in data[band].values)


def _color_table(classes: Mapping[int, LandCoverClass], dtype: Any) -> dict[int, tuple[int, int, int]]:
    """Colours by code, of the types that TIFF has colour tables for."""
    if dtype not in ("uint8", "uint16"):
        return {}
    return {code: _rgb(each.color) for code, each in classes.items() if 0 <= code <= np.iinfo(dtype).max}


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.lstrip("#")[:6])
    return red, green, blue


def _tags(data: xr.DataArray) -> dict[str, str]:
    """Attributes and, of one date, its time, as text that rioxarray reads back."""
    hidden = _NOT_TAGS | (_OF_CODES if data.dtype.kind == "b" else set())
    found = {str(key): value for key, value in data.attrs.items() if key not in hidden}
    if "time" in data.coords and not data.coords["time"].dims:
        found.setdefault("time", str(data.coords["time"].values))
    # GDAL ends a name at a colon.
    return {
        key.replace(":", "_"): text
        for key, value in found.items()
        if "=" not in key
        and not key.startswith(("STATISTICS_", "TIFFTAG_"))
        and (text := _text(value)) is not None
    }


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | np.ndarray) and all(np.ndim(each) == 0 for each in value):
        # rioxarray reads numbers back as floats: written again, they are to be the same.
        whole = np.asarray(value).dtype.kind == "f" and all(float(each).is_integer() for each in value)
        texts = [_text(int(each) if whole else each) for each in np.asarray(value).tolist()]
        return "{" + ",".join(text for text in texts if text is not None) + "}"
    if isinstance(value, bool | int | float | np.generic):
        return str(value.item() if isinstance(value, np.generic) else value)
    return None


def _resampling(data: xr.DataArray, raster: Raster, overviews: Overviews | None) -> str | None:
    is_quantity = _is_quantity(data)
    if overviews == "auto":
        return "average" if is_quantity else "nearest"
    if overviews is not None and overviews not in _KEEPS_CODES and raster.categories:
        raise OptionError(
            f"overviews is {overviews!r}, which makes new codes of classes; expected 'nearest' or 'mode'. "
            "Leave it at 'auto'."
        )
    return overviews


def _is_quantity(data: xr.DataArray) -> bool:
    """Whether a mean of two numbers means something; of integers only where something says so."""
    if data.dtype.kind in "fc":
        return "flag_values" not in data.attrs  # codes where classes were masked: lulc.where(…)
    if data.dtype.kind == "b" or "terramind_tokens" in data.attrs or named_classes(data):
        return False
    name = str(data.attrs.get("modality", data.name))
    return name in modalities or "units" in data.attrs or packing(data.attrs) != (1.0, 0.0)


def _pieces(variable: xr.Variable, raster: Raster) -> Iterator[tuple[Place, NDArray[Any]]]:
    """An array without chunks in strips of rows, so that one on disk is never loaded whole."""
    bands, height, width = raster.shape
    rows = max(256, _PIECE // (bands * width * variable.dtype.itemsize) // 256 * 256)
    before = (slice(0, bands),) * (variable.ndim - 2)
    for start in range(0, height, rows):
        place = (*before, slice(start, min(start + rows, height)), slice(0, width))
        yield place, _encoded(variable[place], raster.dtype).values

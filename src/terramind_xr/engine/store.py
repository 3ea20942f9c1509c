"""Results to Zarr, block by block; the root comes last, so that only a finished store opens."""

from __future__ import annotations

import datetime
import json
import os
import uuid
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.conventions import encode_cf_variable
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath
from zarr.storage._common import make_store_path

from terramind_xr.conventions import group_attributes
from terramind_xr.engine.run import compute_in_window
from terramind_xr.errors import InputError, OptionError, warn

Data = TypeVar("Data", xr.Dataset, xr.DataArray)

# How values are packed. All else in an encoding (chunks, compressors, filters) belongs to the file that the
# data came from, often of another format.
_PACKING = frozenset(
    {"dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "units", "calendar",
     "grid_mapping", "coordinates"}
)  # fmt: skip


def to_zarr(obj: Data, store: Any, *, progress: bool = True) -> Data:
    """Compute a lazy object, write it to a new Zarr store (format 3) block by block, and open that.

    It runs on dask's scheduler in force: threads of this process, or the cluster of a
    ``dask.distributed.Client``. Blocks are worked on in a window that moves over the scene, so that peak
    memory depends on the size of a block, the number of threads, one row of margins, and the input chunks
    that a row of blocks touches; `plan` gives the numbers. Chunks of unequal size are cut anew, to the
    largest of them.

    A store opens only once it is finished: its root is written last.

    Parameters
    ----------
    obj
        Any dask-backed Dataset or DataArray, such as a result of `generate` or what was derived from it.
    store
        Path, URL or Zarr store that holds no data yet.
    progress
        Whether to show a progress bar; a cluster shows its own, on the dashboard.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        The finished store, opened lazily: what follows reads it, and does not run the model again.

    Raises
    ------
    InputError
        `obj` is neither Dataset nor DataArray, or a variable holds objects that cannot be written as text.
    OptionError
        The store holds data, is no store, or cannot be written. Nothing in it is touched.

    Warns
    -----
    TerramindWarning
        Coordinates of Python objects were written as JSON text, or left out.

    Examples
    --------
    >>> import tempfile, terramind_xr
    >>> lulc = terramind_xr.synthetic.scene(100).terramind.generate("LULC", model="demo")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lulc = lulc.terramind.to_zarr(f"{folder}/map.zarr", progress=False)
    ...     lulc.shape, lulc.rio.crs.to_epsg()
    ((100, 100), 32632)
    """
    if not isinstance(obj, xr.Dataset | xr.DataArray):
        raise InputError(
            f"to_zarr writes a Dataset or a DataArray, found {type(obj).__name__}. Give it names and "
            "coordinates: xr.DataArray(values, dims=('y', 'x'), name='map')."
        )
    ds = obj.to_dataset(name=obj.name or "data") if isinstance(obj, xr.DataArray) else obj
    target = _empty_store(store)
    ds = _storable(_without_objects(ds))
    ds = ds.assign_attrs(group_attributes(ds))
    lazy = [name for name, variable in ds.variables.items() if variable.chunks is not None and variable.size]
    root = _write_skeleton(ds, lazy, target)
    if lazy:
        sources = {name: encode_cf_variable(ds.variables[name], name=name).data for name in lazy}
        compute_in_window(
            [_writing(source, target / str(name)) for name, source in sources.items()], progress
        )
    sync((target / "zarr.json").set(root))
    stored: xr.Dataset = xr.open_zarr(target, decode_coords="all")
    return stored if isinstance(obj, xr.Dataset) else stored[obj.name or "data"]


def _without_objects(ds: xr.Dataset) -> xr.Dataset:
    """With what Zarr has no type for as text: Python objects, as STAC loaders leave them, as JSON."""
    ds, converted, left = ds.copy(), [], []
    for name, variable in ds.variables.items():
        if variable.dtype.kind not in "OU" or (variable.chunks is not None and name in ds.data_vars):
            continue
        is_lazy = variable.chunks is not None
        objects = (variable.compute(scheduler="synchronous") if is_lazy else variable).astype(object)
        # Text of fixed width has no specification in Zarr 3.
        objects.encoding = {key: value for key, value in variable.encoding.items() if key != "dtype"}
        if not _is_of_one_kind(objects.values):
            try:
                texts = [json.dumps(each, default=_plain) for each in objects.values.ravel()]
            except (TypeError, ValueError):
                if name in ds.data_vars:
                    raise InputError(
                        f"{name!r} holds Python objects, expected numbers or text. Leave it out: "
                        f"ds.drop_vars({name!r})."
                    ) from None
                left.append(name)
                continue
            objects.values = np.array([*texts, None], dtype=object)[:-1].reshape(objects.shape)
            converted.append(name)
        elif variable.dtype.kind == "O" and not is_lazy:
            continue
        ds[name] = objects
    for names, done in ((converted, "written as JSON text"), (left, "left out")):
        if names:
            warn(
                f"Coordinates of Python objects, which Zarr cannot hold, are {done}: "
                f"{', '.join(map(str, names))}. Drop them if they are of no use: ds.drop_vars({names})."
            )
    return ds.drop_vars(left)


_STORED = frozenset(
    {"string", "bytes", "boolean", "integer", "floating", "mixed-integer-float", "datetime", "datetime64",
     "timedelta", "timedelta64", "empty"}
)  # fmt: skip
"""What pandas calls arrays of objects that xarray stores as they are."""


def _is_of_one_kind(values: NDArray[Any]) -> bool:
    """Whether xarray stores these objects as they are: text, numbers or times, but no mixture of them."""
    is_cftime = values.size > 0 and all(hasattr(each, "calendar") for each in values.flat)
    return is_cftime or pd.api.types.infer_dtype(values.ravel(), skipna=True) in _STORED


def _plain(value: Any) -> Any:
    """What JSON knows no name for, as what it knows."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, datetime.date | np.datetime64):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _storable(ds: xr.Dataset) -> xr.Dataset:
    """With chunks that Zarr takes (equal, the last one may be smaller), and encodings of values alone."""
    ds = ds.copy()
    for name, variable in ds.variables.items():
        if variable.chunks is not None and any(_uneven(sizes) for sizes in variable.chunks):
            # Directly and by tasks: the way over larger chunks, or over disk, would hold the whole scene.
            regular = tuple(max(sizes) if _uneven(sizes) else sizes for sizes in variable.chunks)
            ds[name] = variable.copy(data=variable.data.rechunk(regular, threshold=1e9, method="tasks"))
        ds[name].encoding = {key: value for key, value in variable.encoding.items() if key in _PACKING}
    ds.encoding = {}
    return ds


def _uneven(sizes: tuple[int, ...]) -> bool:
    return any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]


def _empty_store(store: Any) -> StorePath:
    """The place to write to, whatever it was given as, if nothing is there."""
    if isinstance(store, os.PathLike) or (
        isinstance(store, str) and "://" not in store and "::" not in store
    ):
        # Workers may run in other folders.
        store = os.path.abspath(os.path.expanduser(store))
    try:
        target = sync(make_store_path(store, mode="a"))
        empty = sync(target.is_empty())
    except (FileExistsError, NotADirectoryError):
        empty = False
    except OSError as error:
        raise OptionError(
            f"The store {str(store)!r} cannot be written: {error}. Give a path where you may write."
        ) from None
    except TypeError:
        raise OptionError(f"store is {store!r}; expected a path, a URL, or a Zarr store.") from None
    if not empty:
        raise OptionError(
            f"The store {str(store)!r} exists already and holds data (it may be what a broken run left). "
            "Give another path, or delete it first."
        )
    return target


def _write_skeleton(ds: xr.Dataset, lazy: list[Hashable], target: StorePath) -> Buffer:
    """Write all but the lazy values and the root, which is returned, with all metadata consolidated."""
    files: dict[str, Buffer] = {}
    variables = {name: ds.variables[name] for name in lazy}
    # Without values: that dask graph is not the one to be run.
    empty = {
        name: variable.copy(data=da.zeros(variable.shape, dtype=variable.dtype, chunks=variable.chunks))
        for name, variable in variables.items()
    }
    ds.assign(empty).to_zarr(MemoryStore(files), mode="w", zarr_format=3, consolidated=False, compute=False)
    root = json.loads(files.pop("zarr.json").to_bytes())
    # In the order of the data: zarr creates several arrays at a time.
    metadata = {str(name): json.loads(files[f"{name}/zarr.json"].to_bytes()) for name in ds.variables}
    # As `zarr.consolidate_metadata` does, which warns. Without it, each later xr.open_zarr warns.
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    for key, value in files.items():
        sync((target / key).set(value))
    return default_buffer_prototype().buffer.from_bytes(json.dumps(root).encode())


def _writing(source: da.Array, target: StorePath) -> da.Array:
    array = zarr.open_array(target, mode="r+")
    # `name`: two runs must not be taken for one.
    meta = np.empty((0,) * source.ndim, source.dtype)
    return source.map_blocks(_write, array, name=f"terramind-store-{uuid.uuid4().hex}", meta=meta)


def _write(chunk: Any, array: zarr.Array[Any], block_info: Any = None) -> None:
    array[tuple(slice(*borders) for borders in block_info[0]["array-location"])] = chunk

"""Results to Zarr, block by block; the root comes last, so that only a finished store opens.

What a broken run leaves is gone on with: the ledger in the store says whose it is and what is finished.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Hashable
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.layers import ArraySliceDep
from xarray.conventions import encode_cf_variable
from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath
from zarr.storage._common import make_store_path

from terramind_xr.engine.faults import writable, writing_chunk
from terramind_xr.engine.identity import Identity, differences, identity, origins_of
from terramind_xr.engine.ledger import Chunks, DamagedLedgerError, Ledger, buffer, is_empty
from terramind_xr.engine.progress import Progress, square_kilometres
from terramind_xr.engine.run import compute_in_window, is_in_this_process
from terramind_xr.engine.storable import check_storable, chunk_sizes, in_chunks, storable
from terramind_xr.errors import InputError, OptionError, warn
from terramind_xr.grid import Grid

Data = TypeVar("Data", xr.Dataset, xr.DataArray)


def write(obj: Data, store: Any, *, resume: bool, progress: bool) -> Data:
    """Write an object into a store and open that; see `terramind_xr.to_zarr`."""
    ds = obj.to_dataset(name=obj.name or "data") if isinstance(obj, xr.DataArray) else obj
    check_storable(ds)
    target = _opened(store)
    ledger = Ledger.of(target)
    is_broken = _is_broken(target, ledger, store, resume)
    origins = origins_of(ds)
    ds = storable(ds)
    lazy = [name for name, variable in ds.variables.items() if variable.chunks is not None and variable.size]
    _check_shared(target, [ds.variables[name].data for name in lazy])
    leftovers: list[str] = []
    files, root = _skeleton(ds, lazy)  # before anything is touched: not everything can be encoded
    if ledger is not None:
        own = {str(name): chunk_sizes(ds.variables[name]) for name in lazy}
        chunks, is_first = _claim(ledger, identity(ds, lazy, origins), own, store)
        if chunks != own:
            ds = ds.assign({name: in_chunks(ds.variables[name], chunks[str(name)]) for name in lazy})
            files, root = _skeleton(ds, lazy)
        if not is_first:
            _look_at_unknown([str(name) for name in lazy if name not in origins], store, is_broken)
        if is_broken:
            leftovers = ledger.leftovers()
    with writable(store):
        for key, value in files.items():
            sync((target / key).set(value))
    _write_chunks(ds, lazy, target, ledger, progress)
    with writable(store):
        sync((target / "zarr.json").set(root))
    if ledger is not None:
        ledger.remove(leftovers)
    # Icechunk keeps no metadata twice: xarray would look for it, and warn.
    consolidated = None if getattr(target.store, "supports_consolidated_metadata", True) else False
    stored: xr.Dataset = xr.open_zarr(target, decode_coords="all", consolidated=consolidated)
    return stored if isinstance(obj, xr.Dataset) else stored[obj.name or "data"]


def _opened(store: Any) -> StorePath:
    """The place to write to, whatever it was given as."""
    if isinstance(store, str):
        store = store.removeprefix("file://")  # fsspec makes no folders there
    if isinstance(store, os.PathLike) or (
        isinstance(store, str) and "://" not in store and "::" not in store
    ):
        # Workers may run in other folders.
        store = os.path.abspath(os.path.expanduser(store))
    try:
        with writable(store):
            try:
                return sync(make_store_path(store, mode="a"))
            except (FileExistsError, NotADirectoryError):
                raise _full(store) from None
    except ValueError as error:
        raise OptionError(f"The store {str(store)!r} cannot be written: {error}") from None
    except TypeError:
        raise OptionError(f"store is {store!r}; expected a path, a URL, or a Zarr store.") from None


def _full(store: Any) -> OptionError:
    remedy = (
        "Take back what is not committed (session.discard_changes()), or give a session of another branch."
        if hasattr(store, "session")
        else "Give another path, or delete it first."
    )
    return OptionError(f"The store {str(store)!r} exists already and holds data. {remedy}")


def _check_shared(target: StorePath, arrays: list[da.Array]) -> None:
    """Refuse what lives in one process where others compute: they would write to copies of it."""
    if all(map(is_in_this_process, arrays)):
        return
    if hasattr(target.store, "session"):
        raise OptionError(
            f"The store {str(target)!r} is an Icechunk session, which one process writes to. Use threads: "
            "with dask.config.set(scheduler='threads'). Or write to a plain Zarr store on the cluster, and "
            "that, opened, to the session."
        )
    protocol = getattr(getattr(target.store, "fs", None), "protocol", ())
    if isinstance(target.store, MemoryStore) or "memory" in protocol:
        raise OptionError(
            f"The store {str(target)!r} is in the memory of this process; expected one that all workers "
            "share, as each would write to a copy of its own. Give a path or a URL. Or use threads: with "
            "dask.config.set(scheduler='threads')."
        )


def _is_broken(target: StorePath, ledger: Ledger | None, store: Any, resume: bool) -> bool:
    """Whether a broken run lies there; raise OptionError for other data, or if it is not to be resumed."""
    with writable(store):
        try:
            if is_empty(target):
                return False
        except NotADirectoryError:
            raise _full(store) from None
    if ledger is None or sync((target / "zarr.json").exists()):
        raise _full(store)
    try:
        found = ledger.read()
    except DamagedLedgerError as error:
        if ledger.is_alone():  # as it was torn when it was written first
            return False
        raise OptionError(
            f"The store {str(store)!r} holds a broken run whose ledger cannot be used: {error}. Give another "
            "path, or delete it first."
        ) from None
    if found is None:
        if ledger.is_alone():
            return False
        raise _full(store)
    if not resume:
        raise OptionError(
            f"The store {str(store)!r} holds a broken run. Go on with it by resume=True, give another path, "
            "or delete it first."
        )
    return True


_NAMED = 6


def _claim(ledger: Ledger, ours: Identity, own: Chunks, store: Any) -> tuple[Chunks, bool]:
    """Bind the store to this run, or find that it is bound to it.

    Sizes of the chunks that it has there, and whether this call is the first of the run.
    """
    with writable(store):
        theirs, chunks, is_first = ledger.begin(ours, own)
    found = differences(ours, theirs)
    if found:
        more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
        raise OptionError(
            f"The store {str(store)!r} holds a broken run of something else. Given here: "
            f"{'; '.join([*found[:_NAMED], *more])}. Give the same again to go on with it, or another path, "
            "or delete it first."
        )
    return chunks, is_first


def _look_at_unknown(names: list[str], store: Any, is_broken: bool) -> None:
    """Warn that a broken run may be another one; raise OptionError if it began at the same time as this."""
    if names and not is_broken:
        raise OptionError(
            f"Another call has just begun to write the store {str(store)!r}, and only metadata can be "
            f"compared for {', '.join(names)}. Give another path, or wait for the other call."
        )
    if names:
        warn(
            f"A broken run is gone on with. Metadata alone can be compared for {', '.join(names)} (names, "
            "shapes, dtypes, coordinates, attributes), not what the values are computed from. If that has "
            "changed, delete the store and write it again."
        )


def _skeleton(ds: xr.Dataset, lazy: list[Hashable]) -> tuple[dict[str, Buffer], Buffer]:
    """All but the lazy values, by key, and apart from it the root, with all metadata consolidated."""
    files: dict[str, Buffer] = {}
    variables = {name: ds.variables[name] for name in lazy}
    # Without values and in one chunk: that dask graph is not the one to be run.
    empty = {
        name: variable.copy(data=da.zeros(variable.shape, dtype=variable.dtype, chunks=-1))
        for name, variable in variables.items()
    }
    for name, variable in variables.items():
        empty[name].encoding["chunks"] = tuple(chunk_sizes(variable))
    memory = MemoryStore(files)
    try:
        ds.assign(empty).to_zarr(memory, mode="w", zarr_format=3, consolidated=False, compute=False)
    except (TypeError, ValueError) as error:  # xarray says in a note which variable it is
        notes = [str(note).split(" with value")[0] for note in getattr(error, "__notes__", ())]
        told = ". ".join(text.rstrip(".") for text in (str(error), *notes))
        raise InputError(
            f"The object cannot be stored: {told}. Mend that, or leave the variable out: ds.drop_vars(…). "
            "Nothing was written."
        ) from error
    root = json.loads(files.pop("zarr.json").to_bytes())
    # In the order of the data: zarr creates several arrays at a time.
    metadata = {str(name): json.loads(files[f"{name}/zarr.json"].to_bytes()) for name in ds.variables}
    # As `zarr.consolidate_metadata` does, which warns. Without it, each later xr.open_zarr warns.
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return files, buffer(json.dumps(root))


def _write_chunks(
    ds: xr.Dataset, lazy: list[Hashable], target: StorePath, ledger: Ledger | None, progress: bool
) -> None:
    """Compute and write all chunks that are not finished."""
    arrays = {str(name): zarr.open_array(target / str(name), mode="r+") for name in lazy}
    finished = ledger.finished(arrays) if ledger else {}
    writing, done = [], set()
    for name in lazy:
        source = encode_cf_variable(ds.variables[name], name=name).data
        each = _writing(source, str(name), arrays[str(name)], ledger)
        writing.append(each)
        done |= {(each.name, *place) for place in finished.get(str(name), ())}
    total = sum(each.npartitions for each in writing)
    if len(done) < total:
        area = _area([ds[name] for name in lazy])
        with Progress("to_zarr", total, before=len(done), area=area, shown=progress) as bar:
            compute_in_window(writing, bar, done)


def _area(variables: list[xr.DataArray]) -> float | None:
    """Square kilometres of the largest variable, all its dates; None where that cannot be told."""
    found = [
        area
        for each in variables
        if (area := square_kilometres(Grid.find(each), scenes=each.sizes.get("time", 1))) is not None
    ]
    return max(found, default=None)


def _writing(source: da.Array, variable: str, array: zarr.Array[Any], ledger: Ledger | None) -> da.Array:
    # `name`: two runs must not be taken for one.
    name, meta = f"terramind-store-{uuid.uuid4().hex}", np.empty((0,) * source.ndim, source.dtype)
    axes = tuple(range(source.ndim))
    # Not by `map_blocks`, which lists all chunks to tell where each lies.
    where = ArraySliceDep(source.chunks)
    rest = (variable, None, array, None, ledger, None)
    return da.blockwise(
        _write, axes, source, axes, where, axes, *rest, name=name, meta=meta, align_arrays=False
    )


def _write(
    chunk: Any, where: tuple[slice, ...], variable: str, array: zarr.Array[Any], ledger: Ledger | None
) -> None:
    _check_seen(array.store_path)
    with writing_chunk(variable, where, array.store_path, stays=ledger is not None):
        array[where] = chunk
        if ledger is not None:
            place = tuple(axis.start // size for axis, size in zip(where, array.chunks, strict=True))
            ledger.mark(variable, place, np.asarray(chunk, array.dtype))


def _check_seen(place: StorePath) -> None:
    """Refuse a place where this process does not find what was written there before the run.

    A chunk that it wrote would stay here, and be the fill value to all who read the store.
    """
    if not sync((place / "zarr.json").exists()):
        raise OptionError(
            f"A worker does not see the store {str(place)!r}: it finds nothing there, expected the array "
            "that the call has begun. Give a path or a URL that all workers share. If they do share it, the "
            "store was deleted while the run was at work: make the same call again."
        )

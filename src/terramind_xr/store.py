"""Results to Zarr, block by block."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import dask.system
import xarray as xr
from dask.highlevelgraph import HighLevelGraph

from terramind_xr.errors import OptionError
from terramind_xr.graph import in_sequence


def to_zarr(obj: xr.Dataset | xr.DataArray, store: Any, *, progress: bool = True) -> None:
    """Compute a lazy object and write it to a new Zarr store (format 3), one block at a time.

    Runs on dask's scheduler in force: threads of this process, or the cluster of a
    ``dask.distributed.Client``. Blocks are worked on in a window that moves over the scene, so that peak
    memory depends on the size of a block, the number of threads and one row of margins.

    Parameters
    ----------
    obj
        Any dask-backed Dataset or DataArray, e.g. a result of `generate` or what was derived from it.
    store
        Path, URL or Zarr store. It must not hold data yet.
    progress
        Whether to show a progress bar.

    Raises
    ------
    OptionError
        If the store exists; nothing in it is touched.

    Examples
    --------
    >>> import tempfile, terramind_xr, xarray as xr
    >>> lulc = terramind_xr.synthetic.scene(100).terramind.generate("LULC", model="demo")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lulc.terramind.to_zarr(f"{folder}/map.zarr", progress=False)
    ...     xr.open_zarr(f"{folder}/map.zarr").LULC.shape
    (100, 100)
    """
    ds = obj.to_dataset(name=obj.name or "data") if isinstance(obj, xr.DataArray) else obj.copy()
    for variable in ds.variables.values():
        # Chunks of the file the data came from; the store takes those of the blocks.
        for key in ("chunks", "preferred_chunks", "shards"):
            variable.encoding.pop(key, None)
    if isinstance(store, str | os.PathLike) and Path(store).exists():
        raise OptionError(f"The store {str(store)!r} exists already. Give another path, or delete it first.")
    client = _client()
    ds = _streamed(ds, threads=sum(client.nthreads().values()) if client else _local_threads())
    with warnings.catch_warnings():
        # Without it, each later xr.open_zarr warns that it is not there.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        write = ds.to_zarr(store, mode="w-", compute=False, zarr_format=3, consolidated=True)
    if client is None:
        from dask.diagnostics import ProgressBar

        with ProgressBar(dt=0.5) if progress else contextlib.nullcontext():
            write.compute()
    else:
        from distributed import progress as show

        future = client.compute(write)
        if progress:
            show(future)
        future.result()


def _streamed(ds: xr.Dataset, threads: int) -> xr.Dataset:
    """Blocks in a moving window, wide enough to keep every thread at work."""
    arrays = {name: array.data for name, array in ds.data_vars.items() if isinstance(array.data, da.Array)}
    if not arrays:
        return ds
    merged = HighLevelGraph.merge(*(array.__dask_graph__() for array in arrays.values()))
    graph = in_sequence(merged, ahead=2 * threads)
    return ds.assign(
        {
            name: ds[name].copy(data=da.Array(graph, array.name, array.chunks, meta=array._meta))
            for name, array in arrays.items()
        }
    )


def _local_threads() -> int:
    return int(dask.config.get("num_workers", None) or dask.system.CPU_COUNT)


def _client() -> Any:
    """Client of a cluster that dask would use now, or None."""
    try:
        from distributed import default_client

        return default_client()
    except (ImportError, ValueError):
        return None

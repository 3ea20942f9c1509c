"""Results to Zarr, block by block."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from pathlib import Path
from typing import Any

import dask
import xarray as xr
from dask.diagnostics import ProgressBar
from dask.system import CPU_COUNT

from terramind_xr.errors import OptionError
from terramind_xr.window import optimize


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
        Whether to show a progress bar; a cluster shows its own, on the dashboard.

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
    threads = sum(client.nthreads().values()) if client else dask.config.get("num_workers", CPU_COUNT)
    bar = ProgressBar(dt=0.5) if progress and client is None else contextlib.nullcontext()
    # Twice the threads: wide enough to keep every one at work.
    window = functools.partial(optimize, ahead=2 * threads)
    with warnings.catch_warnings(), dask.config.set(array_optimize=window), bar:
        # Without it, each later xr.open_zarr warns that it is not there.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        ds.to_zarr(store, mode="w-", zarr_format=3, consolidated=True)


def _client() -> Any:
    """Client of a cluster that dask would use now, or None."""
    try:
        from distributed import default_client

        return default_client()
    except (ImportError, ValueError):
        return None

"""Results to Zarr, block by block."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import xarray as xr

from terramind_xr.errors import OptionError


def to_zarr(obj: xr.Dataset | xr.DataArray, store: Any, *, progress: bool = True) -> None:
    """Compute a lazy object and write it to a new Zarr store (format 3), one block at a time.

    Runs on dask's scheduler in force: threads of this process, or the cluster of a
    ``dask.distributed.Client``.

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
    with warnings.catch_warnings():
        # Without it, each later xr.open_zarr warns that it is not there.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        write = ds.to_zarr(store, mode="w-", compute=False, zarr_format=3, consolidated=True)
    client = _client()
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


def _client() -> Any:
    """Client of a cluster that dask would use now, or None."""
    try:
        from distributed import default_client

        return default_client()
    except (ImportError, ValueError):
        return None

"""`to_zarr`: a result into a Zarr store, block by block."""

from __future__ import annotations

from typing import Any, TypeVar

import xarray as xr

from terramind_xr.errors import InputError

Data = TypeVar("Data", xr.Dataset, xr.DataArray)


def to_zarr(obj: Data, store: Any, *, resume: bool = True, progress: bool = True) -> Data:
    """Compute a lazy object, write it to a new Zarr store (format 3) block by block, and open that.

    It runs on dask's scheduler in force: threads of this process, or the cluster of a
    ``dask.distributed.Client``. Blocks are worked on in a window that moves over the scene, so that peak
    memory depends on the size of a block, the number of threads, one row of margins, and the input chunks
    that a row of blocks touches; `plan` gives the numbers. Chunks of unequal size are cut anew, to the
    largest of them.

    A store opens only once it is finished: its root is written last. If a run breaks, the same call goes on
    with it: it reads what is there, computes only the chunks that are missing (and the blocks beside them
    whose margins those need), and the bytes are those of one run. For that, the call reads 64 values of each
    input of a result first; by them, the options, the digests of the weights, coordinates, attributes, shapes
    and dtypes it knows its own run again, however the input is chunked.

    Parameters
    ----------
    obj
        Any dask-backed Dataset or DataArray, such as a result of `generate` or what was derived from it.
    store
        Path, URL or Zarr store that holds no data yet, or a broken run of the same.
    resume
        Whether to go on with a broken run; if not, a store that holds one is refused. Stores that cannot
        delete objects are not gone on with.
    progress
        Whether to show how far it is, on a cluster too: blocks, km²/s where the CRS is projected, and the
        time left. It is a bar in a terminal or notebook, and elsewhere a line a minute to standard error.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        The finished store, opened lazily: what follows reads it, and does not run the model again.

    Raises
    ------
    InputError
        `obj` is neither Dataset nor DataArray, a variable holds objects that cannot be written as text, its
        name is no key of a store (``"B08/B04"``), a dimension has a MultiIndex, or xarray cannot encode it.
    OptionError
        The store holds data, or a broken run of another object (the message names what differs), is no store,
        or cannot be written. Nothing in it is touched.

    Warns
    -----
    TerramindWarning
        Coordinates or attributes of Python objects were written as text, or left out. Or a broken run is gone
        on with of which only metadata can be compared: variables that are no untouched results of this
        package.

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
    from terramind_xr.engine.store import write  # zarr is slow to import

    return write(obj, store, resume=resume, progress=progress)

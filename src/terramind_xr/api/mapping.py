"""From a kernel to labelled arrays: the last steps of every verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr

from terramind_xr.api.memory import Heavy, fitted
from terramind_xr.api.start import Start, extra_shape
from terramind_xr.engine import ORIGIN, Field, Kernel, Origin, Tiling, map_tiles
from terramind_xr.errors import warn
from terramind_xr.grid import Grid
from terramind_xr.label import label
from terramind_xr.options import get_options


def mapped(
    start: Start, kernel: Heavy, tiling: Tiling, *, batch_size: int, made: Mapping[str, Any]
) -> list[xr.DataArray]:
    """Labelled outputs of a kernel over a scene; lazy if the scene is, else computed.

    Under the option ``memory_limit`` blocks and batches may be smaller than asked for; attributes tell.

    Parameters
    ----------
    start
        Scene or token raster.
    kernel
        What is done to its blocks.
    tiling
        How it is cut.
    batch_size
        Tiles to one run.
    made
        Attributes that say how, beside those of start and tiling.
    """
    limit = get_options().memory_limit
    if limit is not None:
        cut = fitted(start, kernel, tiling, batch_size, limit)
        tiling, batch_size = cut.tiling, cut.batch_size
    sources = start.sources(tiling)
    arrays: Sequence[Any] = map_tiles(
        sources, kernel, tiling, extra=extra_shape(start), batch_size=batch_size
    )
    if not start.is_lazy:
        # The data is in this process already: a cluster's client is not asked.
        arrays = dask.compute(*arrays, scheduler="threads")
        _warn_if_empty(kernel, arrays)
    attrs = {
        **made,
        "terramind_overlap": tiling.y.overlap,
        "terramind_batch_size": batch_size,
        "terramind_block": tiling.y.block,
        **{f"terramind_{key}": value for key, value in start.provenance().items()},
    }
    results = []
    for output, array in zip(kernel.outputs, arrays, strict=True):
        field = kernel.fields[output.field]
        grid = _grid_of(field, start.grid, tiling)
        turned, beside = start.grid.as_stored(array), field.is_raster and field.cell == start.cell
        result = label(output, turned, start.like, grid, beside=beside, extra=start.extra, attrs=attrs)
        if start.is_lazy:
            result.encoding[ORIGIN] = Origin.of(result.data, sources, kernel, tiling, batch_size)
        results.append(result)
    return results


def _grid_of(field: Field, pixels: Grid, tiling: Tiling) -> Grid:
    """Grid of what is finished from a field: pixels, patches or tiles."""
    if not field.is_raster:
        return pixels.tiles((tiling.y.starts, tiling.x.starts), tiling.y.tile)
    return pixels if field.cell == 1 else pixels.patches()


def _warn_if_empty(kernel: Kernel, arrays: Sequence[Any]) -> None:
    """Say so when a computed scene holds nothing but nodata."""

    def empty(array: Any, nodata: float | None) -> bool:
        return bool((np.isnan(array) if nodata is None else array == nodata).all())

    if all(empty(array, output.nodata) for output, array in zip(kernel.outputs, arrays, strict=True)):
        warn(
            "The scene holds no valid pixel (all are nodata, NaN or masked), so the result is all nodata. "
            "Look with terramind_xr.validate, and at the mask."
        )

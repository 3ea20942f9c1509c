"""The lazy graph: tiles of a scene through any block kernel, merged across block borders.

One block computes the tiles that start in its output chunk, each exactly once. Where no other block's
tiles reach, it finishes the chunk at once; only the sums of the strips that it shares with neighbours
wait for them, so that little memory is held. Building it makes no task: see `terramind_xr.engine.layer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from terramind_xr.engine.blocks import Work
from terramind_xr.engine.kernel import Field, Kernel
from terramind_xr.engine.layer import Chunked, Tasks, TileLayer
from terramind_xr.engine.tiling import Tiling


@dataclass(frozen=True)
class Source:
    """An input array (*extra, band, y, x).

    Parameters
    ----------
    array
        Lazy array; its own chunks do not matter.
    axes
        For each of its extra axes, the number of the extra axis of the result that it follows.
    cell
        Pixels along the side of one of its cells: 1 for pixels, 16 for the patch grid.
    name
        For messages.
    """

    array: da.Array
    axes: tuple[int, ...] = ()
    cell: int = 1
    name: str = "data"


def map_tiles(
    sources: Sequence[Source],
    kernel: Kernel,
    tiling: Tiling,
    *,
    extra: tuple[int, ...] = (),
    batch_size: int = 8,
) -> list[da.Array]:
    """Run a kernel over all tiles of a scene and blend, lazily.

    Parameters
    ----------
    sources
        Inputs of one scene, each (*extra, band, y, x), in pixels or in patches.
    kernel
        What is done to the tiles.
    tiling
        Where the tiles lie, in pixels of the scene.
    extra
        Shape of the extra axes of the results (e.g. time); each place along them is a scene of its own.
    batch_size
        Tiles to one call of ``kernel.run``.

    Returns
    -------
    list of dask.array.Array
        One for each of ``kernel.outputs``: (*extra, *pixel, y, x) in the cells of its field, in chunks of a
        block. Of a field with one value a tile, y and x count the tiles of the first pass.
    """
    cells = {1, *(source.cell for source in sources), *(field.cell for field in kernel.fields)}
    tilings = {cell: tiling.in_cells(cell) for cell in cells}
    inputs = tuple(
        Chunked(source.array.name, source.array.chunks, source.axes, tilings[source.cell])
        for source in sources
    )
    own = tuple(source.cell for source in sources)
    token = tokenize(kernel, tiling, extra, batch_size, inputs, own)
    names = tuple(source.name for source in sources)
    work = Work(kernel, tilings, own, names, batch_size, token)
    tasks = Tasks(work, inputs, extra)
    graph = HighLevelGraph.from_collections(
        work.key, TileLayer(tasks, work.shared), dependencies=[source.array for source in sources]
    )
    return [
        _as_array(tasks, index, graph, _chunks(kernel.fields[output.field], tilings))
        for index, output in enumerate(kernel.outputs)
    ]


def _as_array(
    tasks: Tasks, index: int, shared: HighLevelGraph, spatial: tuple[tuple[int, ...], tuple[int, ...]]
) -> da.Array:
    """An output, whose layer stands on the one that all outputs share."""
    name, output = tasks.work.chunks[index], tasks.work.kernel.outputs[index]
    graph = HighLevelGraph(
        {**shared.layers, name: TileLayer(tasks, (name,))},
        {**shared.dependencies, name: {tasks.work.key}},
    )
    chunks = (*((1,) * size for size in tasks.extra), *((size,) for size in output.pixel), *spatial)
    meta = np.empty((0,) * len(chunks), dtype=output.dtype)
    return da.Array(graph, name, chunks=chunks, meta=meta)


def _chunks(field: Field, tilings: dict[int, Tiling]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks of a field along y and x."""
    if field.is_raster:
        tiling = tilings[field.cell]
        return tiling.y.chunks, tiling.x.chunks
    return tilings[1].y.tile_chunks, tilings[1].x.tile_chunks

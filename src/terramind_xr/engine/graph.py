"""The lazy graph: tiles of a scene through any block kernel, merged across block borders.

One block computes the tiles that start in its output chunk, each exactly once. Where no other block's
tiles reach, it finishes the chunk at once; only the sums of the strips that it shares with neighbours
wait for them, so that little memory is held.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from terramind_xr.engine.blocks import Work, finish_chunk, margin, run_block
from terramind_xr.engine.kernel import Field, Kernel, Output
from terramind_xr.engine.tiling import AxisTiling, Tiling

_Keys = dict[tuple[int, ...], list[Any]]


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
    arrays = [_cut(source.array, tilings[source.cell]) for source in sources]
    axes, own = [source.axes for source in sources], tuple(source.cell for source in sources)
    token = tokenize(kernel, tiling, extra, batch_size, [array.name for array in arrays], axes, own)
    shared = Work(kernel, tilings, own, batch_size, token)
    work = TaskRef(f"terramind-work-{token}")
    tasks: dict[Any, Any] = {work.key: DataNode(work.key, shared)}
    pieces = {cell: _piece_ranges(each) for cell, each in tilings.items()}
    for place in np.ndindex(*extra):
        at = [tuple(place[axis] for axis in source) for source in axes]
        for row, col in np.ndindex(*tiling.shape):
            if (row, col) in pieces[1]:
                key = (shared.block, *place, row, col)
                refs = [
                    _piece_refs(array.name, lead, *pieces[cell][row, col])
                    for array, lead, cell in zip(arrays, at, own, strict=True)
                ]
                tasks[key] = Task(key, run_block, work, row, col, List(*refs))
        incoming, outgoing = _add_margins(tasks, shared, tiling, place)
        for row, col in np.ndindex(*tiling.shape):
            key = (shared.block, *place, row, col)
            block = TaskRef(key) if key in tasks else None
            margins = List(*map(TaskRef, incoming[row, col]))
            # Waiting for the margins it hands out as well frees the block once its chunk is finished:
            # left to itself, dask would cut them when a neighbour asks, and keep whole rows of blocks.
            wait = List(*map(TaskRef, outgoing[row, col]))
            for index, (name, output) in enumerate(zip(shared.chunks, kernel.outputs, strict=True)):
                key = (name, *place, *(0 for _ in output.pixel), row, col)
                if kernel.fields[output.field].is_raster:
                    rest = block, margins, wait
                elif block is not None:
                    rest = block, List(), List()
                else:
                    continue
                tasks[key] = Task(key, finish_chunk, work, index, len(extra), row, col, *rest)
    return [
        _as_array(name, output, tasks, arrays, _chunks(kernel.fields[output.field], tilings), extra)
        for name, output in zip(shared.chunks, kernel.outputs, strict=True)
    ]


def _as_array(
    name: str,
    output: Output,
    tasks: dict[Any, Any],
    arrays: list[da.Array],
    spatial: tuple[tuple[int, ...], tuple[int, ...]],
    extra: tuple[int, ...],
) -> da.Array:
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=arrays)
    chunks = (*((1,) * size for size in extra), *((size,) for size in output.pixel), *spatial)
    meta = np.empty((0,) * len(chunks), dtype=output.dtype)
    return da.Array(graph, name, chunks=chunks, meta=meta)


def _chunks(field: Field, tilings: dict[int, Tiling]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks of a field along y and x."""
    if field.is_raster:
        tiling = tilings[field.cell]
        return tiling.y.chunks, tiling.x.chunks
    return tilings[1].y.tile_chunks, tilings[1].x.tile_chunks


def _cut(array: da.Array, tiling: Tiling) -> da.Array:
    """Source in the pieces that blocks read, so that neighbours share strips and not whole blocks."""
    pieces = tuple(tuple(np.diff(axis.cuts).tolist()) for axis in (tiling.y, tiling.x))
    extra = tuple((1,) * size for size in array.shape[:-3])
    # "tasks": the other method of a cluster's client would hold the whole scene on disk.
    cut: da.Array = array.rechunk((*extra, (array.shape[-3],), *pieces), method="tasks")
    return cut


def _piece_ranges(tiling: Tiling) -> dict[tuple[int, int], tuple[range, range]]:
    """Which pieces each block with tiles reads."""

    def ranges(axis: AxisTiling) -> list[range | None]:
        number = {cut: index for index, cut in enumerate(axis.cuts)}
        extents = [axis.extent(block) for block in range(axis.blocks)]
        return [
            range(number[min(extent.start, axis.size)], number[min(extent.stop, axis.size)])
            if extent
            else None
            for extent in extents
        ]

    rows, cols = ranges(tiling.y), ranges(tiling.x)
    return {
        (i, j): (row, col)
        for (i, row), (j, col) in itertools.product(enumerate(rows), enumerate(cols))
        if row is not None and col is not None
    }


def _piece_refs(name: str, lead: tuple[int, ...], rows: range, cols: range) -> Any:
    return List(*(List(*(TaskRef((name, *lead, 0, i, j)) for j in cols)) for i in rows))


def _add_margins(
    tasks: dict[Any, Any], work: Work, tiling: Tiling, place: tuple[int, ...]
) -> tuple[_Keys, _Keys]:
    """Add the tasks that cut margins for the neighbours; return their keys by chunk and by block."""
    incoming: _Keys = {chunk: [] for chunk in np.ndindex(*tiling.shape)}
    outgoing: _Keys = {chunk: [] for chunk in np.ndindex(*tiling.shape)}
    for row, col in incoming:
        for i, j in itertools.product(tiling.y.touching(row), tiling.x.touching(col)):
            if (i, j) == (row, col):
                continue
            key = (work.margin, *place, i, j, row, col)
            tasks[key] = Task(key, margin, TaskRef((work.block, *place, i, j)), row, col)
            incoming[row, col].append(key)
            outgoing[i, j].append(key)
    return incoming, outgoing

"""The lazy graph: tiles of a scene through any block kernel, blended across block borders.

One block computes the tiles that start in its output chunk, each exactly once. Where no other block's
tiles reach, it finishes the chunk at once; only the sums of the strips that it shares with neighbours
wait for them, so that little memory is held. Nothing here knows what the kernel does; it is given as an
object with three methods (`Kernel`), so that tiling and blending are tested with trivial ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask.array as da
import numpy as np
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from terramind_xr.tiling import WEIGHT_ONE, AxisTiling, Interval, TilePlace, Tiling

Array = NDArray[Any]
_Keys = dict[tuple[int, ...], list[Any]]


@dataclass(frozen=True)
class Output:
    """One result of a kernel: its name, the channels it blends, and the shape and dtype of a pixel.

    Parameters
    ----------
    name
        Names the tasks.
    channels
        Leading axis of a tile's prediction, e.g. the 10 class probabilities of LULC.
    pixel
        Axes that stand before y and x in the finished array: ``()`` for a map, ``(12,)`` for 12 bands.
    dtype
        Of the finished array.
    """

    name: str
    channels: int
    pixel: tuple[int, ...]
    dtype: str


class Kernel(Protocol):
    """What is done to a block; frozen, picklable, and tokenised by its fields."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What `run` returns, in order."""

    def load(self, regions: list[Array]) -> tuple[list[Array], list[NDArray[np.bool_]]]:
        """Arrays for `run` (band, y, x) and their valid pixels (y, x), from the raw regions."""

    def run(
        self, pixels: list[Array], valid: list[NDArray[np.bool_]], places: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Predictions (tile, channel, y, x) of a batch: pixels (tile, band, y, x), places (tile, 2)."""

    def finish(self, index: int, blended: NDArray[np.float64], valid: NDArray[np.bool_]) -> Array:
        """Finished array (*pixel, y, x) of output `index` from the blended channels."""


@dataclass(frozen=True)
class Source:
    """An input array (*extra, band, y, x).

    Parameters
    ----------
    array
        Lazy array; its own chunks do not matter.
    axes
        For each of its extra axes, the number of the extra axis of the result that it follows.
    """

    array: da.Array
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Work:
    """All that the tasks of one call share; one node of the graph."""

    kernel: Kernel
    tiling: Tiling
    batch_size: int


@dataclass(frozen=True)
class _Part:
    """Weighted sums and valid pixels of a window; `sums` is None where no tile was run."""

    y: Interval
    x: Interval
    sums: tuple[NDArray[np.float64], ...] | None
    valid: NDArray[np.bool_]

    def __sizeof__(self) -> int:
        # What dask's scheduler reads to balance memory.
        return self.valid.nbytes + sum(array.nbytes for array in self.sums or ())

    def window(self, y: Interval, x: Interval) -> _Part:
        """Copy of a smaller window, so that the whole can be freed."""
        at = (..., y.within(self.y), x.within(self.x))
        sums = None if self.sums is None else tuple(array[at].copy() for array in self.sums)
        return _Part(y, x, sums, self.valid[at].copy())


@dataclass(frozen=True)
class _Block:
    """What a block hands on: finished outputs of its inner pixels, and parts by the chunk they fall on."""

    inner: tuple[Array, ...]
    parts: dict[tuple[int, int], list[_Part]]

    def __sizeof__(self) -> int:
        parts = sum(part.__sizeof__() for shared in self.parts.values() for part in shared)
        return parts + sum(array.nbytes for array in self.inner)


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
        Inputs on one grid, each (*extra, band, y, x).
    kernel
        What is done to the tiles.
    tiling
        Where the tiles lie; its size is that of the sources.
    extra
        Shape of the extra axes of the results (e.g. time); each place along them is a scene of its own.
    batch_size
        Tiles to one call of ``kernel.run``.

    Returns
    -------
    list of dask.array.Array
        One for each of ``kernel.outputs``: (*extra, *pixel, y, x), in chunks of a block.
    """
    arrays = [_cut(source.array, tiling) for source in sources]
    axes = [source.axes for source in sources]
    token = tokenize(kernel, tiling, extra, batch_size, [array.name for array in arrays], axes)
    work = TaskRef(f"terramind-work-{token}")
    tasks: dict[Any, Any] = {work.key: DataNode(work.key, _Work(kernel, tiling, batch_size))}
    names = [f"terramind-{output.name}-{token}" for output in kernel.outputs]
    pieces = _piece_ranges(tiling)
    for place in np.ndindex(*extra):
        at = [tuple(place[axis] for axis in source) for source in axes]
        for row, col in np.ndindex(*tiling.shape):
            if (row, col) in pieces:
                key = (f"terramind-block-{token}", *place, row, col)
                refs = [
                    _piece_refs(array.name, lead, *pieces[row, col])
                    for array, lead in zip(arrays, at, strict=True)
                ]
                tasks[key] = Task(key, _run_block, work, row, col, List(*refs))
        incoming, outgoing = _add_margins(tasks, token, tiling, place)
        for row, col in np.ndindex(*tiling.shape):
            key = (f"terramind-block-{token}", *place, row, col)
            block = TaskRef(key) if key in tasks else None
            margins = List(*map(TaskRef, incoming[row, col]))
            # Waiting for the margins it hands out as well frees the block once its chunk is finished:
            # left to itself, dask would cut them when a neighbour asks, and keep whole rows of blocks.
            wait = List(*map(TaskRef, outgoing[row, col]))
            for index, (name, output) in enumerate(zip(names, kernel.outputs, strict=True)):
                key = (name, *place, *(0 for _ in output.pixel), row, col)
                tasks[key] = Task(key, finish_chunk, work, index, len(extra), row, col, block, margins, wait)
    return [
        _as_array(name, output, tasks, arrays, tiling, extra)
        for name, output in zip(names, kernel.outputs, strict=True)
    ]


def _as_array(
    name: str,
    output: Output,
    tasks: dict[Any, Any],
    arrays: list[da.Array],
    tiling: Tiling,
    extra: tuple[int, ...],
) -> da.Array:
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=arrays)
    chunks = (
        *((1,) * size for size in extra),
        *((size,) for size in output.pixel),
        tiling.y.chunks,
        tiling.x.chunks,
    )
    meta = np.empty((0,) * len(chunks), dtype=output.dtype)
    return da.Array(graph, name, chunks=chunks, meta=meta)


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
    tasks: dict[Any, Any], token: str, tiling: Tiling, place: tuple[int, ...]
) -> tuple[_Keys, _Keys]:
    """Add the tasks that cut margins for the neighbours; return their keys by chunk and by block."""
    incoming: _Keys = {chunk: [] for chunk in np.ndindex(*tiling.shape)}
    outgoing: _Keys = {chunk: [] for chunk in np.ndindex(*tiling.shape)}
    for row, col in incoming:
        for i, j in itertools.product(tiling.y.touching(row), tiling.x.touching(col)):
            if (i, j) == (row, col):
                continue
            key = (f"terramind-margin-{token}", *place, i, j, row, col)
            tasks[key] = Task(key, _margin, TaskRef((f"terramind-block-{token}", *place, i, j)), row, col)
            incoming[row, col].append(key)
            outgoing[i, j].append(key)
    return incoming, outgoing


def _extent(axis: AxisTiling, block: int) -> Interval:
    extent = axis.extent(block)
    assert extent is not None, "only blocks with tiles compute or hand out margins"
    return extent


def _run_block(work: _Work, row: int, col: int, pieces: list[list[list[Array]]]) -> _Block:
    """Run one block: finish its inner pixels, and hand on the sums of those it shares."""
    whole = _sum_tiles(work, row, col, pieces)
    tiling = work.tiling
    shared = {}
    for i, j in itertools.product(_reached(tiling.y, row), _reached(tiling.x, col)):
        windows = (
            _strips(tiling, i, j) if (i, j) == (row, col) else [(tiling.y.output(i), tiling.x.output(j))]
        )
        shared[i, j] = [whole.window(y & whole.y, x & whole.x) for y, x in windows]
    y, x = tiling.y.inner(row), tiling.x.inner(col)
    finished = [_finish_window(work, index, y, x, [whole]) for index in range(len(work.kernel.outputs))]
    return _Block(tuple(finished), shared)


def _reached(axis: AxisTiling, block: int) -> list[int]:
    """Chunks that the tiles of a block reach, its own among them."""
    return [other for other in range(block, axis.blocks) if block in axis.touching(other)]


def _strips(tiling: Tiling, row: int, col: int) -> list[tuple[Interval, Interval]]:
    """Windows of a chunk that other blocks reach: above its inner pixels, and to their left."""
    y, x = tiling.y.output(row), tiling.x.output(col)
    inner = tiling.y.inner(row), tiling.x.inner(col)
    strips = [(Interval(y.start, inner[0].start), x), (inner[0], Interval(x.start, inner[1].start))]
    return [strip for strip in strips if len(strip[0]) and len(strip[1])]


def _margin(block: _Block, row: int, col: int) -> list[_Part]:
    """What a block hands to the chunk of a neighbour."""
    return block.parts[row, col]


def _sum_tiles(work: _Work, row: int, col: int, pieces: list[list[list[Array]]]) -> _Part:
    """Predict all tiles of a block that hold a valid pixel, and sum them up, weighted."""
    y, x = _extent(work.tiling.y, row), _extent(work.tiling.x, col)
    arrays, valid = work.kernel.load([_region(source, len(y), len(x)) for source in pieces])
    any_valid = np.logical_or.reduce(valid)
    tile = work.tiling.y.tile
    slices = {
        place: (
            slice(place.y - y.start, place.y - y.start + tile),
            slice(place.x - x.start, place.x - x.start + tile),
        )
        for place in work.tiling.places(row, col)
    }
    run = [place for place, at in slices.items() if any_valid[at].any()]
    if not run:
        return _Part(y, x, None, any_valid)
    sums = tuple(np.zeros((output.channels, len(y), len(x))) for output in work.kernel.outputs)
    for first in range(0, len(run), work.batch_size):
        batch = run[first : first + work.batch_size]
        predictions = work.kernel.run(
            [np.stack([array[..., *slices[place]] for place in batch]) for array in arrays],
            [np.stack([mask[slices[place]] for place in batch]) for mask in valid],
            np.array([(place.y, place.x) for place in batch]),
        )
        for total, prediction in zip(sums, predictions, strict=True):
            for place, channels in zip(batch, prediction, strict=True):
                total[..., *slices[place]] += _weights(work.tiling, place) * channels
    return _Part(y, x, sums, any_valid)


def _weights(tiling: Tiling, place: TilePlace) -> NDArray[np.float64]:
    return np.outer(tiling.y.weights(place.row), tiling.x.weights(place.col)).astype(np.float64)


def _region(pieces: list[list[Array]], height: int, width: int) -> Array:
    """Pieces put together, (band, y, x), and reflected to whole patches at the scene's end."""
    region = np.block([[piece[(0,) * (piece.ndim - 3)] for piece in row] for row in pieces])
    missing = (height - region.shape[-2], width - region.shape[-1])
    if any(missing):
        region = np.pad(region, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")
    return region


def finish_chunk(
    work: _Work,
    index: int,
    lead: int,
    row: int,
    col: int,
    block: _Block | None,
    margins: list[list[_Part]],
    wait: list[list[_Part]],
) -> Array:
    """Put a chunk together: the inner pixels of its block, and the strips with the neighbours' margins."""
    output, tiling = work.kernel.outputs[index], work.tiling
    y, x = tiling.y.output(row), tiling.x.output(col)
    chunk = np.empty((*output.pixel, len(y), len(x)), output.dtype)
    parts = list(itertools.chain(block.parts[row, col] if block else [], *margins))
    if block is not None:
        chunk[..., tiling.y.inner(row).within(y), tiling.x.inner(col).within(x)] = block.inner[index]
    for strip in _strips(tiling, row, col):
        chunk[..., strip[0].within(y), strip[1].within(x)] = _finish_window(work, index, *strip, parts)
    return chunk[(np.newaxis,) * lead]


def _finish_window(work: _Work, index: int, y: Interval, x: Interval, parts: list[_Part]) -> Array:
    """Sum up all parts within a window and let the kernel finish it."""
    total = np.zeros((work.kernel.outputs[index].channels, len(y), len(x)))
    valid = np.zeros((len(y), len(x)), bool)
    for part in parts:
        both = (part.y & y, part.x & x)
        if not (len(both[0]) and len(both[1])):
            continue
        here = (both[0].within(y), both[1].within(x))
        there = (both[0].within(part.y), both[1].within(part.x))
        valid[here] = part.valid[there]
        if part.sums is not None:
            total[..., *here] += part.sums[index][..., *there]
    total *= WEIGHT_ONE**-2
    return work.kernel.finish(index, total, valid)

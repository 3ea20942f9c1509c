"""What the tasks of a graph do: run the tiles of a block, hand on margins, and finish chunks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine.batches import in_batches
from terramind_xr.engine.kernel import Array, Field, Kernel, Layer, Mask
from terramind_xr.engine.merging import Placed, mean_over_passes, merged, summed
from terramind_xr.engine.tiling import AxisTiling, Interval, TilePlace, Tiling


@dataclass(frozen=True)
class Work:
    """All that the tasks of one call share; one node of the graph."""

    kernel: Kernel
    tilings: dict[int, Tiling]  # by cell: the same tiles in pixels and in patches
    cells: tuple[int, ...]  # of the sources
    names: tuple[str, ...]  # of the sources, for messages
    batch_size: int
    token: str  # of the call

    @property
    def key(self) -> str:
        """Of itself in the graph."""
        return f"terramind-work-{self.token}"

    @property
    def cut(self) -> str:
        """Name of the tasks that cut what a block reads from a chunk of a source.

        (name, source, *place, row, column, and chunk along band, y and x)
        """
        return f"terramind-cut-{self.token}"

    @property
    def block(self) -> str:
        """Name of the tasks that run a block: (name, *place, row, column)."""
        return f"terramind-block-{self.token}"

    @property
    def margin(self) -> str:
        """Name of the tasks that cut margins: (name, *place, row, column, row and column of the chunk)."""
        return f"terramind-margin-{self.token}"

    @property
    def chunks(self) -> tuple[str, ...]:
        """Names of the outputs' arrays: (name, *place, *pixel, row, column)."""
        return tuple(f"terramind-chunk-{output.name}-{self.token}" for output in self.kernel.outputs)

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the tasks that serve all outputs."""
        return self.key, self.cut, self.block, self.margin

    def field_of(self, output: int) -> Field:
        """Field that an output is finished from."""
        return self.kernel.fields[self.kernel.outputs[output].field]


@dataclass(frozen=True)
class Part:
    """Weighted sums of the fields of one cell, and valid cells, of a window; no sums where no tile ran."""

    y: Interval
    x: Interval
    sums: dict[int, NDArray[np.float64]]
    valid: Mask

    def __sizeof__(self) -> int:
        # What dask's scheduler reads to balance memory.
        return self.valid.nbytes + sum(array.nbytes for array in self.sums.values())


@dataclass(frozen=True)
class _Whole:
    """Predictions of the fields of one cell, tile by tile, and valid cells, of a block's extent."""

    y: Interval
    x: Interval
    tiles: dict[int, list[Placed]]
    valid: Mask

    def valid_in(self, y: Interval, x: Interval) -> Mask:
        """Valid cells of a window."""
        return self.valid[y.within(self.y), x.within(self.x)]

    def part(self, work: Work, y: Interval, x: Interval) -> Part:
        """Sums of a smaller window, apart from the whole, so that that can be freed."""
        fields = work.kernel.fields
        sums = {
            number: summed(tiles, fields[number].channels, y, x)
            for number, tiles in self.tiles.items()
            if tiles
        }
        return Part(y, x, sums, self.valid_in(y, x).copy())


Parts = dict[int, list[Part]]
"""Parts by the cell of their fields."""

Pieces = list[list[list[Array]]]
"""What a block reads of a source, cut from its chunks: along band, y and x."""


@dataclass(frozen=True)
class Block:
    """What a block hands on: finished outputs of its inner pixels, and parts by the chunk they fall on.

    Of an output with one value a tile, what is finished is all.
    """

    inner: tuple[Array, ...]
    parts: dict[tuple[int, int], Parts]

    def __sizeof__(self) -> int:
        shared = [part for parts in self.parts.values() for each in parts.values() for part in each]
        return sum(map(Part.__sizeof__, shared)) + sum(array.nbytes for array in self.inner)


def _extent(axis: AxisTiling, block: int) -> Interval:
    extent = axis.extent(block)
    assert extent is not None, "only blocks with tiles compute or hand out margins"
    return extent


def cut(chunk: Array, window: tuple[slice, ...]) -> Array:
    """What a block takes of a chunk of a source, without holding the rest of it."""
    part = np.asarray(chunk)[window]
    # What is one number throughout holds no more than that, and a copy would.
    return part if part.strides[-2:] == (0, 0) or part.size == chunk.size else part.copy()


def run_block(work: Work, row: int, col: int, pieces: list[Pieces]) -> Block:
    """Run one block: finish its inner pixels, and hand on the sums of those it shares."""
    whole, single = _run_tiles(work, row, col, pieces)
    # The same in every cell.
    reached = itertools.product(work.tilings[1].y.reached(row), work.tilings[1].x.reached(col))
    shared = {
        (i, j): {cell: _shared(work, cell, each, (row, col), (i, j)) for cell, each in whole.items()}
        for i, j in reached
    }
    finished = []
    for index, output in enumerate(work.kernel.outputs):
        if output.field in single:
            values = single[output.field]
            finished.append(work.kernel.finish(index, values.values, values.valid))
            continue
        cell = work.field_of(index).cell
        y, x = work.tilings[cell].y.inner(row), work.tilings[cell].x.inner(col)
        finished.append(_finish_inner(work, index, y, x, whole[cell]))
    return Block(tuple(finished), shared)


def _shared(
    work: Work, cell: int, whole: _Whole, block: tuple[int, int], chunk: tuple[int, int]
) -> list[Part]:
    """What a block hands to a chunk: of its own one, the strips that others reach, too."""
    (i, j), tiling = chunk, work.tilings[cell]
    windows = _strips(tiling, i, j) if chunk == block else [(tiling.y.output(i), tiling.x.output(j))]
    return [whole.part(work, y & whole.y, x & whole.x) for y, x in windows]


def _strips(tiling: Tiling, row: int, col: int) -> list[tuple[Interval, Interval]]:
    """Windows of a chunk that other blocks reach: above its inner pixels, and to their left."""
    y, x = tiling.y.output(row), tiling.x.output(col)
    inner = tiling.y.inner(row), tiling.x.inner(col)
    strips = [(Interval(y.start, inner[0].start), x), (inner[0], Interval(x.start, inner[1].start))]
    return [strip for strip in strips if len(strip[0]) and len(strip[1])]


def margin(block: Block, row: int, col: int) -> Parts:
    """What a block hands to the chunk of a neighbour."""
    return block.parts[row, col]


def _wholes(
    work: Work, layers: list[Layer], extents: dict[int, tuple[Interval, Interval]]
) -> dict[int, _Whole]:
    """Wholes of a block by cell, in which no tile has run yet."""
    fields, tiling = work.kernel.fields, work.tilings[1]
    within = tuple(
        min(extent.stop, axis.size) - extent.start
        for extent, axis in zip(extents[1], (tiling.y, tiling.x), strict=True)
    )
    return {
        cell: _Whole(
            *extents[cell],
            {index: [] for index, field in enumerate(fields) if field.is_raster and field.cell == cell},
            _valid_in(cell, layers, extents[cell], within),
        )
        for cell in dict.fromkeys(field.cell for field in fields if field.is_raster)
    }


def _run_tiles(
    work: Work, row: int, col: int, pieces: list[Pieces]
) -> tuple[dict[int, _Whole], dict[int, _Single]]:
    """Predict all tiles of a block that hold a valid pixel: a whole for each cell.

    Fields with one value a tile come beside, by their number.
    """
    kernel = work.kernel
    extents = {
        cell: (_extent(tiling.y, row), _extent(tiling.x, col)) for cell, tiling in work.tilings.items()
    }
    layers = kernel.load(
        [_region(source, *map(len, extents[cell])) for source, cell in zip(pieces, work.cells, strict=True)]
    )
    wholes = _wholes(work, layers, extents)
    single = {
        index: _Single.of(field, work.tilings[1], row, col)
        for index, field in enumerate(kernel.fields)
        if not field.is_raster
    }

    def window(place: TilePlace, cell: int) -> tuple[slice, slice]:
        tile, (y, x) = work.tilings[cell].y.tile, extents[cell]
        first = place.y // cell - y.start, place.x // cell - x.start
        return slice(first[0], first[0] + tile), slice(first[1], first[1] + tile)

    run = [
        place
        for place in work.tilings[1].places(row, col)
        if any(layer.valid[window(place, layer.cell)].any() for layer in layers)
    ]

    def predict(batch: Sequence[TilePlace]) -> list[Array]:
        return kernel.run(
            [layer.tiles([window(place, layer.cell) for place in batch]) for layer in layers],
            [np.stack([layer.valid[window(place, layer.cell)] for place in batch]) for layer in layers],
            np.array([(place.y, place.x) for place in batch]),
        )

    for batch, predictions in in_batches(run, work.batch_size, predict):
        for index, (field, prediction) in enumerate(zip(kernel.fields, predictions, strict=True)):
            if index in single:
                single[index].put(batch, prediction)
                continue
            tiling = work.tilings[field.cell]
            wholes[field.cell].tiles[index] += [
                Placed.of(tiling, place, field.cell, field.merge, channels)
                for place, channels in zip(batch, prediction, strict=True)
                # One pass has a nearest tile for every place.
                if field.merge == "blend" or place.shift == (0, 0)
            ]
    return wholes, single


@dataclass(frozen=True)
class _Single:
    """Values (channel, row, column) of the tiles that a block owns, NaN where none ran; and where one did."""

    values: NDArray[np.float32]
    valid: Mask
    first: tuple[int, int]

    @classmethod
    def of(cls, field: Field, tiling: Tiling, row: int, col: int) -> _Single:
        """Of a block in which no tile has run."""
        owned = tiling.y.owned(row), tiling.x.owned(col)
        shape = len(owned[0]), len(owned[1])
        values = np.full((field.channels, *shape), np.nan, np.float32)
        return cls(values, np.zeros(shape, bool), (owned[0].start, owned[1].start))

    def put(self, batch: Sequence[TilePlace], prediction: Array) -> None:
        """Keep the values (tile, channel, 1, 1) of a batch; further passes have no cells."""
        for place, channels in zip(batch, prediction, strict=True):
            if place.shift == (0, 0):
                at = place.row - self.first[0], place.col - self.first[1]
                self.values[:, *at] = channels[:, 0, 0]
                self.valid[at] = True


def _valid_in(
    cell: int, layers: list[Layer], extent: tuple[Interval, Interval], within: tuple[int, ...]
) -> Mask:
    """Cells of a block's extent in which any layer holds data; so many pixels of it lie within the scene.

    What is reflected beyond the scene's end makes no cell valid.
    """
    masks = []
    for layer in layers:
        valid: Mask = layer.valid
        if layer.cell > cell:
            factor = layer.cell // cell
            valid = valid.repeat(factor, axis=0).repeat(factor, axis=1)
        elif layer.cell < cell:
            factor = cell // layer.cell
            valid = valid.copy()
            valid[math.ceil(within[0] / layer.cell) :] = False
            valid[:, math.ceil(within[1] / layer.cell) :] = False
            height, width = (side // factor for side in valid.shape)
            valid = np.asarray(valid.reshape(height, factor, width, factor).any(axis=(1, 3)))
        # A second pass reads half a patch further, for outputs in pixels only.
        masks.append(valid[: len(extent[0]), : len(extent[1])])
    return np.asarray(np.logical_or.reduce(masks))


def _region(pieces: Pieces, height: int, width: int) -> Array:
    """Pieces put together, (band, y, x), and reflected to whole patches at the scene's end."""
    region = np.block([[[each[(0,) * (each.ndim - 3)] for each in row] for row in rows] for rows in pieces])
    missing = (height - region.shape[-2], width - region.shape[-1])
    if any(missing):
        region = np.pad(region, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")
    return region


def finish_chunk(
    work: Work,
    index: int,
    lead: int,
    row: int,
    col: int,
    block: Block | None,
    margins: list[Parts],
    wait: list[Parts],
) -> Array:
    """Put a chunk together: the inner pixels of its block, and the strips with the neighbours' margins."""
    output, field = work.kernel.outputs[index], work.field_of(index)
    if not field.is_raster:
        assert block is not None, "only blocks with tiles have such a chunk"
        return np.asarray(block.inner[index], output.dtype)[(np.newaxis,) * lead]
    cell = field.cell
    tiling = work.tilings[cell]
    y, x = tiling.y.output(row), tiling.x.output(col)
    chunk = np.empty((*output.pixel, len(y), len(x)), output.dtype)
    own = [block.parts[row, col]] if block else []
    parts = [part for each in (*own, *margins) for part in each[cell]]
    if block is not None:
        chunk[..., tiling.y.inner(row).within(y), tiling.x.inner(col).within(x)] = block.inner[index]
    for strip in _strips(tiling, row, col):
        chunk[..., strip[0].within(y), strip[1].within(x)] = _finish_window(work, index, *strip, parts)
    return chunk[(np.newaxis,) * lead]


def _finish_inner(work: Work, index: int, y: Interval, x: Interval, whole: _Whole) -> Array:
    """Merge a block's own tiles within a window, piece by piece, and let the kernel finish them."""
    output, field = work.kernel.outputs[index], work.field_of(index)
    tiling, tiles = work.tilings[field.cell], whole.tiles[output.field]
    result = np.empty((*output.pixel, len(y), len(x)), output.dtype)
    for rows in tiling.y.pieces(y):  # a part fits a cache, the whole does not
        values = merged(tiles, field.channels, tiling, field.merge, rows, x)
        result[..., rows.within(y), :] = work.kernel.finish(index, values, whole.valid_in(rows, x))
    return result


def _finish_window(work: Work, index: int, y: Interval, x: Interval, parts: list[Part]) -> Array:
    """Sum up all parts within a window and let the kernel finish it."""
    number = work.kernel.outputs[index].field
    field = work.kernel.fields[number]
    total = np.zeros((field.channels, len(y), len(x)))
    valid = np.zeros((len(y), len(x)), bool)
    for part in parts:
        both = (part.y & y, part.x & x)
        if not (len(both[0]) and len(both[1])):
            continue
        here = (both[0].within(y), both[1].within(x))
        there = (both[0].within(part.y), both[1].within(part.x))
        valid[here] = part.valid[there]
        if number in part.sums:
            total[..., *here] += part.sums[number][..., *there]
    mean_over_passes(total, work.tilings[field.cell], field.merge, y, x)
    return work.kernel.finish(index, total.astype(np.float32), valid)

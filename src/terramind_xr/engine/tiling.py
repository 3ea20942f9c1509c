"""Where the tiles of a scene lie, which block computes each, and how they blend: pure numpy.

A scene is covered by square tiles whose starts are multiples of the stride (tile minus overlap); the
last tile is shifted inwards, so that no tile reaches beyond the scene by a patch or more. Tiles belong
to the block in whose output chunk they start. Everything is counted from the scene's origin, axis by
axis, and depends on the size of the scene and the options alone, never on how the data is chunked.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.facts import PATCH, TILE

WEIGHT_ONE = 1024
"""Blend weights are integers that sum to this at every pixel of an axis.

A power of two: products with float32 predictions, and sums of a few of them, are then exact in
float64. Blending a constant gives that very constant, and the order of the sum does not matter.
"""

Merge = Literal["blend", "nearest", "tile"]
"""How predictions of overlapping tiles become one: a weighted mean, or that of the nearest centre. With
``"tile"`` they do not: each tile of the first pass keeps a value of its own."""


@dataclass(frozen=True)
class Interval:
    """Pixels `start` to `stop` (exclusive) of one axis."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __and__(self, other: Interval) -> Interval:
        """Pixels that lie in both."""
        return Interval(max(self.start, other.start), min(self.stop, other.stop))

    def within(self, outer: Interval) -> slice:
        """Slice of an array that covers `outer`."""
        return slice(self.start - outer.start, self.stop - outer.start)


@dataclass(frozen=True)
class AxisTiling:
    """Tiles and blocks along one axis.

    Parameters
    ----------
    size
        Pixels of the scene along the axis, at least 1.
    overlap
        Pixels that neighbouring tiles share: a multiple of `patch`, at most half a tile.
    block
        Tiles to a block, at least 1. The output chunk is `block` strides long.
    tile, patch
        Side of a tile and of a patch in pixels.
    shifts
        Where the passes over the axis start: 0, and half a patch for a second one, whose tiles cover the
        scene but for half a patch at both ends. A scene too small for that has no second pass.

    Raises
    ------
    OptionError
        For an overlap that is not a whole number of patches or exceeds half a tile, and for sizes
        below 1.

    Examples
    --------
    >>> axis = AxisTiling(size=500, overlap=32, block=2)
    >>> axis.starts
    (0, 192, 288)
    >>> axis.chunks
    (384, 116)
    """

    size: int
    overlap: int = 32
    block: int = 4
    tile: int = TILE
    patch: int = PATCH
    shifts: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"A scene needs at least 1 pixel along each axis, found {self.size}.")
        if self.block < 1:
            raise OptionError(f"block must be at least 1 tile, found {self.block}.")
        whole = isinstance(self.overlap, int | np.integer) and not isinstance(self.overlap, bool)
        if not whole or not 0 <= self.overlap <= self.tile // 2 or self.overlap % self.patch:
            raise OptionError(
                f"overlap={self.overlap!r} cannot be used: it must be a multiple of {self.patch} pixels "
                f"(one patch) from 0 to {self.tile // 2} (half a tile of {self.tile})."
            )

    @property
    def stride(self) -> int:
        """Pixels from one tile's start to the next."""
        return self.tile - self.overlap

    @property
    def padded(self) -> int:
        """Pixels after padding to whole patches, and to one tile at least."""
        return max(math.ceil(self.size / self.patch) * self.patch, self.tile)

    @property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile, ascending."""
        return self.passes[0]

    @functools.cached_property
    def passes(self) -> dict[int, tuple[int, ...]]:
        """First pixels of the tiles of each pass, by its shift."""
        return {shift: starts for shift in self.shifts if (starts := self._starts(shift))}

    def _starts(self, shift: int) -> tuple[int, ...]:
        last = self.padded - self.tile - shift
        if last < shift:
            return ()
        regular = range(shift, last + 1, self.stride)
        return (*regular, last) if regular[-1] != last else tuple(regular)

    def covered(self, shift: int) -> Interval:
        """Pixels that the tiles of a pass cover, in the padded scene."""
        return Interval(shift, self.padded - shift)

    def in_cells(self, cell: int) -> AxisTiling:
        """The same tiles counted in cells of so many pixels, e.g. in patches."""
        if cell == 1:
            return self
        size = math.ceil(self.size / cell)
        return AxisTiling(size, self.overlap // cell, self.block, self.tile // cell, self.patch // cell)

    @property
    def chunk(self) -> int:
        """Pixels of an output chunk."""
        return self.block * self.stride

    @property
    def blocks(self) -> int:
        """Number of blocks, which is also the number of output chunks."""
        return math.ceil(self.size / self.chunk)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Sizes of the output chunks: all equal but the last."""
        full, rest = divmod(self.size, self.chunk)
        return (self.chunk,) * full + ((rest,) if rest else ())

    def output(self, block: int) -> Interval:
        """Pixels of the output chunk of a block."""
        return Interval(block * self.chunk, min((block + 1) * self.chunk, self.size))

    def owned(self, block: int, shift: int = 0) -> range:
        """Indices of the tiles of a pass that a block computes; a last block may own none."""
        starts = self.passes[shift]
        first = bisect.bisect_left(starts, block * self.chunk)
        stop = bisect.bisect_left(starts, (block + 1) * self.chunk)
        return range(first, stop)

    def most_owned(self, shift: int = 0) -> int:
        """Most tiles of a pass that a block has."""
        return max(len(self.owned(block, shift)) for block in range(self.blocks))

    @property
    def tile_chunks(self) -> tuple[int, ...]:
        """Tiles of the first pass in each block that has any: only last blocks have none."""
        return tuple(len(owned) for block in range(self.blocks) if (owned := self.owned(block)))

    def extent(self, block: int) -> Interval | None:
        """Pixels that the tiles of a block cover, in the padded scene; None without tiles."""
        spans = [
            (starts[tiles[0]], starts[tiles[-1]] + self.tile)
            for shift, starts in self.passes.items()
            if (tiles := self.owned(block, shift))
        ]
        if not spans:
            return None
        stop = max(stop for _, stop in spans)
        # Whole patches, also where the last tile is of a pass that starts half a patch further.
        return Interval(min(start for start, _ in spans), math.ceil(stop / self.patch) * self.patch)

    @functools.cached_property
    def _touching(self) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in range(self.blocks)]
        for block in range(self.blocks):
            extent = self.extent(block)
            if extent is None:
                continue
            for other in range(block, self.blocks):
                if not len(extent & self.output(other)):
                    break
                found[other].append(block)
        return tuple(tuple(blocks) for blocks in found)

    def touching(self, block: int) -> tuple[int, ...]:
        """Blocks whose tiles reach into the output chunk of `block`, ascending."""
        return self._touching[block]

    @functools.cached_property
    def _reached(self) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in range(self.blocks)]
        for chunk, blocks in enumerate(self._touching):
            for block in blocks:
                found[block].append(chunk)
        return tuple(map(tuple, found))

    def reached(self, block: int) -> tuple[int, ...]:
        """Output chunks that the tiles of a block reach, its own among them, ascending."""
        return self._reached[block]

    def inner(self, block: int) -> Interval:
        """Pixels of the output chunk of a block that no other block's tiles reach."""
        output = self.output(block)
        reached = [self.extent(other) for other in self.touching(block) if other != block]
        start = max((extent.stop for extent in reached if extent is not None), default=output.start)
        return Interval(min(start, output.stop), output.stop)

    def pieces(self, window: Interval) -> list[Interval]:
        """Pieces of a window, at whose borders tiles of the first pass begin or end."""
        ends = [end for start in self.starts for end in (start, start + self.tile)]
        inside = sorted({end for end in ends if window.start < end < window.stop})
        borders = [window.start, *inside, window.stop]
        return [Interval(*pair) for pair in itertools.pairwise(borders) if pair[0] < pair[1]]

    def weights(self, index: int, shift: int = 0, merge: Merge = "blend") -> NDArray[np.int64]:
        """Weights of one tile: integers, summing to `WEIGHT_ONE` over the tiles of a pass at a pixel.

        For blending, the window is a trapezoid that ramps over the overlap; where up to three tiles meet
        (the last one is shifted inwards), the windows are normalised. With ``"nearest"``, the tile with the
        nearest centre has all the weight, of two equally near ones the first.
        """
        return _weights(self, index, shift, merge)


@functools.lru_cache(maxsize=1024)  # those of some rows of blocks
def _weights(axis: AxisTiling, index: int, shift: int, merge: Merge) -> NDArray[np.int64]:
    starts = axis.passes[shift]
    pixels = np.arange(starts[index], starts[index] + axis.tile)
    # At most three tiles meet at a pixel, so two neighbours on each side are enough.
    near = range(max(index - 2, 0), min(index + 3, len(starts)))
    begins = np.array([starts[other] for other in near])[:, None]
    ramps = np.minimum(pixels - begins + 1, begins + axis.tile - pixels)
    result: NDArray[np.int64]
    if merge == "nearest":
        result = np.where(ramps.argmax(axis=0) == index - near[0], WEIGHT_ONE, 0)
    else:
        below = np.cumsum(np.clip(ramps, 0, axis.overlap + 1), axis=0)
        # Rounding the cumulated shares leaves no remainder to hand out.
        shares = (2 * WEIGHT_ONE * below + below[-1]) // (2 * below[-1])
        shares = np.concatenate([np.zeros_like(shares[:1]), shares])
        result = np.diff(shares, axis=0)[index - near[0]]
    result.setflags(write=False)  # as it is shared
    return result


@dataclass(frozen=True)
class TilePlace:
    """One tile of a scene: indices and first pixels on both axes, and the shifts of its pass."""

    row: int
    col: int
    y: int
    x: int
    shift: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Tiling:
    """Tiles and blocks of a scene: one `AxisTiling` for each axis.

    Parameters
    ----------
    y, x
        The axes.
    phases
        Passes over the scene, by their shifts on both axes; their predictions are averaged.

    Examples
    --------
    >>> tiling = Tiling.of((1000, 500), overlap=32, block=4)
    >>> tiling.tiles, tiling.shape
    (18, (2, 1))
    """

    y: AxisTiling
    x: AxisTiling
    phases: tuple[tuple[int, int], ...] = ((0, 0),)

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        *,
        overlap: int = 32,
        block: int = 4,
        shifts: int = 1,
        tile: int = TILE,
    ) -> Tiling:
        """Tiling of a scene of `shape` (rows, columns), with 1, 2 or 4 passes over it.

        The second pass starts half a patch further on both axes; four passes are those of all four
        combinations.
        """
        half = PATCH // 2
        every = {1: ((0, 0),), 2: ((0, 0), (half, half)), 4: ((0, 0), (0, half), (half, 0), (half, half))}
        whole = isinstance(shifts, int | np.integer) and not isinstance(shifts, bool)
        if not whole or shifts not in every:
            raise OptionError(f"shifts={shifts!r} cannot be used: expected 1, 2 or 4 passes.")
        starts = (0,) if shifts == 1 else (0, half)
        axes = [AxisTiling(size, overlap, block, tile, shifts=starts) for size in shape]
        phases = tuple((y, x) for y, x in every[shifts] if y in axes[0].passes and x in axes[1].passes)
        return cls(axes[0], axes[1], phases)

    def in_cells(self, cell: int) -> Tiling:
        """The same tiles of the first pass counted in cells of so many pixels, e.g. in patches."""
        return self if cell == 1 else Tiling(self.y.in_cells(cell), self.x.in_cells(cell))

    def in_blocks_of(self, block: int) -> Tiling:
        """The same tiles in blocks of another size."""
        return replace(self, y=replace(self.y, block=block), x=replace(self.x, block=block))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of blocks along each axis."""
        return self.y.blocks, self.x.blocks

    @property
    def tiles(self) -> int:
        """Number of tiles of the scene, in all passes."""
        return sum(len(self.y.passes[y]) * len(self.x.passes[x]) for y, x in self.phases)

    @property
    def most_tiles(self) -> int:
        """Most tiles that a block has, in all passes."""
        return sum(self.y.most_owned(y) * self.x.most_owned(x) for y, x in self.phases)

    def places(self, row: int, col: int) -> Iterator[TilePlace]:
        """Tiles of one block, pass by pass and row by row."""
        for shift in self.phases:
            for i in self.y.owned(row, shift[0]):
                for j in self.x.owned(col, shift[1]):
                    yield TilePlace(i, j, self.y.passes[shift[0]][i], self.x.passes[shift[1]][j], shift)

    def passes_at(self, y: Interval, x: Interval) -> NDArray[np.float64] | float:
        """Number of passes whose tiles cover each pixel of a window: 1, 2 or 4, exact to divide by."""
        if len(self.phases) == 1:
            return 1.0
        total = np.zeros((len(y), len(x)))
        for shift in self.phases:
            both = self.y.covered(shift[0]) & y, self.x.covered(shift[1]) & x
            total[both[0].within(y), both[1].within(x)] += 1
        return total

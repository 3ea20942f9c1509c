"""Where the tiles of a scene lie, which block computes each, and how they blend: pure numpy.

A scene is covered by square tiles whose starts are multiples of the stride (tile minus overlap); the
last tile is shifted inwards, so that no tile reaches beyond the scene by a patch or more. Tiles belong
to the block in whose output chunk they start. Everything is counted from the scene's origin, axis by
axis, and depends on the size of the scene and the options alone, never on how the data is chunked.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.modalities import PATCH, TILE

WEIGHT_ONE = 1024
"""Blend weights are integers that sum to this at every pixel of an axis.

A power of two: products with float32 predictions, and sums of a few of them, are then exact in
float64. Blending a constant gives that very constant, and the order of the sum does not matter.
"""


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

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile, ascending."""
        last = self.padded - self.tile
        regular = range(0, last + 1, self.stride)
        return (*regular, last) if regular[-1] != last else tuple(regular)

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

    def owned(self, block: int) -> range:
        """Indices of the tiles that a block computes; a last block may own none."""
        first = bisect.bisect_left(self.starts, block * self.chunk)
        stop = bisect.bisect_left(self.starts, (block + 1) * self.chunk)
        return range(first, stop)

    def extent(self, block: int) -> Interval | None:
        """Pixels that the tiles of a block cover, in the padded scene; None without tiles."""
        tiles = self.owned(block)
        if not tiles:
            return None
        return Interval(self.starts[tiles[0]], self.starts[tiles[-1]] + self.tile)

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

    def inner(self, block: int) -> Interval:
        """Pixels of the output chunk of a block that no other block's tiles reach."""
        output = self.output(block)
        reached = [self.extent(other) for other in self.touching(block) if other != block]
        start = max((extent.stop for extent in reached if extent is not None), default=output.start)
        return Interval(min(start, output.stop), output.stop)

    @functools.cached_property
    def cuts(self) -> tuple[int, ...]:
        """Borders at which the source is cut, so that each block reads whole pieces: 0 … size."""
        borders = {0, self.size}
        for block in range(self.blocks):
            extent = self.extent(block)
            if extent is not None:
                borders |= {min(extent.start, self.size), min(extent.stop, self.size)}
        return tuple(sorted(borders))

    def weights(self, index: int) -> NDArray[np.int64]:
        """Blend weights of one tile: integers, summing to `WEIGHT_ONE` over the tiles at a pixel.

        The window is a trapezoid that ramps over the overlap; where up to three tiles meet (the last
        one is shifted inwards), the windows are normalised.
        """
        pixels = np.arange(self.starts[index], self.starts[index] + self.tile)
        # At most three tiles meet at a pixel, so two neighbours on each side are enough.
        near = range(max(index - 2, 0), min(index + 3, len(self.starts)))
        windows = []
        for other in near:
            start = self.starts[other]
            ramp = np.minimum(pixels - start + 1, start + self.tile - pixels)
            windows.append(np.clip(ramp, 0, self.overlap + 1))
        below = np.cumsum(windows, axis=0)
        # Rounding the cumulated shares leaves no remainder to hand out.
        shares = (2 * WEIGHT_ONE * below + below[-1]) // (2 * below[-1])
        shares = np.concatenate([np.zeros_like(shares[:1]), shares])
        result: NDArray[np.int64] = np.diff(shares, axis=0)[index - near[0]]
        return result


@dataclass(frozen=True)
class TilePlace:
    """One tile of a scene: indices and first pixels on both axes."""

    row: int
    col: int
    y: int
    x: int


@dataclass(frozen=True)
class Tiling:
    """Tiles and blocks of a scene: one `AxisTiling` for each axis.

    Examples
    --------
    >>> tiling = Tiling.of((1000, 500), overlap=32, block=4)
    >>> tiling.tiles, tiling.shape
    (18, (2, 1))
    """

    y: AxisTiling
    x: AxisTiling

    @classmethod
    def of(cls, shape: tuple[int, int], *, overlap: int = 32, block: int = 4) -> Tiling:
        """Tiling of a scene of `shape` (rows, columns)."""
        return cls(AxisTiling(shape[0], overlap, block), AxisTiling(shape[1], overlap, block))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of blocks along each axis."""
        return self.y.blocks, self.x.blocks

    @property
    def tiles(self) -> int:
        """Number of tiles of the scene."""
        return len(self.y.starts) * len(self.x.starts)

    def places(self, row: int, col: int) -> Iterator[TilePlace]:
        """Tiles of one block, row by row."""
        for i in self.y.owned(row):
            for j in self.x.owned(col):
                yield TilePlace(i, j, self.y.starts[i], self.x.starts[j])

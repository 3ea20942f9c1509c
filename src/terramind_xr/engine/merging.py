"""How the predictions of tiles become one raster: weighted where tiles overlap, taken over elsewhere.

What is merged is the exact sum, rounded to float32 once: no byte depends on the block in which a pixel is
merged, nor on which of the two ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine.kernel import Array
from terramind_xr.engine.tiling import WEIGHT_ONE, Interval, Merge, TilePlace, Tiling

_AT_ONCE = 1 << 14
"""Products that are made at once: more would fit no fast cache, and have to be given memory by the system."""


@dataclass(frozen=True)
class Placed:
    """Prediction of a tile (channel, y, x), where it lies, and its weights along both axes, shares of 1."""

    y: Interval
    x: Interval
    rows: NDArray[np.float64]
    cols: NDArray[np.float64]
    values: Array

    @classmethod
    def of(cls, tiling: Tiling, place: TilePlace, cell: int, merge: Merge, values: Array) -> Placed:
        """A tile of a tiling in cells, from its place in pixels."""
        y, x = place.y // cell, place.x // cell
        return cls(
            Interval(y, y + tiling.y.tile),
            Interval(x, x + tiling.x.tile),
            tiling.y.weights(place.row, place.shift[0], merge) / WEIGHT_ONE,
            tiling.x.weights(place.col, place.shift[1], merge) / WEIGHT_ONE,
            values,
        )

    def alone(self, y: Interval, x: Interval) -> Array | None:
        """Its values in a window, if all of the window lies in it and no other tile of its pass counts."""
        if not (self.y.start <= y.start and y.stop <= self.y.stop):
            return None
        if not (self.x.start <= x.start and x.stop <= self.x.stop):
            return None
        rows, cols = y.within(self.y), x.within(self.x)
        is_alone = self.rows[rows].min() == 1 == self.cols[cols].min()
        return self.values[:, rows, cols] if is_alone else None

    def add_to(self, total: NDArray[np.float64], y: Interval, x: Interval) -> None:
        """Add its weighted values to the sums of a window that it reaches into."""
        down, along = y & self.y, x & self.x
        rows, cols = down.within(self.y), along.within(self.x)
        weights = np.outer(self.rows[rows], self.cols[cols])
        here, values = total[:, down.within(y), along.within(x)], self.values[:, rows, cols]
        step = max(_AT_ONCE // max(weights.size, 1), 1)
        for first in range(0, len(total), step):
            products = values[first : first + step].astype(np.float64)
            products *= weights
            here[first : first + step] += products

    def reaches(self, y: Interval, x: Interval) -> bool:
        """Whether it covers something of a window."""
        meets_rows = y.start < self.y.stop and self.y.start < y.stop
        return meets_rows and x.start < self.x.stop and self.x.start < x.stop


def summed(tiles: list[Placed], channels: int, y: Interval, x: Interval) -> NDArray[np.float64]:
    """Sums (channel, y, x) of all tiles in a window, weighted, exact."""
    total = np.zeros((channels, len(y), len(x)))
    for tile in tiles:
        if tile.reaches(y, x):
            tile.add_to(total, y, x)
    return total


def mean_over_passes(
    total: NDArray[np.float64], tiling: Tiling, merge: Merge, y: Interval, x: Interval
) -> None:
    """Turn sums of a window into means, in place, over the passes that reach a pixel."""
    if merge == "blend" and len(tiling.phases) > 1:
        total /= tiling.passes_at(y, x)


def merged(
    tiles: list[Placed], channels: int, tiling: Tiling, merge: Merge, y: Interval, x: Interval
) -> NDArray[np.float32]:
    """Merge (channel, y, x) in a window that no other tiles reach than these; 0 where none has run."""
    result = np.empty((channels, len(y), len(x)), np.float32)
    near = [tile for tile in tiles if tile.reaches(y, x)]
    for cols in tiling.x.pieces(x):
        found = [tile for tile in near if tile.reaches(y, cols)]
        alone = (tile.alone(y, cols) for tile in (found if len(tiling.phases) == 1 else ()))
        values = next((each for each in alone if each is not None), None)
        if values is None:
            values = summed(found, channels, y, cols)
            mean_over_passes(values, tiling, merge, y, cols)
        result[..., cols.within(x)] = values
    return result

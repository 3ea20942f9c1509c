"""What a kernel is: the contract between tiling and everything that is done to tiles.

The engine knows no modality and no model. A kernel says what it predicts (`Field`), what is finished from
that (`Output`, with all that labels need), and how blocks are read, run and finished; tiling and blending
are tested with trivial ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine.tiling import Merge

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Field:
    """One prediction of a kernel, as the tiles of a scene are put together from it.

    Parameters
    ----------
    channels
        Leading axis of a tile's prediction, e.g. the 10 class probabilities of LULC.
    cell
        Pixels along the side of one of its cells: 1 for pixels, 16 for the patch grid.
    merge
        ``"blend"`` for a weighted mean of the tiles, ``"nearest"`` for the tile whose centre is nearest:
        exact, for tokens and codes. ``"tile"`` for one value a tile, (channel, 1, 1), that is not merged:
        the result has a cell for each tile of the first pass.
    """

    channels: int
    cell: int = 1
    merge: Merge = "blend"

    @property
    def is_raster(self) -> bool:
        """Whether it has cells of the scene, not of its tiles."""
        return self.merge != "tile"


@dataclass(frozen=True)
class Output:
    """One finished array of a kernel, and how it is labelled.

    Parameters
    ----------
    name
        Names the tasks, and the labelled array.
    field
        Which of the kernel's fields it is finished from; several outputs may share one.
    pixel
        Axes that stand before y and x in the finished array: ``()`` for a map, ``(12,)`` for 12 bands.
    dtype
        Of the finished array.
    dims
        Names of the axes of `pixel`.
    coords
        Labels along them.
    attrs
        Attributes of the labelled array: what it is, not how it was made.
    nodata
        What stands where there is no data; None for NaN.
    """

    name: str
    field: int
    pixel: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...] = ()
    coords: Mapping[str, list[Any]] = dataclasses.field(default_factory=dict)
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    nodata: float | None = None


@dataclass(frozen=True)
class Layer:
    """One input as a kernel has read it for a block.

    Parameters
    ----------
    values
        (band, y, x), in cells.
    valid
        (y, x): where it holds data.
    cell
        Pixels along the side of a cell.
    convert
        Writes what `run` gets of some values (band, y, x), float32, to its first argument; 0 replaces what is
        not valid. None where `values` are that already. A conversion that is cheap is best made tile by tile:
        what is converted twice where tiles overlap costs less than to write the block and read it again.
    """

    values: Array
    valid: Mask
    cell: int = 1
    convert: Callable[[NDArray[np.float32], Array], None] | None = None

    def tiles(self, windows: Sequence[tuple[slice, slice]]) -> Array:
        """What `run` gets of windows of one shape: (tile, band, y, x)."""
        parts = [self.values[..., *window] for window in windows]
        if self.convert is None:
            return np.stack(parts)
        result = np.empty((len(parts), *parts[0].shape), np.float32)
        for to, part, window in zip(result, parts, windows, strict=True):
            self.convert(to, part)
            valid = self.valid[window]
            if not valid.all():
                np.copyto(to, 0, where=~valid)
        return result

    def whole(self) -> Array:
        """What `run` would get of all of it as one tile: (band, y, x)."""
        return self.values if self.convert is None else self.tiles([(slice(None), slice(None))])[0]


class Kernel(Protocol):
    """What is done to a block; frozen, picklable, and tokenised by its fields."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """What `run` returns, in order."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What `finish` makes of them."""

    def load(self, regions: list[Array]) -> list[Layer]:
        """Layers for `run` from the raw regions (band, y, x) of the sources."""

    def run(self, values: list[Array], valid: list[Mask], places: NDArray[np.int64]) -> list[Array]:
        """Predictions (tile, channel, y, x) of a batch, one a field; kept until the block is finished.

        `values` (tile, band, y, x) and `valid` (tile, y, x) are those of the layers, in their cells;
        `places` (tile, 2) the first pixel of each tile. Where a device has not the memory for so many tiles,
        it raises `DeviceMemoryError`, and is run with fewer.
        """

    def finish(self, index: int, merged: NDArray[np.float32], valid: Mask) -> Array:
        """Finished array (*pixel, y, x) of output `index` from its merged field, which stays as it is.

        Of a part of a block: no pixel may depend on others.
        y and x count tiles where the field has one value for each.
        """

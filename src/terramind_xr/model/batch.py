"""What goes into a run of the model: a batch of tiles, what is known of it, and what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Inputs of some tiles; the encoder reads pixels first, then tokens, each in order.

    Parameters
    ----------
    pixels
        Standardised inputs by modality: (tile, band, y, x), float32; LULC as class codes.
    visible
        By modality, pixels and tokens alike, which patches may be seen: (tile, row, column).
    places
        First row and column of each tile from the scene's origin, multiples of the patch: (tile, 2).
    tokens
        Inputs that are tokens already, by modality: (tile, row, column), int64; hidden ones may be
        anything, such as a code for no data.
    lonlat
        Longitude and latitude of each tile's centre in degrees, (tile, 2), where they condition: read after
        all else, and never hidden.
    """

    pixels: Mapping[str, NDArray[np.float32]]
    visible: Mapping[str, Mask]
    places: NDArray[np.int64]
    tokens: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    lonlat: NDArray[np.float64] | None = None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of tiles, and rows and columns of patches of one."""
        tiles, rows, cols = next(iter(self.visible.values())).shape
        return tiles, rows, cols


@dataclass(frozen=True)
class Known:
    """A modality that conditions what is drawn.

    Parameters
    ----------
    tensor
        Pixels (tile, band, y, x), or tokens (tile, patch), or those of a text (tile, place in the text).
    hidden
        What the encoder may not see: (tile, patch), or (tile, place in the text).
    """

    tensor: torch.Tensor
    hidden: torch.Tensor

    def of(self, tiles: NDArray[np.intp]) -> Known:
        """Only some of the tiles."""
        return Known(self.tensor[tiles], self.hidden[tiles])


@dataclass(frozen=True)
class Target:
    """A modality to draw: which of its patches are decided, and what is hidden still.

    Parameters
    ----------
    name
        Modality.
    decided
        Patches whose tokens are known: they condition the others and are kept. (tile, row, column).
    tokens
        Tokens (tile, row, column), int64; those that are not decided may be anything.
    """

    name: str
    decided: Mask
    tokens: NDArray[np.int64]

    @classmethod
    def hidden(cls, name: str, grid: tuple[int, int, int]) -> Target:
        """A modality of which nothing is known on a grid (tile, row, column)."""
        return cls(name, np.zeros(grid, bool), np.zeros(grid, np.int64))

    @property
    def kept(self) -> NDArray[np.int64]:
        """Decided tokens, 0 elsewhere: what is looked up must be in the vocabulary."""
        return np.where(self.decided, self.tokens, 0)

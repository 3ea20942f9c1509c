"""What a verb starts from."""

from __future__ import annotations

from typing import Any, Protocol

import xarray as xr

from terramind_xr.engine import Source, Tiling
from terramind_xr.grid import Grid


class Start(Protocol):
    """What a verb starts from: a scene, or a token raster."""

    @property
    def like(self) -> xr.DataArray:
        """What the user gave, for the coordinates of results."""

    @property
    def cell(self) -> int:
        """Pixels along the side of a cell of `like`."""

    @property
    def grid(self) -> Grid:
        """Where the pixels lie, in the user's orientation."""

    @property
    def extra(self) -> dict[str, xr.DataArray]:
        """Coordinates of the dims that are neither band nor space, by dim."""

    @property
    def is_lazy(self) -> bool:
        """Whether anything is dask-backed."""

    def sources(self, tiling: Tiling) -> list[Source]:
        """Arrays of the graph, in the order in which the kernel reads them."""

    def provenance(self) -> dict[str, Any]:
        """What decides a result besides data, model and options."""


def extra_shape(start: Start) -> tuple[int, ...]:
    """Sizes of the extra dims."""
    return tuple(index.size for index in start.extra.values())

"""One array laid on the grid of another, by coordinates, never by position."""

from __future__ import annotations

import xarray as xr

from terramind_xr.errors import InputError
from terramind_xr.grid import Grid


def laid_on(data: xr.DataArray, grid: Grid, *, what: str, whose: str) -> xr.DataArray:
    """Array that lies on a grid, stored in the grid's orientation.

    Parameters
    ----------
    data
        It may run the other way.
    grid
        Where it is to lie.
    what, whose
        What messages call the array, and what has the grid.

    Raises
    ------
    InputError
        It lies on another grid.
    """
    its = Grid.of(data)
    turned = set(grid.runs_backwards) ^ set(its.runs_backwards)
    data = data.isel({dim: slice(None, None, -1) for dim in its.dims if dim in turned})
    how = grid.same_as(Grid.of(data))
    if how is not None:
        raise InputError(
            f"{what}: {data.name!r} lies on another grid than {whose}: {how}. Lay it there: "
            f"{what}.rio.reproject_match({whose}) (nearest for classes)."
        )
    return data

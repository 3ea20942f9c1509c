"""Where arrays lie: checks of a grid, and one laid on that of another by coordinates, never by position."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.grid import Grid

_TOLERATED, _REFUSED = 0.01, 0.05
"""How far cells may be from their size: without a word, and at all."""
_CRS_REMEDY = "Write it: ds = ds.rio.write_crs('EPSG:…')."


def laid_on(data: xr.DataArray, grid: Grid, *, what: str, whose: str, remedy: str) -> xr.DataArray:
    """Array that lies on a grid, stored in the grid's orientation.

    Parameters
    ----------
    data
        It may run the other way.
    grid
        Where it is to lie.
    what, whose
        What messages call the array, and what has the grid.
    remedy
        The line that lays it there.

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
        found = f"{data.name!r} lies on another grid than {whose}: {how}"
        remedy = f"Lay it there: {remedy}."
        raise Check(what, "grid.other", "error", found, "the same grid", remedy).as_error()
    return data


def check_place(
    name: str, grid: Grid, side: float, whose: str, remedy: str, regular: str = ""
) -> Iterator[Check]:
    """Check a grid: its CRS, and whether its cells are regular and of `side` metres.

    `whose` says in words why they should be, `remedy` what helps where they are not, and `regular` where
    they are not regular, if that is something else.
    """
    if grid.crs_fault is not None:
        found = f"a CRS that cannot be read ({grid.crs_fault})"
        yield Check(name, "crs.unreadable", "error", found, "a CRS", _CRS_REMEDY)
        return
    if grid.crs is None:
        yield Check(name, "crs.missing", "warning", "none", "one, to place the result on Earth", _CRS_REMEDY)
    else:
        yield Check(name, "crs", "ok", str(grid.crs) if len(str(grid.crs)) < 40 else "given as WKT", "")
    if grid.lies_on_corners:
        x, y = grid.x, grid.y
        yield Check(
            name, "grid.corners", "warning", "coordinates of pixels' corners, by the transform",
            "those of their centres: results lie half a pixel off",
            f"Load it so (stackstac: xy_coords='center'), or shift it: ds = ds.assign_coords("
            f"{x.dim}=ds.{x.dim} + {(x.step or 0) / 2:g}, {y.dim}=ds.{y.dim} + {(y.step or 0) / 2:g}).",
        )  # fmt: skip
    if grid.irregularity is not None:
        yield Check(
            name, "resolution.irregular", "error", grid.irregularity, f"a regular grid of {side:g} m",
            regular or remedy,
        )  # fmt: skip
    elif 0 not in grid.shape:
        yield _resolution(name, grid, side, f"{side:g} m, {whose}", remedy)


def regularly(grid: Grid) -> str:
    """Line that brings coordinates that are not evenly spaced onto a regular grid; gaps become no data."""
    places = []
    for axis in (grid.y, grid.x):
        if axis.irregularity is None or axis.centres is None:
            continue
        gaps = np.diff(axis.centres)
        if not np.isfinite(gaps).all():
            return f'Leave out what has no place: ds = ds.isel({axis.dim}=ds["{axis.dim}"].notnull())'
        if not (np.all(gaps > 0) or np.all(gaps < 0)):
            return f'Sort it: ds = ds.drop_duplicates("{axis.dim}").sortby("{axis.dim}")'
        first, last, step = axis.centres[0], axis.centres[-1], float(np.median(gaps))
        count = round((last - first) / step) + 1
        line = f"{axis.dim}=np.linspace({float(first)!r}, {float(last)!r}, {count})"
        places.append((line, abs(step)))
    tolerance = 0.999 * max((step for _, step in places), default=0.0)
    lines = ", ".join(line for line, _ in places)
    return f'Lay it on a regular grid: ds = ds.reindex({lines}, method="nearest", tolerance={tolerance!r})'


def _resolution(name: str, grid: Grid, side: float, expected: str, remedy: str) -> Check:
    size = grid.ground_resolution
    if size is None:
        return Check(
            name, "resolution.silent", "warning", "no coordinates to measure it", expected,
            f"Give it coordinates {grid.y.dim} and {grid.x.dim}, or make sure that its cells are {side:g} m.",
        )  # fmt: skip
    found = f"{size[0]:.4g} × {size[1]:.4g} m"
    off = max(abs(each / side - 1) for each in size)
    if off <= _TOLERATED:
        return Check(name, "resolution", "ok", found, "")
    return Check(name, "resolution.other", "error" if off > _REFUSED else "warning", found, expected, remedy)

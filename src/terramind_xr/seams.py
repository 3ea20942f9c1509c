"""How far the tiling of a scene shows in a map: gradients across borders against those elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data.metadata import missing_value
from terramind_xr.engine.tiling import AxisTiling, Tiling
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import modalities
from terramind_xr.grid import Grid
from terramind_xr.plans import Plan

_INSIDE, _PATCH, _TILE = range(3)


@dataclass(frozen=True)
class Seams:
    """How much a map changes across borders of tiles and of patches; 1 where a border does not show.

    Parameters
    ----------
    seam
        Change across the borders of tiles over that across the other borders of patches; NaN where the
        scene has no border of tiles.
    patch
        Change across the borders of patches that are none of tiles, over that between the pixels inside
        patches.
    """

    seam: float
    patch: float

    def __repr__(self) -> str:
        return f"Seams(seam={self.seam:.3g}, patch={self.patch:.3g})"


def seam_index(da: xr.DataArray, plan: Plan) -> Seams:
    """Measure whether the borders of tiles, and those of patches, show in a generated map.

    A change is the absolute difference of neighbouring pixels, or whether they differ for maps of classes.
    TerraMind decodes patches of 16 pixels, whose grid shows by itself. A border of tiles is one of patches,
    too, and therefore compared with the other borders of patches: a map without seams has a seam index of 1,
    whatever its patch index. Rows and columns are each compared with their own kind. With several passes
    over the scene (`shifts`), the borders of each count.

    Borders of tiles are where a tile starts or ends within the scene. With an overlap these are two to each
    pair of neighbours, between which the tiles are blended.

    Lazy data is computed, chunk by chunk. Of a map that the model has still to make, write it first
    (`to_zarr`), so that the model runs once.

    Parameters
    ----------
    da
        A map with two spatial dims; further ones, such as time, are averaged over. Classes are known by
        ``flag_values`` in the attributes, or by an integer dtype unless the array is of a modality in
        physical units. Pixels without data (NaN, the declared nodata value, 0 in LULC) do not count.
    plan
        What `terramind_xr.plan` says of the same scene and options, which gives size and overlap.

    Returns
    -------
    Seams
        ``seam`` and ``patch``; NaN where there is nothing to compare with.

    Raises
    ------
    InputError
        The array is no map of the size of the plan.
    OptionError
        `da` or `plan` is something else, or the map was made with another overlap or other shifts.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(300)
    >>> lulc = ds.terramind.generate("LULC", model="demo", overlap=0).compute()
    >>> terramind_xr.seam_index(lulc, ds.terramind.plan("LULC", model="demo", overlap=0)).patch > 5
    True
    """
    grid = _checked_grid(da, plan)
    tiling = Tiling.of(plan.shape, overlap=plan.overlap, shifts=plan.shifts)
    if not da.variable._in_memory and da.chunks is None:  # opened without chunks: would be read whole
        da = da.chunk("auto")
    nodata, classes = _kind(da)
    profiles = dask.compute(*(_profile(da.variable, dim, nodata, classes) for dim in grid.dims))
    totals = []
    for dim, axis, (change, count) in zip(grid.dims, (tiling.y, tiling.x), profiles, strict=True):
        places = slice(None, None, -1 if dim in grid.runs_backwards else 1)
        kinds = _kinds(axis)
        totals.append(
            [[np.asarray(each)[places][kinds == kind].sum() for each in (change, count)] for kind in range(3)]
        )
    # Axis, kind of border; the changes, and between how many pairs of pixels.
    changes, counts = np.moveaxis(np.array(totals, np.float64), -1, 0)
    return Seams(_ratio(changes, counts, _TILE, _PATCH), _ratio(changes, counts, _PATCH, _INSIDE))


def _checked_grid(da: xr.DataArray, plan: Plan) -> Grid:
    """Grid of a map that fits the plan."""
    if not isinstance(da, xr.DataArray):
        raise OptionError(
            f"seam_index takes a DataArray, got {type(da).__name__}. Pick one variable: "
            "ds['LULC'].terramind.seam_index(plan)"
        )
    if not isinstance(plan, Plan):
        raise OptionError(
            f"plan={plan!r} cannot be used: expected what ds.terramind.plan('LULC') gives for the scene "
            "and the options that the map was made with."
        )
    if da.dtype.kind not in "iufb":
        raise InputError(f"{da.name!r} has dtype {da.dtype}, expected numbers, such as generate gives.")
    grid = Grid.find(da)
    if grid is None:
        raise InputError(
            f"{da.name!r} has dims {da.dims}, but none are known as rows and columns. Rename two of them "
            "to 'y' and 'x'."
        )
    shape = grid.shape
    if shape != tuple(plan.shape):
        raise InputError(
            f"{da.name!r} has {shape[0]} × {shape[1]} pixels, but the plan is of {plan.shape[0]} × "
            f"{plan.shape[1]}. The tiles of a crop cannot be placed: give the whole map, and the plan of the "
            "scene that it was made from."
        )
    for option, planned in (("overlap", plan.overlap), ("shifts", plan.shifts)):
        made = da.attrs.get(f"terramind_{option}", planned)
        if made != planned:
            raise OptionError(
                f"{da.name!r} was made with {option}={made}, but the plan says {planned}, which puts the "
                f"tiles elsewhere. Plan as it was made: ds.terramind.plan(…, {option}={made})."
            )
    return grid


def _kind(da: xr.DataArray) -> tuple[float | None, bool]:
    """Value of pixels without data besides NaN, and whether the values are classes."""
    modality = modalities.get(str(da.attrs.get("modality", da.name)))
    physical = modality is not None and modality.name != "LULC"
    return missing_value(da), "flag_values" in da.attrs or (da.dtype.kind in "iub" and not physical)


def _profile(
    values: xr.Variable, dim: str, nodata: float | None, classes: bool
) -> tuple[xr.Variable, xr.Variable]:
    """Changes between neighbours along a dim, and the number of valid pairs, summed over all other dims."""
    before, after = (values.isel({dim: part}) for part in (slice(None, -1), slice(1, None)))
    # Unsigned integers would wrap around in a difference.
    change = before != after if classes else abs(after.astype(np.float64) - before.astype(np.float64))
    valid = before.notnull() & after.notnull()
    if nodata is not None:
        valid &= (before != nodata) & (after != nodata)
    others = [each for each in values.dims if each != dim]
    counted = change.where(valid, 0)  # type: ignore[no-untyped-call]
    return counted.astype(np.float64).sum(others), valid.sum(others)


def _kinds(axis: AxisTiling) -> NDArray[np.int64]:
    """What lies between each pixel of an axis and the next: inside of a patch, border of patches or tiles.

    Borders of any pass count: what lies inside the patches of one may be a border in the next.
    """
    places = np.arange(1, axis.size)
    kinds = np.full(places.shape, _INSIDE)
    kinds[np.isin(places % axis.patch, list(axis.passes))] = _PATCH
    borders = {
        border for starts in axis.passes.values() for start in starts for border in (start, start + axis.tile)
    }
    kinds[np.isin(places, sorted(borders))] = _TILE
    return kinds


def _ratio(changes: NDArray[np.float64], counts: NDArray[np.float64], kind: int, other: int) -> float:
    """Mean change across one kind of border over that across the other, as it is expected of the same axes.

    A scene may have borders of a kind on one axis alone, and its content run in one direction.
    """
    comparable = (counts[:, kind] > 0) & (counts[:, other] > 0)
    found, expected = changes[comparable, kind].sum(), 0.0
    for axis in np.flatnonzero(comparable):
        expected += counts[axis, kind] * changes[axis, other] / counts[axis, other]
    if expected == 0:
        return np.inf if found > 0 else np.nan
    return float(found / expected)

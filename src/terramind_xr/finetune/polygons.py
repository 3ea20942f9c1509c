"""Labels drawn as polygons, on the grid of a scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from terramind_xr.errors import InputError, OptionError
from terramind_xr.grid import Grid

UNLABELLED = 255
"""Stands for pixels outside all polygons."""


def rasterized(
    polygons: Any, like: xr.DataArray, *, column: str | None = None, classes: Mapping[int, str] | None = None
) -> xr.DataArray:
    """Draw polygons on the grid of a scene: codes (y, x), uint8, 255 outside of them.

    A pixel belongs to the polygon that holds its centre; of several, to the last.

    Parameters
    ----------
    polygons
        `geopandas.GeoDataFrame`, in any CRS.
    like
        Any array on the grid of the scene.
    column
        Holds the class of each polygon: names, or codes. By default ``"class"``, or the only column beside
        the geometry.
    classes
        Name of each code; by default names count from 0 in the order of the alphabet.

    Raises
    ------
    InputError
        A CRS is missing, or no polygon lies on the scene.
    OptionError
        The column is not there, or holds what is no class.
    """
    from rasterio.features import rasterize

    grid = Grid.of(like)
    if polygons.crs is None or grid.crs is None or grid.transform is None:
        which = "The polygons have" if polygons.crs is None else "The scene has"
        raise InputError(
            f"{which} no CRS, so that they cannot be laid on each other. Say it: polygons.set_crs(…), "
            "ds.rio.write_crs(…)."
        )
    values = polygons[_column(polygons, column)]
    named = _named(list(values), classes)
    codes = {name: code for code, name in named.items()}
    placed = polygons.to_crs(grid.crs.to_wkt())
    # Names and codes are taken alike.
    shapes = [
        (shape, value if value in named else codes[value])
        for shape, value in zip(placed.geometry, values, strict=True)
        if shape is not None and not shape.is_empty
    ]
    drawn = np.full(grid.shape, UNLABELLED, np.uint8)
    if shapes:
        rasterize(shapes, out=drawn, transform=grid.transform)
    if (drawn == UNLABELLED).all():
        left, bottom, right, top = placed.total_bounds
        raise InputError(
            f"labels: no polygon lies on the scene: found them from {left:.0f}, {bottom:.0f} to "
            f"{right:.0f}, {top:.0f} in its CRS. Give those of this scene, and check their CRS, "
            f"{polygons.crs.to_string()}."
        )
    meanings = " ".join(name.replace(" ", "_") for name in named.values())
    attrs = {"flag_values": list(named), "flag_meanings": meanings, "nodata": UNLABELLED}
    return grid.assign(xr.DataArray(drawn, dims=grid.dims, name="labels", attrs=attrs))


def _column(polygons: Any, column: str | None) -> str:
    others = [str(name) for name in polygons.columns if name != polygons.geometry.name]
    if column is None:
        column = "class" if "class" in others else others[0] if len(others) == 1 else None
    if column not in others:
        raise OptionError(
            f"column={column!r} is not among those of the polygons: {', '.join(others) or 'none'}. Name the "
            "one that holds the classes: column='class'."
        )
    return column


def _named(values: list[Any], classes: Mapping[int, str] | None) -> dict[int, str]:
    """Names by code; codes from 0 to 254."""
    names = sorted({value for value in values if isinstance(value, str)})
    if classes is not None:
        named = {int(code): str(name) for code, name in classes.items()}
    elif len(names) and all(isinstance(value, str) for value in values):
        named = dict(enumerate(names))
    else:
        named = {int(value): str(int(value)) for value in sorted(set(values))}
    known = {*named, *named.values()}
    other = next((value for value in values if value not in known), None)
    if other is not None or not all(0 <= code < UNLABELLED for code in named):
        raise OptionError(
            f"the polygons hold the class {other!r}, expected one of {named}: codes from 0 to "
            f"{UNLABELLED - 1}. Say them: classes={{0: 'dry', 1: 'water'}}."
        )
    return dict(sorted(named.items()))

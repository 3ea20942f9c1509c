"""Where the tiles of a scene lie on Earth: small enough to travel with a kernel. Reads no pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terramind_xr.crs import lonlat
from terramind_xr.errors import InputError
from terramind_xr.grid import Grid


@dataclass(frozen=True)
class Georeference:
    """Places of a scene that is north up and west left, as the model sees it.

    Parameters
    ----------
    crs
        As WKT.
    x, y
        North-west corner of the scene.
    step_x, step_y
        From one pixel to the next, eastwards and southwards.
    shape
        Rows and columns.

    Examples
    --------
    >>> import xarray as xr
    >>> axes = {"y": 5e6 - 10 * np.arange(224), "x": 5e5 + 10 * np.arange(224)}
    >>> scene = xr.DataArray(np.zeros((224, 224)), dims=("y", "x"), coords=axes).rio.write_crs("EPSG:32632")
    >>> Georeference.of(Grid.of(scene)).lonlat(np.array([[0, 0]]), tile=224).round(3).tolist()
    [[9.014, 45.143]]
    """

    crs: str
    x: float
    y: float
    step_x: float
    step_y: float
    shape: tuple[int, int]

    @classmethod
    def of(cls, grid: Grid) -> Georeference:
        """Georeference of a grid, whichever way it runs.

        Raises
        ------
        InputError
            The grid has no CRS, or nothing tells where it lies in it.
        """
        transform = grid.transform
        faults = []
        if grid.crs is None:
            found = grid.crs_fault and f"a CRS that cannot be read ({grid.crs_fault})"
            faults.append(
                f"Coordinates: found {found or 'no CRS'}, expected one, from which longitude and latitude "
                "follow. Write it: ds = ds.rio.write_crs('EPSG:…'), or leave Coordinates out of inputs."
            )
        if transform is None or transform.b or transform.d:
            faults.append(
                f"Coordinates: found no coordinates {grid.y.dim} and {grid.x.dim}, expected the places of "
                f"the pixel centres in the CRS. Give them: ds.assign_coords({grid.y.dim}=…, {grid.x.dim}=…), "
                "or leave Coordinates out of inputs."
            )
        if faults:
            raise InputError(faults)
        x, y, step_x, step_y = transform.c, transform.f, transform.a, transform.e
        if grid.y.dim in grid.runs_backwards:
            y, step_y = y + step_y * grid.shape[0], -step_y
        if grid.x.dim in grid.runs_backwards:
            x, step_x = x + step_x * grid.shape[1], -step_x
        return cls(grid.crs.to_wkt(), float(x), float(y), float(step_x), float(step_y), grid.shape)

    def lonlat(self, places: NDArray[np.int64], tile: int) -> NDArray[np.float64]:
        """Longitude and latitude, in degrees, of the centres of tiles: (tile, 2).

        Parameters
        ----------
        places
            First row and column of each tile from the north-west corner: (tile, 2).
        tile
            Side of a tile in pixels. What reaches beyond the scene is a reflection, and no place on Earth:
            the centre is that of the part within.
        """
        rows, cols = (
            (places[:, axis] + np.minimum(places[:, axis] + tile, self.shape[axis])) / 2 for axis in (0, 1)
        )
        return lonlat(self.crs, self.x + self.step_x * cols, self.y + self.step_y * rows)

"""The fields that decide what covers a window of the world: relief, climate, textures, parcels and towns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from terramind_xr.synthetic.fields import Cells, Float, cells, fractal, node_positions, refine, stream
from terramind_xr.synthetic.terrain import ALTITUDE, LAKE, RIVER, bent


class Place(NamedTuple):
    """Smooth fields (zero mean, standard deviation about 0.7), and the textures and cells of a window."""

    height: Float
    hillshade: Float
    heat: Float
    moisture: Float
    forest: Float
    farming: Float
    urban: Float
    river: Float
    lake: Float
    marsh: Float
    cloud: Float
    haze: Float
    patch: Float
    texture: Float
    grain: Float
    parcel: Cells
    town: Cells
    block: Cells


def survey(seed: int, y: int, x: int, height: int, width: int) -> Place:
    """All fields of the window whose first pixel is row `y`, column `x` of the world."""
    rows, columns = node_positions(y, height, extra=1), node_positions(x, width, extra=1)
    v, u = (np.ascontiguousarray(axis) for axis in np.meshgrid(rows, columns, indexing="ij"))
    bend_v, bend_u = bent(seed, v, u)
    altitude = fractal(seed, "altitude", bend_v, bend_u, ALTITUDE)
    light = (altitude[1:, :-1] - altitude[:-1, :-1]) + (altitude[:-1, 1:] - altitude[:-1, :-1])
    rugged = np.clip(altitude[:-1, :-1] + np.float32(0.4), 0.1, 2)

    def smooth(name: str, *wavelengths: float, straight: bool = False) -> Float:
        at = (v, u) if straight else (bend_v, bend_u)
        field = fractal(seed, name, at[0][:-1, :-1], at[1][:-1, :-1], wavelengths)
        return refine(field, y, x, height, width)

    warp = (bend_v - v)[:-1, :-1], (bend_u - u)[:-1, :-1]
    pixel_v = np.arange(y, y + height, dtype=np.float64)[:, None] + np.zeros((1, width))
    pixel_u = np.arange(x, x + width, dtype=np.float64)[None, :] + np.zeros((height, 1))
    patch = fractal(seed, "patch", pixel_v, pixel_u, (34, 15))
    texture = fractal(seed, "texture", pixel_v, pixel_u, (7,))
    warped_v = pixel_v + 0.6 * refine(warp[0].astype(np.float32), y, x, height, width) + 0.8 * texture
    warped_u = pixel_u + 0.6 * refine(warp[1].astype(np.float32), y, x, height, width) + 0.5 * patch
    large = cells(stream(seed, "parcel-large"), warped_v, warped_u, 44.0)
    small = cells(stream(seed, "parcel-small"), warped_u, warped_v, 19.0)
    divided = (large.bits & np.uint32(0x300)) != 0
    parcel = Cells(*(np.where(divided, one, other) for one, other in zip(small, large, strict=True)))
    return Place(
        height=refine(altitude[:-1, :-1], y, x, height, width) + np.float32(0.03) * patch,
        hillshade=refine(light * rugged * np.float32(9), y, x, height, width),
        heat=smooth("heat", 5200, 1900, 600),
        moisture=smooth("moisture", 1900, 700, 240),
        forest=smooth("forest", 800, 260, 90) + np.float32(0.28) * patch,
        farming=smooth("farming", 900, 300),
        urban=smooth("urban", 1100, 350),
        river=smooth("river", *RIVER, straight=True),
        lake=smooth("lake", *LAKE),
        marsh=smooth("marsh", 240, 80) + np.float32(0.3) * patch,
        cloud=smooth("cloud", 900, 300, 100, 40, straight=True) + np.float32(0.10) * patch,
        haze=smooth("haze", 1600, 500, straight=True),
        patch=patch,
        texture=texture,
        grain=fractal(seed, "grain", pixel_v, pixel_u, (2.7,)),
        parcel=parcel,
        town=cells(stream(seed, "town"), warped_v, warped_u, 270.0),
        block=cells(stream(seed, "block"), warped_u + 0.2 * warped_v, warped_v, 7.5),
    )

"""The fields that decide what covers a window of the world: relief, climate, textures, parcels and towns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from terramind_xr.synthetic.fields import Cells, Float, cells, fractal, node_positions, refine, stream
from terramind_xr.synthetic.terrain import bent, relief


class Place(NamedTuple):
    """Smooth fields (zero mean, standard deviation about 0.7), and the textures and cells of a window."""

    height: Float
    heat: Float
    moisture: Float
    forest: Float
    farming: Float
    urban: Float
    marsh: Float
    cloud: Float
    haze: Float
    rock: Float
    tone: Float
    tilt: Float
    elevation: Float
    slope_south: Float
    slope_east: Float
    shore: Float
    river: Float
    lake: Float
    patch: Float
    texture: Float
    grain: Float
    parcel: Cells
    town: Cells
    block: Cells


def survey(seed: int, day: int, y: int, x: int, height: int, width: int) -> Place:
    """All fields of the window whose first pixel is row `y`, column `x` of the world.

    The clouds and the haze are those of `day`, in days since 1970.
    """
    rows, columns = node_positions(y, height), node_positions(x, width)
    v, u = (np.ascontiguousarray(axis) for axis in np.meshgrid(rows, columns, indexing="ij"))
    bend_v, bend_u = bent(seed, v, u)
    land = relief(seed, y, x, height, width)

    def smooth(name: str, *wavelengths: float, straight: bool = False) -> Float:
        at = (v, u) if straight else (bend_v, bend_u)
        return refine(fractal(seed, name, *at, wavelengths), y, x, height, width)

    warp = bend_v - v, bend_u - u
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
        height=land.height + np.float32(0.03) * patch,
        heat=smooth("heat", 5200, 1900, 600) + _south(y, height),
        moisture=smooth("moisture", 1900, 700, 240),
        forest=smooth("forest", 800, 260, 90) + np.float32(0.28) * patch,
        farming=smooth("farming", 900, 300),
        urban=smooth("urban", 1100, 350),
        marsh=smooth("marsh", 240, 80) + np.float32(0.3) * patch,
        cloud=smooth(f"cloud/{day}", 900, 300, 100, 40, straight=True) + np.float32(0.10) * patch,
        haze=smooth(f"haze/{day}", 1600, 500, straight=True),
        rock=smooth("rock", 330, 120),
        tone=smooth("tone", 160, 50) + np.float32(0.4) * patch,
        tilt=smooth("tilt", 900, 210, 60),
        elevation=land.elevation,
        slope_south=land.slope_south,
        slope_east=land.slope_east,
        shore=land.shore,
        river=land.river,
        lake=land.lake,
        patch=patch,
        texture=texture,
        grain=fractal(seed, "grain", pixel_v, pixel_u, (2.7,)),
        parcel=parcel,
        town=cells(stream(seed, "town"), warped_v, warped_u, 270.0),
        block=cells(stream(seed, "block"), warped_u + 0.2 * warped_v, warped_v, 7.5),
    )


def _south(y: int, height: int) -> Float:
    """Warmth of the latitude, (y, 1): the south of a scene of 100,000 pixels is warmer than its north."""
    south = np.arange(y, y + height, dtype=np.float32) * np.float32(1 / 100_000) - np.float32(0.5)
    warmth: Float = np.clip(south * np.float32(0.6), -0.3, 0.3)[:, None]
    return warmth

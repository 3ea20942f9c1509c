"""Sentinel-1 backscatter of the procedural world: C band, dual polarisation, ascending, looking east.

The means of the materials are set by hand after what the literature commonly reports for C band at middle
incidence, and rounded: calm water about -20 dB, forest about -8 dB in VV and 5 to 6 dB less in VH, bare
soils by roughness, buildings bright. They were neither taken from one source nor compared with data.

Sources of the formulas
-----------------------
- Terrain: illuminated area of a facet, L. Ulander 1996 (doi:10.1109/36.536527) and D. Small 2011
  (doi:10.1109/TGRS.2011.2120616). Shifts (foreshortening, layover) are not modelled, only brightness.
- Equivalent number of looks of Sentinel-1 IW GRD in high resolution: about 4.4 (ESA, Sentinel-1 product
  definition). Neighbouring pixels are independent here, and correlated in real products.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.facts import modalities
from terramind_xr.synthetic.fields import Float, fractal, lattice, node_positions, refine, stream, uniform
from terramind_xr.synthetic.phenology import seasonal
from terramind_xr.synthetic.spectra import MATERIAL
from terramind_xr.synthetic.world import BUILT, Surface

INCIDENCE = 39.0
"""Incidence angle on flat ground in degrees: the middle of the IW swath."""
LOOKS = 4.4
"""Equivalent number of looks."""

# gamma nought in dB: VV, VH
_MATERIALS: dict[str, tuple[float, float]] = {
    "water_clear": (-20, -28), "water_dark": (-21, -29), "water_turbid": (-19, -27),
    "water_green": (-19, -27), "water_glint": (-17, -26),
    "conifer": (-8.5, -14), "broadleaf": (-8, -13.5), "evergreen": (-7.5, -13), "forest_dry": (-9, -15),
    "mangrove": (-8, -14), "reed": (-10.5, -17), "swamp": (-9.5, -17),
    "crop_green": (-9.5, -16), "crop_flower": (-9, -14.5), "crop_young": (-11, -18.5),
    "crop_ripe": (-11.5, -17.5), "stubble": (-12.5, -20),
    "soil_dark": (-11, -20), "soil_brown": (-12.5, -21), "soil_red": (-13, -22),
    "sand": (-18, -27), "desert": (-16, -25), "rock_grey": (-11, -19), "rock_dark": (-10.5, -18.5),
    "roof_tile": (-4, -12), "roof_bright": (-3, -12), "roof_grey": (-3.5, -11.5), "roof_dark": (-4.5, -12),
    "asphalt": (-12, -20), "concrete": (-8, -17), "garden": (-8.5, -14.5),
    "snow_fresh": (-14, -22), "snow_old": (-12.5, -20), "ice": (-9, -16),
    "grass_green": (-12, -18.5), "grass_dry": (-13.5, -20.5), "shrub": (-10.5, -16.5),
    "heath": (-11.5, -17.5), "savanna": (-12, -18.5),
    "broadleaf_bare": (-8.5, -15), "soil_chalk": (-12, -21), "soil_peat": (-10.5, -19),
    "roof_metal": (-2.5, -11.5), "asphalt_new": (-13.5, -21.5), "gravel": (-10, -19),
    "cloud_thick": (math.nan, math.nan), "cloud_thin": (math.nan, math.nan),  # radar sees the ground
}  # fmt: skip
_TABLE = np.array([_MATERIALS[name] for name in MATERIAL], np.float32)

_FLOOR = 10**-2.7  # thermal noise, -27 dB
_RESIDUAL = np.float32(0.12)  # of the terrain's effect, what terrain correction leaves
_FLAT = np.float32(10 * math.log10(math.cos(math.radians(INCIDENCE))))  # sigma nought less gamma nought
_STEPS = 64.0  # of the tables in dB, to one dB


def _speckle_table(size: int = 1 << 16) -> Float:
    """Speckle in dB by its probability: quantiles of the gamma distribution with mean one.

    Looked up rather than computed: a logarithm may differ in its last bit with the shape of the array.
    """
    power = np.linspace(0, 8, 80_001)[1:]
    cumulated = np.cumsum(power ** (LOOKS - 1) * np.exp(-LOOKS * power))
    probability = (np.arange(size) + 0.5) / size
    quantile = np.interp(probability, cumulated / cumulated[-1], power)
    decibel: Float = (10 * np.log10(quantile / quantile.mean())).astype(np.float32)
    return decibel


def _terrain_table(size: int = 4096) -> Float:
    """Brightening in dB by the slope that faces the sensor, from -1 to 1."""
    slope, tangent = np.linspace(-1, 1, size), math.tan(math.radians(INCIDENCE))
    area = np.maximum(1 + slope * tangent, 0.1) / np.maximum(1 - slope / tangent, 0.1)
    return (10 * np.log10(area)).astype(np.float32)


def _floor_table() -> Float:
    """Backscatter with thermal noise by that without, from -48 to +16 dB."""
    signal = np.arange(-48, 16, 1 / _STEPS)
    return (10 * np.log10(10 ** (signal / 10) + _FLOOR)).astype(np.float32)


_SPECKLE, _TERRAIN, _WITH_FLOOR = _speckle_table(), _terrain_table(), _floor_table()


def backscatter(ground: Surface, seed: int, day: int, y: int, x: int, corrected: bool) -> Float:
    """Backscatter in dB of a window of cloudless ground, (VV and VH, y, x) float32.

    Parameters
    ----------
    ground, seed, day, y, x
        Surface without clouds, its world, the day, and the position of its first pixel.
    corrected
        gamma nought with the terrain's effect mostly removed (RTC), else sigma nought with it (GRD).
    """
    height, width = ground.cover.shape
    rows, columns = np.arange(y, y + height), np.arange(x, x + width)
    still = ground.water
    slope = np.where(still, np.float32(0), ground.slope_east)
    terrain = _look_up(_TERRAIN, (slope + np.float32(1)) * np.float32((len(_TERRAIN) - 1) / 2))
    terrain = terrain * _RESIDUAL if corrected else terrain + _FLAT
    terrain = terrain + _roughness(seed, day, y, x, height, width) * np.where(
        still, np.float32(1.8), np.float32(0.9)
    )
    chance = uniform(lattice(stream(seed, "radar/corner"), rows, columns))
    corner = chance * chance * chance * chance  # few pixels hold a wall that faces the sensor
    terrain = terrain + np.where(ground.cover == BUILT, np.float32(11) * corner, np.float32(0))
    table = seasonal(day, _TABLE)
    result = np.empty((table.shape[1], height, width), np.float32)
    for number, name in enumerate(modalities["S1GRD"].band_names):
        column = np.ascontiguousarray(table[:, number])
        one = column.take(ground.first)
        signal = one + ground.mix * (column.take(ground.second) - one) + terrain
        signal = _look_up(_WITH_FLOOR, (signal + np.float32(48)) * np.float32(_STEPS))
        result[number] = signal + speckle(lattice(stream(seed, f"radar/{name}/{day}"), rows, columns))
    return result


def speckle(bits: NDArray[np.uint32]) -> Float:
    """Speckle in dB by uniform bits."""
    found: Float = _SPECKLE.take(bits >> np.uint32(16))
    return found


def _look_up(table: Float, position: NDArray[Any]) -> Float:
    index = np.clip(position + np.float32(0.5), 0, len(table) - 1).astype(np.intp)
    return table.take(index)


def _roughness(seed: int, day: int, y: int, x: int, height: int, width: int) -> Float:
    """What changes backscatter within a material: wind on water, moisture and roughness of soils."""
    rows, columns = node_positions(y, height), node_positions(x, width)
    v, u = (np.ascontiguousarray(axis) for axis in np.meshgrid(rows, columns, indexing="ij"))
    return refine(fractal(seed, f"radar/roughness/{day}", v, u, (500, 160, 50)), y, x, height, width)

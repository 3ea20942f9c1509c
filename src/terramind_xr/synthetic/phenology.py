"""The year of the procedural world: the sun, the snow line, the leaves, and the crops on the fields.

Everything here follows from the day alone, in tables and scalars: the fields of a world do not change.

Sources
-------
- Sun: declination after P. I. Cooper 1969 (doi:10.1016/0038-092X(69)90047-4); Sentinel-2 passes at 10:30
  local solar time (ESA, Sentinel-2 User Handbook).
- Leaves: rise and fall of greenness as two logistic curves, P. Beck et al. 2006
  (doi:10.1016/j.rse.2005.10.021).
- Crops: order and rough dates of the stages of the crops of temperate Europe; set by hand.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from terramind_xr.synthetic.fields import Float
from terramind_xr.synthetic.spectra import MATERIAL

NOMINAL = int(np.datetime64("2024-07-01", "D").astype(np.int64))
"""The day on which a world is seen unless another is asked for, in days since 1970."""
YEAR = 366
LATITUDE = 50.0

# Of each crop, what its field looks like on some days of the year; it changes evenly from one to the next.
_CROPS: dict[str, tuple[tuple[int, str], ...]] = {
    "winter wheat": (
        (20, "crop_young"), (85, "crop_young"), (115, "crop_green"), (160, "crop_green"), (185, "crop_ripe"),
        (205, "crop_ripe"), (212, "stubble"), (250, "stubble"), (262, "soil_brown"), (300, "soil_brown"),
        (335, "crop_young"),
    ),
    "rapeseed": (
        (20, "crop_young"), (85, "crop_green"), (112, "crop_flower"), (135, "crop_flower"),
        (145, "crop_green"), (190, "crop_ripe"), (205, "stubble"), (225, "soil_brown"), (245, "soil_brown"),
        (280, "crop_young"),
    ),
    "spring barley": (
        (75, "soil_brown"), (100, "soil_brown"), (125, "crop_young"), (150, "crop_green"),
        (175, "crop_green"), (195, "crop_ripe"), (212, "stubble"), (270, "stubble"), (285, "soil_dark"),
        (350, "soil_dark"),
    ),
    "maize": (
        (60, "stubble"), (95, "soil_dark"), (140, "soil_brown"), (168, "crop_young"), (200, "crop_green"),
        (250, "crop_green"), (280, "crop_ripe"), (295, "stubble"), (340, "stubble"),
    ),
    "sugar beet": (
        (60, "soil_dark"), (115, "soil_brown"), (150, "crop_young"), (180, "crop_green"),
        (285, "crop_green"), (300, "soil_dark"), (350, "soil_dark"),
    ),
    "sunflower": (
        (90, "stubble"), (110, "soil_red"), (135, "soil_red"), (165, "crop_green"), (195, "crop_flower"),
        (212, "crop_flower"), (245, "crop_ripe"), (265, "stubble"), (300, "soil_red"),
    ),
    "lucerne": (
        (40, "crop_young"), (100, "crop_green"), (138, "crop_green"), (144, "crop_young"),
        (172, "crop_green"), (178, "crop_young"), (210, "crop_green"), (216, "crop_young"),
        (270, "crop_green"), (330, "crop_young"),
    ),
    "fallow": (
        (30, "soil_red"), (90, "soil_brown"), (130, "grass_green"), (180, "grass_dry"), (240, "grass_dry"),
        (290, "soil_brown"), (340, "soil_dark"),
    ),
    "winter barley": (
        (20, "crop_young"), (80, "crop_young"), (105, "crop_green"), (145, "crop_green"), (168, "crop_ripe"),
        (182, "stubble"), (205, "soil_dark"), (225, "crop_young"), (300, "crop_green"), (330, "crop_young"),
    ),
}  # fmt: skip

# Of each plant cover, what it turns into when its leaves are gone, and how much of it does
_BARE: dict[str, tuple[str, float]] = {
    "broadleaf": ("broadleaf_bare", 0.9),
    "garden": ("broadleaf_bare", 0.5),
    "grass_green": ("grass_dry", 0.55),
    "shrub": ("broadleaf_bare", 0.5),
    "heath": ("broadleaf_bare", 0.4),
    "reed": ("grass_dry", 0.7),
    "swamp": ("broadleaf_bare", 0.4),
}


class Stages(NamedTuple):
    """What a crop looks like on each day of the year: two materials and the share of the second."""

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    mix: Float


def _stages() -> Stages:
    """Tables (crop, day) of the crop calendar."""
    shape = len(_CROPS), YEAR
    table = Stages(np.empty(shape, np.uint8), np.empty(shape, np.uint8), np.empty(shape, np.float32))
    for crop, knots in enumerate(_CROPS.values()):
        for (begin, before), (end, after) in zip(knots, (*knots[1:], knots[0]), strict=True):
            length = (end - begin) % YEAR
            for step in range(length):
                day = (begin + step) % YEAR
                table.first[crop, day], table.second[crop, day] = MATERIAL[before], MATERIAL[after]
                table.mix[crop, day] = step / length
    return table


_STAGES = _stages()
CROPS = len(_CROPS)
"""Number of crops in the calendar."""


def day_of_year(day: int) -> int:
    """Day of the year, 0 to 365, of a day since 1970."""
    date = np.datetime64(day, "D")
    return int((date - date.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64))


def crops(day: int, crop: NDArray[np.uint32], late: Float) -> Stages:
    """Materials of fields, by their crop and how many days they are behind the calendar; (y, x)."""
    on = np.floor(np.float32(day_of_year(day) + YEAR) - late).astype(np.intp) % YEAR
    at = crop.astype(np.intp) * YEAR + on
    return Stages(*(table.ravel().take(at) for table in _STAGES))


def leaves(day: int) -> float:
    """Share of the leaves that are out, 0 in winter to 1 in summer."""
    date = day_of_year(day)
    out, fall = (1 / (1 + math.exp(-(date - middle) / spread)) for middle, spread in ((112, 7), (300, 9)))
    return out - fall


def winter(day: int) -> float:
    """Depth of the winter: 1 in the end of January, 0 from spring to autumn."""
    return max(0.0, math.cos(2 * math.pi * (day_of_year(day) - 28) / YEAR))


def drought(day: int) -> float:
    """How much drier than on average open land looks: most in August, least in spring."""
    return 0.3 * math.cos(2 * math.pi * (day_of_year(day) - 225) / YEAR)


def seasonal(day: int, table: Float) -> Float:
    """Table (material, value) in which the plants have the leaves of the day."""
    result, gone = table.copy(), np.float32(1 - leaves(day))
    for name, (bare, share) in _BARE.items():
        row, other = MATERIAL[name], table[MATERIAL[bare]]
        result[row] = table[row] + gone * np.float32(share) * (other - table[row])
    return result


def sun(day: int) -> tuple[float, float]:
    """Elevation and azimuth (clockwise from north) of the sun in degrees when Sentinel-2 passes."""
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day_of_year(day) + 1) / 365)
    latitude, hour = math.radians(LATITUDE), math.radians(15 * (10.5 - 12))
    height = math.asin(
        math.sin(latitude) * math.sin(declination)
        + math.cos(latitude) * math.cos(declination) * math.cos(hour)
    )
    south = math.atan2(
        math.sin(hour),
        math.cos(hour) * math.sin(latitude) - math.tan(declination) * math.cos(latitude),
    )
    return math.degrees(height), math.degrees(south) + 180

"""Typical surface reflectances of materials in the twelve bands of Sentinel-2 L2A.

The numbers are set by hand after the typical shapes of such spectra, and rounded; they were not read from the
libraries below. Those of plants lie close to what PROSAIL (PROSPECT-D: Féret et al. 2017,
doi:10.1016/j.rse.2017.03.004; 4SAIL: Verhoef et al. 2007, doi:10.1109/TGRS.2007.895844) gives for usual
canopies: `benchmarks/spectra.py` prints both side by side. The median over seven canopies is 0.9 to 1.4 times
PROSAIL's in all bands but the red one, where ours are 1.9 times as bright. They make a world to try things
on, no reference.

Where to compare
----------------
- USGS Spectral Library Version 7 (Kokaly et al. 2017, doi:10.3133/ds1035): vegetation, soils, rocks, roofs.
- ECOSTRESS Spectral Library 1.0 (Meerdink et al. 2019, doi:10.1016/j.rse.2019.05.015): asphalt, concrete,
  snow and ice, conifer and broadleaf canopies.
- Sand, clear and turbid water: tables of 6S (Vermote et al. 1997, doi:10.1109/36.581987).
- Other water: optical water types of Spyrakos et al. 2018, doi:10.1002/lno.10674.
- Clouds: means of thick and thin clouds over land in Hollstein et al. 2016, doi:10.3390/rs8080666.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from terramind_xr.synthetic.fields import Float

# Reflectance times 10,000: B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12
_MATERIALS: dict[str, tuple[int, ...]] = {
    "water_clear": (220, 180, 160, 100, 80, 60, 55, 50, 45, 40, 25, 18),
    "water_dark": (150, 120, 100, 60, 50, 40, 38, 35, 30, 28, 15, 10),
    "water_turbid": (600, 700, 950, 900, 850, 500, 480, 400, 350, 250, 60, 40),
    "water_green": (350, 380, 600, 400, 480, 300, 320, 280, 240, 180, 50, 35),
    "water_glint": (600, 560, 520, 460, 440, 420, 420, 400, 390, 380, 300, 250),
    "conifer": (150, 180, 320, 220, 480, 1250, 1550, 1650, 1750, 1780, 850, 400),
    "broadleaf": (200, 240, 520, 290, 850, 2600, 3300, 3450, 3650, 3700, 1750, 800),
    "evergreen": (180, 210, 430, 240, 680, 2200, 2800, 2950, 3100, 3150, 1400, 600),
    "forest_dry": (280, 340, 560, 620, 1000, 1700, 2000, 2150, 2350, 2400, 1900, 1050),
    "mangrove": (240, 260, 450, 300, 600, 1700, 2050, 2150, 2250, 2250, 900, 400),
    "reed": (300, 360, 560, 560, 850, 1500, 1750, 1850, 1950, 1900, 1250, 700),
    "swamp": (320, 360, 520, 450, 600, 900, 1000, 1020, 1030, 950, 450, 250),
    "crop_green": (230, 260, 560, 310, 950, 3400, 4300, 4500, 4600, 4600, 1900, 900),
    "crop_flower": (350, 450, 1150, 900, 1500, 3200, 3900, 4000, 4150, 4150, 1900, 950),
    "crop_young": (450, 550, 850, 850, 1250, 2200, 2550, 2700, 2850, 2900, 2300, 1500),
    "crop_ripe": (600, 800, 1250, 1600, 1950, 2400, 2650, 2850, 3050, 3150, 3400, 2300),
    "stubble": (650, 850, 1250, 1650, 1900, 2150, 2350, 2550, 2750, 2850, 3500, 2700),
    "soil_dark": (450, 550, 750, 950, 1100, 1200, 1300, 1400, 1500, 1550, 1900, 1600),
    "soil_brown": (600, 750, 1050, 1400, 1650, 1800, 1950, 2100, 2250, 2350, 2900, 2400),
    "soil_red": (450, 550, 850, 1600, 1900, 2050, 2200, 2350, 2500, 2550, 3100, 2600),
    "sand": (1500, 1900, 2600, 3300, 3600, 3750, 3900, 4000, 4150, 4200, 4900, 4500),
    "desert": (1100, 1400, 2000, 2800, 3100, 3250, 3400, 3500, 3650, 3700, 4400, 4000),
    "rock_grey": (1100, 1200, 1350, 1450, 1500, 1550, 1600, 1650, 1700, 1700, 1900, 1750),
    "rock_dark": (600, 650, 720, 780, 820, 850, 880, 900, 930, 940, 1050, 1000),
    "roof_tile": (700, 800, 1050, 1750, 2050, 2200, 2300, 2350, 2450, 2450, 2700, 2500),
    "roof_bright": (2600, 2900, 3200, 3400, 3500, 3550, 3600, 3650, 3700, 3600, 3400, 3000),
    "roof_grey": (1400, 1500, 1600, 1700, 1750, 1800, 1850, 1900, 1950, 1950, 2100, 2000),
    "roof_dark": (700, 720, 750, 780, 820, 870, 900, 930, 970, 980, 1150, 1120),
    "asphalt": (800, 850, 950, 1050, 1120, 1200, 1250, 1300, 1380, 1400, 1650, 1600),
    "concrete": (1500, 1700, 1950, 2150, 2250, 2350, 2450, 2500, 2600, 2600, 2800, 2600),
    "garden": (400, 450, 700, 600, 1000, 2100, 2500, 2650, 2800, 2800, 1800, 1100),
    "snow_fresh": (9200, 9400, 9300, 9200, 9100, 8900, 8800, 8600, 8300, 7800, 1300, 1000),
    "snow_old": (7000, 7200, 7200, 7100, 7000, 6700, 6500, 6200, 5800, 5200, 700, 550),
    "ice": (5500, 5700, 5600, 5200, 4900, 4400, 4100, 3700, 3200, 2700, 250, 180),
    "cloud_thick": (7200, 7000, 6900, 6900, 7000, 7050, 7100, 7150, 7150, 6800, 5200, 4300),
    "cloud_thin": (3200, 3000, 2950, 2900, 3000, 3400, 3600, 3700, 3750, 3600, 3000, 2300),
    "grass_green": (300, 350, 680, 450, 1050, 2700, 3300, 3450, 3600, 3650, 2200, 1150),
    "grass_dry": (600, 750, 1100, 1350, 1700, 2200, 2450, 2600, 2800, 2900, 3200, 2200),
    "shrub": (350, 430, 650, 700, 1050, 1700, 1950, 2100, 2250, 2300, 2300, 1500),
    "heath": (280, 340, 520, 560, 850, 1400, 1600, 1750, 1900, 1950, 1900, 1150),
    "savanna": (500, 600, 900, 1050, 1400, 1900, 2150, 2300, 2500, 2550, 2800, 1900),
    "broadleaf_bare": (330, 390, 560, 740, 950, 1250, 1400, 1500, 1650, 1700, 2050, 1250),
    "soil_chalk": (1100, 1350, 1800, 2300, 2550, 2650, 2750, 2850, 2950, 2950, 3300, 2900),
    "soil_peat": (300, 350, 450, 560, 680, 800, 900, 980, 1060, 1100, 1350, 1050),
    "roof_metal": (1700, 1850, 1950, 2000, 2020, 2050, 2080, 2100, 2150, 2100, 1900, 1700),
    "asphalt_new": (520, 540, 580, 620, 650, 680, 700, 720, 760, 770, 900, 880),
    "gravel": (1250, 1450, 1800, 2150, 2350, 2450, 2550, 2600, 2700, 2700, 3100, 2850),
}

MATERIAL: dict[str, int] = {name: number for number, name in enumerate(_MATERIALS)}
"""Number of each material: its row in the table of reflectances."""

TABLE = np.array(list(_MATERIALS.values()), dtype=np.float32)
"""Reflectances (material, band) times 10,000."""

# What a hazy atmosphere leaves in the surface reflectance, falling off towards the infrared
_HAZE = np.array((900, 780, 600, 480, 420, 370, 330, 290, 270, 240, 90, 50), dtype=np.float32)


# How much the brightness of a material varies from place to place, as a share of it
_AMPLITUDE = {"water": 0.45, "soil": 0.35, "roof": 0.40, "rock": 0.35, "asphalt": 0.35, "concrete": 0.3}
_VARIETY = np.array([_AMPLITUDE.get(name.split("_")[0], 0.18) for name in _MATERIALS], dtype=np.float32)

# Spectral slope from place to place, by wavelength: less blue is more infrared
_TILT = np.linspace(-1, 1, TABLE.shape[1], dtype=np.float32)


class Cover(NamedTuple):
    """What the optical signal of each pixel comes from, every field (y, x).

    Parameters
    ----------
    first, second
        Numbers of the two materials.
    mix
        Share of the second, 0 to 1.
    tone, tilt
        Brightness and spectral slope against what is usual for the materials, about -1 to 1.
    shade
        Illumination factor, about 1.
    haze
        0 (none) to 1.
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    mix: Float
    tone: Float
    tilt: Float
    shade: Float
    haze: Float


def digital_numbers(table: Float, cover: Cover, noise: Iterable[Float]) -> NDArray[np.uint16]:
    """Sentinel-2 L2A digital numbers without offset (reflectance times 10,000).

    Parameters
    ----------
    table
        Reflectances (material, band) times 10,000: `TABLE`, or that of a season.
    cover
        Materials and light of each pixel.
    noise
        One (y, x) field of unit variance for each of the 12 bands.

    Returns
    -------
    numpy.ndarray
        (band, y, x), uint16, at least 1: zero means no data.
    """
    numbers = np.empty((table.shape[1], *cover.first.shape), dtype=np.uint16)
    variety = _VARIETY.take(cover.first)
    variety = variety + cover.mix * (_VARIETY.take(cover.second) - variety)
    light = cover.shade * np.maximum(np.float32(1) + cover.tone * variety, np.float32(0.3))
    light = light * (np.float32(1) - np.float32(0.1) * cover.haze)
    slope = np.float32(0.12) * cover.tilt * light
    for band, field in enumerate(noise):
        column = np.ascontiguousarray(table[:, band])
        one = column.take(cover.first)
        value = (one + cover.mix * (column.take(cover.second) - one)) * (light + _TILT[band] * slope)
        value = value + cover.haze * _HAZE[band]
        value = value + field * (np.float32(12) + np.float32(0.012) * value)
        numbers[band] = np.clip(value + np.float32(0.5), 1, 20000).astype(np.uint16)
    return numbers

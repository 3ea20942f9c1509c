"""Top-of-atmosphere reflectance of the procedural world: path radiance, transmission, cirrus.

One clear atmosphere for all scenes, with more aerosol where the surface field says haze. Single scattering;
adjacency, BRDF and changes of the sun's height are left out.

Sources
-------
- Rayleigh optical depth: B. Leckner 1978 (doi:10.1016/0038-092X(78)90187-1), 0.008735 λ^-4.08, λ in µm.
- Aerosol optical depth: Ångström's law with exponent 1.3; gas transmission of each band is set by hand
  (water vapour takes half of B09, nearly all of B10).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.facts import modalities
from terramind_xr.synthetic.fields import Float

_SUN = math.cos(math.radians(45))  # cosine of the sun's zenith angle; the sensor looks straight down
_PHASE = 0.75 * (1 + math.cos(math.radians(135)) ** 2)  # Rayleigh, light from 45 degrees scattered upwards
_AEROSOL, _ANGSTROM, _UPWARDS = 0.08, 1.3, 0.15  # optical depth at 550 nm; share scattered upwards
_GAS = {"B09": 0.5, "B03": 0.96, "B04": 0.97, "B05": 0.96, "B8A": 0.98, "B11": 0.97, "B12": 0.95}
_CIRRUS = (12.0, 8.0, 260.0)  # B10: dark level, what haze adds, what clouds add, in DN


def _bands() -> tuple[list[float], list[float], list[float]]:
    """Path reflectance in DN of clear air and of more haze, and transmission, by band of Level-1C."""
    path, haze, transmission = [], [], []
    for band in modalities["S2L1C"].bands:
        wavelength = band.wavelength / 1000
        rayleigh = 0.008735 * wavelength**-4.08
        aerosol = _AEROSOL * (wavelength / 0.55) ** -_ANGSTROM
        gas = _GAS.get(band.name, 0.99)
        path.append(gas * 1e4 * (rayleigh * _PHASE / (4 * _SUN) + _UPWARDS * aerosol))
        haze.append(gas * 1e4 * _UPWARDS * aerosol * 3)
        depth = 0.5 * rayleigh + 0.16 * aerosol  # half of what is scattered goes on towards the sensor
        transmission.append(gas * math.exp(-depth * (1 / _SUN + 1)))
    return path, haze, transmission


_PATH, _HAZE, _TRANSMISSION = _bands()


def top_of_atmosphere(numbers: NDArray[Any], haze: Float, cloud: Float) -> NDArray[np.uint16]:
    """Digital numbers of Level-1C without offset, (13 bands, y, x) uint16.

    Parameters
    ----------
    numbers
        (12 bands, y, x) digital numbers of Level-2A of the same pixels, without offset.
    haze, cloud
        (y, x) haze and opacity of clouds, 0 to 1.
    """
    surface = dict(zip(modalities["S2L2A"].band_names, numbers, strict=True))
    result = np.empty((len(_PATH), *haze.shape), np.uint16)
    for number, name in enumerate(modalities["S2L1C"].band_names):
        if name == "B10":  # below the cirrus, water vapour hides the ground: the red band's noise stays
            dark, hazy, cloudy = (np.float32(level) for level in _CIRRUS)
            value = dark + hazy * haze + cloudy * cloud + np.float32(0.0008) * surface["B04"]
        else:
            above = np.float32(_PATH[number]) + np.float32(_HAZE[number]) * haze
            value = above * (np.float32(1) - np.float32(0.8) * cloud)  # most of the air lies below clouds
            value = value + np.float32(_TRANSMISSION[number]) * surface[name]
        result[number] = np.clip(value + np.float32(0.5), 1, 20000).astype(np.uint16)
    return result

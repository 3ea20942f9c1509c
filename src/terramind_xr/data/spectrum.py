"""Whether the bands of Sentinel-2 follow each other as their wavelengths do.

Spectra are smooth: a band differs less from the next ones than from those far away. Two bands that were
exchanged across the spectrum show as steps, which go where they are exchanged back.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_GROUPS = (
    ("B01", "B02", "B03", "B04", "B05"),
    ("B06", "B07", "B08", "B8A", "B09"),
    ("B11", "B12"),
)
"""Visible light with the red edge, near infrared, short waves: exchanges within one cannot be told."""

ORDER = {
    "S2L2A": tuple(band for group in _GROUPS for band in group),
    # Above the air, water vapour takes its share of B09: no part of a smooth spectrum.
    "S2L1C": tuple(band for group in _GROUPS for band in group if band != "B09"),
}
"""Bands by wavelength that are compared."""

_FLOOR = 30.0  # digital numbers below tell nothing of a spectrum

# Usual differences of a band from the next and from the one after it, of the logarithms; the median over the
# procedural world's scenes, as `benchmarks/band_check.py --fit` prints them.
# fmt: off
_USUAL = {
    "S2L2A": (
        (0.155, 0.357, 0.185, 0.33, 0.412, 0.133, 0.056, 0.057, 0.034, 0.328, 0.417),
        (0.501, 0.359, 0.379, 0.743, 0.527, 0.189, 0.112, 0.081, 0.34, 0.72),
    ),
    "S2L1C": (
        (0.197, 0.074, 0.199, 0.205, 0.372, 0.109, 0.047, 0.044, 0.363, 0.438),
        (0.243, 0.257, 0.134, 0.582, 0.471, 0.168, 0.089, 0.352, 0.803),
    ),
}
# fmt: on
_SOFTENED = 0.05
_GAIN = {"S2L2A": 0.04, "S2L1C": 0.13}
"""How much smoother a spectrum must become, as a share, before bands are said to be exchanged."""

_FEWEST_STEPS = 10.0  # over clouds and snow all bands are alike, and what differs is chance


class Exchange(NamedTuple):
    """Two bands that look exchanged, and how much smoother spectra are without it."""

    first: str
    second: str
    gain: float


def differences(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean difference of the logarithms of each two bands (band, pixel)."""
    logs = np.log(np.maximum(numbers, _FLOOR))
    result: NDArray[np.float64] = np.stack([np.abs(logs - band).mean(axis=1) for band in logs])
    return result


def exchange(
    name: str, bands: tuple[str, ...], numbers: NDArray[np.float32], usual: float | None = None
) -> Exchange | None:
    """Two bands of a Sentinel-2 modality whose numbers (band, pixel) look exchanged, or None.

    Parameters
    ----------
    name, bands
        Modality, and its bands in the order of `numbers`.
    numbers
        Digital numbers without the offset.
    usual
        Gain from which on; by default the modality's.
    """
    found = _cirrus(bands, numbers)
    if found is not None:
        return found
    order = ORDER[name]
    if not {*order} <= {*bands}:
        return None
    apart = differences(numbers[[bands.index(band) for band in order]])
    weights = _weights(name)
    straight = np.arange(len(order))
    before = _roughness(apart, weights, straight)
    pairs = [
        (order.index(first), order.index(second))
        for one, other in itertools.combinations(_GROUPS, 2)
        for first, second in itertools.product(one, other)
        if {first, second} <= {*order}
    ]
    after = [_roughness(apart, weights, _exchanged(straight, pair)) for pair in pairs]
    best = int(np.argmin(after))
    gain = float((before - after[best]) / max(before, _FEWEST_STEPS))
    if gain <= (_GAIN[name] if usual is None else usual):
        return None
    return Exchange(order[pairs[best][0]], order[pairs[best][1]], gain)


def _cirrus(bands: tuple[str, ...], numbers: NDArray[np.float32]) -> Exchange | None:
    """Of Level-1C: hardly any light of the ground is in B10, so that no band is darker."""
    if "B10" not in bands:
        return None
    levels = np.median(numbers, axis=1)
    darkest, cirrus = int(np.argmin(levels)), levels[bands.index("B10")]
    if cirrus < 300 or levels[darkest] * 3 > cirrus:
        return None
    return Exchange("B10", bands[darkest], 1.0)


def _weights(name: str) -> NDArray[np.float64]:
    weights = np.zeros((len(ORDER[name]),) * 2)
    for step, usual in enumerate(_USUAL[name], start=1):
        for place, value in enumerate(usual):
            weights[place, place + step] = 1 / (value + _SOFTENED)
    return weights


def _exchanged(order: NDArray[np.intp], pair: tuple[int, int]) -> NDArray[np.intp]:
    order = order.copy()
    order[list(pair)] = order[list(pair)[::-1]]
    return order


def _roughness(apart: NDArray[np.float64], weights: NDArray[np.float64], order: NDArray[np.intp]) -> float:
    return float((apart[np.ix_(order, order)] * weights).sum())

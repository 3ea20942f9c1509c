"""The offset of Sentinel-2 as its darkest pixels show it.

With 1000 in the digital numbers hardly a pixel lies below 1000: water, shadow and dense vegetation reflect
next to nothing, and the band of cirrus (Level-1C) sees next to nothing anywhere near the ground. Without it
they lie far below. Clouds, snow and bright desert are as bright either way, and tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terramind_xr.data.sampling import Sample
from terramind_xr.data.values import FEWEST

_LOW, _WITH, _HIGH = 800.0, 900.0, 1450.0
"""Darkest numbers below `_LOW` hold no offset, those from `_WITH` to `_HIGH` do; digital numbers."""

_NOT_BRIGHT = 2750.0
"""Median over the bands of a pixel that is neither cloud nor snow nor bright desert, offset included."""

_DAYLIGHT = 1300.0
"""What some band somewhere exceeds by day, over anything but open water."""

_DARK_BANDS = {"B01", "B02", "B03", "B04", "B10"}  # near infrared and beyond are bright over all land


@dataclass(frozen=True)
class Shown:
    """The offset that pixels show.

    Parameters
    ----------
    value
        0 or 1000; None where they do not tell.
    certain
        Whether nothing else explains them.
    why
        In words.
    """

    value: float | None
    certain: bool
    why: str


def shown(sample: Sample, at: tuple[int, ...] = ()) -> Shown:
    """The offset that the sampled pixels of one date show."""
    numbers = sample.numbers(at)
    if not _DARK_BANDS & {*sample.given.modality.band_names}:
        return Shown(None, False, "bands that are dark nowhere do not tell")
    return shown_by(numbers)


def shown_by(numbers: NDArray[np.float32]) -> Shown:
    """The offset that pixels (band, pixel) show, in digital numbers.

    Examples
    --------
    >>> vegetation = np.linspace([180, 400, 250, 3000], [300, 700, 500, 4000], 500).T
    >>> shown_by(vegetation).value, shown_by(vegetation + 1000).value, shown_by(vegetation + 5000).value
    (0.0, 1000.0, None)
    """
    if numbers.shape[1] < FEWEST:
        return Shown(None, False, f"{numbers.shape[1]} valid pixels in the sample are too few to tell")
    dark = numbers[:, np.median(numbers, axis=0) < _NOT_BRIGHT]
    if dark.shape[1] < FEWEST:
        return Shown(None, False, "the sample holds clouds, snow or bright desert only, which do not tell")
    darkest = float(np.quantile(dark, 0.01, axis=1).min())  # a few odd pixels may lie anywhere
    why = f"the darkest sampled pixels lie at {darkest:.0f}"
    if darkest < _LOW:
        if float(np.quantile(numbers, 0.99, axis=1).max()) < _DAYLIGHT:
            return Shown(0.0, False, f"{why}, and nothing is bright: open water, or a night")
        return Shown(0.0, True, why)
    if _WITH <= darkest <= _HIGH:
        return Shown(1000.0, True, why)
    return Shown(None, False, f"{why}, which does not tell")

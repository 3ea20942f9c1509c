"""How far sampled pixels are from what the models were trained on, and what would explain it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data.check import Check
from terramind_xr.data.darkness import shown
from terramind_xr.data.layout import ModalityInput
from terramind_xr.data.offset import Offset
from terramind_xr.data.sampling import Sample
from terramind_xr.data.spectrum import exchange
from terramind_xr.data.values import FEWEST, declaration, suspicion

_MOST = 65_536  # pixels that are enough for statistics
_FAR = 6.0
"""Standard deviations of training between means; clouds, the sea and high mountains stay below."""

_IMPOSSIBLE, _SHARE = 16_000, 0.05  # clouds and snow reflect less, but for a few glints
_BRIGHT_LAND = 700  # a quarter of any land reflects more somewhere from the near infrared on

Numbers = NDArray[np.float32]


def compare(sample: Sample, offset: Offset) -> Iterator[Check]:
    """Rows of the report on the sampled pixels of a modality."""
    given = sample.given
    raw = np.concatenate([sample.valid(at) for at in np.ndindex(sample.dates)], axis=1)
    numbers = np.concatenate(
        [sample.numbers(at) - _of_date(sample, offset, at) for at in np.ndindex(sample.dates)], axis=1
    ).astype(np.float32)
    yield _validity(given, numbers.shape[1], sample.raw.size // sample.raw.shape[-2])
    certain = _certain(given, raw, numbers, sample)
    if certain is not None:
        yield certain
        return
    if numbers.shape[1] < FEWEST:
        yield Check(
            given.title, "sample.few", "warning", f"{numbers.shape[1]} valid pixels in the sample",
            f"{FEWEST} or more, to compare with training",
            "Look at a picture, and at the declared no data.",
        )  # fmt: skip
        return
    numbers = numbers[:, :: 1 + numbers.shape[1] // _MOST]
    caused = list(_causes(given, raw, numbers))
    yield from caused or [_statistics(given, numbers)]


def _validity(given: ModalityInput, valid: int, every: int) -> Check:
    """Share of the sampled pixels that hold data."""
    found = f"{valid / every:.1%} of {every} sampled pixels hold data" if every else "no pixel"
    return Check(given.title, "validity", "ok", found, "")


def _of_date(sample: Sample, offset: Offset, at: tuple[int, ...]) -> float:
    """Offset of a date, whose place counts along all extra dims; what pixels show is told elsewhere."""
    if sample.given.modality.is_optical and (seen := shown(sample, at)).certain and seen.value is not None:
        return seen.value
    return float(offset.values[at]) if isinstance(offset, xr.DataArray) else float(offset)


def _certain(given: ModalityInput, raw: NDArray[Any], numbers: Numbers, sample: Sample) -> Check | None:
    """What blocks would refuse, too."""
    if sample.conversion.decibel and numbers.shape[1] < raw.shape[1] / 2 and np.mean(raw < 0) > 0.5:
        return Check(
            given.title, "sample.units", "error",
            f"{np.mean(raw < 0):.0%} of the sampled numbers are negative, called {given.units!r}",
            "linear power or amplitude, which are positive",
            f"They look like decibels. Declare it: {declaration(given.variables, 'units', 'dB')}",
        )  # fmt: skip
    looks = suspicion(given.modality.name, raw, sample.conversion, given.variables)
    if looks is None:
        return None
    return Check(
        given.title, looks.kind, "error",
        f"sampled numbers from {raw.min():g} to {raw.max():g}, which look like {looks.looks}",
        f"{given.modality.title} in {given.units or given.modality.units}", looks.remedy,
    )  # fmt: skip


def _causes(given: ModalityInput, raw: NDArray[Any], numbers: Numbers) -> Iterator[Check]:
    """What is likely to be wrong: a scale, or two bands exchanged."""
    modality = given.modality
    units = None
    if modality.is_optical:
        units = _optical_units(modality.band_names, raw, numbers)
    elif modality.units == "dB":
        units = _radar_factor(modality.mean, modality.std, numbers)
    if units is not None:
        yield Check(
            given.title, "sample.scale", "warning", f"sampled numbers that look like {units[0]}",
            f"{modality.title} in {modality.units}", units[1] or
            f"If they are, declare it: {declaration(given.variables, 'units', units[2])}",
        )  # fmt: skip
        return
    pair: tuple[str, str] | None = None
    if modality.is_optical:
        found = exchange(modality.name, modality.band_names, numbers)
        pair = None if found is None else (found.first, found.second)
    elif modality.band_names == ("VV", "VH") and np.median(numbers[0] - numbers[1]) < -1:
        pair = "VV", "VH"
    if pair is not None:
        yield _exchanged(given, *pair)


def _exchanged(given: ModalityInput, first: str, second: str) -> Check:
    remedy = f"If they are, exchange the names {first} and {second} along the dimension of bands."
    if len(given.variables) > 1:
        one, other = (given.variables[given.modality.band_names.index(band)] for band in (first, second))
        remedy = f"If they are, exchange them: ds = ds.rename({ {one: other, other: one} })"
    return Check(
        given.title, "sample.bands", "warning", f"{first} and {second} look exchanged in the sample",
        "bands that follow each other as spectra and backscatter do", remedy,
    )  # fmt: skip


Cause = tuple[str, str, str]
"""What numbers look like; and the remedy, or else the units to be declared."""


def _optical_units(bands: tuple[str, ...], raw: NDArray[np.generic], numbers: Numbers) -> Cause | None:
    """Of Sentinel-2: numbers ten times too large, ten or a hundred times too small."""
    if float(np.mean(numbers > _IMPOSSIBLE, axis=1).max()) > _SHARE:
        return "reflectance × 100000", "", "0.00001"
    if not {"B04", "B8A", "B11"} <= {*bands}:
        return None
    red, near, short = (numbers[bands.index(band)] for band in ("B04", "B8A", "B11"))
    land = near > 1.15 * red  # neither water nor snow nor clouds
    if land.sum() < FEWEST:
        return None
    bright = float(np.quantile(np.maximum(near, short)[land], 0.75))
    is_fractional = raw.dtype.kind == "f" and bool((raw != np.rint(raw.astype(np.float64))).any())
    if bright >= _BRIGHT_LAND:
        return None
    if bright >= _BRIGHT_LAND / 6:
        return "reflectance × 1000", "", "0.001"
    return ("reflectance in percent", "", "percent") if is_fractional and bright > 7 else None


def _radar_factor(mean: tuple[float, ...], std: tuple[float, ...], numbers: Numbers) -> Cause | None:
    """Of Sentinel-1: decibels that were multiplied to be kept as integers."""
    at = numbers.mean(axis=1)
    if np.abs((at - mean) / np.array(std)).max() < _FAR:
        return None
    for factor in (10, 100):
        if np.abs((at / factor - mean) / np.array(std)).max() < _FAR / 2:
            return f"decibels × {factor}", f"Divide them by {factor}, as floats.", ""
    return None


def _statistics(given: ModalityInput, numbers: Numbers) -> Check:
    """Mean and spread of each band, in standard deviations of training."""
    modality = given.modality
    if modality.name == "LULC":
        return Check(given.title, "sample", "ok", f"{numbers.shape[1]} pixels, codes 0 to 9", "")
    away = (numbers.mean(axis=1, dtype=np.float64) - modality.mean) / np.array(modality.std)
    spread = numbers.std(axis=1, dtype=np.float64) / np.array(modality.std)
    bands = ", ".join(
        f"{band} {mean:+.1f} ± {width:.1f}"
        for band, mean, width in zip(modality.band_names, away, spread, strict=True)
    )
    found = f"{numbers.shape[1]} pixels; mean ± spread in standard deviations of training: {bands}"
    worst = int(np.argmax(np.abs(away)))
    if math.isnan(away[worst]) or abs(away[worst]) <= _FAR:
        return Check(given.title, "sample", "ok", found, "")
    return Check(
        given.title, "sample.distance", "warning", found,
        f"means within {_FAR:g} of those of training",
        f"Look at {modality.band_names[worst]}: its unit and scale, and what it is of.",
    )  # fmt: skip

"""Whether numbers can be what they are taken for: a look at the pixels of a block, before the model.

Metadata get lost, and a model makes a map of anything. The rules name what cannot be in a whole block,
whatever the place and the light: night, water, snow and a few odd pixels pass. They look at the numbers as
the user has them, before offsets and conversion, so that messages speak of what the user sees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.data.units import Conversion
from terramind_xr.errors import InputError
from terramind_xr.facts import Modality, lulc_classes, modalities

FEWEST = 256
"""Valid pixels below which nothing is concluded."""

_FILLS = (-9999.0, -32768.0)
_HUGE = 1e30  # beyond it lie the fills of netCDF and of GDAL's float32
_REFLECTANCE = 2.0  # nothing on Earth reflects more, but for the sun's own image
_SATURATED = 30_000  # digital number
_WRAPPED, _TWICE = 40_000, -500  # digital numbers that neither the brightest nor the darkest pixels reach
_LARGEST_SUBTRACTED = 3000
_STRAY = 0.01
"""Share of Sentinel-2 numbers that may lie beyond: saturated pixels, shadows that were corrected too far."""

_OUTSIDE = {"DEM": 0.0, "LULC": 0.0, "RGB": 0.0, "NDVI": 0.01}
"""Share of the numbers that may lie outside the modality's range."""


@dataclass(frozen=True)
class Suspicion:
    """What numbers look like, and the line (or what else) that sets it right."""

    kind: str
    looks: str
    remedy: str


@dataclass(frozen=True)
class _Numbers:
    """Numbers of the valid pixels of a block (band, pixel), as the user has them."""

    modality: Modality
    raw: NDArray[Any]
    conversion: Conversion
    variables: tuple[str, ...]
    low: float
    high: float

    @property
    def are_fractional(self) -> bool:
        return self.raw.dtype.kind == "f" and bool((self.raw != np.rint(self.raw)).any())

    @property
    def are_as_declared(self) -> bool:
        """Whether nothing is converted: numbers are taken for the model's own unit."""
        return self.conversion == Conversion()

    def share_outside(self, low: float, high: float) -> float:
        """Share of the numbers outside a range in model units."""
        first, last = self.conversion.invert(np.array([low, high])).tolist()
        if self.low >= first and self.high <= last:
            return 0.0
        return float(np.mean((self.raw < first) | (self.raw > last)))

    def say(self, key: str, value: Any) -> str:
        return declaration(self.variables, key, value)

    def add(self, number: float) -> str:
        """The line that adds a number and keeps the attributes."""
        if len(self.variables) == 1:
            one = f"ds[{json.dumps(self.variables[0])}].data"
            return f"{one} = {one} + {number:g}"
        return f"for name in {json.dumps(self.variables)}: ds[name].data = ds[name].data + {number:g}"

    def nodata(self, value: float) -> str:
        return self.say("_FillValue", int(value) if value.is_integer() and abs(value) < _HUGE else value)


def declaration(variables: tuple[str, ...], key: str, value: Any) -> str:
    """The line that sets an attribute of the user's variables, all of them.

    Examples
    --------
    >>> print(declaration(("S2L2A",), "units", "1"))
    ds["S2L2A"].attrs["units"] = "1"
    >>> print(declaration(("VV", "VH"), "_FillValue", 0))
    for name in ["VV", "VH"]: ds[name].attrs["_FillValue"] = 0
    """
    if len(variables) == 1:
        return f"ds[{json.dumps(variables[0])}].attrs[{json.dumps(key)}] = {json.dumps(value)}"
    return f"for name in {json.dumps(variables)}: ds[name].attrs[{json.dumps(key)}] = {json.dumps(value)}"


def assignment(variables: tuple[str, ...], attrs: dict[str, Any]) -> str:
    """The line that sets several attributes of the user's variables, without a loop.

    Examples
    --------
    >>> print(assignment(("B02", "B03"), {"boa_add_offset": 0}))
    [ds[name].attrs.update({'boa_add_offset': 0}) for name in ['B02', 'B03']]
    """
    if len(variables) == 1:
        return f"ds[{json.dumps(variables[0])}].attrs.update({attrs})"
    return f"[ds[name].attrs.update({attrs}) for name in {list(variables)}]"


def check_values(
    name: str,
    raw: NDArray[Any],
    valid: NDArray[np.bool_],
    conversion: Conversion,
    variables: tuple[str, ...] = (),
    hidden: NDArray[np.bool_] | None = None,
) -> None:
    """Raise InputError when the numbers of a block cannot be what they are taken for.

    Parameters
    ----------
    name
        Modality.
    raw
        (band, y, x), as the user has them.
    valid
        (y, x): pixels that are looked at, finite in all bands.
    conversion
        How they are brought to the model's units.
    variables
        The user's variables, for the remedy; by default one called after the modality.
    hidden
        (y, x): pixels that a mask hides, which may be anything, infinite as well.
    """
    unused = ~valid if hidden is None else ~(valid | hidden)
    if raw.dtype.kind == "f" and unused.any():
        _refuse_infinite(name, raw[:, unused], variables or (name,))
    numbers = raw.reshape(len(raw), -1) if valid.all() else raw[:, valid]
    found = suspicion(name, numbers, conversion, variables)
    if found is None:
        return
    units = "" if conversion == Conversion() else ", by the units declared"
    modality = modalities[name]
    unit = "" if modality.units == "1" else f" in {modality.units}"
    raise InputError(
        f"{name}: a block holds numbers from {numbers.min():g} to {numbers.max():g}, taken for "
        f"{modality.title}{unit}{units}; they look like {found.looks}. {found.remedy} "
        f"(terramind_xr.set_options(check_values=False) skips this check.) [{found.kind}]",
        [found.kind],
    )


def _refuse_infinite(name: str, numbers: NDArray[Any], variables: tuple[str, ...]) -> None:
    """Raise InputError for pixels (band, pixel) that hold an infinite number, and no NaN."""
    pixels = np.isinf(numbers).any(axis=0) & ~np.isnan(numbers).any(axis=0)
    if pixels.any():
        one = f"ds[{json.dumps(variables[0])}]" if len(variables) == 1 else "ds"
        raise InputError(
            f"{name}: a block holds infinite numbers ({int(pixels.sum())} pixels), which no sensor gives; "
            "they come of a division by zero, the logarithm of 0, or numbers too large for their dtype. If "
            f"they are no data, say so: {one} = {one}.where(np.isfinite({one})). "
            "(terramind_xr.set_options(check_values=False) skips this check, and takes them for no data.) "
            "[values.infinite]",
            ["values.infinite"],
        )


def suspicion(
    name: str, numbers: NDArray[Any], conversion: Conversion, variables: tuple[str, ...] = ()
) -> Suspicion | None:
    """What is wrong with numbers (band, pixel) of a modality, or None.

    Examples
    --------
    >>> reflectance = np.linspace(0.01, 0.4, 12 * 300).reshape(12, 300)
    >>> suspicion("S2L2A", reflectance, Conversion()).looks
    'reflectance'
    >>> suspicion("S2L2A", reflectance * 10_000, Conversion()) is None
    True
    """
    if numbers.shape[1] < (1 if name == "LULC" else FEWEST):  # a code is right or wrong by itself
        return None
    low, high = float(numbers.min()), float(numbers.max())
    given = _Numbers(modalities[name], numbers, conversion, variables or (name,), low, high)
    own = _optical if given.modality.is_optical else _radar if given.modality.units == "dB" else _outside
    return _undeclared_nodata(given) or own(given)


def _undeclared_nodata(given: _Numbers) -> Suspicion | None:
    low, high = given.modality.valid_range
    fills = [value for value in (given.low, given.high) if abs(value) > _HUGE]
    for value in _FILLS:
        # -9999 is a possible height in centimetres
        if given.low <= value and not low <= given.conversion.apply(np.array(value)) <= high:
            fills += [value] if (given.raw == value).any() else []
    if not fills:
        return None
    return Suspicion(
        "values.nodata",
        f"{fills[0]:g} stands for no data, which nothing declares",
        f"Declare it: {given.nodata(fills[0])}",
    )


def _optical(given: _Numbers) -> Suspicion | None:
    if given.are_as_declared and given.high <= _REFLECTANCE and given.are_fractional:
        return Suspicion(
            "values.reflectance",
            "reflectance",
            f'Declare it: {given.say("units", "1")} (and the attribute "boa_add_offset" = 0 the same way, '
            "if the offset of -0.1 is in them already).",
        )
    usual, most = given.conversion.invert(np.array([_SATURATED, _WRAPPED])).tolist()
    share = given.share_outside(-np.inf, _WRAPPED)
    if share > _STRAY or (given.high > usual and np.mean(given.raw > usual) > 0.5):
        return _too_bright(given, given.raw[given.raw > most], share)
    return _offset_twice(given)


def _too_bright(given: _Numbers, bright: NDArray[Any], share: float) -> Suspicion:
    """What numbers that no light explains are; `bright` is the brightest of them, a share of all."""
    low, high = given.conversion.apply(np.array([bright.min() if bright.size else 0, given.high])).tolist()
    if np.iinfo(np.uint16).max - _LARGEST_SUBTRACTED < low < high <= np.iinfo(np.uint16).max + 1:
        return Suspicion(
            "values.wrapped",
            f"unsigned numbers that wrapped around zero when the offset was subtracted ({share:.0%} lie at "
            f"{bright.min():g} and above)",
            "Read them anew, leave the offset in and say offset=1000; or subtract it from signed numbers: "
            '.astype("int32") - 1000.',
        )
    if not given.are_as_declared:
        return Suspicion("values.digital", "digital numbers", f"Declare them: {given.say('units', 'DN')}")
    if np.mean(given.raw == given.high) > 0.5 or (bright.size and bright.min() == given.high):
        return Suspicion(
            "values.nodata",
            f"{given.high:g} stands for no data, which nothing declares",
            f"Declare it: {given.nodata(given.high)}",
        )
    return Suspicion(
        "values.scale", "reflectance of another scale", "Bring it to digital numbers, reflectance × 10000."
    )


def _offset_twice(given: _Numbers) -> Suspicion | None:
    share = given.share_outside(_TWICE, np.inf)
    if share <= _STRAY:
        return None
    if given.share_outside(-np.inf, -_TWICE) <= _STRAY:
        return None  # nothing is bright: a night, where the numbers may lie below zero throughout
    limit, zero, offset = given.conversion.invert(np.array([_TWICE, 0, 1000])).tolist()
    return Suspicion(
        "values.offset",
        f"numbers from which an offset was taken that was not in them ({share:.0%} lie below {limit:g})",
        f"Add it back: {given.add(offset - zero)}, and say offset=0.",
    )


def _radar(given: _Numbers) -> Suspicion | None:
    low = given.low if not given.conversion.decibel else float(given.conversion.apply(np.array(given.low)))
    if low < 0:
        return None
    if given.conversion.decibel:
        return Suspicion(
            "values.uncalibrated",
            "digital numbers without calibration",
            "Calibrate them to backscatter; if they are in decibels, declare it: " + given.say("units", "dB"),
        )
    return Suspicion(
        "values.power",
        "linear power, as decibels are negative over all but the brightest targets",
        f'Declare it: {given.say("units", "1")} ("amplitude" for its square root).',
    )


def _outside(given: _Numbers) -> Suspicion | None:
    name, (low, high) = given.modality.name, given.modality.valid_range
    if name == "RGB" and given.high <= 1 and given.are_fractional:
        return Suspicion("values.colours", "colours from 0 to 1", "Multiply them by 255.")
    if given.share_outside(low, high) <= _OUTSIDE[name] and not (name == "LULC" and given.are_fractional):
        return None
    if name == "DEM":
        fill = given.low if given.share_outside(low, np.inf) else given.high
        return Suspicion(
            "values.heights",
            f"heights of another unit than metres, the sea floor, or {fill:g} for no data, undeclared",
            f"Declare what it is: {given.say('units', 'cm')}, or {given.nodata(fill)}",
        )
    if name == "NDVI":
        units = "percent" if max(-given.low, given.high) <= 100 else "0.0001"
        return Suspicion(
            "values.index",
            "an index that was multiplied by 100 or 10000",
            f"Declare it, for example: {given.say('units', units)}",
        )
    if name == "RGB":
        return Suspicion("values.colours", "colours of more than 8 bits", "Scale them to 0…255.")
    classes = ", ".join(f"{each.code} {each.name}" for each in lulc_classes)
    return Suspicion(
        "values.codes",
        "codes of another legend, resampled codes, or an undeclared code for no data",
        f"Map them to {classes}; or declare no data, for example: {given.nodata(given.high)}",
    )

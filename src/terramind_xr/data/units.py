"""User units to model units and back.

Units are read by a private pint registry that knows a dozen names and nothing else, so that neither the
application's registry nor the user's definitions can change what a unit means here. Backscatter in
decibels is logarithmic, which a unit factor cannot say: it has its own table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from terramind_xr.errors import InputError

if TYPE_CHECKING:
    import pint
    import xarray as xr

    from terramind_xr.facts import Modality

# Sentinel-2 digital numbers are reflectance × 10000 (QUANTIFICATION_VALUE of the Sentinel-2 Products
# Specification Document): a digital number is a ten-thousandth of the dimensionless reflectance.
_DEFINITIONS = (
    "kilo- = 1000 = k-",
    "centi- = 0.01 = c-",
    "percent = 0.01 = %",
    "DN = 1e-4 = _ = dn = digital_number = digital_numbers = digital_count = digital_counts",
    "reflectance = 1",
    "meter = [length] = m = metre",
    "foot = 0.3048 * meter = ft = feet",
)


@dataclass(frozen=True)
class Conversion:
    """User units to model units, in float32.

    The model's value is ``scale * x + shift``; with `decibel`, ``scale * 10 log10(x) + shift``: the
    logarithm comes first. What has no logarithm (x ≤ 0) becomes NaN, that is, no data.

    Parameters
    ----------
    scale, shift
        Applied last, `scale` first.
    decibel
        Whether the user's values are linear and the model's are decibels.

    Examples
    --------
    >>> Conversion(scale=10000.0).apply(np.array([0.0, 0.25]))
    array([   0., 2500.], dtype=float32)
    >>> Conversion(decibel=True).apply(np.array([1.0, 0.1, 0.0]))
    array([  0., -10.,  nan], dtype=float32)
    >>> Conversion(decibel=True).invert(np.array([-10.0]))
    array([0.1], dtype=float32)
    """

    scale: float = 1.0
    shift: float = 0.0
    decibel: bool = False

    def apply(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Convert from user units to model units.

        Parameters
        ----------
        values
            Any shape, any real dtype.

        Returns
        -------
        numpy.ndarray
            Same shape, float32; `values` itself, not a copy, where nothing is to be done.
        """
        result: npt.NDArray[np.float32] = np.asarray(values).astype(np.float32, copy=False)
        if self.decibel:
            result = np.float32(10) * np.log10(np.where(result > 0, result, np.float32(np.nan)))
        if self.scale != 1:
            result = result * np.float32(self.scale)
        if self.shift != 0:
            result = result + np.float32(self.shift)
        return result

    def invert(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Convert from model units to user units; shapes and dtypes as in `apply`."""
        result: npt.NDArray[np.float32] = np.asarray(values).astype(np.float32, copy=False)
        if self.shift != 0:
            result = result - np.float32(self.shift)
        if self.scale != 1:
            result = result / np.float32(self.scale)
        if self.decibel:
            result = np.float32(10) ** (result / np.float32(10))
        return result


_IDENTITY = Conversion()
_POWER = Conversion(decibel=True)
_AMPLITUDE = Conversion(scale=2.0, decibel=True)  # 10 log10(a²) = 2 · 10 log10(a)
_BACKSCATTER = {
    **dict.fromkeys(("db", "decibel", "decibels"), _IDENTITY),
    **dict.fromkeys(
        ("1", "linear", "power", "linear power", "intensity", "m2/m2", "m2 m-2", "dimensionless"), _POWER
    ),
    **dict.fromkeys(("amplitude", "linear amplitude"), _AMPLITUDE),
}
_COUNTS = ("dn", "digital_number", "digital_numbers", "digital_count", "digital_counts")
_NUMBERS = dict.fromkeys(("1", "dimensionless", *_COUNTS), _IDENTITY)
_ACCEPTED = {
    "DN": ("DN", "1 (reflectance)", "reflectance", "percent", "0.0001"),
    "dB": ("dB", "1 (linear power)", "linear", "power", "amplitude"),
    "m": ("m", "km", "cm", "ft"),
    "1": ("1", "percent"),
}


def accepted_units(modality: Modality) -> tuple[str, ...]:
    """Units that `conversion` takes for a modality, as examples for messages.

    Examples
    --------
    >>> from terramind_xr.facts import modalities
    >>> accepted_units(modalities["DEM"])
    ('m', 'km', 'cm', 'ft')
    """
    return ("1", "DN") if is_plain_number(modality) else _ACCEPTED.get(modality.units, (modality.units,))


def conversion(modality: Modality, units: str | None) -> Conversion:
    """How to bring data in `units` to the units a modality's model was trained on.

    Parameters
    ----------
    modality
        A row of `modalities`.
    units
        As the data says. None or blank: the modality's own. ``"1"`` is reflectance for Sentinel-2 and
        linear power for Sentinel-1.

    Returns
    -------
    Conversion

    Raises
    ------
    InputError
        The units are unknown, or of another quantity.

    Examples
    --------
    >>> from terramind_xr.facts import modalities
    >>> conversion(modalities["S2L2A"], "percent")
    Conversion(scale=100.0, shift=0.0, decibel=False)
    >>> conversion(modalities["S1RTC"], "linear power")
    Conversion(scale=1.0, shift=0.0, decibel=True)
    >>> conversion(modalities["S2L2A"], "digital_counts") == conversion(modalities["S2L2A"], "DN")
    True
    >>> conversion(modalities["DEM"], "K")
    Traceback (most recent call last):
    terramind_xr.errors.InputError: DEM: units 'K'; expected one of m, km, cm, ft. Convert the data and set its attribute units = 'm'.
    """  # noqa: E501
    text = (units or "").strip()
    if not text or text == modality.units:
        return _IDENTITY
    if modality.units == "dB":
        found = _BACKSCATTER.get(text.lower())
    elif is_plain_number(modality):
        found = _NUMBERS.get(_joined(text))
    else:
        found = _by_factor(text, modality.units) or _by_factor(_joined(text), modality.units)
    if found is None:
        raise InputError(
            f"{modality.name}: units {units!r}; expected one of {', '.join(accepted_units(modality))}. "
            f"Convert the data and set its attribute units = {modality.units!r}."
        )
    return found


def same_units(modality: Modality, *units: str | None) -> bool:
    """Whether all these units mean the same numbers of a modality, however they are written.

    Examples
    --------
    >>> from terramind_xr.facts import modalities
    >>> same_units(modalities["S2L2A"], "DN", "dn", "digital_counts", "0.0001")
    True
    >>> same_units(modalities["S2L2A"], "DN", "reflectance")
    False
    """
    return len({_meaning(modality, text) for text in units}) <= 1


def _meaning(modality: Modality, units: str | None) -> Conversion | str | None:
    try:
        return conversion(modality, units)
    except InputError:  # what cannot be read is only the same as itself
        return units


def without_quantities(ds: xr.Dataset) -> xr.Dataset:
    """Variables of pint quantities, as pint-xarray makes them, as numbers with the attribute ``units``.

    Whose registry they are of does not matter: their units are read by name.

    Examples
    --------
    >>> import pint, xarray as xr
    >>> heights = pint.UnitRegistry().Quantity(np.array([[1.0, 2.0]]), "kilometer")
    >>> without_quantities(xr.Dataset({"DEM": (("y", "x"), heights)}))["DEM"].attrs["units"]
    'kilometer'
    """
    # `_data`, as `data` would read what is still in a file.
    held: dict[Any, Any] = {name: data.variable._data for name, data in ds.data_vars.items()}
    plain = {
        name: ds[name].copy(data=values.magnitude).assign_attrs(units=str(values.units))
        for name, values in held.items()
        if hasattr(values, "magnitude")
    }
    return ds.assign(plain) if plain else ds


def is_plain_number(modality: Modality) -> bool:
    """Whether its numbers are counts without a unit (8-bit colours, class codes), which no factor changes."""
    return modality.name in ("RGB", "LULC")


def _joined(text: str) -> str:
    return "_".join(text.lower().split())


def _by_factor(text: str, target: str) -> Conversion | None:
    registry = _registry()
    try:
        factor = float(registry.Quantity(text).to(target if target != "1" else "").magnitude)
    except Exception:  # pint raises a dozen classes, tokenizer errors included, for text it cannot read
        return None
    if not (math.isfinite(factor) and factor > 0):
        return None
    return Conversion(scale=factor)


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry[float]:
    import pint

    registry: pint.UnitRegistry[float] = pint.UnitRegistry(None)
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry

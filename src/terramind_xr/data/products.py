"""Levels of a sensor whose bands have the same names, and what attributes say of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

FAMILIES = (("S2L1C", "S2L2A"), ("S1GRD", "S1RTC"))
# Attributes that name the product, and what they say. The levels of a family have the same band names.
_PRODUCT_KEYS = (
    "processing_level", "s2:product_type", "s2:processing_level", "processing:level", "product_type",
    "product", "collection", "standard_name", "long_name", "title", "sar:product_type", "s1:product_type",
    "modality",
)  # fmt: skip
_PRODUCTS = {
    "S2L2A": r"l2a|level.?2a|msi.?2a|s2.?sr|surface.*reflectance|\bboa\b",
    "S2L1C": r"l1c|level.?1c|msi.?1c|toa|top.of.atmosphere",
    "S1GRD": r"grd|ground.range",
    "S1RTC": r"rtc|terrain.corrected|gamma.?(?:0|nought)",
}


def described(data: xr.DataArray) -> dict[Any, Any]:
    """Attributes, and what names the product among coordinates, as stackstac has it, alike for all items."""
    said: dict[Any, Any] = {}
    for key in _PRODUCT_KEYS:
        if key in data.coords and data.coords[key].chunks is None and data.coords[key].size:
            values = np.unique(data.coords[key].values.astype(str))
            said |= {key: values[0]} if len(values) == 1 else {}
    return said | data.attrs


def product_of(attrs: Mapping[Any, Any], family: Sequence[str]) -> set[str]:
    """Modalities of a family that attributes name."""
    text = " | ".join(str(attrs[key]).lower() for key in _PRODUCT_KEYS if key in attrs)
    said = {name for name in family if re.search(_PRODUCTS[name], text)}
    # Catalogues describe terrain-corrected scenes by the GRD product they were made of, too.
    return said - {"S1GRD"} if "S1RTC" in said else said


def family_of(name: str) -> tuple[str, ...]:
    """Modalities whose bands have the same names as those of `name`, itself included; empty without any."""
    return next((family for family in FAMILIES if name in family), ())

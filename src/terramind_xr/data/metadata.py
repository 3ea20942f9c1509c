"""What metadata say of the numbers: units, packing, no data; and the keys that tell Sentinel-2's offset."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from terramind_xr.data.units import same_units
from terramind_xr.facts import Modality, modalities

ADD_OFFSET_KEYS = ("boa_add_offset", "BOA_ADD_OFFSET", "radio_add_offset", "RADIO_ADD_OFFSET")
APPLIED_KEYS = ("boa_offset_applied", "earthsearch:boa_offset_applied")
BASELINE_KEYS = ("processing_baseline", "s2:processing_baseline", "PROCESSING_BASELINE")
OFFSET_KEYS = (*ADD_OFFSET_KEYS, *APPLIED_KEYS, *BASELINE_KEYS)
"""Metadata that tell the radiometric offset of Sentinel-2; read from the dataset, too."""

PRODUCT_KEYS = (
    "s2:product_uri", "product_uri", "PRODUCT_URI", "s2:datatake_id", "DATATAKE_IDENTIFIER", "s2:granule_id",
    "granule", "title", "id", "name", "product_id", "s2:datastrip_id",
)  # fmt: skip
"""Metadata that may hold the name of a Sentinel-2 product, and in it the processing baseline."""

_REFLECTANCE_SCALE = 1e-4  # 1 / QUANTIFICATION_VALUE of Sentinel-2 products


def units_of(data: xr.DataArray, modality: Modality) -> str | None:
    """Unit of the numbers as they stand in memory, or None.

    CF units are those of the unpacked values. Integers with an unapplied ``scale_factor`` of 0.0001 are
    therefore digital numbers; floats that were unpacked with it are reflectance.
    """
    value = data.attrs.get("units")
    if isinstance(value, list | tuple | np.ndarray):  # rioxarray gives one for each band
        said = dict.fromkeys(str(item) for item in value if item)
        value = next(iter(said), None) if same_units(modality, *said) else ", ".join(sorted(said))
    text = None if value is None or not str(value).strip() else str(value).strip()
    if modality.is_optical and is_packed_reflectance(data):
        return "DN"
    if modality.is_optical and text is None and data.dtype.kind == "f":
        unpacked = packing(data.encoding)[0]
        return "1" if math.isclose(unpacked, _REFLECTANCE_SCALE, rel_tol=1e-6) else None
    return text


def packing(attrs: Mapping[Any, Any]) -> tuple[float, float]:
    """CF ``(scale_factor, add_offset)`` of attributes or encoding; (1, 0) where there are none."""
    scale, offset = number(attrs.get("scale_factor")), number(attrs.get("add_offset"))
    return (1.0 if scale is None else scale), (0.0 if offset is None else offset)


def is_packed_reflectance(data: xr.DataArray) -> bool:
    """Whether these are integers whose attributes say that they are reflectance × 10000, unapplied.

    Or floats that were stored as integers: ``rioxarray.open_rasterio(path, masked=True)`` applies nothing.
    """
    stored = np.dtype(data.encoding.get("rasterio_dtype", data.encoding.get("dtype", data.dtype)))
    is_integer = data.dtype.kind in "iu" or (data.dtype.kind == "f" and stored.kind in "iu")
    return is_integer and math.isclose(packing(data.attrs)[0], _REFLECTANCE_SCALE, rel_tol=1e-6)


def nodata_of(data: xr.DataArray) -> float | None:
    """Declared value of pixels without data, as it stands in memory."""
    keys = ("_FillValue", "nodata", "missing_value")
    said = [number(data.attrs.get(key)) for key in keys]
    if data.dtype.kind in "iu":  # in floats, xarray has replaced the encoded value by NaN
        said += [number(data.encoding.get(key)) for key in keys]
    return next((value for value in said if value is not None), None)


def missing_value(data: xr.DataArray) -> float | None:
    """Value of pixels without data in a map of ours or anybody's, besides NaN; None where there is none."""
    modality = modalities.get(str(data.attrs.get("modality", data.name)))
    declared = nodata_of(data)
    if declared is None:  # maps of codes say it in an attribute of their own
        declared = number(data.attrs.get("terramind_nodata"))
    if declared is None and modality is not None and data.dtype.kind in "iu":
        declared = modality.nodata
    return declared


def flagged_classes(data: xr.DataArray) -> dict[int, str]:
    """Names by code, from CF's flag attributes, without the one that means no data; empty without them."""
    if "flag_values" not in data.attrs:
        return {}
    codes = [int(value) for value in np.ravel(data.attrs["flag_values"])]
    said = data.attrs.get("flag_meanings", "")
    names = [str(name) for name in (said.split() if isinstance(said, str) else np.ravel(said))]
    names = names or list(map(str, codes))
    nodata = missing_value(data)
    return {code: name for code, name in zip(codes, names, strict=False) if code != nodata}


def number(value: Any) -> float | None:
    """The number that metadata hold, be it as text, or the first of several; None where it is none.

    Examples
    --------
    >>> number("-1000"), number([0.0001, 0.0001]), number("nan"), number(True), number("none")
    (-1000.0, 0.0001, nan, None, None)
    """
    if isinstance(value, list | tuple | np.ndarray) and np.size(value):
        value = np.ravel(np.asarray(value, dtype=object))[0]
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str, bytes)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def baseline(value: Any) -> float | None:
    """The processing baseline that metadata say: ``5.09``, ``"05.09"``, ``"N0509"``, or a product's name.

    Examples
    --------
    >>> baseline("05.09"), baseline("N0509"), baseline(2.14), baseline("none")
    (5.09, 5.09, 2.14, None)
    >>> baseline("S2A_MSIL2A_20230625T111121_N0509_R137_T30UXC_20230625T170801.SAFE")
    5.09
    """
    found = re.fullmatch(r"N(\d\d)\.?(\d\d)", str(value).strip())
    if found is None:
        return named_baseline(value) or number(value)
    return float(f"{found[1]}.{found[2]}")


def named_baseline(value: Any) -> float | None:
    """The processing baseline within the name of a Sentinel-2 product, tile or data take.

    Examples
    --------
    >>> named_baseline("GS2A_20200714T112121_026428_N02.14"), named_baseline("Sentinel-2 N0500")
    (2.14, None)
    """
    found = re.search(r"S2[A-D]_.*_N(\d\d)\.?(\d\d)(?!\d)", str(value))
    return None if found is None else float(f"{found[1]}.{found[2]}")


def is_true(value: Any) -> bool:
    """Whether metadata say yes, be it as text.

    Examples
    --------
    >>> is_true("True"), is_true(1), is_true(None), is_true("false")
    (True, True, False, False)
    """
    return str(value).strip().lower() in ("true", "1", "yes")

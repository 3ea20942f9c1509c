"""The radiometric offset of Sentinel-2: +1000 in the digital numbers or not, as the metadata tell it.

Since processing baseline 04.00 (25 January 2022) products carry 1000 in their digital numbers, announced by
``BOA_ADD_OFFSET`` or ``RADIO_ADD_OFFSET`` = -1000 (Sentinel-2 Products Specification Document); Collection-1
reprocessing gives it to older dates as well. Some catalogues remove it, so the baseline alone is a hint, and
the date is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from terramind_xr.bands import Check, ModalityInput
from terramind_xr.bands.check import Status
from terramind_xr.bands.inputs import packing
from terramind_xr.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

OFFSETS = (0.0, 1000.0)
_ADD_OFFSET = ("boa_add_offset", "BOA_ADD_OFFSET", "radio_add_offset", "RADIO_ADD_OFFSET")
_APPLIED = ("boa_offset_applied", "earthsearch:boa_offset_applied")
_BASELINE = ("processing_baseline", "s2:processing_baseline")
_FIRST_WITH_OFFSET = 4.0
_EXPECTED = "0 or 1000, said by boa_add_offset, boa_offset_applied or add_offset"


def check_option(offset: str | float) -> float | None:
    """The offset that the option says; None for ``"auto"``.

    Raises
    ------
    OptionError
        It is none of ``"auto"``, 0 and 1000.
    """
    if isinstance(offset, str):
        if offset == "auto":
            return None
        if offset == "infer":
            raise OptionError("offset='infer' is not available yet; use 'auto' (metadata), 0 or 1000.")
    elif not isinstance(offset, bool) and float(offset) in OFFSETS:
        return float(offset)
    raise OptionError(f"offset is {offset!r}; expected 'auto', 0 or 1000.")


def sentinel2_offset(given: ModalityInput, option: float | None) -> tuple[float, Check]:
    """The offset in the digital numbers of one modality, and the check that tells why.

    Explicit metadata first: the product's add offset, ``boa_offset_applied``, a CF ``add_offset``. Where
    they are silent, a processing baseline of 04.00 or later means 1000, with a warning, as some catalogues
    remove it; without that, 0 is assumed with a warning. `option` decides unless explicit metadata say
    otherwise with one voice.
    """
    evidence = _evidence(given.data)
    values = sorted(set(evidence.values()))
    found = ", ".join(evidence) or "metadata are silent"
    name = given.title

    def check(status: Status, found: str, remedy: str = "") -> Check:
        return Check(name, "offset", status, found, "" if status == "ok" else _EXPECTED, remedy)

    if option is not None:
        if values and option not in values:
            return option, check(
                "error", f"offset={option:g} was given, but {found}",
                "Leave offset='auto', or remove the attributes that are wrong.",
            )  # fmt: skip
        return option, check("ok", f"{option:g}, as given")
    strange = [value for value in values if value not in OFFSETS]
    if strange or len(values) > 1:
        problem = "contradicting metadata" if len(values) > 1 else "an offset that Sentinel-2 does not have"
        return values[0], check(
            "error", f"{problem}: {found}",
            "Look at the darkest pixels: water near 1000 or above means offset=1000, else offset=0; "
            "of a time series with both, select the dates of one kind.",
        )  # fmt: skip
    if values:
        return values[0], check("ok", f"{values[0]:g}: {found}")
    return _assumed(given.data, check)


def _assumed(data: xr.DataArray, check: Callable[..., Check]) -> tuple[float, Check]:
    baselines = {value for value in map(_number, _said(data, _BASELINE)) if value is not None}
    kinds = {value >= _FIRST_WITH_OFFSET for value in baselines}
    listed = ", ".join(f"{value:05.2f}" for value in sorted(baselines))
    if kinds == {False}:
        return 0.0, check("ok", f"0: processing baseline {listed}, before 04.00")
    if kinds == {True}:
        return 1000.0, check(
            "warning", f"1000 assumed: processing baseline {listed} has it, unless the catalogue removed it",
            "Look with terramind_xr.validate, and say offset=0 or offset=1000.",
        )  # fmt: skip
    if kinds:
        return 0.0, check(
            "error", f"processing baselines before and after 04.00 in one series: {listed}",
            "Select the dates of one kind, or remove 1000 from the newer ones and say offset=0.",
        )  # fmt: skip
    return 0.0, check(
        "warning", "0 assumed: metadata are silent",
        "Look with terramind_xr.validate; if the numbers carry +1000 (processing baseline 04.00 and later), "
        "say offset=1000, else offset=0.",
    )  # fmt: skip


def _evidence(data: xr.DataArray) -> dict[str, float]:
    """Offset in the numbers by each explicit statement."""
    evidence: dict[str, float] = {}
    for key in _ADD_OFFSET:
        numbers = (_number(value) for value in _said(data, (key,)))
        evidence |= {f"{key} = {number:g}": 0.0 - number for number in numbers if number is not None}
    for key in _APPLIED:
        for value in _said(data, (key,)):
            if _is_true(value):  # false says nothing: older products never had an offset to apply
                evidence[f"{key} = true"] = 0.0
    scale, shift = packing(data.attrs)
    if shift and scale != 1:
        said = f"add_offset = {shift:g} at scale_factor = {scale:g}, not applied"
        evidence[said] = round(-shift / scale, 3)
    scale, shift = packing(data.encoding)
    if shift and scale != 1 and data.dtype.kind == "f":
        evidence[f"add_offset = {shift:g} at scale_factor = {scale:g}, applied when read"] = 0.0
    return evidence


def _said(data: xr.DataArray, keys: Iterable[str]) -> list[Any]:
    """Distinct values of metadata, from attributes and from coordinates, as STAC loaders place them."""
    found: list[Any] = []
    for key in keys:
        if key in data.attrs:
            value = data.attrs[key]
            found += list(value.values()) if isinstance(value, Mapping) else np.ravel(value).tolist()
        if key in data.coords and data.coords[key].chunks is None:
            found += np.ravel(data.coords[key].values).tolist()
    return list({repr(value): value for value in found}.values())


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "yes")

"""The radiometric offset of Sentinel-2: +1000 in the digital numbers or not, as the metadata tell it.

Since processing baseline 04.00 (25 January 2022) products carry 1000 in their digital numbers, announced by
``BOA_ADD_OFFSET`` or ``RADIO_ADD_OFFSET`` = -1000 (Sentinel-2 Products Specification Document); Collection-1
reprocessing gives it to older dates as well. Some catalogues remove it, so the baseline alone is a hint, and
the date is none.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data.check import Check, Status
from terramind_xr.data.darkness import Shown
from terramind_xr.data.layout import ModalityInput
from terramind_xr.data.metadata import (
    ADD_OFFSET_KEYS,
    APPLIED_KEYS,
    BASELINE_KEYS,
    OFFSET_KEYS,
    PRODUCT_KEYS,
    baseline,
    is_true,
    named_baseline,
    number,
    packing,
)
from terramind_xr.data.values import assignment
from terramind_xr.errors import InputError, OptionError

OFFSETS = (0.0, 1000.0)
_FIRST_WITH_OFFSET = 4.0
_EXPECTED = "0 or 1000, said by boa_add_offset, boa_offset_applied or add_offset"
_LOOK = "Look with terramind_xr.validate(ds, sample=True)"
_SAY = "Say offset=0 or offset=1000."


Offset = float | xr.DataArray
"""The number in the digital numbers; one along the extra dims (time) where dates differ."""


def check_option(offset: object) -> Offset | None:
    """The offset that the option says; None for ``"auto"`` and ``"infer"``.

    Raises
    ------
    OptionError
        It is none of ``"auto"``, ``"infer"``, 0 and 1000, nor a DataArray of 0 and 1000.
    """
    if isinstance(offset, str) and offset in ("auto", "infer"):
        return None
    if isinstance(offset, xr.DataArray):
        values = offset.values
        if offset.ndim and values.dtype.kind in "iuf" and np.isin(values, OFFSETS).all():
            return offset.astype(float)
        found = (
            f"a DataArray with dims {tuple(map(str, offset.dims))} of {sorted(set(values.ravel().tolist()))}"
        )
    elif isinstance(offset, numbers.Real) and not isinstance(offset, bool) and float(offset) in OFFSETS:
        return float(offset)
    else:
        found = repr(offset)
    raise OptionError(
        f"offset is {found}; expected 'auto', 'infer', 0 or 1000, or for a series one of them for each date: "
        "xr.DataArray([0, 1000], coords={'time': ds.time})."
    )


def sentinel2_offset(
    given: ModalityInput,
    option: Offset | None,
    look: Callable[[tuple[int, ...]], Shown] | None = None,
    *,
    infer: bool = False,
) -> tuple[Offset, Check]:
    """The offset in the digital numbers of one modality, and the check that tells why.

    Explicit metadata first: the product's add offset, ``boa_offset_applied``, a CF ``add_offset``. Where
    they are silent, a processing baseline of 04.00 or later means 1000, with a warning, as some catalogues
    remove it; without that, 0 is assumed with a warning. `option` decides unless explicit metadata say
    otherwise with one voice. Of a series, each date is judged by its own metadata, and by its own pixels
    where `look` tells what they show: with `infer` they settle what no explicit metadata do.
    """
    data = _with_metadata_read(given.data)
    try:
        dims = _dims_of_metadata(data, option) if look is None else tuple(map(str, data.dims[:-3]))
        said = _along(option, data, given.title) if isinstance(option, xr.DataArray) else option
    except InputError as error:
        remedy = _by_date(list(map(str, data.dims[:-3]))) or _SAY
        return 0.0, Check(given.title, "offset.series", "error", error.faults[0], _EXPECTED, remedy)
    if not dims:
        assert not isinstance(said, xr.DataArray), "it would have brought a dim"
        return _judged(given, data, {}, said, look, infer)
    shape = tuple(data.sizes[dim] for dim in dims)
    found: dict[tuple[int, ...], tuple[float, Check]] = {}
    for place in np.ndindex(*shape):
        at = dict(zip(dims, place, strict=True))
        own = float(said.isel(at, missing_dims="ignore")) if isinstance(said, xr.DataArray) else said
        found[place] = _judged(given, data, at, own, look, infer)
    values = np.array([value for value, _ in found.values()]).reshape(shape)
    check = _together([check for _, check in found.values()], values)
    if (values == values.flat[0]).all():
        return float(values.flat[0]), check
    coords = {dim: data.coords[dim] for dim in dims if dim in data.coords}
    return xr.DataArray(values, dims=dims, coords=coords), check


def _with_metadata_read(data: xr.DataArray) -> xr.DataArray:
    """Metadata along time in memory: ``ds.chunk()`` makes them lazy, and unread they would be silent."""
    lazy = [
        key
        for key in (*OFFSET_KEYS, *PRODUCT_KEYS)
        if key in data.coords and data.coords[key].chunks is not None and data.coords[key].dims != data.dims
    ]
    return data.assign_coords({key: data.coords[key].compute(scheduler="synchronous") for key in lazy})


def _dims_of_metadata(data: xr.DataArray, option: Offset | None) -> tuple[str, ...]:
    """Extra dims along which statements about the offset may differ."""
    extra = [str(dim) for dim in data.dims[:-3]]
    dims = {
        str(dim)
        for key in (*OFFSET_KEYS, *PRODUCT_KEYS)
        if key in data.coords and data.coords[key].chunks is None
        for dim in data.coords[key].dims
    }
    if isinstance(option, xr.DataArray):
        strange = [str(dim) for dim in option.dims if dim not in extra]
        if strange:
            raise InputError(f"offset= has dim {strange[0]!r}, which {data.name} does not have")
        dims |= {str(dim) for dim in option.dims}
    return tuple(dim for dim in extra if dim in dims)


def _along(option: xr.DataArray, data: xr.DataArray, name: str) -> xr.DataArray:
    """The option in the order of the data's dates."""
    for dim in map(str, option.dims):
        here, there = dim in data.coords, dim in option.coords
        if here != there:
            raise InputError(
                f"offset= has {'no ' if here else ''}coordinates along {dim!r}, {name} has "
                f"{'some' if here else 'none'}, so that the places cannot be compared"
            )
        if not here:
            if option.sizes[dim] != data.sizes[dim]:
                raise InputError(
                    f"offset= has {option.sizes[dim]} places along {dim!r}, the data {data.sizes[dim]}"
                )
        elif not option[dim].variable.to_index().equals(data[dim].variable.to_index()):
            option = option.isel(
                {dim: _places(option[dim].variable.to_index(), data[dim].variable.to_index(), dim)}
            )
    return option


def _places(there: pd.Index, here: pd.Index, dim: str) -> NDArray[np.intp]:
    """Where the option says something of each place of the data."""
    if not there.is_unique:
        raise InputError(f"offset= says something of {dim} {there[there.duplicated()][0]} more than once")
    places = there.get_indexer(here)
    missing = here[places < 0]
    if len(missing):
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"offset= says nothing of {dim} {missing[0]}{more}")
    return np.asarray(places)


def _together(checks: list[Check], values: NDArray[np.float64]) -> Check:
    """One row for a series: the worst of its dates, and how many carry what."""
    worst = max(checks, key=lambda check: ("ok", "warning", "error").index(check.status))
    alike = sum(check == worst for check in checks)
    if alike == len(checks):
        return worst
    if worst.status != "ok":
        return replace(worst, found=f"{worst.found} (in {alike} of {len(checks)} dates)")
    counts = {value: int((values == value).sum()) for value in sorted(set(values.flat))}
    listed = ", ".join(f"{value:g} in {count} dates" for value, count in counts.items())
    return replace(worst, found=f"{listed}, each by its own metadata")


@dataclass(frozen=True)
class _Statements:
    """What metadata say of one date: explicit offsets by their wording, and processing baselines."""

    evidence: dict[str, float]
    baselines: frozenset[float]

    @classmethod
    def of(cls, data: xr.DataArray, at: Mapping[str, int]) -> _Statements:
        evidence: dict[str, float] = {}
        for key in ADD_OFFSET_KEYS:
            evidence |= {f"{key} = {each:g}": 0.0 - each for each in _numbers(data, (key,), at)}
        for key in APPLIED_KEYS:
            for value in _said(data, (key,), at):
                if is_true(value):  # false says nothing: older products never had an offset to apply
                    evidence[f"{key} = true"] = 0.0
        scale, shift = packing(data.attrs)
        if shift and scale != 1:
            said = f"add_offset = {shift:g} at scale_factor = {scale:g}, not applied"
            evidence[said] = round(-shift / scale, 3)
        scale, shift = packing(data.encoding)
        if shift and scale != 1 and data.dtype.kind == "f":
            evidence[f"add_offset = {shift:g} at scale_factor = {scale:g}, applied when read"] = 0.0
        baselines = [
            *map(baseline, _said(data, BASELINE_KEYS, at)),
            *map(named_baseline, _said(data, PRODUCT_KEYS, at)),
        ]
        return cls(
            evidence, frozenset(each for each in baselines if each is not None and math.isfinite(each))
        )


def _judged(
    given: ModalityInput,
    data: xr.DataArray,
    at: Mapping[str, int],
    option: float | None,
    look: Callable[[tuple[int, ...]], Shown] | None,
    infer: bool,
) -> tuple[float, Check]:
    """The offset of one date by its metadata and, where there is a look at them, by its pixels."""
    value, check = _judge(_Statements.of(data, at), option, given.title, at)
    if look is None or check.status == "error":
        return value, check
    seen = look(tuple(at.values()))
    silent = check.status == "warning"
    if seen.value is None or (seen.value != value and not seen.certain and not (silent and infer)):
        if not silent:
            return value, replace(check, found=f"{check.found} ({seen.why})")
        return value, replace(
            check, status="error" if infer and check.kind == "offset.silent" else "warning",
            kind="offset.undecided",
            found=f"{seen.why}; {check.found}",
            remedy=f"Say offset=0 or offset=1000, as you know better. {_by_date(at)}".strip(),
        )  # fmt: skip
    if seen.value == value or (silent and infer):
        sure = seen.certain or not silent
        return seen.value, replace(
            check, found=f"{seen.value:g}: {seen.why}", status="ok" if sure else "warning",
            expected="" if sure else _EXPECTED, remedy="" if sure else "Say offset=0 or offset=1000.",
            kind="offset" if sure else "offset.undecided",
        )  # fmt: skip
    return value, replace(
        check, status="warning" if silent else "error",
        kind="offset.pixels" if silent else "offset.contradiction",
        found=f"{check.found}, but {seen.why}, as {_LOOKS[seen.value]}", expected=_EXPECTED,
        remedy=_of_dates(at) if at else f"Say what is in the numbers: {_correction(given, data, seen.value)}",
    )  # fmt: skip


def _of_dates(dims: Iterable[str]) -> str:
    first = next(iter(dims))
    return f"Correct what is said of these dates: ds = ds.assign_coords(boa_add_offset=({first!r}, […]))."


_LOOKS = {0.0: "no offset leaves them", 1000.0: "an offset of 1000 leaves them"}


def _correction(given: ModalityInput, data: xr.DataArray, value: float) -> str:
    """The line that corrects all that explicit metadata say."""
    keys = (*ADD_OFFSET_KEYS, *APPLIED_KEYS)
    adding = [key for key in ADD_OFFSET_KEYS if key in data.attrs] or ["boa_add_offset"]
    right: dict[str, Any] = dict.fromkeys(adding, 0 - int(value))
    right |= {key: value == 0 for key in APPLIED_KEYS if key in data.attrs}
    dropped = [key for key in keys if key in data.coords]
    first = f"ds = ds.drop_vars({dropped}); " if dropped else ""
    return first + assignment(given.variables, right)


def _by_date(dims: Iterable[str]) -> str:
    """The option for a series; nothing where there is none."""
    coords = ", ".join(f"{dim!r}: ds.{dim}" for dim in dims)
    said = f"Say it for each date: offset=xr.DataArray([…], coords={{{coords}}}), with 0 or 1000 for each."
    return said if coords else ""


def _judge(said: _Statements, option: float | None, name: str, at: Mapping[str, int]) -> tuple[float, Check]:
    """The offset of one date."""
    values = sorted(set(said.evidence.values()))
    found = ", ".join(said.evidence) or "metadata are silent"

    def check(status: Status, found: str, remedy: str = "", kind: str = "offset") -> Check:
        return Check(name, kind, status, found, "" if status == "ok" else _EXPECTED, remedy)

    if option is not None:
        if values and option not in values:
            return option, check(
                "error", f"offset={option:g} was given, but {found}",
                "Leave offset='auto', or remove the attributes that are wrong.", "offset.contradiction",
            )  # fmt: skip
        return option, check("ok", f"{option:g}, as given")
    strange = [value for value in values if value not in OFFSETS]
    if strange or len(values) > 1:
        problem = "contradicting metadata" if len(values) > 1 else "an offset that Sentinel-2 does not have"
        return values[0], check(
            "error", f"{problem}: {found}",
            "Look at the darkest pixels: water near 1000 or above means offset=1000, else offset=0. "
            + _by_date(at),
            "offset.contradiction" if len(values) > 1 else "offset.unknown",
        )  # fmt: skip
    if values:
        return values[0], check("ok", f"{values[0]:g}: {found}")
    return _assumed(said.baselines, check, at)


def _assumed(
    baselines: frozenset[float], check: Callable[..., Check], at: Mapping[str, int]
) -> tuple[float, Check]:
    kinds = {value >= _FIRST_WITH_OFFSET for value in baselines}
    listed = ", ".join(f"{value:05.2f}" for value in sorted(baselines))
    if kinds == {False}:
        return 0.0, check("ok", f"0: processing baseline {listed}, before 04.00")
    if kinds == {True}:
        return 1000.0, check(
            "warning", f"1000 assumed: processing baseline {listed} has it, unless the catalogue removed it",
            f"{_LOOK}, and say offset=0 or offset=1000.", "offset.baseline",
        )  # fmt: skip
    if kinds:
        return 0.0, check(
            "error", f"processing baselines before and after 04.00 for the same date: {listed}",
            _by_date(at) or _SAY, "offset.contradiction",
        )  # fmt: skip
    return 0.0, check(
        "warning", "0 assumed: metadata are silent",
        f"{_LOOK}; if the numbers carry +1000 (processing baseline 04.00 and later), say offset=1000, else "
        "offset=0. STAC items tell it: ds = ds.terramind.with_stac(items).", "offset.silent",
    )  # fmt: skip


def _said(data: xr.DataArray, keys: Iterable[str], at: Mapping[str, int]) -> list[Any]:
    """Distinct values of metadata, from attributes and from coordinates, as STAC loaders place them."""
    found: list[Any] = []
    for key in keys:
        if key in data.attrs:
            value = data.attrs[key]
            found += list(value.values()) if isinstance(value, Mapping) else np.ravel(value).tolist()
        if key in data.coords and data.coords[key].chunks is None:
            found += np.ravel(data.coords[key].variable.isel(at, missing_dims="ignore").values).tolist()
    return list({repr(value): value for value in found}.values())


def _numbers(data: xr.DataArray, keys: Iterable[str], at: Mapping[str, int]) -> list[float]:
    found = map(number, _said(data, keys, at))
    return [value for value in found if value is not None and math.isfinite(value)]

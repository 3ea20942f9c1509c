"""What a dataset says of where each modality lies: by names, by metadata, or as the user asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.labels import band_of
from terramind_xr.data.layout import listed, mapping_call
from terramind_xr.data.products import FAMILIES, described, product_of
from terramind_xr.facts import Modality, modalities

Request = str | Mapping[str, str] | None
Source = str | Mapping[str, str]
Claim = tuple[Source | None, list[Check]]
"""Where a modality comes from, if that is known, and what hinders it."""

_ALIASES = {
    "s2rgb": "RGB", "sentinel2l2a": "S2L2A", "sentinel2l1c": "S2L1C", "sentinel1grd": "S1GRD",
    "sentinel1rtc": "S1RTC",
} | {name.lower(): name for name in modalities}  # fmt: skip


def canonical(name: str) -> str | None:
    """The modality that a name stands for, however it is spelt."""
    return _ALIASES.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def claims(
    ds: xr.Dataset, requests: Mapping[str, Request], rows: Mapping[str, Modality]
) -> Iterator[tuple[str, Claim]]:
    """Where each modality comes from, and what hinders it."""
    by_name = _named_variables(ds)
    for name, request in requests.items():
        if request is not None:
            yield name, _explicit(ds, rows[name], request)
        elif name in by_name:
            yield name, by_name[name]
    if not requests:
        yield from by_name.items()
    settled = {name for name, request in requests.items() if request is not None} | by_name.keys()
    for family in FAMILIES:
        wanted = [name for name in family if name in requests and name not in settled]
        if wanted or not (requests or settled & set(family)):
            yield from _family(ds, family, wanted, rows)
    # Any Sentinel-2 scene has red, green and blue: 8-bit colours made of them must be asked for.
    for name in ("RGB", "DEM", "LULC", "NDVI"):
        if name in (requests or ("DEM",)) and name not in settled:
            candidates = _candidates(ds, rows[name])
            if candidates or requests:
                yield name, _one_each(ds, rows[name], candidates)


def _named_variables(ds: xr.Dataset) -> dict[str, Claim]:
    """Variables that are called after a modality, or say so in their attribute ``modality``."""
    found: dict[str, list[str]] = {}
    for key, data in ds.data_vars.items():
        name = canonical(str(key)) or canonical(str(data.attrs.get("modality", "")))
        if name is not None and data.ndim > 0 and name != "Coordinates":
            found.setdefault(name, []).append(str(key))
    return {name: _only(name, keys) for name, keys in found.items()}


def _only(name: str, keys: list[str]) -> Claim:
    if len(keys) == 1 or name in keys:
        return (name if name in keys else keys[0]), []
    return None, [Check(
        ", ".join(keys), "bands.twice", "error", f"{len(keys)} variables that say they are {name}", "one",
        f'Say which one: inputs={{"{name}": "{keys[0]}"}}.',
    )]  # fmt: skip


def _candidates(ds: xr.Dataset, modality: Modality) -> dict[str, list[str]]:
    """Variables that can be each band, by their name or else by what their attributes say."""
    found: dict[str, list[str]] = {}
    for key, data in ds.data_vars.items():
        said = (key, *(data.attrs.get(name) for name in ("common_name", "band_name", "long_name")))
        bands = (band_of(label, modality) for label in said if isinstance(label, str))
        band = next((band for band in bands if band is not None), None)
        if band is not None and data.ndim > 0 and canonical(str(key)) in (None, modality.name):
            found.setdefault(band, []).append(str(key))
    return found


def _family(
    ds: xr.Dataset, family: tuple[str, str], wanted: list[str], rows: Mapping[str, Modality]
) -> Iterator[tuple[str, Claim]]:
    """Levels of one sensor whose bands have the same names: metadata or the user must say which."""
    candidates = _candidates(ds, modalities[family[0]])
    used = sorted({key for keys in candidates.values() for key in keys})
    said = _product(ds, used, family)
    if not candidates:
        yield from ((name, _one_each(ds, rows[name], {})) for name in wanted)
        return
    if len(wanted) == 1:
        name = wanted[0]
        if said not in (None, name):
            yield name, (None, [Check(
                ", ".join(used), "product.other", "error", f"attributes that say {said}", name,
                f"Ask for {said}, or correct the attributes of the variables and of the dataset.",
            )])  # fmt: skip
            return
    elif said is not None and not wanted:
        name = said
    elif not wanted and family[0] == "S2L1C" and "B10" not in candidates:
        name = "S2L2A"  # Level-1C has B10 always
    else:
        yield from ((name, (None, [_ambiguous(used, family, candidates)])) for name in family)
        return
    yield name, _one_each(ds, rows[name], _candidates(ds, rows[name]))


def _ambiguous(used: list[str], family: tuple[str, str], candidates: Mapping[str, list[str]]) -> Check:
    calls = []
    for name in family:
        bands = [band for band in modalities[name].band_names if band in candidates]
        pairs = ", ".join(f'"{band}": "{candidates[band][0]}"' for band in bands[:2])
        calls.append(f'inputs={{"{name}": {{{pairs}}}}}')
    return Check(
        ", ".join(used), "bands.ambiguous", "error", f"{' or '.join(family)}, the names alone do not tell",
        "one of them", f"Say which: {calls[0]} or {calls[1]}.",
    )  # fmt: skip


def _product(ds: xr.Dataset, used: Sequence[str], family: tuple[str, str]) -> str | None:
    """The level that the attributes of the variables, or else of the dataset, name without contradiction."""
    for attrs in ([described(ds[key]) for key in used], [ds.attrs]):
        said = {name for mapping in attrs for name in product_of(mapping, family)}
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def _one_each(ds: xr.Dataset, modality: Modality, candidates: Mapping[str, list[str]]) -> Claim:
    """One variable for each band, as far as there is one, and the faults."""
    if not candidates:
        return None, [_absent(ds, modality)]
    faults = []
    missing = [band for band in modality.band_names if band not in candidates]
    if missing:
        faults.append(Check(
            ", ".join(sorted(keys[0] for keys in candidates.values())), "bands.missing", "error",
            f"no {', '.join(missing)} of {modality.name} among the variables {_variables(ds)}",
            f"all of {', '.join(modality.band_names)}",
            f"Add them, or say which variables they are: {mapping_call(modality, missing[0])}. To leave "
            f"{modality.name} out, name the modalities you want: inputs=[…].",
        ))  # fmt: skip
    twice = {band: keys for band, keys in candidates.items() if len(keys) > 1}
    if twice:
        which = "; ".join(f"{band}: {' or '.join(keys)}" for band, keys in twice.items())
        pairs = ", ".join(f'"{band}": "{keys[0]}"' for band, keys in twice.items())
        faults.append(Check(
            ", ".join(key for keys in twice.values() for key in keys), "bands.twice", "error",
            f"more than one candidate ({which})", f"one variable for each band of {modality.name}",
            f'Say which: inputs={{"{modality.name}": {{{pairs}}}}}.',
        ))  # fmt: skip
    return {band: keys[0] for band, keys in candidates.items()}, faults


def _explicit(ds: xr.Dataset, modality: Modality, request: Source) -> Claim:
    """What the user said, completed by name where bands are not mentioned."""
    wanted = [request] if isinstance(request, str) else list(request.values())
    absent = [name for name in wanted if name not in ds.data_vars]
    if absent:
        return None, [Check(
            ", ".join(map(str, absent)), "bands.request", "error", f"no such variable among {_variables(ds)}",
            f"the variables given for {modality.name}", "Correct the names in inputs=.",
        )]  # fmt: skip
    if isinstance(request, str):
        return request, []
    whole = modalities[modality.name]  # bands that are named and not needed are no fault
    said = {band_of(label, whole): name for label, name in request.items()}
    if None in said or len(said) < len(request):
        wrong = [str(label) for label in request if band_of(label, whole) is None]
        return None, [Check(
            modality.name, "bands.request", "error",
            f"{', '.join(wrong) if wrong else 'one band twice'} in inputs=",
            f"names among {', '.join(whole.band_names)}", "Correct the names in inputs=.",
        )]  # fmt: skip
    given = {str(band): [name] for band, name in said.items() if band in modality.band_names}
    taken = set(said.values())
    rest = {
        band: [key for key in keys if key not in taken]
        for band, keys in _candidates(ds, modality).items()
        if band not in given
    }
    return _one_each(ds, modality, {band: keys for band, keys in rest.items() if keys} | given)


def _variables(ds: xr.Dataset) -> str:
    return listed(repr(str(key)) for key in ds.data_vars) or "none at all"


def _absent(ds: xr.Dataset, modality: Modality) -> Check:
    bands = f" with a band dimension, or a variable for each of {', '.join(modality.band_names)}"
    return Check(
        modality.name, "bands.absent", "error", f"nothing of it among the variables {_variables(ds)}",
        f"a variable {modality.name!r}{bands if modality.is_banded else ''}",
        f'Say which one it is: inputs={{"{modality.name}": "variable"}}.',
    )  # fmt: skip

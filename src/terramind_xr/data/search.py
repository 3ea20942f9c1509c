"""Which variables of a dataset make which modality."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.labels import band_dim, band_of
from terramind_xr.data.layout import ModalityInput, Outcome, from_bands, from_variable, listed, mapping_call
from terramind_xr.data.products import FAMILIES, described, product_of
from terramind_xr.data.trees import tree_fault
from terramind_xr.data.units import without_quantities
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import Modality, modalities

Request = str | Mapping[str, str] | None
Source = str | Mapping[str, str]
Claim = tuple[Source | None, list[Check]]
Names = str | Sequence[str] | Mapping[str, Request] | None
Bands = Mapping[str, Sequence[str]]
"""Bands to look for, by modality; those of a modality that is not mentioned are looked for all."""

_ALIASES = {
    "s2rgb": "RGB", "sentinel2l2a": "S2L2A", "sentinel2l1c": "S2L1C", "sentinel1grd": "S1GRD",
    "sentinel1rtc": "S1RTC",
} | {name.lower(): name for name in modalities}  # fmt: skip


def lookup(name: str) -> Modality:
    """Row of the modality table for a name.

    Raises
    ------
    OptionError
        There is no such modality; names the closest one and lists all.

    Examples
    --------
    >>> lookup("S2L2")
    Traceback (most recent call last):
    terramind_xr.errors.OptionError: unknown modality 'S2L2'; did you mean 'S2L2A'? Known: S2L2A, S2L1C, RGB, S1GRD, S1RTC, DEM, LULC, NDVI, Coordinates.
    """  # noqa: E501
    if name in modalities:
        return modalities[name]
    canonical = _canonical(str(name))
    close = difflib.get_close_matches(str(name).upper(), modalities, n=1, cutoff=0.5)
    guess = canonical or (close[0] if close else None)
    hint = f"; did you mean {guess!r}?" if guess else "."
    raise OptionError(f"unknown modality {name!r}{hint} Known: {', '.join(modalities)}.")


def as_dataset(obj: xr.Dataset | xr.DataArray, modality: str | None = None) -> xr.Dataset:
    """The object as a dataset; a DataArray becomes its one variable, and quantities numbers with units.

    Parameters
    ----------
    obj
        A DataArray is named after its modality by its name or its attribute ``modality``.
    modality
        What a DataArray is, where its name is not a modality's.

    Raises
    ------
    InputError
        The object is neither a Dataset nor a DataArray.
    """
    if isinstance(obj, xr.Dataset):
        return without_quantities(obj)
    if isinstance(obj, xr.DataTree):
        raise tree_fault(obj).as_error()
    if not isinstance(obj, xr.DataArray):
        raise InputError(
            f"the input is a {type(obj).__module__}.{type(obj).__qualname__}; expected an xarray Dataset or "
            "DataArray. Read files with terramind_xr.open_rasters, wrap arrays in xr.DataArray."
        )
    name = str(obj.name) if obj.name is not None else ""
    if _canonical(name) is None:
        name = modality or str(obj.attrs.get("modality", "")) or _described(obj) or name
    if not name or name in obj.coords:
        name = "data"
    return without_quantities(obj.to_dataset(name=name))


def _described(data: xr.DataArray) -> str:
    """Modality of an array with a dimension of bands, as its metadata name it; empty where they do not."""
    if band_dim(data, ()) is None:
        return ""
    said = {name for family in FAMILIES for name in product_of(described(data), family)}
    return said.pop() if len(said) == 1 else ""


class Found(NamedTuple):
    """What a search came to: inputs fit for use, faults, and what stands for the faulty ones in checks."""

    inputs: dict[str, ModalityInput]
    faults: list[Check]
    faulty: dict[str, ModalityInput]


def find_inputs(
    ds: xr.Dataset,
    names: Names = None,
    *,
    exclude: Collection[str] = (),
    derived: bool = False,
    bands: Bands = MappingProxyType({}),
) -> Found:
    """Find the modalities in a dataset and bring their bands into model order, without reading a pixel.

    Parameters
    ----------
    ds
        A variable for each modality with a band dimension, a variable for each band, or both mixed.
    names
        Modalities to find; None for every raw one the object holds (LULC and NDVI only when named).
        ``{"S2L2A": "variable"}`` or ``{"S2L2A": {"B02": "variable", …}}`` settles what is ambiguous; bands
        that are not mentioned are found by name.
    exclude
        Modalities to leave out.
    derived
        Whether LULC and NDVI are found unasked, too.
    bands
        Of some modalities, the bands to look for, in the order in which they are laid out, by any of their
        names: ``{"S2L2A": ("B02", "B8A")}``. The others may be missing.

    Returns
    -------
    Found
        The inputs by modality, in the order of `names` or of the modality table, and the faults.

    Raises
    ------
    OptionError
        A name in `names` is not a modality that can be an input, or one in `bands` is no band.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> ds = xr.Dataset({name: (("y", "x"), np.zeros((4, 4))) for name in ("vh", "vv")})
    >>> found = find_inputs(ds, ["S1RTC"])
    >>> found.inputs["S1RTC"].variables, found.inputs["S1RTC"].data.dims, found.faults
    (('vv', 'vh'), ('band', 'y', 'x'), [])
    >>> str(find_inputs(ds).faults[0]).startswith("vh, vv: S1GRD or S1RTC")
    True
    """
    requests = _requests(names)
    rows = {**modalities, **{name: lookup(name).only(some) for name, some in bands.items()}}
    found = Found({}, [], {})
    order = list(requests) or [m.name for m in modalities.values() if m.raw_key or derived]
    claims = dict(_claims(ds, requests, rows))
    for name in order:
        if name not in claims or name in exclude:
            continue
        source, faults = claims[name]
        given = None
        if source is not None:
            given, more = _build(ds, rows[name], source)
            faults = [*faults, *more]
        found.faults.extend(fault for fault in faults if fault not in found.faults)  # two may share one
        if given is not None:
            (found.faulty if faults else found.inputs)[name] = given
    if not requests and not found.inputs and not found.faults:
        found.faults.append(_nothing(ds, sorted(claims), exclude))
    return found


def held(ds: xr.Dataset) -> frozenset[str]:
    """Modalities that a dataset seems to hold, whether or not they are fit for use."""
    return frozenset(name for name, _ in _claims(ds, {}, modalities))


def _build(ds: xr.Dataset, modality: Modality, source: Source) -> Outcome:
    if isinstance(source, str):
        return from_variable(ds, modality, source)
    return from_bands(ds, modality, source)


def _requests(names: Names) -> dict[str, Request]:
    if names is None:
        return {}
    if isinstance(names, str):
        names = [names]
    requests: dict[str, Request] = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
    for name in requests:
        if lookup(name).name == "Coordinates":
            raise OptionError(
                "Coordinates are not read from the data: `generate` takes them from its CRS, with "
                "inputs=['S2L2A', 'Coordinates']. Leave them out here."
            )
    return requests


def _canonical(name: str) -> str | None:
    return _ALIASES.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def _claims(
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
        name = _canonical(str(key)) or _canonical(str(data.attrs.get("modality", "")))
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
        if band is not None and data.ndim > 0 and _canonical(str(key)) in (None, modality.name):
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


def _nothing(ds: xr.Dataset, left_out: list[str], exclude: Collection[str]) -> Check:
    known = ", ".join(modality.name for modality in modalities.values() if modality.raw_key)
    if left_out:
        usable = [name for name in left_out if name not in exclude]
        return Check(
            ", ".join(left_out), "bands.none", "error", "no other modality found", f"one of {known} as input",
            f"Add one, or name the inputs: inputs=[{usable[0]!r}]." if usable else "Add one.",
        )  # fmt: skip
    first = next((str(key) for key in ds.data_vars), None)
    remedy = (
        f"Name it: da = da.rename('S2L2A') for a DataArray, ds = ds.rename({{{first!r}: 'S2L2A'}}), or "
        f'inputs={{"S2L2A": "{first}"}}.'
        if first is not None
        else 'Add one, ds["S2L2A"] = …, or read files with terramind_xr.open_rasters.'
    )
    return Check(
        ", ".join(map(str, ds.data_vars)) or "dataset",
        "bands.none",
        "error",
        "no modality recognised",
        f"a variable called after one ({known}), or variables called after the bands of one",
        remedy,
    )

"""Which variables of a dataset make which modality."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.claims import Request, Source, canonical, claims
from terramind_xr.data.labels import band_dim
from terramind_xr.data.layout import ModalityInput, Outcome, from_bands, from_variable
from terramind_xr.data.products import FAMILIES, described, product_of
from terramind_xr.data.trees import tree_fault
from terramind_xr.data.units import without_quantities
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import Modality, modalities

Names = str | Sequence[str] | Mapping[str, Request] | None
Bands = Mapping[str, Sequence[str]]
"""Bands to look for, by modality; those of a modality that is not mentioned are looked for all."""


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
    known = canonical(str(name))
    close = difflib.get_close_matches(str(name).upper(), modalities, n=1, cutoff=0.5)
    guess = known or (close[0] if close else None)
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
    if canonical(name) is None:
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
    claimed = dict(claims(ds, requests, rows))
    for name in order:
        if name not in claimed or name in exclude:
            continue
        source, faults = claimed[name]
        given = None
        if source is not None:
            given, more = _build(ds, rows[name], source)
            faults = [*faults, *more]
        found.faults.extend(fault for fault in faults if fault not in found.faults)  # two may share one
        if given is not None:
            (found.faulty if faults else found.inputs)[name] = given
    if not requests and not found.inputs and not found.faults:
        found.faults.append(_nothing(ds, sorted(claimed), exclude))
    return found


def held(ds: xr.Dataset) -> frozenset[str]:
    """Modalities that a dataset seems to hold, whether or not they are fit for use."""
    return frozenset(name for name, _ in claims(ds, {}, modalities))


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
    if not requests:  # a selection that came to nothing is no wish for everything
        raise OptionError(
            "No input is named: found none, expected a modality or several, such as inputs=['S2L2A']; or "
            "None for all that the object holds."
        )
    for name in requests:
        if lookup(name).name == "Coordinates":
            raise OptionError(
                "Coordinates are not read from the data: `generate` takes them from its CRS, with "
                "inputs=['S2L2A', 'Coordinates']. Leave them out here."
            )
    return requests


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

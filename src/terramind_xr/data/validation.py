"""Refuse what would silently ruin a result: every fault of the input at once, each with its remedy.

The checks of one modality and of all together. Metadata only; pixels are sampled where that is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.darkness import shown
from terramind_xr.data.distance import compare
from terramind_xr.data.layout import ALIGN, ModalityInput
from terramind_xr.data.metadata import is_packed_reflectance, packing
from terramind_xr.data.offset import Offset, check_option, sentinel2_offset
from terramind_xr.data.placement import check_place, regularly
from terramind_xr.data.products import described, family_of, product_of
from terramind_xr.data.report import Report
from terramind_xr.data.sampling import Sample
from terramind_xr.data.search import Bands, Names, find_inputs, held, lookup
from terramind_xr.data.tokens import TOKENS, check_tokens
from terramind_xr.data.units import accepted_units, conversion, is_plain_number, same_units
from terramind_xr.data.values import declaration
from terramind_xr.errors import InputError
from terramind_xr.facts import RESOLUTION, modalities


class Examined(NamedTuple):
    """Inputs of a call, the Sentinel-2 offset in each optical one, and the report on everything."""

    inputs: dict[str, ModalityInput]
    offsets: dict[str, Offset]
    report: Report


def inspect(ds: xr.Dataset, names: Sequence[str] | None = None, *, sample: bool = False) -> Report:
    """Check all that a dataset holds, or some modalities of it, in pixels and in tokens.

    With `sample`, some pixels are read; see `check_inputs`.

    Raises
    ------
    OptionError
        A modality is unknown.
    """
    chosen = None if names is None else {lookup(name).name for name in names}
    tokens = {
        str(key): str(data.attrs[TOKENS])
        for key, data in ds.data_vars.items()
        if TOKENS in data.attrs and (chosen is None or data.attrs[TOKENS] in chosen)
    }
    checks = [check for key, name in tokens.items() for check in check_tokens(ds[key], name, key)]
    pixels = ds.drop_vars(list(tokens))
    found = held(pixels) if tokens else None
    if names is not None:
        names = [name for name in names if found is None or name in found or name not in tokens.values()]
    if not tokens or (found if names is None else names):
        checks += examine(pixels, names, derived=True, sample=sample).report.checks
    return Report(tuple(checks))


def examine(
    ds: xr.Dataset,
    names: Names = None,
    *,
    exclude: Collection[str] = (),
    offset: str | Offset = "auto",
    derived: bool = False,
    bands: Bands = MappingProxyType({}),
    sample: bool = False,
) -> Examined:
    """Find the inputs and check them, faulty ones included, so that all faults come at once.

    Parameters
    ----------
    ds, names, exclude, bands
        As for `find_inputs`.
    offset, sample
        As for `check_inputs`.
    derived
        Whether LULC and NDVI are found unasked, too.

    Returns
    -------
    Examined
        ``report.raise_for_errors()`` stands between it and the use of the inputs.

    Raises
    ------
    OptionError
        `names`, `bands` or `offset` cannot be used.
    """
    found = find_inputs(ds, names, exclude=exclude, derived=derived, bands=bands)
    report, offsets = check_inputs(found.inputs, offset, faulty=found.faulty, sample=sample)
    return Examined(found.inputs, offsets, Report((*found.faults, *report.checks)))


def check_inputs(
    inputs: Mapping[str, ModalityInput],
    offset: str | Offset = "auto",
    *,
    faulty: Mapping[str, ModalityInput] = MappingProxyType({}),
    sample: bool = False,
) -> tuple[Report, dict[str, Offset]]:
    """Check found inputs by their metadata, and by a sample of their pixels where that is asked for.

    Parameters
    ----------
    inputs
        As `find_inputs` returns them.
    offset
        ``"auto"`` (metadata), ``"infer"`` (metadata and a sample of pixels), 0 or 1000, or one of them for
        each date: the offset in the Sentinel-2 digital numbers.
    faulty
        What stands for inputs with faulty bands; their other faults are reported as well.
    sample
        Whether to compare a sample of the pixels with metadata and training.

    Returns
    -------
    report, offsets
        The checks, and for each Sentinel-2 modality the number that is in its digital numbers (0 or 1000)
        and is to be taken off before the model; a DataArray along time where dates differ.

    Raises
    ------
    OptionError
        `offset` is something else.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from terramind_xr.data import find_inputs
    >>> dem = xr.Dataset({"DEM": (("y", "x"), np.zeros((4, 4)), {"units": "K"})})
    >>> report, _ = check_inputs(find_inputs(dem).inputs)
    >>> report.errors[0].kind, report.errors[0].found
    ('units.unknown', "units 'K'")
    """
    option = check_option(offset)
    infer = isinstance(offset, str) and offset == "infer"
    checks: list[Check] = []
    offsets: dict[str, Offset] = {}
    for name, given in (*inputs.items(), *faulty.items()):
        checks += [_bands(given)] if name in inputs else []
        checks += _layout(given)
        checks += _numbers(given)
        looked = sample or (infer and given.modality.is_optical)
        pixels = Sample.of(given) if looked and name in inputs and _readable(given, checks) else None
        if given.modality.is_optical:
            look = None if pixels is None else partial(shown, pixels)
            offsets[name], check = sentinel2_offset(given, option, look, infer=infer)
            checks.append(check)
        if sample and pixels is not None:
            checks += compare(pixels, offsets.get(name, 0.0))
        checks += _grid(given)
    checks += _together([*inputs.values(), *faulty.values()])
    return Report(tuple(checks)), {name: value for name, value in offsets.items() if name in inputs}


def _readable(given: ModalityInput, checks: list[Check]) -> bool:
    """Whether its numbers are known so far, so that a look at pixels means something."""
    return not any(check.status == "error" and check.variable == given.title for check in checks)


def _bands(given: ModalityInput) -> Check:
    modality = given.modality
    found = ", ".join(given.variables) if len(given.variables) > 1 else f"all of {modality.name}"
    if modality != modalities[modality.name]:
        found = f"{', '.join(modality.band_names)} of {modality.name}"
    if given.data.attrs.get("band_names") == "declared" and modality.is_banded:
        found += ", in model order as declared: the file names none"
    return Check(given.title, "bands", "ok", found, "")


def _layout(given: ModalityInput) -> Iterator[Check]:
    name, data, modality = given.title, given.data, given.modality
    said = product_of(described(data), family_of(modality.name))
    if said and modality.name not in said:
        yield Check(
            name, "product.other", "error",
            f"attributes that say {' and '.join(sorted(said))}", modality.name,
            f"Call it {sorted(said)[0]}, or correct its attributes.",
        )  # fmt: skip
    empty = [f"{dim}: 0" for dim, size in data.sizes.items() if size == 0]
    if empty:
        yield Check(
            name, "shape.empty", "error",
            f"an empty axis ({', '.join(empty)})", "one pixel or more on each axis",
            "Look at the selection that made it: slices of y run downwards, .sel(y=slice(north, south)).",
        )  # fmt: skip
    else:
        yield Check(name, "shape", "ok", " × ".join(f"{dim} {size}" for dim, size in data.sizes.items()), "")


def _numbers(given: ModalityInput) -> Iterator[Check]:
    name, data, modality = given.title, given.data, given.modality
    kind, bits = data.dtype.kind, data.dtype.itemsize * 8
    if kind not in "iuf":
        yield Check(
            name, "dtype.unfit", "error", f"dtype {data.dtype}", "real numbers",
            "Convert it with .astype('float32'), of complex radar data take the backscatter (dB).",
        )  # fmt: skip
    elif modality.name == "RGB" and kind in "iu" and bits > 8:
        yield Check(
            name, "dtype.colours", "error", f"dtype {data.dtype}", "8-bit colours, 0 to 255",
            "Scale it to 0…255 and .astype('uint8'); raw Sentinel-2 bands are S2L2A or S2L1C.",
        )  # fmt: skip
    else:
        yield Check(name, "dtype", "ok", str(data.dtype), "")
    yield _packing(given)
    yield _units(given)
    said = "none declared" if given.nodata is None else f"{given.nodata:g}"
    if given.nodata is None and modality.nodata is not None:
        said += f" ({modality.nodata:g} by convention)"
    yield Check(name, "nodata", "ok", said, "")


def _packing(given: ModalityInput) -> Check:
    name, data = given.title, given.data
    scale, shift = packing(data.attrs)
    text = f"scale_factor {scale:g} and add_offset {shift:g}"
    if (scale, shift) == (1, 0) or (given.modality.is_optical and is_packed_reflectance(data)):
        harmless = "none" if (scale, shift) == (1, 0) else f"{text}, not applied: the numbers are DN"
        unpacked = packing(data.encoding)[0]
        is_unpacked = given.modality.is_optical and data.dtype.kind == "f" and unpacked != 1
        if is_unpacked and given.units is not None and same_units(given.modality, given.units, "DN"):
            return Check(
                name, "scale.units", "error",
                f"units {given.units!r}, but scale_factor {unpacked:g} was applied when read",
                "units of the numbers as they are now",
                f"Say that they are reflectance: {declaration(given.variables, 'units', '1')}",
            )  # fmt: skip
        return Check(name, "scale", "ok", harmless, "")
    return Check(
        name, "scale.unapplied", "error",
        f"attributes {text} that are not applied", "numbers as they are meant",
        "Apply them: ds = xr.decode_cf(ds), or open the file with mask_and_scale=True; "
        "if they have been applied already, delete the attributes.",
    )  # fmt: skip


def _units(given: ModalityInput) -> Check:
    name, modality = given.title, given.modality
    try:
        found = conversion(modality, given.units)
    except InputError:
        return Check(
            name, "units.unknown", "error", f"units {given.units!r}", ", ".join(accepted_units(modality)),
            f"Convert the data and set its attribute units = {modality.units!r}.",
        )  # fmt: skip
    if given.units is None:
        assumed = f"none: {modality.units} assumed"
        # Integers are as the sensor's products hold them. Floats were computed, and into what, nobody says.
        if given.data.dtype.kind != "f" or is_plain_number(modality):
            return Check(name, "units", "ok", assumed, "")
        return Check(
            name, "units.silent", "warning", assumed, ", ".join(accepted_units(modality)),
            f"Say what they are: {declaration(given.variables, 'units', modality.units)}",
        )  # fmt: skip
    done = "" if found == type(found)() else f", converted to {modality.units}"
    return Check(name, "units", "ok", given.units + done, "")


def _grid(given: ModalityInput) -> Iterator[Check]:
    grid = given.grid
    regular = regularly(grid) if grid.irregularity is not None else ""
    yield from check_place(given.title, grid, RESOLUTION, "as the models were trained", ALIGN, regular)


def _together(inputs: list[ModalityInput]) -> Iterator[Check]:
    for given in inputs[1:]:
        first = inputs[0]
        how = given.grid.same_as(first.grid)
        name = given.title
        if how is None:
            yield Check(name, "alignment", "ok", f"on the grid of {first.title}", "")
        else:
            yield Check(
                name, "alignment.modalities", "error", f"another grid than {first.title} ({how})",
                "all modalities on one grid",
                ALIGN,
            )  # fmt: skip

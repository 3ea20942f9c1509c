"""Which inputs of a call are tokens, and which are pixels. Reads no pixel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr

from terramind_xr.data import Names, Request, as_dataset, held, lookup
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import modalities

Raster = xr.DataArray | xr.Dataset
Inputs = str | Sequence[str] | Mapping[str, Request | Raster] | None


class Given(NamedTuple):
    """The inputs of a call: what to find among pixels, and the token rasters.

    Parameters
    ----------
    pixels
        Dataset without token rasters; None where no input is in pixels.
    names
        What to find in it.
    tokens
        Token rasters as the user has them, not checked yet, by modality.
    """

    pixels: xr.Dataset | None
    names: Names
    tokens: Mapping[str, Raster]


def named_inputs(inputs: Inputs) -> dict[str, Request | Raster]:
    """What is said of each input that is named.

    Raises
    ------
    OptionError
        `inputs` holds no names.
    """
    if isinstance(inputs, xr.DataArray):
        name = inputs.attrs.get("terramind_tokens", "S2L2A")
        raise OptionError(f"inputs is a DataArray; say whose tokens they are: inputs={{{name!r}: tokens}}.")
    if inputs is not None and not isinstance(inputs, Collection):
        raise OptionError(
            f"inputs={inputs!r} cannot be used: expected a modality, several, or a dict of them."
        )
    if inputs is None or isinstance(inputs, str):
        return {} if inputs is None else {inputs: None}
    return (
        {str(name): inputs[name] for name in inputs} if isinstance(inputs, Mapping) else dict.fromkeys(inputs)
    )


def part_inputs(obj: xr.Dataset | xr.DataArray, inputs: Inputs, *, exclude: Collection[str] = ()) -> Given:
    """Part the inputs of a call into pixels and tokens.

    A variable with the attribute ``terramind_tokens`` is a token raster, and so is what stands in `inputs`
    as an array, or as a dataset with one (as a file is opened).

    Parameters
    ----------
    obj, inputs
        As for `terramind_xr.generate`.
    exclude
        Modalities that are no inputs.

    Raises
    ------
    InputError
        A modality is there as pixels and as tokens, or twice as tokens, and nothing says which to use.
    OptionError
        `inputs` cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> tokens = xr.DataArray(np.zeros((4, 4), int), dims=("y", "x"), attrs={"terramind_tokens": "DEM"})
    >>> part_inputs(tokens, None).tokens.keys(), part_inputs(tokens, None).pixels is None
    (dict_keys(['DEM']), True)
    """
    ds = as_dataset(obj)
    own = {str(key): data for key, data in ds.data_vars.items() if "terramind_tokens" in data.attrs}
    pixels = ds.drop_vars(list(own))
    if inputs is None:
        return _unasked(pixels, own, exclude)
    names: dict[str, Any] = {}
    tokens: dict[str, Raster] = {}
    for name, request in named_inputs(inputs).items():
        if isinstance(request, xr.DataArray | xr.Dataset):
            tokens[lookup(name).name] = request
        elif isinstance(request, str) and request in own:
            tokens[lookup(name).name] = own[request]
        elif request is None and (found := _of(name, own)):
            tokens[name] = _only(name, found, pixels)
        elif request is None or isinstance(request, str | Mapping):
            names[name] = request
        else:
            raise OptionError(
                f"inputs: found a {type(request).__name__} for {name}; expected the name of a variable, or "
                "names by band, or None for what is found by itself, or tokens in a DataArray."
            )
    return Given(pixels if names or not tokens else None, names, tokens)


def _unasked(pixels: xr.Dataset, own: Mapping[str, xr.DataArray], exclude: Collection[str]) -> Given:
    """Every modality with a raw input; LULC and NDVI only where the object holds nothing else."""
    said = dict.fromkeys(str(data.attrs["terramind_tokens"]) for data in own.values())
    left = [name for name in said if name not in exclude]
    if said and not left and not pixels.data_vars:
        raise InputError(
            f"{', '.join(own)}: found tokens of {', '.join(said)}, which is to be generated; expected tokens "
            "or pixels of another modality as input."
        )
    in_pixels = {name for name in held(pixels) if modalities[name].raw_key} - {*exclude}
    chosen = [name for name in left if lookup(name).raw_key]
    if not chosen and not in_pixels:
        chosen = left
    tokens = {name: _only(name, _of(name, own), pixels) for name in modalities if name in chosen}
    return Given(pixels if in_pixels or not tokens else None, None, tokens)


def _of(name: str, own: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Token rasters that say they are of a modality."""
    return {key: data for key, data in own.items() if data.attrs["terramind_tokens"] == name}


def _only(name: str, found: Mapping[str, xr.DataArray], pixels: xr.Dataset) -> xr.DataArray:
    """The one token raster of a modality that is there as nothing else."""
    first, *more = found
    if more:
        raise InputError(
            f"{', '.join(found)}: found {len(found)} token rasters of {name}, expected one. Say which: "
            f"inputs={{{name!r}: {first!r}}}."
        )
    if name in held(pixels):
        raise InputError(
            f"{name}: found as pixels and as tokens ({first}), expected one of them. Say which: "
            f"inputs={{{name!r}: {first!r}}} for the tokens, or leave the variable out of the dataset."
        )
    return found[first]

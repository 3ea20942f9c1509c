"""Masks by the name of a variable: Sentinel-2's scene classification, other codes, or booleans."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.layout import ModalityInput
from terramind_xr.errors import OptionError

SCL_HIDDEN = (0, 1, 3, 8, 9, 10)
"""Codes of Sentinel-2's scene classification that are not to be used: no data, saturated or defective, cloud
shadow, cloud of medium and of high probability, thin cirrus (Sentinel-2 Level-2A ATBD, scene classification).
"""

NamedMask = xr.DataArray | str | Sequence[int]
Mask = str | xr.DataArray | Mapping[str, NamedMask] | None


def with_names(
    mask: Mask, ds: xr.Dataset, inputs: Mapping[str, ModalityInput]
) -> xr.DataArray | Mapping[str, xr.DataArray] | None:
    """Masks that were given by the name of a variable, as arrays by input.

    Codes hide the optical inputs alone: radar and relief lie open under clouds.

    Parameters
    ----------
    mask
        ``"SCL"``, ``{"SCL": [8, 9]}`` with the codes that are not to be used, or ``{"S2L2A": "SCL"}``; arrays
        are left as they are. The name of booleans stands for them.
    ds
        What holds the variable.
    inputs
        Of the call.

    Raises
    ------
    OptionError
        There is no such variable, it holds codes of which none are named, or nothing that they could hide.
    """
    if isinstance(mask, str):
        variable = _variable(ds, mask)
        return variable if variable.dtype.kind == "b" else _of_optical(_hidden(variable), mask, inputs)
    if not isinstance(mask, Mapping) or isinstance(mask, xr.Dataset):
        return mask
    found: dict[str, xr.DataArray] = {}
    for key, value in mask.items():
        if isinstance(value, str):
            variable = _variable(ds, value)
            found[key] = variable if variable.dtype.kind == "b" else _hidden(variable)
        elif isinstance(value, list | tuple) and key not in inputs:
            found |= _of_optical(_hidden(_variable(ds, key), value), key, inputs)
        else:
            found[key] = value  # type: ignore[assignment]  # what else it is, matching tells
    return found


def _variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    if name not in ds.variables:
        held = ", ".join(repr(str(each)) for each in ds.data_vars)
        raise OptionError(
            f"mask={name!r}: found no such variable among {held}. Add it, ds[{name!r}] = …, or give an "
            "array: mask=clouds, True where pixels are not to be used."
        )
    return ds[name]


def _hidden(variable: xr.DataArray, codes: Sequence[int] | None = None) -> xr.DataArray:
    """Where a variable holds some of the codes, or nothing."""
    if codes is None:
        if not re.search(r"(^|_)scl$|scene_?classification", str(variable.name).lower()):
            name = str(variable.name)
            raise OptionError(
                f"mask={name!r}: found {variable.dtype} codes, and which of them are not to be used is known "
                f"of Sentinel-2's SCL only. Say which: mask={{{name!r}: [1, 2]}}."
            )
        codes = SCL_HIDDEN
    if variable.dtype.kind not in "iuf" or not all(isinstance(each, int | np.integer) for each in codes):
        raise OptionError(
            f"mask={{{str(variable.name)!r}: {list(codes)}}}: found {variable.dtype} and such codes, "
            "expected numbers and a list of whole numbers."
        )
    if not variable.variable._in_memory and variable.chunks is None:
        variable = variable.chunk("auto")  # comparing would read it
    hidden = variable.isin(list(codes))
    return (hidden | variable.isnull() if variable.dtype.kind == "f" else hidden).rename(variable.name)


def _of_optical(
    hidden: xr.DataArray, name: str, inputs: Mapping[str, ModalityInput]
) -> dict[str, xr.DataArray]:
    optical = [key for key, each in inputs.items() if each.modality.is_optical or key == "RGB"]
    if not optical:
        found = f"{', '.join(inputs)}, of which none is optical, and clouds hide no other"
        line = f"mask={{{next(iter(inputs), 'S1RTC')!r}: {name!r}}}"
        remedy = f"To hide them all the same, name them: {line}."
        raise Check(f"mask={name!r}", "mask.inputs", "error", found, "an optical one", remedy).as_error()
    return dict.fromkeys(optical, hidden)

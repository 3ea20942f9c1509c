"""Masks of pixels that are not to be used, laid on the data by their coordinates, never by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data.check import Check
from terramind_xr.data.labels import band_dim
from terramind_xr.data.layout import ModalityInput, listed
from terramind_xr.errors import InputError
from terramind_xr.grid import Grid


def match_masks(
    mask: xr.DataArray | Mapping[str, xr.DataArray] | None, inputs: Mapping[str, ModalityInput]
) -> dict[str, xr.DataArray]:
    """Mask of each input that has one, on the grid and the dates of the input.

    Parameters
    ----------
    mask
        One for all inputs, or one by input; True (or 1) where pixels are not to be used. Dims are
        those of the input without its bands, in any order; without time it holds for every date. It may
        run the other way, and cover more pixels and dates than the data.
    inputs
        Inputs of the call.

    Returns
    -------
    dict
        The masks, lazy where they were not in memory.

    Raises
    ------
    InputError
        With every mask that does not match, and how. A lazy mask of other integers than 0 and 1 raises it
        in the block that meets them.
    """
    if mask is None:
        return {}
    if isinstance(mask, xr.Dataset) and not mask.data_vars.keys() <= inputs.keys():
        names, first = [str(name) for name in mask.data_vars] or ["nothing"], next(iter(inputs), "S2L2A")
        raise _fault(
            "mask", "mask.type", f"a Dataset of {', '.join(names)}", "a DataArray",
            f"Use one variable: mask=ds_mask[{names[0]!r}], or one for each input: mask={{{first!r}: …}}.",
        )  # fmt: skip
    masks = dict(mask) if isinstance(mask, Mapping) else dict.fromkeys(inputs, mask)
    matched: dict[str, xr.DataArray] = {}
    faults: dict[str, str] = {}
    for name, each in masks.items():
        try:
            if name not in inputs:
                raise _fault(
                    "mask", "mask.inputs", f"one for {name!r}", f"one for inputs: {', '.join(inputs)}",
                    f"Leave it out, or use it as an input: inputs=[…, {name!r}].",
                )  # fmt: skip
            matched[name] = _matched(each, inputs[name])
        except InputError as error:
            faults |= zip(error.faults, error.kinds, strict=True)
    if faults:
        raise InputError(list(faults), list(faults.values()))
    return matched


def _fault(title: str, kind: str, found: str, expected: str, remedy: str) -> InputError:
    return Check(title, kind, "error", found, expected, remedy).as_error()


def _matched(mask: xr.DataArray, given: ModalityInput) -> xr.DataArray:
    title, name = f"mask of {given.modality.name}", given.title
    if not isinstance(mask, xr.DataArray):
        places = f"{given.y_dim!r}: ds.{given.y_dim}, {given.x_dim!r}: ds.{given.x_dim}"
        raise _fault(
            title, "mask.type", f"a {type(mask).__name__}", f"a DataArray on the grid of {name}",
            f"Give it the coordinates of the data: xr.DataArray(mask, coords={{{places}}}).",
        )  # fmt: skip
    if mask.dtype.kind not in "bui":
        raise _fault(
            title, "mask.codes", f"{mask.dtype}", "booleans (True is not used)",
            "Convert it: mask > 0, or mask.astype(bool).",
        )  # fmt: skip
    spatial = given.grid.dims
    layers = band_dim(mask, spatial)
    if layers is not None and mask.sizes[layers] == 1:
        mask = mask.isel({layers: 0}, drop=True)
    elif layers is not None:
        raise _fault(
            title, "mask.dimensions", f"{mask.sizes[layers]} layers along {layers!r}", "one for all bands",
            f"Put them together: mask.any({layers!r}).",
        )  # fmt: skip
    grid = Grid.find(mask)
    if grid is None or grid.dims != spatial:
        raise _fault(
            title, "mask.dimensions", f"dims {tuple(map(str, mask.dims))}",
            f"those of the grid of {name}, {spatial}",
            f"Rename them, or lay it on the grid of the data: {_aligned(mask, given)}.",
        )  # fmt: skip
    for dim in mask.dims:
        if dim not in given.data.dims:
            own = tuple(str(each) for each in given.data.dims if each != "band")
            raise _fault(
                title, "mask.dimensions", f"dim {str(dim)!r}, which {name} does not have", f"some of {own}",
                f"Select one, mask.isel({dim}=0), or put them together, mask.any({str(dim)!r}).",
            )  # fmt: skip
    for dim in map(str, given.data.dims):
        if dim in mask.coords and mask[dim].ndim == 0 and dim != "band" and given.data.sizes[dim] > 1:
            raise _fault(
                title, "mask.places", f"one {dim}, {mask[dim].values}",
                f"the {given.data.sizes[dim]} of {name}",
                f"To use it for every {dim}: mask.drop_vars({dim!r}); else give it one for each.",
            )  # fmt: skip
    here, there = given.grid.crs, grid.crs  # one that cannot be read is None, and a finding of its own
    if here is not None and there is not None and here != there:
        raise _fault(
            title, "mask.grid", f"CRS {there}", f"{here}, that of {name}",
            f"Lay it on the grid of the data: {_aligned(mask, given)}.",
        )  # fmt: skip
    # Indexing what is lazily indexed by arrays would read it; and nothing is read at the call.
    if not mask.variable._in_memory and mask.chunks is None:
        mask = mask.chunk("auto")
    for dim in mask.dims:
        places = _places(mask, given, str(dim), title)
        mask = mask.isel({dim: _as_slice(places)})
    if mask.dtype.kind == "b":
        return mask
    told = f"{title}: {mask.name!r}" if mask.name is not None else title
    if mask.chunks is None:
        return mask.copy(data=_as_booleans(mask.values, told))
    return mask.copy(data=mask.data.map_blocks(_as_booleans, told, dtype=bool, meta=np.empty(0, bool)))


def _aligned(mask: xr.DataArray, given: ModalityInput) -> str:
    """The line that lays a mask on the grid of the data; what it does not cover is not used."""
    booleans = "mask" if mask.dtype.kind == "b" else "mask.astype(bool)"
    return f"mask = ~(~{booleans}).terramind.align(ds[{given.variables[0]!r}])"


def _as_booleans(values: NDArray[Any], told: str) -> NDArray[np.bool_]:
    """Booleans of 0 and 1; other numbers are codes, of which only the user knows which are not to be used."""
    codes = np.unique(values[(values != 0) & (values != 1)])
    if codes.size:
        raise _fault(
            told, "mask.codes", listed(codes, 12), "only 0 and 1 (not used) or booleans",
            "Say which codes are not to be used: mask.isin([3, 8, 9, 10]) for cloud and its shadow in "
            "Sentinel-2's SCL, or mask > 0 for all but 0.",
        )  # fmt: skip
    return values.astype(bool)


def _places(mask: xr.DataArray, given: ModalityInput, dim: str, title: str) -> NDArray[np.intp]:
    """Where along `dim` the mask holds each place of the data."""
    data, axis = given.data, given.grid.axes.get(dim)
    wanted, size, found = dim in data.coords, data.sizes[dim], dim in mask.coords
    if wanted != found:
        bare = [
            str(each) for each in mask.dims if (each in data.coords, each in mask.coords) == (wanted, found)
        ]
        lines = {
            True: f"mask.assign_coords({', '.join(f'{each}=ds.{each}' for each in bare)})",
            False: f"ds = ds.assign_coords({', '.join(f'{each}=mask.{each}' for each in bare)})",
        }
        raise _fault(
            title, "mask.places",
            f"{dim!r} has coordinates in the {'data' if wanted else 'mask'} only, so that the places cannot "
            "be compared", "them in both", f"Assign them: {lines[wanted]}.",
        )  # fmt: skip
    if not wanted:
        if mask.sizes[dim] != size:
            raise _fault(
                title, "mask.places", f"{mask.sizes[dim]} places along {dim!r}", f"{size}, those of the grid",
                "Give both coordinates, or a mask of the same shape.",
            )  # fmt: skip
        return np.arange(size)
    here, there = data[dim].variable.to_index(), mask[dim].variable.to_index()
    if here.equals(there):  # also where they occur twice, as two acquisitions of one time
        return np.arange(size)
    if not there.is_unique:
        raise _fault(
            title, "mask.places", f"coordinates along {dim!r} occur twice", "each once",
            f"Select one of each: mask.drop_duplicates({dim!r}).",
        )  # fmt: skip
    if axis is not None and there.dtype.kind in "iuf":
        places = _nearest(here, there, axis.tolerance)
    else:
        places = there.get_indexer(here)
    missing = here[places < 0]
    if len(missing):
        raise _fault(
            title, "mask.places" if axis is None else "mask.grid",
            f"no {dim} {listed(missing, 3)} (it has {there[0]} to {there[-1]})",
            "every one of the data",
            "Add what is missing, or select the dates of the data that have a mask." if axis is None
            else f"Lay it on the grid of the data: {_nearest_pixels(mask, given)}.",
        )  # fmt: skip
    return np.asarray(places)


def _nearest_pixels(mask: xr.DataArray, given: ModalityInput) -> str:
    """The same where coordinates alone are compared, with or without a CRS."""
    places = ", ".join(f"{dim}=ds.{dim}" for dim in given.grid.dims)
    step = max((abs(axis.step or 0.0) for axis in Grid.of(mask).axes.values()), default=0.0)
    return f'mask.reindex({places}, method="nearest", tolerance={0.501 * step:g}, fill_value=True)'


def _nearest(here: pd.Index, there: pd.Index, tolerance: float) -> NDArray[np.intp]:
    """Places of the nearest coordinates within the tolerance; -1 where there are none."""
    values = np.asarray(here, dtype=np.float64)
    order = np.argsort(np.asarray(there))
    places = pd.Index(np.asarray(there, dtype=np.float64)[order]).get_indexer(
        values, method="nearest", tolerance=tolerance
    )
    return np.where(places < 0, -1, order[places])


def _as_slice(places: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Slice for equal steps: it keeps the chunks of a lazy mask, where an index array need not."""
    steps = np.unique(np.diff(places))
    if steps.size > 1:
        return places
    step = int(steps[0]) if steps.size else 1
    stop = int(places[-1]) + (1 if step > 0 else -1)
    return slice(int(places[0]), stop if stop >= 0 else None, step)

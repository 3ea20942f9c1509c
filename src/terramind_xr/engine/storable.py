"""Datasets as Zarr takes them: no Python objects, equal chunks, and no encoding of another format."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.conventions import group_attributes
from terramind_xr.errors import InputError, warn

# How values are packed. All else in an encoding (chunks, compressors, filters) belongs to the file that the
# data came from, often of another format.
_PACKING = frozenset(
    {"dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "units", "calendar",
     "grid_mapping", "coordinates"}
)  # fmt: skip


def check_storable(ds: xr.Dataset) -> None:
    """Raise InputError for what Zarr has neither a key nor a type for, before anything is touched."""
    for name in ds.variables:
        # Each "/" would begin a group in the store, and "." is the store itself.
        if not isinstance(name, str) or "/" in name or not name.strip("."):
            raise InputError(
                f"A variable is named {name!r}, which cannot be a key in a Zarr store; expected text without "
                f"'/'. Rename it: da.rename('map'), or ds.rename({{{name!r}: 'map'}})."
            )
    for name, index in ds.xindexes.items():
        if isinstance(index, xr.indexes.PandasMultiIndex):
            raise InputError(
                f"{index.dim!r} has an index of several coordinates, {name!r} among them, which Zarr cannot "
                f"hold; expected a coordinate for each. Take it apart: ds.reset_index({index.dim!r}). Read "
                "again, ds.set_index puts it together."
            )


def storable(ds: xr.Dataset) -> xr.Dataset:
    """With what Zarr has no type for as text, in chunks that it takes, and described by its conventions."""
    ds = _in_equal_chunks(_with_plain_attributes(_without_objects(ds)))
    return ds.assign_attrs(group_attributes(ds))


def _without_objects(ds: xr.Dataset) -> xr.Dataset:
    """With what Zarr has no type for as text: Python objects, as STAC loaders leave them, as JSON."""
    ds, converted, left = ds.copy(), [], []
    for name, variable in ds.variables.items():
        if variable.dtype.kind not in "OU" or (variable.chunks is not None and name in ds.data_vars):
            continue
        is_lazy = variable.chunks is not None
        objects = (variable.compute(scheduler="synchronous") if is_lazy else variable).astype(object)
        # Text of fixed width has no specification in Zarr 3.
        objects.encoding = {key: value for key, value in variable.encoding.items() if key != "dtype"}
        if not _is_of_one_kind(objects.values):
            try:
                texts = [json.dumps(each, default=_plain) for each in objects.values.ravel()]
            except (TypeError, ValueError):
                if name in ds.data_vars:
                    raise InputError(
                        f"{name!r} holds Python objects, expected numbers or text. Leave it out: "
                        f"ds.drop_vars({name!r})."
                    ) from None
                left.append(name)
                continue
            objects.values = np.array([*texts, None], dtype=object)[:-1].reshape(objects.shape)
            converted.append(name)
        elif variable.dtype.kind == "O" and not is_lazy:
            continue
        ds[name] = objects
    for names, done in ((converted, "written as JSON text"), (left, "left out")):
        if names:
            warn(
                f"Coordinates of Python objects, which Zarr cannot hold, are {done}: "
                f"{', '.join(map(str, names))}. Drop them if they are of no use: ds.drop_vars({names})."
            )
    return ds.drop_vars(left)


def _with_plain_attributes(ds: xr.Dataset) -> xr.Dataset:
    """With attributes that JSON can hold: dates and their like as text; other objects are left out."""
    ds = ds.copy()
    converted: list[str] = []
    left: list[str] = []
    for of, owner in (("the dataset", ds), *((repr(name), ds[name]) for name in ds.variables)):
        plain = dict(owner.attrs)
        for key, value in owner.attrs.items():
            try:
                json.dumps(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)
            except (TypeError, ValueError):
                try:
                    plain[key] = json.loads(json.dumps(value, default=_plain))
                    converted.append(f"{key!r} of {of}")
                except (TypeError, ValueError):
                    del plain[key]
                    left.append(f"{key!r} of {of}")
        owner.attrs = plain
    for names, done in ((converted, "written as text"), (left, "left out")):
        if names:
            warn(
                f"Attributes of Python objects, which Zarr cannot hold, are {done}: {', '.join(names)}. Drop "
                f"them if they are of no use: attrs.pop({names[0].split(' of ')[0]})."
            )
    return ds


_STORED = frozenset(
    {"string", "bytes", "boolean", "integer", "floating", "mixed-integer-float", "datetime", "datetime64",
     "timedelta", "timedelta64", "empty"}
)  # fmt: skip
"""What pandas calls arrays of objects that xarray stores as they are."""


def _is_of_one_kind(values: NDArray[Any]) -> bool:
    """Whether xarray stores these objects as they are: text, numbers or times, but no mixture of them."""
    is_cftime = values.size > 0 and all(hasattr(each, "calendar") for each in values.flat)
    return is_cftime or pd.api.types.infer_dtype(values.ravel(), skipna=True) in _STORED


def _plain(value: Any) -> Any:
    """What JSON knows no name for, as what it knows."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, datetime.date | np.datetime64):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _in_equal_chunks(ds: xr.Dataset) -> xr.Dataset:
    """With chunks that Zarr takes (equal, the last one may be smaller), and encodings of values alone."""
    ds = ds.copy()
    for name, variable in ds.variables.items():
        if variable.chunks is not None and any(_uneven(sizes) for sizes in variable.chunks):
            ds[name] = in_chunks(variable, chunk_sizes(variable))
        ds[name].encoding = {key: value for key, value in variable.encoding.items() if key in _PACKING}
    ds.encoding = {}
    return ds


def _uneven(sizes: tuple[int, ...]) -> bool:
    return any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]


def chunk_sizes(variable: xr.Variable) -> list[int]:
    """Largest chunk of a lazy variable along each axis."""
    return [max(sizes) for sizes in variable.chunks or ()]


def in_chunks(variable: xr.Variable, sizes: Sequence[int]) -> xr.Variable:
    """Lazy variable in chunks of equal sizes, the last ones smaller."""
    # Directly and by tasks: the way over larger chunks, or over disk, would hold the whole scene.
    return variable.copy(data=variable.data.rechunk(tuple(sizes), threshold=1e9, method="tasks"))

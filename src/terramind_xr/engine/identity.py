"""What a stored object is made of, in words and digests, so that a later call can tell the same run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from terramind_xr.engine.faults import unreadable
from terramind_xr.engine.graph import Source
from terramind_xr.engine.kernel import Kernel
from terramind_xr.engine.tiling import Tiling
from terramind_xr.errors import TerramindError

ORIGIN = "terramind_origin"
"""Where a lazy result has its `Origin`, in its encoding."""

POSITIONS = 64
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)

Identity = dict[str, Any]
"""What is compared, by words that name it: plain JSON."""


@dataclass(frozen=True)
class Origin:
    """How a lazy result came about: the plan, and the names of the arrays that it reads. It holds no graph.

    Parameters
    ----------
    array
        Name of the result's dask array: what was derived from it has another one.
    plan
        All that decides the result besides the inputs, by name.
    sources
        Of each input its name, and name, chunks and dtype of its dask array.
    """

    array: str
    plan: dict[str, Any]
    sources: tuple[tuple[str, str, tuple[tuple[int, ...], ...], Any], ...]

    @classmethod
    def of(
        cls, array: da.Array, sources: Sequence[Source], kernel: Kernel, tiling: Tiling, batch_size: int
    ) -> Origin:
        """Origin of an array that `map_tiles` has given, as a user gets it (turned, say)."""
        parts = {"kernel": type(kernel).__name__, "options": kernel, "tiling": tiling}
        plan = dict(_leaves("", parts)) | {"batch_size": batch_size}
        arrays = ((source.name, source.array) for source in sources)
        return cls(
            array.name, plan, tuple((name, each.name, each.chunks, each.dtype) for name, each in arrays)
        )

    def reads_from(self, array: Any) -> bool:
        """Whether an array is that very result, with its inputs still in the graph (not persisted)."""
        if not isinstance(array, da.Array) or array.name != self.array:
            return False
        layers = getattr(array.dask, "layers", {})
        return all(name in layers for _, name, _, _ in self.sources)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Plain values within a nested value, by their path; what is neither plain nor nested as a digest."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {
            each.name: getattr(value, each.name)
            for each in dataclasses.fields(value)
            if each.metadata.get("identity", True)
        }
    elif isinstance(value, Mapping):
        parts = {str(key): each for key, each in value.items()}
    elif isinstance(value, tuple | list):
        parts = {str(number): each for number, each in enumerate(value)}
    else:
        is_plain = value is None or isinstance(value, str | int | float)
        yield name, value if is_plain else f"digest {tokenize(value)}"
        return
    for key, each in parts.items():
        yield from _leaves(f"{name}.{key}" if name else key, each)


def origins_of(ds: xr.Dataset) -> dict[Hashable, tuple[Origin, da.Array]]:
    """Results of ours among the variables, untouched, with their arrays."""
    found = {}
    for name, variable in ds.variables.items():
        origin = variable.encoding.get(ORIGIN)
        # `_data`: what is not loaded yet stays so.
        if isinstance(origin, Origin) and variable.chunks is not None and origin.reads_from(variable.data):
            found[name] = origin, variable.data
    return found


def identity(
    ds: xr.Dataset, lazy: Collection[Hashable], origins: Mapping[Hashable, tuple[Origin, da.Array]]
) -> Identity:
    """All that makes a dataset another one, chunks left out, by words that name it.

    Names, dims, shapes, dtypes, encodings and attributes; the values of what is in memory, coordinates above
    all; and of our own results the plan, and shape, dtype and raw values at fixed positions of each input.

    Parameters
    ----------
    ds
        As it is going to be stored.
    lazy
        Variables whose values are not to be looked at.
    origins
        As `origins_of` gives them.
    """
    found: dict[str, Any] = {f"attribute {key}": value for key, value in ds.attrs.items()}
    for name, variable in ds.variables.items():
        of = f" of {str(name)!r}"
        found |= {"dims" + of: variable.dims, "shape" + of: variable.shape, "dtype" + of: str(variable.dtype)}
        found |= {f"attribute {key}{of}": value for key, value in variable.attrs.items()}
        found |= {f"encoding {key}{of}": value for key, value in variable.encoding.items()}
        if name not in lazy:
            found["values" + of] = digest(variable.values)
    for name, (origin, _) in origins.items():
        found[f"untouched result {str(name)!r}"] = True
        found |= {f"option {key} of {str(name)!r}": value for key, value in origin.plan.items()}
    found |= _inputs(origins)
    plain: Identity = json.loads(json.dumps(found, default=_plain))
    return plain


def _inputs(origins: Mapping[Hashable, tuple[Origin, da.Array]]) -> dict[str, Any]:
    """Shape, dtype and digest of the samples of each input of each result."""
    found: dict[str, Any] = {}
    samples: dict[str, da.Array] = {}  # by the name of the input's array: results may share it
    for name, (origin, result) in origins.items():
        for number, (title, array, chunks, dtype) in enumerate(origin.sources, 1):
            of = f" of input {number} ({title}) of {str(name)!r}"
            source = da.Array(result.dask, array, chunks, dtype=dtype)
            found |= {"shape" + of: source.shape, "dtype" + of: str(dtype), "values" + of: array}
            if array not in samples and source.size:
                samples[array] = source.vindex[positions(source.shape)]
    try:
        (values,) = dask.compute(samples)
    except Exception:
        _tell_unreadable(origins)
        raise
    digests = {name: digest(np.asarray(each)) for name, each in values.items()}
    return {
        key: digests.get(each, "none") if key.startswith("values") else each for key, each in found.items()
    }


def _tell_unreadable(origins: Mapping[Hashable, tuple[Origin, da.Array]]) -> None:
    """Raise InputError for the first sample that cannot be read."""
    for origin, result in origins.values():
        for title, array, chunks, dtype in origin.sources:
            source = da.Array(result.dask, array, chunks, dtype=dtype)
            for at in zip(*positions(source.shape), strict=True) if source.size else ():
                try:
                    source[at].compute()
                except TerramindError:
                    raise
                except Exception as error:
                    raise unreadable(f"{title}[{', '.join(map(str, at))}]", error) from error


def positions(shape: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
    """Fixed positions, well spread over an array of any shape: one index array an axis."""
    number = np.arange(1, POSITIONS + 1)
    roots = [np.sqrt(_PRIMES[axis % len(_PRIMES)]) for axis in range(len(shape))]
    return tuple(
        np.minimum((number * root % 1 * size).astype(np.int64), size - 1)
        for root, size in zip(roots, shape, strict=True)
    )


def digest(values: NDArray[Any]) -> str:
    """Digest of values that is the same however they were stored in between."""
    if values.dtype.kind in "fc":
        # One NaN and one zero: a chunk of nothing else is not stored, but read as its fill value.
        values = np.where(np.isnan(values), values.dtype.type(np.nan), values + values.dtype.type(0))
    if values.dtype.kind in "biufcmM":
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    else:
        data = json.dumps(values.tolist(), default=_plain).encode()
    return hashlib.sha256(data).hexdigest()[:32]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def differences(ours: Identity, theirs: Identity) -> list[str]:
    """What one holds and the other does not, in words."""
    return [
        f"{key}{_told(ours, key)} (in the store{_told(theirs, key) or ' another'})"
        for key in dict.fromkeys([*ours, *theirs])
        if _text(ours, key) != _text(theirs, key)
    ]


def _text(found: Identity, key: str) -> str:
    # As text: NaN is not equal to itself.
    return json.dumps(found[key], sort_keys=True) if key in found else ""


def _told(found: Identity, key: str) -> str:
    """The value, where it says something to a reader."""
    if key not in found:
        return " none"
    return "" if key.startswith("values") else f" {found[key]!r}"

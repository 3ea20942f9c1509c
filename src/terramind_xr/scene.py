"""What every call starts from: checked inputs, north up, with masks and offsets on their grid."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from terramind_xr.data import Mask, ModalityInput, Names, Offset, as_dataset, examine, match_masks
from terramind_xr.data.units import conversion
from terramind_xr.engine import Source, Tiling
from terramind_xr.errors import warn
from terramind_xr.grid import Grid
from terramind_xr.kernels import KernelInput
from terramind_xr.options import get_options


@dataclass(frozen=True)
class Scene:
    """Inputs that passed every check, as the model sees them.

    Parameters
    ----------
    inputs
        By modality, north up and west left.
    offsets
        Number within the digital numbers of each Sentinel-2 input; along the extra dims where dates differ.
    masks
        Pixels not to be used, by modality, matched to the inputs.
    given
        The first input as the user has it, for the coordinates of results.
    flipped
        Spatial dims that run the other way in `given`.
    check
        Whether blocks check that the numbers can be what they are taken for.
    """

    inputs: dict[str, ModalityInput]
    offsets: dict[str, Offset]
    masks: dict[str, xr.DataArray]
    given: ModalityInput
    flipped: tuple[str, ...]
    check: bool

    cell: ClassVar[int] = 1

    @classmethod
    def of(
        cls,
        obj: xr.Dataset | xr.DataArray,
        inputs: Names,
        *,
        exclude: Collection[str] = (),
        offset: str | Offset = "auto",
        mask: Mask = None,
    ) -> Scene:
        """Find and check the inputs by their metadata; every fault comes in one error.

        Parameters
        ----------
        obj, inputs, offset, mask
            As for `terramind_xr.generate`.
        exclude
            Modalities that are no inputs.

        Raises
        ------
        InputError
            With all faults and their remedies.
        OptionError
            `inputs` or `offset` cannot be used.
        """
        examined = examine(as_dataset(obj), inputs, exclude=exclude, offset=offset)
        examined.report.raise_for_errors()
        for check in examined.report.warnings:
            warn(str(check))
        given = next(iter(examined.inputs.values()))
        flipped = given.grid.runs_backwards
        upright = {
            name: replace(each, data=each.data.isel(dict.fromkeys(flipped, slice(None, None, -1))))
            for name, each in examined.inputs.items()
        }
        return cls(
            upright, examined.offsets, match_masks(mask, upright), given, flipped, get_options().check_values
        )

    @property
    def like(self) -> xr.DataArray:
        """What the user gave, for the coordinates of results."""
        return self.given.data

    @property
    def grid(self) -> Grid:
        """Where the pixels lie, in the user's orientation."""
        return self.given.grid

    @functools.cached_property
    def extra(self) -> dict[str, xr.DataArray]:
        """Coordinates of all dims that are neither band nor space, by dim, in order of appearance."""
        extra: dict[str, xr.DataArray] = {}
        for each in self.inputs.values():
            for dim in each.data.dims:
                if dim not in ("band", each.y_dim, each.x_dim):
                    extra.setdefault(str(dim), each.data[dim])
        return extra

    @property
    def is_lazy(self) -> bool:
        """Whether any input is dask-backed."""
        return any(dask.is_dask_collection(each.data.data) for each in self.inputs.values())

    def kernel_inputs(self) -> tuple[KernelInput, ...]:
        """How a kernel reads each input."""
        return tuple(
            KernelInput(
                name,
                conversion(each.modality, each.units),
                None if isinstance(offset := self.offsets.get(name, 0.0), xr.DataArray) else offset,
                each.nodata,
                name in self.masks,
                self.check,
                each.variables,
            )
            for name, each in self.inputs.items()
        )

    def sources(self, tiling: Tiling) -> list[Source]:
        """Arrays of the graph, in the order in which a kernel reads them: data, offsets by date, mask."""
        sources = []
        for name, each in self.inputs.items():
            sources.append(self._source(each.data, each))
            offset = self.offsets.get(name)
            if isinstance(offset, xr.DataArray):
                sources.append(self._by_date(offset, tiling))
            if name in self.masks:
                sources.append(self._source(self.masks[name].expand_dims("band"), each))
        return sources

    def _source(self, data: xr.DataArray, like: ModalityInput) -> Source:
        own = [dim for dim in self.extra if dim in data.dims]
        data = data.transpose(*own, "band", like.y_dim, like.x_dim)
        array = data.data if dask.is_dask_collection(data.data) else da.from_array(data.values, chunks=-1)
        return Source(array, tuple(list(self.extra).index(dim) for dim in own))

    def _by_date(self, offset: xr.DataArray, tiling: Tiling) -> Source:
        """One number a date, spread over the scene in pieces that cost nothing."""
        own = [dim for dim in self.extra if dim in offset.dims]
        values = offset.transpose(*own).values.astype(np.float32)[..., None, None, None]
        pieces = tuple(tuple(np.diff(axis.cuts).tolist()) for axis in (tiling.y, tiling.x))
        chunks = (*((1,) * size for size in values.shape[:-3]), (1,), *pieces)
        array = da.broadcast_to(
            da.from_array(values, chunks=1), (*values.shape[:-2], *self.grid.shape), chunks=chunks
        )
        return Source(array, tuple(list(self.extra).index(dim) for dim in own))

    def provenance(self) -> dict[str, str]:
        """What decides the result besides data, model and options: offsets, masks, checks left out."""
        offsets = {
            name: " ".join(f"{value:g}" for value in np.ravel(np.asarray(offset)))
            for name, offset in self.offsets.items()
        }
        # Masks in memory are known by their content, lazy ones by what they are computed from.
        masks = {name: f"{mask.name} {tokenize(mask.variable)[:16]}" for name, mask in self.masks.items()}
        told = {
            key: "; ".join(f"{name}: {text}" for name, text in texts.items())
            for key, texts in {"offset": offsets, "mask": masks}.items()
            if texts
        }
        return told if self.check else {**told, "check_values": "off"}

    def as_given(self, array: Any) -> Any:
        """Result (…, y, x) of a kernel in the orientation of the user's data."""
        for axis, dim in ((-2, self.given.y_dim), (-1, self.given.x_dim)):
            if dim in self.flipped:
                array = array[(..., slice(None, None, -1), *(slice(None),) * (-1 - axis))]
        return np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array

"""What every call starts from: checked inputs, north up, with masks and offsets on their grid."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from terramind_xr.data import (
    Examined,
    Mask,
    ModalityInput,
    Names,
    Offset,
    as_dataset,
    check_inputs,
    examine,
    match_masks,
)
from terramind_xr.data.units import conversion
from terramind_xr.engine import Source, Tiling
from terramind_xr.errors import InputError, warn
from terramind_xr.grid import Grid
from terramind_xr.kernels import KernelInput
from terramind_xr.options import get_options
from terramind_xr.token_raster import TokenRaster


@dataclass(frozen=True)
class Scene:
    """Inputs that passed every check, as the model sees them.

    Parameters
    ----------
    inputs
        Those in pixels by modality, north up and west left.
    tokens
        Those in tokens by modality, on the patches of the same pixels.
    offsets
        Number within the digital numbers of each Sentinel-2 input; along the extra dims where dates differ.
    masks
        Pixels not to be used, by modality, matched to the inputs.
    given
        The first input as the user has it, for the coordinates of results: in pixels, if any is.
    check
        Whether blocks check that the numbers can be what they are taken for.
    """

    inputs: dict[str, ModalityInput]
    tokens: dict[str, TokenRaster]
    offsets: dict[str, Offset]
    masks: dict[str, xr.DataArray]
    given: ModalityInput | TokenRaster
    check: bool

    @classmethod
    def of(
        cls,
        obj: xr.Dataset | xr.DataArray | None,
        inputs: Names,
        *,
        tokens: Mapping[str, xr.DataArray | xr.Dataset] = MappingProxyType({}),
        exclude: Collection[str] = (),
        offset: str | Offset = "auto",
        mask: Mask = None,
    ) -> Scene:
        """Find and check the inputs by their metadata; every fault comes in one error.

        Parameters
        ----------
        obj, inputs, offset, mask
            As for `terramind_xr.generate`, without tokens; None where nothing is in pixels.
        tokens
            Token rasters by modality.
        exclude
            Modalities that are no inputs.

        Raises
        ------
        InputError
            With all faults and their remedies.
        OptionError
            `inputs` or `offset` cannot be used.
        """
        if obj is None:
            report, offsets = check_inputs({}, offset)
            examined = Examined({}, offsets, report)
        else:
            examined = examine(as_dataset(obj), inputs, exclude=exclude, offset=offset)
        examined.report.raise_for_errors()
        for check in examined.report.warnings:
            warn(str(check))
        upright = {name: _upright(each) for name, each in examined.inputs.items()}
        rasters = _rasters(tokens, next((each.grid for each in upright.values()), None))
        if rasters and mask is not None:
            _refuse_mask_of_tokens(mask, upright, rasters)
        every: tuple[ModalityInput | TokenRaster, ...] = (*examined.inputs.values(), *rasters.values())
        matched = match_masks(mask, upright)
        scene = cls(upright, rasters, examined.offsets, matched, every[0], get_options().check_values)
        faults = [how for raster in rasters.values() if (how := raster.differs_along(scene.extra))]
        if faults:
            raise InputError(faults)
        return scene

    @property
    def like(self) -> xr.DataArray:
        """What the user gave, for the coordinates of results."""
        return self.given.like if isinstance(self.given, TokenRaster) else self.given.data

    @property
    def cell(self) -> int:
        """Pixels along the side of a cell of `like`."""
        return self.given.cell if isinstance(self.given, TokenRaster) else 1

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities of all inputs, in the order in which the encoder reads them."""
        return (*self.inputs, *self.tokens)

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
        for raster in self.tokens.values():
            extra |= {dim: index for dim, index in raster.extra.items() if dim not in extra}
        return extra

    @property
    def is_lazy(self) -> bool:
        """Whether any input is dask-backed."""
        arrays = [each.data for each in self.inputs.values()] + [each.data for each in self.tokens.values()]
        return any(dask.is_dask_collection(array.data) for array in arrays)

    def kernel_inputs(self) -> tuple[KernelInput, ...]:
        """How a kernel reads each input that is in pixels."""
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
        """Arrays of the graph, in the order in which a kernel reads them.

        Of each input in pixels its data, offsets by date, and mask; then the tokens.
        """
        sources = []
        for name, each in self.inputs.items():
            sources.append(self._source(name, each.data, each))
            offset = self.offsets.get(name)
            if isinstance(offset, xr.DataArray):
                sources.append(self._by_date(f"offset of {name}", offset, tiling))
            if name in self.masks:
                mask = self.masks[name].expand_dims("band")
                sources.append(self._source(f"mask of {name}", mask, each))
        return [*sources, *(raster.source(list(self.extra)) for raster in self.tokens.values())]

    def _source(self, name: str, data: xr.DataArray, like: ModalityInput) -> Source:
        own = [dim for dim in self.extra if dim in data.dims]
        data = data.transpose(*own, "band", like.y_dim, like.x_dim)
        array = data.data if dask.is_dask_collection(data.data) else da.from_array(data.values, chunks=-1)
        return Source(array, tuple(list(self.extra).index(dim) for dim in own), name=name)

    def _by_date(self, name: str, offset: xr.DataArray, tiling: Tiling) -> Source:
        """One number a date, spread over the scene in pieces that cost nothing."""
        own = [dim for dim in self.extra if dim in offset.dims]
        values = offset.transpose(*own).values.astype(np.float32)[..., None, None, None]
        pieces = tuple(tuple(np.diff(axis.cuts).tolist()) for axis in (tiling.y, tiling.x))
        chunks = (*((1,) * size for size in values.shape[:-3]), (1,), *pieces)
        array = da.broadcast_to(
            da.from_array(values, chunks=1), (*values.shape[:-2], *self.grid.shape), chunks=chunks
        )
        return Source(array, tuple(list(self.extra).index(dim) for dim in own), name=name)

    def provenance(self) -> dict[str, str]:
        """What decides the result besides data, model and options.

        Offsets, masks, whose tokens there are, and whether checks were left out.
        """
        offsets = {
            name: " ".join(f"{value:g}" for value in np.ravel(np.asarray(offset)))
            for name, offset in self.offsets.items()
        }
        # Masks in memory are known by their content, lazy ones by what they are computed from.
        masks = {name: f"{mask.name} {tokenize(mask.variable)[:16]}" for name, mask in self.masks.items()}
        tokenizers = {name: raster.tokenizer or "not recorded" for name, raster in self.tokens.items()}
        told = {
            key: "; ".join(f"{name}: {text}" for name, text in texts.items())
            for key, texts in {"offset": offsets, "mask": masks, "token_inputs": tokenizers}.items()
            if texts
        }
        return told if self.check else {**told, "check_values": "off"}

    def as_given(self, array: Any) -> Any:
        """Result (…, y, x) of a kernel in the orientation of the user's data."""
        backwards = self.grid.runs_backwards
        for axis, dim in zip((-2, -1), self.grid.dims, strict=True):
            if dim in backwards:
                array = array[(..., slice(None, None, -1), *(slice(None),) * (-1 - axis))]
        return np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array


def _upright(given: ModalityInput) -> ModalityInput:
    """An input north up and west left."""
    turned = dict.fromkeys(given.grid.runs_backwards, slice(None, None, -1))
    return replace(given, data=given.data.isel(turned))


def _rasters(tokens: Mapping[str, xr.DataArray | xr.Dataset], pixels: Grid | None) -> dict[str, TokenRaster]:
    """Checked token rasters on the patches of the same pixels; without any, of those of the first."""
    rasters: dict[str, TokenRaster] = {}
    faults: list[str] = []
    for name, data in tokens.items():
        try:
            rasters[name] = TokenRaster.of(data, name, beside=pixels)
            pixels = rasters[name].upright if pixels is None else pixels
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return rasters


def _refuse_mask_of_tokens(
    mask: Mask, inputs: Mapping[str, ModalityInput], tokens: Mapping[str, TokenRaster]
) -> None:
    """Raise InputError for a mask that is meant for tokens, too."""
    if isinstance(mask, Mapping) and not {*mask} & {*tokens}:
        return
    remedy = f"Give masks by input: mask={{{next(iter(inputs))!r}: …}}. " if inputs else ""
    raise InputError(
        f"mask: found one for {', '.join(tokens)}, which is given as tokens; expected masks of pixels. "
        f"{remedy}Patches of tokens are left out where they hold 65535: tokens.where(~hidden, 65535)."
    )

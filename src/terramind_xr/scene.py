"""What every call starts from: checked inputs, north up, with masks and offsets on their grid."""

from __future__ import annotations

import functools
import itertools
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
    Bands,
    Check,
    Examined,
    Mask,
    ModalityInput,
    Names,
    Offset,
    as_dataset,
    check_inputs,
    examine,
    match_masks,
    with_names,
)
from terramind_xr.data.units import conversion
from terramind_xr.engine import Source, Tiling
from terramind_xr.errors import InputError, warn
from terramind_xr.facts import modalities
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
    along
        Extra dim whose steps a kernel reads at once, as regions of their own; None for none.
    inferred
        Whether pixels were sampled for the offsets.
    """

    inputs: dict[str, ModalityInput]
    tokens: dict[str, TokenRaster]
    offsets: dict[str, Offset]
    masks: dict[str, xr.DataArray]
    given: ModalityInput | TokenRaster
    check: bool
    along: str | None = None
    inferred: bool = False

    @classmethod
    def of(
        cls,
        obj: xr.Dataset | xr.DataArray | None,
        inputs: Names,
        *,
        tokens: Mapping[str, xr.DataArray | xr.Dataset] = MappingProxyType({}),
        exclude: Collection[str] = (),
        bands: Bands = MappingProxyType({}),
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
        bands
            Of some modalities, the bands that are needed, in the order in which they are laid out:
            ``{"S2L2A": ("B02", "B8A")}``.

        Raises
        ------
        InputError
            With all faults and their remedies.
        OptionError
            `inputs`, `bands` or `offset` cannot be used.
        """
        if obj is None:
            report, offsets = check_inputs({}, offset)
            examined = Examined({}, offsets, report)
        else:
            examined = examine(as_dataset(obj), inputs, exclude=exclude, offset=offset, bands=bands)
        examined.report.raise_for_errors()
        for check in examined.report.warnings:
            warn(str(check))
        upright = {name: _upright(each) for name, each in examined.inputs.items()}
        rasters = _rasters(tokens, next((each.grid for each in upright.values()), None))
        if rasters and mask is not None:
            _refuse_mask_of_tokens(mask, upright, rasters)
        every: tuple[ModalityInput | TokenRaster, ...] = (*examined.inputs.values(), *rasters.values())
        pixels = xr.Dataset() if obj is None else as_dataset(obj)
        matched = match_masks(with_names(mask, pixels, upright), upright)
        scene = cls(
            upright, rasters, examined.offsets, matched, every[0], get_options().check_values,
            inferred=isinstance(offset, str) and offset == "infer",
        )  # fmt: skip
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
                if dim not in ("band", each.y_dim, each.x_dim, self.along):
                    extra.setdefault(str(dim), each.data[dim])
        for raster in self.tokens.values():
            extra |= {dim: index for dim, index in raster.extra.items() if dim not in extra}
        return extra

    def used_up(self, dim: str) -> Scene:
        """The same scene for kernels that read all steps of an extra dim at once: results do not have it.

        Raises
        ------
        InputError
            If an input does not have it, or there are tokens.
        """
        lacking = [name for name, each in self.inputs.items() if dim not in each.data.dims]
        if lacking or self.tokens:
            raise InputError(
                [
                    f"{name}: found the dims {', '.join(map(str, self.inputs[name].data.dims))}, expected "
                    f"{dim} among them: the model reads several dates at once. Put the dates side by side, "
                    f"xr.concat([first, second], {dim!r}); what holds for all of them is repeated by "
                    f"expand_dims({dim}=…)."
                    for name in lacking
                ]
                or ["tokens: the model reads several dates at once; expected pixels."]
            )
        return replace(self, along=dim)

    @functools.cached_property
    def steps(self) -> xr.DataArray | None:
        """Coordinate of the dim that is used up; None where none is."""
        return next(iter(self.inputs.values())).data[self.along] if self.along else None

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
                each.modality.band_names if each.modality != modalities[name] else (),
            )
            for name, each in self.inputs.items()
        )

    def sources(self, tiling: Tiling) -> list[Source]:
        """Arrays of the graph, in the order in which a kernel reads them.

        Of each input in pixels its data, offsets by date, and mask; again for each step of a dim that is used
        up. Then the tokens.
        """
        sources = []
        steps = range(1 if self.steps is None else self.steps.size)
        for (name, each), step in itertools.product(self.inputs.items(), steps):
            title = name if self.steps is None else f"{name} {step}"
            sources.append(self._source(title, self._at(step, each.data), each))
            offset = self.offsets.get(name)
            if isinstance(offset, xr.DataArray):
                sources.append(self._by_date(f"offset of {title}", self._at(step, offset), tiling))
            if name in self.masks:
                mask = self._at(step, self.masks[name]).expand_dims("band")
                sources.append(self._source(f"mask of {title}", mask, each))
        return [*sources, *(raster.source(list(self.extra)) for raster in self.tokens.values())]

    def _at(self, step: int, data: xr.DataArray) -> xr.DataArray:
        """One step of the dim that is used up."""
        return data.isel({self.along: step}) if self.along in data.dims else data

    def _source(self, name: str, data: xr.DataArray, like: ModalityInput) -> Source:
        own = [dim for dim in self.extra if dim in data.dims]
        data = data.transpose(*own, "band", like.y_dim, like.x_dim)
        array = data.data if dask.is_dask_collection(data.data) else da.from_array(data.values, chunks=-1)
        return Source(array, tuple(list(self.extra).index(dim) for dim in own), name=name)

    def _by_date(self, name: str, offset: xr.DataArray, tiling: Tiling) -> Source:
        """One number a date, spread over the scene in chunks that cost nothing."""
        own = [dim for dim in self.extra if dim in offset.dims]
        values = offset.transpose(*own).values.astype(np.float32)[..., None, None, None]
        # Of a row of blocks, which a plan counts.
        chunks = (*((1,) * size for size in values.shape[:-3]), (1,), tiling.y.chunks, self.grid.shape[1:])
        array = da.broadcast_to(
            da.from_array(values, chunks=1), (*values.shape[:-2], *self.grid.shape), chunks=chunks
        )
        return Source(array, tuple(list(self.extra).index(dim) for dim in own), name=name)

    def provenance(self) -> dict[str, str]:
        """What decides the result besides data, model and options.

        Offsets, masks, whose tokens there are, dates that are read at once, and whether checks were left out.
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
        if self.inferred and self.offsets:
            told["offset_from"] = "sampled pixels"
        if self.steps is not None:
            told["dates"] = "; ".join(_written(step) for step in self.steps.values)
        return told if self.check else {**told, "check_values": "off"}


def _written(step: Any) -> str:
    """A date to the second, or what else counts the steps of a dim."""
    return str(np.datetime_as_string(step, unit="s")) if isinstance(step, np.datetime64) else str(step)


def _upright(given: ModalityInput) -> ModalityInput:
    """An input north up and west left."""
    return replace(given, data=given.grid.upright(given.data))


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
    found = f"one for {', '.join(tokens)}, which is given as tokens"
    remedy += "Patches of tokens are left out where they hold 65535: tokens.where(~hidden, 65535)."
    raise Check("mask", "mask.inputs", "error", found, "masks of pixels", remedy).as_error()

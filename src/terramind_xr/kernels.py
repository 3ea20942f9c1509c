"""What a block does to its data: raw values to standardised tiles, and predictions to maps.

Kernels join the contract with the data (units, offsets, nodata) to `model`. They are frozen values
that hold no weights, so that dask can name, pickle and compare tasks by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.data.units import Conversion
from terramind_xr.data.values import check_values
from terramind_xr.engine import Field, Layer, Output
from terramind_xr.modalities import PATCH, band_dims, lulc_classes, modalities
from terramind_xr.model import chain
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import standardize

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class KernelInput:
    """How one input is read.

    Parameters
    ----------
    name
        Modality.
    conversion
        From the user's units to the model's.
    offset
        Radiometric offset within Sentinel-2 digital numbers, taken off before the model; None where dates
        differ, and each one's offset follows among the sources.
    nodata
        Value that means no data in any band, besides NaN; None for none.
    masked
        Whether a mask of pixels not to be used follows among the sources.
    check
        Whether blocks check that the numbers can be what they are taken for.
    variables
        The user's variables, for messages.
    """

    name: str
    conversion: Conversion
    offset: float | None = 0.0
    nodata: float | None = None
    masked: bool = False
    check: bool = True
    variables: tuple[str, ...] = ()

    def read(self, raw: NDArray[Any], offset: NDArray[Any] | None = None) -> tuple[NDArray[np.float32], Mask]:
        """Values in model units, offset removed (band, y, x), and where they are valid (y, x)."""
        modality = modalities[self.name]
        values = self.conversion.apply(raw)
        if offset is not None:
            values = values - offset.astype(np.float32)
        elif self.offset:
            values = values - np.float32(self.offset)
        valid = np.asarray(np.isfinite(values).all(axis=0))
        if modality.nodata is not None:
            # One dark band can be 0 by chance; all of them are not.
            valid &= (raw != modality.nodata).any(axis=0)
        if self.nodata not in (None, modality.nodata):
            valid &= (raw != self.nodata).all(axis=0)
        return values, valid

    def layer(self, regions: Iterator[NDArray[Any]]) -> Layer:
        """Standardised values from the next regions, 0 (the band's mean) where not valid."""
        raw = next(regions)
        values, valid = self.read(raw, next(regions) if self.offset is None else None)
        hidden = next(regions)[0].astype(bool) if self.masked else None
        if hidden is not None:
            valid &= ~hidden
        if self.check:  # what a mask hides may be anything
            check_values(self.name, raw, valid, self.conversion, self.variables, hidden)
        values = standardize(modalities[self.name], values)
        if not valid.all():
            values[:, ~valid] = 0
        return Layer(values, valid)


@dataclass(frozen=True)
class GenerateKernel:
    """Generate modalities tile by tile; see `terramind_xr.generate`.

    Parameters
    ----------
    recipe
        Weights, by name and digest.
    inputs
        In the order in which the encoder reads them.
    targets
        Modalities to generate, in order.
    sampling
        How tokens are drawn and decoded.
    execution
        Where the model runs.
    probabilities
        Whether LULC comes as class probabilities.
    offset
        Added to generated Sentinel-2 digital numbers, so that they follow the input's convention.
    """

    recipe: Recipe
    inputs: tuple[KernelInput, ...]
    targets: tuple[str, ...]
    sampling: Sampling
    execution: Execution
    probabilities: bool = False
    offset: float = 0.0

    @property
    def fields(self) -> tuple[Field, ...]:
        """One for each target: its bands, or the probabilities of land-cover classes."""
        return tuple(
            Field(len(lulc_classes) if name == "LULC" else len(modalities[name].bands))
            for name in self.targets
        )

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One for each target."""
        bands = band_dims(self.targets)
        return tuple(
            probabilities_output(index)
            if name == "LULC" and self.probabilities
            else modality_output(name, index, bands.get(name, "band"), self.offset)
            for index, name in enumerate(self.targets)
        )

    def load(self, regions: list[NDArray[Any]]) -> list[Layer]:
        """Standardised inputs, 0 (the band's mean) where not valid."""
        queue = iter(regions)
        return [each.layer(queue) for each in self.inputs]

    def run(
        self, pixels: list[NDArray[np.float32]], valid: list[Mask], places: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Generate a batch of tiles; patches without a valid pixel are hidden from the encoder."""
        names = [each.name for each in self.inputs]
        batch = Batch(
            pixels=dict(zip(names, pixels, strict=True)),
            visible={name: _patches(mask) for name, mask in zip(names, valid, strict=True)},
            places=places,
        )
        generated = chain.generate(self.recipe, batch, self.targets, self.sampling, self.execution)
        return [generated[name] for name in self.targets]

    def finish(self, index: int, merged: NDArray[np.float64], valid: Mask) -> NDArray[Any]:
        """Maps in physical units; NaN, or class 0, where no input is valid."""
        return finish_modality(self.targets[index], merged, valid, self.offset, self.probabilities)


def finish_modality(
    name: str, merged: NDArray[np.float64], valid: Mask, offset: float, probabilities: bool
) -> NDArray[Any]:
    """Array of a modality ([band,] y, x) from its blended field: codes of LULC, units of the others."""
    modality = modalities[name]
    if name == "LULC" and not probabilities:
        return np.where(valid, merged.argmax(axis=0).astype(np.uint8), np.uint8(0))
    values = merged.astype(np.float32)
    if modality.is_optical:
        values += np.float32(offset)
    if modality.limits is not None:
        values = values.clip(*modality.limits)
    values[:, ~valid] = np.nan
    return values if len(values) > 1 else values[0]


def modality_output(name: str, field: int, band_dim: str = "band", offset: float = 0.0) -> Output:
    """Describe an array of a modality: codes of LULC, physical units of the others."""
    modality = modalities[name]
    banded = len(modality.bands) > 1
    attrs = {**modality.attributes, "modality": name}
    return Output(
        name,
        field,
        pixel=(len(modality.bands),) if banded else (),
        dtype=modality.dtype,
        dims=(band_dim,) if banded else (),
        coords={band_dim: list(modality.band_names)} if banded else {},
        attrs={**attrs, "boa_add_offset": -offset} if modality.is_optical else attrs,
    )


def probabilities_output(field: int) -> Output:
    """Describe the probabilities of the land-cover classes."""
    names = [each.name for each in lulc_classes]
    attrs = {**modalities["LULC"].attributes, "modality": "LULC"}
    attrs["long_name"] = "probability of each land-cover class"
    del attrs["standard_name"]
    dim = "lulc_class"
    return Output("LULC", field, (len(names),), "float32", (dim,), {dim: names}, attrs)


def _patches(valid: Mask) -> Mask:
    """Patches (tile, row, column) that hold a valid pixel."""
    tiles, height, width = valid.shape
    patches = valid.reshape(tiles, height // PATCH, PATCH, width // PATCH, PATCH)
    return np.asarray(patches.any(axis=(2, 4)))

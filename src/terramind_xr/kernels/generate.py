"""The kernel of `generate`: pixels or tokens of some modalities to pixels of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine import Field, Layer, Output
from terramind_xr.facts import PATCH, TILE, band_dims
from terramind_xr.georeference import Georeference
from terramind_xr.kernels.describe import (
    coordinates_output,
    finish_modality,
    modality_field,
    modality_output,
    probabilities_output,
)
from terramind_xr.kernels.reading import KernelInput, Mask, TokenInput, in_patches
from terramind_xr.model import chain
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.footprint import Footprint
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling


@dataclass(frozen=True)
class GenerateKernel:
    """Generate modalities tile by tile; see `terramind_xr.generate`.

    Parameters
    ----------
    recipe
        Weights, by name and digest.
    inputs
        In the order in which the encoder reads them; those in pixels stand before those in tokens.
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
    georeference
        Where the scene lies, if the places of its tiles are an input.
    """

    recipe: Recipe
    inputs: tuple[KernelInput | TokenInput, ...]
    targets: tuple[str, ...]
    sampling: Sampling
    execution: Execution
    probabilities: bool = False
    offset: float = 0.0
    georeference: Georeference | None = None

    @property
    def fields(self) -> tuple[Field, ...]:
        """One for each target: its bands, the probabilities of land-cover classes, or a place."""
        return tuple(modality_field(name) for name in self.targets)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One for each target."""
        bands = band_dims(name for name in self.targets if name != "Coordinates")

        def output(index: int, name: str) -> Output:
            if name == "Coordinates":
                return coordinates_output(index)
            if name == "LULC" and self.probabilities:
                return probabilities_output(index)
            return modality_output(name, index, bands.get(name, "band"), self.offset)

        return tuple(output(index, name) for index, name in enumerate(self.targets))

    @property
    def footprint(self) -> Footprint:
        """Memory beside the blocks."""
        read = len(self.inputs) + (self.georeference is not None)
        return Footprint.of(self.recipe, read=read, decoded=self.targets)

    def load(self, regions: list[NDArray[Any]]) -> list[Layer]:
        """Standardised inputs, 0 (the band's mean) where not valid; tokens as they are."""
        queue = iter(regions)
        return [each.layer(queue) for each in self.inputs]

    def run(
        self, values: list[NDArray[Any]], valid: list[Mask], places: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Generate a batch of tiles."""
        batch = self.batch(values, valid, places)
        generated = chain.generate(self.recipe, batch, self.targets, self.sampling, self.execution)
        return [generated[name] for name in self.targets]

    def trial(self, tiles: int) -> tuple[list[NDArray[Any]], list[Mask], NDArray[np.int64]]:
        """Some tiles for `run` whose numbers mean nothing: for measurements."""
        rng, values = np.random.default_rng(0), list[NDArray[Any]]()
        for given in self.inputs:
            side = TILE // PATCH if isinstance(given, TokenInput) else TILE
            if isinstance(given, TokenInput) or given.name == "LULC":  # codes
                values.append(np.zeros((tiles, 1, side, side), np.int64))
            else:
                shape = tiles, len(given.modality.bands), side, side
                values.append(rng.standard_normal(shape, np.float32))
        valid = [np.ones((tiles, *array.shape[-2:]), bool) for array in values]
        return values, valid, np.zeros((tiles, 2), np.int64)

    def batch(self, values: list[NDArray[Any]], valid: list[Mask], places: NDArray[np.int64]) -> Batch:
        """What the model reads; patches without a valid pixel or a token are hidden from the encoder."""
        pixels, tokens, visible = {}, {}, {}
        for given, array, mask in zip(self.inputs, values, valid, strict=True):
            if isinstance(given, TokenInput):
                tokens[given.name], visible[given.name] = array[:, 0], mask
            else:
                pixels[given.name], visible[given.name] = array, in_patches(mask)
        lonlat = self.georeference.lonlat(places, TILE) if self.georeference else None
        return Batch(pixels, visible, places, tokens, lonlat)

    def finish(self, index: int, merged: NDArray[np.float32], valid: Mask) -> NDArray[Any]:
        """Maps in physical units, or one place a tile; NaN, or class 0, where no input is valid."""
        return finish_modality(self.targets[index], merged, valid, self.offset, self.probabilities)

"""Kernels of tokens: pixels to the patch grid, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine import Field, Layer, Output
from terramind_xr.facts import PATCH, modalities
from terramind_xr.kernels.describe import (
    finish_modality,
    modality_field,
    modality_output,
    probabilities_output,
)
from terramind_xr.kernels.reading import NODATA, KernelInput, Mask, TokenInput
from terramind_xr.model.decoding import decode_tokens
from terramind_xr.model.execution import Execution
from terramind_xr.model.footprint import Footprint
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.tokens import encode_tokens


@dataclass(frozen=True)
class TokenizeKernel:
    """Tokens of a modality, tile by tile; see `terramind_xr.tokenize`.

    Parameters
    ----------
    recipe
        Weights, by name and digest.
    given
        How the modality is read.
    codebook
        Levels of the quantizer.
    execution
        Where the model runs.
    shape
        Rows and columns of the scene, in pixels: told to whoever decodes.
    """

    recipe: Recipe
    given: KernelInput
    codebook: tuple[int, ...]
    execution: Execution
    shape: tuple[int, int]

    @property
    def fields(self) -> tuple[Field, ...]:
        """Tokens: where tiles overlap, those of the tile with the nearest centre."""
        return (Field(1, cell=PATCH, merge="nearest"),)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The token raster, and all that decoding it takes."""
        name = self.given.name
        attrs: dict[str, Any] = {
            "long_name": f"tokens of {modalities[name].title}",
            "terramind_tokens": name,
            "vocabulary_size": math.prod(self.codebook),
            "codebook": " ".join(map(str, self.codebook)),
            "terramind_nodata": NODATA,
            "terramind_rows": self.shape[0],
            "terramind_columns": self.shape[1],
        }
        if modalities[name].is_optical:
            attrs["boa_add_offset"] = -(self.given.offset or 0.0)
        return (Output(f"{name}_tokens", 0, (), "uint16", attrs=attrs, nodata=NODATA),)

    @property
    def footprint(self) -> Footprint:
        """Memory beside the blocks."""
        return Footprint.of(self.recipe, decoded=(self.given.name,))

    def load(self, regions: list[NDArray[Any]]) -> list[Layer]:
        """Standardised pixels, 0 (the band's mean) where not valid: tokenizers have no mask."""
        return [self.given.layer(iter(regions))]

    def run(
        self, values: list[NDArray[np.float32]], valid: list[Mask], places: NDArray[np.int64]
    ) -> list[NDArray[Any]]:
        """Tokens (tile, 1, row, column) of a batch."""
        return [encode_tokens(self.recipe, self.given.name, values[0], self.execution)[:, np.newaxis]]

    def finish(self, index: int, merged: NDArray[np.float32], valid: Mask) -> NDArray[np.uint16]:
        """Tokens (y, x) of patches that hold a valid pixel."""
        return np.where(valid, merged[0], NODATA).astype(np.uint16)


@dataclass(frozen=True)
class DetokenizeKernel:
    """Pixels of a modality from its tokens, tile by tile; see `terramind_xr.detokenize`.

    Parameters
    ----------
    recipe
        Weights, by name and digest.
    name
        Modality.
    codebook
        Levels of the quantizer.
    sampling
        Seed, steps, solver and clamp of a diffusion decoder.
    execution
        Where the model runs.
    probabilities
        Whether LULC comes as class probabilities.
    offset
        Added to Sentinel-2 digital numbers.
    """

    recipe: Recipe
    name: str
    codebook: tuple[int, ...]
    sampling: Sampling
    execution: Execution
    probabilities: bool = False
    offset: float = 0.0

    @property
    def fields(self) -> tuple[Field, ...]:
        """Bands, or the probabilities of land-cover classes."""
        return (modality_field(self.name),)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The modality."""
        if self.probabilities:
            return (probabilities_output(0),)
        return (modality_output(self.name, 0, offset=self.offset),)

    @property
    def footprint(self) -> Footprint:
        """Memory beside the blocks."""
        return Footprint.of(self.recipe, decoded=(self.name,))

    def load(self, regions: list[NDArray[Any]]) -> list[Layer]:
        """Tokens of the vocabulary, and where they are."""
        return [TokenInput(self.name, self.codebook, self.recipe.name).layer(iter(regions))]

    def run(
        self, values: list[NDArray[np.int64]], valid: list[Mask], places: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Pixels (tile, channel, y, x) of a batch."""
        tokens = values[0][:, 0]
        return [decode_tokens(self.recipe, self.name, tokens, places, self.sampling, self.execution)]

    def finish(self, index: int, merged: NDArray[np.float32], valid: Mask) -> NDArray[Any]:
        """The map in physical units; NaN, or class 0, in patches without data."""
        return finish_modality(self.name, merged, valid, self.offset, self.probabilities)

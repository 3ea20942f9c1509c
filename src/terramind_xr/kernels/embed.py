"""The kernel of `embed`: pixels to features of the encoder, on the patch grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine import Field, Layer, Output
from terramind_xr.errors import OptionError
from terramind_xr.facts import PATCH
from terramind_xr.kernels.reading import KernelInput, Mask
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.features import Merge, features
from terramind_xr.model.recipe import Recipe

Dtype = Literal["float32", "float16", "int8"]

CODE_LIMIT = 127
"""Largest absolute value of an int8 code; features beyond it saturate."""

CODE_NODATA = -128
"""Stands for patches without a valid pixel among int8 codes."""


@dataclass(frozen=True)
class EmbedKernel:
    """Features of the encoder, tile by tile; see `terramind_xr.embed`.

    Parameters
    ----------
    recipe
        Weights, by name and digest.
    inputs
        In the order in which the encoder reads them.
    layers
        Blocks of the encoder, counted from 0.
    stacked
        Whether there is a `layer` dim; without it there is one layer.
    merge
        How modalities become one, or None or ``"dict"``.
    width
        Features of a patch.
    execution
        Where the model runs.
    dtype
        Of the result.
    scale
        What an int8 code is multiplied by; 1 for floats.
    """

    recipe: Recipe
    inputs: tuple[KernelInput, ...]
    layers: tuple[int, ...]
    stacked: bool
    merge: Merge
    width: int
    execution: Execution
    dtype: Dtype = "float32"
    scale: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities that are read."""
        return tuple(each.name for each in self.inputs)

    @property
    def fields(self) -> tuple[Field, ...]:
        """All features on the patch grid; with ``merge="dict"`` those of each modality by itself."""
        if self.merge == "dict":
            return (Field(len(self.layers) * self.width, cell=PATCH),) * len(self.inputs)
        times = len(self.inputs) if self.merge in ("concat", None) else 1
        return (Field(len(self.layers) * times * self.width, cell=PATCH),)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One embedding, or one for each modality."""
        if self.merge == "dict":
            return tuple(
                self._output(f"{name}_embedding", index, (name,)) for index, name in enumerate(self.names)
            )
        return (self._output("embedding", 0, self.names),)

    def _output(self, name: str, field: int, modalities: tuple[str, ...]) -> Output:
        sizes: dict[str, int] = {}
        coords: dict[str, list[Any]] = {}
        if self.stacked:
            sizes["layer"], coords["layer"] = len(self.layers), list(self.layers)
        if self.merge is None:
            sizes["modality"], coords["modality"] = len(modalities), list(modalities)
        sizes["feature"] = self.width * (len(modalities) if self.merge == "concat" else 1)
        attrs: dict[str, Any] = {
            "long_name": f"features of TerraMind's encoder from {', '.join(modalities)}",
            "units": "1",
        }
        is_packed = self.dtype == "int8"
        if is_packed:
            attrs |= {"scale_factor": self.scale, "_FillValue": np.int8(CODE_NODATA)}
        return Output(
            name,
            field,
            pixel=tuple(sizes.values()),
            dtype=self.dtype,
            dims=tuple(sizes),
            coords=coords,
            attrs=attrs,
            nodata=CODE_NODATA if is_packed else None,
        )

    def load(self, regions: list[NDArray[Any]]) -> list[Layer]:
        """Standardised inputs, 0 (the band's mean) where not valid: upstream's backbone has no mask."""
        queue = iter(regions)
        return [each.layer(queue) for each in self.inputs]

    def run(
        self, pixels: list[NDArray[np.float32]], valid: list[Mask], places: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Features (tile, channel, row, column) of a batch, one array a field."""
        tiles, height, width = valid[0].shape
        seen = np.ones((tiles, height // PATCH, width // PATCH), bool)
        batch = Batch(
            pixels=dict(zip(self.names, pixels, strict=True)),
            visible=dict.fromkeys(self.names, seen),
            places=places,
        )
        found = features(self.recipe, batch, self.layers, self.merge, self.execution)
        parts = np.split(found, len(self.inputs), axis=2) if self.merge == "dict" else [found]
        return [part.reshape(tiles, -1, *part.shape[-2:]) for part in parts]

    def finish(self, index: int, merged: NDArray[np.float64], valid: Mask) -> NDArray[Any]:
        """Features ([layer, modality,] feature, y, x) as floats or as codes; nodata without a valid pixel."""
        values = merged.reshape(*self.outputs[index].pixel, *merged.shape[-2:])
        if self.dtype == "int8":
            codes = np.rint(values / self.scale).clip(-CODE_LIMIT, CODE_LIMIT).astype(np.int8)
            codes[..., ~valid] = CODE_NODATA
            return codes
        limit = np.finfo(self.dtype).max
        largest = np.abs(values).max(initial=0.0)
        if largest > limit:
            raise OptionError(
                f"embedding: a block holds the feature {largest:.4g}, and {self.dtype} ends at {limit:.4g}. "
                "Take dtype='float32', or another layer."
            )
        result = values.astype(self.dtype)
        result[..., ~valid] = np.nan
        return result

"""The kernel of `embed`: pixels to features of the encoder, on the patch grid or by tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine import Field, Layer, Output
from terramind_xr.errors import OptionError
from terramind_xr.facts import PATCH
from terramind_xr.kernels.reading import KernelInput, Mask, in_patches
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.features import Merge, features
from terramind_xr.model.footprint import Footprint
from terramind_xr.model.recipe import Recipe

Dtype = Literal["float32", "float16", "int8"]

Pool = Literal["mean", "max"] | None
"""How the patches of a tile become one; None keeps them."""

POOLS: tuple[Pool, ...] = ("mean", "max", None)

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
    shape
        Rows and columns of the scene: what is mirrored at its end is not pooled.
    pool
        How the patches of a tile become one, or None.
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
    shape: tuple[int, int]
    pool: Pool = None
    dtype: Dtype = "float32"
    scale: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities that are read."""
        return tuple(each.name for each in self.inputs)

    @property
    def fields(self) -> tuple[Field, ...]:
        """All features of a patch or a tile; with ``merge="dict"`` those of each modality by itself."""
        count = len(self.layers) * self.width
        if self.merge == "dict":
            return (self._field(count),) * len(self.inputs)
        return (self._field(count * len(self.inputs) if self.merge in ("concat", None) else count),)

    def _field(self, channels: int) -> Field:
        return Field(channels, cell=PATCH) if self.pool is None else Field(channels, merge="tile")

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
        features = "features" if self.pool is None else f"{self.pool} over each tile of the features"
        attrs: dict[str, Any] = {
            "long_name": f"{features} of TerraMind's encoder from {', '.join(modalities)}",
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

    @property
    def footprint(self) -> Footprint:
        """Memory beside the blocks."""
        return Footprint.of(self.recipe, read=len(self.inputs))

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
        rasters = [part.reshape(tiles, -1, *part.shape[-2:]) for part in parts]
        if self.pool is None:
            return rasters
        used = in_patches(np.logical_or.reduce(valid) & _within(self.shape, places, (height, width)))
        return [pooled(raster, used, self.pool) for raster in rasters]

    def finish(self, index: int, merged: NDArray[np.float32], valid: Mask) -> NDArray[Any]:
        """Features ([layer, modality,] feature, y, x) as floats or as codes; nodata without a valid pixel."""
        values = merged.reshape(*self.outputs[index].pixel, *merged.shape[-2:])
        values = np.where(valid, values, 0)  # a tile that was not run is NaN, which no code holds
        if self.dtype == "int8":
            codes: NDArray[np.int8] = (
                np.rint(values / self.scale).clip(-CODE_LIMIT, CODE_LIMIT).astype(np.int8)
            )
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


def pooled(features: NDArray[np.float32], used: Mask, pool: Pool) -> NDArray[np.float32]:
    """One value a tile (tile, channel, 1, 1): mean or maximum of those (tile, channel, row, column) `used`.

    Examples
    --------
    >>> import numpy as np
    >>> features = np.array([[[[1, 2], [6, 50]]]], np.float32)
    >>> used = np.array([[[True, True], [True, False]]])
    >>> pooled(features, used, "mean").item(), pooled(features, used, "max").item()
    (3.0, 6.0)
    """
    # Along one axis that is contiguous, a tile is summed alike in every batch.
    flat = features.reshape(*features.shape[:2], -1)
    mask = used.reshape(len(used), 1, -1)
    if pool == "max":
        result = np.where(mask, flat, -np.inf).max(axis=-1)
    else:
        result = np.where(mask, flat, 0).sum(axis=-1, dtype=np.float64) / mask.sum(axis=-1)
    return np.asarray(result[..., np.newaxis, np.newaxis], np.float32)


def _within(shape: tuple[int, int], places: NDArray[np.int64], tile: tuple[int, int]) -> Mask:
    """Pixels (tile, y, x) of tiles at `places` that are the scene's own, not mirrored at its end."""
    rows, cols = (places[:, axis, np.newaxis] + np.arange(tile[axis]) < shape[axis] for axis in (0, 1))
    return np.asarray(rows[:, :, np.newaxis] & cols[:, np.newaxis, :])

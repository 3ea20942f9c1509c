"""What a process holds to run a model, estimated without it: its weights, and what a tile of a batch takes.

``benchmarks/plan_memory.py`` holds the numbers against what a process takes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from terramind_xr.model.files import WeightsFile
from terramind_xr.model.recipe import Recipe

_MIB = 2**20

LIBRARIES = 1150 * _MIB
"""Host memory of a process that has imported torch, terratorch and what they need, and run them once."""

_ENCODED = {"demo": 5, "tiny": 8, "small": 14, "base": 28, "large": 40}
"""MiB that encoder and decoder take at work: for each tile of a batch, and each modality that is read. Small
and large are taken to follow from the width; the others are measured
(``benchmarks/plan_memory.py --stages``)."""

_DECODED = {"demo": 14, "LULC": 24, "diffusion": 80}
"""MiB that a tokenizer takes at work, for each tile of a batch, measured likewise."""


@dataclass(frozen=True)
class Footprint:
    """Memory that running a kernel takes in a process beside its blocks, in bytes.

    Parameters
    ----------
    weights
        Of the model, in float32 as it is loaded.
    tile
        Of each tile of a batch while the model runs.
    """

    weights: int
    tile: int

    @classmethod
    def of(cls, recipe: Recipe, *, read: int = 0, decoded: Collection[str] = ()) -> Footprint:
        """Of a model of a recipe.

        Parameters
        ----------
        recipe
            Names and files; those that no process will load count nothing, as their size is not known.
        read
            Modalities that the encoder reads; 0 where it does not run.
        decoded
            Modalities whose tokenizers run.
        """
        files = [recipe.backbone, *(file for _, file in recipe.tokenizers)]
        converted = sum(each.constants.size for _, each in (*recipe.decoders, *recipe.transformer))
        # The demo's files are in float16.
        weights = sum(file.size for file in files) * (2 if recipe.name == "demo" else 1) + converted
        kinds = {_kind(recipe.name, name) for name in decoded}
        stages = [read * _encoded(recipe.name), *(_DECODED[kind] for kind in kinds)]
        # One stage runs at a time, and frees what it took.
        return cls(weights, max(stages) * _MIB)

    @classmethod
    def of_finetuned(cls, name: str, checkpoint: WeightsFile, read: int) -> Footprint:
        """Of a fine-tuned model, whose decoder is taken to need no more than the encoder."""
        return cls(checkpoint.size, 2 * read * _encoded(name) * _MIB)


def _encoded(name: str) -> int:
    return next((size for word, size in _ENCODED.items() if word in name), _ENCODED["large"])


def _kind(model: str, modality: str) -> str:
    return "demo" if model == "demo" else "LULC" if modality == "LULC" else "diffusion"

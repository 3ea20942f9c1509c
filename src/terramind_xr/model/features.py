"""The encoder alone: features of each patch after any of its blocks, as terratorch's backbones give them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from terramind_xr.model import weights
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import Recipe, demo_config
from terramind_xr.model.tokens import encode

if TYPE_CHECKING:
    import torch

Merge = Literal["mean", "max", "concat", "dict"] | None
"""How features of several modalities become one; None and ``"dict"`` keep them apart."""

MERGES: tuple[Merge, ...] = ("mean", "max", "concat", "dict", None)


_SCALES = {"demo": (0.701, 0.702, 0.712, 0.717, 0.0309)}
"""By model and layer, as ``benchmarks/embedding_scale.py`` prints them: one constant for all inputs."""


def embedding_scale(name: str, layers: tuple[int, ...]) -> float | None:
    """What int8 codes of these layers of a model are multiplied by; None where it was not measured."""
    return max(_SCALES[name][layer] for layer in layers) if name in _SCALES else None


def encoder_size(name: str) -> tuple[int, int]:
    """Width and number of blocks of a model's encoder; no weights are read."""
    if name == "demo":
        size = demo_config()["backbone"]
        return size["dim"], size["encoder_depth"]
    width, blocks, *_ = weights.BACKBONES[name]
    return width, blocks


def features(
    recipe: Recipe, batch: Batch, layers: tuple[int, ...], merge: Merge, execution: Execution
) -> NDArray[np.float32]:
    """Features of the patches of a batch of tiles, by layer.

    All patches are seen, as in terratorch's plain backbone, which has no mask.

    Parameters
    ----------
    recipe
        Which weights.
    batch
        Inputs, as pixels or as tokens.
    layers
        Blocks of the encoder, counted from 0. What the last one gives is normalised, as upstream.
    merge
        ``"mean"`` and ``"max"`` over the modalities, ``"concat"`` along the features; None and ``"dict"``
        keep them apart.
    execution
        Where to run. The last normalisation is in fp32 always.

    Returns
    -------
    numpy.ndarray
        (tile, layer, modality, feature, row, column), float32, with one modality where they are merged.
    """
    import torch

    _, rows, cols = batch.grid
    with session(execution) as device:
        known = encode(recipe, batch, device)
        model = weights.sampler(recipe, tuple(known), (), device).model
        embedded = [model.encoder_embeddings[key](each.tensor) for key, each in known.items()]
        x = torch.cat([each["x"] + each["emb"] for each in embedded], dim=1)
        found = dict(_by_layer(model, x, layers))
        # (tile, layer, modality, patch, feature)
        stacked = torch.stack([found[layer] for layer in layers], dim=1)
        merged = _merged(stacked.reshape(*stacked.shape[:2], len(known), rows * cols, -1), merge)
        result = merged.movedim(-1, -2).reshape(*merged.shape[:3], -1, rows, cols)
        return np.ascontiguousarray(result.cpu().numpy())


def _by_layer(model: Any, x: torch.Tensor, layers: tuple[int, ...]) -> Iterator[tuple[int, torch.Tensor]]:
    """Each asked layer with what it gives (tile, patch, feature); no block beyond the last one is run."""
    import torch

    last = len(model.encoder) - 1
    for number, block in enumerate(model.encoder[: max(layers) + 1]):
        x = block(x)
        if number in layers:
            with torch.autocast(x.device.type, enabled=False):
                yield number, model.encoder_norm(x.float()) if number == last else x.float()


def _merged(x: torch.Tensor, merge: Merge) -> torch.Tensor:
    """Modalities (axis 2 of tile, layer, modality, patch, feature) as one, or apart."""
    import torch

    if merge == "mean":
        return x.mean(dim=2, keepdim=True)
    if merge == "max":
        return x.amax(dim=2, keepdim=True)
    if merge == "concat":
        return torch.cat(x.unbind(dim=2), dim=-1).unsqueeze(2)
    return x

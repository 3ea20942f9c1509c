"""Second stage: the tokens of a target, drawn from what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.model import backbone, weights
from terramind_xr.model.batch import Known, Target
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling, sample_tokens
from terramind_xr.model.tokens import token_key
from terramind_xr.noise import Stream

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Drawn:
    """Tokens (tile, row, column) of a target, and the logits (tile, row, column, token) behind them."""

    tokens: torch.Tensor
    logits: torch.Tensor

    def known(self) -> Known:
        """The tokens as what conditions a later target: all of them are seen."""
        import torch

        tokens = self.tokens.flatten(1)
        return Known(tokens, torch.zeros_like(tokens, dtype=torch.bool))


def draw(
    recipe: Recipe,
    known: Mapping[str, Known],
    target: Target,
    places: NDArray[np.int64],
    sampling: Sampling,
    device: str,
) -> Drawn:
    """Tokens of all patches of a target in one step; decided ones come back as they are.

    Parameters
    ----------
    recipe
        Which weights.
    known
        What conditions, by key of the encoder's embedding; the target's own decided patches do, too.
    target
        Which modality, and what is known of it.
    places
        First row and column of each tile from the scene's origin: (tile, 2).
    sampling
        How tokens are drawn.
    device
        Of the session.
    """
    key = token_key(target.name)
    own = (key,) if target.decided.any() else ()
    sampler = weights.sampler(recipe, (*known, *own), (key,), device)
    return draw_with(sampler, known, target, places, sampling, device)


def draw_with(
    sampler: Any,
    known: Mapping[str, Known],
    target: Target,
    places: NDArray[np.int64],
    sampling: Sampling,
    device: str,
) -> Drawn:
    """The same from a ``GenerationSampler`` of terratorch that is loaded already."""
    logits = token_logits(sampler, known, target, device)
    stream = Stream(sampling.seed, f"{target.name}/tokens")
    return Drawn(sample_tokens(logits, places, stream, sampling), logits)


def token_logits(sampler: Any, known: Mapping[str, Known], target: Target, device: str) -> torch.Tensor:
    """Logits (tile, row, column, token) of a target; those of a decided patch leave its token alone."""
    import torch

    hidden = ~target.decided.reshape(len(target.decided), -1)
    if hidden.all():
        found = _hidden_logits(sampler, known, target, device)
        return found.reshape(*target.decided.shape, -1)
    vocabulary = sampler.model.decoder_embeddings[token_key(target.name)].vocab_size
    logits = torch.full((*target.decided.shape, vocabulary), -float("inf"), device=device)
    logits.scatter_(-1, torch.from_numpy(target.kept)[..., None].to(device), 0.0)
    counts = hidden.sum(axis=1)
    # The decoder takes tiles with equally many hidden patches only; alone, they depend on no other.
    for count in np.unique(counts[counts > 0]):
        tiles = np.flatnonzero(counts == count)
        part = Target(target.name, target.decided[tiles], target.tokens[tiles])
        found = _hidden_logits(sampler, {key: each.of(tiles) for key, each in known.items()}, part, device)
        tile, row, col = np.nonzero(~part.decided)
        logits[tiles[tile], row, col] = found.flatten(0, 1)
    return logits


def _hidden_logits(sampler: Any, known: Mapping[str, Known], target: Target, device: str) -> torch.Tensor:
    """Logits (tile, patch, token) of the hidden patches, equally many of each tile, in raster order.

    The step is upstream's MaskGIT one: its patches come in raster order, those of ROAR in random order;
    with all patches decoded at once, the logits are the same.
    """
    import torch

    key = token_key(target.name)
    decided = torch.from_numpy(target.decided).flatten(1).to(device)
    # Made anew for each step: the embeddings write into the dicts they are given.
    conditions = {name: {"tensor": each.tensor, "input_mask": each.hidden} for name, each in known.items()}
    conditions[key] = {
        "tensor": torch.from_numpy(target.kept).flatten(1).to(device),
        "input_mask": ~decided,
        "target_mask": decided,
    }
    context, hidden = backbone.context(sampler, conditions)
    embedding = sampler.model.decoder_embeddings[key]
    asked = {key: embedding.forward_embed(conditions[key])}
    tokens, places, *_ = sampler.forward_mask_decoder_maskgit(asked, key)
    decoded = sampler.model.forward_decoder(tokens + places, context, hidden, None)
    return backbone.logits(embedding, decoded)

"""Steps of the backbone that all targets share, from what conditions to logits.

They are those of terratorch's ``GenerationSampler``, with logits in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def context(
    sampler: Any, conditions: Mapping[str, dict[str, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the decoder reads of the encoder (tile, patch, feature); what is hidden of it (tile, 1, patch).

    Parameters
    ----------
    sampler
        From `terramind_xr.model.weights`.
    conditions
        By key of the encoder's embedding; one that it does not have conditions nothing. The embeddings write
        into these dicts: they are to be new.
    """
    model = sampler.model
    embeddings = model.encoder_embeddings
    embedded = {key: embeddings[key](each) for key, each in conditions.items() if key in embeddings}
    tokens, embedding, hidden, _ = sampler.forward_mask_encoder_generation(embedded)
    encoded = model.forward_encoder(tokens + embedding, hidden)
    return model.decoder_proj_context(encoded) + embedding, hidden


def logits(embedding: Any, decoded: torch.Tensor) -> torch.Tensor:
    """Logits of a target, by its embedding, of what the decoder gives for it.

    In half precision many of the thousands of tokens would tie: in bf16, between two and seven times as many
    of the demo's tokens would differ from those in fp32.
    """
    import torch

    with torch.autocast(decoded.device.type, enabled=False):
        found: torch.Tensor = embedding.forward_logits(decoded.float())
    return found

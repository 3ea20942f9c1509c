"""First stage: pixels to tokens, and all inputs of a batch to what the encoder's embeddings read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terramind_xr.facts import modalities
from terramind_xr.model import weights
from terramind_xr.model.batch import Batch, Known
from terramind_xr.model.coordinates import encode_coordinates
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import Recipe

if TYPE_CHECKING:
    import torch


def encode_tokens(
    recipe: Recipe, name: str, values: NDArray[np.float32], execution: Execution
) -> NDArray[np.int64]:
    """Tokens of a modality, as terratorch's tokenizer gives them.

    Parameters
    ----------
    recipe
        Which weights; the modality's tokenizer is among them.
    name
        Modality.
    values
        Standardised pixels (tile, band, y, x); LULC as class codes.
    execution
        Where to run. The precision does not matter: tokens always come in fp32.

    Returns
    -------
    numpy.ndarray
        (tile, row, column), one for each patch.
    """
    with session(execution) as device:
        return tokenize(recipe, name, values, device).cpu().numpy()


def tokenize(recipe: Recipe, name: str, values: NDArray[np.float32], device: str) -> torch.Tensor:
    """Tokens (tile, row, column) of pixels, as `encode_tokens`."""
    import torch

    tokenizer = weights.tokenizer(recipe, name, device)
    tensor = torch.from_numpy(values).to(device)
    # The quantiser rounds: in half precision it would give other tokens.
    with torch.autocast(tensor.device.type, enabled=False):
        tokens: torch.Tensor = tokenizer.tokenize(tensor)
    return tokens.to(torch.int64)


def encode(recipe: Recipe, batch: Batch, device: str) -> dict[str, Known]:
    """What conditions, by the key of the encoder's embedding, in the order in which it is read."""
    import torch

    known = {}
    for name, values in batch.pixels.items():
        if modalities[name].raw_key is None:
            tensor = tokenize(recipe, name, values, device).flatten(1)
        else:
            tensor = torch.from_numpy(values).to(device)
        known[encoder_key(name)] = Known(tensor, _hidden(batch, name, device))
    for name, given in batch.tokens.items():
        # What is hidden is looked up all the same, and must be in the vocabulary.
        tensor = torch.from_numpy(np.where(batch.visible[name], given, 0)).to(device).flatten(1)
        known[token_key(name)] = Known(tensor, _hidden(batch, name, device))
    if batch.lonlat is not None:
        known[token_key("Coordinates")] = encode_coordinates(recipe, batch.lonlat, device)
    return known


def _hidden(batch: Batch, name: str, device: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(~batch.visible[name]).flatten(1).to(device)


def encoder_key(name: str) -> str:
    """Key of the embedding that reads a modality's pixels, or the tokens made of them."""
    return modalities[name].raw_key or token_key(name)


def token_key(name: str) -> str:
    """Key of the embeddings that read and write a modality's tokens."""
    key = modalities[name].token_key
    assert key is not None, "checked when the call was made"
    return key

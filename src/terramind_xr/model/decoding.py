"""Third stage: tokens to pixels. A token stands for a code, which the tokenizer's decoder reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.facts import PATCH, modalities
from terramind_xr.model import compiled, solvers, weights
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import destandardize
from terramind_xr.noise import Stream

if TYPE_CHECKING:
    import torch


def decode_tokens(
    recipe: Recipe,
    name: str,
    tokens: NDArray[np.int64],
    places: NDArray[np.int64],
    sampling: Sampling,
    execution: Execution,
) -> NDArray[np.float32]:
    """Pixels of a modality from its tokens.

    Parameters
    ----------
    recipe
        Which weights; the modality's tokenizer is among them.
    name
        Modality.
    tokens
        (tile, row, column).
    places
        First row and column of each tile from the scene's origin: (tile, 2).
    sampling
        Seed, steps, solver and clamp of a diffusion decoder.
    execution
        Where to run.

    Returns
    -------
    numpy.ndarray
        (tile, channel, y, x): class probabilities for LULC, else the modality's own units.
    """
    import torch

    with session(execution) as device:
        codes = token_codes(recipe, name, torch.from_numpy(tokens).to(device), device)
        return decode(recipe, name, codes, places, sampling, device)


def decode_expected(
    recipe: Recipe,
    name: str,
    logits: NDArray[np.float32],
    places: NDArray[np.int64],
    sampling: Sampling,
    execution: Execution,
) -> NDArray[np.float32]:
    """Pixels of a modality from the code that logits (tile, row, column, token) let expect.

    Otherwise as `decode_tokens`; what leaves one token without doubt is decoded as that token.
    """
    import torch

    with session(execution) as device:
        codes = expected_codes(recipe, name, torch.from_numpy(logits).to(device), device)
        return decode(recipe, name, codes, places, sampling, device)


def token_codes(recipe: Recipe, name: str, tokens: torch.Tensor, device: str) -> torch.Tensor:
    """Codes (tile, level, row, column) of tokens (tile, row, column)."""
    codes: torch.Tensor = weights.tokenizer(recipe, name, device).tokens_to_embedding(tokens)
    return codes


def expected_codes(recipe: Recipe, name: str, logits: torch.Tensor, device: str) -> torch.Tensor:
    """Codes (tile, level, row, column), averaged over all tokens by their probability.

    One tile at a time: probabilities need as much memory as the logits, and a tile depends on no other.
    """
    import torch

    codebook = weights.tokenizer(recipe, name, device).quantize.codebook
    with torch.autocast(logits.device.type, enabled=False):
        codes = torch.stack([each.float().softmax(dim=-1) @ codebook for each in logits])
    return codes.movedim(-1, 1)


def decode(
    recipe: Recipe,
    name: str,
    codes: torch.Tensor,
    places: NDArray[np.int64],
    sampling: Sampling,
    device: str,
) -> NDArray[np.float32]:
    """Pixels (tile, channel, y, x) of codes (tile, level, row, column); class probabilities for LULC."""
    tokenizer = weights.tokenizer(recipe, name, device)
    network = _network(recipe, name, tokenizer)
    if name == "LULC":
        return in_units(name, network(codes))
    noise = starting_noise(name, places, codes.shape[2:], sampling, device)
    return in_units(name, denoise(tokenizer, codes, noise, sampling, network))


def in_units(name: str, decoded: torch.Tensor) -> NDArray[np.float32]:
    """Pixels (tile, channel, y, x) in a modality's own units; class probabilities of logits of LULC."""
    if name == "LULC":
        probabilities = decoded.float().softmax(dim=1)
        return np.asarray(probabilities.cpu().numpy(), np.float32)
    result = decoded.float().cpu().numpy().swapaxes(0, 1)
    return np.ascontiguousarray(destandardize(modalities[name], result).swapaxes(0, 1))


def _network(recipe: Recipe, name: str, tokenizer: Any) -> Callable[..., torch.Tensor]:
    """What a decoder computes at once: class logits of codes, or an estimate of (image, step, codes)."""
    converted = dict(recipe.decoders).get(name)
    if converted:
        return compiled.network(converted)
    plain: Callable[..., torch.Tensor] = tokenizer.decode_quant if name == "LULC" else tokenizer.decoder
    return plain


def starting_noise(
    name: str, places: NDArray[np.int64], grid: Sequence[int], sampling: Sampling, device: str
) -> torch.Tensor:
    """Noise (tile, band, y, x) that belongs to places, for tiles of so many rows and columns of patches."""
    import torch

    stream = Stream(sampling.seed, f"{name}/diffusion")
    size = dict(zip(("height", "width"), (side * PATCH for side in grid), strict=True))
    size["bands"] = len(modalities[name].bands)
    if device != "cpu":  # there, numpy is twice as fast
        return stream.normal_on(device, places, **size)
    return torch.from_numpy(np.stack([stream.normal(y=int(y), x=int(x), **size) for y, x in places]))


def denoise(
    tokenizer: Any,
    codes: torch.Tensor,
    image: torch.Tensor,
    sampling: Sampling,
    network: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """From the noise `image` (tile, band, y, x) to standardised pixels, in the steps of `Sampling.solver`.

    The network that estimates them is by default the tokenizer's own decoder.
    """
    network = network or tokenizer.decoder
    # A scheduler of our own: it changes with every step, and the tokenizer is shared.
    scheduler = solvers.scheduler(tokenizer.noise_scheduler, sampling)
    for step in scheduler.timesteps:
        image = solvers.advance(scheduler, network(image, step, codes), step, image)
    return image

"""Batches of tiles through terratorch's modules: numpy in, numpy out, no dask and no xarray.

A thin loop of our own drives them, because upstream's own draws from global random state and lets a
tile's result depend on its batch. With the same weights and greedy sampling, tokens and logits are
terratorch's own. Random numbers belong to places of the scene (see `terramind_xr.random`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from terramind_xr import weights
from terramind_xr.errors import OptionError
from terramind_xr.modalities import PATCH, Modality, modalities
from terramind_xr.models import Recipe
from terramind_xr.options import Precision, check_device, check_precision
from terramind_xr.quiet import full_precision
from terramind_xr.random import Stream

if TYPE_CHECKING:
    import torch

_run_lock = threading.Lock()
"""One batch at a time in a process: torch's own threads already use every core, or the GPU."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and decoded.

    Raises OptionError for values that cannot be used.

    Parameters
    ----------
    seed
        Of all random numbers.
    temperature
        0 takes the most probable token; above, tokens are drawn, the flatter the higher.
    top_p, top_k
        Draw only from the most probable tokens: the smallest set that holds `top_p` of the
        probability, the `top_k` first. 0 switches off.
    diffusion_steps
        DDIM steps of the diffusion decoders.
    clamp
        ``"upstream"`` keeps each step's estimate within one standard deviation, as terratorch does; None
        does not.
    device
        torch device; None takes a GPU where there is one.
    precision
        ``"fp32"``, or automatic mixed precision in ``"bf16"`` or ``"fp16"``.
    """

    seed: int = 0
    temperature: float = 0.0
    top_p: float = 0.8
    top_k: int = 0
    diffusion_steps: int = 10
    clamp: Literal["upstream"] | None = "upstream"
    device: str | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        check_device(self.device)
        check_precision(self.precision)
        rules = {
            "seed": (is_whole(self.seed) and -(2**63) <= self.seed < 2**63, "a whole number below 2**63"),
            "temperature": (_is_number(self.temperature) and self.temperature >= 0, "None or a number >= 0"),
            "top_p": (_is_number(self.top_p) and 0 <= self.top_p <= 1, "a number from 0 to 1"),
            "top_k": (is_whole(self.top_k) and self.top_k >= 0, "a whole number >= 0"),
            "diffusion_steps": (
                is_whole(self.diffusion_steps) and 1 <= self.diffusion_steps <= 1000,
                "a whole number from 1 to 1000",
            ),
            "clamp": (self.clamp in ("upstream", None), "'upstream' or None"),
        }
        for name, (right, expected) in rules.items():
            if not right:
                raise OptionError(f"{name}={getattr(self, name)!r} cannot be used: expected {expected}.")


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, numpy's included; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_whole(value) or isinstance(value, float | np.floating)


def standardize(modality: Modality, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (band, …) minus the pre-training mean, over the standard deviation, float32."""
    mean, std = _statistics(modality, values.ndim - 1)
    result = values - mean
    result /= std
    return result


def destandardize(modality: Modality, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of `standardize`."""
    mean, std = _statistics(modality, values.ndim - 1)
    return values * std + mean


def _statistics(modality: Modality, trailing: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shape = (-1, *(1,) * trailing)
    return (
        np.asarray(modality.mean, np.float32).reshape(shape),
        np.asarray(modality.std, np.float32).reshape(shape),
    )


def generate(
    recipe: Recipe,
    pixels: Mapping[str, NDArray[np.float32]],
    visible: Mapping[str, NDArray[np.bool_]],
    outputs: tuple[str, ...],
    places: NDArray[np.int64],
    sampling: Sampling,
) -> dict[str, NDArray[np.float32]]:
    """Generate modalities for a batch of tiles, each conditioned on the inputs and on earlier outputs.

    Parameters
    ----------
    recipe
        Which weights.
    pixels
        Standardised inputs by modality: (tile, band, y, x), float32; LULC as class codes.
    visible
        By modality, which patches the encoder may see: (tile, row, column).
    outputs
        Modalities to generate, in this order.
    places
        First row and column of each tile from the scene's origin, multiples of the patch: (tile, 2).
    sampling
        How tokens are drawn and decoded.

    Returns
    -------
    dict
        By output (tile, channel, y, x), float32: class probabilities for LULC, else the modality's own
        units.
    """
    with _session(sampling) as device:
        tokens = generate_tokens(recipe, pixels, visible, outputs, places, sampling, device)
        return {name: decode(recipe, name, tokens[name], places, sampling, device) for name in outputs}


@contextlib.contextmanager
def _session(sampling: Sampling) -> Iterator[str]:
    """Device to run on, with torch set up for inference in the asked precision."""
    import torch

    device = sampling.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"device={device!r}: this process sees no CUDA GPU. Use device=None or 'cpu'.")
    kind = torch.device(device).type
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[sampling.precision]
    mixed = torch.autocast(kind, dtype=dtype, enabled=dtype is not torch.float32)
    with _run_lock, torch.inference_mode(), mixed, full_precision(kind):
        yield device


def generate_tokens(
    recipe: Recipe,
    pixels: Mapping[str, NDArray[np.float32]],
    visible: Mapping[str, NDArray[np.bool_]],
    outputs: tuple[str, ...],
    places: NDArray[np.int64],
    sampling: Sampling,
    device: str,
) -> dict[str, torch.Tensor]:
    """Tokens of each output (tile, row, column), decoded one output after the other."""
    import torch

    sampler = _sampler(recipe, tuple(pixels), outputs, device)
    known = {
        _encoder_key(name): _visible(_encoded(recipe, name, values, device), visible[name])
        for name, values in pixels.items()
    }
    grid = next(iter(visible.values())).shape[1:]
    tokens = {}
    for name in outputs:
        key = _token_key(name)
        logits = token_logits(sampler, known, key, len(places), grid[0] * grid[1])
        drawn = sample_tokens(logits, places, grid, Stream(sampling.seed, f"{name}/tokens"), sampling)
        tokens[name] = drawn.reshape(-1, *grid)
        known[key] = _visible(drawn, np.ones((len(places), *grid), bool))
    return {name: value.to(torch.int64) for name, value in tokens.items()}


def _sampler(recipe: Recipe, inputs: tuple[str, ...], outputs: tuple[str, ...], device: str) -> Any:
    # The last output conditions nothing, so that its encoder embedding is not needed (as upstream).
    encoded = tuple(dict.fromkeys([*map(_encoder_key, inputs), *map(_token_key, outputs[:-1])]))
    decoded = tuple(map(_token_key, outputs))
    return weights.sampler(recipe, encoded, decoded, device)


def _encoder_key(name: str) -> str:
    modality = modalities[name]
    return modality.raw_key or _token_key(name)


def _token_key(name: str) -> str:
    key = modalities[name].token_key
    assert key is not None, "checked when the call was made"
    return key


def _encoded(recipe: Recipe, name: str, values: NDArray[np.float32], device: str) -> torch.Tensor:
    """What the encoder's embedding reads: pixels, or the tokens of modalities that are given as tokens."""
    import torch

    tensor = torch.from_numpy(values).to(device)
    if modalities[name].raw_key is not None:
        return tensor
    tokenizer = weights.tokenizer(recipe, name, device)
    # The quantiser rounds: in half precision it would give other tokens.
    with torch.autocast(tensor.device.type, enabled=False):
        tokens: torch.Tensor = tokenizer.tokenize(tensor)
    return tokens.flatten(1).to(torch.int64)


def _visible(tensor: torch.Tensor, visible: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
    """Modality as terratorch's embeddings expect it; its masks are True for what is hidden."""
    import torch

    hidden = torch.from_numpy(~visible.reshape(len(visible), -1)).to(tensor.device)
    return {"tensor": tensor, "input_mask": hidden}


def token_logits(
    sampler: Any, known: Mapping[str, dict[str, torch.Tensor]], key: str, batch: int, patches: int
) -> torch.Tensor:
    """Logits (tile, patch, token) of all patches of one modality, in raster order.

    The step is upstream's MaskGIT one: its patches come in raster order, those of ROAR in random order;
    with all patches decoded at once, the logits are the same.
    """
    import torch

    device = next(iter(known.values()))["tensor"].device
    target = {
        "tensor": torch.zeros((batch, patches), dtype=torch.int64, device=device),
        "input_mask": torch.ones((batch, patches), dtype=torch.bool, device=device),
        "target_mask": torch.zeros((batch, patches), dtype=torch.bool, device=device),
    }
    # Copies: the embeddings write into the dicts they are given.
    modalities_in = {name: dict(value) for name, value in known.items()} | {key: target}
    logits: torch.Tensor
    logits, _ = sampler.forward_enc_dec_maskgit_batched(modalities_in, key)
    return logits.float()


def sample_tokens(
    logits: torch.Tensor,
    places: NDArray[np.int64],
    grid: tuple[int, ...],
    stream: Stream,
    sampling: Sampling,
) -> torch.Tensor:
    """Tokens (tile, patch) from logits (tile, patch, token): the likeliest, or drawn by Gumbel-max.

    The noise of a token at a place does not depend on the tile, so that overlapping tiles tend to agree.
    """
    import torch

    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    candidates, order = _nucleus(logits.flatten(0, 1), sampling.top_p, sampling.top_k)
    rows, cols = np.indices(grid).reshape(2, -1)
    y = (places[:, :1] // PATCH + rows).reshape(-1, 1)
    x = (places[:, 1:] // PATCH + cols).reshape(-1, 1)
    noise = torch.from_numpy(stream.gumbel(y, x, order.cpu().numpy())).to(logits.device)
    best = (candidates.double() / sampling.temperature + noise).argmax(dim=-1, keepdim=True)
    return order.gather(-1, best).reshape(logits.shape[:2])


def _nucleus(logits: torch.Tensor, top_p: float, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the candidates (place, rank), descending, -inf beyond the nucleus; and their token ids.

    Same set as terratorch's ``top_k_top_p_filtering``: `top_k` first, then the tokens up to and including
    the one with which the probability exceeds `top_p`. Both act before the temperature.
    """
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k:
        # Ties with the last one stay in, as upstream.
        ranked = ranked.masked_fill(ranked < ranked[:, min(top_k, ranked.shape[-1]) - 1, None], -float("inf"))
    if top_p:
        before = ranked.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)
        before[:, 0] = 0
        ranked = ranked.masked_fill(before > top_p, -float("inf"))
    widest = int(ranked.isfinite().sum(dim=-1).max())
    return ranked[:, :widest], order[:, :widest]


def decode(
    recipe: Recipe,
    name: str,
    tokens: torch.Tensor,
    places: NDArray[np.int64],
    sampling: Sampling,
    device: str,
) -> NDArray[np.float32]:
    """Pixels (tile, channel, y, x) of tokens (tile, row, column); class probabilities for LULC."""
    import torch

    tokenizer = weights.tokenizer(recipe, name, device)
    modality = modalities[name]
    latent = tokenizer.tokens_to_embedding(tokens)
    if name == "LULC":
        probabilities = tokenizer.decode_quant(latent).float().softmax(dim=1)
        return np.asarray(probabilities.cpu().numpy(), np.float32)
    height, width = (side * PATCH for side in tokens.shape[1:])
    stream = Stream(sampling.seed, f"{name}/diffusion")
    noise = [
        stream.normal(y=int(y), x=int(x), height=height, width=width, bands=len(modality.bands))
        for y, x in places
    ]
    image = denoise(tokenizer, latent, torch.from_numpy(np.stack(noise)).to(device), sampling)
    result = image.float().cpu().numpy().swapaxes(0, 1)
    return np.ascontiguousarray(destandardize(modality, result).swapaxes(0, 1))


def denoise(tokenizer: Any, latent: torch.Tensor, image: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Upstream's DDIM from the noise `image` (tile, band, y, x) to standardised pixels.

    Steps are spaced "trailing" as upstream does; a number that does not divide 1000 takes one step more.
    """
    # A scheduler of our own: setting the steps changes it, and the tokenizer is shared.
    scheduler = type(tokenizer.noise_scheduler).from_config(
        tokenizer.noise_scheduler.config,
        **({} if sampling.clamp else {"thresholding": False, "clip_sample": False}),
    )
    scheduler.set_timesteps(sampling.diffusion_steps, mode="trailing")
    for step in scheduler.timesteps:
        estimate = tokenizer.decoder(image, step, latent)
        image = scheduler.step(estimate.float(), step, image).prev_sample
    return image

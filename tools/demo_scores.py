"""Scores of the packaged demo weights on held-out worlds, and the model card that reports them."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from demo_data import S2_MEAN, S2_STD, held_out
from safetensors.torch import load_file
from terratorch.models.backbones.terramind.model.generate import GenerationSampler

from terramind_xr.modalities import lulc_classes, modalities
from terramind_xr.model import miniature

PACKAGE = Path(__file__).parents[1] / "src" / "terramind_xr" / "demo"
COUNT = 128
S2, LULC, NDVI = "untok_sen2l2a@224", "tok_lulc@224", "tok_ndvi@224"
BANDS = modalities["S2L2A"].band_names
SWAPS = (("B03", "B11"), ("B02", "B04"), ("B04", "B08"), ("B08", "B11"), ("B11", "B12"))


def packaged() -> dict[str, Any]:
    """The backbone and the tokenizers as a user gets them: half-precision files, read strictly."""
    config = json.loads((PACKAGE / "config.json").read_text())
    models: dict[str, Any] = {"backbone": miniature.build_backbone(config)}
    models |= {name: miniature.build_tokenizer(config, name) for name in ("LULC", "NDVI")}
    for name, model in models.items():
        stem = name if name == "backbone" else f"tokenizer_{name.lower()}"
        state = load_file(PACKAGE / f"{stem}.safetensors")
        model.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
    return models


@torch.no_grad()
def greedy(model: Any, inputs: dict[str, torch.Tensor], target: str, hidden: float = 0.0) -> torch.Tensor:
    """(tile, 14, 14) most likely tokens, by terratorch's own forward pass."""
    tokens = []
    for start in range(0, len(inputs[S2]), 16):
        mod_dict = {}
        for key, tensor in inputs.items():
            part = tensor[start : start + 16]
            mask = torch.rand(len(part), 196, generator=torch.Generator().manual_seed(start)) < hidden
            mod_dict[key] = {"tensor": part, "input_mask": mask}
        size = len(inputs[S2][start : start + 16])
        mod_dict[target] = {
            "tensor": torch.zeros(size, 196, dtype=torch.long),
            "input_mask": torch.ones(size, 196, dtype=torch.bool),
            "target_mask": torch.zeros(size, 196, dtype=torch.bool),
        }
        logits, _ = GenerationSampler(model).forward_enc_dec_maskgit_batched(mod_dict, target)
        tokens.append(logits.argmax(-1).unflatten(-1, (14, 14)))
    return torch.cat(tokens)


@torch.no_grad()
def class_map(tokenizer: Any, tokens: torch.Tensor) -> np.ndarray:
    parts = [tokenizer.decode_tokens(part, image_size=(224, 224)).argmax(1) for part in tokens.split(16)]
    return torch.cat(parts).numpy()


@torch.no_grad()
def ndvi_map(tokenizer: Any, tokens: torch.Tensor, steps: int, clamp: bool) -> np.ndarray:
    """(tile, y, x) NDVI by DDIM."""
    from terratorch.models.backbones.terramind.tokenizer.scheduling import DDIMScheduler

    scheduler = DDIMScheduler.from_config(
        tokenizer.noise_scheduler.config, thresholding=clamp, clip_sample=clamp
    )
    generator = torch.Generator().manual_seed(0)
    parts = [
        tokenizer.decode_tokens(
            part,
            image_size=(224, 224),
            timesteps=steps,
            scheduler=scheduler,
            generator=generator,
            verbose=False,
        )
        for part in tokens.split(16)
    ]
    ndvi = modalities["NDVI"]
    return torch.cat(parts)[:, 0].numpy() * ndvi.std[0] + ndvi.mean[0]


def evaluate() -> dict[str, float]:
    """Print and return every score; accuracies are shares of pixels, errors are in units of NDVI."""
    models = packaged()
    data = held_out(COUNT)
    optical = torch.from_numpy(data["S2L2A"])
    cover = data["LULC"]
    scores = land_cover_scores(models, optical, torch.from_numpy(cover))
    ndvi = modalities["NDVI"]
    truth = data["NDVI"][:, 0] * ndvi.std[0] + ndvi.mean[0]
    scores |= ndvi_scores(models, optical, torch.from_numpy(data["NDVI"]), truth)
    scores["seconds a tile, S2L2A to LULC"] = seconds_a_tile(models, optical)
    for name, score in scores.items():
        print(f"{name:<55} {score:.3f}")
    return scores


def land_cover_scores(models: dict[str, Any], optical: torch.Tensor, cover: torch.Tensor) -> dict[str, float]:
    truth = cover.numpy()
    tokenizer = models["LULC"]

    def accuracy(predicted: np.ndarray) -> float:
        return float((predicted == truth).mean())

    def score(image: torch.Tensor, hidden: float = 0.0, **others: torch.Tensor) -> float:
        inputs = {S2: image, **others}
        return accuracy(class_map(tokenizer, greedy(models["backbone"], inputs, LULC, hidden)))

    with torch.no_grad():
        own = torch.cat(
            [tokenizer.tokenize(F.one_hot(part, 10).movedim(-1, 1).float()) for part in cover.split(16)]
        )
        index = torch.cat([models["NDVI"].tokenize(vegetation(part)) for part in optical.split(16)])
    counts = np.stack([np.bincount(tile.ravel(), minlength=10) for tile in truth])
    predicted = class_map(tokenizer, greedy(models["backbone"], {S2: optical}, LULC))
    scores = {
        "LULC tokenizer, reconstruction": accuracy(class_map(tokenizer, own)),
        "LULC from S2L2A, greedy": accuracy(predicted),
        "LULC baseline: majority class of all tiles": counts.sum(0).max() / counts.sum(),
        "LULC baseline: true majority class of each tile": counts.max(1).sum() / counts.sum(),
        "LULC from S2L2A, half of the patches hidden": score(optical, 0.5),
        "LULC from S2L2A and true NDVI tokens": score(optical, **{NDVI: index.flatten(1).long()}),
    }
    for entry in lulc_classes[1:]:
        here = truth == entry.code
        scores[f"LULC recall, {entry.name}"] = float((predicted[here] == entry.code).mean())
    numbers = optical.numpy() * S2_STD + S2_MEAN
    for pair in SWAPS:
        order = list(range(12))
        one, other = (BANDS.index(band) for band in pair)
        order[one], order[other] = other, one
        swapped = torch.from_numpy(((numbers[:, order] - S2_MEAN) / S2_STD).astype(np.float32))
        scores[f"LULC, {pair[0]} and {pair[1]} swapped"] = score(swapped)
    return scores


def vegetation(optical: torch.Tensor) -> torch.Tensor:
    """Standardised (tile, 1, y, x) NDVI of standardised bands."""
    numbers = optical.numpy() * S2_STD + S2_MEAN
    index = (numbers[:, 7] - numbers[:, 3]) / (numbers[:, 7] + numbers[:, 3])
    ndvi = modalities["NDVI"]
    return torch.from_numpy(((index - ndvi.mean[0]) / ndvi.std[0])[:, None].astype(np.float32))


def ndvi_scores(
    models: dict[str, Any], optical: torch.Tensor, index: torch.Tensor, truth: np.ndarray
) -> dict[str, float]:
    def error(values: np.ndarray) -> float:
        return float(np.abs(values - truth).mean())

    with torch.no_grad():
        own = torch.cat([models["NDVI"].tokenize(part) for part in index.split(16)])
    tokens = greedy(models["backbone"], {S2: optical}, NDVI)
    scores = {
        "NDVI baseline: mean of all tiles, mean absolute error": error(np.full_like(truth, truth.mean())),
        "NDVI baseline: true mean of each tile": error(truth.mean((1, 2), keepdims=True) + 0 * truth),
    }
    for clamp in (True, False):
        for steps in (10, 1):
            how = f"{steps} DDIM step{'s' if steps > 1 else ''}, {'with' if clamp else 'without'} clamp"
            scores[f"NDVI tokenizer, reconstruction, {how}"] = error(
                ndvi_map(models["NDVI"], own, steps, clamp)
            )
            scores[f"NDVI from S2L2A, {how}"] = error(ndvi_map(models["NDVI"], tokens, steps, clamp))
    return scores


def seconds_a_tile(models: dict[str, Any], optical: torch.Tensor) -> float:
    """Seconds from S2L2A to the class map of one tile, alone in its batch: the best of five."""
    timings = []
    for tile in optical[:5]:
        start = time.perf_counter()
        class_map(models["LULC"], greedy(models["backbone"], {S2: tile[None]}, LULC))
        timings.append(time.perf_counter() - start)
    return min(timings)


def write_model_card(scores: dict[str, float], work: Path) -> None:
    """Write ``MODEL_CARD.md`` beside the weights: how they were made, and every score."""
    rows = "\n".join(f"| {name} | {score:.3f} |" for name, score in scores.items())
    minutes = "\n".join(
        f"| {path.stem} | {torch.load(path, weights_only=True)['minutes']:.1f} |"
        for path in sorted(work.glob("*.pt"))
    )
    sizes = ", ".join(
        f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in sorted(PACKAGE.glob("*.safetensors"))
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "terratorch", "diffusers", "numpy"))
    (PACKAGE / "MODEL_CARD.md").write_text(f"""# The demo model

A miniature of TerraMind, of terratorch's own classes, for examples and tests without a network.
**Not for science**: it was trained on the procedural world of `terramind_xr.synthetic` alone, and knows
no real landscape. No real data was used to train, tune or select it.

Inputs S2L2A, and LULC and NDVI as tokens; outputs LULC and NDVI. Sizes are in `config.json`; the weights
are in half precision ({sizes}).

Made by `python tools/train_demo.py` (fixed seed) with Python {platform.python_version()}, {packages},
on two CPU cores that were shared with other work.

| step | minutes |
|---|---|
{minutes}

Scores on {COUNT} held-out tiles of 224 × 224 pixels, from worlds whose seeds were not trained on, by
`python tools/train_demo.py --step evaluate`. Accuracies and recalls are shares of pixels; NDVI errors are
mean absolute errors. "Clamp" is upstream's threshold at one standard deviation.

| score | value |
|---|---|
{rows}
""")

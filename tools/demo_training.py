"""Losses and training loop of the demo model: its tokenizers first, then the backbone on their tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from demo_data import Array, Tiles, ahead, disturbed, standardised
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from terramind_xr.facts import PATCH, TILE, modalities

SEED = 20251123
GRID = TILE // PATCH
PATCHES = GRID * GRID
PIXELS = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM")
TOKENS = ("S2L2A", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")
BUDGET = 2 * PATCHES  # patches that the encoder sees of each tile at most, mostly
EVERY = 100  # steps between checkpoints

Loss = Callable[[Any], torch.Tensor]


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: linear warm-up, then a cosine to zero."""
    warm = min(100, steps // 10)
    return peak * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def fit(
    name: str,
    model: torch.nn.Module,
    draw: Callable[[np.random.Generator], Any],
    loss_of: Loss,
    *,
    work: Path,
    steps: int,
    peak: float,
) -> None:
    """Train until `steps`, from the last checkpoint if there is one.

    Every step draws its batch and its random numbers from generators of its own: a run that was broken and
    resumed does what an unbroken one does.
    """
    path = work / f"{name}.pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    start, minutes, mean = 0, 0.0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, minutes, mean = state["step"], state["minutes"], state["loss"]
    model.train()
    began = time.time() - 60 * minutes
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=steps, completed=start)
        batches = ahead(lambda step: draw(np.random.default_rng([SEED, step])), start, steps)
        for step, batch in enumerate(batches, start):
            torch.manual_seed(SEED + step)
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps, peak)
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            mean = 0.98 * mean + 0.02 * loss.item() if step else loss.item()
            progress.update(task, advance=1, description=f"{name} loss {mean:.3f}")
            if (step + 1) % EVERY == 0 or step + 1 == steps:
                minutes = (time.time() - began) / 60
                progress.console.print(f"{name} step {step + 1} loss {mean:.4f} minutes {minutes:.1f}")
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "step": step + 1, "minutes": minutes, "loss": mean}, path)
    model.eval()


def train_tokenizer(model: Any, modality: str, tiles: Tiles, work: Path, steps: int, size: int = 16) -> None:
    """Train a tokenizer to give back what it was given: class codes, or pixels by diffusion."""

    def draw(rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(turned(tiles.standard(modality, rng.integers(len(tiles), size=size)), rng))

    def class_loss(codes: torch.Tensor) -> torch.Tensor:
        logits, _ = model(one_hot(codes))
        return F.cross_entropy(logits, codes)

    def diffusion_loss(clean: torch.Tensor) -> torch.Tensor:
        # Half of the draws near pure noise, where a few DDIM steps spend their time
        count = len(clean)
        late = torch.rand(count) < 0.5
        times = torch.where(late, torch.randint(900, 1000, (count,)), torch.randint(0, 1000, (count,)))
        noised = model.noise_scheduler.add_noise(clean, torch.randn_like(clean), times)
        estimate, _ = model.train_forward(clean, noised, times)
        return F.mse_loss(estimate, clean)

    name, loss = f"tokenizer-{modality.lower()}", class_loss if modality == "LULC" else diffusion_loss
    fit(name, model, draw, loss, work=work, steps=steps, peak=2e-3)


def turned(values: Array, rng: np.random.Generator) -> Array:
    """Tiles (tile, …, y, x) in one of eight orientations: a tokenizer need not know the sun or the radar."""
    values = np.rot90(values, rng.integers(4), axes=(-2, -1))
    return np.ascontiguousarray(values[..., ::-1] if rng.integers(2) else values)


def one_hot(codes: torch.Tensor) -> torch.Tensor:
    return F.one_hot(codes, 10).movedim(-1, 1).float()


@torch.no_grad()
def tokenize(tokenizers: dict[str, Any], tiles: Tiles, work: Path) -> dict[str, Array]:
    """Tokens of all tiles by modality, (tile, patch) int64; kept in the work folder."""
    tokens = {}
    for name, tokenizer in tokenizers.items():
        path = work / f"tokens-{name.lower()}.npy"
        if not path.exists():
            parts = []
            for chosen in np.array_split(np.arange(len(tiles)), max(len(tiles) // 32, 1)):
                values = torch.from_numpy(tiles.standard(name, chosen))
                values = one_hot(values) if name == "LULC" else values
                parts.append(tokenizer.tokenize(values).flatten(1).numpy().astype(np.int16))
            np.save(path, np.concatenate(parts))
        tokens[name] = np.load(path).astype(np.int64)
    return tokens


@dataclass(frozen=True)
class Exercise:
    """What the backbone sees of a batch of tiles, and what it has to say.

    Parameters
    ----------
    inputs
        By key of terratorch's modalities: pixels or tokens, and which patches are visible (tile, number).
    targets
        By modality: all tokens (tile, patch), and which of them to predict (tile, number).
    cover
        Land-cover codes (tile, y, x).
    """

    inputs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    targets: dict[str, tuple[torch.Tensor, torch.Tensor]]
    cover: torch.Tensor


ALONE = {"S2L2A": 0.32, "S2L1C": 0.12, "RGB": 0.18, "S1GRD": 0.12, "S1RTC": 0.14, "DEM": 0.12}
OPTICAL, RADAR = ("S2L2A", "S2L2A", "S2L1C", "RGB"), ("S1GRD", "S1RTC")


def chosen_inputs(rng: np.random.Generator) -> list[str]:
    """Modalities that are given as pixels: one, one of the usual combinations, or any."""
    kind = rng.random()
    if kind < 0.5:
        return [str(rng.choice(list(ALONE), p=list(ALONE.values())))]
    optical, radar = str(rng.choice(OPTICAL)), str(rng.choice(RADAR))
    if kind < 0.9:
        usual = ([radar, "DEM"], [optical, radar, "DEM"], [optical, radar], [optical, "DEM"])
        return usual[int(rng.choice(4, p=(0.4, 0.25, 0.15, 0.2)))]
    some = [name for name in PIXELS if rng.random() < 0.4]
    return some or ["S2L2A"]


def patches(rng: np.random.Generator, size: int, number: int) -> torch.Tensor:
    """`number` patches of each tile in raster order, scattered or beyond an edge (clouds, no data)."""
    score = rng.random((size, PATCHES))
    if rng.random() < 0.4:
        rows, columns = np.indices((GRID, GRID)).reshape(2, -1) / GRID
        angle = rng.random((size, 1)) * 2 * np.pi
        score = score * 0.3 + rows * np.sin(angle) + columns * np.cos(angle)
    return torch.from_numpy(np.sort(np.argsort(score, axis=1)[:, :number], axis=1))


def draw_exercise(tiles: Tiles, tokens: dict[str, Array], size: int, rng: np.random.Generator) -> Exercise:
    """Draw tiles, inputs, hidden patches and targets, in the manner of 4M (arXiv 2312.06647)."""
    chosen = rng.integers(len(tiles), size=size)
    everything = torch.arange(PATCHES).expand(size, -1)

    def visible() -> torch.Tensor:
        if rng.random() < 0.6:
            return everything
        return patches(rng, size, int(rng.integers(10, PATCHES)))

    pixels = chosen_inputs(rng)
    inputs = {}
    for name in pixels:
        values = standardised(name, disturbed(name, tiles.raw(name, chosen), rng))
        inputs[raw_key(name)] = torch.from_numpy(values), visible()
    rest = [name for name in TOKENS if name not in pixels or rng.random() < 0.1]
    # One at least is left as a target.
    for name in rng.permutation(rest)[: min(int(rng.choice(3, p=(0.65, 0.25, 0.1))), len(rest) - 1)]:
        rest.remove(str(name))
        inputs[token_key(str(name))] = torch.from_numpy(tokens[name][chosen]), visible()
    first = ["LULC"] if "LULC" in rest and rng.random() < 0.75 else []
    others = [str(name) for name in rng.permutation(rest) if name not in first]
    targets = {}
    for name in (first + others)[:2]:
        hidden = everything
        if rng.random() < 0.25:  # some of its tokens were decided in earlier steps
            known = patches(rng, size, int(rng.integers(10, PATCHES - 10)))
            inputs[token_key(name)] = torch.from_numpy(tokens[name][chosen]), known
            hidden = torch.ones(size, PATCHES, dtype=torch.bool).scatter_(1, known, False)
            hidden = hidden.nonzero()[:, 1].reshape(size, -1)
        targets[name] = torch.from_numpy(tokens[name][chosen]), hidden
    if rng.random() < 0.75:  # whole inputs, however many, cost most of the time
        inputs = within(BUDGET, inputs, rng)
    return Exercise(inputs, targets, torch.from_numpy(tiles.standard("LULC", chosen)))


def within(
    budget: int, inputs: dict[str, tuple[torch.Tensor, torch.Tensor]], rng: np.random.Generator
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The same inputs with no more than `budget` visible patches in all: the same share of each."""
    total = sum(shown.shape[1] for _, shown in inputs.values())
    if total <= budget:
        return inputs
    kept = {}
    for key, (values, shown) in inputs.items():
        number = max(shown.shape[1] * budget // total, 1)
        columns = np.sort(rng.permutation(shown.shape[1])[:number])
        kept[key] = values, shown[:, torch.from_numpy(columns)]
    return kept


def raw_key(name: str) -> str:
    key = modalities[name].raw_key
    assert key is not None
    return key


def token_key(name: str) -> str:
    key = modalities[name].token_key
    assert key is not None
    return key


def logits_of(model: Any, exercise: Exercise) -> dict[str, torch.Tensor]:
    """Logits of the hidden patches of each target (tile, number, token), the encoder run once.

    The path of terratorch's generation; what is hidden is left out rather than masked, which is the same.
    """
    parts, places = [], []
    for key, (values, shown) in exercise.inputs.items():
        embedded = model.encoder_embeddings[key]({"tensor": values})
        index = shown[..., None].expand(-1, -1, embedded["emb"].shape[-1])
        parts.append(embedded["x"].gather(1, index))
        places.append(embedded["emb"].gather(1, index))
    x, emb = torch.cat(parts, 1), torch.cat(places, 1)
    context = model.decoder_proj_context(model.forward_encoder(x + emb, None)) + emb
    logits = {}
    for name, (tokens, hidden) in exercise.targets.items():
        decoder = model.decoder_embeddings[token_key(name)]
        where = decoder.forward_embed({"tensor": torch.zeros_like(tokens)})["emb"]
        where = where.gather(1, hidden[..., None].expand(-1, -1, where.shape[-1]))
        logits[name] = decoder.forward_logits(
            model.forward_decoder(where + model.mask_token, context, None, None)
        )
    return logits


def token_loss(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    hidden: torch.Tensor,
    tokenizer: Any,
    cover: torch.Tensor | None,
) -> torch.Tensor:
    """Cross-entropy of the tokens, and the error of what the expected code decodes to."""
    codes = tokenizer.quantize.codebook
    loss = 0.5 * F.cross_entropy(logits.movedim(-1, 1), tokens.gather(1, hidden))
    expected = logits.softmax(-1) @ codes
    truth = codes[tokens]
    if cover is None:
        truth = truth.gather(1, hidden[..., None].expand(-1, -1, codes.shape[1]))
        return loss + 4 * F.mse_loss(expected, truth)
    latent = truth.scatter(1, hidden[..., None].expand(-1, -1, codes.shape[1]), expected)
    pixels = tokenizer.decode_quant(latent.movedim(-1, 1).unflatten(-1, (GRID, GRID)))
    return loss + 2 * F.cross_entropy(pixels, cover)


def spread_embeddings(model: Any, tokenizers: dict[str, Any]) -> None:
    """Begin the encoder's embeddings of tokens from their codes, so that like tokens are alike.

    Each token is seen too seldom to learn from its own few places in some thousand steps.
    """
    generator = torch.Generator().manual_seed(SEED)
    for name, tokenizer in tokenizers.items():
        codes = tokenizer.quantize.codebook.float()
        table = model.encoder_embeddings[token_key(name)].token_emb.weight
        directions = torch.randn(codes.shape[1], table.shape[1], generator=generator)
        with torch.no_grad():
            table.copy_((codes - codes.mean(0)) / codes.std(0) @ directions * 0.25)


def train_backbone(
    model: Any, tokenizers: dict[str, Any], tiles: Tiles, work: Path, steps: int, size: int = 16
) -> None:
    """Train the backbone to tell the tokens of any modality from any patches of any others."""
    tokens = tokenize(tokenizers, tiles, work)

    def loss_of(exercise: Exercise) -> torch.Tensor:
        total = torch.zeros(())
        for name, logits in logits_of(model, exercise).items():
            cover = exercise.cover if name == "LULC" else None
            total = total + token_loss(logits, *exercise.targets[name], tokenizers[name], cover)
        return total

    fit(
        "backbone",
        model,
        lambda rng: draw_exercise(tiles, tokens, size, rng),
        loss_of,
        work=work,
        steps=steps,
        peak=1.2e-3,
    )

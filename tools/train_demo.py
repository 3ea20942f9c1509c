"""Train the demo model on the procedural world: ``python tools/train_demo.py``.

Each step can be run alone (``--step backbone``) and goes on from its last checkpoint in ``--work``. Nothing
real is read: neither to train, nor to tune, nor to select.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from demo_data import Tiles, make_worlds
from demo_scores import evaluate, write_model_card
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from terratorch.models.backbones.terramind.model.generate import GenerationSampler

from terramind_xr.model import miniature

PACKAGE = Path(__file__).parents[1] / "src" / "terramind_xr" / "demo"
SEED = 20251123
S2, LULC, NDVI = "untok_sen2l2a@224", "tok_lulc@224", "tok_ndvi@224"
MODALITY = {LULC: "LULC", NDVI: "NDVI"}

Loss = Callable[[torch.nn.Module, dict[str, torch.Tensor]], torch.Tensor]


def config() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((PACKAGE / "config.json").read_text())
    return loaded


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: linear warm-up, then a cosine to zero."""
    warm = min(100, steps // 10)
    return peak * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def fit(
    name: str,
    model: torch.nn.Module,
    loss_of: Loss,
    batches: Callable[[int, int], Iterator[dict[str, torch.Tensor]]],
    *,
    work: Path,
    steps: int,
    peak: float,
) -> None:
    """Train until `steps`, from the last checkpoint if there is one; `batches(seed, count)` gives data."""
    path = work / f"{name}.pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    start, minutes = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, minutes = state["step"], state["minutes"]
    torch.manual_seed(SEED + start)
    random.seed(SEED + start)
    model.train()
    began, mean = time.time() - 60 * minutes, 0.0
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=steps, completed=start)
        for step, batch in enumerate(batches(SEED + start, steps - start), start):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps, peak)
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            mean = loss.item() if step == start else 0.98 * mean + 0.02 * loss.item()
            progress.update(task, advance=1, description=f"{name} loss {mean:.3f}")
            if (step + 1) % 200 == 0 or step + 1 == steps:
                minutes = (time.time() - began) / 60
                print(f"{name} step {step + 1} loss {mean:.4f} minutes {minutes:.1f}", flush=True)
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "step": step + 1,
                        "minutes": minutes,
                    },
                    path,
                )
    model.eval()


def load(name: str, model: torch.nn.Module, work: Path) -> torch.nn.Module:
    model.load_state_dict(torch.load(work / f"{name}.pt", weights_only=True)["model"])
    return model.eval().requires_grad_(False)


def train_lulc(work: Path, steps: int) -> None:
    model = miniature.build_tokenizer(config(), "LULC")

    def batches(seed: int, count: int) -> Iterator[dict[str, torch.Tensor]]:
        for cover in Tiles(work, seed).covers(16, count):
            yield {"LULC": torch.from_numpy(cover.astype(np.int64))}

    def loss_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        one_hot = F.one_hot(batch["LULC"], 10).movedim(-1, 1).float()
        logits, _ = model(one_hot)
        return F.cross_entropy(logits, batch["LULC"])

    fit("tokenizer-lulc", model, loss_of, batches, work=work, steps=steps, peak=2e-3)


def train_ndvi(work: Path, steps: int) -> None:
    model = miniature.build_tokenizer(config(), "NDVI")
    scheduler = model.noise_scheduler

    def loss_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        clean = batch["NDVI"]
        # Half of the draws near pure noise, where a few DDIM steps spend their time
        late = torch.rand(len(clean)) < 0.5
        times = torch.where(
            late, torch.randint(900, 1000, (len(clean),)), torch.randint(0, 1000, (len(clean),))
        )
        noised = scheduler.add_noise(clean, torch.randn_like(clean), times)
        predicted, _ = model.train_forward(clean, noised, times)
        return F.mse_loss(predicted, clean)

    fit("tokenizer-ndvi", model, loss_of, tensor_batches(work, 16), work=work, steps=steps, peak=2e-3)


def tensor_batches(work: Path, size: int) -> Callable[[int, int], Iterator[dict[str, torch.Tensor]]]:
    def batches(seed: int, count: int) -> Iterator[dict[str, torch.Tensor]]:
        for batch in Tiles(work, seed).batches(size, count):
            yield {name: torch.from_numpy(values) for name, values in batch.items()}

    return batches


def visible(tensor: torch.Tensor, share_hidden: float) -> dict[str, torch.Tensor]:
    """An input; in `share_hidden` of its samples a random part of the patches is hidden."""
    size = len(tensor)
    part = torch.rand(size, 1) * 0.9 * (torch.rand(size, 1) < share_hidden)
    return {"tensor": tensor, "input_mask": torch.rand(size, 196) < part}


def token_logits(
    model: Any, inputs: dict[str, dict[str, torch.Tensor]], targets: list[str]
) -> dict[str, torch.Tensor]:
    """Logits at all 196 places of each target: the path of generation, the encoder run once."""
    embedded = {key: model.encoder_embeddings[key](d) for key, d in inputs.items()}
    x, emb, mask, _ = GenerationSampler(model).forward_mask_encoder_generation(embedded)
    context = model.decoder_proj_context(model.forward_encoder(x + emb, mask)) + emb
    logits = {}
    for key in targets:
        decoder = model.decoder_embeddings[key]
        places = {"tensor": torch.zeros(len(x), 196, dtype=torch.long)}  # only their positions are used
        query = decoder.forward_embed(places)["emb"] + model.mask_token
        logits[key] = decoder.forward_logits(model.forward_decoder(query, context, mask, None))
    return logits


def token_loss(
    logits: torch.Tensor, tokens: torch.Tensor, tokenizer: Any, cover: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy of the tokens, and the error of what the expected code decodes to."""
    loss = F.cross_entropy(logits.movedim(-1, 1), tokens)
    codebook = tokenizer.quantize.codebook
    code = (logits.softmax(-1) @ codebook).movedim(-1, 1).unflatten(-1, (14, 14))
    if cover is None:
        return 0.5 * loss + 4 * F.mse_loss(code, tokenizer.tokens_to_embedding(tokens.unflatten(1, (14, 14))))
    return 0.5 * loss + 2 * F.cross_entropy(tokenizer.decode_quant(code), cover)


def train_backbone(work: Path, steps: int) -> None:
    model = miniature.build_backbone(config())
    tokenizers = {
        key: load(f"tokenizer-{name.lower()}", miniature.build_tokenizer(config(), name), work)
        for key, name in MODALITY.items()
    }

    def loss_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            one_hot = F.one_hot(batch["LULC"], 10).movedim(-1, 1).float()
            tokens = {
                LULC: tokenizers[LULC].tokenize(one_hot).flatten(1).long(),
                NDVI: tokenizers[NDVI].tokenize(batch["NDVI"]).flatten(1).long(),
            }
        inputs = {S2: visible(batch["S2L2A"], share_hidden=0.3)}
        targets = [LULC, NDVI]
        if torch.rand(()) < 0.3:  # one output was generated before, and is seen
            seen = targets.pop(int(torch.randint(2, ())))
            inputs[seen] = visible(tokens[seen], share_hidden=0.5)
        with torch.autocast("cpu", torch.bfloat16):
            logits = token_logits(model, inputs, targets)
        cover = {LULC: batch["LULC"], NDVI: None}
        return sum(
            (token_loss(logits[key].float(), tokens[key], tokenizers[key], cover[key]) for key in targets),
            start=torch.zeros(()),
        )

    fit("backbone", model, loss_of, tensor_batches(work, 16), work=work, steps=steps, peak=1e-3)


def export(work: Path) -> None:
    """Write the weights in half precision into the package."""
    from safetensors.torch import save_file

    models = {"backbone": miniature.build_backbone(config())}
    models |= {
        f"tokenizer-{name.lower()}": miniature.build_tokenizer(config(), name) for name in MODALITY.values()
    }
    for name, model in models.items():
        state = load(name, model, work).state_dict()
        path = PACKAGE / f"{name.replace('-', '_')}.safetensors"
        save_file({key: value.half().contiguous().clone() for key, value in state.items()}, path)
        path.chmod(0o644)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    steps = {
        "worlds": lambda work: make_worlds(work),
        "tokenizer-lulc": lambda work: train_lulc(work, 900),
        "tokenizer-ndvi": lambda work: train_ndvi(work, 450),
        "backbone": lambda work: train_backbone(work, 1600),
        "export": export,
        "evaluate": lambda work: write_model_card(evaluate(), work),
    }
    parser.add_argument("--step", choices=[*steps, "all"], default="all")
    parser.add_argument("--work", type=Path, default=Path("out/train_demo"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, step in steps.items():
        if arguments.step in (name, "all"):
            step(arguments.work)


if __name__ == "__main__":
    main()

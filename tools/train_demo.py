"""Train the demo model on the procedural world: ``python tools/train_demo.py``.

Each step can be run alone (``--step backbone``) and goes on from its last checkpoint in ``--work``, which
takes some 19 GB for the stored tiles. Nothing real is read: neither to train, nor to tune, nor to select.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from demo_card import write_digests, write_model_card
from demo_data import Tiles, cores, make_worlds
from demo_training import spread_embeddings, train_backbone, train_tokenizer

from terramind_xr.model import miniature

PACKAGE = Path(__file__).parents[1] / "src" / "terramind_xr" / "demo"
TILES = 5000
TOKENIZER_STEPS = {"LULC": 1400, "NDVI": 700, "DEM": 800, "S1GRD": 600, "S1RTC": 600, "S2L2A": 900}
BACKBONE_STEPS = 2100


def config() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((PACKAGE / "config.json").read_text())
    return loaded


def trained(name: str, model: torch.nn.Module, work: Path) -> Any:
    """A network with the weights of its last checkpoint, frozen."""
    model.load_state_dict(torch.load(work / f"{name}.pt", weights_only=True)["model"])
    return model.eval().requires_grad_(False)


def tokenizers(work: Path) -> dict[str, Any]:
    return {
        name: trained(f"tokenizer-{name.lower()}", miniature.build_tokenizer(config(), name), work)
        for name in TOKENIZER_STEPS
    }


def fit_tokenizer(name: str, work: Path) -> None:
    torch.manual_seed(0)
    model = miniature.build_tokenizer(config(), name)
    train_tokenizer(model, name, Tiles(work), work, TOKENIZER_STEPS[name])


def fit_backbone(work: Path) -> None:
    torch.manual_seed(0)
    model = miniature.build_backbone(config())
    spread_embeddings(model, tokenizers(work))
    train_backbone(model, tokenizers(work), Tiles(work), work, BACKBONE_STEPS)


def export(work: Path) -> None:
    """Write the weights in half precision into the package, and their digests."""
    from safetensors.torch import save_file

    models: dict[str, Any] = {
        f"tokenizer-{name.lower()}": miniature.build_tokenizer(config(), name) for name in TOKENIZER_STEPS
    }
    models["backbone"] = miniature.build_backbone(config())
    for name, model in models.items():
        path = PACKAGE / f"{name.replace('-', '_')}.safetensors"
        built = miniature.built(model)
        trained(name, model, work)
        state = {
            key: value.half().contiguous().clone()
            for key, value in model.state_dict().items()
            if key not in built
        }
        save_file(state, path)
        path.chmod(0o644)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    write_digests()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    steps = {
        "worlds": lambda work: make_worlds(work, TILES, cores()),
        **{f"tokenizer-{name.lower()}": partial(fit_tokenizer, name) for name in TOKENIZER_STEPS},
        "backbone": fit_backbone,
        "export": export,
        "card": write_model_card,
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

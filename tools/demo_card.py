"""Model card of the demo model, and the digests by which tests know its weights and its world."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from demo_data import STORED

from terramind_xr.synthetic import window

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "terramind_xr" / "demo"
WINDOW: dict[str, Any] = {"seed": 3, "y": 9_990, "x": 40_003, "height": 64, "width": 64}


def write_digests() -> None:
    """Write ``digests.json``: SHA-256 of every weights file, and of a window of the world as trained on."""
    files = {path.name: sha256(path.read_bytes()) for path in sorted(PACKAGE.glob("*.safetensors"))}
    part = window(**WINDOW, modalities=STORED)
    world = {name: sha256(np.ascontiguousarray(part[name]).tobytes()) for name in STORED}
    content = {"files": files, "world": {"window": WINDOW, "modalities": world}}
    (PACKAGE / "digests.json").write_text(json.dumps(content, indent=2) + "\n")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ORIGIN = """The tokenizers of LULC and NDVI are those of an earlier world; the other four were trained on
this one. The backbone went on from an earlier one that read S2L2A, LULC and NDVI alone, with
fresh embeddings for all else, in two runs of 1,100 and 1,000 steps of 16 tiles (33 and 28
minutes on one thread of a shared machine). Between the runs the embeddings of tokens were
begun anew from their codes, as `tools/demo_training.py` now does at the start. `python
tools/train_demo.py` makes such weights from nothing; they will give like scores, not the same
bytes."""
"""How the weights in the package came about: to be said anew when they are."""


def write_model_card(work: Path) -> None:
    """Write ``MODEL_CARD.md`` beside the weights: how they were made, and every score."""
    scores = work / "scores.md"
    command = [sys.executable, str(ROOT / "benchmarks" / "demo_quality.py"), "--markdown", str(scores)]
    subprocess.run(command, check=True)
    write_card(scores.read_text())


def write_card(scores: str) -> None:
    """Write the card around the scores of ``benchmarks/demo_quality.py --markdown``."""
    files = sorted(PACKAGE.glob("*.safetensors"))
    rows = [f"| {path.name} | {path.stat().st_size / 1e6:.1f} |" for path in files]
    total = sum(path.stat().st_size for path in PACKAGE.glob("*.safetensors")) / 1e6
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "terratorch", "diffusers", "numpy"))
    (PACKAGE / "MODEL_CARD.md").write_text(f"""# The demo model

<!-- --8<-- [start:card] -->
## Model card

A miniature of TerraMind, of terratorch's own classes, for examples and tests without a network.
**Not for science**: it was trained on the procedural world of `terramind_xr.synthetic` alone, and knows
no real landscape. No real data was used to train, tune or select it.

- Inputs: S2L2A, S2L1C, RGB, S1GRD, S1RTC, DEM as pixels; S2L2A, S1GRD, S1RTC, DEM, LULC, NDVI as tokens.
- Outputs and tokenizers: S2L2A, S1GRD, S1RTC, DEM, LULC, NDVI.
- Sizes and codebooks are in `config.json`; the weights are in half precision, {total:.1f} MB in all.
  Embeddings that are input and output in one are stored once, position embeddings not at all.
- Trained as 4M (arXiv 2312.06647): any inputs, hidden patches, and tokens of the output that earlier
  decoding steps had decided. Optical inputs come under varying light, haze and calibration, one in five with
  the offset of 1000 left in, as the released training data of TerraMind is mixed in it, too.

## Training

5,000 tiles of as many worlds, with {packages}.

{ORIGIN}

| file | MB |
|---|---|
{chr(10).join(rows)}

What the world does not make predictable, the model cannot know: heights from reflectance or radar, a
season from relief. What it has not learnt well is in the scores: land cover from RGB or relief alone,
Sentinel-2 from anything.

## Scores

{scores}<!-- --8<-- [end:card] -->
""")

"""What exported decoders win in speed, and what they cost: each precision beside torch in fp32.

    python benchmarks/precision.py                                           # the demo, under a minute
    python benchmarks/precision.py --model random --outputs LULC NDVI        # full-size decoders: minutes
    python benchmarks/precision.py --model terramind_v1_base --scene scene.nc

The model is exported in each precision to a temporary folder (int8 calibrated on the fixed synthetic scene),
then all generate the same tiles from the same Sentinel-2 numbers. "random" is the tiny model's real size with
random weights: its times are those of the released model, its agreement says nothing of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scene import build_terratorch, print_versions, save_weights

import terramind_xr
from terramind_xr.facts import TILE, modalities
from terramind_xr.model.batch import Batch
from terramind_xr.model.chain import generate_tokens
from terramind_xr.model.decoding import decode_tokens
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import Recipe, find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import standardize

INPUT = "S2L2A"


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--model", default="demo", help='name, folder, or "random" (%(default)s)')
    parser.add_argument("--outputs", nargs="+", default=["LULC", "DEM"], help="(LULC DEM)")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "bf16", "int8"], help="(fp32 bf16 int8)")
    parser.add_argument("--no-backbone", action="store_true", help="leave out the converted backbone")
    parser.add_argument("--scene", help="netCDF or Zarr with S2L2A; by default a synthetic one")
    parser.add_argument("--tiles", type=int, default=4, help="tiles to generate (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="diffusion steps (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--threads", type=int, help="of torch and OpenVINO; by default what torch chooses")
    return parser.parse_args()


def batch_of(path: str | None, tiles: int) -> Batch:
    """Standardised tiles of a scene, and their places."""
    side = int(np.ceil(np.sqrt(tiles)))
    if path is None:
        pixels = terramind_xr.synthetic.scene(side * TILE, seed=11)[INPUT]
    else:
        pixels = (xr.open_zarr(path) if Path(path).is_dir() else xr.open_dataset(path))[INPUT]
    values = standardize(modalities[INPUT], pixels[:, : side * TILE, : side * TILE].values.astype(np.float32))
    places = [(y * TILE, x * TILE) for y in range(side) for x in range(side)][:tiles]
    cut = np.stack([values[:, y : y + TILE, x : x + TILE] for y, x in places])
    return Batch({INPUT: cut}, {INPUT: np.ones((tiles, 14, 14), bool)}, np.array(places))


def measured(run: Callable[[], Any], repeat: int) -> tuple[Any, float]:
    """What the first run gives, and the least seconds of the further ones."""
    result, seconds = run(), []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def tokens_of(recipe: Recipe, name: str, batch: Batch, execution: Execution) -> NDArray[np.int64]:
    with session(execution) as device:
        return generate_tokens(recipe, batch, (name,), Sampling(), device)[name].cpu().numpy()


def agreement(name: str, found: NDArray[np.float32], true: NDArray[np.float32]) -> str:
    """How near pixels are to those in fp32: labels, or errors in the modality's unit."""
    if name == "LULC":
        return f"labels {(found.argmax(1) == true.argmax(1)).mean():.2%}"
    error = found - true
    unit = modalities[name].units
    unit = "" if unit == "1" else f" {unit}"
    numbers = {"MAE": np.abs(error).mean(), "mean error": error.mean(), "of sd": true.std()}
    return ", ".join(f"{label} {value:.3g}{unit}" for label, value in numbers.items())


def compare(name: str, model: str, folder: Path, batch: Batch, arguments: argparse.Namespace) -> None:
    """Rows of one modality."""
    plain, sampling = find(model, {name}), Sampling(diffusion_steps=arguments.steps)
    cases = {"torch fp32": (plain, Execution("cpu")), "torch bf16": (plain, Execution("cpu", "bf16"))}
    for precision in arguments.precisions:
        start = time.perf_counter()
        path = terramind_xr.export(model, name, folder / f"{name}-{precision}", precision=precision)
        size = sum(each.stat().st_size for each in path.glob("decoder_*")) / 1e6
        print(f"  exported {name} in {precision}: {time.perf_counter() - start:.0f} s, {size:.1f} MB")
        cases[f"OpenVINO {precision}"] = find(path, {name}), Execution("cpu")
    if "int8" in arguments.precisions and not arguments.no_backbone:
        path = terramind_xr.export(model, name, folder / f"{name}-backbone", backbone=True)
        cases["int8 with backbone"] = find(path, {name}), Execution("cpu")
    known = tokens_of(plain, name, batch, Execution("cpu"))
    pixels, before, before_tokens = None, 0.0, 0.0
    for label, (recipe, execution) in cases.items():

        def decode(recipe: Recipe = recipe, execution: Execution = execution) -> NDArray[np.float32]:
            return decode_tokens(recipe, name, known, batch.places, sampling, execution)

        found, seconds = measured(decode, arguments.repeat)
        tokens, backbone = measured(partial(tokens_of, recipe, name, batch, execution), arguments.repeat)
        if pixels is None:
            pixels, before, before_tokens = found, seconds, backbone
        same, whole = (tokens == known).mean(), ""
        if same < 1:  # what a user sees: decoded from tokens of its own
            own = decode_tokens(recipe, name, tokens, batch.places, sampling, execution)
            whole = f", with them {agreement(name, own, pixels)}"
        print(
            f"{name:<6}{label:<19}{seconds / len(known):>8.3f} s a tile {before / seconds:>6.2f} ×, "
            f"{agreement(name, found, pixels)}; backbone {backbone / len(known):.3f} s "
            f"{before_tokens / backbone:.2f} ×, tokens {same:.2%}{whole}",
            flush=True,
        )


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print_versions("terramind_xr", "terratorch", "torch", "openvino", "nncf", "numpy")
    print(f"options    model {arguments.model}, {arguments.tiles} tiles, {arguments.steps} diffusion steps\n")
    batch = batch_of(arguments.scene, arguments.tiles)
    with tempfile.TemporaryDirectory() as temporary:
        model, folder = arguments.model, Path(temporary)
        if model == "random":
            save_weights(build_terratorch(arguments.outputs), arguments.outputs, folder)
            model = temporary
        for name in arguments.outputs:
            compare(name, model, folder / "exported", batch, arguments)


if __name__ == "__main__":
    main()

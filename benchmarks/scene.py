"""Throughput of a whole scene: terramind_xr, the raw forward of the same model, and terratorch's own tiling.

    python benchmarks/scene.py                                      # 2240², tiny: some minutes
    python benchmarks/scene.py --size 672 --model demo --repeat 5

All run in one process, on the same pixels and with the same weights. "tiny" has its real size and random
weights, which cost the same time as trained ones. The repetitions are interleaved, so that a machine that
slows down slows all of them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import math
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import rioxarray  # noqa: F401 (gives arrays their .rio)
import torch
import xarray as xr
from numpy.typing import NDArray

import terramind_xr
from terramind_xr.facts import PATCH, TILE, lulc_classes, modalities
from terramind_xr.model import chain
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import Recipe, find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import standardize
from terramind_xr.options import Precision

INPUT = "S2L2A"
OVERLAP = 32
DIFFUSION_STEPS = 10
"""Given to terratorch as well; a part of the cost of every output but LULC."""
SAMPLING = Sampling(diffusion_steps=DIFFUSION_STEPS)
PIXEL = 10e-3
"""Side of a pixel in km."""

# The cases, in the order in which they run and are printed.
RAW, OURS, OURS_BLENDED = "raw forward", "no overlap", f"overlap {OVERLAP}"
PEER_RAW, PEER, PEER_BLENDED = "terratorch raw forward", "terratorch no overlap", "terratorch defaults"

Maps = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Call:
    """What is the same for all cases."""

    outputs: tuple[str, ...]
    batch_size: int
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Case:
    """Something to time: `run` covers the scene with `tiles` tiles and returns its maps, if it makes any."""

    run: Callable[[], Maps | None]
    tiles: int


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=2240, help="side of the scene in pixels (%(default)s)")
    parser.add_argument("--model", choices=("tiny", "demo"), default="tiny", help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="tiles to one run (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--outputs", nargs="+", default=["LULC"], help="modalities to generate (LULC)")
    parser.add_argument("--threads", type=int, help="of torch; by default what torch chooses")
    arguments = parser.parse_args()
    if arguments.size % TILE or arguments.size < 2 * TILE:
        parser.error(
            f"--size {arguments.size}: expected a multiple of {TILE}, at least {2 * TILE}. Without overlap, "
            "all then run the same tiles; of other sizes terratorch may leave a row uncovered and fail."
        )
    return arguments


def random_scene(size: int) -> xr.Dataset:
    """Random digital numbers in memory as lazy chunks: reading costs next to nothing."""
    bands = modalities[INPUT].band_names
    values = np.random.default_rng(0).integers(1, 4000, (len(bands), size, size), dtype=np.uint16)
    data = xr.DataArray(
        dask.array.from_array(values, chunks=(-1, 512, 512)),
        dims=("band", "y", "x"),
        coords={
            "band": list(bands),
            "y": 5_000_000.0 - 10 * np.arange(size),
            "x": 500_000.0 + 10 * np.arange(size),
        },
        attrs={"units": modalities[INPUT].units},
    )
    return data.rio.write_crs("EPSG:32632").to_dataset(name=INPUT)


def build_terratorch(outputs: Sequence[str]) -> torch.nn.Module:
    """Terratorch's own generation model with random weights, greedy and standardising."""
    from terratorch.registry import FULL_MODEL_REGISTRY

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the weights are random
        model = FULL_MODEL_REGISTRY.build(
            "terramind_v1_tiny_generate",
            modalities=[INPUT],
            output_modalities=list(outputs),
            standardize=True,
            temps=0.0,
            timesteps=DIFFUSION_STEPS,
        )
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # layers that start at zero would give one class everywhere
                parameter.normal_(std=0.02)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def save_weights(model: torch.nn.Module, outputs: Sequence[str], folder: Path) -> None:
    """Weights of terratorch's model as the files of the hub, for terramind_xr to load."""
    torch.save(model.sampler.model.state_dict(), folder / "TerraMind_v1_tiny.pt")
    for name in outputs:
        tokenizer = model.tokenizer[modalities[name].token_key]
        torch.save(tokenizer.state_dict(), folder / f"TerraMind_Tokenizer_{name}.pt")


def cut_tiles(scene: xr.Dataset) -> NDArray[np.uint16]:
    """All tiles without overlap, row by row: (tile, band, y, x)."""
    values = scene[INPUT].values
    bands, size = values.shape[:2]
    grid = values.reshape(bands, size // TILE, TILE, size // TILE, TILE)
    return np.ascontiguousarray(grid.transpose(1, 3, 0, 2, 4)).reshape(-1, bands, TILE, TILE)


def run_raw(recipe: Recipe, tiles: NDArray[np.float32], call: Call) -> None:
    """Batches through the model and nothing else: no reading, standardising, tiling, blending or dask."""
    side = math.isqrt(len(tiles))
    places = TILE * np.array(list(np.ndindex(side, side)))
    visible = np.ones((call.batch_size, TILE // PATCH, TILE // PATCH), bool)
    for first in range(0, len(tiles), call.batch_size):
        some = slice(first, first + call.batch_size)
        pixels = tiles[some]
        batch = Batch({INPUT: pixels}, {INPUT: visible[: len(pixels)]}, places[some])
        chain.generate(recipe, batch, call.outputs, SAMPLING, Execution(precision=call.precision))


def run_scene(scene: xr.Dataset, options: dict[str, Any]) -> Maps:
    """The whole of terramind_xr: from the call to the finished arrays."""
    result = terramind_xr.generate(scene, **options)
    arrays = dask.compute(*(result[name].data for name in options["outputs"]), scheduler="threads")
    return dict(zip(options["outputs"], arrays, strict=True))


def generated(model: torch.nn.Module, outputs: Sequence[str], batch: torch.Tensor) -> torch.Tensor:
    """Terratorch's forward as its tiled inference needs it: one tensor for all outputs."""
    result = model({INPUT: batch.to(next(model.parameters()).device)})
    return torch.cat([result[name] for name in outputs], dim=1).cpu()


def run_terratorch_raw(model: torch.nn.Module, tiles: torch.Tensor, call: Call) -> None:
    """Batches through terratorch's model and nothing else."""
    with torch.no_grad():
        for batch in tiles.split(call.batch_size):
            generated(model, call.outputs, batch)


def run_terratorch(model: torch.nn.Module, scene: torch.Tensor, call: Call, options: dict[str, Any]) -> Maps:
    """Terratorch's tiled inference on a scene in memory, float32 already, to maps as ours."""
    from terratorch.tasks.tiled_inference import tiled_inference

    forward = partial(generated, model, call.outputs)
    blended = tiled_inference(forward, scene, batch_size=call.batch_size, **options)[0]
    channels = [len(lulc_classes) if name == "LULC" else len(modalities[name].bands) for name in call.outputs]
    return {
        name: (part.argmax(0).to(torch.uint8) if name == "LULC" else part).numpy()
        for name, part in zip(call.outputs, blended.split(channels), strict=True)
    }


def terratorch_tiles(size: int, *, stride: int, delta: int, **_: object) -> int:
    """Tiles that terratorch's tiled inference runs (``get_input_chips`` in 1.2.11)."""
    return (len(range(0, size + 2 * delta - TILE - 1, stride)) + 1) ** 2


def our_cases(scene: xr.Dataset, model: str, call: Call) -> dict[str, Case]:
    """The raw forward, and terramind_xr without and with overlap."""
    recipe = find(model, set(call.outputs))
    tiles = cut_tiles(scene).astype(np.float32).swapaxes(0, 1)
    tiles = np.ascontiguousarray(standardize(modalities[INPUT], tiles).swapaxes(0, 1))
    cases = {RAW: Case(partial(run_raw, recipe, tiles, call), len(tiles))}
    for name, overlap in ((OURS, 0), (OURS_BLENDED, OVERLAP)):
        options = {"outputs": call.outputs, "model": model, "batch_size": call.batch_size}
        options |= {"overlap": overlap, "offset": 0, "precision": call.precision}
        count = terramind_xr.plan(scene, **options).tiles
        options["diffusion_steps"] = DIFFUSION_STEPS
        cases[name] = Case(partial(run_scene, scene, options), count)
    return cases


def terratorch_cases(scene: xr.Dataset, model: torch.nn.Module, call: Call) -> dict[str, Case]:
    """Terratorch's raw forward, and its tiled inference without overlap and with its defaults."""
    tiles = torch.from_numpy(cut_tiles(scene).astype(np.float32))
    whole = torch.from_numpy(scene[INPUT].values.astype(np.float32))[None]
    cases = {PEER_RAW: Case(partial(run_terratorch_raw, model, tiles, call), len(tiles))}
    # Padding by a delta of 0 pixels gives an empty result, so it is switched off with it.
    without = {"stride": TILE, "delta": 0, "padding": False}
    for name, options in ((PEER, without), (PEER_BLENDED, {"stride": 192, "delta": 8})):
        run = partial(run_terratorch, model, whole, call, options)
        cases[name] = Case(run, terratorch_tiles(whole.shape[-1], **options))
    return cases


def measure(cases: dict[str, Case], repeat: int) -> dict[str, list[float]]:
    """Seconds of each case, one repetition of all after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    maps: dict[str, Maps | None] = {}
    for number in range(repeat):
        for name, case in cases.items():
            start = time.perf_counter()
            maps[name] = case.run()
            seconds[name].append(time.perf_counter() - start)
            print(f"{number + 1} of {repeat}  {name:<26}{seconds[name][-1]:>9.2f} s", flush=True)
    ours, peer = maps[OURS] or {}, maps.get(PEER) or {}
    if "LULC" in peer:  # diffusion outputs start from other noise
        equal = (ours["LULC"] == peer["LULC"]).mean()
        print(f"LULC: {equal:.2%} of the pixels are equal in both without overlap")
    return seconds


def spread(values: Sequence[float], digits: int) -> str:
    """Median, minimum and maximum as three columns."""
    three = statistics.median(values), min(values), max(values)
    return "".join(f"{value:>9.{digits}f}" for value in three)


def print_tables(cases: dict[str, Case], seconds: dict[str, list[float]], km2: float) -> None:
    """Rates of each case, then ratios, each taken within a repetition."""
    rates = {name: [case.tiles / each for each in seconds[name]] for name, case in cases.items()}
    areas = {name: [km2 / each for each in seconds[name]] for name in cases}
    head = f"{'median':>9}{'min':>9}{'max':>9}"
    print(f"\n{'':<26}{'tiles':>6}  {'seconds':>27}  {'tiles/s':>27}  {'km²/s':>27}")
    print(f"{'':<32}  {head}  {head}  {head}")
    for name, case in cases.items():
        columns = spread(seconds[name], 2), spread(rates[name], 2), spread(areas[name], 3)
        print(f"{name:<26}{case.tiles:>6}  {'  '.join(columns)}")
    print("1 km² is 10,000 pixels of 10 m.")

    print(f"\n{'ratio':<59}{head}")
    pairs = [
        ("tiles/s", OURS, RAW, rates),
        ("tiles/s", OURS_BLENDED, RAW, rates),
        ("tiles/s", OURS, PEER_RAW, rates),
        ("tiles/s", OURS_BLENDED, PEER_RAW, rates),
        ("tiles/s", PEER, PEER_RAW, rates),
        ("tiles/s", PEER_BLENDED, PEER_RAW, rates),
        ("tiles/s", RAW, PEER_RAW, rates),
        ("km²/s", OURS_BLENDED, RAW, areas),
        ("km²/s", PEER_BLENDED, PEER_RAW, areas),
        ("km²/s", OURS, PEER, areas),
        ("km²/s", OURS_BLENDED, PEER_BLENDED, areas),
    ]
    for unit, above, below, values in pairs:
        if {above, below} <= set(cases):
            ratios = [a / b for a, b in zip(values[above], values[below], strict=True)]
            print(f"{f'{unit}: {above} / {below}':<59}{spread(ratios, 3)}")


def print_versions(*packages: str) -> None:
    """What it runs on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"date       {datetime.date.today()}")
    print(f"processor  {names[0] if names else platform.processor() or platform.machine()}")
    print(f"cores      {os.cpu_count()}, torch threads {torch.get_num_threads()}, device {device}")
    print(f"versions   Python {platform.python_version()}, {versions}")


def print_setting(arguments: argparse.Namespace) -> None:
    """What it ran on and with which options."""
    print_versions("terramind_xr", "terratorch", "torch", "dask", "xarray", "numpy")
    print(
        f"options    {arguments.size} × {arguments.size} pixels, model {arguments.model}, batches of "
        f"{arguments.batch_size}, outputs {' '.join(arguments.outputs)}, fp32, greedy, repeated "
        f"{arguments.repeat} times\n"
    )


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print_setting(arguments)
    call = Call(tuple(arguments.outputs), arguments.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if arguments.model == "tiny":
            peer = build_terratorch(call.outputs)
            save_weights(peer, call.outputs, Path(folder))

        def all_cases(size: int) -> dict[str, Case]:
            scene = random_scene(size)
            ours = our_cases(scene, folder if peer else "demo", call)
            return ours | (terratorch_cases(scene, peer, call) if peer else {})

        for case in all_cases(2 * TILE).values():  # loads weights and fills caches
            case.run()
        cases = all_cases(arguments.size)
        print_tables(cases, measure(cases, arguments.repeat), (arguments.size * PIXEL) ** 2)


if __name__ == "__main__":
    main()

"""Solvers and steps of the diffusion decoders: error against truth and many steps of DDIM, and time.

    python benchmarks/diffusion.py                                       # the demo, some minutes
    python benchmarks/diffusion.py --outputs NDVI --steps 1 5 --tiles 2 --reference 20      # seconds
    python benchmarks/diffusion.py --model terramind_v1_base --input scene.nc --outputs DEM

Each output is tokenized and decoded again, so that nothing but the decoder counts: by default on held-
out tiles of the synthetic world, with `--input` on the first tiles of a scene (netCDF or Zarr) that
holds the outputs. Errors are mean absolute differences in the modality's unit; `calls` is how often the
network runs, for DDIM more often than asked where the steps do not divide 1000. Seconds are the least of
the repetitions, which take turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import diffusers
import numpy as np
import torch
import xarray as xr
from demo_numbers import absolute_error
from demo_tiles import column, cut, held_out

import terramind_xr
from terramind_xr.facts import TILE, modalities
from terramind_xr.model import weights
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling, Solver
from terramind_xr.model.solvers import scheduler

OUTPUTS = ("NDVI", "DEM", "S1GRD", "S1RTC", "S2L2A")
SOLVERS: tuple[Solver, ...] = get_args(Solver)
HEAD = ("output", "unit", "solver", "steps", "calls", "error", "to reference", "seconds a tile")
Row = tuple[object, ...]


def scenes(arguments: argparse.Namespace) -> Iterator[tuple[str, xr.DataArray]]:
    """Each output's truth as tiles below each other."""
    if arguments.input is None:
        tiles = held_out(arguments.tiles)
        for name in arguments.outputs:
            yield name, column(tiles, [name])[name]
        return
    opened = xr.open_zarr if arguments.input.is_dir() else xr.open_dataset
    scene = opened(arguments.input, decode_coords="all")
    for name in arguments.outputs:
        rows = min(arguments.tiles, scene[name].sizes["y"] // TILE) * TILE
        yield name, scene[name].isel(y=slice(rows), x=slice(TILE)).load()


def decode(tokens: xr.DataArray, arguments: argparse.Namespace, **options: Any) -> xr.DataArray:
    clamp = None if arguments.no_clamp else "upstream"
    made: xr.DataArray = tokens.terramind.detokenize(
        model=arguments.model, overlap=0, batch_size=1, clamp=clamp, device="cpu", **options
    )
    return made


def measure(name: str, truth: xr.DataArray, arguments: argparse.Namespace) -> list[Row]:
    """Rows of one output: each solver with each number of steps."""
    tokens = truth.terramind.tokenize(name, model=arguments.model, overlap=0)
    reference = decode(tokens, arguments, diffusion_steps=arguments.reference)
    expected, many = (cut(np.asarray(each)) for each in (truth, reference))
    ways = [(solver, steps) for steps in arguments.steps for solver in SOLVERS]
    seconds = dict.fromkeys(ways, np.inf)
    made = {}
    for _ in range(arguments.repeat):
        for way in ways:
            start = time.perf_counter()
            found = decode(tokens, arguments, solver=way[0], diffusion_steps=way[1])
            seconds[way] = min(seconds[way], (time.perf_counter() - start) / len(expected))
            made[way] = cut(np.asarray(found))
    own = weights.tokenizer(find(arguments.model, {name}, backbone=False), name, "cpu").noise_scheduler
    rows: list[Row] = []
    for solver, steps in ways:
        calls = len(scheduler(own, Sampling(solver=solver, diffusion_steps=steps)).timesteps)
        errors = (absolute_error(made[solver, steps], each).mean() for each in (expected, many))
        shown = (*(f"{error:.4g}" for error in errors), f"{seconds[solver, steps]:.3f}")
        rows.append((name, modalities[name].units, solver, steps, calls, *shown))
    return rows


def show(rows: Sequence[Row]) -> None:
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--model", default="demo", help="name or folder (%(default)s)")
    parser.add_argument("--input", type=Path, help="a scene with the outputs, in place of synthetic tiles")
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=OUTPUTS)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5, 10, 20])
    parser.add_argument("--tiles", type=int, default=4, help="number of tiles (%(default)s)")
    parser.add_argument("--reference", type=int, default=100, help="steps of DDIM to compare with (100)")
    parser.add_argument("--repeat", type=int, default=1, help="times that each is timed (%(default)s)")
    parser.add_argument("--no-clamp", action="store_true", help="without upstream's clamp")
    arguments = parser.parse_args()
    show([row for name, truth in scenes(arguments) for row in measure(name, truth, arguments)])
    print(
        f"\n{arguments.tiles} tiles, model {arguments.model}, {os.cpu_count()} CPUs ({platform.machine()}), "
        f"{torch.get_num_threads()} torch threads, torch {torch.__version__}, diffusers "
        f"{diffusers.__version__}, terramind_xr {terramind_xr.__version__}"
    )


if __name__ == "__main__":
    main()

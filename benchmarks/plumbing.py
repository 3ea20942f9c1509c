"""What the library itself can feed: tiles a second of everything but the networks.

    python benchmarks/plumbing.py                               # 2240² pixels, under a minute
    python benchmarks/plumbing.py --size 4480 --repeat 7 --noise-only

A model that costs nothing stands in for the networks: each batch takes the logits, or the pixels, of one
that was made before. What is left is timed: from the scene's chunks in memory over reading, standardising and
cutting tiles to softmax or units, blending, finishing, and the array or the Zarr store. Then the random
numbers of a tile. Repetitions take turns; the best of each is printed, and the least time of processors,
which says more on a machine that does other things as well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import dask
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scene import INPUT, print_versions, random_scene

import terramind_xr
from terramind_xr.facts import PATCH, TILE, lulc_classes, modalities
from terramind_xr.model import chain
from terramind_xr.model.batch import Batch
from terramind_xr.model.decoding import in_units
from terramind_xr.model.execution import Execution, session
from terramind_xr.noise import Stream

OUTPUTS = ("LULC", "DEM")
THREADS = (1, 2)
VOCABULARY = 15_360
"""Codes of the released tokenizers but LULC's."""

Run = Callable[[], Any]


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=2240, help="side of the scene in pixels (%(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions (%(default)s)")
    parser.add_argument("--noise-only", action="store_true", help="leave out the scene")
    return parser.parse_args()


def made_before(name: str, tiles: int) -> torch.Tensor:
    """What a decoder gives for a batch: logits, or standardised pixels."""
    channels = len(lulc_classes) if name == "LULC" else len(modalities[name].bands)
    generator = torch.Generator().manual_seed(0)
    return torch.randn((tiles, channels, TILE, TILE), generator=generator)


def free_model(made: dict[str, torch.Tensor]) -> Callable[..., dict[str, NDArray[np.float32]]]:
    """Stand-in for `terramind_xr.model.chain.generate` whose networks cost nothing."""

    def generate(
        recipe: Any, batch: Batch, outputs: tuple[str, ...], sampling: Any, execution: Execution
    ) -> dict[str, NDArray[np.float32]]:
        with session(execution):
            return {name: in_units(name, made[name][: len(batch.places)]) for name in outputs}

    return generate


def scene_cases(scene: xr.Dataset) -> dict[str, tuple[Run, int]]:
    """What to time, with its number of tiles: each output, computed and written, with 1 and 2 threads."""
    cases: dict[str, tuple[Run, int]] = {}
    options: dict[str, Any] = {"model": "demo", "offset": 0}
    for name in OUTPUTS:
        tiles = terramind_xr.plan(scene, name, **options).tiles
        for threads in THREADS:
            made = partial(terramind_xr.generate, scene, name, device="cpu", **options)
            for ending, run in (("compute", computed), ("to_zarr", written)):
                label = f"{name} {ending}, {threads} thread{'s' * (threads > 1)}"
                cases[label] = partial(in_threads, threads, run, made), tiles
    return cases


def in_threads(threads: int, run: Callable[[Any], Any], made: Run) -> None:
    torch.set_num_threads(threads)
    with dask.config.set(scheduler="threads", num_workers=threads):
        run(made())


def computed(result: xr.DataArray) -> None:
    result.data.compute()


def written(result: xr.DataArray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result.terramind.to_zarr(f"{folder}/map.zarr", progress=False)


def noise_cases() -> dict[str, tuple[Run, int]]:
    """Random numbers of a tile: those that its diffusion begins with, and those of all its tokens."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stream, bands = Stream(0, "plumbing"), len(modalities[INPUT].bands)
    size, places = {"height": TILE, "width": TILE, "bands": bands}, np.array([[4480, 2240]])
    patches, codes = np.arange(TILE // PATCH), np.arange(VOCABULARY)

    def gumbel() -> None:
        for row in patches:
            stream.gumbel(row, patches[:, None], codes)

    def gumbel_on_device() -> None:
        everywhere = np.indices((TILE // PATCH, TILE // PATCH)).reshape(2, -1, 1)
        finished(stream.gumbel(*everywhere, torch.from_numpy(codes).to(device)))

    cases: dict[str, Run] = {
        f"{bands} bands of normals, numpy": partial(stream.normal, y=4480, x=2240, **size),
        f"{bands} bands of normals, torch, {device}": lambda: finished(
            stream.normal_on(device, places, **size)
        ),
        f"Gumbel of {VOCABULARY} codes, numpy": gumbel,
        f"Gumbel of {VOCABULARY} codes, torch, {device}": gumbel_on_device,
    }
    return {name: (run, 1) for name, run in cases.items()}


def finished(tensor: torch.Tensor) -> None:
    """Wait for a GPU."""
    if tensor.is_cuda:
        torch.cuda.synchronize()


def measure(cases: dict[str, tuple[Run, int]], repeat: int) -> None:
    """Print the best rate of each case, and the least time of processors; cases take turns."""
    clocks = time.perf_counter, time.process_time
    found: dict[str, list[list[float]]] = {name: [] for name in cases}
    for _ in range(repeat):
        for name, (run, _) in cases.items():
            start = [clock() for clock in clocks]
            run()
            found[name].append([clock() - begin for clock, begin in zip(clocks, start, strict=True)])
    for name, (_, tiles) in cases.items():
        wall, busy = np.min(found[name], axis=0) / tiles
        print(f"{name:<36}{1 / wall:>9.0f}{1000 * busy:>18.2f}", flush=True)


def main() -> None:
    arguments = parse_arguments()
    print_versions("terramind_xr", "torch", "dask", "numpy")
    print(f"\n{'':<36}{'tiles/s':>9}{'processor ms/tile':>18}")
    if not arguments.noise_only:
        scene = random_scene(arguments.size)
        made = {name: made_before(name, 8) for name in OUTPUTS}
        with mock.patch.object(chain, "generate", free_model(made)):
            cases = scene_cases(scene)
            measure(cases, 1 + arguments.repeat)
    torch.set_num_threads(max(THREADS))
    measure(noise_cases(), 1 + arguments.repeat)


if __name__ == "__main__":
    main()

"""What a GPU makes of it: tiles a second and memory by precision and batch, beside terratorch's own tiling.

    python benchmarks/gpu.py                                  # LULC and NDVI of the tiny size: some minutes
    python benchmarks/gpu.py --outputs LULC --precisions bf16 --batch-sizes 8 64 --profile
    python benchmarks/gpu.py --model demo --size 672 --batch-sizes 8      # a try, also on a processor

All run in this process on the same pixels and weights ("tiny" has its real size and random weights, whose
times are those of the released one). Cases take turns, and the best repetition of each counts. "busy" is the
share of a scene's time in which the device, with all that goes to it and comes back, is at work.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import xarray as xr
from bench import STRIDE, best, peer
from scene import (
    INPUT,
    OURS_BLENDED,
    RAW,
    Call,
    build_terratorch,
    our_cases,
    print_versions,
    random_scene,
    save_weights,
)

import terramind_xr
from terramind_xr.facts import TILE
from terramind_xr.model import chain

MIB = 2**20
Run = Callable[[], Any]


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=1568, help="side of the scene in pixels (%(default)s)")
    parser.add_argument("--model", choices=("tiny", "demo"), default="tiny", help="(%(default)s)")
    parser.add_argument("--outputs", nargs="+", default=["LULC", "NDVI"], help="(LULC NDVI)")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp16"], help="(fp32 bf16 fp16)")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 32], help="(8 32)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--no-peer", action="store_true", help="leave terratorch's tiling out")
    parser.add_argument("--profile", action="store_true", help="what a batch does on the device")
    arguments = parser.parse_args()
    if arguments.size % TILE:
        parser.error(
            f"--size {arguments.size}: expected a multiple of {TILE}, which raw batches are cut into."
        )
    has_peer = arguments.model == "tiny" and not arguments.no_peer
    if has_peer and (arguments.size - TILE) % STRIDE:
        parser.error(
            f"--size {arguments.size}: terratorch's tiles leave a rest of it uncovered. "
            "Take 1568 or 2912, or leave it out: --no-peer."
        )
    return arguments


@contextlib.contextmanager
def timed() -> Iterator[list[float]]:
    """Adds the seconds that each session holds the device to a list."""
    from terramind_xr.model import execution

    found: list[float] = []

    @contextlib.contextmanager
    def session(asked: Any) -> Iterator[str]:
        with execution.session(asked) as device:
            start = time.perf_counter()
            yield device
            found.append(time.perf_counter() - start)

    with mock.patch.object(chain, "session", session):
        yield found


def mixed(run: Run) -> Any:
    """As a user of terratorch has half precision: all of its forward in bf16 where torch allows it."""
    with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", dtype=torch.bfloat16):
        return run()


def peak(run: Run) -> float:
    """MiB of the GPU's memory that a run takes at most, weights included."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_reserved() / MIB


def compare(name: str, arguments: argparse.Namespace, folder: Path) -> None:
    """Rows of one output."""
    model, weights = None, "demo"
    scene = random_scene(arguments.size)
    if arguments.model == "tiny":
        model, weights = build_terratorch([name]), str(folder)
        save_weights(model, [name], folder)
    cases: dict[str, tuple[Run, int]] = {}
    scenes: dict[str, Call] = {}  # those of the cases that are our own whole run
    for batch_size in arguments.batch_sizes:
        for precision in arguments.precisions:
            call = Call((name,), batch_size, precision)
            ours = our_cases(scene, weights, call)
            for case in (RAW, OURS_BLENDED):
                label = f"{precision}, batch of {batch_size}: {case}"
                cases[label] = ours[case].run, ours[case].tiles
            scenes[label] = call
        if model is not None and not arguments.no_peer and batch_size == arguments.batch_sizes[0]:
            whole = torch.from_numpy(scene[INPUT].values.astype(np.float32))[None]
            tiles = ours[OURS_BLENDED].tiles
            run = {
                how: partial(peer, model, whole, Call((name,), batch_size), how)
                for how in ("medium", "highest")
            }
            run["bf16"] = partial(mixed, run["medium"])
            for how, each in run.items():
                cases[f"terratorch in {how}, batch of {batch_size}"] = each, tiles
    seconds, _ = best({label: run for label, (run, _) in cases.items()}, arguments.repeat)
    print(f"\n{INPUT} to {name}, {arguments.size} × {arguments.size} pixels")
    print(f"{'':<42}{'tiles/s':>9}{'busy':>8}{'MiB':>8}{'planned':>9}")
    for label, (run, tiles) in cases.items():
        line = f"{label:<42}{tiles / seconds[label]:>9.1f}"
        if label in scenes:
            with timed() as spent:
                start = time.perf_counter()
                run()
                line += f"{sum(spent) / (time.perf_counter() - start):>8.0%}"
            if torch.cuda.is_available():
                line += f"{peak(run):>8.0f}{planned(scene, weights, scenes[label]):>9.0f}"
        print(line, flush=True)
    if arguments.profile:
        for precision in arguments.precisions:
            profile(scene, weights, Call((name,), max(arguments.batch_sizes), precision))


def planned(scene: xr.Dataset, weights: str, call: Call) -> float:
    """MiB of device memory that `plan` says."""
    options = {"precision": call.precision, "batch_size": call.batch_size, "device": "cuda"}
    plan = terramind_xr.plan(scene, call.outputs, model=weights, offset=0, **options)
    return (plan.device_memory or 0) / MIB


def profile(scene: xr.Dataset, weights: str, call: Call) -> None:
    """What the raw forward of a batch does on the device, by kind."""
    run = our_cases(scene, weights, call)[RAW].run
    run()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as found:
        run()
    by = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(f"\n{call.precision}, batch of {call.batch_size}")
    print(found.key_averages().table(sort_by=by, row_limit=14, max_name_column_width=60))


def main() -> None:
    arguments = parse_arguments()
    print_versions("terramind_xr", "terratorch", "torch", "dask", "xarray", "numpy")
    for name in arguments.outputs:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, arguments, Path(folder))


if __name__ == "__main__":
    main()

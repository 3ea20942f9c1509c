"""What glibc's allocator costs on processors: as it comes, as dask's workers have it, and mended.

    python benchmarks/allocator.py                                    # tiny, some minutes
    python benchmarks/allocator.py --model demo --size 2240 --repeat 3
    python benchmarks/allocator.py --model FOLDER

dask's nannies start workers with MALLOC_TRIM_THRESHOLD_=65536, so that freed memory goes back to the system.
Any such setting also ends glibc's own growing of the size from which each array is mapped anew, page by page
(mallopt(3), M_MMAP_THRESHOLD); the arrays within a network are larger. Each run writes LULC of a random
scene to Zarr, in a process of its own with one thread of torch and two of dask; settings take turns. Printed
are the least seconds, those spent in the system among them, and the peak of memory beyond libraries and
model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import torch
from memory import peak
from scene import build_terratorch, print_versions, random_scene, save_weights

import terramind_xr

SETTINGS = {
    "as it comes": {},
    "dask's workers": {"MALLOC_TRIM_THRESHOLD_": 2**16},
    "dask's, mapped from 32 MiB": {"MALLOC_TRIM_THRESHOLD_": 2**16, "MALLOC_MMAP_THRESHOLD_": 2**25},
    "trimmed from 256 MiB, mapped from 32": {
        "MALLOC_TRIM_THRESHOLD_": 2**28,
        "MALLOC_MMAP_THRESHOLD_": 2**25,
    },
}


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--model", default="tiny", help="tiny with random weights, demo, or a folder (tiny)")
    parser.add_argument("--size", type=int, default=1344, help="side of the scene in pixels (%(default)s)")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each setting (%(default)s)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(model: str, size: int) -> None:
    """One run in this process; the first, small one loads libraries and weights."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads", num_workers=2):
        for side, name in ((256, "first"), (size, "map")):
            start, system, before = time.perf_counter(), os.times().system, peak()
            result = terramind_xr.generate(random_scene(side), "LULC", model=model, offset=0, device="cpu")
            result.terramind.to_zarr(f"{folder}/{name}.zarr", progress=False)
        print(time.perf_counter() - start, os.times().system - system, peak() - before)


def measured(model: str, size: int, setting: dict[str, int]) -> list[float]:
    """Seconds, those of the system, and MiB, of a process with these settings."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, __file__, "--one", "--model", model, "--size", str(size)]
    environment = plain | {key: str(value) for key, value in setting.items()}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(number) for number in done.stdout.split()[-3:]]


def main() -> None:
    arguments = parse_arguments()
    if arguments.one:
        run(arguments.model, arguments.size)
        return
    print_versions("terramind_xr", "torch", "dask", "distributed")
    print(f"options    {arguments.size} × {arguments.size} pixels, model {arguments.model}\n")
    found: dict[str, list[list[float]]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model == "tiny":
            save_weights(build_terratorch(["LULC"]), ["LULC"], Path(folder))
        model = folder if arguments.model == "tiny" else arguments.model
        for _ in range(arguments.repeat):
            for name, setting in SETTINGS.items():
                found[name].append(measured(model, arguments.size, setting))
    print(f"{'':<38}{'seconds':>9}{'of the system':>15}{'peak, MiB':>11}")
    for name, runs in found.items():
        seconds, system, _ = min(runs)
        print(f"{name:<38}{seconds:>9.1f}{system:>15.1f}{min(most for *_, most in runs):>11.0f}")


if __name__ == "__main__":
    main()

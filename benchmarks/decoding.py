"""What the options `decoding` and `shifts` do to the demo's maps, against the truth of synthetic scenes.

    python benchmarks/decoding.py                                # two worlds of 1120² pixels
    python benchmarks/decoding.py --size 560 --worlds 3 --markdown

Land cover: share of pixels that agree with the truth. NDVI: mean absolute error. Patch and seam index are
those of `terramind_xr.seam_index`, which is 1 where a border does not show; the truth's own are printed too.
With several passes, the borders of each count.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np
import torch
import xarray as xr

import terramind_xr

HEAD = ("world", "output", "decoding", "shifts", "agreement", "error", "patch", "seam", "seconds")
Row = tuple[object, ...]


def scores(made: xr.DataArray, truth: xr.DataArray, given: xr.Dataset, shifts: int = 1) -> tuple[str, ...]:
    """Agreement, error, patch index and seam index of a map."""
    index = made.terramind.seam_index(given.terramind.plan("LULC", model="demo", shifts=shifts))
    agreement, error = "", ""
    if made.name == "LULC":
        agreement = f"{float(np.mean(made.values == truth.values)):.3f}"
    else:
        error = f"{float(np.abs(made.values - truth.values).mean()):.4f}"
    return agreement, error, f"{index.patch:.1f}", f"{index.seam:.2f}"


def measure(world: int, arguments: argparse.Namespace) -> list[Row]:
    """Rows of one world: the truth, and each way to make its maps."""
    names = ["S2L2A", *arguments.outputs]
    scene = terramind_xr.synthetic.scene(arguments.size, seed=world, modalities=names).load()
    given = scene[["S2L2A"]]
    rows: list[Row] = []
    for name in arguments.outputs:
        rows.append((world, name, "truth", "", *scores(scene[name], scene[name], given), ""))
    for decoding in ("argmax", "expected"):
        for shifts in (1, 2, 4):
            for name in arguments.outputs:
                start = time.perf_counter()
                made = given.terramind.generate(name, model="demo", decoding=decoding, shifts=shifts)
                seconds = time.perf_counter() - start
                found = scores(made, scene[name], given, shifts)
                rows.append((world, name, decoding, shifts, *found, f"{seconds:.1f}"))
    return rows


def show(rows: list[Row], *, markdown: bool) -> None:
    if markdown:
        print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        for row in rows:
            print(f"| {' | '.join(map(str, row))} |")
        return
    for row in (HEAD, *rows):
        print("".join(f"{value!s:>10}" for value in row))


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=1120, help="side of the scenes in pixels (%(default)s)")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1], help="seeds of the scenes (0 1)")
    parser.add_argument("--outputs", nargs="+", choices=["LULC", "NDVI"], default=["LULC", "NDVI"])
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    # Not timed: libraries and weights.
    small = terramind_xr.synthetic.scene(64, modalities=["S2L2A"]).load()
    small.terramind.generate(arguments.outputs, model="demo", diffusion_steps=1)
    rows = [row for world in arguments.worlds for row in measure(world, arguments)]
    show(rows, markdown=arguments.markdown)
    print(
        f"\n{arguments.size}² pixels, model demo, {os.cpu_count()} CPUs ({platform.machine()}), "
        f"{torch.get_num_threads()} torch threads, torch {torch.__version__}, "
        f"terramind_xr {terramind_xr.__version__}"
    )


if __name__ == "__main__":
    main()

"""Seam and patch index of the demo's land cover at several overlaps, with its agreement with the truth.

    python benchmarks/seams.py                                  # 1536² pixels, some two minutes
    python benchmarks/seams.py --size 1000 --worlds 0 1 2

The scene is synthetic. An index of 1 is a border that does not show: see `terramind_xr.seam_index`.
"""

from __future__ import annotations

import argparse

import numpy as np

import terramind_xr


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=1536, help="side of the scene in pixels (%(default)s)")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0], help="seeds of the scene (0)")
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 16, 32, 64, 112], help="in pixels")
    arguments = parser.parse_args()
    print(f"{'world':>5} {'overlap':>8} {'seam':>7} {'patch':>7} {'agreement':>10}", flush=True)
    for world in arguments.worlds:
        scene = terramind_xr.synthetic.scene(arguments.size, seed=world, modalities=["S2L2A", "LULC"]).load()
        truth, scene = scene.LULC, scene[["S2L2A"]]
        for overlap in arguments.overlaps:
            lulc = scene.terramind.generate("LULC", model="demo", overlap=overlap)
            plan = scene.terramind.plan("LULC", model="demo", overlap=overlap)
            index = lulc.terramind.seam_index(plan)
            agreement = float(np.mean(lulc.values == truth.values))
            row = f"{world:>5} {overlap:>8} {index.seam:>7.2f} {index.patch:>7.1f} {agreement:>10.3f}"
            print(row, flush=True)


if __name__ == "__main__":
    main()

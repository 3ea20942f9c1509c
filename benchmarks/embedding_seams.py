"""Seam index of the demo's embeddings at several overlaps: whether borders of tiles show on the patch grid.

    python benchmarks/embedding_seams.py                                  # 1536² pixels, under a minute
    python benchmarks/embedding_seams.py --size 1000 --worlds 0 1 2 --layers 0 4

The index is the mean absolute difference of neighbouring patches across the borders of tiles over that across
all other borders of patches, averaged over features, rows and columns: 1 is a border that does not show.
Borders of tiles are where a tile starts or ends within the scene. The scene is synthetic.
"""

from __future__ import annotations

import argparse

import numpy as np
import xarray as xr

import terramind_xr
from terramind_xr.engine import Tiling
from terramind_xr.facts import PATCH


def seam_index(embedding: xr.DataArray, shape: tuple[int, int], overlap: int) -> float:
    """Change across borders of tiles over that across the others, of rows and of columns, averaged."""
    tiling = Tiling.of(shape, overlap=overlap).in_cells(PATCH)
    ratios = []
    for dim, axis in zip(("y", "x"), (tiling.y, tiling.x), strict=True):
        change = abs(embedding.diff(dim)).mean([each for each in embedding.dims if each != dim]).values
        places = np.arange(1, axis.size)
        at_border = np.isin(places, [place for start in axis.starts for place in (start, start + axis.tile)])
        ratios.append(change[at_border].mean() / change[~at_border].mean())
    return float(np.mean(ratios))


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=1536, help="side of the scene in pixels (%(default)s)")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2], help="seeds (0 1 2)")
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 32, 64], help="in pixels (0 32 64)")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 2, 4], help="(0 2 4)")
    arguments = parser.parse_args()
    print(f"{'world':>5} {'overlap':>8} " + " ".join(f"layer {layer:>2}" for layer in arguments.layers))
    for world in arguments.worlds:
        scene = terramind_xr.synthetic.scene(arguments.size, seed=world, modalities=["S2L2A"]).load()
        for overlap in arguments.overlaps:
            found = scene.terramind.embed(model="demo", layers=arguments.layers, overlap=overlap)
            shape = (arguments.size, arguments.size)
            indices = [seam_index(each, shape, overlap) for each in found]
            print(f"{world:>5} {overlap:>8} " + " ".join(f"{index:>8.2f}" for index in indices), flush=True)


if __name__ == "__main__":
    main()

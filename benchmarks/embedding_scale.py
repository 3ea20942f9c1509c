"""Scales of int8 embeddings: a constant for each layer of a model, and what codes lose by it.

    python benchmarks/embedding_scale.py                                      # the demo, some seconds
    python benchmarks/embedding_scale.py --model terramind_v1_base --layers 5 11

The scale is the 99.9th percentile of the absolute features, over 127. Each modality is embedded alone, and
all of them together and kept apart, so that one constant holds for every choice of inputs. Printed beside it:
the share of features that saturate, and the error of codes, root mean square over that of the features.

The scenes are synthetic. For numbers of released weights that are to be kept, give scenes of your own by
--scene (files that xarray opens).
"""

from __future__ import annotations

import argparse

import numpy as np
import xarray as xr

import terramind_xr
from terramind_xr.model.features import encoder_size
from terramind_xr.model.recipe import describe

MODALITIES = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM")


def measured(scenes: list[xr.Dataset], model: str, layer: int) -> np.ndarray:
    """Features of a layer, of every modality alone and together with the others."""
    parts = []
    for scene in scenes:
        names = list(map(str, scene.data_vars))
        for inputs in (*([name] for name in names), names):
            found = scene.terramind.embed(model=model, inputs=inputs, layers=layer, merge=None)
            parts.append(found.values[np.isfinite(found.values)])
    return np.concatenate(parts)


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--model", default="demo", help="name or folder (%(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", help="all of them by default")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2, 3], help="seeds (0 1 2 3)")
    parser.add_argument("--scene", nargs="+", help="files to measure on, instead of synthetic scenes")
    arguments = parser.parse_args()
    scenes = (
        [xr.open_dataset(path, decode_coords="all") for path in arguments.scene]
        if arguments.scene
        else [
            terramind_xr.synthetic.scene(224, seed=seed, modalities=MODALITIES).load()
            for seed in arguments.worlds
        ]
    )
    layers = arguments.layers or range(encoder_size(describe(arguments.model).name)[1])
    print(f"{'layer':>5} {'scale':>9} {'saturated':>10} {'error':>7}", flush=True)
    for layer in layers:
        values = measured(scenes, arguments.model, layer)
        scale = float(f"{np.percentile(np.abs(values), 99.9) / 127:.3g}")
        codes = np.rint(values / scale).clip(-127, 127)
        saturated = float(np.mean(np.abs(codes) == 127))
        error = float(np.sqrt(np.mean((codes * scale - values) ** 2) / np.mean(values**2)))
        print(f"{layer:>5} {scale:>9.3g} {saturated:>10.2%} {error:>7.2%}", flush=True)


if __name__ == "__main__":
    main()

"""Tiles a second of `XarrayDataModule` beside terratorch's module for GeoTIFF chips, on the same pixels.

    python benchmarks/training_data.py                       # 64 tiles of S2L2A and S1GRD with labels
    python benchmarks/training_data.py --tiles 144 --workers 0 2

Both give batches of the same tiles, standardised; the chips are written from the scene, uncompressed, one
file a tile and modality. The scene is read from memory and from a Zarr store (chunks of one tile), as
xarray writes it by default, compressed. Medians of some passes over all tiles, the first left out.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import rioxarray  # noqa: F401
import torch
import xarray as xr
from albumentations.pytorch import ToTensorV2

import terramind_xr
from terramind_xr.facts import modalities
from terramind_xr.finetune import XarrayDataModule

INPUTS = ("S2L2A", "S1GRD")
TILE = 224


def write_chips(scene: xr.Dataset, folder: Path) -> None:
    for name in (*INPUTS, "LULC"):
        (folder / name).mkdir()
        for row in range(0, scene.sizes["y"], TILE):
            for column in range(0, scene.sizes["x"], TILE):
                chip = scene[name].isel(y=slice(row, row + TILE), x=slice(column, column + TILE))
                chip.rio.to_raster(folder / name / f"{row:05}_{column:05}.tif")


def ours(data: Any, workers: int) -> Any:
    module = XarrayDataModule(
        data,
        "LULC",
        inputs=list(INPUTS),
        block=1,
        gap=0,
        splits=(1, 0, 0),
        num_workers=workers,
        train_transform=[ToTensorV2()],
    )
    module.setup("fit")
    return module.train_dataloader(), lambda batch: batch


def theirs(folder: Path, workers: int) -> Any:
    from terratorch.datamodules import GenericMultiModalDataModule

    module = GenericMultiModalDataModule(
        task="segmentation",
        batch_size=8,
        modalities=list(INPUTS),
        num_classes=10,
        train_data_root={name: folder / name for name in INPUTS},
        train_label_data_root=folder / "LULC",
        image_grep=dict.fromkeys(INPUTS, "*.tif"),
        label_grep="*.tif",
        means={name: list(modalities[name].mean) for name in INPUTS},
        stds={name: list(modalities[name].std) for name in INPUTS},
        train_transform=[ToTensorV2()],
        num_workers=workers,
        drop_last=False,
        check_stackability=False,
        val_data_root={name: folder / name for name in INPUTS},
        val_label_data_root=folder / "LULC",
    )
    module.setup("fit")
    return module.train_dataloader(), module.aug


def tiles_a_second(loader: Any, finish: Any, repeat: int) -> float:
    rates = []
    for _ in range(repeat + 1):
        start, count = time.perf_counter(), 0
        for batch in loader:
            count += len(finish(batch)["mask"])
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--tiles", type=int, default=64, help="a square number (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    side = math.isqrt(arguments.tiles) * TILE
    scene = terramind_xr.synthetic.scene(side, modalities=[*INPUTS, "LULC"]).load()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_chips(scene, root)
        scene.chunk(y=TILE, x=TILE).to_zarr(root / "scene.zarr")
        print(
            f"{'workers':>8}{'memory':>10}{'Zarr':>10}{'GeoTIFF':>10}{'Zarr / GeoTIFF':>16}   tiles a second"
        )
        for workers in arguments.workers:
            rates = [
                tiles_a_second(*made, arguments.repeat)
                for made in (
                    ours(scene, workers),
                    ours(root / "scene.zarr", workers),
                    theirs(root, workers),
                )
            ]
            print(
                f"{workers:>8}"
                + "".join(f"{rate:>10.1f}" for rate in rates)
                + f"{rates[1] / rates[2]:>16.2f}"
            )
    print(
        f"\n{arguments.tiles} tiles of {TILE}² pixels, {' and '.join(INPUTS)}, {os.cpu_count()} CPUs "
        f"({platform.machine()}), torch {torch.__version__}, terramind_xr {terramind_xr.__version__}"
    )


if __name__ == "__main__":
    main()

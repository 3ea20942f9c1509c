"""Real Sentinel-2 tiles of TerraMesh through `generate`, against the land cover and NDVI that come with them.

    python benchmarks/real_tiles.py
    python benchmarks/real_tiles.py --offset 433D_629L_3_1=1000 --model terramind_v1_base

The tiles' metadata is silent on the radiometric offset of Sentinel-2, so every figure is given for both
conventions, none chosen by its score; the confusion table takes 0 unless ``--offset`` says otherwise. These
tiles are for reporting alone: nothing is trained, tuned or selected on them.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rioxarray
import xarray as xr
from numpy.typing import NDArray

import terramind_xr
from terramind_xr.modalities import lulc_classes

OFFSETS = (0, 1000)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "terramesh"


@dataclass(frozen=True)
class Result:
    """What a tile gave under one offset: confusion (truth, predicted), and NDVI against the tile's own."""

    confusion: NDArray[np.int64]
    ndvi_error: float
    ndvi_baseline: float
    is_in_place: bool

    @property
    def accuracy(self) -> float:
        """Share of the pixels with a truth whose class is right."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def majority(self) -> float:
        """Accuracy of the commonest class of the truth everywhere."""
        return float(self.confusion.sum(axis=1).max() / self.confusion.sum())


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of MODALITY/TILE.tif")
    parser.add_argument("--model", default="demo", help="name or folder (%(default)s)")
    parser.add_argument(
        "--offset",
        action="append",
        default=[],
        metavar="TILE=0|1000",
        help="offset of a tile in the confusion table; may be repeated",
    )
    return parser.parse_args()


def chosen_offsets(settings: Sequence[str], tiles: Sequence[str]) -> dict[str, int]:
    """Offset of each tile in the confusion table."""
    chosen = dict.fromkeys(tiles, 0)
    for setting in settings:
        tile, _, offset = setting.partition("=")
        if tile not in chosen or offset not in map(str, OFFSETS):
            sys.exit(f"--offset {setting}: expected TILE=0 or TILE=1000, with a tile of {', '.join(tiles)}.")
        chosen[tile] = int(offset)
    return chosen


def read(data: Path, modality: str, tile: str) -> xr.DataArray:
    return terramind_xr.open_rasters({modality: data / modality / f"{tile}.tif"})[modality]


def is_in_place(result: xr.DataArray, path: Path) -> bool:
    """Whether CRS, transform and shape equal those of a file, all by rioxarray."""
    with rioxarray.open_rasterio(path) as source:
        return (
            result.rio.crs == source.rio.crs
            and result.rio.transform() == source.rio.transform()
            and result.rio.shape == source.rio.shape
        )


def evaluate(data: Path, tile: str, model: str, offset: int) -> Result:
    """Generate from Sentinel-2 alone and compare with the tile's own maps, where both have data."""
    made = terramind_xr.generate(
        read(data, "S2L2A", tile).to_dataset(), ["LULC", "NDVI"], model=model, offset=offset
    ).compute()
    truth, predicted = read(data, "LULC", tile).values, made["LULC"].values
    known = truth > 0
    count = len(lulc_classes)
    pairs = count * truth[known].astype(int) + predicted[known]
    ndvi_truth, ndvi = read(data, "NDVI", tile).values, made["NDVI"].values
    both = np.isfinite(ndvi_truth) & np.isfinite(ndvi)
    return Result(
        confusion=np.bincount(pairs, minlength=count**2).reshape(count, count),
        ndvi_error=float(np.abs(ndvi - ndvi_truth)[both].mean()),
        ndvi_baseline=float(np.abs(ndvi_truth - ndvi_truth[both].mean())[both].mean()),
        is_in_place=all(is_in_place(each, data / "S2L2A" / f"{tile}.tif") for each in made.values()),
    )


def print_summary(results: Mapping[tuple[str, int], Result], chosen: Mapping[str, int]) -> None:
    """A row for each tile and offset, with the baselines beside the scores."""
    print("LULC: share of the pixels with the right class, beside the tile's commonest class everywhere.")
    print("NDVI: mean absolute error, beside that of the tile's own mean everywhere.")
    print("Georeference: whether CRS, transform and shape are those of the input file.\n")
    print(f"{'tile':<18}{'offset':>7}{'LULC':>9}{'majority':>10}{'NDVI':>8}{'mean':>8}  georeference")
    for (tile, offset), result in results.items():
        mark = "*" if chosen[tile] == offset else " "
        print(
            f"{tile:<18}{offset:>6}{mark}{result.accuracy:>9.3f}{result.majority:>10.3f}"
            f"{result.ndvi_error:>8.3f}{result.ndvi_baseline:>8.3f}"
            f"  {'equal' if result.is_in_place else 'DIFFERENT'}"
        )
    print("* in the table below")


def print_confusion(confusion: NDArray[np.int64]) -> None:
    """Pixels by class of the truth (rows) and predicted class (columns), of the classes that occur."""
    occurring = [cover for cover in lulc_classes if confusion[cover.code].any() or confusion[:, cover.code].any()]
    names = [cover.name.replace("_", " ") for cover in occurring]
    codes = [cover.code for cover in occurring]
    print(f"\n{'truth ↓  predicted →':<21}{''.join(f'{name:>20}' for name in names)}{'right':>8}")
    for code, name in zip(codes, names, strict=True):
        row = confusion[code]
        right = f"{row[code] / row.sum():.3f}" if row.any() else "–"
        print(f"{name:<21}{''.join(f'{row[other]:>20,}' for other in codes)}{right:>8}")


def main() -> None:
    arguments = parse_arguments()
    tiles = sorted(path.stem for path in (arguments.data / "S2L2A").glob("*.tif"))
    if not tiles:
        sys.exit(
            f"There are no tiles in {arguments.data}: expected S2L2A/TILE.tif, LULC/TILE.tif and NDVI/TILE.tif, "
            "as in the examples of IBM/terramind. Name their folder with --data."
        )
    chosen = chosen_offsets(arguments.offset, tiles)
    results = {
        (tile, offset): evaluate(arguments.data, tile, arguments.model, offset)
        for tile in tiles
        for offset in OFFSETS
    }
    print(f"S2L2A → LULC, NDVI by the model {arguments.model}, greedy\n")
    print_summary(results, chosen)
    total = sum((results[each].confusion for each in chosen.items()), np.zeros((1, 1), np.int64))
    print_confusion(total)
    best = lulc_classes[total.sum(axis=1).argmax()].name.replace("_", " ")
    pixels = total.sum()
    per_tile = sum(results[each].confusion.sum(axis=1).max() for each in chosen.items())
    print(f"\noverall accuracy                       {np.trace(total) / pixels:.3f}")
    print(f"the commonest class ({best}) everywhere{'':<{max(0, 7 - len(best))}} {total.sum(axis=1).max() / pixels:.3f}")
    print(f"each tile's commonest class            {per_tile / pixels:.3f}")


if __name__ == "__main__":
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    try:
        main()
    except terramind_xr.TerramindError as error:
        sys.exit(f"{type(error).__name__}: {error}")

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
from terramind_xr.facts import lulc_classes

OFFSETS = (0, 1000)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "terramesh"


@dataclass(frozen=True)
class Result:
    """What a tile gave under one offset.

    Parameters
    ----------
    confusion
        Pixels by class (truth, predicted).
    ndvi_error, ndvi_mean, ndvi_formula
        Mean absolute difference from the tile's own NDVI: of the generated one, of the tile's mean, and of
        the index calculated from the bands less the offset.
    is_in_place
        Whether the georeference is the input's.
    """

    confusion: NDArray[np.int64]
    ndvi_error: float
    ndvi_mean: float
    ndvi_formula: float
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
    pixels = read(data, "S2L2A", tile)
    made = terramind_xr.generate(pixels.to_dataset(), ["LULC", "NDVI"], model=model, offset=offset).compute()
    truth, predicted = read(data, "LULC", tile).values, made["LULC"].values
    known = truth > 0
    count = len(lulc_classes)
    pairs = count * truth[known].astype(int) + predicted[known]
    ndvi = read(data, "NDVI", tile).values
    red, infrared = (pixels.sel(band=band).values.astype(float) - offset for band in ("B04", "B08"))
    formula = np.clip((infrared - red) / np.maximum(infrared + red, 1), -1, 1)
    return Result(
        confusion=np.bincount(pairs, minlength=count**2).reshape(count, count),
        ndvi_error=float(np.nanmean(np.abs(made["NDVI"].values - ndvi))),
        ndvi_mean=float(np.nanmean(np.abs(np.nanmean(ndvi) - ndvi))),
        ndvi_formula=float(np.nanmean(np.abs(formula - ndvi))),
        is_in_place=all(is_in_place(each, data / "S2L2A" / f"{tile}.tif") for each in made.values()),
    )


def print_summary(results: Mapping[tuple[str, int], Result], chosen: Mapping[str, int]) -> None:
    """A row for each tile and offset, with the baselines beside the scores."""
    print("LULC      share of the pixels with the right class")
    print("majority  the same for the tile's commonest class everywhere")
    print("NDVI      mean absolute difference from the tile's own NDVI")
    print("mean      the same for the mean of the tile's own NDVI everywhere")
    print("formula   the same for (B08 − B04) / (B08 + B04) of the input less the offset")
    print("place     whether CRS, transform and shape equal those of the input file\n")
    print(f"{'tile':<16}{'offset':>8}{'LULC':>9}{'majority':>10}{'NDVI':>9}{'mean':>8}{'formula':>9}  place")
    for (tile, offset), result in results.items():
        print(
            f"{tile:<16}{offset:>7}{'*' if chosen[tile] == offset else ' '}"
            f"{result.accuracy:>9.3f}{result.majority:>10.3f}"
            f"{result.ndvi_error:>9.3f}{result.ndvi_mean:>8.3f}{result.ndvi_formula:>9.3f}"
            f"  {'equal' if result.is_in_place else 'DIFFERENT'}"
        )
    print("* counted below")


def print_confusion(confusion: NDArray[np.int64]) -> None:
    """Pixels by class of the truth (rows) and predicted class (columns), of the classes that occur."""
    occurring = confusion.any(axis=0) | confusion.any(axis=1)
    names = {cover.code: cover.name.replace("_", " ") for cover in lulc_classes if occurring[cover.code]}
    widths = {code: max(len(name), 7) + 2 for code, name in names.items()}
    print(
        f"\n{'truth ↓ predicted →':<20}{''.join(f'{names[code]:>{widths[code]}}' for code in names)}   right"
    )
    for code, name in names.items():
        row = confusion[code]
        cells = "".join(f"{row[other]:>{widths[other]},}" for other in names)
        print(f"{name:<20}{cells}{row[code] / row.sum() if row.any() else np.nan:>8.3f}")


def print_total(counted: Sequence[Result]) -> None:
    """All tiles together: confusion, accuracy and its baselines."""
    total = np.sum([result.confusion for result in counted], axis=0)
    print_confusion(total)
    truth = total.sum(axis=1)
    commonest = lulc_classes[truth.argmax()].name.replace("_", " ")
    each_tile = sum(result.confusion.sum(axis=1).max() for result in counted)
    print(f"\n{'right in all tiles together':<40}{np.trace(total) / truth.sum():.3f}")
    print(f"{f'{commonest}, the commonest class, everywhere':<40}{truth.max() / truth.sum():.3f}")
    print(f"{'the commonest class of each tile':<40}{each_tile / truth.sum():.3f}")


def main() -> None:
    arguments = parse_arguments()
    tiles = sorted(path.stem for path in (arguments.data / "S2L2A").glob("*.tif"))
    if not tiles:
        sys.exit(
            f"There are no tiles in {arguments.data}: expected S2L2A/TILE.tif, LULC/TILE.tif and "
            "NDVI/TILE.tif, as in the examples of IBM/terramind. Name their folder with --data."
        )
    chosen = chosen_offsets(arguments.offset, tiles)
    results = {
        (tile, offset): evaluate(arguments.data, tile, arguments.model, offset)
        for tile in tiles
        for offset in OFFSETS
    }
    print(f"S2L2A → LULC, NDVI by the model {arguments.model}, greedy\n")
    print_summary(results, chosen)
    print_total([results[each] for each in chosen.items()])


if __name__ == "__main__":
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    try:
        main()
    except terramind_xr.TerramindError as error:
        sys.exit(f"{type(error).__name__}: {error}")

"""A small synthetic data set for fine-tuning, in the folders and file names of a well-known one.

    python examples/make_dataset.py --layout sen1floods11       # water in Sentinel-1 and -2
    python examples/make_dataset.py --layout burnscars          # burnt land in six bands
    python examples/make_dataset.py --layout crop --chips 24    # crops by three dates

The chips are rendered from the procedural world of terramind_xr.synthetic; the labels follow from what they
show. It is for trying configurations out, not for science.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 (gives arrays their .rio)
import xarray as xr

import terramind_xr
from terramind_xr.facts import TILE

WORLD = 200  # side of the part of the world where chips are looked for, in chips
SIX_BANDS = ["B02", "B03", "B04", "B8A", "B11", "B12"]  # those of HLS that both data sets have
DATES = ["2024-04-25", "2024-06-20", "2024-08-25"]
WATER, FLOODED, CROPS, SNOW, CLOUDS = 1, 3, 4, 7, 8  # codes of LULC

Chip = dict[str, xr.DataArray]


def world(seed: int, row: int, column: int, modalities: tuple[str, ...], time: Any = None) -> xr.Dataset:
    """One chip of the world, computed."""
    scene = terramind_xr.synthetic.scene(WORLD * TILE, seed, modalities, chunks=10 * TILE, time=time)
    part = {axis: slice(at * TILE, (at + 1) * TILE) for axis, at in (("y", row), ("x", column))}
    return scene.isel(part).compute()


def flood_chip(seed: int, row: int, column: int) -> Chip | None:
    """Water and flooded vegetation against the rest; what clouds hide has no label."""
    cover = world(seed, row, column, ("LULC",))["LULC"]
    wet = cover.isin([WATER, FLOODED])
    if not 0.1 < wet.mean() < 0.7:
        return None
    images = world(seed, row, column, ("S2L1C", "S1GRD"))
    label = xr.where(cover == CLOUDS, -1, wet).astype("int16")
    return {"S2Hand": images["S2L1C"], "S1Hand": images["S1GRD"], "LabelHand": label}


def burnt_chip(seed: int, row: int, column: int) -> Chip | None:
    """A ragged scar over whatever grew there: dark, little near infrared, more of the longest waves."""
    scene = world(seed, row, column, ("S2L2A", "LULC"))
    fuel = ~scene["LULC"].isin([WATER, SNOW, CLOUDS])
    if fuel.mean() < 0.8:
        return None
    burnt = fuel & (smooth_field(seed, row, column) > 0.6)
    image = scene["S2L2A"].sel(band=SIX_BANDS) / np.float32(10_000)
    change = xr.DataArray(np.array([0.6, 0.55, 0.6, 0.4, 0.9, 1.4], "float32"), dims="band")
    merged = xr.where(burnt, image * change, image).transpose("band", "y", "x")
    return {"merged": merged.astype("float32"), "mask": burnt.astype("int16")}


def smooth_field(seed: int, row: int, column: int) -> xr.DataArray:
    """A field of hills about as wide as a fire, of zero mean and unit deviation."""
    numbers = np.random.default_rng([seed, row, column])
    y, x = np.mgrid[:TILE, :TILE] / TILE
    field = np.zeros((TILE, TILE))
    for waves in (1.5, 3, 6, 12):
        for _ in range(4):
            angle, phase = numbers.uniform(0, 2 * np.pi, 2)
            field += np.cos(2 * np.pi * waves * (np.cos(angle) * y + np.sin(angle) * x) + phase) / waves
    return xr.DataArray((field - field.mean()) / field.std(), dims=("y", "x"))


def crop_chip(seed: int, row: int, column: int) -> Chip | None:
    """Six bands of three dates; what grows on a field shows only in the order of green and bare."""
    cover = world(seed, row, column, ("LULC",))["LULC"]
    if not (cover == CROPS).mean() > 0.3:
        return None
    series = world(seed, row, column, ("S2L2A", "NDVI"), DATES)
    spring, early, late = (series["NDVI"].isel(time=date) > 0.45 for date in range(3))
    # Codes of the data set; 0 is no data, which snow and clouds get.
    by_cover = np.array([0, 7, 2, 5, 10, 6, 6, 0, 0, 1])
    label = xr.DataArray(by_cover[cover.values], dims=cover.dims)  # fields: 10, fallow, if never green
    kinds = {
        8: spring & ~late,  # winter wheat: green in spring, harvested by the end of summer
        9: spring & late,  # alfalfa: green all along
        3: ~spring & early,  # corn: green from June
        4: ~spring & ~early & late,  # soybeans: later
    }
    for code, where in kinds.items():
        label = xr.where((cover == CROPS) & where, code, label)
    bands = series["S2L2A"].sel(band=SIX_BANDS).stack(layer=("time", "band")).transpose("layer", "y", "x")
    return {
        "merged": bands.drop_vars(["layer", "time", "band"]).astype("int16"),
        "mask": label.astype("int16"),
    }


def find_chips(make: Callable[[int, int, int], Chip | None], count: int, seed: int) -> Iterator[Chip]:
    """Chips from places that are drawn until enough of them show what is to be learned."""
    numbers = np.random.default_rng(seed)
    places = (tuple(int(at) for at in numbers.integers(0, WORLD, 2)) for _ in itertools.count())
    found = (make(seed, *place) for place in places)
    return itertools.islice((chip for chip in found if chip is not None), count)


def write(array: xr.DataArray, like: xr.DataArray, path: Path) -> None:
    """One GeoTIFF at the place of `like`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = array.drop_attrs().assign_coords({axis: like[axis] for axis in ("y", "x")})
    if array.ndim == 3 and array.dims[0] in array.coords:
        placed.attrs["long_name"] = list(array[array.dims[0]].values)  # descriptions of the bands
    placed.rio.write_crs(like.rio.crs).rio.to_raster(path, compress="deflate")


def write_names(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def parts(names: list[str]) -> dict[str, list[str]]:
    """Names for training, validation and test: four of six, and one of six each."""
    held = max(1, len(names) // 6)
    return {"train": names[: -2 * held], "valid": names[-2 * held : -held], "test": names[-held:]}


def lay_out_sen1floods11(chips: Iterator[Chip], out: Path) -> None:
    folders = {"S2Hand": "S2L1CHand", "S1Hand": "S1GRDHand", "LabelHand": "LabelHand"}
    names = []
    for number, chip in enumerate(chips):
        names.append(f"Synthetic_{number:04d}")
        for suffix, folder in folders.items():
            write(chip[suffix], chip["S2Hand"], out / "data" / folder / f"{names[-1]}_{suffix}.tif")
    for part, members in parts(names).items():
        write_names(out / "splits" / f"flood_{part}_data.txt", members)


def lay_out_burnscars(chips: Iterator[Chip], out: Path) -> None:
    names = []
    for number, chip in enumerate(chips):
        names.append(f"synthetic_{number:04d}")
        write(chip["merged"], chip["merged"], out / "data" / f"{names[-1]}_merged.tif")
        write(chip["mask"], chip["merged"], out / "data" / f"{names[-1]}.mask.tif")
    for part, members in parts(names).items():
        write_names(out / "splits" / f"{part.replace('valid', 'val')}.txt", members)


def lay_out_crop(chips: Iterator[Chip], out: Path) -> None:
    written = [(f"chip_{number:03d}", chip) for number, chip in enumerate(chips)]
    split = parts([name for name, _ in written])
    folds = {"training": split["train"], "validation": split["valid"] + split["test"]}  # it has no third one
    for fold, members in folds.items():
        write_names(out / f"{fold}_data.txt", members)
        for name in members:
            chip = dict(written)[name]
            write(chip["merged"], chip["merged"], out / f"{fold}_chips" / f"{name}_merged.tif")
            write(chip["mask"], chip["merged"], out / f"{fold}_chips" / f"{name}.mask.tif")
    rows = [",".join([name, *DATES]) for name, _ in written]
    write_names(out / "chips_df.csv", ["chip_id,first_img_date,middle_img_date,last_img_date", *rows])


LAYOUTS = {
    "sen1floods11": (flood_chip, lay_out_sen1floods11),
    "burnscars": (burnt_chip, lay_out_burnscars),
    "crop": (crop_chip, lay_out_crop),
}


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("out", type=Path, nargs="?", help="folder (default: out/data/LAYOUT)")
    parser.add_argument("--layout", choices=LAYOUTS, required=True, help="which data set's folders")
    parser.add_argument("--chips", type=int, default=24, help="how many, at least 3 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="number of the world (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.chips < 3:
        parser.error("--chips: at least 3, one each for training, validation and test")
    make, lay_out = LAYOUTS[arguments.layout]
    out = arguments.out or Path("out/data") / arguments.layout
    lay_out(find_chips(make, arguments.chips, arguments.seed), out)
    print(f"{arguments.chips} chips of {TILE} pixels: {out}")


if __name__ == "__main__":
    main()

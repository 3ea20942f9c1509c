"""How often `validate(sample=True)` names a fault of the numbers right, and accuses sound scenes.

The scenes are windows of the procedural world, of seeds apart from those that the usual differences of bands
and the thresholds were taken from (`--fit` prints these). `--real` adds the tiles of TerraMesh, by folder.
By default a scene is as large as a tile of the model; `--side 64` shows what so little tells.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from numpy.typing import NDArray

import terramind_xr
from terramind_xr.data.darkness import shown_by
from terramind_xr.data.spectrum import ORDER, differences, exchange
from terramind_xr.facts import TILE, modalities
from terramind_xr.synthetic import window

Array = NDArray[Any]
OPTICAL = ("S2L2A", "S2L1C")
NAMES = (*OPTICAL, "S1RTC", "S1GRD")
FIT, FIT_SIDE = range(0, 200), 64
"""Seeds that thresholds come from, and the side of their scenes."""
TEST = 10_000
"""First of the seeds that are measured."""

VISIBLE, NEAR, SHORT = ("B02", "B03", "B04"), ("B07", "B08", "B8A"), ("B11", "B12")
CLOSE = (("B03", "B04"), ("B02", "B03"), ("B08", "B8A"), ("B04", "B05"), ("B11", "B12"), ("B06", "B07"))
DATES = ("2024-01-20", "2024-04-15", "2024-07-01", "2024-10-10")


@dataclass(frozen=True)
class Fault:
    """One fault of one modality."""

    modality: str
    label: str
    group: str
    make: Callable[[xr.DataArray], xr.DataArray]
    kind: str
    says: str


def scenes(name: str, seeds: range, side: int) -> Iterator[xr.DataArray]:
    """Windows of many worlds, a third of them without a date, half of them with few clouds."""
    for seed in seeds:
        place = np.random.default_rng(seed).integers(0, 20_000, 2)
        look = {"clouds": 0.1} if seed % 2 else {}
        time = None if seed % 3 == 0 else DATES[seed % 4]
        values = window(seed, *map(int, place), side, side, (name,), time=time, **look)[name]
        yield labelled(values, name)


def labelled(values: Array, name: str) -> xr.DataArray:
    """Numbers as `open_rasters` would give them."""
    bands = list(modalities[name].band_names)
    data = values if values.ndim == 3 else values[None]
    attrs: dict[str, Any] = {"units": modalities[name].units}
    if modalities[name].is_optical:
        attrs["boa_add_offset"] = 0
    coords = {
        "band": bands,
        "y": 5_000_000 - 10.0 * np.arange(data.shape[1]),
        "x": 5e5 + 10.0 * np.arange(data.shape[2]),
    }
    array = xr.DataArray(data, dims=("band", "y", "x"), coords=coords, name=name, attrs=attrs)
    return array.rio.write_crs("EPSG:32632")


def exchanged(first: str, second: str) -> Callable[[xr.DataArray], xr.DataArray]:
    """A fault that gives each of two bands the other's numbers."""

    def make(data: xr.DataArray) -> xr.DataArray:
        names = {first: second, second: first}
        return data.assign_coords(band=[names.get(str(band), str(band)) for band in data["band"].values])

    return make


def scaled(factor: float) -> Callable[[xr.DataArray], xr.DataArray]:
    """A fault that multiplies the numbers and leaves their unit."""
    return lambda data: data.copy(data=data.values.astype(np.float64) * factor)


def faults(name: str) -> Iterator[Fault]:
    """All faults of a modality that are measured."""
    if name not in OPTICAL:
        yield Fault(name, "linear power, called dB", "scales", lambda d: d.copy(data=10 ** (d.values / 10)),
                    "values.power", "power")  # fmt: skip
        yield Fault(name, "amplitude, called dB", "scales", lambda d: d.copy(data=10 ** (d.values / 20)),
                    "values.power", "amplitude")  # fmt: skip
        yield Fault(name, "dB, called linear", "scales", lambda d: d.assign_attrs(units="1"),
                    "sample.units", "decibels")  # fmt: skip
        yield Fault(name, "dB × 100", "scales", scaled(100), "sample.scale", "× 100")
        yield Fault(
            name, "VV and VH", "exchanged: VV, VH", exchanged("VV", "VH"), "sample.bands", "VV and VH"
        )
        return
    for label, factor, kind, says in (
        ("÷ 10,000", 1e-4, "values.reflectance", "reflectance"),
        ("÷ 100 (percent)", 1e-2, "sample.scale", "percent"),
        ("÷ 10", 0.1, "sample.scale", "× 1000"),
        ("× 10", 10, "scale", ""),
    ):
        yield Fault(name, label, "scales", scaled(factor), kind, says)
    yield Fault(name, "digital numbers, called reflectance", "scales", lambda d: d.assign_attrs(units="1"),
                "values.digital", "digital")  # fmt: skip
    yield Fault(name, "+1000 that the metadata do not say", "offset",
                lambda d: d.copy(data=d.values + np.uint16(1000)),
                "offset.contradiction", "1000")  # fmt: skip
    yield Fault(name, "1000 taken off already", "offset", lambda d: d.assign_attrs(boa_add_offset=-1000),
                "offset.contradiction", "no offset")  # fmt: skip
    for title, pairs in (
        ("visible and near infrared", itertools.product(VISIBLE, NEAR)),
        ("visible and short-wave infrared", itertools.product(VISIBLE, SHORT)),
        ("near and short-wave infrared", itertools.product(NEAR, SHORT)),
        ("neighbours", CLOSE),
    ):
        for first, second in pairs:
            says = f"{first} and {second}"
            yield Fault(name, says, f"exchanged: {title}", exchanged(first, second), "sample.bands", says)


def told(data: xr.DataArray) -> list[tuple[str, str]]:
    """Kinds and words of all that is found wrong in the numbers."""
    report = terramind_xr.validate(data, sample=True)
    wrong = ("sample.", "values.", "offset.")
    return [
        (check.kind, check.found + check.remedy)
        for check in (*report.errors, *report.warnings)
        if check.kind.startswith(wrong) and check.kind != "sample.few"
    ]


def table(name: str, made: list[xr.DataArray]) -> Iterator[str]:
    """Rows of a modality: sound scenes accused; by group, faults named right, named wrong, unseen."""
    sound = [told(data) for data in made]
    yield f"| {name} | sound scenes | {len(made)} | – | {sum(map(bool, sound)) / len(made):.1%} accused | – |"
    groups: dict[str, list[Fault]] = {}
    for fault in faults(name):
        key = fault.group if fault.group.startswith("exchanged") else fault.label
        groups.setdefault(key, []).append(fault)
    for label, members in groups.items():
        right = wrong = total = 0
        for fault in members:
            for data in made:
                found = told(fault.make(data))
                named = any(kind.endswith(fault.kind) and fault.says in words for kind, words in found)
                right, wrong, total = right + named, wrong + (bool(found) and not named), total + 1
        shares = f"{right / total:.1%} | {wrong / total:.1%} | {1 - (right + wrong) / total:.1%}"
        yield f"| {name} | {label} | {total} | {shares} |"


def fit() -> None:
    """Print the usual differences between bands, and the gain that a hundredth of sound scenes exceed."""
    for name in OPTICAL:
        places = [modalities[name].band_names.index(band) for band in ORDER[name]]
        made = scenes(name, FIT, FIT_SIDE)
        numbers = [data.values.reshape(len(data), -1).astype(np.float32) for data in made]
        apart = np.median([differences(each[places]) for each in numbers], axis=0)
        rows = [tuple(round(float(value), 3) for value in np.diagonal(apart, step)) for step in (1, 2)]
        gains = [0.0 if (found := exchange(name, modalities[name].band_names, each, 0.0)) is None
                 else found.gain for each in numbers]  # fmt: skip
        print(f'"{name}": {tuple(rows)},')
        print("gains that 50, 10, 1 and 0.5 % of sound scenes exceed:",
              np.quantile(gains, [0.5, 0.9, 0.99, 0.995]).round(3).tolist())  # fmt: skip
        shown = [shown_by(each) for each in numbers]
        print("offset:", {value: sum(each.value == value for each in shown) for value in (0, 1000, None)})


def real(folder: Path) -> Iterator[tuple[str, list[xr.DataArray]]]:
    """The tiles of a folder laid out as TerraMesh, without what their metadata do not tell."""
    import rasterio

    for name in (*OPTICAL, "S1RTC"):
        made = []
        for path in sorted((folder / name).glob("*.tif")):
            with rasterio.open(path) as file:
                values = file.read()
            if name in OPTICAL and shown_by(values.reshape(len(values), -1).astype("f4")).value == 1000:
                values = values.astype("int32") - 1000
            made.append(labelled(values, name))
        yield f"{name}, real", made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200, help="sound scenes a modality")
    parser.add_argument("--side", type=int, default=TILE, help="of a scene, in pixels (%(default)s)")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, help="modalities (all)")
    parser.add_argument("--fit", action="store_true", help="print what the thresholds come from")
    parser.add_argument("--real", type=Path, help="folder of TerraMesh tiles, a folder a modality")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.fit:
        fit()
        return
    print("| data | fault | cases | named right | named otherwise | not seen |\n|---|---|---|---|---|---|")
    for name in options.only:
        for row in table(name, list(scenes(name, range(TEST, TEST + options.scenes), options.side))):
            print(row, flush=True)
    if options.real is not None:
        for title, made in real(options.real):
            for row in table(title.partition(",")[0], made):
                print(row.replace("| ", "| real ", 1), flush=True)


if __name__ == "__main__":
    main()

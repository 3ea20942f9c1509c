"""Eight broken scenes: what is said of each, the remedy run as it is printed, and the maps before and after.

    python examples/band_check.py                           # out/band_check/band_check.png
    python examples/band_check.py --size 448 --seed 7

Below each broken map, which the model makes where the checks are switched off, stands that of the repaired
scene, with the share of pixels that are as in the map of the sound one. The demo model is for trying things
out, not for science.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

import terramind_xr
from terramind_xr.data import Check
from terramind_xr.facts import lulc_classes

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

CODE = re.compile(r"ds = |ds\[|for name in ")
"""How the lines begin that a remedy has for a dataset."""

TRUE_COLOUR = {"vmin": 0, "vmax": 2500}


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--seed", type=int, default=0, help="number of the world (%(default)s)")
    parser.add_argument("--size", type=int, default=320, help="side in pixels (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("out/band_check"), help="folder (%(default)s)")
    return parser.parse_args()


def changed(ds: xr.Dataset, change: Callable[[xr.DataArray], xr.DataArray], **attrs: object) -> xr.Dataset:
    """The scene with other numbers, and other attributes where they are given."""
    return ds.assign(S2L2A=change(ds["S2L2A"]).assign_attrs(ds["S2L2A"].attrs | attrs))


def exchanged(ds: xr.Dataset) -> xr.Dataset:
    """A variable for each band, two of them under each other's name."""
    bands = {str(name): ds["S2L2A"].sel(band=name, drop=True) for name in ds["band"].values}
    return xr.Dataset(bands).rename(B04="B08", B08="B04")


BROKEN: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "red and infrared exchanged": exchanged,
    "bands without names": lambda ds: ds.drop_vars("band"),
    "reflectance, called DN": lambda ds: changed(ds, lambda da: da * 1e-4),
    "DN, called reflectance": lambda ds: changed(ds, lambda da: da, units="1"),
    "an offset of 1000, denied": lambda ds: changed(ds, lambda da: da + np.uint16(1000)),
    "1000 taken off twice": lambda ds: changed(ds, lambda da: da.astype("int32") - 1000),
    "no data in a third, undeclared": lambda ds: changed(
        ds, lambda da: da.astype("int16").where(da.x > da.x[da.sizes["x"] // 3], np.int16(-9999))
    ),
    "pixels of 20 m": lambda ds: ds.coarsen(y=2, x=2).mean(keep_attrs=True),
}


def finding(ds: xr.Dataset) -> Check:
    """The worst that the report tells and that a line of code repairs."""
    report = terramind_xr.validate(ds, sample=True)
    return next(each for each in (*report.errors, *report.warnings) if CODE.search(each.remedy))


def line_of(remedy: str) -> str:
    """Code in a remedy: from where it begins, as much as Python takes."""
    start = CODE.search(remedy)
    assert start is not None
    text = remedy[start.start() :]
    for end in range(len(text), 0, -1):
        if text[end - 1] in ",. " or text[end : end + 1].isalnum():
            continue
        try:
            compile(text[:end], "remedy", "exec")
        except SyntaxError:
            continue
        return text[:end]
    raise ValueError(f"no code in {remedy!r}")


def repaired(ds: xr.Dataset, line: str) -> xr.Dataset:
    """The scene after the line was run."""
    scope: dict[str, Any] = {"ds": ds.copy(deep=True), "xr": xr, "np": np}
    exec(line, scope)
    made: xr.Dataset = scope["ds"]
    return made


def land_cover(ds: xr.Dataset) -> xr.DataArray:
    made: xr.DataArray = ds.terramind.generate("LULC", model="demo").compute()
    return made


def without_checks(ds: xr.Dataset) -> xr.DataArray | None:
    """The map that a broken scene gives; None where metadata alone forbid it."""
    with warnings.catch_warnings(), terramind_xr.set_options(check_values=False):
        warnings.simplefilter("ignore", terramind_xr.TerramindWarning)
        try:
            return land_cover(ds)
        except terramind_xr.InputError:
            return None


def agreement(found: xr.DataArray | None, sound: xr.DataArray) -> float:
    """Share of the pixels with data that are as in the map of the sound scene."""
    if found is None:
        return float("nan")
    found = found.sel(y=sound.y, x=sound.x, method="nearest")
    return float((found.values == sound.values)[found.values > 0].mean())


def percent(share: float) -> str:
    return "no map" if np.isnan(share) else f"{share:.0%}"


def draw(ax: Axes, da: xr.DataArray | None, title: str) -> None:
    """A map without axes and legend, or a word that there is none."""
    if da is None:
        ax.set_box_aspect(1)
        ax.text(0.5, 0.5, "refused", ha="center", va="center", color="0.4", transform=ax.transAxes)
    else:
        terramind_xr.plot(da, ax=ax, **(TRUE_COLOUR if da.name == "S2L2A" else {}))
    for extra in (*ax.child_axes, ax.get_legend()):
        if extra is not None:
            extra.remove()
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)


def main() -> None:
    arguments = parse_arguments()
    ds = terramind_xr.synthetic.scene(arguments.size, arguments.seed, ("S2L2A",)).compute()
    sound = land_cover(ds)
    figure, axes = plt.subplots(
        2, len(BROKEN) + 1, figsize=(2.2 * len(BROKEN) + 2.2, 5.6), layout="constrained"
    )
    draw(axes[0, 0], ds["S2L2A"], "the sound scene")
    draw(axes[1, 0], sound, "its map")
    table = Table("scene", "what is said", "remedy, run as printed", title="Agreement with the sound map")
    table.add_column("broken", justify="right")
    table.add_column("repaired", justify="right")
    for column, (title, breaks) in enumerate(BROKEN.items(), 1):
        broken = breaks(ds)
        check = finding(broken)
        line = line_of(check.remedy)
        maps = without_checks(broken), land_cover(repaired(broken, line))
        shares = [percent(agreement(each, sound)) for each in maps]
        draw(axes[0, column], maps[0], f"{title}\n{check.kind}: {shares[0]}")
        draw(axes[1, column], maps[1], f"repaired: {shares[1]}")
        table.add_row(title, f"{check.status} {check.kind}", line, *shares)
    handles = [Patch(color=cover.color, label=cover.name.replace("_", " ")) for cover in lulc_classes[1:]]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output / "band_check.png", dpi=110)
    Console().print(table)
    print(f"Picture: {arguments.output / 'band_check.png'}")


if __name__ == "__main__":
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    try:
        main()
    except terramind_xr.TerramindError as error:
        sys.exit(f"{type(error).__name__}: {error}")

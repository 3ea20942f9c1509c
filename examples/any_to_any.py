"""Any to any: a scene in all its modalities, and what the model makes of some of them, in one picture.

    python examples/any_to_any.py                                # a synthetic world; out/any_to_any.png
    python examples/any_to_any.py --seed 7 --size 672 --output out/seven.png
    python examples/any_to_any.py --input S2L2A=s2.tif DEM=dem.tif LULC=lulc.tif

The upper row is the scene itself. Each row below starts with the inputs; the outputs stand under what they
should look like, with their error beside that of the tile's own mean (of classes: the share of right pixels
beside that of its commonest class). The demo model is for trying things out, not for science.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr

import terramind_xr
from terramind_xr.facts import lulc_classes

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

OUTPUTS = ("LULC", "NDVI", "DEM", "S1RTC", "S2L2A")
INPUTS = (("S2L2A",), ("S1GRD", "DEM"), ("RGB",), ("DEM",))
WORLD = ("S2L2A", "RGB", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")

# What is drawn black and white: reflectance in DN, backscatter in dB.
FALSE_COLOUR = (("B08", 0, 5000), ("B04", 0, 3000), ("B03", 0, 3000))
BACKSCATTER = ((-20, 0), (-27, -7), (1, 14))
TRUE_COLOUR = {"vmin": 0, "vmax": 2500}

Limits = dict[str, float]


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--seed", type=int, default=0, help="number of the world (%(default)s)")
    parser.add_argument("--size", type=int, default=448, help="side in pixels (%(default)s)")
    parser.add_argument("--model", default="demo", help="name or folder (%(default)s)")
    parser.add_argument("--input", nargs="+", metavar="MODALITY=FILE", help="rasters on one grid of 10 m")
    parser.add_argument(
        "--output", type=Path, default=Path("out/any_to_any.png"), help="picture (%(default)s)"
    )
    return parser.parse_args()


def composite(layers: list[tuple[xr.DataArray, float, float]]) -> xr.DataArray:
    """Three layers with their limits as red, green and blue."""
    shown = [((layer - low) / (high - low)).clip(0, 1) for layer, low, high in layers]
    return (255 * xr.concat(shown, xr.Variable("band", ["R", "G", "B"]))).drop_attrs().rename("RGB")


def by_band(da: xr.DataArray) -> dict[str, xr.DataArray]:
    """Layers of a modality by the name of the band."""
    (dim,) = (dim for dim in da.dims if str(dim).startswith("band"))
    return {str(name): da.sel({dim: name}, drop=True).astype("float32") for name in da[dim].values}


def false_colour(da: xr.DataArray) -> xr.DataArray:
    """Near infrared, red and green of Sentinel-2: vegetation is red."""
    bands = by_band(da)
    return composite([(bands[name], low, high) for name, low, high in FALSE_COLOUR])


def radar(da: xr.DataArray) -> xr.DataArray:
    """VV, VH and their ratio of Sentinel-1 as red, green and blue."""
    bands = by_band(da)
    layers = (bands["VV"], bands["VH"], bands["VV"] - bands["VH"])
    return composite([(layer, *limits) for layer, limits in zip(layers, BACKSCATTER, strict=True)])


def draw(ax: Axes, da: xr.DataArray, title: str, heights: Limits) -> None:
    """A modality without axes, legend and colour bar."""
    is_radar = da.name in ("S1GRD", "S1RTC")
    limits = heights if da.name == "DEM" else TRUE_COLOUR if da.name == "S2L2A" else {}
    if is_radar or da.name == "RGB":
        limits = {"vmin": 0, "vmax": 255}
    terramind_xr.plot(radar(da) if is_radar else da, ax=ax, **limits)
    for extra in (*ax.child_axes, ax.get_legend()):
        if extra is not None:
            extra.remove()
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)


def write(ax: Axes, words: str) -> None:
    """An empty cell that says why."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, words, ha="center", va="center", color="0.4", transform=ax.transAxes)


def error(made: xr.DataArray, truth: xr.DataArray) -> str:
    """How good it is, beside who knows the mean (or the commonest class) of the whole scene."""
    dims = [dim for dim in truth.dims if not str(dim).startswith("band")]
    values, told = np.asarray(made.transpose(..., *dims)), np.asarray(truth.transpose(..., *dims))
    if made.name == "LULC":
        right, common = (values == told).mean(), np.bincount(told.ravel()).max() / told.size
        return f"{right:.2f} right (commonest {common:.2f})"
    told = told.astype(float)
    off = np.nanmean(np.abs(values - told))
    mean = np.nanmean(np.abs(told.mean(axis=(-2, -1), keepdims=True) - told))
    return f"off by {off:.3g} (mean {mean:.3g})"


def draw_outputs(
    axes: list[Axes], world: xr.Dataset, inputs: tuple[str, ...], model: str, heights: Limits
) -> None:
    """A row: the inputs, and every output that is none of them."""
    names = " + ".join(inputs)
    draw(axes[0], world[inputs[0]], f"input: {names}", heights)
    for ax, output in zip(axes[1:], OUTPUTS, strict=True):
        if output in inputs:
            write(ax, "input")
            continue
        try:
            made = terramind_xr.generate(
                world[list(inputs)], output, inputs=list(inputs), model=model, clamp=None
            ).compute()
        except terramind_xr.WeightsError:
            write(ax, "not in this model")
            continue
        score = f"\n{error(made, world[output])}" if output in world else ""
        draw(ax, made, f"{output} from {names}{score}", heights)


def opened(pairs: list[str]) -> xr.Dataset:
    """Rasters that were named on the command line, in memory."""
    files = dict(pair.partition("=")[::2] for pair in pairs)
    return terramind_xr.open_rasters(files).compute()


def main() -> None:
    arguments = parse_arguments()
    if arguments.input:
        world, title = opened(arguments.input), f"{len(arguments.input)} rasters"
    else:
        world = terramind_xr.synthetic.scene(arguments.size, arguments.seed, WORLD).compute()
        title = f"World {arguments.seed}"
    rows = [inputs for inputs in INPUTS if set(inputs) <= set(world)]
    if not rows:
        sys.exit(f"None of {', '.join(' + '.join(inputs) for inputs in INPUTS)} is in {title}.")
    heights: Limits = {}
    if "DEM" in world:
        heights = {"vmin": float(world["DEM"].min()), "vmax": float(world["DEM"].max()) + 1}
    size = (len(OUTPUTS) + 1, len(rows) + 1)
    figure, axes = plt.subplots(
        *size[::-1], figsize=(2.5 * size[0], 2.7 * size[1] + 0.4), layout="constrained"
    )
    if "S2L2A" in world:
        draw(axes[0, 0], false_colour(world["S2L2A"]), "the scene: S2L2A, B08 B04 B03", heights)
    else:
        write(axes[0, 0], "")
    for ax, name in zip(axes[0, 1:], OUTPUTS, strict=True):
        if name in world:
            draw(ax, world[name], f"the scene: {name}", heights)
        else:
            write(ax, f"{name}: not given")
    for row, inputs in zip(axes[1:], rows, strict=True):
        draw_outputs(list(row), world, inputs, arguments.model, heights)
    handles = [
        Patch(facecolor=cover.color, edgecolor="0.5", linewidth=0.5, label=cover.name.replace("_", " "))
        for cover in lulc_classes[1:]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    relief = f", {heights['vmin']:.0f} to {heights['vmax']:.0f} m" if heights else ""
    figure.suptitle(
        f"{title}, {world.sizes['y']} × {world.sizes['x']} pixels{relief}; "
        f"radar as VV, VH and VV − VH; outputs by the model {arguments.model}, without clamp",
        fontsize=10,
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=110)
    print(f"Picture: {arguments.output}")


if __name__ == "__main__":
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    try:
        main()
    except terramind_xr.TerramindError as error:
        sys.exit(f"{type(error).__name__}: {error}")

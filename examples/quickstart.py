"""Land cover of a whole Sentinel-2 scene: checked, planned, generated lazily to Zarr, drawn and summed up.

    python examples/quickstart.py                                   # a synthetic scene, the demo model
    python examples/quickstart.py --input scene.tif --model terramind_v1_tiny

The demo model is for trying things out, not for science.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import dask
import matplotlib
import rioxarray  # noqa: F401 (gives arrays their .rio)
import xarray as xr
from rich.console import Console
from rich.table import Table

import terramind_xr
from terramind_xr.facts import lulc_classes


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--input", help="your own GeoTIFF: all bands of the modality, in its order")
    parser.add_argument("--modality", default="S2L2A", help="what the file holds (default: %(default)s)")
    parser.add_argument(
        "--model", default="demo", help="demo, terramind_v1_tiny … terramind_v1_large, or a folder"
    )
    parser.add_argument("--size", type=int, default=2048, help="side of the synthetic scene in pixels")
    parser.add_argument("--output", type=Path, default=Path("out/quickstart"), help="folder for what is made")
    parser.add_argument(
        "--offset",
        default="auto",
        type=lambda text: int(text) if text.isdigit() else text,
        help="Sentinel-2 offset in the digital numbers: auto, 0 or 1000",
    )
    return parser.parse_args()


def print_areas(lulc: xr.DataArray, pixel_counts: list[int]) -> None:
    """Table of the area of each class that occurs."""
    width, height = lulc.rio.resolution()
    table = Table("class", title="Land cover")
    table.add_column("km²", justify="right")
    table.add_column("share", justify="right")
    for cover, count in zip(lulc_classes, pixel_counts, strict=True):
        if count:
            area = count * abs(width * height) / 1e6
            table.add_row(cover.name.replace("_", " "), f"{area:.2f}", f"{count / lulc.size:.1%}")
    Console().print(table)


def draw(pictures: dict[str, xr.DataArray], path: Path) -> None:
    """Pictures side by side, as a PNG."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(pictures), figsize=(7 * len(pictures), 6), layout="compressed")
    for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
        picture.terramind.plot(ax=ax)
        ax.set_title(title)
    figure.savefig(path, dpi=120)


def main() -> None:
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    store, picture = arguments.output / "lulc.zarr", arguments.output / "lulc.png"
    synthetic = arguments.input is None

    if synthetic:
        scene = terramind_xr.synthetic.scene(arguments.size, modalities=(arguments.modality,))
        truth = terramind_xr.synthetic.scene(arguments.size, modalities=("LULC",))["LULC"]
    else:
        scene = terramind_xr.open_rasters({arguments.modality: arguments.input}, chunks=1024)
    print(scene.terramind.validate())

    options = {"model": arguments.model, "offset": arguments.offset, "shifts": 2}
    plan = scene.terramind.plan("LULC", **options)
    print(plan)
    # With the second pass, blocks of a patch's size all but vanish from the map.
    lulc = scene.terramind.generate("LULC", decoding="expected", **options)
    lulc = lulc.terramind.to_zarr(store)  # from here on, the map is read from the store

    *counts, agreement = dask.compute(
        *((lulc == cover.code).sum() for cover in lulc_classes),
        (lulc == truth).mean() if synthetic else None,
    )
    print_areas(lulc, [int(count) for count in counts])
    pictures = {"Input": scene[arguments.modality], f"Land cover, model {arguments.model}": lulc}
    if synthetic:
        print(f"Agreement with the truth of the synthetic scene: {float(agreement):.1%} of the pixels")
        print(f"Patch index, 1 where patches do not show: {lulc.terramind.seam_index(plan).patch:.1f}")
        pictures["Truth"] = truth
    draw(pictures, picture)
    print(f"Map:     {store}  ({lulc.sizes['y']} × {lulc.sizes['x']} pixels, {lulc.rio.crs})")
    print(f"Picture: {picture}")


if __name__ == "__main__":
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    try:
        main()
    except terramind_xr.TerramindError as error:
        sys.exit(f"{type(error).__name__}: {error}")

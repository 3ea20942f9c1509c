"""From labels to a flood map: fine-tune the demo on one scene, map it, score it, draw it.

    python examples/finetune_flood.py                     # some minutes on two cores, without a network
    python examples/finetune_flood.py --tim LULC          # the model thinks in land cover first
    python examples/finetune_flood.py --scratch           # the same from random weights
    python examples/finetune_flood.py --model terramind_v1_tiny --epochs 5

The flood is synthetic (`terramind_xr.synthetic.flood`): radar during it, optical data from before. Some
polygons are the labels. The map is made of another scene, which no training saw, and compared with the
truth, beside the best pair of thresholds on VV and NDWI that the labelled pixels of the first scene give.
Written: `best.ckpt`, `flood.tif`, `flood.png`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import geopandas
import matplotlib
import numpy as np
import shapely
import xarray as xr

import terramind_xr

INPUTS = ["S2L1C", "S1GRD"]
CLASSES = {0: "dry", 1: "flooded"}


def flooded_scene(size: int, seed: int) -> xr.Dataset:
    ds = terramind_xr.synthetic.scene(size, seed=seed, modalities=[*INPUTS, "LULC"], offset=1000)
    return terramind_xr.synthetic.flood(ds, seed=seed).load()


def drawn_polygons(flood: xr.DataArray, number: int, seed: int) -> geopandas.GeoDataFrame:
    """What somebody would draw on a screen: squares here and there, cut along the shores of the flood."""
    from rasterio.features import shapes

    rng = np.random.default_rng(seed)
    side = 1500  # metres
    left, bottom, right, top = flood.rio.bounds()
    corners = rng.uniform((left, bottom), (right - side, top - side), (number, 2))
    squares = shapely.union_all([shapely.box(x, y, x + side, y + side) for x, y in corners])
    areas = shapes(flood.values, transform=flood.rio.transform())
    parts = [(CLASSES[int(code)], shapely.geometry.shape(area).intersection(squares)) for area, code in areas]
    kept = [(name, part) for name, part in parts if not part.is_empty]
    names, geometry = zip(*kept, strict=True)
    return geopandas.GeoDataFrame({"class": names}, geometry=list(geometry), crs=flood.rio.crs)


def thresholds(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """VV and NDWI of each pixel: what a mapping by thresholds goes by."""
    optical = ds.S2L1C.rename(band_S2L1C="band") if "band_S2L1C" in ds.S2L1C.dims else ds.S2L1C
    green, infrared = (optical.sel(band=name).astype("float32") - 1000 for name in ("B03", "B08"))
    radar = ds.S1GRD.isel({ds.S1GRD.dims[0]: 0}).values
    return radar, ((green - infrared) / (green + infrared).clip(1)).values


def best_thresholds(ds: xr.Dataset, labels: xr.DataArray) -> tuple[float, float]:
    """Flooded where VV is low and NDWI was: the pair with the best IoU on the labelled pixels."""
    radar, water = thresholds(ds)
    seen, truth = labels.values != 255, labels.values == 1
    radar, water, truth = radar[seen], water[seen], truth[seen]

    def iou(pair: tuple[float, float]) -> float:
        made = (radar < pair[0]) & (water < pair[1])
        return float((made & truth).sum() / (made | truth).sum())

    return max(((vv, ndwi) for vv in np.arange(-20, -10, 0.5) for ndwi in np.arange(-0.4, 0.9, 0.1)), key=iou)


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=2016, help="side of the scene with labels (%(default)s)")
    parser.add_argument("--polygons", type=int, default=120, help="squares that are labelled (%(default)s)")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--scratch", action="store_true", help="start from random weights")
    parser.add_argument("--tim", nargs="*", default=[], metavar="MODALITY")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=8.0, help="for the training, at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/flood"))
    arguments = parser.parse_args()

    scene, other = flooded_scene(arguments.size, seed=11), flooded_scene(896, seed=12)
    polygons = drawn_polygons(scene.flood, arguments.polygons, seed=0)
    start = time.perf_counter()
    trained = terramind_xr.finetune.fit(
        scene[INPUTS],
        polygons,
        arguments.out,
        model=arguments.model,
        pretrained=not arguments.scratch,
        tim=arguments.tim,
        classes=CLASSES,
        epochs=arguments.epochs,
        minutes=arguments.minutes,
        block=1,
        gap=0,
        splits=(0.8, 0.2, 0),
        seed=arguments.seed,
    )
    print(f"{trained.epochs} epochs in {(time.perf_counter() - start) / 60:.1f} minutes")

    water = other[INPUTS].terramind.segment(trained).compute()
    truth = other.flood
    scores = water.terramind.evaluate(truth, classes=CLASSES)
    labels = terramind_xr.finetune.rasterized(polygons, scene.S1GRD, classes=CLASSES)
    limits = best_thresholds(scene, labels)
    radar, ndwi = thresholds(other)
    simple = truth.copy(data=((radar < limits[0]) & (ndwi < limits[1])).astype("uint8"))
    baseline = simple.terramind.evaluate(truth)
    print(f"{'':>12}{'IoU of the flood':>18}{'accuracy':>10}")
    for name, each in (("fine-tuned", scores), ("thresholds", baseline)):
        print(f"{name:>12}{float(each.iou.sel({'class': 'flooded'})):>18.3f}{float(each.accuracy):>10.3f}")

    water.rio.to_raster(arguments.out / "flood.tif")
    draw(other, water, truth, arguments.out / "flood.png")
    print(f"written: {arguments.out}/best.ckpt, flood.tif, flood.png")


def draw(ds: xr.Dataset, water: xr.DataArray, truth: xr.DataArray, path: Path) -> None:
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(16, 4.4), layout="compressed")
    ds.S2L1C.terramind.plot(ax=axes[0])
    ds.S1GRD.terramind.plot(ax=axes[1])
    water.terramind.plot(ax=axes[2])
    water.copy(data=truth.values).terramind.plot(ax=axes[3])
    for ax, title in zip(axes, ("before", "radar during the flood", "flood map", "truth"), strict=True):
        ax.set_title(title)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()

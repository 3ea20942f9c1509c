"""What libraries give of Sentinel data, kept in tests/data/sources as the tests read it.

Each step stands for an environment; all of them write the same small scene, bands at their own resolution:

    python tools/source_fixtures.py plain                 # the package installed
    python tools/source_fixtures.py stac ITEMS FOLDER     # odc-stac stackstac rioxarray netCDF4 "pandas<3"
    python tools/source_fixtures.py lazycogs ITEMS FOLDER # lazycogs >= 0.7, Python 3.12
    python tools/source_fixtures.py read                  # structures from documentation: xarray alone

ITEMS holds STAC items from the tests of stactools-packages/sentinel2 and opendatacube/odc-stac; FOLDER takes
the GeoTIFFs that stand for their assets.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from source_files import dump, load

SIZE = 24  # pixels of 10 m: whole pixels of 20 and of 60 m, too
COARSE = dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 2) | dict.fromkeys(("B01", "B09"), 6)
COMMON = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
NEW, PLANETARY = (
    "S2A_MSIL2A_20230625_N0509_T01WCP.json",
    "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json",
)


def plain() -> None:
    """The scene itself: digital numbers without offset, in steps of 100 so that files stay small."""
    import terramind_xr

    scene = terramind_xr.synthetic.scene(SIZE, seed=5, modalities=("S2L2A",))["S2L2A"].load()
    values = np.maximum(scene.values // 100 * 100, 100).astype("uint16")
    for place, band in enumerate(scene["band"].values):
        step = COARSE.get(str(band), 1)
        values[place] = np.kron(values[place, ::step, ::step], np.ones((step, step), "uint16"))
    made = xr.DataArray(values, dims=("band", "y", "x"), coords={"band": list(scene["band"].values)})
    dump(
        made.rename("S2L2A").assign_attrs(units="DN", boa_add_offset=0),
        "plain",
        "terramind_xr.synthetic.scene",
    )


def pixels() -> dict[str, Any]:
    """Numbers by band, each at its own resolution."""
    scene = load("plain")
    steps = {band: COARSE.get(band, 1) for band in COMMON}
    return {band: scene.sel(band=band).values[::step, ::step] for band, step in steps.items()}


def local(item: dict[str, Any], folder: Path, offset: int, name: str = "{}") -> dict[str, Any]:
    """The item with small GeoTIFFs as assets, named by `name` and the band or its own keys, and its grid."""
    import rasterio
    from rasterio import Affine

    item, values = {**copy.deepcopy(item), "links": []}, pixels()
    code = item["properties"].get("proj:code") or f"EPSG:{item['properties']['proj:epsg']}"
    folder = folder / f"{item['id']}-{offset}"
    folder.mkdir(parents=True, exist_ok=True)
    assets = {}
    for band, numbers in values.items():
        key = band if band in item["assets"] else COMMON[band]
        asset = item["assets"][key]
        size, (step, _, west, _, _, north) = len(numbers), asset["proj:transform"][:6]
        profile = {"height": size, "width": size, "count": 1, "dtype": "uint16", "nodata": 0, "crs": code}
        transform = Affine(step, 0, west, 0, -step, north)
        path = folder / f"{band}.tif"
        with rasterio.open(path, "w", "GTiff", transform=transform, tiled=True, **profile) as file:
            file.write(numbers + np.uint16(offset), 1)
        asset |= {"href": str(path), "type": "image/tiff; application=geotiff", "proj:shape": [size, size]}
        assets[name.format(key)] = asset
    item["assets"] = assets
    item["properties"].setdefault(
        "proj:epsg", int(code.removeprefix("EPSG:"))
    )  # stackstac knows no proj:code
    return item


def geobox(item: dict[str, Any]) -> Any:
    """The grid of the scene at 10 m."""
    from odc.geo.geobox import GeoBox
    from rasterio import Affine

    finest = min(item["assets"].values(), key=lambda asset: asset["proj:transform"][0])
    transform = Affine(*finest["proj:transform"][:6])
    return GeoBox((SIZE, SIZE), transform, f"EPSG:{item['properties']['proj:epsg']}")


def keep_items(name: str, items: list[dict[str, Any]]) -> None:
    """The items beside the data, without what does not matter: places of files, links and descriptions."""
    items = copy.deepcopy(items)
    dropped = {
        "href", "title", "description", "roles", "type", "alternate",
        "proj:bbox", "proj:shape", "proj:transform",
    }  # fmt: skip
    for item in items:
        item["links"] = []
        item["assets"] = {
            key: {part: value for part, value in asset.items() if part not in dropped}
            for key, asset in item["assets"].items()
        }
    path = Path(__file__).parents[1] / "tests" / "data" / "sources" / f"{name}.items.json"
    path.write_text(json.dumps(items, ensure_ascii=False) + "\n", encoding="utf-8")


def stac(folder: str, to: str) -> None:
    """odc-stac and stackstac with real items, and the same files through rioxarray and netCDF."""
    import odc.stac
    import pystac

    by = f"odc-stac {odc.stac.__version__}"
    new = local(json.loads((Path(folder) / NEW).read_text()), Path(to), 1000)
    planetary = local(json.loads((Path(folder) / PLANETARY).read_text()), Path(to), 0)
    earth_search, cdse = earth_search_of(new, Path(to)), cdse_of(new)
    for name, item in {
        "odc-stac": new, "planetary-computer": planetary, "earth-search": earth_search, "cdse": cdse,
    }.items():  # fmt: skip
        loaded = odc.stac.load([pystac.Item.from_dict(item)], geobox=geobox(item))
        dump(loaded, name, by)
        keep_items(name, [item])
    series = series_of(new, Path(to))
    loaded = odc.stac.load(map(pystac.Item.from_dict, series), geobox=geobox(new), groupby="solar_day")
    dump(loaded, "odc-stac-solar-day", by)
    keep_items("odc-stac-solar-day", series)
    _stackstac(new, series, earth_search)
    _files(new, Path(to))


def series_of(item: dict[str, Any], to: Path) -> list[dict[str, Any]]:
    """Three items: one of an earlier year without offset, and two of one solar day, seconds apart."""
    old, neighbour = copy.deepcopy(item), copy.deepcopy(item)
    old["id"], old["properties"]["datetime"] = "S2A_T01WCP_20210620T234624_L2A", "2021-06-20T23:46:24Z"
    old["properties"]["s2:processing_baseline"] = "03.00"
    for asset in old["assets"].values():
        asset["raster:bands"] = [asset["raster:bands"][0] | {"offset": 0}]
    neighbour["id"] = "S2A_T01WCP_20230625T234640_L2A"
    neighbour["properties"]["datetime"] = "2023-06-25T23:46:40Z"
    return [neighbour, local(old, to, 0), item]


def earth_search_of(item: dict[str, Any], to: Path) -> dict[str, Any]:
    """As Earth Search v1 does (Element84/earth-search, issue 66): the offset said, and taken off."""
    made = copy.deepcopy(item)
    made["id"], made["collection"] = "S2A_01WCP_20230625_0_L2A", "sentinel-2-l2a"
    made["properties"] |= {
        "earthsearch:boa_offset_applied": True,
        "processing:software": {"sentinel2-to-stac": "0.1.0"},
    }
    return local(made, to, 0)


def cdse_of(item: dict[str, Any]) -> dict[str, Any]:
    """As stac.dataspace.copernicus.eu does: STAC 1.1, a band's name with its resolution, scale by asset."""
    made = copy.deepcopy(item)
    made["id"] = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157"
    made["collection"], made["stac_version"] = "sentinel-2-l2a", "1.1.0"
    for key in [key for key in made["properties"] if key.startswith("s2:")]:
        del made["properties"][key]
    made["properties"] |= {"processing:version": "05.09", "product:type": "S2MSI2A"}
    assets = {}
    for band, common in COMMON.items():
        asset = made["assets"][common]
        del asset["eo:bands"], asset["raster:bands"]
        asset["bands"] = [
            {"name": band, "eo:common_name": common.rstrip("123") if "rededge" in common else common}
        ]
        asset |= {"raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0, "data_type": "uint16"}
        assets[f"{band}_{asset['proj:transform'][0]:.0f}m"] = asset
    made["assets"] = assets
    return made


def _stackstac(item: dict[str, Any], series: list[dict[str, Any]], earth_search: dict[str, Any]) -> None:
    import stackstac

    grid = {"epsg": 32601, "resolution": 10, "bounds": geobox(item).boundingbox.bbox}
    by = f"stackstac {stackstac.__version__}"
    ways: dict[str, dict[str, Any]] = {
        "stackstac": {},  # what a user gets who says nothing
        "stackstac-centred": {"xy_coords": "center"},
        "stackstac-raw": {
            "rescale": False,
            "dtype": "uint16",
            "fill_value": np.uint16(0),
            "xy_coords": "center",
        },
    }
    for name, options in ways.items():
        dump(stackstac.stack([item], **grid, **options), name, by)
    dump(stackstac.stack(series, **grid, **ways["stackstac-raw"]), "stackstac-series", by)
    dump(stackstac.stack([earth_search], **grid, xy_coords="center"), "stackstac-earth-search", by)


def _files(item: dict[str, Any], to: Path) -> None:
    """One GeoTIFF of all bands through rioxarray, and netCDF files of packed reflectance."""
    import rasterio
    import rioxarray

    scene, grid = load("plain"), geobox(item)
    path = to / "stack.tif"
    profile = {
        "count": 12,
        "height": SIZE,
        "width": SIZE,
        "dtype": "uint16",
        "nodata": 0,
        "crs": "EPSG:32601",
    }
    with rasterio.open(path, "w", "GTiff", transform=grid.affine, **profile) as file:
        file.write(scene.values + np.uint16(1000))
        file.descriptions = tuple(COMMON)
        file.scales, file.offsets = (1e-4,) * 12, (-0.1,) * 12
    by = f"rioxarray {rioxarray.__version__}"
    dump(rioxarray.open_rasterio(path), "rioxarray", by)
    dump(rioxarray.open_rasterio(path, masked=True), "rioxarray-masked", by)
    dump(rioxarray.open_rasterio(path, mask_and_scale=True), "rioxarray-scaled", by)
    dump(rioxarray.open_rasterio(path, band_as_variable=True), "rioxarray-variables", by)
    first = rioxarray.open_rasterio(path).drop_attrs(deep=False)
    packed = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0, "dtype": "uint16", "zlib": True}
    plain = {
        band: first[place].drop_vars("band").astype("float64") * 1e-4 - 0.1
        for place, band in enumerate(COMMON)
    }
    stored = xr.Dataset({band: data.assign_attrs(units="1") for band, data in plain.items()})
    path = to / "scene.nc"
    stored.to_netcdf(path, encoding={band: {**packed, "grid_mapping": "spatial_ref"} for band in stored})
    by = f"xarray {xr.__version__}, netCDF4"
    dump(xr.open_dataset(path).load(), "netcdf", by)
    dump(xr.open_dataset(path, mask_and_scale=False, decode_coords="all").load(), "netcdf-packed", by)


def lazycogs(folder: str, to: str, extensions: str | None = None) -> None:
    """The same item through lazycogs, whose dates are days; `extensions` is a folder of those of DuckDB."""
    import importlib.metadata

    import lazycogs
    import rustac

    path = Path(to).resolve()
    item = local(json.loads((Path(folder) / NEW).read_text()), path, 1000)
    for asset in item["assets"].values():
        asset["href"] = Path(asset["href"]).as_uri()
    table = str(path / "items.parquet")
    rustac.write_sync(table, [item])
    client = rustac.DuckdbClient(
        extension_directory=extensions and Path(extensions), install_extensions=extensions is None
    )
    finest = item["assets"]["blue"]["proj:transform"]
    west, north = finest[2], finest[5]
    box = (west, north - 10 * SIZE, west + 10 * SIZE, north)
    loaded = lazycogs.open(
        table, bbox=box, crs="EPSG:32601", resolution=10.0, bands=list(COMMON.values()), duckdb_client=client
    )
    dump(loaded.load(), "lazycogs", f"lazycogs {importlib.metadata.version('lazycogs')}")


def read() -> None:
    """Structures that cannot be made without an account or a download; from what is cited."""
    scene = load("plain")
    x, y = 300_005 + 10.0 * np.arange(SIZE), 7_400_035 - 10.0 * np.arange(SIZE)
    time = np.array(["2023-06-25T23:46:21.024"], "datetime64[ns]")
    ids = {band: f"B{int(band[1:])}" if band != "B8A" else band for band in COMMON}  # Earth Engine's: B2, B8A
    attrs = {
        "data_type": {"type": "PixelType", "precision": "int", "min": 0, "max": 65535},
        "crs": "EPSG:32601",
    }
    for name, dims, axes, by in (
        ("xee-0.0", ("time", "X", "Y"), {"X": x, "Y": y}, "google/Xee xee/ext.py at 00ba444"),
        (
            "xee-0.1",
            ("time", "y", "x"),
            {"y": y, "x": x},
            "google/Xee docs/migration-guide-v0.1.0.md at 367ff76",
        ),
    ):
        variables = {}
        for band, own in ids.items():
            values = scene.sel(band=band).values.astype("int32")[np.newaxis]
            values = values.transpose(0, 2, 1) if dims[1] == "X" else values
            variables[own] = (dims, values, {"id": own, **{key: str(each) for key, each in attrs.items()}})
        ds = xr.Dataset(
            variables, {"time": time, **axes}, {"crs": "EPSG:32601", "coordinates": " ".join(dims)}
        )
        dump(ds, name, f"not run: {by}")
    dump(_terramesh(scene, x, y, time), "terramesh-zarr", "not run: README of ibm-esa-geospatial/TerraMesh")


def _terramesh(scene: Any, x: Any, y: Any, time: Any) -> xr.Dataset:
    """A sample of S2L2A as the dataset's README shows one of S1GRD."""
    return xr.Dataset(
        {
            "bands": (("band", "time", "y", "x"), scene.values[:, np.newaxis].astype("int16")),
            "center_lat": ((), 66.7),
            "center_lon": ((), 172.5),
            "crs": ((), 32601),
            "file_id": (("time",), ["S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157"]),
        },
        {
            "band": list(COMMON), "time": time, "y": y, "x": x, "sample": ((), "0194630_1"),
            "spatial_ref": ((), 0),
        },
    )  # fmt: skip


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    {"plain": plain, "stac": stac, "lazycogs": lazycogs, "read": read}[step](*arguments)

"""Sentinel data as its own library loads it gives the map of the plain scene (tools/source_fixtures.py)."""

from __future__ import annotations

import copy
import json
import re
import warnings

import dask.array
import numpy as np
import pystac
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from scenes import TILES, axes, plain, split, unreadable
from source_files import FOLDER, load
from terramind_xr.data import as_dataset, find_inputs
from terramind_xr.errors import InputError, TerramindWarning
from terramind_xr.facts import modalities
from terramind_xr.grid import Grid

REAL = sorted((TILES.parent / "stac").glob("*.json"))
FROM_ITEMS = {
    "odc-stac": "odc-stac", "odc-stac-solar-day": "odc-stac-solar-day", "cdse": "cdse",
    "planetary-computer": "planetary-computer", "stackstac-raw": "odc-stac", "lazycogs": "odc-stac",
    "stackstac-series": "odc-stac-solar-day",
}  # fmt: skip
AS_THEY_ARE = ("netcdf", "netcdf-packed", "rioxarray-variables")
NAMED = ("rioxarray", "rioxarray-masked", "rioxarray-scaled")
SAID = {"xee-0.0": 0, "xee-0.1": 0, "terramesh-zarr": 0}


def items_of(name):
    return json.loads((FOLDER / f"{name}.items.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected():
    """The map of the scene itself."""
    scene = load("plain").assign_coords(axes(24, 24)).rio.write_crs("EPSG:32601")
    return scene.terramind.generate("LULC", model="demo").values


def prepared(name):
    """What a user does to it: docs/data.md says it in a row for each."""
    data = load(name)
    if name in FROM_ITEMS:
        return data.terramind.with_stac(items_of(FROM_ITEMS[name]))
    if name == "earth-search":
        with pytest.warns(TerramindWarning, match="items.applied"):
            return data.terramind.with_stac(items_of(name))
    if name.startswith("stackstac"):
        return data.terramind.with_stac(items_of("odc-stac"), rescaled=True)
    if name == "terramesh-zarr":
        return data.rename(bands="S2L2A")
    return data.rename("S2L2A") if name in NAMED else data


@pytest.mark.parametrize(
    "name",
    [*FROM_ITEMS, "earth-search", "stackstac-centred", *AS_THEY_ARE, *NAMED, *SAID],
)
def test_each_source_gives_the_map_of_the_scene(name, expected):
    data = prepared(name)
    option = SAID.get(name, "auto")
    found = find_inputs(as_dataset(data))
    assert (list(found.inputs), found.faults) == (["S2L2A"], [])
    given = found.inputs["S2L2A"]
    assert given.data["band"].values.tolist() == list(modalities["S2L2A"].band_names)
    place = Grid.of(given.data)
    corner = (
        ("EPSG:32606", 399960, 6800040) if name == "planetary-computer" else ("EPSG:32601", 300000, 7400040)
    )
    assert (str(place.crs), place.transform.c, place.transform.f) == corner
    assert (place.transform.a, place.transform.e) == (10, -10)
    report = data.terramind.validate()
    kinds = {check.kind for check in report.checks if check.status != "ok"}
    assert kinds <= ({"units.silent"} if name == "planetary-computer" else set()) | (
        {"offset.silent"} if name in SAID else set()
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*units.silent", TerramindWarning)
        made = data.terramind.generate("LULC", model="demo", offset=option).transpose(..., *place.dims)
    assert all(
        (np.asarray(each) == expected).mean() > 0.99 for each in made.values.reshape(-1, *expected.shape)
    )


def test_a_wrong_offset_would_be_seen(expected):
    data = load("odc-stac")
    made = data.terramind.generate("LULC", model="demo", offset=0)
    assert (made.values[0] == expected).mean() < 0.9


def test_what_odc_stac_drops_is_a_doubt_that_names_the_items():
    (warning,) = load("odc-stac").terramind.validate().warnings
    assert warning.kind == "offset.silent"
    names = {"ds": load("odc-stac"), "items": items_of("odc-stac")}
    exec(re.search(r"ds = ds.terramind.with_stac\(items\)", warning.remedy)[0], names)
    assert not names["ds"].terramind.validate().warnings
    assert names["ds"]["boa_add_offset"].values.tolist() == [-1000]
    assert names["ds"]["s2:processing_baseline"].values.tolist() == ["05.09"]


def test_each_date_has_the_offset_of_its_items():
    ds = prepared("odc-stac-solar-day")
    assert ds["boa_add_offset"].values.tolist() == [0, -1000]
    assert ds["s2:processing_baseline"].values.tolist() == ["03.00", "05.09"]
    stack = prepared("stackstac-series")  # by id, the same items one by one
    assert stack["boa_add_offset"].values.tolist() == [0, -1000, -1000]


def test_corners_are_told_and_the_remedy_moves_them():
    ds = load("stackstac").terramind.with_stac(items_of("odc-stac"), rescaled=True)
    (warning,) = ds.terramind.validate().warnings
    assert warning.kind == "grid.corners"
    assert Grid.of(ds).lies_on_corners
    names = {"ds": ds.isel(x=slice(3, 9), y=slice(2, 8))}
    exec(re.search(r"ds = ds\.assign_coords\(.*\)(?=\.)", warning.remedy)[0], names)
    assert names["ds"].terramind.validate().warnings == ()
    centred = load("stackstac-centred").isel(x=slice(3, 9), y=slice(2, 8))
    assert Grid.of(names["ds"]).same_as(Grid.of(centred)) is None


def test_an_offset_that_is_taken_off_twice_is_refused():
    stack = load("stackstac-earth-search")
    with pytest.raises(InputError, match="rescale=False") as caught:
        stack.terramind.with_stac(items_of("earth-search"), rescaled=True)
    assert caught.value.kinds == ("items.rescaled",)


def test_of_floats_it_must_be_said_whether_they_were_rescaled():
    with pytest.raises(InputError) as caught:
        load("stackstac-centred").terramind.with_stac(items_of("odc-stac"))
    assert caught.value.kinds == ("items.rescaled",)
    names = {"ds": load("stackstac-centred"), "items": items_of("odc-stac")}
    exec(re.search(r"ds = ds.terramind.with_stac\(items, rescaled=True\)", str(caught.value))[0], names)
    assert (names["ds"].attrs["units"], names["ds"]["boa_add_offset"].item()) == ("1", 0)
    stored = (load("stackstac-raw").astype("float64")).terramind.with_stac(
        items_of("odc-stac"), rescaled=False
    )
    assert (stored.attrs["units"], stored["boa_add_offset"].item()) == ("DN", -1000)
    with pytest.raises(InputError, match="integers are as they were stored"):
        load("odc-stac").terramind.with_stac(items_of("odc-stac"), rescaled=True)


def test_a_date_without_its_item_is_an_error():
    items = items_of("odc-stac-solar-day")
    for name, missing in (("odc-stac-solar-day", "2023-06-25"), ("stackstac-series", "S2A_T01WCP_2023")):
        with pytest.raises(InputError, match=f"no item for .*{missing}") as caught:
            load(name).terramind.with_stac([item for item in items if "2021" in item["id"]])
        assert caught.value.kinds == ("items.unmatched",)
    with pytest.raises(InputError, match="no items"):
        load("netcdf").terramind.with_stac([])


@pytest.mark.parametrize("wrong", [xr.DataTree(), np.zeros((2, 2))])
def test_what_is_no_array_is_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        terramind_xr.with_stac(wrong, items_of("odc-stac"))


def test_items_of_a_date_must_agree():
    items = items_of("odc-stac-solar-day")
    one = next(item for item in items if item["id"].endswith("234640_L2A"))
    one["properties"]["s2:processing_baseline"] = "03.01"
    for asset in one["assets"].values():
        asset["raster:bands"][0]["offset"] = 0
    with pytest.raises(InputError, match="groupby='id'") as caught:
        load("odc-stac-solar-day").terramind.with_stac(items)
    assert caught.value.kinds == ("items.contradiction", "items.contradiction")
    del one["assets"]["blue"]["raster:bands"]
    one["assets"]["green"]["raster:bands"][0]["scale"] = 0.1
    with pytest.raises(InputError) as caught:
        load("odc-stac-solar-day").terramind.with_stac(items)
    assert "items.scale" in caught.value.kinds


SPELLINGS = {
    "raster 1": lambda told: {"raster:bands": [told], "eo:bands": [{"name": "B04"}]},
    "STAC 1.1": lambda told: {"bands": [{"name": "B04", **{f"raster:{key}": told[key] for key in told}}]},
    "bands, unprefixed": lambda told: {"bands": [{"name": "B04", **told}]},
    "of the asset": lambda told: {"bands": [{"name": "B04"}], **{f"raster:{key}": told[key] for key in told}},
}


@given(st.data())
@settings(max_examples=examples(60), deadline=None)
def test_every_spelling_and_order_of_items_says_the_same(data):
    """Items in any order, with others among them, as dicts or of pystac."""
    times = np.array(["2021-03-01T10:00:00", "2022-03-01T10:00:00", "2023-03-01T10:00:00"], "datetime64[ns]")
    offsets = data.draw(st.lists(st.sampled_from([0, -0.1]), min_size=3, max_size=3))
    keys = data.draw(st.permutations(["red", "B04_10m", "anything"]))
    items = [
        {
            "type": "Feature", "stac_version": "1.0.0", "id": f"item {place}", "geometry": None, "links": [],
            "properties": {"datetime": f"{str(time)[:19]}Z", "s2:processing_baseline": f"0{3 + place}.00"},
            "assets": {keys[0]: {"href": "a.tif", **SPELLINGS[data.draw(st.sampled_from(sorted(SPELLINGS)))](
                {"scale": 0.0001, "offset": offset})}},
        }
        for place, (time, offset) in enumerate(zip(times, offsets, strict=True))
    ]  # fmt: skip
    ds = xr.Dataset({"red": (("time", "y", "x"), np.ones((3, 2, 2), "uint16"))}, {"time": times})
    given_items = data.draw(st.permutations(items))
    wrap = data.draw(st.sampled_from([
        list, lambda all_: [pystac.Item.from_dict(copy.deepcopy(each)) for each in all_],
        pystac.ItemCollection, lambda all_: {"type": "FeatureCollection", "features": all_},
    ]))  # fmt: skip
    before = ds.copy(deep=True)
    some = sorted(data.draw(st.sets(st.integers(0, 2), min_size=1)))
    made = ds.isel(time=some).terramind.with_stac(wrap(given_items))
    assert made["boa_add_offset"].values.tolist() == [offsets[place] * 10_000 for place in some]
    assert made["s2:processing_baseline"].values.tolist() == [f"0{3 + place}.00" for place in some]
    xr.testing.assert_identical(ds, before)
    scalar = ds.isel(time=some[0]).terramind.with_stac(given_items)
    assert scalar["boa_add_offset"].item() == offsets[some[0]] * 10_000


def test_no_pixel_is_read_and_the_result_can_be_stored(tmp_path):
    ds = load("odc-stac").map(unreadable, kind="dask", keep_attrs=True)
    made = ds.chunk().terramind.with_stac(items_of("odc-stac"))
    assert isinstance(made["blue"].data, dask.array.Array)
    prepared("stackstac-series").terramind.generate("LULC", model="demo").to_netcdf(tmp_path / "lulc.nc")


def test_a_crs_that_was_dropped_comes_from_the_items():
    ds = load("odc-stac").drop_vars("spatial_ref")
    assert str(Grid.of(ds.terramind.with_stac(items_of("odc-stac"))["blue"]).crs) == "EPSG:32601"


def test_items_tell_which_radar_product_it_is():
    ds = split(plain("S1RTC", dtype="float32", units="dB"))
    item = {"id": "a", "collection": "sentinel-1-rtc", "properties": {"datetime": "2023-01-01T00:00:00Z"}}
    assert ds.terramind.validate().errors[0].kind == "bands.ambiguous"
    made = ds.terramind.with_stac(item)
    assert list(find_inputs(made).inputs) == ["S1RTC"]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
@pytest.mark.skipif(not REAL, reason="the real items are not here")
def test_real_items_tell_what_they_say(path):
    item = json.loads(path.read_text(encoding="utf-8"))
    level = "S2L1C" if "MSIL1C" in path.name else "S2L2A"
    assets = {
        band.name: band.name if band.name in item["assets"] else None for band in modalities[level].bands
    }
    for key, asset in item["assets"].items():
        bands = asset.get("eo:bands", [])
        if len(bands) == 1 and assets.get(bands[0]["name"], "") is None:
            assets[bands[0]["name"]] = key
    ds = split(plain(level, dtype="uint16"), {band: key for band, key in assets.items()})
    ds = ds.expand_dims(time=[np.datetime64(item["properties"]["datetime"].rstrip("Z"), "ns")])
    made = ds.terramind.with_stac(item)
    report = made.terramind.validate()
    assert (report.ok, report.warnings) == (True, ())
    (offset,) = [check for check in report.checks if check.check == "offset"]
    assert offset.found.startswith("1000" if "N0509" in path.name else "0")
    assert list(find_inputs(made).inputs) == [level]


@pytest.mark.skipif(not TILES.exists(), reason="the real tiles are not here")
def test_a_real_tile_of_terramesh_is_named_by_the_line_that_the_fault_gives():
    import rioxarray

    path = sorted((TILES / "S2L2A").glob("*.tif"))[0]
    ds = rioxarray.open_rasterio(path).to_dataset(name="S2L2A")
    (fault,) = ds.terramind.validate().errors
    assert fault.kind == "bands.unnamed"
    names = {"ds": ds}
    exec(re.search(r"ds = ds.assign_coords\(.*?\)", fault.remedy)[0], names)
    assert names["ds"].terramind.validate().ok
    opened = terramind_xr.open_rasters({"S2L2A": path})
    assert find_inputs(names["ds"]).inputs["S2L2A"].data.equals(find_inputs(opened).inputs["S2L2A"].data)


class Opaque(xr.Index):
    """An index that pandas does not know, as rasterix lays on what lazycogs opens."""

    def __init__(self, dim):
        self.dim = dim


def test_indexes_that_are_none_of_pandas_do():
    data = plain("S2L2A", 32, 32, dtype="uint16", units="DN", boa_add_offset=0)
    indexes = {dim: Opaque(dim) for dim in ("y", "x")}
    coords = xr.Coordinates({dim: data[dim].variable for dim in indexes}, indexes)
    opaque = data.drop_vars(["y", "x"]).assign_coords(coords)
    assert isinstance(opaque.xindexes["x"], Opaque)
    mask = xr.zeros_like(data.isel(band=0, drop=True), bool)
    made = opaque.terramind.generate("LULC", model="demo", mask=mask)
    assert made.equals(data.terramind.generate("LULC", model="demo"))

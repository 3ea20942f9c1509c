"""embed: the laws, the patch grid, codes that any reader decodes, and what stores say of themselves."""

from __future__ import annotations

import json
import math

import dask
import embedding_seams
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import InputError, OptionError
from terramind_xr.conventions import CONVENTIONS, group_attributes
from terramind_xr.facts import modalities
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.features import embedding_scale, features
from terramind_xr.model.recipe import find
from terramind_xr.model.scaling import standardize

RAW = ("S2L2A", "S1GRD", "DEM")


@pytest.fixture(scope="module", autouse=True)
def demo():
    with terramind_xr.set_options(model="demo", block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((300, 250), seed=5, modalities=(*RAW, "LULC")).compute()


@pytest.fixture(scope="module")
def embedding(scene):
    return scene[["DEM"]].terramind.embed()


def of_a_tile(tile, names, layers, merge):
    """Features (layer, modality, feature, y, x) of one tile, by the model itself."""
    pixels = {}
    for name in names:
        values = tile[name].values.astype(np.float32)
        pixels[name] = standardize(modalities[name], values if values.ndim == 3 else values[None])[None]
    batch = Batch(pixels, dict.fromkeys(names, np.ones((1, 14, 14), bool)), np.zeros((1, 2), np.int64))
    return features(find("demo", []), batch, layers, merge, Execution())[0]


@pytest.mark.parametrize("names", [("S2L2A",), ("S1GRD", "DEM")])
def test_a_tile_holds_the_features_of_the_model(scene, names):
    tile = scene.isel(y=slice(224), x=slice(224))
    expected = of_a_tile(tile, names, (4, 1), None)
    plain = tile.terramind.embed(inputs=names)
    assert plain.dims == ("feature", "y", "x")
    np.testing.assert_allclose(plain, expected[0].mean(axis=0), atol=1e-5)
    apart = tile.terramind.embed(inputs=names, layers=[-1, 1], merge=None)
    assert apart.dims == ("layer", "modality", "feature", "y", "x")
    np.testing.assert_allclose(apart, expected, rtol=1e-5, atol=1e-5)
    assert (list(apart.layer.values), list(apart.modality.values)) == ([4, 1], list(names))
    joined = tile.terramind.embed(inputs=names, layers=1, merge="concat")
    np.testing.assert_allclose(joined, expected[1].reshape(-1, 14, 14), rtol=1e-5, atol=1e-5)
    highest = tile.terramind.embed(inputs=names, layers=[1], merge="max")
    np.testing.assert_allclose(highest[0], expected[1].max(axis=0), rtol=1e-5, atol=1e-5)
    each = tile.terramind.embed(inputs=names, merge="dict")
    assert list(each) == [f"{name}_embedding" for name in names]
    for index, data in enumerate(each.values()):
        np.testing.assert_allclose(data, expected[0, index], rtol=1e-5, atol=1e-5)


def test_land_cover_is_read_as_tokens_when_named(scene):
    tile = scene.isel(y=slice(224), x=slice(224))
    assert tile.terramind.embed().attrs["terramind_inputs"] == " ".join(RAW)
    found = tile.terramind.embed(inputs="LULC")
    assert len(found.attrs["terramind_LULC_sha256"]) == 64
    assert found.notnull().all()


@pytest.mark.parametrize("dims", [(), ("y",), ("x", "y")])
def test_features_lie_on_the_patch_grid(scene, embedding, dims):
    turned = scene[["DEM"]].isel(dict.fromkeys(dims, slice(None, None, -1)))
    found = turned.terramind.embed()
    assert found.shape == (128, 19, 16)
    assert found.rio.crs == scene.rio.crs
    west, _south, _east, north = scene.DEM.rio.bounds(recalc=True)
    left, bottom, right, top = found.rio.bounds()
    assert (left, top, right - left, top - bottom) == (west, north, 2560, 3040)
    np.testing.assert_array_equal(found.isel(dict.fromkeys(dims, slice(None, None, -1))), embedding)


@settings(max_examples=examples(8))
@given(
    height=st.sampled_from([1, 17, 223, 225, 300]), width=st.integers(1, 250),
    chunks=st.tuples(st.integers(20, 300), st.integers(20, 250)),
    dtype=st.sampled_from(["float32", "float16", "int8"]),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*no coordinates to measure")
def test_chunks_change_no_byte(scene, height, width, chunks, dtype):
    part = scene[["DEM"]].isel(y=slice(height), x=slice(width))
    lazy = part.chunk({"y": chunks[0], "x": chunks[1]}).terramind.embed(dtype=dtype)
    assert dask.is_dask_collection(lazy)
    expected = part.terramind.embed(dtype=dtype)
    assert isinstance(expected.data, np.ndarray)
    assert expected.shape == (128, math.ceil(height / 16), math.ceil(width / 16))
    assert expected.dtype == lazy.dtype == dtype
    assert lazy.compute(scheduler="sync").values.tobytes() == expected.values.tobytes()


def test_batches_change_low_bits_at_most(scene, embedding):
    np.testing.assert_allclose(scene[["DEM"]].terramind.embed(batch_size=3), embedding, atol=1e-5)


def test_where_tiles_overlap_features_are_blended(scene, embedding):
    """Between the features of the tiles that meet, and equal to the tile's own where one lies alone."""
    first = scene.isel(y=slice(224), x=slice(224))[["DEM"]].terramind.embed()
    second = scene.isel(y=slice(80, 304), x=slice(224))[["DEM"]].terramind.embed()
    np.testing.assert_allclose(embedding[:, :5, :2], first[:, :5, :2], atol=1e-5)
    between = np.stack([first[:, 6, 0], second[:, 1, 0]])
    assert (embedding[:, 6, 0] >= between.min(axis=0) - 1e-5).all()
    assert (embedding[:, 6, 0] <= between.max(axis=0) + 1e-5).all()
    assert not np.allclose(embedding[:, 8, 0], first[:, 8, 0], atol=1e-5)


def test_patches_without_a_valid_pixel_are_nodata(scene):
    holed = scene[["DEM"]].copy(deep=True)
    holed["DEM"][32:64, :] = np.nan
    found = holed.terramind.embed()
    assert found[:, 2:4].isnull().all()
    assert found[:, :2].notnull().all()
    codes = holed.terramind.embed(dtype="int8")
    assert (codes[:, 2:4] == -128).all()
    assert (codes[:, :2] >= -127).all()
    mask = xr.zeros_like(scene.DEM, dtype=bool)
    mask[:, :16] = True
    masked = scene[["DEM"]].terramind.embed(mask=mask)
    assert masked[..., 0].isnull().all()
    assert masked[..., 1:].notnull().all()
    with pytest.warns(terramind_xr.TerramindWarning, match="no valid pixel"):
        empty = scene[["DEM"]].terramind.embed(mask=~xr.zeros_like(mask), dtype="int8")
    assert (empty == -128).all()


def test_dates_are_carried_and_do_not_depend_on_each_other(scene, embedding):
    times = np.array(["2024-05-01", "2024-07-01"], "datetime64[ns]")
    both = xr.concat([scene.DEM, scene.DEM + 100], xr.Variable("time", times)).assign_attrs(scene.DEM.attrs)
    found = both.to_dataset(name="DEM").chunk({"y": 100}).terramind.embed()
    assert found.dims == ("time", "feature", "y", "x")
    np.testing.assert_array_equal(found.time, times)
    np.testing.assert_array_equal(found[0], embedding)


def test_nothing_is_read_at_the_call(scene):
    found = unreadable(scene.DEM, "dask").to_dataset(name="DEM").terramind.embed()
    with pytest.raises(AssertionError, match="a pixel was read"):
        found.compute(scheduler="sync")


def written(data, path, way):
    """The variable, written and opened again by xarray alone, or by `to_zarr`."""
    name = data.name
    if way == "to_zarr":
        data.chunk({"y": 10}).terramind.to_zarr(path, progress=False)
        return xr.open_zarr(path)[name]
    if way == "xarray, Zarr 3":
        data.to_dataset().to_zarr(path, zarr_format=3, consolidated=False)
        return xr.open_zarr(path, consolidated=False)[name]
    if way == "xarray, Zarr 2":
        data.to_dataset().to_zarr(path, zarr_format=2)
        return xr.open_zarr(path)[name]
    if way == "netCDF":
        data.to_netcdf(path)
        return xr.open_dataset(path)[name]
    return xr.decode_cf(data.to_dataset())[name]


@pytest.mark.parametrize("way", ["to_zarr", "xarray, Zarr 3", "xarray, Zarr 2", "netCDF", "memory"])
def test_any_reader_decodes_the_codes(scene, way, tmp_path):
    holed = scene[["DEM"]].copy(deep=True)
    holed["DEM"][:16] = np.nan
    exact, codes = (holed.terramind.embed(dtype=dtype) for dtype in ("float32", "int8"))
    assert codes.dtype == np.int8
    scale = codes.attrs["scale_factor"]
    assert (codes.attrs["_FillValue"], scale) == (-128, embedding_scale("demo", (4,)))
    read = written(codes, tmp_path / "e", way)
    assert np.issubdtype(read.dtype, np.floating)
    assert read[:, 0].isnull().all()
    saturated = abs(codes[:, 1:]) == 127
    error = abs(read[:, 1:] - exact[:, 1:]).where(~saturated)
    assert float(error.max()) <= scale / 2 * 1.0001
    assert read.rio.crs == scene.rio.crs


@pytest.mark.slow
def test_codes_lose_little_and_saturate_seldom(scene):
    for layer in range(5):
        exact, codes = (scene.terramind.embed(layers=layer, dtype=dtype) for dtype in ("float32", "int8"))
        assert float((abs(codes) == 127).mean()) < 0.005
        step = float(exact.std()) / codes.attrs["scale_factor"]
        assert step > 3  # codes of one standard deviation
    several = scene.terramind.embed(layers=[0, 4], dtype="int8")
    assert several.attrs["scale_factor"] == embedding_scale("demo", (0,))
    own = scene.terramind.embed(dtype="int8", scale=1)
    np.testing.assert_array_equal(own, np.rint(scene.terramind.embed(dtype="float32")))


def test_half_precision_is_rounded_once(embedding, scene):
    half = scene[["DEM"]].terramind.embed(dtype="float16")
    np.testing.assert_allclose(half, embedding, rtol=1e-3, atol=1e-6)


def test_what_float16_cannot_hold_stops_the_block(scene, monkeypatch):
    from terramind_xr.kernels import embed

    monkeypatch.setattr(embed, "features", lambda *_: np.full((1, 1, 1, 128, 14, 14), 7e4, np.float32))
    tile = scene[["DEM"]].isel(y=slice(224), x=slice(224))
    with pytest.raises(OptionError, match="holds the feature 7e\\+04, and float16 ends at 6.55e\\+04"):
        tile.terramind.embed(dtype="float16")


REFUSED = {
    "pool": ({"pool": "cls"}, "pool='cls' is unknown: use 'mean', 'max', None"),
    "merge": ({"merge": "sum"}, "merge='sum' is unknown: use 'mean', 'max', 'concat', 'dict', None"),
    "layer": ({"layers": 5}, "layers=5 cannot be used: demo has 5 layers. Give a number from -5 to 4"),
    "no layer": ({"layers": []}, "demo has 5 layers"),
    "text": ({"layers": "last"}, "demo has 5 layers"),
    "twice": ({"layers": [-1, 4]}, "names a layer twice"),
    "dtype": ({"dtype": "uint8"}, "dtype='uint8' is unknown: use 'float32', 'float16', 'int8'"),
    "scale alone": ({"scale": 0.1}, "scale=0.1 is for dtype='int8'"),
    "scale": ({"scale": 0, "dtype": "int8"}, "scale=0 cannot be used"),
    "infinite": ({"scale": math.inf, "dtype": "int8"}, "scale=inf cannot be used"),
    "batch": ({"batch_size": 0}, "batch_size=0"),
    "overlap": ({"overlap": 10}, "overlap=10"),
    "unmeasured": ({"model": "terramind_v1_base", "dtype": "int8"}, "none is known for terramind_v1_base"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_at_the_call(scene, options, message):
    with pytest.raises(OptionError, match=message.replace("[", r"\[")):
        scene.terramind.embed(**options)


def test_inputs_are_checked_as_for_generate(scene):
    with pytest.raises(InputError, match="S1RTC"):
        scene.terramind.embed(inputs=["S1RTC"])


def test_how_it_was_made_is_recorded_flat(scene):
    found = scene.terramind.embed(layers=[0, -1], merge="max", dtype="int8")
    told = {key: found.attrs[f"terramind_{key}"] for key in ("inputs", "layers", "merge", "overlap", "model")}
    assert told == {"inputs": " ".join(RAW), "layers": "0 4", "merge": "max", "overlap": 32, "model": "demo"}
    for key, value in found.attrs.items():
        every = value if isinstance(value, list) else [value]
        assert all(isinstance(each, str | int | float | np.int8) for each in every), key


REQUIRED = {  # by the README.md of each convention, see terramind_xr.conventions
    "geoemb:": ("type", "dimensions", "model", "source_data", "data_type", "chip_layout"),
    "spatial:": ("dimensions", "transform"),
    "proj:": ("wkt2",),
}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_store_holds_every_field_that_the_conventions_require(scene, dtype, tmp_path):
    made = scene.terramind.embed(dtype=dtype).isel(y=slice(3, 9), x=slice(2, None))
    crop = made.chunk({"y": 3})
    crop.terramind.to_zarr(tmp_path / "e.zarr", progress=False)
    attrs = json.loads((tmp_path / "e.zarr" / "zarr.json").read_text())["attributes"]
    for prefix, names in REQUIRED.items():
        assert {f"{prefix}{name}" for name in names} <= set(attrs)
    assert attrs["zarr_conventions"] == list(CONVENTIONS)
    assert all(each["uuid"] and each["schema_url"] and each["spec_url"] for each in CONVENTIONS)
    assert (attrs["geoemb:type"], attrs["geoemb:dimensions"], attrs["geoemb:data_type"]) == (
        "chip",
        128,
        dtype,
    )
    assert attrs["geoemb:model"].startswith("pkg:pypi/terramind-xr@")
    assert len(attrs["geoemb:source_data"]) == 3
    assert all("://" in source for source in attrs["geoemb:source_data"])
    assert attrs["geoemb:chip_layout"] == {
        "layout_type": "regular_grid", "chip_size": [16, 16], "stride": [16, 16],
    }  # fmt: skip
    assert attrs["spatial:dimensions"] == ["y", "x"]
    assert attrs["spatial:shape"] == [6, 14]
    assert attrs["spatial:transform"] == pytest.approx(list(crop.rio.transform(recalc=True))[:6])
    assert attrs["spatial:bbox"] == pytest.approx(crop.rio.bounds(recalc=True))
    assert attrs["proj:code"] == "EPSG:32632"
    assert attrs["proj:wkt2"].startswith("PROJCRS[")
    packed = attrs.get("geoemb:quantization")
    if dtype == "int8":
        assert packed["scale"] == {"type": "scalar", "scale": made.attrs["scale_factor"], "offset": 0.0}
        assert (packed["method"], packed["original_dtype"]) == ("linear", "float32")
    else:
        assert packed is None


def test_what_a_file_gives_back_is_described_as_before(scene, tmp_path):
    made = scene[["DEM"]].terramind.embed(dtype="int8")
    made.to_netcdf(tmp_path / "e.nc")
    opened = xr.open_dataset(tmp_path / "e.nc", decode_coords="all")
    assert group_attributes(opened) == group_attributes(made.to_dataset())


def test_several_embeddings_are_described_if_they_are_alike(scene):
    each = scene.terramind.embed(merge="dict")
    assert group_attributes(each)["geoemb:dimensions"] == 128
    each["codes"] = scene.terramind.embed(dtype="int8")
    assert group_attributes(each) == {}
    assert group_attributes(scene) == {}


def test_a_scene_without_coordinates_says_nothing_of_places(scene):
    bare = scene[["DEM"]].drop_vars(["y", "x", "spatial_ref"])
    with pytest.warns(terramind_xr.TerramindWarning):
        attrs = group_attributes(bare.terramind.embed().to_dataset())
    assert [each["name"] for each in attrs["zarr_conventions"]] == ["geoemb:"]
    assert not any(key.startswith(("spatial:", "proj:")) for key in attrs)


@pytest.mark.parametrize(
    ("code", "stored"), [("EPSG:3035", "EPSG:3035"), ("+proj=laea +lat_0=50 +lon_0=9", None)]
)
def test_a_crs_is_told_by_code_and_in_words(code, stored):
    import rasterio
    from pyproj import CRS

    from terramind_xr.conventions import crs_attributes

    found = crs_attributes(rasterio.crs.CRS.from_user_input(code))
    assert found.get("proj:code") == stored
    assert CRS.from_wkt(found["proj:wkt2"]) == CRS.from_user_input(code) or stored is None


def test_a_released_model_is_read_from_its_folder(scene, released):
    found = scene.isel(y=slice(32), x=slice(32)).terramind.embed(model=released, inputs="DEM", layers=3)
    assert found.shape == (192, 2, 2)
    assert found.attrs["terramind_model"] == "terramind_v1_tiny"
    assert found.attrs["geoemb:model"] == "https://huggingface.co/ibm-esa-geospatial/TerraMind-1.0-tiny"


@pytest.mark.parametrize(("places", "expected"), [([14], 3.0), ([5], 1.0), ([14, 5], 2.5)])
def test_the_seam_index_of_embeddings_finds_steps_at_borders_of_tiles(places, expected):
    """On a ramp of one a patch, steps of two more; 28 patches have one border of tiles, at the fourteenth."""
    profile = np.arange(28.0) + sum(2.0 * (np.arange(28) >= place) for place in places)
    ramp = xr.DataArray(profile[:, None] + profile, dims=("y", "x")).expand_dims(feature=3)
    found = embedding_seams.seam_index(ramp, (448, 448), overlap=0)
    elsewhere = 1 + 2 * (5 in places) / 26
    assert found == pytest.approx((1 + 2 * (14 in places)) / elsewhere)
    assert found == pytest.approx(expected, rel=0.13)

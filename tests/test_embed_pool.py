"""embed by tile: terratorch's pooled features, the laws, and what a store says of them."""

from __future__ import annotations

import json

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import InputError

NAMES = ["S1GRD", "DEM"]


@pytest.fixture(scope="module", autouse=True)
def demo():
    with terramind_xr.set_options(model="demo", block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((430, 250), seed=5, modalities=NAMES).compute()


@pytest.fixture(scope="module")
def tile(scene):
    return scene.isel(y=slice(224), x=slice(224))


@pytest.fixture(scope="module")
def pooled(scene):
    return scene[["DEM"]].terramind.embed(pool="mean")


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_tile_holds_the_pooled_features_of_terratorch(tile, pool):
    """By the neck that its embedding task takes, on features that equal its backbone's."""
    import torch
    from terratorch.models.necks import AggregateTokens

    patches = tile.terramind.embed()
    tokens = torch.from_numpy(patches.values.reshape(128, 196).T[None].copy())
    (expected,) = AggregateTokens([128], pooling=pool, indices=[0], drop_cls=False)([tokens])
    found = tile.terramind.embed(pool=pool)
    assert (found.name, found.dims) == ("embedding", ("feature", "tile_y", "tile_x"))
    assert found.attrs["long_name"].startswith(f"{pool} over each tile")
    assert found.attrs["terramind_pool"] == pool
    np.testing.assert_allclose(found.values.ravel(), np.ravel(expected), atol=1e-6)


@pytest.mark.parametrize("merge", ["mean", "concat", "dict", None])
def test_layers_and_merges_go_with_it(tile, merge):
    patches, found = (tile.terramind.embed(layers=[1, -1], merge=merge, pool=pool) for pool in (None, "mean"))
    expected = patches.mean(("y", "x"))
    if merge != "dict":
        patches, found, expected = (each.to_dataset() for each in (patches, found, expected))
    assert list(found) == list(patches)
    for name, data in found.items():
        assert data.dims == (*patches[name].dims[:-2], "tile_y", "tile_x")
        np.testing.assert_allclose(data[..., 0, 0], expected[name], atol=1e-5)


def test_each_tile_of_a_scene_has_its_own(scene, pooled):
    assert pooled.shape == (128, 3, 2)
    second = scene[["DEM"]].isel(y=slice(192, 416), x=slice(224))
    np.testing.assert_allclose(pooled[:, 1, 0], second.terramind.embed(pool="mean")[:, 0, 0], atol=1e-5)
    np.testing.assert_allclose(pooled.tile_y[1], second.y.mean())
    assert pooled.rio.crs == scene.rio.crs


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("shape", [(224, 224), (100, 60), (224, 130), (1, 17)])
@pytest.mark.filterwarnings("ignore:.*no coordinates to measure")
def test_only_patches_with_valid_pixels_of_the_scene_are_pooled(scene, shape, pool):
    """Not those that are mirrored to fill a tile."""
    part = scene[["DEM"]].isel(y=slice(shape[0]), x=slice(shape[1])).copy(deep=True)
    part["DEM"][48:, 32:64] = np.nan
    patches = part.terramind.embed()
    found = part.terramind.embed(pool=pool)
    np.testing.assert_allclose(found[:, 0, 0], getattr(patches, pool)(("y", "x")), atol=1e-5)


def test_tiles_without_a_valid_pixel_are_nodata(scene):
    holed = scene[["DEM"]].copy(deep=True)
    holed["DEM"][:224] = np.nan
    found = holed.terramind.embed(pool="max", dtype="float16")
    assert found[:, 0].isnull().all()
    assert found[:, 1:].notnull().all()
    codes = holed.terramind.embed(pool="max", dtype="int8")
    assert (codes[:, 0] == -128).all()
    assert (codes[:, 1:] >= -127).all()


def test_codes_hold_the_pooled_features(scene, pooled):
    codes = scene[["DEM"]].terramind.embed(pool="mean", dtype="int8")
    decoded = xr.decode_cf(codes.to_dataset()).embedding
    assert float(abs(decoded - pooled).max()) <= codes.attrs["scale_factor"] / 2 * 1.0001


@settings(max_examples=examples(6))
@given(
    chunks=st.tuples(st.integers(40, 430), st.integers(40, 250)), dtype=st.sampled_from(["float32", "int8"])
)
def test_chunks_change_no_byte(scene, chunks, dtype):
    part = scene[["DEM"]]
    lazy = part.chunk({"y": chunks[0], "x": chunks[1]}).terramind.embed(pool="mean", dtype=dtype)
    assert dask.is_dask_collection(lazy)
    expected = part.terramind.embed(pool="mean", dtype=dtype)
    assert isinstance(expected.data, np.ndarray)
    assert lazy.dtype == expected.dtype == dtype
    assert lazy.compute(scheduler="sync").values.tobytes() == expected.values.tobytes()


def test_batches_change_low_bits_at_most(scene, pooled):
    np.testing.assert_allclose(scene[["DEM"]].terramind.embed(pool="mean", batch_size=1), pooled, atol=1e-5)


@pytest.mark.parametrize("dims", [("y",), ("x", "y")])
def test_a_turned_scene_gives_the_turned_result(scene, pooled, dims):
    turned = scene[["DEM"]].isel(dict.fromkeys(dims, slice(None, None, -1))).terramind.embed(pool="mean")
    xr.testing.assert_equal(turned.isel({f"tile_{dim}": slice(None, None, -1) for dim in dims}), pooled)


def test_dates_are_carried_through(scene, pooled):
    times = np.array(["2024-05-01", "2024-07-01"], "datetime64[ns]")
    both = xr.concat([scene.DEM, scene.DEM + 100], xr.Variable("time", times)).assign_attrs(scene.DEM.attrs)
    found = both.to_dataset(name="DEM").chunk({"y": 100}).terramind.embed(pool="mean")
    assert found.dims == ("time", "feature", "tile_y", "tile_x")
    np.testing.assert_array_equal(found[0], pooled)


def test_nothing_is_read_at_the_call(scene):
    found = unreadable(scene.DEM, "dask").to_dataset(name="DEM").terramind.embed(pool="max")
    with pytest.raises(AssertionError, match="a pixel was read"):
        found.compute(scheduler="sync")


def test_a_store_says_that_its_chips_are_tiles(scene, pooled, tmp_path):
    lazy = scene[["DEM"]].chunk({"y": 100}).terramind.embed(pool="mean")
    assert lazy.chunks[1:] == ((1, 2), (2,))
    stored = lazy.terramind.to_zarr(tmp_path / "e.zarr", progress=False)
    xr.testing.assert_equal(stored.load(), pooled)
    attrs = json.loads((tmp_path / "e.zarr" / "zarr.json").read_text())["attributes"]
    assert (attrs["geoemb:type"], attrs["geoemb:dimensions"]) == ("chip", 128)
    assert attrs["geoemb:chip_layout"] == {"layout_type": "irregular", "chip_size": [224, 224]}
    assert attrs["proj:code"] == "EPSG:32632"
    assert not [key for key in attrs if key.startswith("spatial:")]
    assert [each["name"] for each in attrs["zarr_conventions"]] == ["geoemb:", "proj"]


def test_tiles_are_no_raster_for_a_catalogue(scene, pooled):
    with pytest.raises(InputError, match=r"embedding: dimensions \('feature', 'tile_y', 'tile_x'\)"):
        terramind_xr.stac_item(pooled, datetime="2024-06-01")
    both = xr.Dataset({"by_tile": pooled, "embedding": scene[["DEM"]].terramind.embed()})
    item = terramind_xr.stac_item(both, datetime="2024-06-01")
    assert item.properties["proj:shape"] == [27, 16]
    assert len(item.properties["mlm:output"]) == 2

"""stac_item: place, time and model, and each field that the extensions' schemas require."""

from __future__ import annotations

import datetime
import itertools
import re

import numpy as np
import pystac
import pytest
import xarray as xr
from pyproj import Transformer
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension

import finetuned
import terramind_xr
from terramind_xr import InputError, OptionError
from terramind_xr.facts import modalities

UTC = datetime.UTC


@pytest.fixture(scope="module", autouse=True)
def demo():
    with terramind_xr.set_options(model="demo"):
        yield


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((224, 300), seed=5, modalities=("S2L2A", "DEM"), chunks=112)


@pytest.fixture(scope="module")
def embedding(scene):
    return scene.terramind.embed(dtype="int8", layers=[0, -1])


@pytest.fixture(scope="module")
def item(embedding):
    return terramind_xr.stac_item(embedding, href="s3://bucket/e.zarr", datetime="2024-06-01T10:30")


def test_an_item_is_what_pystac_reads(item):
    told = item.to_dict(include_self_link=False)
    again = pystac.Item.from_dict(told)
    assert again.to_dict(include_self_link=False) == told
    assert again.datetime == datetime.datetime(2024, 6, 1, 10, 30, tzinfo=UTC)
    assert (told["type"], told["stac_version"]) == ("Feature", "1.1.0")
    assert {"id", "geometry", "bbox", "links", "assets", "properties"} <= set(told)
    assert again.assets["data"].href == "s3://bucket/e.zarr"
    assert again.assets["data"].roles == ["data"]


def test_the_footprint_is_that_of_the_patches(item, embedding):
    bounds = embedding.rio.bounds(recalc=True)
    to_degrees = Transformer.from_crs(embedding.rio.crs.to_wkt(), "EPSG:4326", always_xy=True)
    np.testing.assert_allclose(item.bbox, to_degrees.transform_bounds(*bounds), atol=1e-5)
    (ring,) = item.geometry["coordinates"]
    assert ring[0] == ring[-1]
    assert ring[0] == pytest.approx(to_degrees.transform(*bounds[:2]), abs=1e-6)
    west, south, east, north = item.bbox
    assert all(west <= lon <= east and south <= lat <= north for lon, lat in ring)
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise(ring))
    assert area > 0  # counter-clockwise, as GeoJSON asks


def test_the_grid_is_told_by_the_projection_extension(item, embedding):
    found = ProjectionExtension.ext(item)
    assert found.code == "EPSG:32632"
    assert found.shape == list(embedding.shape[-2:])
    assert found.transform == pytest.approx(list(embedding.rio.transform(recalc=True))[:6])
    assert found.bbox == pytest.approx(embedding.rio.bounds(recalc=True))
    assert item.properties["gsd"] == 160


def test_each_field_that_mlm_requires_is_there(item, embedding):
    """By the extension's schema.json: of items, inputs, outputs, their structures, and assets."""
    assert MLMExtension.has_extension(item)
    told = item.properties
    assert {f"mlm:{key}" for key in ("name", "architecture", "tasks", "input", "output")} <= set(told)
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", told["mlm:name"])
    for each in (*told["mlm:input"], *told["mlm:output"]):
        structure = each["input"] if "input" in each else each["result"]
        assert {"shape", "dim_order", "data_type"} <= set(structure)
        assert len(structure["shape"]) == len(structure["dim_order"]) == len(set(structure["dim_order"]))
        assert all(re.fullmatch("[a-z_-]+", dim) for dim in structure["dim_order"])
        assert all(size >= -1 for size in structure["shape"])
    for each, name in zip(told["mlm:input"], ("S2L2A", "DEM"), strict=True):
        assert (each["name"], each["bands"]) == (name, list(modalities[name].band_names))
        assert [scaling["mean"] for scaling in each["value_scaling"]] == list(modalities[name].mean)
        assert {scaling["type"] for scaling in each["value_scaling"]} == {"z-score"}
    assert [band["name"] for band in told["bands"]] == [*modalities["S2L2A"].band_names, "DEM"]
    (output,) = told["mlm:output"]
    assert set(output["tasks"]) <= set(told["mlm:tasks"]) == {"similarity-search"}
    assert output["result"]["shape"] == list(embedding.shape)
    assert output["result"]["data_type"] == "int8"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", told["mlm:framework_version"])
    assert told["mlm:hyperparameters"]["layers"] == "0 4"
    assert all(re.fullmatch("[0-9a-zA-Z_.-]+", key) for key in told["mlm:hyperparameters"])
    model = item.assets["model"]
    assert model.roles == ["mlm:model"]
    assert model.extra_fields["mlm:artifact_type"]


def test_of_some_bands_those_that_were_read_are_told(scene, tmp_path):
    bands = {"S2L2A": ["SWIR_1", "RED", "BLUE"]}
    task = finetuned.task_of("segmentation", ["S2L2A"], backbone_bands=bands)
    path = finetuned.save(task, tmp_path / "best.ckpt")
    means = {"means": [0.2, 0.1, 0.05], "stds": [0.1, 0.1, 0.1]}
    burnt = scene.terramind.segment(path, finetuned.config_of(task, **means))
    told = terramind_xr.stac_item(burnt, datetime="2024-06-01").properties
    assert [band["name"] for band in told["bands"]] == ["B11", "B04", "B02"]
    (given,) = told["mlm:input"]
    assert (given["bands"], given["input"]["shape"]) == (["B11", "B04", "B02"], [-1, 3, 224, 224])
    scaling = [(each["mean"], each["stddev"]) for each in given["value_scaling"]]
    assert scaling == [(2000, 1000), (1000, 1000), (500, 1000)]


def test_times_are_those_of_the_data(scene):
    times = np.array(["2024-07-01", "2024-05-01"], "datetime64[ns]")
    both = xr.concat([scene.DEM, scene.DEM], xr.Variable("time", times)).assign_attrs(scene.DEM.attrs)
    result = both.to_dataset(name="DEM").terramind.embed()
    item = terramind_xr.stac_item(result)
    assert item.datetime is None
    assert item.properties["start_datetime"] == "2024-05-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2024-07-01T00:00:00Z"
    assert terramind_xr.stac_item(result[0]).datetime == datetime.datetime(2024, 7, 1, tzinfo=UTC)


def test_land_cover_and_several_results_are_items_too(scene):
    for probabilities in (True, False):
        result = scene.terramind.generate("LULC", probabilities=probabilities)
        lulc = terramind_xr.stac_item(result, datetime=np.datetime64("2024-06-01"))
        assert lulc.properties["mlm:tasks"] == ["semantic-segmentation"]
    assert lulc.properties["gsd"] == 10
    assert "data" not in lulc.assets
    both = terramind_xr.stac_item(scene.terramind.embed(merge="dict"), datetime="2024-06-01")
    assert [each["name"] for each in both.properties["mlm:output"]] == ["S2L2A_embedding", "DEM_embedding"]


def test_the_same_result_has_the_same_id_and_another_one_another(scene, embedding, item):
    again = scene.terramind.embed(dtype="int8", layers=[0, -1])
    assert terramind_xr.stac_item(again, datetime="2024-06-01").id == item.id
    assert terramind_xr.stac_item(scene.terramind.embed(), datetime="2024-06-01").id != item.id
    assert terramind_xr.stac_item(embedding, id="mine", datetime="2024-06-01").id == "mine"
    assert terramind_xr.stac_item(embedding[..., 1:], datetime="2024-06-01").id != item.id


FAULTY = {
    "no result": (lambda e: xr.DataArray(np.zeros((2, 2))), {}, InputError, "the attribute terramind_model"),
    "no time": (lambda e: e, {"datetime": None}, InputError, "nothing says when"),
    "what time": (lambda e: e, {"datetime": "soon"}, OptionError, "datetime='soon' cannot be read"),
    "no place": (lambda e: e.drop_vars(["y", "x", "spatial_ref"]), {}, InputError, "nothing says where"),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "options", "error", "message"), FAULTY.values(), ids=FAULTY)
def test_what_cannot_be_described_is_refused(embedding, break_it, options, error, message):
    with pytest.raises(error, match=message):
        terramind_xr.stac_item(break_it(embedding), **{"datetime": "2024-06-01", **options})


def test_a_scene_over_the_180th_meridian_is_refused(embedding):
    crossing = embedding.drop_vars(["spatial_ref"]).assign_coords(
        y=6e6 - 160.0 * np.arange(embedding.sizes["y"]), x=6e5 + 2e4 * np.arange(embedding.sizes["x"])
    )
    with pytest.raises(InputError, match="180th meridian"):
        terramind_xr.stac_item(crossing.rio.write_crs("EPSG:32660"), datetime="2024-06-01")

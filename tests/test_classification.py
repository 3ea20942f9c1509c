"""segment by tile: what terratorch's tasks of whole images say, the laws, and what is refused."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import finetuned
import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import OptionError
from terramind_xr.facts import modalities
from terramind_xr.model.scaling import standardize_by

pytestmark = pytest.mark.filterwarnings("ignore:.*pre-training are taken:terramind_xr.TerramindWarning")


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with terramind_xr.set_options(block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((430, 250), seed=5, modalities=("S1GRD",)).compute()


@pytest.fixture(scope="module")
def task(scene):
    """Told apart: logits of two tiles lie on either side of zero, so that their classes differ."""
    task = finetuned.task_of("classification", ["S1GRD"], class_names=finetuned.CLASSES)
    tiles = (scene.isel(y=slice(y, y + 224), x=slice(224)) for y in (0, 192))
    task.model.head.head[-1].bias.data -= sum(said(task, tile) for tile in tiles) / 2
    return task


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    return finetuned.save(task, tmp_path_factory.mktemp("classification") / "best.ckpt")


@pytest.fixture(scope="module")
def whole(scene, checkpoint):
    return scene.terramind.segment(checkpoint, probabilities=True)


def said(task, scene):
    """What the task itself says of a tile: logits, or values."""
    facts = modalities["S1GRD"]
    values = standardize_by(facts.mean, facts.std, scene.S1GRD.values.astype("float32"))
    return finetuned.forward(task, {"S1GRD": values[None]})[0]


def test_each_tile_is_what_the_task_says(task, checkpoint, scene, whole, one_thread):
    assert whole.dims == ("category", "tile_y", "tile_x")
    assert whole.shape == (3, 3, 2)
    for row, y in enumerate((0, 192)):
        tile = scene.isel(y=slice(y, y + 224), x=slice(224))
        np.testing.assert_allclose(whole[:, row, 0], said(task, tile).softmax(0), atol=1e-6)
        np.testing.assert_allclose((whole.tile_y[row], whole.tile_x[0]), (tile.y.mean(), tile.x.mean()))
    assert whole.name == "classification"
    assert whole.category.values.tolist() == ["bare_land", "water", "cloud"]
    assert whole.rio.crs == scene.rio.crs
    assert (whole.attrs["terramind_task"], whole.attrs["terramind_tile"]) == ("classification", 224)


def test_codes_are_those_of_the_likeliest_class(scene, checkpoint, whole):
    codes = scene.terramind.segment(checkpoint)
    assert (codes.name, codes.dims, codes.dtype) == ("classification", ("tile_y", "tile_x"), np.uint8)
    np.testing.assert_array_equal(codes, whole.argmax("category"))
    assert len(np.unique(codes)) > 1
    assert codes.attrs["flag_meanings"] == "bare_land water cloud"
    assert codes.attrs["terramind_nodata"] == 255


def test_uncertainty_follows_from_the_probabilities(scene, checkpoint, whole):
    found = scene.terramind.segment(checkpoint, uncertainty=["entropy", "margin"])
    assert list(found) == ["classification", "entropy", "margin"]
    p = np.sort(whole.values.astype(float), axis=0)[::-1]
    np.testing.assert_allclose(found.margin, 1 - (p[0] - p[1]), atol=1e-5)
    np.testing.assert_allclose(found.entropy, -(p * np.log(p)).sum(0) / np.log(3), atol=1e-5)


def test_building_reads_no_pixel(scene, checkpoint):
    found = scene.assign(S1GRD=unreadable(scene.S1GRD, "dask")).terramind.segment(checkpoint)
    assert dask.is_dask_collection(found)
    with pytest.raises(AssertionError, match="was read"):
        found.compute(scheduler="sync")


@settings(max_examples=examples(4))
@given(chunks=st.tuples(st.integers(40, 430), st.integers(40, 250)))
def test_chunking_changes_no_byte(scene, checkpoint, whole, chunks):
    lazy = scene.chunk({"y": chunks[0], "x": chunks[1]})
    found = lazy.terramind.segment(checkpoint, probabilities=True).compute(scheduler="threads")
    assert isinstance(whole.data, np.ndarray)
    assert found.values.tobytes() == whole.values.tobytes()


@pytest.mark.parametrize("dims", [("y",), ("x", "y")])
def test_a_turned_scene_gives_the_turned_result(scene, checkpoint, whole, dims):
    found = scene.isel(dict.fromkeys(dims, slice(None, None, -1))).terramind.segment(
        checkpoint, probabilities=True
    )
    back = found.isel({f"tile_{dim}": slice(None, None, -1) for dim in dims})
    xr.testing.assert_equal(back, whole)


def test_tiles_without_a_valid_pixel_are_nodata(scene, checkpoint):
    holed = scene.copy(deep=True)
    holed.S1GRD[:, :224] = np.nan
    found = holed.terramind.segment(checkpoint, uncertainty="entropy")
    empty = np.repeat([[True], [False], [False]], 2, axis=1)
    np.testing.assert_array_equal(found.classification == 255, empty)
    np.testing.assert_array_equal(np.isnan(found.entropy), empty)
    likely = holed.terramind.segment(checkpoint, probabilities=True)
    np.testing.assert_array_equal(np.isnan(likely), np.broadcast_to(empty, likely.shape))


def test_dates_are_carried_through(scene, checkpoint, whole):
    times = np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]")
    both = xr.concat([scene, scene + 3], xr.Variable("time", times), combine_attrs="override")
    both.S1GRD.attrs = scene.S1GRD.attrs
    found = both.terramind.segment(checkpoint, probabilities=True)
    assert found.dims == ("time", "category", "tile_y", "tile_x")
    np.testing.assert_array_equal(found[0], whole)
    assert (found[1] != whole).any()


def test_it_comes_back_from_zarr_as_it_was(scene, checkpoint, tmp_path):
    lazy = scene.chunk({"y": 100}).terramind.segment(checkpoint, uncertainty="margin")
    assert lazy.classification.chunks == ((1, 2), (2,))  # by block: the last one owns two
    stored = lazy.terramind.to_zarr(tmp_path / "a.zarr", progress=False)
    xr.testing.assert_equal(stored.load(), scene.terramind.segment(checkpoint, uncertainty="margin"))
    assert stored.classification.dtype == np.uint8


def test_classes_of_tiles_are_drawn(scene, checkpoint):
    import matplotlib

    matplotlib.use("agg")
    codes = scene.terramind.segment(checkpoint)
    shown = {text.get_text() for text in codes.terramind.plot().get_legend().get_texts()}
    assert shown == {finetuned.CLASSES[code] for code in np.unique(codes)}


@pytest.mark.parametrize("count", [1, 2])
def test_a_regression_of_whole_images_is_what_the_task_says(scene, tmp_path, one_thread, count):
    task = finetuned.task_of("scalar regression", ["S1GRD"], num_outputs=count)
    path = finetuned.save(task, tmp_path / "best.ckpt")
    tile = scene.isel(y=slice(224), x=slice(224))
    found = tile.terramind.segment(path)
    assert (found.name, found.shape[-2:], found.dtype) == ("regression", (1, 1), np.float32)
    np.testing.assert_allclose(found.values.ravel(), said(task, tile), rtol=1e-5, atol=1e-6)
    with pytest.raises(OptionError, match="is a regression"):
        tile.terramind.segment(path, probabilities=True)
    assert ("variable" in found.dims) == (count == 2)


def test_a_model_of_several_dates_tells_a_class_of_all_of_them(scene, tmp_path, one_thread):
    from terramind_xr.model.registry import register

    register()
    said = {"backbone_use_temporal": True, "backbone_temporal_pooling": "diff"}
    task = finetuned.task_of("classification", ["S1GRD"], **{**finetuned.DEMO, **said})
    path = finetuned.save(task, tmp_path / "diff.ckpt")
    times = np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]")
    both = xr.concat([scene, scene.roll(y=90)], xr.Variable("time", times), combine_attrs="override")
    tile = both.isel(y=slice(224), x=slice(224))
    facts = modalities["S1GRD"]
    dates = [standardize_by(facts.mean, facts.std, date.values.astype("float32")) for date in tile.S1GRD]
    expected = finetuned.forward(task, {"S1GRD": np.stack(dates, axis=1)[None]}).softmax(1)[0]
    found = both.terramind.segment(path, probabilities=True)
    assert found.dims == ("category", "tile_y", "tile_x")
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-5)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """The checkpoint calls itself a classification; its classes do not exclude each other."""
    task = finetuned.task_of("several labels", ["S1GRD"], class_names=finetuned.CLASSES)
    return task, finetuned.save(task, tmp_path_factory.mktemp("labels") / "best.ckpt")


def test_several_labels_are_what_the_task_says(scene, labels, one_thread):
    task, path = labels
    found = scene.terramind.segment(path, probabilities=True)
    assert (found.name, found.dims) == ("classification", ("category", "tile_y", "tile_x"))
    for row, y in enumerate((0, 192)):
        tile = scene.isel(y=slice(y, y + 224), x=slice(224))
        np.testing.assert_allclose(found[:, row, 0], said(task, tile).sigmoid(), atol=1e-6)
    there = scene.terramind.segment(path, finetuned.config_of(task))
    assert (there.dims, there.dtype) == (found.dims, np.uint8)
    np.testing.assert_array_equal(there, found > 0.5)
    assert there.category.values.tolist() == ["bare_land", "water", "cloud"]
    told = {key: there.attrs[key] for key in ("terramind_threshold", "terramind_task", "flag_meanings")}
    assert told == {
        "terramind_threshold": 0.5, "terramind_task": "multilabel_classification",
        "flag_meanings": "absent present",
    }  # fmt: skip
    assert 0 < there.mean() < 1
    assert float(there.terramind.evaluate(there).accuracy) == 1
    with pytest.raises(OptionError, match="exclude each other"):
        scene.terramind.segment(path, uncertainty="margin")


def test_of_several_labels_none_is_told_over_nodata(scene, labels, tmp_path):
    holed = scene.copy(deep=True)
    holed.S1GRD[:, :224] = np.nan
    lazy = holed.chunk({"y": 90}).terramind.segment(labels[1])
    found = lazy.terramind.to_zarr(tmp_path / "a.zarr", progress=False)
    empty = np.broadcast_to(np.repeat([[True], [False], [False]], 2, axis=1), found.shape)
    np.testing.assert_array_equal(found == 255, empty)
    assert found.attrs["terramind_nodata"] == 255


@pytest.mark.parametrize("kind", ["classification", "several labels", "scalar regression"])
def test_models_that_think_tell_the_same_of_a_tile_as_their_task(tmp_path, kind, one_thread):
    """At temperature 0, where terratorch's own draws are none."""
    import random

    import torch

    from terramind_xr.model.registry import register

    register()
    tim = {**finetuned.DEMO, "backbone": "terramind_xr_demo_tim", "backbone_tim_modalities": ["LULC", "NDVI"]}
    task = finetuned.task_of(kind, ["S2L2A"], **tim)
    path = finetuned.save(task, tmp_path / "tim.ckpt")
    scene = terramind_xr.synthetic.scene((430, 224), seed=5, modalities=("S2L2A",)).compute()
    facts = modalities["S2L2A"]
    finish = {"classification": lambda x: x.softmax(0), "several labels": torch.sigmoid}.get(
        kind, lambda x: x
    )
    found = scene.terramind.segment(path, probabilities=kind != "scalar regression")
    for row, y in enumerate((0, 192)):
        pixels = scene.S2L2A.isel(y=slice(y, y + 224)).values.astype("float32")
        state = random.getstate()
        with torch.random.fork_rng(devices=[]):
            given = {"S2L2A": standardize_by(facts.mean, facts.std, pixels)[None]}
            expected = finish(finetuned.forward(task, given)[0])
        random.setstate(state)
        np.testing.assert_allclose(found[..., row, 0].values.ravel(), expected.ravel(), atol=1e-5)
    assert found.attrs["terramind_tim_modalities"] == "LULC NDVI"
    drawn = scene.terramind.segment(path, probabilities=kind != "scalar regression", temperature=1.0)
    assert np.abs(drawn - found).max() > 1e-4

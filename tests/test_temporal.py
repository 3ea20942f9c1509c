"""segment with models of several dates: terratorch's own numbers for each pooling, and time used up."""

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
from terramind_xr import InputError, OptionError, TerramindWarning
from terramind_xr.facts import modalities
from terramind_xr.model.scaling import standardize

pytestmark = pytest.mark.filterwarnings("ignore:.*pre-training are taken:terramind_xr.TerramindWarning")
BOTH = ["S2L2A", "S1GRD"]
DATES = np.array(["2024-04-01", "2024-05-21", "2024-07-10"], "datetime64[ns]")


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    from terramind_xr.model.registry import register

    register()
    with terramind_xr.set_options(block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    dates = [
        terramind_xr.synthetic.scene((300, 250), seed=seed, modalities=tuple(BOTH)).compute()
        for seed in (5, 6, 7)
    ]
    dates = [date.assign_coords(y=dates[0].y, x=dates[0].x) for date in dates]
    return xr.concat(dates, "time", coords="minimal", compat="override").assign_coords(time=DATES)


@pytest.fixture(scope="module")
def tile(scene):
    return scene.isel(y=slice(224), x=slice(224))


def temporal(path, pooling, inputs=("S2L2A",), count=None, **arguments):
    """A task of several dates, and its checkpoint."""
    said = {"backbone_use_temporal": True, "backbone_temporal_pooling": pooling}
    said |= {"backbone_temporal_n_timestamps": count} if count else {}
    task = finetuned.task_of("segmentation", list(inputs), **{**finetuned.DEMO, **said, **arguments})
    return task, finetuned.save(task, path / f"{pooling}.ckpt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return temporal(tmp_path_factory.mktemp("dates"), "concat", BOTH, 3)[1]


def pixels(tile, name):
    """(tile, band, date, y, x), standardised."""
    dates = [standardize(modalities[name], date.values.astype("f")) for date in tile[name]]
    return np.stack(dates, axis=1)[None]


def upstream(task, tile, inputs=("S2L2A",)):
    return finetuned.forward(task, {name: pixels(tile, name) for name in inputs}).softmax(1)[0].numpy()


@pytest.mark.parametrize(
    ("pooling", "count", "dates"), [("mean", 3, 3), ("max", None, 3), ("diff", None, 2), ("concat", 3, 3)]
)
def test_a_tile_is_what_the_task_says(tile, tmp_path, pooling, count, dates, one_thread):
    task, path = temporal(tmp_path, pooling, BOTH, count)
    some = tile.isel(time=slice(dates))
    found = some.terramind.segment(path, probabilities=True)
    np.testing.assert_allclose(found, upstream(task, some, BOTH), atol=1e-5)
    assert found.dims == ("category", "y", "x")
    assert "time" not in found.coords
    assert found.attrs["terramind_temporal_pooling"] == pooling
    assert found.attrs["terramind_dates"].split("; ")[0] == "2024-04-01T00:00:00"
    turned = some.isel(time=slice(None, None, -1)).assign_coords(time=some.time)
    changed = np.abs(turned.terramind.segment(path, probabilities=True) - found).max()
    assert changed > 1e-3 if pooling in ("diff", "concat") else changed < 1e-5


def test_subsets_of_dates_and_bands(tile, tmp_path, one_thread):
    bands = {"S2L2A": ["BLUE", "GREEN", "RED", "NIR_NARROW"]}
    more = {"backbone_temporal_subset_lengths": [1, 2], "backbone_bands": bands}
    task, path = temporal(tmp_path, "diff", **more)
    where = [modalities["S2L2A"].band_names.index(band) for band in ("B02", "B03", "B04", "B8A")]
    expected = finetuned.forward(task, {"S2L2A": pixels(tile, "S2L2A")[:, where]}).softmax(1)[0]
    np.testing.assert_allclose(tile.terramind.segment(path, probabilities=True), expected, atol=1e-5)


@pytest.mark.slow
def test_several_dates_are_thought_about(scene, tile, tmp_path, one_thread):
    task, path = temporal(tmp_path, "mean", backbone="terramind_xr_demo_tim")
    found = tile.terramind.segment(path, probabilities=True)
    np.testing.assert_allclose(found, upstream(task, tile), atol=1e-5)
    wide = scene.isel(y=slice(224))
    drawn = wide.terramind.segment(path, temperature=1.0)
    lazy = wide.chunk({"time": 1, "y": 100, "x": 90}).terramind.segment(path, temperature=1.0, batch_size=3)
    np.testing.assert_array_equal(lazy, drawn)
    assert (drawn[:, :192] != found.argmax("category")[:, :192]).any()  # where one tile tells alone


@pytest.mark.filterwarnings("error::terramind_xr.TerramindWarning")
def test_means_of_the_data_module_for_crops_are_taken(tile, tmp_path, one_thread):
    from terratorch.datamodules.multi_temporal_crop_classification import MEANS, STDS

    task, path = temporal(tmp_path, "concat", count=3, backbone_bands={"S2L2A": list(MEANS)})
    where = [
        modalities["S2L2A"].band_names.index(band) for band in ("B02", "B03", "B04", "B8A", "B11", "B12")
    ]
    mean, std = (np.array(list(each.values()), "f")[:, None, None] for each in (MEANS, STDS))
    dates = [(date.values[where].astype("f") - mean) / std for date in tile.S2L2A]
    expected = finetuned.forward(task, {"S2L2A": np.stack(dates, axis=1)[None]}).softmax(1)[0]
    name = "terratorch.datamodules.MultiTemporalCropClassificationDataModule"
    config = {"data": {"class_path": name, "init_args": {"data_root": "out/data/crop"}}}
    found = tile.terramind.segment(path, config, probabilities=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    config["data"]["init_args"]["bands"] = ["RED", "GREEN", "BLUE", "NIR_NARROW", "SWIR_1", "SWIR_2"]
    with pytest.raises(OptionError, match="but the data of the configuration have"):
        tile.terramind.segment(path, config)
    config["data"]["init_args"]["bands"] = ["VV"]
    with pytest.raises(OptionError, match="Give means and stds"):
        tile.terramind.segment(path, config)


_whole = {}


@settings(max_examples=examples(4))
@given(chunks=st.tuples(st.integers(1, 3), st.integers(40, 300), st.integers(40, 250)))
def test_chunking_changes_no_byte(scene, checkpoint, chunks):
    if not _whole:
        _whole["eager"] = scene.terramind.segment(checkpoint, probabilities=True)
        assert isinstance(_whole["eager"].data, np.ndarray)
    lazy = scene.chunk(dict(zip(("time", "y", "x"), chunks, strict=True)))
    found = lazy.terramind.segment(checkpoint, probabilities=True).compute(scheduler="threads")
    assert found.values.tobytes() == _whole["eager"].values.tobytes()
    assert found.rio.crs == scene.rio.crs


def test_building_reads_no_pixel(scene, checkpoint):
    small = scene.isel(y=slice(30), x=slice(30))  # the unreadable chunks are tiny
    unread = small.assign({name: unreadable(small[name], "dask") for name in BOTH})
    found = unread.terramind.segment(checkpoint)
    assert dask.is_dask_collection(found)
    with pytest.raises(AssertionError, match="was read"):
        found.compute(scheduler="sync")


def test_other_dims_are_carried_through(scene, checkpoint):
    years = xr.concat([scene, scene.isel(x=slice(None, None, -1)).assign_coords(x=scene.x)], "year")
    found = years.transpose("time", "year", ...).terramind.segment(checkpoint)
    assert found.dims == ("year", "y", "x")
    np.testing.assert_array_equal(found[0], scene.terramind.segment(checkpoint))
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("dims", [("y",), ("x", "y")])
def test_a_turned_scene_gives_the_turned_map(scene, checkpoint, dims):
    turned = scene.isel(dict.fromkeys(dims, slice(None, None, -1)))
    found = turned.terramind.segment(checkpoint)
    xr.testing.assert_equal(found, scene.terramind.segment(checkpoint).sel(y=found.y, x=found.x))


def test_a_pixel_is_valid_where_any_date_is(scene, checkpoint):
    holed = scene.copy(deep=True)
    holed.S2L2A[:2, :, 40:90, 200:] = 0
    holed.S2L2A[2, :, 60:90, 200:] = 0
    holed.S1GRD[:, :, 40:90, 200:] = np.nan
    empty = np.zeros((300, 250), bool)
    empty[60:90, 200:] = True
    np.testing.assert_array_equal(holed.terramind.segment(checkpoint) == 255, empty)


def test_each_date_has_its_offset(scene, checkpoint):
    offsets = xr.DataArray([0, 1000, 1000], {"time": scene.time}, ["time"])
    bare = scene.copy()
    bare.S2L2A.attrs.pop("boa_add_offset", None)
    shifted = bare.assign(S2L2A=(bare.S2L2A + offsets).astype("int32").assign_attrs(bare.S2L2A.attrs))
    found = shifted.terramind.segment(checkpoint, offset=offsets, probabilities=True)
    plain = bare.terramind.segment(checkpoint, offset=0, probabilities=True)
    np.testing.assert_allclose(found, plain, atol=1e-6)
    wrong = shifted.terramind.segment(checkpoint, offset=1000, probabilities=True)
    assert np.abs(wrong - plain).max() > 1e-3


def test_each_date_has_its_mask(scene, checkpoint):
    clouds = xr.zeros_like(scene.S2L2A[:, 0], dtype=bool).drop_vars("band_S2L2A", errors="ignore")
    clouds[1, 50:200, 50:200] = True
    cloudy = scene.assign(S2L2A=scene.S2L2A.where(~clouds, 9999).astype(scene.S2L2A.dtype))
    cloudy.S2L2A.attrs = scene.S2L2A.attrs
    masked = cloudy.chunk(time=1, y=90).terramind.segment(checkpoint, mask={"S2L2A": clouds})
    np.testing.assert_array_equal(masked, scene.terramind.segment(checkpoint, mask={"S2L2A": clouds}))
    assert (masked != cloudy.terramind.segment(checkpoint)).any()


def test_time_is_an_error_where_it_is_not_as_trained(tile, checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"S2L2A: found the dims .* expected time among them"):
        tile.isel(time=0).terramind.segment(checkpoint)
    with pytest.raises(InputError, match=r"S1GRD: found the dims") as raised:
        tile.assign(S1GRD=tile.S1GRD.isel(time=0, drop=True)).terramind.segment(checkpoint)
    assert len(raised.value.faults) == 1
    with pytest.raises(InputError, match=r"found 2 dates, expected 3, as concat\.ckpt was trained"):
        tile.isel(time=slice(2)).terramind.segment(checkpoint)
    _, diff = temporal(tmp_path, "diff")
    with pytest.raises(InputError, match="found 3 dates, expected 2"):
        tile.terramind.segment(diff)
    with pytest.warns(TerramindWarning, match=r"ds\.sortby\('time'\)"):
        tile.isel(time=slice(None, None, -1)).terramind.segment(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone_temporal_pooling": "keep"}, "makes no one map"),
        ({"backbone_temporal_subset_lengths": [1, 1]}, "3 by temporal_n_timestamps, 2 by temporal_subset"),
        ({"backbone_temporal_n_timestamps": None}, "needs the number of dates"),
    ],
)
def test_what_cannot_be_trained_is_one_error(checkpoint, tile, tmp_path, changes, message):
    import torch

    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["model_args"] |= changes
    torch.save(content, tmp_path / "wrong.ckpt")
    with pytest.raises(OptionError, match=message):
        tile.terramind.segment(tmp_path / "wrong.ckpt")

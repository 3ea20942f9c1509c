"""segment: terratorch's own numbers, the laws, and one clear error for each thing that cannot be."""

from __future__ import annotations

import copy
import os
import pickle
import random

import dask
import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import finetuned
import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import InputError, OptionError, TerramindWarning, WeightsError
from terramind_xr.facts import modalities
from terramind_xr.model.scaling import standardize_by

pytestmark = pytest.mark.filterwarnings("ignore:.*pre-training are taken:terramind_xr.TerramindWarning")
BOTH = ["S2L2A", "S1GRD"]


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with terramind_xr.set_options(block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((300, 250), seed=5, modalities=(*BOTH, "DEM")).compute()


@pytest.fixture(scope="module")
def tile(scene):
    return scene.isel(y=slice(224), x=slice(224))


@pytest.fixture(scope="module")
def task():
    return finetuned.task_of("segmentation", BOTH, class_names=finetuned.CLASSES)


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    return finetuned.save(task, tmp_path_factory.mktemp("segmentation") / "best.ckpt")


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    task = finetuned.task_of("regression", ["S1GRD"])
    return task, finetuned.save(task, tmp_path_factory.mktemp("regression") / "best.ckpt")


@pytest.fixture(scope="module")
def means():
    """Statistics of a training of one's own."""
    rng = np.random.default_rng(0)
    return {
        "means": {"S2L2A": rng.uniform(800, 2000, 12).tolist(), "S1GRD": [-11.0, -18.0]},
        "stds": {"S2L2A": rng.uniform(500, 900, 12).tolist(), "S1GRD": [4.0, 5.0]},
    }


def standardized(scene, name, mean=None, std=None, bands=slice(None)):
    facts = modalities[name]
    values = scene[name].values.astype("float32")[bands]
    return standardize_by(mean or facts.mean, std or facts.std, values)[None]


def logits(task, scene):
    return finetuned.forward(task, {name: standardized(scene, name) for name in BOTH})


def chunked(scene, size=100):
    return scene.chunk({"y": size, "x": size})


def test_a_tile_is_what_the_task_says(task, checkpoint, tile, one_thread):
    expected = logits(task, tile).softmax(1)[0].numpy()
    found = tile.terramind.segment(checkpoint, probabilities=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.category.values.tolist() == ["bare_land", "water", "cloud"]
    codes = tile.terramind.segment(checkpoint)
    np.testing.assert_array_equal(codes, expected.argmax(0))
    assert len(np.unique(codes)) > 1
    assert codes.dtype == np.uint8
    assert codes.attrs["flag_meanings"] == "bare_land water cloud"
    assert codes.attrs["flag_values"].tolist() == [0, 1, 2]
    assert codes.rio.crs == tile.rio.crs


def test_a_regression_is_what_the_task_says(regression, tile, one_thread):
    task, path = regression
    expected = finetuned.forward(task, {"S1GRD": standardized(tile, "S1GRD")})[0].numpy()
    found = tile.terramind.segment(path)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (found.name, found.dims, found.dtype) == ("regression", ("y", "x"), np.float32)


def test_means_of_the_configuration_are_taken(task, checkpoint, tile, means, one_thread):
    pixels = {
        name: standardized(tile, name, tuple(means["means"][name]), tuple(means["stds"][name]))
        for name in BOTH
    }
    expected = finetuned.forward(task, pixels).softmax(1)[0].numpy()
    found = tile.terramind.segment(checkpoint, finetuned.config_of(task, **means), probabilities=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - tile.terramind.segment(checkpoint, probabilities=True)).max() > 0.01
    scaled = copy.deepcopy(means)
    for values in scaled.values():
        values["S2L2A"] = [value * 1e-4 for value in values["S2L2A"]]
    config = finetuned.config_of(task, **scaled, constant_scale={"S2L2A": 1e-4})
    again = tile.terramind.segment(checkpoint, config, probabilities=True)
    np.testing.assert_allclose(found, again, atol=1e-5)
    reflectance = finetuned.config_of(task, **scaled)
    again = tile.terramind.segment(checkpoint, reflectance, probabilities=True)
    np.testing.assert_allclose(found, again, atol=1e-5)


def test_bands_come_in_the_order_of_the_model(tile, tmp_path, one_thread):
    bands = {"S2L2A": ["SWIR_1", "RED", "NIR_NARROW"]}
    task = finetuned.task_of("segmentation", ["S2L2A"], backbone_bands=bands)
    path = finetuned.save(task, tmp_path / "bands.ckpt")
    facts = modalities["S2L2A"]
    where = [facts.band_names.index(band) for band in ("B11", "B04", "B8A")]
    mean, std = (tuple(each[band] for band in where) for each in (facts.mean, facts.std))
    expected = finetuned.forward(task, {"S2L2A": standardized(tile, "S2L2A", mean, std, where)})
    found = tile.terramind.segment(path, probabilities=True)
    np.testing.assert_allclose(found, expected.softmax(1)[0], atol=1e-6)
    assert found.attrs["terramind_bands"] == "S2L2A: B11 B04 B8A"


BURNED = {"S2L2A": ("NIR_NARROW", "BLUE", "SWIR_2")}


@pytest.fixture(scope="module")
def of_three(tmp_path_factory):
    """A model of three bands."""
    bands = {name: list(each) for name, each in BURNED.items()}
    task = finetuned.task_of("segmentation", ["S2L2A"], backbone_bands=bands)
    return finetuned.save(task, tmp_path_factory.mktemp("three") / "best.ckpt")


def by_band(scene, names):
    """A variable for each of some bands of S2L2A."""
    return xr.Dataset({name: scene.S2L2A.sel(band_S2L2A=name, drop=True) for name in names})


def test_a_scene_may_hold_the_bands_of_the_model_alone(scene, of_three):
    whole = scene.terramind.segment(of_three, probabilities=True)
    few = scene[["S2L2A"]].sel(band_S2L2A=["B02", "B12", "B8A"])
    scenes = [few, few.isel(band_S2L2A=[2, 0, 1]), chunked(few), by_band(scene, ["B12", "B02", "B8A"])]
    for each in scenes:
        found = each.terramind.segment(of_three, probabilities=True)
        assert found.values.tobytes() == whole.values.tobytes()
        assert found.attrs["terramind_bands"] == "S2L2A: B8A B02 B12"
    renamed = by_band(scene, ["B02", "B03", "B12", "B8A"]).rename(B8A="mine", B03="other")
    named = renamed.terramind.segment(of_three, inputs={"S2L2A": {"B8A": "mine", "B03": "other"}})
    np.testing.assert_array_equal(named, scene.terramind.segment(of_three))


def test_bands_that_the_model_does_not_read_change_nothing(scene, of_three):
    other = scene.copy(deep=True)
    other.S2L2A.loc[{"band_S2L2A": ["B03", "B09"]}] = 0
    found = other.terramind.segment(of_three, probabilities=True)
    assert found.values.tobytes() == scene.terramind.segment(of_three, probabilities=True).values.tobytes()
    other.S2L2A.loc[{"band_S2L2A": ["B02", "B8A", "B12"], "y": scene.y[:90]}] = 0
    found = other.terramind.segment(of_three)
    np.testing.assert_array_equal(found == 255, np.arange(300)[:, None] < np.full(250, 90))


def test_what_is_missing_of_the_bands_of_the_model_is_one_error(scene, of_three):
    for lacking in (scene[["S2L2A"]].sel(band_S2L2A=["B02", "B12"]), by_band(scene, ["B02", "B12"])):
        with pytest.raises(InputError, match="no B8A ") as caught:
            lacking.terramind.segment(of_three)
        (fault,) = caught.value.faults
        assert "B03" not in fault


@pytest.mark.filterwarnings("error::terramind_xr.TerramindWarning")
def test_a_checkpoint_of_our_data_module_tells_everything(tmp_path):
    """Trained by a script: no configuration, no warning, and the codes of the labels."""
    ds = terramind_xr.synthetic.scene(250, modalities=("S2L2A", "S1GRD", "LULC")).compute()
    names = {1: "Water", 7: "snow or ice", 5: "built"}
    bands = {"S2L2A": ["B8A", "B02", "B12"]}
    labels = {"labels": "LULC", "tile": 112, "block": 1, "gap": 0}
    module = terramind_xr.finetune.XarrayDataModule(
        ds, inputs=["S1GRD", "S2L2A"], bands=bands, classes=names, **labels
    )
    task = finetuned.task_of("segmentation", ["S2L2A", "S1GRD"], backbone_bands=module.backbone_bands)
    path = finetuned.save(task, tmp_path / "best.ckpt", module)
    found = ds.terramind.segment(path)
    assert found.attrs["flag_meanings"] == "Water built snow_or_ice"
    assert found.attrs["terramind_label_codes"].tolist() == [1, 5, 7]
    assert found.attrs["terramind_inputs"] == "S1GRD S2L2A"
    assert found.attrs["terramind_bands"] == "S1GRD: VV VH; S2L2A: B8A B02 B12"
    data = {"data": "a.zarr", "labels": "LULC", "bands": bands, "classes": {0: "Water", 1: "b", 2: "c"}}
    config = {"data": {"class_path": "terramind_xr.finetune.XarrayDataModule", "init_args": data}}
    with pytest.raises(OptionError, match="class_names is"):
        ds.terramind.segment(path, config)
    xr.testing.assert_identical(
        found, ds.terramind.segment(path, wrong(config, data__init_args__classes=names))
    )
    other = {"data": {"init_args": {"means": {"S2L2A": [1000, 2000, 3000], "S1GRD": [-10, -20]}}}}
    with pytest.raises(OptionError, match=r"data\.means is"):
        ds.terramind.segment(path, other)
    plain = finetuned.save(task, tmp_path / "plain.ckpt")
    with pytest.warns(TerramindWarning, match="pre-training are taken"):
        again = ds.terramind.segment(plain)
    assert "terramind_label_codes" not in again.attrs


def test_an_exported_state_dict_needs_its_configuration(task, checkpoint, tile, tmp_path):
    import torch

    for name, state in (("task.pt", task.state_dict()), ("model.pt", task.model.state_dict())):
        torch.save(state, tmp_path / name)
        with pytest.raises(OptionError, match="weights alone"):
            tile.terramind.segment(tmp_path / name)
        found = tile.terramind.segment(tmp_path / name, finetuned.config_of(task))
        np.testing.assert_array_equal(found, tile.terramind.segment(checkpoint))


def test_a_checkpoint_of_the_command_line_does_not_name_its_task(task, checkpoint, tile, tmp_path):
    import torch

    kept = torch.load(checkpoint, weights_only=True)
    del kept["hyper_parameters"]["task"]
    torch.save(kept, tmp_path / "best.ckpt")
    found = tile.terramind.segment(tmp_path / "best.ckpt", finetuned.config_of(task))
    np.testing.assert_array_equal(found, tile.terramind.segment(checkpoint))
    with pytest.raises(OptionError, match="does not say what it was trained for.*config="):
        tile.terramind.segment(tmp_path / "best.ckpt")


def test_the_configuration_beside_a_checkpoint_is_found(task, tile, means, tmp_path):
    path = finetuned.save(task, tmp_path / "version_0" / "checkpoints" / "epoch=3.ckpt")
    written = yaml.safe_dump(finetuned.config_of(task, **means))
    (tmp_path / "version_0" / "config.yaml").write_text(written)
    found = tile.terramind.segment(path)
    assert found.attrs["terramind_means"].endswith("S1GRD: -11 -18")
    np.testing.assert_array_equal(found, tile.terramind.segment(path, finetuned.config_of(task, **means)))


def test_means_alone_are_enough_for_a_checkpoint(task, checkpoint, tile, means, tmp_path):
    import torch

    alone = {"data": {"init_args": means}}
    found = tile.terramind.segment(checkpoint, alone)
    np.testing.assert_array_equal(
        found, tile.terramind.segment(checkpoint, finetuned.config_of(task, **means))
    )
    torch.save(task.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(OptionError, match="weights alone"):
        tile.terramind.segment(tmp_path / "weights.pt", alone)
    for config in ({}, {"train": 1}, {"model": "resnet"}):
        with pytest.raises(OptionError, match=r"no configuration of .terratorch fit"):
            tile.terramind.segment(checkpoint, config)


@pytest.mark.filterwarnings("error::terramind_xr.TerramindWarning")
def test_our_own_data_module_needs_no_means(task, checkpoint, tile):
    """It standardises by the modality table, so that nothing is assumed."""
    classes = {7: "cloud", 0: "bare land", 1: "water"}
    data = {"data": "store.zarr", "labels": "LULC", "inputs": ["S1GRD", "S2L2A"], "classes": classes}
    config = {"data": {"class_path": "terramind_xr.finetune.XarrayDataModule", "init_args": data}}
    found = tile.terramind.segment(checkpoint, config)
    assert found.attrs["terramind_inputs"] == "S1GRD S2L2A"
    with pytest.raises(OptionError, match="data of the configuration are S1GRD"):
        tile.terramind.segment(checkpoint, wrong(config, data__init_args__inputs=["S1GRD"]))
    with pytest.raises(OptionError, match="class_names is"):
        tile.terramind.segment(checkpoint, wrong(config, data__init_args__classes={0: "a", 1: "b", 2: "c"}))


@pytest.mark.slow
@pytest.mark.filterwarnings("error::terramind_xr.TerramindWarning")
def test_what_a_training_writes_is_read(tmp_path, one_thread):
    """One step of a fit with its callbacks, optimiser and scheduler, on tiles of a scene."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    ds = terramind_xr.synthetic.scene(900, modalities=("S1GRD", "LULC"))
    module = terramind_xr.finetune.XarrayDataModule(
        ds, "LULC", inputs=["S1GRD"], block=1, splits=(0.6, 0.2, 0.2), batch_size=2
    )
    task = finetuned.task_of("segmentation", ["S1GRD"], num_classes=9)
    kept = ModelCheckpoint(dirpath=tmp_path, monitor="val/loss")
    trainer = Trainer(
        accelerator="cpu", max_steps=1, callbacks=[kept], logger=False, enable_progress_bar=False,
        num_sanity_val_steps=0, val_check_interval=1, limit_val_batches=1, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task.train(), module)
    tile = ds.isel(y=slice(224), x=slice(224))
    expected = finetuned.forward(task.eval(), {"S1GRD": standardized(tile, "S1GRD")}).softmax(1)[0]
    found = tile.terramind.segment(kept.best_model_path, probabilities=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert tile.terramind.segment(kept.best_model_path).attrs["terramind_label_codes"].tolist() == [
        *range(1, 10)
    ]


def test_without_means_there_is_a_warning(tile, checkpoint):
    with pytest.warns(TerramindWarning, match="pre-training are taken"):
        tile.terramind.segment(checkpoint)


@pytest.mark.parametrize("kind", ["entropy", "margin", "least_confidence"])
def test_uncertainty_follows_from_the_probabilities(scene, checkpoint, kind):
    found = scene.terramind.segment(checkpoint, probabilities=True, uncertainty=kind)
    p = np.sort(found.segmentation.values.astype(float), axis=0)[::-1]
    expected = {
        "entropy": -(p * np.log(p)).sum(0) / np.log(3),
        "margin": 1 - (p[0] - p[1]),
        "least_confidence": 1 - p[0],
    }[kind]
    np.testing.assert_allclose(found[kind], expected, atol=1e-5)
    assert set(found) == {"segmentation", kind}


def test_building_reads_no_pixel(scene, checkpoint):
    unread = scene.assign(S2L2A=unreadable(scene.S2L2A, "dask"), S1GRD=unreadable(scene.S1GRD, "dask"))
    found = unread.terramind.segment(checkpoint, uncertainty="margin")
    repr(found)
    assert dask.is_dask_collection(found)
    with pytest.raises(AssertionError, match="was read"):
        found.compute(scheduler="sync")


_whole = {}


@settings(max_examples=examples(5))
@given(chunks=st.tuples(st.integers(40, 300), st.integers(40, 250), st.integers(1, 12)))
def test_chunking_changes_no_byte(scene, checkpoint, chunks):
    if not _whole:
        _whole["eager"] = scene.terramind.segment(checkpoint, probabilities=True)
    lazy = scene.chunk({"y": chunks[0], "x": chunks[1], "band_S2L2A": chunks[2]})
    found = lazy.terramind.segment(checkpoint, probabilities=True).compute(scheduler="threads")
    assert found.values.tobytes() == _whole["eager"].values.tobytes()


def test_numpy_in_numpy_out(scene, checkpoint):
    eager = scene.terramind.segment(checkpoint)
    assert isinstance(eager.data, np.ndarray)
    np.testing.assert_array_equal(eager, chunked(scene).terramind.segment(checkpoint))


def test_batches_and_names(scene, checkpoint):
    lazy = chunked(scene)
    one = lazy.terramind.segment(checkpoint, batch_size=1)
    assert float((one == lazy.terramind.segment(checkpoint)).mean()) > 0.999
    assert one.data.name == lazy.terramind.segment(checkpoint, batch_size=1).data.name
    assert one.data.name != lazy.terramind.segment(checkpoint, overlap=48).data.name


def test_dates_are_carried_through(scene, checkpoint):
    dates = xr.concat([scene, scene.isel(x=slice(None, None, -1)).assign_coords(x=scene.x)], "time")
    dates = dates.assign_coords(time=np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]"))
    found = dates.terramind.segment(checkpoint)
    assert found.dims == ("time", "y", "x")
    np.testing.assert_array_equal(found[0], scene.terramind.segment(checkpoint))
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("dims", [("y",), ("x", "y")])
def test_a_turned_scene_gives_the_turned_map(scene, checkpoint, dims):
    turned = scene.isel(dict.fromkeys(dims, slice(None, None, -1)))
    found = turned.terramind.segment(checkpoint)
    xr.testing.assert_equal(found, scene.terramind.segment(checkpoint).sel(y=found.y, x=found.x))


def test_nodata_stays_nodata(scene, checkpoint, regression):
    holed = scene.copy(deep=True)
    holed.S2L2A[:, 40:90, 200:] = 0
    holed.S1GRD[:, 40:90, 200:] = np.nan
    empty = np.zeros((300, 250), bool)
    empty[40:90, 200:] = True
    found = holed.terramind.segment(checkpoint, uncertainty="entropy")
    np.testing.assert_array_equal(found.segmentation == 255, empty)
    assert found.segmentation.attrs["terramind_nodata"] == 255
    np.testing.assert_array_equal(np.isnan(found.entropy), empty)
    np.testing.assert_array_equal(np.isnan(holed.terramind.segment(regression[1])), empty)


def test_tiles_are_of_the_size_of_the_model(scene, tmp_path, one_thread):
    task = finetuned.task_of("segmentation", ["S1GRD"], backbone_img_size=128)
    path = finetuned.save(task, tmp_path / "small.ckpt")
    small = scene.isel(y=slice(128), x=slice(128))
    expected = finetuned.forward(task, {"S1GRD": standardized(small, "S1GRD")}).softmax(1)[0]
    np.testing.assert_allclose(small.terramind.segment(path, probabilities=True), expected, atol=1e-6)
    found = scene.terramind.segment(path, overlap=64)
    assert (found.attrs["terramind_tile"], found.shape) == (128, (300, 250))


def test_loading_draws_no_random_number(tile, checkpoint):
    import torch

    from terramind_xr.model import segmentation

    segmentation._load.cache_clear()
    before = random.getstate(), torch.get_rng_state().tolist()
    tile.terramind.segment(checkpoint)
    assert (random.getstate(), torch.get_rng_state().tolist()) == before


def test_class_colours_of_the_configuration_are_drawn(task, checkpoint, tile, means):
    import matplotlib

    matplotlib.use("agg")
    colors = {"bare land": "#102030", "water": "#405060", "cloud": "#708090"}
    config = {**finetuned.config_of(task, **means), "class_colors": colors}
    found = tile.terramind.segment(checkpoint, config)
    assert found.attrs["flag_colors"] == "#102030 #405060 #708090"
    ax = found.terramind.plot()
    shown = {text.get_text() for text in ax.get_legend().get_texts()}
    assert shown == {finetuned.CLASSES[code] for code in np.unique(found)}


def test_a_map_comes_back_from_zarr_as_it_was(scene, checkpoint, tmp_path):
    holed = scene.copy(deep=True)
    holed.S2L2A[:, :50] = 0
    holed.S1GRD[:, :50] = np.nan
    stored = (
        chunked(holed).terramind.segment(checkpoint).terramind.to_zarr(tmp_path / "a.zarr", progress=False)
    )
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, holed.terramind.segment(checkpoint))
    assert stored.attrs["flag_meanings"] == "bare_land water cloud"


def test_a_checkpoint_that_was_replaced_is_refused(task, scene, tmp_path):
    path = finetuned.save(task, tmp_path / "best.ckpt")
    found = chunked(scene).terramind.segment(path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(WeightsError, match="other weights than the call recorded"):
        found.compute(scheduler="sync")


class Evil:
    def __reduce__(self):
        return os.system, ("echo run > was_run",)


@pytest.mark.parametrize("as_torch", [True, False])
def test_code_in_a_checkpoint_is_not_run(task, tile, tmp_path, monkeypatch, as_torch):
    import torch

    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"model.encoder.a": torch.zeros(1)}, "callbacks": Evil()}
    if as_torch:
        torch.save(content, "best.ckpt")
    else:
        (tmp_path / "best.ckpt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match=r"could run code.*torch.save\(task.state_dict"):
        tile.terramind.segment("best.ckpt")
    assert not (tmp_path / "was_run").exists()


def foreign(path, kind):
    import torch

    if kind == "bytes":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    else:
        other = {"model": {"a": 1}, "ema": None} if kind == "other" else {"conv1.weight": torch.zeros(2)}
        torch.save(other, path)
    return path


@pytest.mark.parametrize("kind", ["bytes", "other", "resnet"])
def test_a_checkpoint_of_another_framework_is_refused(tile, tmp_path, kind):
    with pytest.raises(WeightsError, match="no checkpoint of terratorch"):
        tile.terramind.segment(foreign(tmp_path / "net.ckpt", kind))


def test_a_damaged_checkpoint_is_refused(checkpoint, tile, tmp_path):
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"cut\.ckpt"):
        tile.terramind.segment(tmp_path / "cut.ckpt")


def wrong(config, **changes):
    """A configuration with some values replaced, by their path."""
    config = copy.deepcopy(config)
    for path, value in changes.items():
        *outer, last = path.split("__")
        inner = config
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return config


ARGS, DATA = "model__init_args__model_args", "data__init_args"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{ARGS}__num_classes": 2}, "model_args.num_classes is 3 in best.ckpt and 2 in config"),
        ({f"{ARGS}__backbone_modalities": ["S2L2A", "S1RTC"]}, "backbone_modalities"),
        ({"model__init_args__class_names": ["a", "b", "c"]}, "class_names is"),
        ({f"{DATA}__num_classes": 5}, "3 classes, but the data of the configuration 5"),
        ({f"{DATA}__modalities": ["S2L2A"]}, "but the data of the configuration are S2L2A"),
        ({"model__class_path": "no_such_module_of_mine.Task"}, "'no_such_module_of_mine' is not installed"),
        ({"model__class_path": "terratorch.tasks.WxCTask"}, "no task that can be run"),
        ({f"{DATA}__means": {"S2L2A": [0.1] * 12, "S1GRD": [-1, -2]}}, "do not tell their units"),
        ({f"{DATA}__means": {"S2L2A": [9.0] * 12, "S1GRD": [-1, -2]}}, "do not tell their units"),
        ({f"{DATA}__means": {"S2L2A": [0.0] * 12, "S1GRD": [-1, -2]}}, "do not tell their units"),
        ({f"{DATA}__means": [1e3] * 14}, "no list of numbers for S2L2A"),
        ({f"{DATA}__means": {"S2L2A": [1e3] * 12, "S1GRD": [0.1, 0.2]}}, "look like linear power"),
        ({f"{DATA}__means": {"S2L2A": [1e3] * 11, "S1GRD": [-1, -2]}}, "11 values for S2L2A"),
        ({f"{DATA}__means": "means.json"}, "no list of numbers for S2L2A"),
        ({f"{DATA}__output_bands": {"S2L2A": ["RED", "THERMAL"]}}, "THERMAL of S2L2A"),
        ({"class_colors": {"water": "blue"}}, "no colour like"),
    ],
)
def test_what_contradicts_is_one_error(task, checkpoint, tile, means, changes, message):
    config = wrong(finetuned.config_of(task, **means), **changes)
    with pytest.raises(OptionError, match=message):
        tile.terramind.segment(checkpoint, config)


def test_weights_of_other_classes_or_bands_are_refused(task, tile, tmp_path):
    import torch

    torch.save(task.state_dict(), tmp_path / "weights.pt")
    names = {"model__init_args__class_names": ["a", "b"]}
    config = wrong(finetuned.config_of(task), **{f"{ARGS}__num_classes": 2}, **names)
    with pytest.raises(WeightsError, match="tell 3 classes or variables.* to tell 2"):
        tile.terramind.segment(tmp_path / "weights.pt", config)
    config = wrong(finetuned.config_of(task), **{f"{ARGS}__backbone_bands": {"S2L2A": ["RED"]}})
    with pytest.raises(WeightsError, match="read 12 bands of S2L2A, .* read 1"):
        tile.terramind.segment(tmp_path / "weights.pt", config)
    config = wrong(finetuned.config_of(task), **{f"{ARGS}__decoder": "DecoderOfMine"})
    with pytest.raises(WeightsError, match="terratorch cannot build .* import that module first"):
        tile.terramind.segment(tmp_path / "weights.pt", config)


def test_what_the_scene_lacks_is_an_input_error(checkpoint, tile):
    with pytest.raises(InputError, match="S1GRD"):
        tile[["S2L2A"]].terramind.segment(checkpoint)
    lacking = tile.isel(band_S2L2A=tile.band_S2L2A.values != "B11")
    with pytest.raises(InputError, match="B11"):
        lacking.terramind.segment(checkpoint)
    kelvin = tile.assign(S2L2A=tile.S2L2A.assign_attrs(units="K"))
    with pytest.raises(InputError, match="K"):
        kelvin.terramind.segment(checkpoint)


@pytest.mark.parametrize(
    "options",
    [{"uncertainty": "variance"}, {"uncertainty": []}, {"inputs": ["S2L2A"]}, {"inputs": {"DEM": "DEM"}}],
)
def test_impossible_options_are_refused(checkpoint, tile, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        tile.terramind.segment(checkpoint, **options)


def test_a_regression_has_no_probabilities(regression, tile):
    for options in ({"probabilities": True}, {"uncertainty": "margin"}):
        with pytest.raises(OptionError, match="is a regression"):
            tile.terramind.segment(regression[1], **options)


def test_named_variables_are_used(checkpoint, tile):
    renamed = tile.rename(S2L2A="summer").drop_vars("DEM")
    renamed["summer"].attrs.pop("modality", None)
    found = renamed.terramind.segment(checkpoint, inputs={"S2L2A": "summer"})
    np.testing.assert_array_equal(found, tile.terramind.segment(checkpoint))

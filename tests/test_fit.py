"""Fine-tuning on one scene: polygons, refusals, and a checkpoint that `segment` takes."""

import random

import geopandas
import numpy as np
import pytest
import shapely
import torch
import xarray as xr

import terramind_xr
from terramind_xr import InputError, OptionError, WeightsError
from terramind_xr.finetune import fit, rasterized

CLASSES = {0: "dry", 1: "flooded"}
SHORT = {"model": "demo", "block": 1, "gap": 0, "epochs": 1, "progress": False, "splits": (0.5, 0.5, 0)}


@pytest.fixture(scope="module")
def scene():
    ds = terramind_xr.synthetic.scene(460, modalities=("S1GRD", "LULC"))
    return terramind_xr.synthetic.flood(ds).load()


def states():
    """Of all random numbers of the process."""
    drawn = np.random.get_state()[1].tolist()  # noqa: NPY002
    return torch.random.get_rng_state().tolist(), drawn, random.getstate()


def squares(scene, classes=("dry", "flooded"), **options):
    """A polygon in each quarter of the scene, the classes in turn."""
    left, bottom, right, top = scene.S1GRD.rio.bounds()
    width, height = (right - left) / 2, (top - bottom) / 2
    boxes = [
        shapely.box(
            left + i * width + 201,
            bottom + j * height + 201,
            left + i * width + 899,
            bottom + j * height + 799,
        )
        for j in (0, 1)
        for i in (0, 1)
    ]
    names = [classes[number % len(classes)] for number in range(4)]
    return geopandas.GeoDataFrame({"class": names}, geometry=boxes, crs=scene.rio.crs, **options)


def test_a_pixel_belongs_to_the_polygon_that_holds_its_centre(scene):
    frame = squares(scene)
    made = rasterized(frame, scene.S1GRD)
    x, y = np.meshgrid(scene.x, scene.y)
    expected = np.full(y.shape, 255)
    for name, shape in zip(frame["class"], frame.geometry, strict=True):
        expected[shapely.contains_xy(shape, x, y)] = ("dry", "flooded").index(name)
    np.testing.assert_array_equal(made, expected)
    assert made.attrs["flag_meanings"] == "dry flooded"
    assert made.rio.crs == scene.rio.crs
    turned = rasterized(frame.to_crs(4326), scene.S1GRD.isel(y=slice(None, None, -1)))
    assert float((turned.values[::-1] == expected).mean()) > 0.999
    assert np.array_equal(turned.y, scene.y[::-1])


def test_codes_and_names_are_taken_alike(scene):
    frame = squares(scene, classes=(0, 1))
    np.testing.assert_array_equal(
        rasterized(frame, scene.S1GRD, classes={0: "dry", 1: "flooded"}),
        rasterized(squares(scene), scene.S1GRD),
    )
    other = squares(scene).rename(columns={"class": "kind"}).assign(area=1.0)
    np.testing.assert_array_equal(
        rasterized(other, scene.S1GRD, column="kind"), rasterized(squares(scene), scene.S1GRD)
    )


def test_polygons_that_cannot_be_used(scene):
    far = squares(scene).translate(1e6).to_frame("geometry").assign(**{"class": "dry"})
    for frame, options, error, message in (
        (far, {}, InputError, "no polygon lies"),
        (squares(scene).set_crs(None, allow_override=True), {}, InputError, "The polygons have no CRS"),
        (squares(scene), {"column": "kind"}, OptionError, "column='kind'"),
        (squares(scene), {"classes": {0: "dry"}}, OptionError, "'flooded'"),
        (squares(scene, classes=(0, 300)), {}, OptionError, "codes from 0 to 254"),
    ):
        with pytest.raises(error, match=message):
            rasterized(frame, scene.S1GRD, **options)
    with pytest.raises(InputError, match="The scene has no CRS"):
        rasterized(squares(scene), scene.S1GRD.drop_vars("spatial_ref"))


@pytest.mark.parametrize("way", ["variable", "array", "polygons"])
def test_a_checkpoint_for_segment(scene, tmp_path, way):
    given = {"variable": "flood", "array": scene.flood, "polygons": squares(scene)}[way]
    ds = scene[["S1GRD", "flood"]] if way == "variable" else scene[["S1GRD"]]
    before = states()
    trained = fit(ds, given, tmp_path / "new", **SHORT)
    assert states() == before
    assert trained.class_names == ("dry", "flooded")
    assert trained.checkpoint == tmp_path / "new" / "best.ckpt"
    assert trained.epochs == 1
    assert np.isfinite(trained.scores["val/loss"])
    made = scene[["S1GRD"]].terramind.segment(trained).compute()
    assert made.attrs["flag_meanings"] == "dry flooded"
    scores = made.terramind.evaluate(scene.flood)
    assert int(scores.confusion.sum()) == scene.flood.size
    with pytest.raises(OptionError, match=r"best.ckpt' exists already"):
        fit(ds, given, tmp_path / "new", **SHORT)


@pytest.mark.slow
def test_the_same_seed_trains_the_same(scene, tmp_path):
    weights = []
    for folder in "ab":
        trained = fit(scene[["S1GRD", "flood"]], "flood", tmp_path / folder, **SHORT)
        weights.append(torch.load(trained.checkpoint, weights_only=True)["state_dict"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_regression(scene, tmp_path):
    ds = scene[["S1GRD"]].assign(wet=scene.flood.astype("float32").assign_attrs(flag_values=0))
    del ds["wet"].attrs["flag_values"], ds["wet"].attrs["flag_meanings"]
    trained = fit(ds, "wet", tmp_path, task="regression", **SHORT)
    made = ds[["S1GRD"]].terramind.segment(trained)
    assert made.dtype == np.float32


def test_options_that_cannot_be_used(scene, tmp_path):
    for changed, error, message in (
        ({"epochs": 0}, OptionError, "epochs=0"),
        ({"labels": "water"}, OptionError, "labels='water'"),
        ({"labels": 3}, OptionError, "labels is a int"),
        ({"tim": "LULC"}, OptionError, "tim='LULC'"),
        ({"inputs": ["S2L2A"]}, InputError, "S2L2A"),
        ({"model": "terramind_v1_tiny"}, WeightsError, "terramind_v1_tiny|TerraMind"),
    ):
        options = {"labels": "flood", **SHORT, **changed}
        with pytest.raises(error, match=message):
            fit(scene[["S1GRD", "flood"]], options.pop("labels"), tmp_path, **options)
    with pytest.raises(OptionError, match="expected a Dataset"):
        fit(scene.S1GRD, "flood", tmp_path, **SHORT)


def test_a_flood_is_new_water_and_bright_forest():
    names = ("S1GRD", "LULC")
    before = terramind_xr.synthetic.scene(448, modalities=names).load()
    after = terramind_xr.synthetic.flood(before, share=0.4)
    changed = (after.S1GRD != before.S1GRD).any(after.S1GRD.dims[0])
    xr.testing.assert_equal(changed, (after.flood == 1).rename(changed.name))
    forest, field = ((after.flood == 1) & (code == before.LULC) for code in (2, 4))
    gain = (after.S1GRD - before.S1GRD).isel({after.S1GRD.dims[0]: 0})
    assert float(gain.where(forest).mean()) == pytest.approx(3.5, abs=0.01)
    assert float(gain.where(field).mean()) < -5
    with pytest.raises(InputError, match="expected S1GRD"):
        terramind_xr.synthetic.flood(before.drop_vars("LULC"))
    with pytest.raises(OptionError, match="share=0"):
        terramind_xr.synthetic.flood(before, share=0)

"""The procedural world: a pure function of seed and position, lazy, labelled, georeferenced."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from terramind_xr import synthetic
from terramind_xr.errors import OptionError
from terramind_xr.modalities import lulc_classes, modalities
from terramind_xr.synthetic import dataset, fields, spectra

EVERY = ("S2L2A", "LULC", "NDVI")
NORTH, WEST = 9_990, 40_003  # a corner that lies on no lattice
SIDE = 96


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return synthetic.window(3, NORTH, WEST, SIDE, SIDE, EVERY)


@given(
    y=st.integers(0, SIDE - 1),
    x=st.integers(0, SIDE - 1),
    height=st.integers(1, SIDE),
    width=st.integers(1, SIDE),
)
@settings(max_examples=40, deadline=None)
def test_every_window_equals_the_same_crop_of_a_larger_one(whole, y, x, height, width):
    height, width = min(height, SIDE - y), min(width, SIDE - x)
    part = synthetic.window(3, NORTH + y, WEST + x, height, width, EVERY)
    for name in EVERY:
        crop = whole[name][..., y : y + height, x : x + width]
        assert part[name].dtype == crop.dtype
        np.testing.assert_array_equal(part[name], crop, err_msg=name)


@pytest.mark.parametrize("chunks", [512, 7, (50, 33)])
def test_chunks_change_nothing(chunks):
    size = (70, 90)
    expected = synthetic.window(5, 0, 0, *size, EVERY)
    ds = synthetic.scene(size, seed=5, modalities=EVERY, chunks=chunks).compute()
    for name in EVERY:
        np.testing.assert_array_equal(ds[name].values, expected[name], err_msg=name)


@pytest.mark.parametrize(
    "selection",
    [
        {"y": slice(40, 60), "x": slice(3, 9)},
        {"y": slice(None, None, -1)},
        {"x": slice(5, 60, 7)},
        {"y": -1, "x": [8, 1]},
        {"band": [3, 0], "y": 5},
        {"y": slice(10, 10)},
    ],
)
def test_a_selection_of_a_lazy_scene_equals_that_of_the_loaded_one(selection):
    lazy = synthetic.scene(64, seed=2, chunks=20).S2L2A
    xr.testing.assert_identical(lazy.isel(selection).compute(), lazy.compute().isel(selection))


def test_a_larger_scene_contains_the_smaller_one():
    small = synthetic.scene(40, seed=4).compute()
    large = synthetic.scene((60, 80), seed=4).compute()
    xr.testing.assert_identical(small.S2L2A, large.S2L2A[:, :40, :40])


def test_seeds_are_different_worlds():
    one, other = (synthetic.window(seed, 0, 0, 64, 64)["S2L2A"] for seed in (0, 1))
    assert (one != other).mean() > 0.9


def test_building_a_scene_computes_nothing(monkeypatch):
    def fail(*arguments):
        raise AssertionError("a pixel was computed")

    monkeypatch.setattr("terramind_xr.synthetic.dataset.surface", fail)
    ds = synthetic.scene(100_000, modalities=EVERY)
    assert ds.S2L2A.shape == (12, 100_000, 100_000)
    assert all(dask.is_dask_collection(ds[name].data) for name in EVERY)


def test_a_crop_of_a_huge_scene_reads_only_its_own_window(monkeypatch):
    asked = []
    monkeypatch.setattr(dataset, "window", lambda *call: asked.append(call) or synthetic.window(*call))
    ds = synthetic.scene(100_000, seed=1)
    ds.S2L2A[:, 70_000:70_010, 90_000:90_020].compute()
    assert [call[:5] for call in asked] == [(1, 70_000, 90_000, 10, 20)]


def test_equal_scenes_have_equal_names_and_other_seeds_others():
    names = [synthetic.scene(64, seed=seed).S2L2A.data.name for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_rioxarray_reads_the_georeference():
    ds = synthetic.scene((30, 50), modalities=EVERY)
    for name in EVERY:
        assert ds[name].rio.crs.to_epsg() == 32632
        assert ds[name].rio.resolution() == (10, -10)
        assert tuple(ds[name].rio.transform())[:6] == (10, 0, 300_000, 0, -10, 6_000_000)
        assert ds[name].rio.bounds() == (300_000, 5_999_700, 300_500, 6_000_000)
    assert float(ds.x[0]) == 300_005
    assert float(ds.y[0]) == 5_999_995


def test_labels_say_what_the_numbers_are():
    ds = synthetic.scene(16, modalities=EVERY)
    assert tuple(ds.band.values) == modalities["S2L2A"].band_names
    assert ds.S2L2A.dtype == np.uint16
    assert ds.LULC.dtype == np.uint8
    assert ds.NDVI.dtype == np.float32
    assert (ds.S2L2A.attrs["units"], ds.NDVI.attrs["units"]) == ("DN", "1")
    assert ds.S2L2A.attrs["boa_add_offset"] == 0
    meanings = ds.LULC.attrs["flag_meanings"].split()
    assert dict(zip(ds.LULC.attrs["flag_values"].tolist(), meanings, strict=True)) == {
        entry.code: entry.name for entry in lulc_classes
    }


def test_labels_survive_netcdf(tmp_path):
    ds = synthetic.scene(16, modalities=EVERY)
    ds.to_netcdf(tmp_path / "scene.nc")
    with xr.open_dataset(tmp_path / "scene.nc", decode_coords="all") as back:
        assert back.rio.crs == ds.rio.crs
        np.testing.assert_array_equal(back.LULC, ds.LULC)
        assert back.LULC.dtype == np.uint8
        assert back.LULC.attrs["flag_values"].dtype == np.uint8


def test_ndvi_is_that_of_the_bands(whole):
    ds = synthetic.scene(48, seed=6, modalities=EVERY).compute()
    red, infrared = (ds.S2L2A.sel(band=band).astype("float64") for band in ("B04", "B08"))
    np.testing.assert_allclose(ds.NDVI, (infrared - red) / (infrared + red), atol=1e-6)


def test_the_world_has_every_class_and_no_gap():
    parts = [synthetic.window(seed, 3000 * seed, 0, 256, 256, ("LULC", "S2L2A")) for seed in range(24)]
    cover = np.stack([part["LULC"] for part in parts])
    share = np.bincount(cover.ravel(), minlength=10) / cover.size
    assert share[0] == 0
    assert share.argmin() == 0
    assert share[1:].max() < 0.5
    assert min(part["S2L2A"].min() for part in parts) >= 1


def test_bands_tell_classes_apart():
    """Water is dark in the near infrared, vegetation bright; snow is bright in the visible."""
    parts = [synthetic.window(seed, 3000 * seed, 0, 256, 256, ("LULC", "S2L2A")) for seed in range(24)]
    cover = np.stack([part["LULC"] for part in parts])
    numbers = np.stack([part["S2L2A"] for part in parts], axis=1)

    def median(band: str, code: int) -> float:
        return float(np.median(numbers[modalities["S2L2A"].band_names.index(band)][cover == code]))

    assert median("B08", 1) < 800 < median("B08", 2)
    assert median("B03", 7) > 4000 > median("B03", 4)
    assert median("B11", 7) < median("B11", 6)


def test_noise_has_the_stated_spread_and_no_memory():
    y, x = (axis.astype(float) for axis in np.mgrid[0:400, 0:400])
    field = fields.fractal(0, "any", y, x, (37, 11))
    assert abs(field.mean()) < 0.15
    assert 0.55 < field.std() < 0.85
    grain = fields.speckle(fields.stream(0, "any"), np.arange(400), np.arange(400))
    assert abs(grain.mean()) < 0.01
    assert abs(grain.std() - 1) < 0.01
    neighbours = [np.corrcoef(grain.ravel(), np.roll(grain, 1, axis).ravel())[0, 1] for axis in (0, 1)]
    assert np.abs(neighbours).max() < 0.015


def test_digital_numbers_are_clipped_to_what_a_file_can_hold():
    shape = (2, 2)
    material = np.full(shape, spectra.MATERIAL["snow_fresh"], np.uint8)
    one, zero = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    dark = spectra.digital_numbers(material, material, zero, zero, zero, [-one] * 12)
    bright = spectra.digital_numbers(material, material, zero, 10 * one, zero, [one] * 12)
    assert dark.min() == 1
    assert bright.max() == 20_000


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"size": 0}, "0"),
        ({"size": (10, -1)}, r"\(10, -1\)"),
        ({"size": 2.5}, "2.5"),
        ({"size": True}, "True"),
        ({"size": (1, 2, 3)}, r"\(1, 2, 3\)"),
        ({"chunks": 0}, "chunks"),
        ({"seed": "one"}, "seed"),
        ({"modalities": ("S2L2A", "Landsat")}, "'Landsat'.*S2L2A, LULC, NDVI"),
        ({"modalities": ()}, "none"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(arguments, found):
    with pytest.raises(OptionError, match=found):
        synthetic.scene(**{"size": 16, **arguments})
    if "modalities" in arguments:
        with pytest.raises(OptionError, match=found):
            synthetic.window(0, 0, 0, 4, 4, arguments["modalities"])

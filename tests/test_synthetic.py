"""The procedural world: a pure function of seed and position, lazy, labelled, georeferenced."""

from __future__ import annotations

import datetime

import dask
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from terramind_xr import synthetic, validate
from terramind_xr.errors import OptionError
from terramind_xr.facts import lulc_classes, modalities
from terramind_xr.synthetic import dataset, fields, radar, render, spectra

EVERY = ("S2L2A", "LULC", "NDVI", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM")
MASKS = ("cloud", "shadow")
NORTH, WEST = 9_990, 40_003  # a corner that lies on no lattice
SIDE = 96


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return synthetic.window(3, NORTH, WEST, SIDE, SIDE, EVERY, clouds=0.4)


@given(
    y=st.integers(0, SIDE - 1),
    x=st.integers(0, SIDE - 1),
    height=st.integers(1, SIDE),
    width=st.integers(1, SIDE),
)
@settings(max_examples=examples(25), deadline=None)
def test_every_window_equals_the_same_crop_of_a_larger_one(whole, y, x, height, width):
    height, width = min(height, SIDE - y), min(width, SIDE - x)
    part = synthetic.window(3, NORTH + y, WEST + x, height, width, EVERY, clouds=0.4)
    for name in (*EVERY, *MASKS):
        crop = whole[name][..., y : y + height, x : x + width]
        assert part[name].dtype == crop.dtype
        np.testing.assert_array_equal(part[name], crop, err_msg=name)


@pytest.mark.parametrize("chunks", [512, 23, (50, 33)])
def test_chunks_change_nothing(chunks):
    size = (50, 60)
    dates = ["2024-02-09", "2023-06-30"]
    ds = synthetic.scene(size, 5, EVERY, chunks, dates, offset=1000, clouds=0.4).compute()
    for date in dates:
        expected = synthetic.window(5, 0, 0, *size, EVERY, time=date, offset=1000, clouds=0.4)
        for name in (*EVERY, *MASKS):
            found = ds[name] if name == "DEM" else ds[name].sel(time=date)
            np.testing.assert_array_equal(found, expected[name], err_msg=name)


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


@pytest.mark.parametrize(
    "selection",
    [{"time": 1}, {"time": slice(None, None, -2)}, {"time": slice(0, 0)}, {"time": [2, 0], "x": 3}],
)
def test_dates_are_selected_lazily(selection):
    lazy = synthetic.scene(24, seed=2, chunks=20, time=["2024-01-05", "2024-04-05", "2024-08-05"]).S2L2A
    xr.testing.assert_identical(lazy.isel(selection).compute(), lazy.compute().isel(selection))


def test_a_date_more_changes_nothing():
    one, two = (
        synthetic.scene(24, seed=4, time=dates) for dates in (["2024-05-05"], ["2024-05-05", "2024-09-01"])
    )
    xr.testing.assert_identical(one.compute(), two.isel(time=[0]).compute())


def test_without_a_time_it_is_the_first_of_july():
    plain, dated = (synthetic.scene(24, 4, EVERY, time=time) for time in (None, "2024-07-01"))
    assert "time" not in plain.coords
    xr.testing.assert_identical(
        plain.compute(), dated.drop_vars(["time", "sun_elevation", "sun_azimuth"]).compute()
    )


@pytest.mark.parametrize(
    "time",
    [
        datetime.date(2024, 5, 6),
        np.datetime64("2024-05-06T10:30"),
        pd.Timestamp("2024-05-06 23:59", tz="UTC"),
        xr.DataArray(np.datetime64("2024-05-06", "ns")),
    ],
)
def test_a_date_comes_as_any_type(time):
    ds = synthetic.scene(8, time=time)
    assert ds.time.values == np.datetime64("2024-05-06")
    assert ds.time.dtype == "datetime64[ns]"
    xr.testing.assert_identical(ds.compute(), synthetic.scene(8, time="2024-05-06").compute())


def test_several_dates_come_as_any_type():
    dates = pd.date_range("2024-01-10", periods=3, freq="91D")
    expected = synthetic.scene(8, time=[str(date.date()) for date in dates]).compute()
    for time in (dates, dates.values, xr.DataArray(dates, dims="time"), list(dates.to_pydatetime())):
        xr.testing.assert_identical(synthetic.scene(8, time=time).compute(), expected)


def test_labels_of_a_series(tmp_path):
    ds = synthetic.scene(16, modalities=EVERY, time=["2024-01-15", "2024-07-15"], clouds=0.3)
    assert all(ds[name].dims[0] == "time" for name in (*EVERY, *MASKS) if name != "DEM")
    assert ds.DEM.dims == ("y", "x")
    assert set(ds.S2L2A.data.chunks[0]) == {1}
    low, high = ds.sun_elevation.values
    assert 10 < low < 25 < 50 < high < 65
    ds.to_netcdf(tmp_path / "series.nc")
    with xr.open_dataset(tmp_path / "series.nc", decode_coords="all") as back:
        xr.testing.assert_equal(back, ds)


def test_seeds_are_different_worlds():
    one, other = (synthetic.window(seed, 0, 0, 64, 64)["S2L2A"] for seed in (0, 1))
    assert (one != other).mean() > 0.9


def test_building_a_scene_computes_nothing(monkeypatch):
    def fail(*arguments):
        raise AssertionError("a pixel was computed")

    monkeypatch.setattr("terramind_xr.synthetic.dataset.render", fail)
    ds = synthetic.scene(
        100_000, modalities=EVERY, clouds=0.4, chunks=8192, time=["2024-05-01", "2024-05-02"]
    )
    assert ds.S2L2A.shape == (2, 12, 100_000, 100_000)
    assert all(dask.is_dask_collection(ds[name].data) for name in (*EVERY, *MASKS))


def test_a_crop_of_a_huge_scene_reads_only_its_own_window(monkeypatch):
    asked = []
    monkeypatch.setattr(dataset, "render", lambda *call: asked.append(call[0]) or render.render(*call))
    ds = synthetic.scene(100_000, seed=1, chunks=4096, time=["1970-01-01", "1970-02-01"])
    ds.S2L2A[1, :, 70_000:70_010, 90_000:90_020].compute()
    assert [part.place for part in asked] == [(1, 31, 70_000, 90_000, 10, 20)]


def test_equal_scenes_have_equal_names_and_other_seeds_others():
    names = [synthetic.scene(64, seed=seed).S2L2A.data.name for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    looks: list[dict] = [{"offset": 1000}, {"clouds": 0.2}, {"clouds": 0}, {"time": "2024-05-01"}, {}]
    names = [synthetic.scene(64, **look).S2L2A.data.name for look in looks]
    assert len(set(names)) == len(looks)


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
    for name in EVERY:
        assert ds[name].attrs["units"] == modalities[name].units
        assert ds[name].attrs["long_name"] == modalities[name].title
        assert ds[name].attrs.get("standard_name") == modalities[name].standard_name
        if ds[name].ndim == 3:
            assert tuple(ds[f"band_{name}"].values) == modalities[name].band_names
    assert synthetic.scene(16, modalities=("LULC", "S1RTC", "DEM")).S1RTC.dims == ("band", "y", "x")
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
    red, infrared = (ds.S2L2A.sel(band_S2L2A=band).astype("float64") for band in ("B04", "B08"))
    np.testing.assert_allclose(ds.NDVI, (infrared - red) / (infrared + red), atol=1e-6)


@pytest.fixture(scope="module")
def parts():
    """Windows of many worlds."""
    return [synthetic.window(seed, 3000 * seed, 0, 256, 256, ("LULC", "S2L2A")) for seed in range(24)]


def test_the_world_has_every_class_and_no_gap(parts):
    cover = np.stack([part["LULC"] for part in parts])
    share = np.bincount(cover.ravel(), minlength=10) / cover.size
    assert share[0] == 0
    assert share.argmin() == 0
    assert share[1:].max() < 0.5
    assert min(part["S2L2A"].min() for part in parts) >= 1


def test_bands_tell_classes_apart(parts):
    """Water is dark in the near infrared, vegetation bright; snow is bright in the visible."""
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

    def numbers(shade: np.ndarray, noise: np.ndarray) -> np.ndarray:
        cover = spectra.Cover(material, material, zero, zero, zero, shade, zero)
        return spectra.digital_numbers(spectra.TABLE, cover, [noise] * 12)

    assert numbers(zero, -one).min() == 1
    assert numbers(10 * one, one).max() == 20_000


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
        ({"modalities": ("cloud",)}, "'cloud'.*DEM"),
        ({"offset": -1000}, "offset: found -1000"),
        ({"offset": True}, "offset: found True"),
        ({"clouds": 1.1}, "clouds: found 1.1"),
        ({"clouds": "few"}, "clouds: found 'few'"),
        ({"clouds": float("nan")}, "clouds: found nan"),
        ({"modalities": ()}, "none"),
        ({"time": "last summer"}, "time: found 'last summer', expected a date"),
        ({"time": 2024}, "time: found 2024"),
        ({"time": []}, r"time: found \[\]"),
        ({"time": [["2024-01-01"]]}, "time: found"),
        ({"time": ["2024-01-01", None]}, "time: found"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(arguments, found):
    with pytest.raises(OptionError, match=found):
        synthetic.scene(**{"size": 16, **arguments})
    if not {"size", "chunks", "seed"} & set(arguments):
        with pytest.raises(OptionError, match=found):
            synthetic.window(0, 0, 0, 4, 4, **arguments)


def test_a_window_has_one_date():
    with pytest.raises(OptionError, match="expected one date"):
        synthetic.window(0, 0, 0, 4, 4, time=["2024-01-01"])


def test_validate_finds_no_fault_in_any_modality():
    for offset in (0, 1000):
        report = validate(synthetic.scene(32, modalities=EVERY, offset=offset))
        assert report.ok
        assert not report.warnings
    for name in EVERY:
        assert not validate(synthetic.scene(32, modalities=(name,))).errors


@pytest.fixture(scope="module")
def worlds() -> dict[str, np.ndarray]:
    """Twelve worlds as (world, …, y, x)."""
    parts = [synthetic.window(seed, 3000 * seed, 500, 200, 200, EVERY, clouds=0) for seed in range(12)]
    return {name: np.stack([part[name] for part in parts]) for name in EVERY}


def test_speckle_has_the_stated_looks_and_no_memory():
    power = 10 ** (radar._SPECKLE.astype(float) / 10)
    assert power.mean() == pytest.approx(1, abs=0.01)
    assert power.mean() ** 2 / power.var() == pytest.approx(radar.LOOKS, rel=0.02)
    part = render.Window(2, 0, 0, 256, 256)
    vertical, cross = radar.backscatter(part.ground, 2, 0, 0, 0, corrected=True)
    rough = [band[:, 1:] - band[:, :-1] for band in (vertical, cross)]  # what neighbours do not share
    assert abs(np.corrcoef(rough[0].ravel(), rough[1].ravel())[0, 1]) < 0.25
    assert np.corrcoef(rough[0][:, :-1].ravel(), rough[0][:, 1:].ravel())[0, 1] == pytest.approx(
        -0.5, abs=0.1
    )


def test_backscatter_follows_the_land_cover(worlds):
    cover = worlds["LULC"]
    vertical, cross = np.moveaxis(worlds["S1RTC"], 1, 0)

    def median(code: int, band: np.ndarray = vertical) -> float:
        return float(np.median(band[cover == code]))

    assert -24 < median(1) < -17
    assert median(1) + 3 < min(median(6), median(9)) < max(median(6), median(9)) < median(2) < median(5)
    assert 4 < median(2) - median(2, cross) < 8
    assert -45 < worlds["S1GRD"].min() < worlds["S1GRD"].max() < 15


def test_slopes_that_face_the_sensor_are_bright_before_terrain_correction(worlds):
    slope = np.gradient(worlds["DEM"].astype(float), 10, axis=2)
    land = worlds["LULC"] == 2

    facing, away = land & (slope > 0.15), land & (slope < -0.15)
    grd, rtc = (
        np.median(worlds[name][:, 0][facing]) - np.median(worlds[name][:, 0][away])
        for name in ("S1GRD", "S1RTC")
    )
    assert grd > rtc + 3
    assert abs(rtc) < 1


def test_the_atmosphere_adds_blue_light_and_hides_the_ground_in_cirrus(worlds):
    above, below = worlds["S2L1C"].astype(float), worlds["S2L2A"].astype(float)
    names = modalities["S2L1C"].band_names
    surface = [modalities["S2L2A"].band_names.index(name) for name in names if name != "B10"]
    added = np.median(np.delete(above, names.index("B10"), 1) - below[:, surface], (0, 2, 3))
    assert added[0] > added[1] > added[2] > added[3] > 0
    assert added[0] > 700
    assert added[names.index("B09")] < -300
    assert above[:, names.index("B10")].max() < 40
    cloudy = synthetic.window(0, 0, 0, 64, 64, ("S2L1C",), clouds=1)["S2L1C"]
    assert cloudy[names.index("B10")].min() > 80


def test_true_colour_is_the_stretched_surface_reflectance(worlds):
    bands = [modalities["S2L2A"].band_names.index(name) for name in ("B04", "B03", "B02")]
    expected = np.clip(worlds["S2L2A"][:, bands] / render.BRIGHT * 255, 0, 255)
    assert np.abs(worlds["RGB"] - expected).max() <= 0.51


def test_the_offset_is_in_the_numbers_and_in_the_metadata():
    plain, shifted = (
        synthetic.scene(40, seed=8, modalities=EVERY, offset=offset).compute() for offset in (0, 1000)
    )
    for name, key in (("S2L2A", "boa_add_offset"), ("S2L1C", "radio_add_offset")):
        np.testing.assert_array_equal(shifted[name], plain[name] + 1000)
        assert (plain[name].attrs[key], shifted[name].attrs[key]) == (0, -1000)
    xr.testing.assert_identical(plain.drop_vars(["S2L2A", "S2L1C"]), shifted.drop_vars(["S2L2A", "S2L1C"]))


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_clouds_cover_their_share(share):
    masks = [
        render.render(render.Window(seed, 900 * seed, 0, 240, 240, render.Look(clouds=share)), ("cloud",))[
            "cloud"
        ]
        for seed in range(12)
    ]
    assert np.mean(masks) == pytest.approx(share, abs=0.08)


def test_clouds_hide_the_ground_from_optical_sensors_alone():
    clear, cloudy, overcast = (
        synthetic.window(7, 500, 77, 224, 224, EVERY, clouds=share) for share in (0, 0.4, 1)
    )
    assert (synthetic.window(7, 500, 77, 224, 224, ("LULC",))["LULC"] == 8).any()  # the world's own
    assert not clear["cloud"].any()
    assert overcast["cloud"].all()
    for name in ("LULC", "NDVI", "DEM", "S1GRD", "S1RTC"):
        np.testing.assert_array_equal(clear[name], cloudy[name])
    assert not (clear["LULC"] == 8).any()
    cloud = cloudy["cloud"]
    difference = cloudy["S2L2A"][3].astype(int) - clear["S2L2A"][3]
    bright_ground = clear["S2L2A"][3] > 4000
    assert (difference[cloud & ~bright_ground] > 0).mean() > 0.95
    shadow = ~cloud & (difference < 0)
    assert 0.02 < shadow.mean() < 0.4
    assert (difference[~cloud] <= 0).all()

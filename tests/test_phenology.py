"""The year of the procedural world: sun, leaves, snow and crops."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terramind_xr import synthetic
from terramind_xr.synthetic import phenology, spectra

DAYS = st.integers(-20_000, 40_000)


def day(date: str) -> int:
    return int(np.datetime64(date, "D").astype(np.int64))


def year(function) -> np.ndarray:
    return np.array([function(day("2024-01-01") + number) for number in range(366)])


@given(number=DAYS)
def test_day_of_year_is_that_of_the_calendar(number):
    date = datetime.date(1970, 1, 1) + datetime.timedelta(number)
    assert phenology.day_of_year(number) == date.timetuple().tm_yday - 1


@pytest.mark.parametrize("date", ["2024-01-15", "2024-03-20", "2024-06-21", "2024-07-15", "2024-10-30"])
def test_the_sun_stands_where_the_almanac_has_it(date):
    """Against the series of Spencer 1971 for the declination, within a degree or two."""
    angle = 2 * math.pi * phenology.day_of_year(day(date)) / 365
    terms = (0.006918, -0.399912, 0.070257, -0.006758, 0.000907, -0.002697, 0.00148)
    waves = (1, *(wave(n * angle) for n in (1, 2, 3) for wave in (math.cos, math.sin)))
    declination = sum(term * wave for term, wave in zip(terms, waves, strict=True))
    latitude, hour = math.radians(50), math.radians(-22.5)
    up = math.sin(latitude) * math.sin(declination)
    up += math.cos(latitude) * math.cos(declination) * math.cos(hour)
    north = math.cos(latitude) * math.sin(declination)
    north -= math.sin(latitude) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    elevation, azimuth = phenology.sun(day(date))
    assert elevation == pytest.approx(math.degrees(math.asin(up)), abs=1.5)
    assert azimuth == pytest.approx(math.degrees(math.atan2(east, north)) % 360, abs=1.5)


def test_the_year_comes_and_goes_evenly():
    leaves, winter, drought = (year(f) for f in (phenology.leaves, phenology.winter, phenology.drought))
    for curve in (leaves, winter):
        assert curve.min() >= 0
        assert curve.max() <= 1
    for curve in (leaves, winter, drought):
        steps = np.abs(np.diff(curve, append=curve[0]))
        assert steps.max() < 0.05
    assert leaves[195] > 0.99 > 0.01 > leaves[20]
    assert winter[27] > 0.99
    assert winter[120:290].max() == 0
    assert drought.argmax() == 225


@pytest.mark.parametrize("crop", range(phenology.CROPS))
def test_every_crop_has_a_calendar_of_the_whole_year_without_a_jump(crop):
    days = np.arange(day("2024-01-01"), day("2025-01-01") + 1)
    field = np.full((1, 1), crop, np.uint32)
    punctual = np.zeros((1, 1), np.float32)
    stages = [phenology.crops(int(number), field, punctual) for number in days]
    first, second, mix = (np.array([stage[part][0, 0] for stage in stages]) for part in range(3))
    assert mix.min() >= 0
    assert mix.max() <= 1
    looks = spectra.TABLE[first] * (1 - mix)[:, None] + spectra.TABLE[second] * mix[:, None]
    assert np.abs(np.diff(looks, axis=0)).max() < 500  # a cut or a ploughed field, in a few days
    np.testing.assert_array_equal(looks[-1], looks[0])
    assert len(np.unique(first)) >= 2


def test_a_field_behind_the_calendar_looks_as_others_did_before():
    fields = np.arange(phenology.CROPS, dtype=np.uint32)[None]
    late = np.full(fields.shape, 9, np.float32)
    for date in ("2024-01-20", "2024-05-20", "2024-09-30"):
        behind = phenology.crops(day(date), fields, late)
        before = phenology.crops(day(date) - 9, fields, 0 * late)
        for one, other in zip(behind, before, strict=True):
            np.testing.assert_array_equal(one, other)


def test_leaves_fall_and_rock_stays():
    summer, winter = (phenology.seasonal(day(f"2024-{date}"), spectra.TABLE) for date in ("07-10", "01-20"))
    np.testing.assert_allclose(summer, spectra.TABLE, rtol=0.02)
    for name, number in spectra.MATERIAL.items():
        greener = ndvi(summer[number]) - ndvi(winter[number])
        if name in ("broadleaf", "grass_green", "garden"):
            assert greener > 0.1
        else:
            assert greener >= -0.01
    np.testing.assert_array_equal(
        winter[spectra.MATERIAL["rock_grey"]], spectra.TABLE[spectra.MATERIAL["rock_grey"]]
    )


def ndvi(reflectance: np.ndarray) -> float:
    return float((reflectance[7] - reflectance[3]) / (reflectance[7] + reflectance[3]))


def test_summer_is_green_and_winter_white():
    dates = {"winter": "2024-01-25", "summer": "2024-06-25"}
    green = {season: [] for season in dates}
    snow = {season: 0 for season in dates}
    for season, date in dates.items():
        for seed in range(12):
            part = synthetic.window(seed, 4000 * seed, 700, 96, 96, ("LULC", "NDVI"), time=date)
            green[season].append(part["NDVI"][np.isin(part["LULC"], (2, 4, 5))])
            snow[season] += int((part["LULC"] == 7).sum())
    assert np.median(np.concatenate(green["summer"])) > np.median(np.concatenate(green["winter"])) + 0.2
    assert snow["winter"] > 1.3 * snow["summer"]

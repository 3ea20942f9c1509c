"""Relief of the procedural world: water runs downhill and lies level, slopes are those of land."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from examples import examples
from terramind_xr.synthetic import terrain
from terramind_xr.synthetic.rivers import Box

NORTH, WEST, SIDE = 9_990, 40_003, 80
PLACES = [(seed, 3000 * seed, 500) for seed in range(8)]


@pytest.fixture(scope="module")
def whole() -> terrain.Relief:
    return terrain.relief(3, NORTH, WEST, SIDE, SIDE)


@pytest.fixture(scope="module")
def reliefs() -> list[terrain.Relief]:
    return [terrain.relief(*place, 448, 448) for place in PLACES]


@given(
    y=st.integers(0, SIDE - 1),
    x=st.integers(0, SIDE - 1),
    height=st.integers(1, SIDE),
    width=st.integers(1, SIDE),
)
@settings(max_examples=examples(20), deadline=None)
def test_every_window_equals_the_same_crop_of_a_larger_one(whole, y, x, height, width):
    height, width = min(height, SIDE - y), min(width, SIDE - x)
    part = terrain.relief(3, NORTH + y, WEST + x, height, width)
    for name, field in whole._asdict().items():
        np.testing.assert_array_equal(getattr(part, name), field[y : y + height, x : x + width], err_msg=name)


@pytest.mark.parametrize("seed", range(6))
def test_the_bed_of_every_river_falls_all_the_way(seed):
    rivers = terrain.drainage(seed, Box(0, 3000, 0, 3000)).rivers
    assert len(rivers.v) > 50
    assert (rivers.foot <= rivers.head).all()
    starts: dict[tuple[float, float], list[float]] = {}
    for v, u, head in zip(rivers.v, rivers.u, rivers.head, strict=True):
        starts.setdefault((round(float(v), 3), round(float(u), 3)), []).append(float(head))
    goes_on = 0
    for v, u, foot in zip(rivers.v + rivers.down, rivers.u + rivers.right, rivers.foot, strict=True):
        for head in starts.get((round(float(v), 3), round(float(u), 3)), []):
            goes_on += 1
            assert head == pytest.approx(float(foot), abs=1e-3)
    assert goes_on > 0.7 * len(rivers.v)  # the others end in lakes, in the sea, or outside


def flooded(level: np.ndarray, outlets: np.ndarray) -> np.ndarray:
    """Level to which every pixel fills up before its water finds a way to an outlet (priority flood)."""
    water = np.where(outlets, level, np.inf).astype(float)
    waiting = [(water[y, x], int(y), int(x)) for y, x in zip(*np.nonzero(outlets), strict=True)]
    heapq.heapify(waiting)
    while waiting:
        height, y, x = heapq.heappop(waiting)
        if height > water[y, x]:
            continue
        for row in range(max(y - 1, 0), min(y + 2, level.shape[0])):
            for column in range(max(x - 1, 0), min(x + 2, level.shape[1])):
                needed = max(height, float(level[row, column]))
                if needed < water[row, column]:
                    water[row, column] = needed
                    heapq.heappush(waiting, (needed, row, column))
    return water


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5])
def test_rivers_run_downhill_to_a_lake_to_the_sea_or_out_of_the_window(seed):
    relief = terrain.relief(seed, 3000 * seed, 500, 300, 300)
    river = relief.river < 0
    outlets = np.ones_like(river)
    outlets[1:-1, 1:-1] = False
    outlets |= (relief.lake < 1) | (relief.shore < 0)
    pond = flooded(relief.elevation, outlets) - relief.elevation
    assert river.sum() > 30
    assert pond[river].max() < 0.5  # metres; a diagonal step between the pixels of a brook


def test_every_lake_has_one_level(reliefs):
    lakes = 0
    for relief in reliefs:
        water, count = ndimage.label(relief.lake < 1)
        for lake in range(1, count + 1):
            levels = relief.elevation[water == lake]
            assert np.ptp(levels) == 0
            lakes += levels.size > 50
    assert lakes >= 3


def test_the_sea_lies_at_zero_and_the_land_above_it():
    at_sea = 0
    for seed in range(20):
        relief = terrain.relief(seed, 5000 * seed, 0, 224, 224)
        sea = (relief.shore < 0) & (relief.lake >= 1)
        assert (relief.elevation[sea] == 0).all()
        assert (relief.elevation[~sea] >= 0.5).all()
        at_sea += int(sea.sum())
    assert at_sea > 10_000


def test_slopes_are_those_of_the_elevation_and_of_land(reliefs):
    steep = []
    for relief in reliefs:
        south, east = np.gradient(relief.elevation.astype(float), 10)
        inner = slice(1, -1), slice(1, -1)
        np.testing.assert_allclose(relief.slope_south[inner], south[inner], atol=1e-4)
        np.testing.assert_allclose(relief.slope_east[inner], east[inner], atol=1e-4)
        steep.append(np.hypot(south, east).ravel())
    slopes = np.concatenate(steep)
    assert 0.02 < np.median(slopes) < 0.3
    assert np.percentile(slopes, 99) < 1


@pytest.mark.parametrize("spacing", [4, 8, 45, 160])
@pytest.mark.parametrize("axis", [0, 1])
def test_no_lattice_shows_in_the_relief(reliefs, spacing, axis):
    """Kinks and heights are spread evenly over the phase of each lattice that the relief is made from."""
    kinks = np.zeros(spacing)
    count = np.zeros(spacing)
    for (_, y, x), relief in zip(PLACES, reliefs, strict=True):
        dry = (relief.river > 3) & (relief.lake > 1.5) & (relief.shore > 2)
        along = np.moveaxis(relief.elevation, axis, 0)
        bend = np.minimum(np.abs(np.diff(along, 2, axis=0)), 2)
        use = np.moveaxis(dry, axis, 0)[1:-1]
        phase = (np.arange(1, len(bend) + 1) + (y, x)[axis]) % spacing
        np.add.at(kinks, phase, (bend * use).sum(axis=1))
        np.add.at(count, phase, use.sum(axis=1))
    mean = kinks / count
    tolerance = 0.1 if spacing < 10 else 0.6  # of a long spacing there are few periods
    assert np.abs(mean / mean.mean() - 1).max() < tolerance


@pytest.mark.parametrize(("elevation", "azimuth"), [(25, 160), (60, 150), (40, 250)])
def test_light_on_a_slope_is_the_cosine_of_its_incidence(elevation, azimuth):
    """Against the scalar product of the normal with the direction to the sun."""
    rng = np.random.default_rng(0)
    south, east = rng.normal(0, 0.2, (2, 500)).astype(np.float32)
    normal = np.stack([-east, south, np.ones_like(east)]) / np.sqrt(1 + south**2 + east**2)  # east, north, up
    high, north = np.radians((elevation, azimuth))
    sun = np.array([np.cos(high) * np.sin(north), np.cos(high) * np.cos(north), np.sin(high)])
    direct = np.maximum(sun @ normal, 0) / np.sin(high)
    expected = np.clip(0.8 * direct + 0.2 * (1 + normal[2]) / 2, 0.25, 1.6)
    found = terrain.illumination(south, east, elevation, azimuth)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert terrain.illumination(np.float32([0]), np.float32([0]), elevation, azimuth)[0] == pytest.approx(1)

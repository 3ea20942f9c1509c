"""The seam index finds the seams that are there, and none that are not."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc

import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr import InputError, OptionError, Plan, seam_index
from terramind_xr.engine.tiling import AxisTiling

OVERLAPS = st.sampled_from(range(0, 113, 16))
SIDES = st.integers(225, 900)


def plan_of(shape, overlap=32, shifts=1):
    """A plan as `terramind_xr.plan` makes it; of it, shape, overlap and shifts count."""
    unused = {field.name: 1 for field in dataclasses.fields(Plan)}
    return Plan(**(unused | {"shape": shape, "overlap": overlap, "shifts": shifts}))


def borders(size, overlap):
    """Pixels at which a tile starts or the one before it has ended, within the scene."""
    axis = AxisTiling(size, overlap)
    return sorted({p for s in axis.starts for p in (s, s + axis.tile) if 0 < p < size})


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def steps(shape, places):
    """Zero, and up by one after each of the places along both axes: changes of 1 there and nowhere else."""
    along = [np.isin(np.arange(size), each).cumsum() for size, each in zip(shape, places, strict=True)]
    return along[0][:, None] + along[1][None, :]


def patches(shape):
    """Places of the patch grid."""
    return [range(16, size, 16) for size in shape]


def as_map(values, name="map", **attrs):
    return xr.DataArray(values, dims=("y", "x"), name=name, attrs=attrs)


def exact(found, expected):
    return found == pytest.approx(expected, rel=1e-9)


@given(shape=st.tuples(SIDES, SIDES), overlap=OVERLAPS, height=st.floats(0.5, 5))
def test_a_constructed_seam_is_measured(shape, overlap, height):
    """A ramp with a patch grid of 3, and at borders of tiles `height` times the step of other patches."""
    tiles = [borders(size, overlap) for size in shape]
    ramp = np.add.outer(*(np.arange(size, dtype=float) for size in shape))
    grid, seams = steps(shape, patches(shape)), steps(shape, tiles)
    found = seam_index(as_map(ramp + 2 * grid + 3 * (height - 1) * seams), plan_of(shape, overlap))
    assert exact(found.seam, height)
    assert exact(found.patch, 3)


@given(shape=st.tuples(SIDES, SIDES), height=st.floats(1.5, 5))
def test_borders_of_every_pass_count(shape, height):
    """Patches of the second pass begin 8 pixels further: a ramp with a step at each border of either."""
    ramp = np.add.outer(*(np.arange(size, dtype=float) for size in shape))
    grid = steps(shape, [range(8, size, 8) for size in shape])
    passes = [AxisTiling(size, shifts=(0, 8)).passes for size in shape]
    tiles = [
        {p for starts in each.values() for s in starts for p in (s, s + 224) if 0 < p < size}
        for each, size in zip(passes, shape, strict=True)
    ]
    if not all(8 in each for each in passes):  # too small for a second pass
        return
    seams = steps(shape, [sorted(each) for each in tiles])
    found = seam_index(as_map(ramp + 2 * grid + 3 * (height - 1) * seams), plan_of(shape, shifts=2))
    assert exact(found.seam, height)
    assert exact(found.patch, 3)


@given(shape=st.tuples(SIDES, SIDES), overlap=OVERLAPS, seed=st.integers(0, 9))
def test_a_patch_grid_is_no_seam(shape, overlap, seed):
    """One value a patch and a little noise: the patch index is high, the seam index near 1."""
    cells = noise([math.ceil(size / 16) for size in shape], seed)
    values = np.kron(cells, np.ones((16, 16)))[: shape[0], : shape[1]] + 0.01 * noise(shape, seed + 1)
    found = seam_index(as_map(values), plan_of(shape, overlap))
    assert found.seam == pytest.approx(1, abs=0.5)
    assert found.patch > 30


@pytest.mark.parametrize("overlap", [0, 16, 32, 64, 112])
@pytest.mark.parametrize("classes", [False, True])
def test_noise_has_neither_seams_nor_patches(overlap, classes):
    shape = (1500, 1300)
    values = noise(shape)
    found = seam_index(as_map((values > 0).astype("uint8") if classes else values), plan_of(shape, overlap))
    assert found.seam == pytest.approx(1, abs=0.02)
    assert found.patch == pytest.approx(1, abs=0.02)


@settings(max_examples=examples(8))
@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    overlap=OVERLAPS,
    chunks=st.tuples(st.integers(40, 400), st.integers(40, 400)),
    gaps=st.booleans(),
)
def test_lazily_as_in_memory(shape, overlap, chunks, gaps):
    values = noise(shape)
    if gaps:
        values[: shape[0] // 3] = np.nan
    here = seam_index(as_map(values), plan_of(shape, overlap))
    there = seam_index(as_map(values).chunk(dict(zip("yx", chunks, strict=True))), plan_of(shape, overlap))
    for one, other in ((here.seam, there.seam), (here.patch, there.patch)):
        assert one == pytest.approx(other, rel=1e-9, nan_ok=True)


@given(shape=st.tuples(SIDES, SIDES), overlap=OVERLAPS, flipped=st.sets(st.sampled_from("yx")))
def test_places_count_from_the_north_west(shape, overlap, flipped):
    values = noise(shape).cumsum(0) + 9 * steps(shape, [borders(size, overlap) for size in shape])
    placed = as_map(values).assign_coords(y=-10.0 * np.arange(shape[0]), x=10.0 * np.arange(shape[1]))
    other = placed.isel({dim: slice(None, None, -1) for dim in flipped})
    one, two = (seam_index(each, plan_of(shape, overlap)) for each in (placed, other))
    assert (one.seam, one.patch) == (pytest.approx(two.seam), pytest.approx(two.patch))


@settings(max_examples=examples(10))
@given(shape=st.tuples(SIDES, SIDES), overlap=OVERLAPS)
def test_extra_dims_are_averaged_over(shape, overlap):
    first, second = noise(shape, 0), noise(shape, 1)
    dates = xr.concat([as_map(first), as_map(first)], "time").transpose("y", "time", "x")
    one = seam_index(as_map(first), plan_of(shape, overlap))
    both = seam_index(dates, plan_of(shape, overlap))
    assert (one.seam, one.patch) == (pytest.approx(both.seam), pytest.approx(both.patch))
    mixed = seam_index(xr.concat([as_map(first), as_map(second)], "time"), plan_of(shape, overlap))
    ends = sorted(seam_index(as_map(each), plan_of(shape, overlap)).seam for each in (first, second))
    assert ends[0] - 0.02 <= mixed.seam <= ends[1] + 0.02


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (200, 208), (224, 224), (10, 15)])
def test_without_a_border_of_tiles_there_is_no_seam_index(shape):
    has_tiles = shape == (1, 900)
    assert math.isnan(seam_index(as_map(noise(shape)), plan_of(shape)).seam) != has_tiles


def test_an_axis_is_compared_with_itself():
    """Borders of tiles on one axis alone, content that changes on the other alone: there is no seam."""
    shape = (900, 200)
    values = noise(shape) + 50 * noise((1, 200), 1)
    assert seam_index(as_map(values), plan_of(shape)).seam == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("dtype", "attrs", "name", "nodata"),
    [
        ("float32", {}, "NDVI", math.nan),
        ("float32", {"_FillValue": -9999.0}, "NDVI", -9999),
        ("uint8", {}, "LULC", 0),
        ("float32", {"flag_values": np.arange(10)}, "any", math.nan),
        ("uint16", {"terramind_nodata": 65535}, "tokens", 65535),
        ("uint16", {}, "S2L2A", 0),
    ],
)
def test_pixels_without_data_do_not_count(dtype, attrs, name, nodata):
    """Garbage behind a nodata value, of which a border runs along a border of tiles, changes nothing."""
    shape, overlap = (700, 650), 32
    values = np.random.default_rng(0).integers(1, 9, shape).astype(dtype)
    values[192:, :] = nodata
    found = seam_index(as_map(values, name, **attrs), plan_of(shape, overlap))
    assert found.seam == pytest.approx(1, abs=0.05)
    assert found.patch == pytest.approx(1, abs=0.05)


def test_classes_either_change_or_do_not():
    """Borders of tiles step by 8 classes, others by 1: not a greater change."""
    shape = (700, 700)
    places = patches(shape)
    tiles = [borders(size, 32) for size in shape]
    codes = steps(shape, places) + 7 * steps(shape, tiles)
    assert seam_index(as_map(codes), plan_of(shape)).seam == pytest.approx(1)
    assert seam_index(as_map(codes * 1.0), plan_of(shape)).seam == pytest.approx(8)
    flagged = as_map(codes * 1.0, flag_values=[0, 1])
    assert seam_index(flagged, plan_of(shape)).seam == pytest.approx(1)
    digital_numbers = as_map(codes.astype("uint16"), "S2L2A")
    assert seam_index(digital_numbers, plan_of(shape)).seam == pytest.approx(8)


def test_a_constant_has_nothing_to_compare():
    shape = (700, 700)
    found = seam_index(as_map(np.ones(shape)), plan_of(shape))
    assert math.isnan(found.seam)
    assert math.isnan(found.patch)
    assert seam_index(as_map(steps(shape, patches(shape))), plan_of(shape)).patch == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("opened_with", [{"chunks": {}}, {"chunks": None}])
def test_the_map_is_never_whole_in_memory(opened_with, tmp_path):
    shape = (2000, 2000)
    values = dask.array.ones((6, *shape), chunks=(1, 500, 500), dtype="float64")
    whole = xr.DataArray(values, dims=("time", "y", "x"), name="NDVI")
    whole.to_zarr(tmp_path / "map.zarr")
    stored = xr.open_zarr(tmp_path / "map.zarr", **opened_with).NDVI
    with dask.config.set({"array.chunk-size": "4MiB", "num_workers": 2}):
        tracemalloc.start()
        seam_index(stored, plan_of(shape))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < whole.nbytes / 3


def test_as_method_with_a_real_plan():
    ds = terramind_xr.synthetic.scene((240, 460)).load()
    found = ds.terramind.generate("LULC", model="demo", overlap=0)
    plan = ds.terramind.plan("LULC", model="demo", overlap=0)
    assert plan.overlap == 0
    index = found.terramind.seam_index(plan)
    assert index == seam_index(found, plan)
    assert 0.3 < index.seam < 3
    assert index.patch > 3


def test_its_text_is_short():
    assert repr(terramind_xr.Seams(1.0712345, math.nan)) == "Seams(seam=1.07, patch=nan)"


def test_what_cannot_be_measured_is_refused():
    flat = as_map(noise((300, 300)))
    with pytest.raises(InputError, match="'map' has 300 × 300 pixels, but the plan is of 300 × 301"):
        seam_index(flat, plan_of((300, 301)))
    with pytest.raises(OptionError, match=r"plan='LULC' cannot be used.*ds.terramind.plan"):
        seam_index(flat, "LULC")
    with pytest.raises(OptionError, match=r"takes a DataArray, got Dataset.*ds\['LULC'\]"):
        seam_index(flat.to_dataset(), plan_of((300, 300)))
    with pytest.raises(InputError, match="Rename two of them"):
        seam_index(flat.rename(y="a", x="b"), plan_of((300, 300)))
    made = flat.assign_attrs(terramind_overlap=64)
    assert seam_index(made, plan_of((300, 300), 64)).seam > 0
    with pytest.raises(OptionError, match=r"overlap=64, but the plan says 32.*plan\(…, overlap=64\)"):
        seam_index(made, plan_of((300, 300), 32))
    words = xr.DataArray(np.full((300, 300), "forest"), dims=("y", "x"), name="map")
    with pytest.raises(InputError, match="'map' has dtype <U6"):
        seam_index(words, plan_of((300, 300)))

"""Where data lies: orientation, regularity, size on the ground, and the grid of patches."""

from __future__ import annotations

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from scenes import plain, single
from terramind_xr import validate
from terramind_xr.errors import InputError
from terramind_xr.grid import Grid

BACKWARDS = slice(None, None, -1)
SIDES = st.integers(1, 70)
FLIPS = st.sets(st.sampled_from(["y", "x"]))


def scene(height, width, flips=(), step=10.0):
    """With a GeoTransform, as rioxarray leaves it in every file that it opens."""
    data = single("DEM", height, width, dtype="float32")
    corner = Affine(step, 0, 500_000 - step / 2, 0, -step, 5_000_000 + step / 2)
    data = data.assign_coords(y=5e6 - step * np.arange(height), x=5e5 + step * np.arange(width))
    return data.rio.write_transform(corner).isel(dict.fromkeys(flips, BACKWARDS))


def patch_means(data, size):
    """Oracle: a patch is the mean place of its pixels, the scene north up and continued to whole ones."""
    upright = data.sortby("y", ascending=False).sortby("x")
    y, x = (upright[dim].values for dim in ("y", "x"))
    whole = [-(-side.size // size) * size for side in (y, x)]
    step = {"y": -10.0, "x": 10.0}
    places = {
        dim: side[0] + step[dim] * np.arange(length)
        for dim, side, length in zip(("y", "x"), (y, x), whole, strict=True)
    }
    return {dim: place.reshape(-1, size).mean(axis=1) for dim, place in places.items()}


def raster(grid):
    return grid.assign(xr.DataArray(np.zeros(grid.shape, "uint16"), dims=grid.dims, name="tokens"))


@settings(max_examples=examples(150), deadline=None)
@given(SIDES, SIDES, FLIPS, st.sampled_from([1, 3, 16]))
def test_patches_lie_at_the_mean_place_of_their_pixels(height, width, flips, size):
    data = scene(height, width, flips)
    grid = Grid.of(data).patches(size)
    expected = patch_means(data, size)
    for dim in ("y", "x"):
        stored = expected[dim][::-1] if dim in flips and data.sizes[dim] > 1 else expected[dim]
        np.testing.assert_array_equal(grid.axes[dim].centres, stored)
    assert grid.crs == data.rio.crs


@settings(max_examples=examples(80), deadline=None)
@given(st.integers(2, 70), st.integers(2, 70), FLIPS)
def test_rioxarray_finds_the_patches_at_the_north_west_corner_of_the_scene(height, width, flips):
    data = scene(height, width, flips)
    patches = raster(Grid.of(data).patches())
    left, bottom, right, top = patches.rio.bounds()
    west, _, _, north = data.rio.bounds(recalc=True)
    rows, columns = patches.shape
    assert (left, top) == (west, north)
    assert (right, bottom) == (west + 160 * columns, north - 160 * rows)
    assert rows * 16 >= height > (rows - 1) * 16
    assert patches.rio.crs == data.rio.crs
    # The array's own first corner is the southern one where rows run north.
    start = Affine(
        *(-160.0 if "x" in flips else 160.0, 0, right if "x" in flips else left),
        *(0, 160.0 if "y" in flips else -160.0, bottom if "y" in flips else top),
    )
    assert patches.rio.transform() == Grid.of(patches).transform == start
    assert Grid.of(patches).same_as(Grid.of(data).patches()) is None


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(17, 70), FLIPS)
def test_the_orientation_of_the_scene_is_that_of_its_patches(side, flips):
    data = scene(side, side, flips)
    grid, upright = Grid.of(data).patches(), Grid.of(scene(side, side)).patches()
    assert grid.runs_backwards == Grid.of(data).runs_backwards == tuple(dim for dim in "yx" if dim in flips)
    xr.testing.assert_equal(raster(grid).isel(dict.fromkeys(flips, BACKWARDS)), raster(upright))


def test_patches_of_a_crop_fit_the_crop():
    """The GeoTransform outlives it; patches count from the crop's own corner."""
    crop = scene(90, 90).isel(y=slice(7, 60), x=slice(3, 70))
    assert raster(Grid.of(crop).patches()).rio.transform() == Affine(160, 0, 500_025, 0, -160, 4_999_935)


def test_a_single_patch_or_row_keeps_its_size_in_the_geotransform(tmp_path):
    patch = raster(Grid.of(scene(9, 12)).patches())
    expected = Affine(160, 0, 499_995, 0, -160, 5_000_005)
    patch.to_netcdf(tmp_path / "patch.nc")
    with xr.open_dataset(tmp_path / "patch.nc", decode_coords="all") as back:
        assert patch.rio.transform() == back.tokens.rio.transform() == expected
        assert back.tokens.rio.crs == patch.rio.crs
    without_crs = scene(9, 12).drop_vars("spatial_ref")
    assert raster(Grid.of(without_crs).patches()).rio.transform() == expected
    assert Grid.of(scene(1, 40)).patches().transform == expected
    assert "GeoTransform" not in raster(Grid.of(scene(17, 17)).patches()).spatial_ref.attrs


def test_nobody_can_tell_the_height_of_a_single_row_by_its_coordinate():
    row = scene(1, 40).drop_vars("spatial_ref")
    patches = Grid.of(row).patches()
    assert (patches.shape, patches.transform, patches.y.centres) == ((1, 3), None, None)
    assert patches.x.centres.tolist() == [500_075, 500_235, 500_395]


def test_without_coordinates_the_geotransform_places_the_patches():
    bare = scene(40, 40).drop_vars(["y", "x"])
    assert Grid.of(bare).runs_backwards == ()
    assert Grid.of(bare).transform == Affine(10, 0, 499_995, 0, -10, 5_000_005)
    patches = raster(Grid.of(bare).patches())
    assert patches.rio.transform() == Affine(160, 0, 499_995, 0, -160, 5_000_005)
    assert set(patches.coords) == {"spatial_ref"}
    nowhere = Grid.of(bare.drop_vars("spatial_ref")).patches()
    assert (nowhere.shape, nowhere.transform) == ((3, 3), None)
    assert not raster(nowhere).coords


def test_degrees_float32_and_counts():
    lat, lon = 45 - 9e-5 * np.arange(40), 10 + 1.27e-4 * np.arange(40)
    data = single("DEM", 40, 40).drop_vars("spatial_ref").rename(y="lat", x="lon")
    grid = Grid.of(data.assign_coords(lat=lat, lon=lon.astype("float32"))).patches()
    assert grid.dims == ("lat", "lon")
    assert grid.is_geographic
    np.testing.assert_allclose(grid.y.centres, 45 - 9e-5 * (16 * np.arange(3) + 7.5), rtol=1e-13)
    np.testing.assert_allclose(grid.x.centres, 10 + 1.27e-4 * (16 * np.arange(3) + 7.5), atol=1e-6)
    assert grid.x.centres.dtype == np.float64
    counted = Grid.of(data.rename(lat="row", lon="col").assign_coords(row=np.arange(40), col=np.arange(40)))
    assert counted.runs_backwards == ()
    assert counted.patches().y.centres.tolist() == [7.5, 23.5, 39.5]


def test_an_array_gets_coordinates_with_their_attributes_and_the_caller_keeps_his():
    data = scene(40, 40).assign_coords(y=lambda ds: ds.y.assign_attrs(long_name="northing"))
    grid = Grid.of(data)
    bare = xr.DataArray(np.zeros((2, *grid.shape)), dims=("time", *grid.dims))
    result = grid.assign(bare)
    assert not bare.coords
    assert not bare.encoding
    assert result.y.attrs == {
        "axis": "Y", "standard_name": "projection_y_coordinate", "units": "m", "long_name": "northing",
    }  # fmt: skip
    assert data.y.attrs == {"long_name": "northing"}
    assert grid.patches().y.coordinate.attrs == data.y.attrs
    named = Grid.of(data.drop_vars("spatial_ref").rio.write_crs(32632, "utm"))
    assert named.assign(bare).encoding["grid_mapping"] == "utm"
    assert Grid.of(named.assign(bare)).same_as(grid) is None


@pytest.mark.parametrize("units", ["degrees", "degree", "degrees_north", "Degrees_North"])
def test_degrees_are_known_by_their_units_where_there_is_no_crs(units):
    """Ten metres at 45° north; taken for metres, they were a ten-thousandth of one."""
    data = plain("S2L2A", boa_add_offset=0).drop_vars("spatial_ref")
    y, x = 45 - np.arange(6) * 10 / 111_132, 10 + np.arange(5) * 10 / 78_847
    data = data.assign_coords(y=("y", y, {"units": units}), x=("x", x, {"units": units}))
    np.testing.assert_allclose(Grid.of(data).ground_resolution, (10, 10), rtol=1e-3)
    assert validate(data).ok
    metres = data.assign_coords(y=("y", y, {"units": "m"}), x=("x", x, {"units": "m"}))
    assert Grid.of(metres).ground_resolution[0] < 1e-4


def test_a_grid_without_known_dims_is_an_error_that_says_how_to_name_them():
    strange = xr.DataArray(np.zeros((4, 4)), dims=("rows", "columns"), name="DEM")
    assert Grid.find(strange) is None
    with pytest.raises(InputError, match=r"DEM: dimensions \('rows', 'columns'\).*rename"):
        Grid.of(strange)
    assert Grid.of(strange.rename(rows="y", columns="x")).dims == ("y", "x")

"""The pictures show what the arrays hold, where they hold it."""

from __future__ import annotations

import datetime
import io
import tracemalloc

import cftime
import dask
import dask.array
import matplotlib
import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from terramind_xr.errors import OptionError
from terramind_xr.facts import lulc_classes, modalities
from terramind_xr.plotting import LARGEST_SIDE, plot

matplotlib.use("agg")
from matplotlib import pyplot as plt

from examples import examples

S2_BANDS = list(modalities["S2L2A"].band_names)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def array(values, name, dims=("y", "x"), north_up=True, **coords) -> xr.DataArray:
    """An array on a 10 m grid whose outer edges start at x = 500000 and end at y = 4000000."""
    values = np.asarray(values) if not isinstance(values, dask.array.Array) else values
    sizes = dict(zip(dims, values.shape, strict=True))
    rows = 4_000_000 - 5 - 10.0 * np.arange(sizes["y"])
    coords |= {
        "y": ("y", rows if north_up else rows[::-1], {"long_name": "northing", "units": "m"}),
        "x": ("x", 500_005 + 10.0 * np.arange(sizes["x"]), {"long_name": "easting", "units": "m"}),
    }
    return xr.DataArray(values, dims=dims, coords=coords, name=name)


def drawn(ax, x, y):
    """Colour at a point of the axes, as the canvas has it."""
    ax.figure.canvas.draw()
    canvas = np.asarray(ax.figure.canvas.buffer_rgba())
    column, row = ax.transData.transform((x, y))
    return canvas[canvas.shape[0] - 1 - int(row), int(column), :3] / 255


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("north_up", [True, False])
def test_classes_have_their_colours_at_their_places(north_up):
    codes = np.array([[1, 1, 2, 0], [1, 1, 9, 5]], "uint8")
    lulc = array(codes if north_up else codes[::-1], "LULC", north_up=north_up)
    ax = plot(lulc)
    for (row, column), code in np.ndenumerate(codes):
        colour = to_rgb(lulc_classes[code].color) if code else (1, 1, 1)  # no data stays blank
        place = 500_005 + 10 * column, 4_000_000 - 5 - 10 * row
        np.testing.assert_allclose(drawn(ax, *place), colour, atol=0.01)
    assert legend_of(ax) == ["water", "trees", "built", "rangeland"]
    assert plot(lulc, alpha=0.25).images[0].get_alpha() == 0.25
    assert ax.get_xlim() == (500_000, 500_040)
    assert ax.get_ylim() == (3_999_980, 4_000_000)
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("easting [m]", "northing [m]")
    assert ax.get_title() == "land use and land cover"


def test_classes_are_never_averaged():
    """A checkerboard of 1 and 9, drawn smaller than it is, holds no class between them."""
    codes = np.where(np.indices((900, 900)).sum(axis=0) % 2, 1, 9).astype("uint8")
    ax = plot(array(codes, "LULC"), ax=plt.figure(figsize=(3, 3), dpi=50).subplots())
    rows = np.linspace(3_991_500, 3_999_500, 17)
    seen = {tuple(np.round(drawn(ax, 504_500, y), 1)) for y in rows}
    assert seen <= {tuple(np.round(to_rgb(lulc_classes[code].color), 1)) for code in (1, 9)}


def test_ndvi_has_a_fixed_scale_and_a_colour_bar():
    ax = plot(array([[0.1, 0.2], [np.nan, 0.3]], "NDVI"))
    (image,) = ax.images
    assert image.get_clim() == (-1, 1)
    assert image.get_array().mask.tolist() == [[False, False], [True, False]]
    assert image.colorbar.ax.get_ylabel() == "NDVI"
    assert plot(array([[0.1, 0.2]], "NDVI"), vmin=0, cmap="magma").images[0].get_clim() == (0, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_true_colour_finds_its_bands_by_name(order):
    ramp = np.linspace(500, 3500, 64).reshape(8, 8)
    values = np.full((12, 8, 8), 9999.0)
    values[S2_BANDS.index("B04")] = ramp
    values[S2_BANDS.index("B03")] = ramp / 2
    values[S2_BANDS.index("B02")] = 500
    values[:, 0, 0] = 0
    scene = array(values[::order], "S2L2A", ("band", "y", "x"), band=S2_BANDS[::order])
    (image,) = plot(scene, vmin=500, vmax=3500).images
    shown = image.get_array()
    np.testing.assert_allclose(shown[-1, -1], [1, (1750 - 500) / 3000, 0, 1])
    assert shown[0, 0, 3] == 0
    by_common_name = scene.assign_coords(band=[b.common_name for b in modalities["S2L2A"].bands][::order])
    np.testing.assert_array_equal(plot(by_common_name, vmin=500, vmax=3500).images[0].get_array(), shown)


def test_true_colour_without_limits_takes_them_from_the_data():
    """An offset of all numbers changes no colour."""
    values = np.random.default_rng(0).uniform(100, 3000, (12, 16, 16))
    scene = array(values, "S2L2A", ("band", "y", "x"), band=S2_BANDS)
    np.testing.assert_allclose(
        plot(scene).images[0].get_array(), plot(scene + 1000).images[0].get_array(), atol=1e-3
    )


def test_clouds_do_not_darken_the_land():
    values = np.random.default_rng(0).uniform(100, 3000, (12, 16, 16))
    values[:, :4] = 9000
    (image,) = plot(array(values, "S2L2A", ("band", "y", "x"), band=S2_BANDS)).images
    assert image.get_array()[:4].min() == 1
    assert image.get_array()[4:, :, :3].max() > 0.9


def test_radar_is_vv_in_grey():
    vh_vv = np.stack([np.full((4, 4), -20.0), np.eye(4)])
    radar = array(vh_vv, "S1GRD", ("band", "y", "x"), band=["VH", "VV"])
    (image,) = plot(radar).images
    np.testing.assert_array_equal(image.get_array(), np.eye(4))
    assert image.colorbar.ax.get_ylabel() == "VV [dB]"


def test_elevation_is_lit_from_the_north_west():
    ridge = 100 - np.abs(np.arange(9) - 4.0)
    along_y, along_x = np.tile(ridge, (9, 1)), np.tile(ridge[:, None], (1, 9))
    flat = np.sqrt(0.5)

    heights, shade = plot(array(along_y, "DEM")).images
    assert heights.colorbar.ax.get_ylabel() == "DEM [m]"
    assert (shade.get_array()[:, :4] > flat).all()
    assert (shade.get_array()[:, 5:] < flat).all()
    # The northern slope is lit, whether stored first or last.
    for north_up, lit in ((True, slice(0, 4)), (False, slice(5, 9))):
        shade = plot(array(along_x, "DEM", north_up=north_up)).images[1].get_array()
        assert (shade[lit] > flat).all()
        assert (shade < flat).any()

    expected = plot(array(along_y, "DEM")).images[1].get_array()
    # Ten metres on the ground, 60 degrees north: a degree of longitude is half as long there.
    degrees = np.arange(9) * 10 / 111_320
    geographic = xr.DataArray(along_y, {"lat": 60 - degrees, "lon": 2 * degrees}, ("lat", "lon"), "DEM")
    bare = xr.DataArray(along_y, dims=("y", "x"), name="DEM")
    for other, tolerance in ((geographic, 5e-3), (bare, 1e-5)):
        np.testing.assert_allclose(plot(other).images[1].get_array(), expected, rtol=tolerance)


def test_a_broken_crs_does_not_hide_the_heights():
    heights = array(np.eye(4), "DEM")
    broken = heights.assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": "NONSENSE["}))
    np.testing.assert_array_equal(plot(broken).images[1].get_array(), plot(heights).images[1].get_array())


def test_the_attribute_goes_before_the_name_and_one_band_is_grey():
    band = array(np.arange(16.0).reshape(4, 4) + 1, "my_scene", band="B08")
    with pytest.raises(OptionError, match="modality of 'my_scene'"):
        plot(band)
    ax = plot(band.assign_attrs(modality="S2L2A"))
    assert ax.images[0].colorbar.ax.get_ylabel() == "B08 [DN]"
    ax = plot(array([[0.5, 1.0]], "LULC", lulc_class="water"))
    assert ax.images[0].colorbar.ax.get_ylabel() == "probability of water"


def test_dates_are_told_in_the_title():
    stack = array(np.zeros((1, 2, 2)), "NDVI", ("time", "y", "x"), time=[np.datetime64("2024-06-01", "ns")])
    assert plot(stack).get_title().endswith(", 2024-06-01")


@pytest.mark.parametrize(
    ("time", "told"),
    [
        (np.datetime64("2024-06-01T10:56", "ns"), ", 2024-06-01"),
        (np.datetime64("NaT", "ns"), ""),
        (cftime.DatetimeNoLeap(2024, 6, 1), ", 2024-06-01"),
        (cftime.Datetime360Day(2024, 2, 30), ", 2024-02-30"),
        (datetime.date(2024, 6, 1), ", 2024-06-01"),
        ("June 2024", ", June 2024"),
        (2024, ", 2024"),
        (None, ""),
    ],
)
def test_a_time_of_any_type_is_told_in_the_title(time, told):
    stack = array(np.zeros((1, 2, 2)), "NDVI", ("time", "y", "x"), time=[time])
    assert plot(stack).get_title() == modalities["NDVI"].title + told


def test_times_of_single_pixels_are_not_told():
    times = np.full((2, 2), np.datetime64("2024-06-01", "ns"))
    mosaic = array(np.zeros((2, 2)), "NDVI").assign_coords(time=(("y", "x"), times))
    assert plot(mosaic).get_title() == modalities["NDVI"].title


@pytest.mark.parametrize(
    "dims",
    [
        ("lat", "lon"),
        ("latitude", "longitude"),
        ("northing", "easting"),
        ("Y", "X"),
        ("row", "col"),
        ("j", "i"),
    ],
)
@pytest.mark.parametrize("coordinates", [True, False])
def test_dims_of_any_name_that_generate_accepts_are_drawn(dims, coordinates):
    codes = array(np.array([[1, 1, 2], [5, 9, 9]], "uint8"), "LULC")
    expected = plot(codes if coordinates else codes.drop_vars(["y", "x"]))
    if dims == ("j", "i"):  # found by their CF attributes
        codes.y.attrs["axis"], codes.x.attrs["axis"] = "Y", "X"
        coordinates = True
    renamed = codes.rename(dict(zip(("y", "x"), dims, strict=True)))
    renamed = renamed if coordinates else renamed.drop_vars(dims)
    for stored in (renamed, renamed.transpose(*dims[::-1])):
        ax = plot(stored)
        np.testing.assert_array_equal(ax.images[0].get_array(), expected.images[0].get_array())
        if coordinates:
            assert ax.get_ylim() == (3_999_980, 4_000_000)
        else:
            assert ax.get_ylim() == expected.get_ylim()
        plt.close("all")


def test_rows_and_columns_with_names_are_counted():
    codes = xr.DataArray(
        np.array([[1, 2]], "uint8"), {"row": ["a"], "col": ["b", "c"]}, ("row", "col"), name="LULC"
    )
    assert plot(codes).images[0].get_extent() == [-0.5, 1.5, 0.5, -0.5]


@pytest.mark.parametrize("own_figure", [False, True])
@given(
    name=st.sampled_from(["LULC", "NDVI", "DEM", "S1RTC"]),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    coordinates=st.booleans(),
)
@example(name="NDVI", height=3, width=6, coordinates=True)
@settings(max_examples=examples(10))
def test_a_plain_savefig_cuts_nothing_off(own_figure, name, height, width, coordinates):
    values = np.arange(height * width).reshape(height, width) % 10
    picture = array(values, name, time=np.datetime64("2024-06-01", "ns"))
    given_ax = plt.subplots(layout="compressed")[1] if own_figure else None
    ax = plot(picture if coordinates else picture.drop_vars(["y", "x"]), ax=given_ax)
    ax.figure.savefig(io.BytesIO())
    frame = ax.figure.bbox
    boxes = [ax.get_tightbbox(), ax.title.get_window_extent()]  # the first: labels and ticks as well
    boxes += [bar.get_tightbbox() for bar in ax.child_axes]
    boxes += [ax.get_legend().get_window_extent()] if ax.get_legend() else []
    plt.close("all")
    for box in boxes:
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1


@pytest.mark.slow
def test_a_large_scene_is_thinned_before_it_is_drawn():
    side = 20_000
    lazy = dask.array.zeros((side, side), chunks=1000, dtype="uint8") + np.uint8(1)
    scene = array(lazy, "LULC")
    tracemalloc.start()
    with dask.config.set(scheduler="synchronous"):
        ax = plot(scene)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < side**2 / 4
    shape = ax.images[0].get_array().shape
    assert LARGEST_SIDE / 2 < min(shape) <= max(shape) <= LARGEST_SIDE
    # The picture covers the scene, and less than one of its pixels more.
    right, pixel = 500_000 + 10 * side, 10 * 14
    assert ax.get_xlim()[0] == 500_000
    assert right <= ax.get_xlim()[1] < right + pixel


def test_given_axes_are_used_and_arrays_without_coordinates_keep_their_first_row_on_top():
    ax = plt.figure().subplots()
    codes = xr.DataArray(np.array([[1], [2]], "uint8"), dims=("y", "x"), name="LULC")
    assert plot(codes, ax=ax) is ax
    np.testing.assert_allclose(drawn(ax, 0, 0), to_rgb(lulc_classes[1].color), atol=0.01)
    assert ax.get_ylim() == (1.5, -0.5)


@pytest.mark.parametrize("name", ["LULC", "NDVI", "DEM"])
def test_a_scene_without_data_is_drawn_blank(name):
    ax = plot(array(np.full((3, 3), np.nan), name))
    np.testing.assert_allclose(drawn(ax, 500_015, 3_999_985), 1)


CODES = np.array([[1, 1, 2, 2], [1, 2, 2, 9]], "uint8")


def test_codes_that_were_picked_or_decoded_to_floats_are_drawn():
    expected = legend_of(plot(array(CODES, "LULC")))
    floats = array(np.where(CODES == 9, np.nan, CODES), "LULC")
    assert legend_of(plot(floats)) == expected[:-1]
    picked = array(CODES, "LULC").isel(y=slice(None, None, 2), x=slice(None, None, 2))
    assert legend_of(plot(picked)) == expected[:2]
    shares = array(np.full((2, 2), 0.25), "LULC", lulc_class="water")
    assert plot(shares).images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (xr.Dataset({"LULC": array([[1]], "LULC")}), ["Dataset", "ds['LULC']"]),
        (np.zeros((2, 2)), ["ndarray"]),
        (array([[1.0]], None), ["None", "LULC", "rename"]),
        (array([[1.0]], "temperature"), ["'temperature'", "NDVI", "rename", "da.plot()"]),
        (array(np.zeros((0, 3)), "NDVI"), ["empty"]),
        (
            xr.DataArray(np.zeros((2, 2)), dims=("a", "b"), name="NDVI"),
            ["('a', 'b')", "da.rename({'a': 'y', 'b': 'x'})"],
        ),
        (xr.DataArray(np.zeros(2), dims="y", name="NDVI"), ["('y',)", "rows and columns"]),
        (array(np.zeros((2, 3, 3)), "NDVI", ("time", "y", "x")), ["2 layers", "da.isel(time=0)"]),
        (array(np.zeros((12, 3, 3)), "S2L2A", ("band", "y", "x")), ["12 layers", "assign_coords(band="]),
        (
            array(np.zeros((2, 12, 3, 3)), "S2L2A", ("time", "band", "y", "x"), band=S2_BANDS),
            ["2 layers along 'time'"],
        ),
        (array(CODES == 2, "LULC"), ["true and false", "da.rename('chosen').plot()"]),
        (array(CODES > 1, "NDVI").chunk(), ["true and false"]),
        (array(CODES, "LULC").coarsen(y=2, x=2).mean(), ["'LULC' holds 1.25", "da.plot()", "da.isel(y="]),
        (array(np.zeros((10, 3, 3)), "LULC", ("lulc_class", "y", "x")), ["da.isel(lulc_class=0)"]),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_remedy(faulty, words):
    with pytest.raises(OptionError) as caught:
        plot(faulty)
    for word in words:
        assert word in str(caught.value)
    assert not plt.get_fignums()


@pytest.mark.parametrize("colors", ["#102030 #405060 #708090", None])
def test_classes_that_flags_name_have_their_colours(colors):
    attrs = {"flag_values": np.arange(3, dtype="uint8"), "flag_meanings": "land open_water cloud"}
    attrs |= {"terramind_nodata": 255, "long_name": "class"} | ({"flag_colors": colors} if colors else {})
    codes = array(np.array([[0, 2], [255, 2]], "uint8"), "segmentation").assign_attrs(attrs)
    ax = plot(codes)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["land", "cloud"]
    image = ax.get_images()[0]
    shown = image.cmap(image.norm(image.get_array()))
    if colors:
        np.testing.assert_allclose(shown[0, 1, :3], to_rgb("#708090"), atol=1e-6)
    assert image.get_array().mask.tolist() == [[False, False], [True, False]]
    assert ax.get_title() == "class"
    with pytest.raises(OptionError, match="cannot tell the modality"):
        plot(codes.assign_attrs(flag_values=np.array([1, 2, 4])))

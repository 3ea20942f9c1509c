"""`align`: any grids onto one, lazily, the same bytes for any chunks, and nothing out of no data."""

from __future__ import annotations

import re
from unittest import mock

import dask.array
import numpy as np
import pyproj
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS

import eopf
import terramind_xr
from examples import examples
from scenes import plain, single, split, unreadable
from terramind_xr import align, validate
from terramind_xr.engine import warp as warping
from terramind_xr.errors import InputError, OptionError
from terramind_xr.grid import Grid

METRIC = "EPSG:32632"


def raster(step, size, dtype="float32", *, corner=(500_000.0, 5_000_000.0), crs=METRIC, name="b", **attrs):
    """An array (y, x) of random numbers on a grid, north up."""
    height, width = (size, size) if isinstance(size, int) else size
    values = np.random.default_rng(height + width).integers(1, 200, (height, width)).astype(dtype)
    coords = {
        "y": corner[1] - step * (np.arange(height) + 0.5),
        "x": corner[0] + step * (np.arange(width) + 0.5),
    }
    data = xr.DataArray(values, coords, ("y", "x"), name=name, attrs=attrs)
    return data if crs is None else data.rio.write_crs(crs)


def degrees(data, lon=9.0, lat=45.15, step=1e-4):
    """The same pixels in degrees."""
    height, width = data.shape
    places = {"y": lat - step * np.arange(height), "x": lon + step * np.arange(width)}
    return data.drop_vars("spatial_ref").assign_coords(places).rio.write_crs(4326)


def next_zone(step, size):
    """A raster of zone 33 over the corner of zone 32."""
    x, y = pyproj.Transformer.from_crs(METRIC, "EPSG:32633", always_xy=True).transform(500_300, 4_999_700)
    return raster(step, size, crs="EPSG:32633", corner=(x - step * size / 2, y + step * size / 2))


GRIDS = {
    "20 m": lambda: raster(20, (40, 50)),
    "10 m, half a pixel off": lambda: raster(10, 80, corner=(500_005.0, 5_000_005.0)),
    "60 m, south up": lambda: raster(60, 15).isel(y=slice(None, None, -1)),
    "5 m": lambda: raster(5, (150, 130)),
    "next zone": lambda: next_zone(10, 90),
    "degrees": lambda: degrees(raster(1, (90, 80))),
    "codes": lambda: raster(20, 40, "uint8", name="scl"),
    "integers": lambda: raster(20, 20, "int16", units="m"),
}


@settings(max_examples=examples(30), deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(GRIDS)))
def test_chunks_change_no_byte(data, kind):
    given = GRIDS[kind]()
    chunks = data.draw(st.tuples(*(st.integers(7, size) for size in given.shape)))
    to = raster(data.draw(st.sampled_from([10, 30])), data.draw(st.integers(20, 60)))
    with mock.patch.object(warping, "BLOCK", data.draw(st.sampled_from([17, 1024]))):
        now = align(given, to)
        lazy = align(given.chunk(dict(zip(given.dims, chunks, strict=True))), to)
        assert isinstance(lazy.data, dask.array.Array)
        assert isinstance(now.data, np.ndarray)
        assert lazy.dtype == now.dtype
        np.testing.assert_array_equal(lazy.compute(scheduler="sync").data, now.data)
    xr.testing.assert_identical(lazy.compute(), now)


@pytest.mark.parametrize("kind", ["dask", "lazy"])
def test_no_pixel_is_read(kind):
    fine, coarse = (unreadable(raster(step, 24, name=str(step)), kind) for step in (10, 20))
    made = align({"fine": fine, "coarse": coarse, "degrees": unreadable(degrees(raster(1, 24)), kind)})
    assert all(isinstance(data.data, dask.array.Array) for data in made.values())
    assert made["coarse"].shape == (24, 24)


@settings(max_examples=examples(25), deadline=None)
@given(
    kind=st.sampled_from(sorted(set(GRIDS) - {"codes", "integers"})),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "float64", "uint16", "int16"]),
    nodata=st.sampled_from([None, 0, 7, 200]),
)
def test_no_data_does_not_bleed(kind, seed, dtype, nodata):
    """A constant with holes comes out as the constant with holes, where the nearest pixels have them."""
    given = GRIDS[kind]()
    holes = np.random.default_rng(seed).random(given.shape) < 0.3
    empty = np.nan if nodata is None else nodata
    if np.dtype(dtype).kind != "f" and nodata is None:
        empty, nodata = 0, 0
    values = np.where(holes, empty, 123).astype(dtype)
    given = given.copy(data=values).assign_attrs({} if nodata is None else {"_FillValue": nodata})
    given = given.assign_attrs(units="m")  # they measure
    made = align(given, raster(10, 50))
    assert made.dtype == dtype
    is_empty = np.isnan(made) if np.isnan(empty) else made == empty
    assert bool((is_empty | (abs(made - 123) < 1e-3)).all())
    if kind in ("20 m", "next zone"):  # pixels that get no larger: theirs is the nearest one
        codes = align(given.copy(data=holes), raster(10, 50)).data
        inside = align(given.copy(data=np.ones_like(holes)), raster(10, 50)).data
        np.testing.assert_array_equal(is_empty.data | ~inside, codes | ~inside)


@pytest.mark.parametrize("kind", ["next zone", "degrees", "60 m, south up"])
def test_nearest_is_the_pixel_that_proj_says(kind):
    given, to = GRIDS[kind]().rename("scl"), raster(10, 60)
    x, y = pyproj.Transformer.from_crs(METRIC, given.rio.crs.to_wkt(), always_xy=True).transform(
        *np.meshgrid(to.x.values, to.y.values)
    )
    its = Grid.of(given)
    cols, rows = (
        (places - axis.edge) / axis.step for places, axis in ((x, its.x), (y, its.y))
    )  # fmt: skip
    inside = (cols >= 0) & (cols < its.x.size) & (rows >= 0) & (rows < its.y.size)
    assert inside.any()
    expected = np.full(to.shape, np.nan, "float32")
    expected[inside] = given.data[rows[inside].astype(int), cols[inside].astype(int)]
    found = align(given, to).data
    at_a_border = (np.abs(cols - np.round(cols)) < 1e-3) | (np.abs(rows - np.round(rows)) < 1e-3)
    np.testing.assert_array_equal(found[~at_a_border], expected[~at_a_border])


def test_larger_pixels_are_means_and_smaller_ones_are_interpolated():
    fine = raster(10, 12)
    np.testing.assert_allclose(align(fine, raster(20, 6)), fine.coarsen(y=2, x=2).mean(), rtol=1e-6)
    plane = raster(20, 12).copy(data=np.add.outer(3.0 * np.arange(12), np.arange(12)).astype("float32"))
    places = raster(10, 24)
    np.testing.assert_allclose(
        align(plane, places)[1:-1, 1:-1], plane.interp(y=places.y, x=places.x)[1:-1, 1:-1], atol=1e-5
    )


def test_numbers_on_the_same_pixels_are_taken_over():
    given = raster(10, 20)
    to = raster(10, 30, corner=(499_960.0, 5_000_050.0))
    expected = given.reindex(y=to.y, x=to.x)
    np.testing.assert_array_equal(align(given, to).data, expected.data)
    np.testing.assert_array_equal(align(given[::-1], to).data, expected.data)
    assert align(given).data is given.data


def test_integers_beyond_their_raster_are_no_data():
    to = raster(10, 30, corner=(499_960.0, 5_000_050.0))
    s2 = align(raster(10, 20, "uint16", name="B02"), to)
    assert (s2.dtype, int(s2[0, 0])) == ("uint16", 0)  # by convention
    heights = align(raster(20, 10, "int16", name="DEM"), to)
    assert (heights.dtype, bool(heights[0, 0].isnull())) == ("float32", True)
    declared = align(raster(20, 10, "int16", name="DEM", _FillValue=-32768), to)
    assert (declared.dtype, int(declared[0, 0])) == ("int16", -32768)
    assert align(raster(20, 15, "int16", name="DEM"), raster(10, 30)).dtype == "int16"
    clouds = align(raster(20, 10).astype(bool), to)
    assert (clouds.dtype, bool(clouds[0, 0])) == ("bool", False)


def test_metadata_are_kept():
    time = np.array(["2024-01-01", "2024-01-06"], "datetime64[ns]")
    s2 = plain("S2L2A", 12, 12, step=20.0, dtype="uint16", units="DN", boa_add_offset=-1000)
    s2 = s2.expand_dims(time=time).assign_coords(baseline=("time", ["05.00", "05.09"]))
    s2 = s2.assign_coords(lon=(("y", "x"), np.zeros((12, 12)))).assign_attrs({"proj:shape": [12, 12]})
    s2.encoding = {"_FillValue": 0, "chunksizes": (1, 1, 3, 3)}
    made = align(s2.transpose("y", "x", "time", "band"))
    assert made.dims == ("time", "band", "y", "x")
    assert made.name == "S2L2A"
    assert made.attrs == {"units": "DN", "boa_add_offset": -1000}
    assert made.encoding["_FillValue"] == 0
    assert "chunksizes" not in made.encoding
    assert set(made.coords) == {"time", "baseline", "band", "y", "x", "spatial_ref"}
    for name in ("time", "baseline", "band"):
        xr.testing.assert_identical(made[name].variable, s2[name].variable)
    assert made.rio.crs == CRS.from_epsg(32632)
    assert (made.rio.resolution(), made.shape[-2:]) == ((10.0, -10.0), (24, 24))
    assert made.x.attrs["units"] == "m"


def test_a_new_grid_has_edges_at_multiples_of_its_resolution():
    made = align(raster(20, 20, corner=(500_003.0, 5_000_007.0)), resolution=30)
    transform = made.rio.transform()
    assert (transform.c % 30, transform.f % 30, transform.a) == (0, 0, 30)
    assert transform.c <= 500_003
    assert transform.f >= 5_000_007


def test_degrees_go_to_the_utm_zone_of_the_centre():
    made = align(degrees(raster(1, (60, 50))))
    assert made.rio.crs == CRS.from_epsg(32632)
    assert Grid.of(made).ground_resolution == pytest.approx((10, 10), rel=1e-3)
    south = align(degrees(raster(1, (60, 50)), lon=-70.0, lat=-30.0))
    assert south.rio.crs == CRS.from_epsg(32719)
    without_crs = degrees(raster(1, (60, 50))).drop_vars("spatial_ref").rename(y="lat", x="lon")
    np.testing.assert_array_equal(align(without_crs).data, made.data)


@pytest.mark.parametrize("lon", [179.99, -180.01])
def test_the_antimeridian_is_no_border(lon):
    across = degrees(raster(1, (60, 300)).copy(data=np.full((60, 300), 5, "float32")), lon=lon, lat=10.0)
    with mock.patch.object(warping, "BLOCK", 64):  # some of them lie beyond it altogether
        made = align(across)
    assert made.rio.crs in (CRS.from_epsg(32660), CRS.from_epsg(32601))
    assert made.shape[1] == pytest.approx(300 * 1e-4 * 111_320 * np.cos(np.radians(10)) / 10, abs=5)
    assert float(made.notnull().mean()) > 0.9
    np.testing.assert_allclose(made.data[made.notnull().data], 5, rtol=1e-6)


def test_zones_meet_on_one_grid():
    heights = GRIDS["next zone"]()
    made = align({"B02": raster(10, 60, name="B02"), "DEM": heights})
    assert made.rio.crs == CRS.from_epsg(32632)
    assert made["DEM"].shape == (60, 60)
    assert float(made["DEM"].notnull().mean()) > 0.3


def test_rotated_grids_are_straightened():
    angle = np.radians(30)
    along, down = 10 * np.cos(angle), 10 * np.sin(angle)
    transform = Affine(along, down, 500_000.0, down, -along, 5_000_000.0)
    data = xr.DataArray(np.full((40, 40), 5.0), dims=("y", "x"), name="DEM")
    data = data.rio.write_crs(METRIC).rio.write_transform(transform)
    made = align(data)
    corners = [transform @ (col, row) if hasattr(transform, "__matmul__") else transform * (col, row)
               for col in (0, 40) for row in (0, 40)]  # fmt: skip
    left, _, _, top = made.rio.bounds()
    assert left <= min(x for x, _ in corners) < left + 10
    assert top - 10 < max(y for _, y in corners) <= top
    assert float(made.notnull().sum()) == pytest.approx(1600, rel=0.05)
    np.testing.assert_allclose(made.data[made.notnull().data], 5)


class GeoBox:
    """What align uses of odc-geo's."""

    def __init__(self, data):
        self.affine, self.shape, self.crs = data.rio.transform(), data.shape, data.rio.crs.to_wkt()


@pytest.mark.parametrize("form", ["array", "dataset", "geobox"])
def test_a_grid_is_told_by_whatever_lies_on_it(form):
    to = raster(30, 12, corner=(500_007.0, 5_000_003.0))
    told = {"array": to, "dataset": to.to_dataset(name="a"), "geobox": GeoBox(to)}[form]
    made = align(raster(10, 40), told)
    np.testing.assert_array_equal(made.x, to.x)
    np.testing.assert_array_equal(made.y, to.y)
    assert made.rio.crs == to.rio.crs


def test_a_crs_tells_a_new_grid():
    made = align(raster(10, 40), "EPSG:32633", resolution=20)
    assert made.rio.crs == CRS.from_epsg(32633)
    assert made.rio.resolution() == (20, -20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"to": "EPSG:4326"}, "not projected in metres"),
        ({"to": "EPSG:2263"}, "not projected in metres"),
        ({"to": "nonsense"}, "no grid and no CRS"),
        ({"to": xr.DataArray(np.zeros(3), dims="t")}, "no rows and columns"),
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": "10 m"}, "resolution is '10 m'"),
    ],
)
def test_options_that_cannot_be_used(arguments, said):
    with pytest.raises(OptionError, match=re.escape(said)):
        align(raster(10, 10), **arguments)


def test_all_faults_come_at_once():
    uneven = raster(10, 8).isel(y=[0, 1, 2, 4, 5, 6])
    placeless = xr.DataArray(np.zeros((3, 3)), dims=("y", "x"))
    broken = raster(10, 8, crs=None).assign_attrs(crs="EPSG:nonsense")
    with pytest.raises(InputError) as caught:
        align({"uneven": uneven, "placeless": placeless, "broken": broken})
    assert caught.value.kinds == ("resolution.irregular", "resolution.silent", "crs.unreadable")
    with pytest.raises(InputError) as caught:
        align({"a": raster(10, 8), "b": raster(20, 8, crs=None), "c": raster(20, 8).astype(complex)})
    assert caught.value.kinds == ("crs.missing", "dtype.unfit")
    with pytest.raises(InputError, match="expected a Dataset, DataArray, DataTree, or a mapping"):
        align(np.zeros((4, 4)))
    with pytest.raises(InputError, match="other places along"):
        align({"a": raster(10, 8).expand_dims(time=[0]), "b": raster(20, 4).expand_dims(time=[1])})


def test_bands_of_one_dataset_may_have_their_own_dims():
    fine, coarse = raster(10, 12, "uint16", name="B02"), raster(20, 6, "uint16", name="B05")
    coarse = coarse.rename(y="y_20m", x="x_20m")
    ds = xr.Dataset({"B02": fine, "B05": coarse, "clock": ("time", [1, 2])}, attrs={"a": 1, "transform": 2})
    made = ds.terramind.align()
    assert dict(made.sizes) == {"y": 12, "x": 12, "time": 2}
    assert made.attrs == {"a": 1}
    assert set(made.coords) == {"y", "x", "spatial_ref"}


# What errors print


def remedy_of(error):
    """The line of code in an error."""
    return re.search(r"ds = .*\)", str(error))[0]


def bands_apart():
    whole = terramind_xr.synthetic.scene(224, modalities=("S2L2A",))
    ds = split(whole["S2L2A"])
    coarse = ds["B05"].coarsen(y=2, x=2).mean().round().astype("uint16").rename(y="y_20m", x="x_20m")
    return ds.assign(B05=coarse.assign_attrs(ds["B05"].attrs))


def modalities_apart():
    ds = terramind_xr.synthetic.scene(224, modalities=("S2L2A", "DEM"))
    return ds.assign(DEM=ds["DEM"].isel(y=slice(7, None)).rename(y="northing", x="easting"))


FAULTY = {
    "grid.bands": bands_apart,
    "alignment.modalities": modalities_apart,
    "resolution.other": lambda: terramind_xr.synthetic.scene(224, modalities=("S2L2A",)).coarsen(
        y=2, x=2).mean().round().astype("uint16").map(lambda d: d, keep_attrs=True),
    "resolution.irregular": lambda: terramind_xr.synthetic.scene(224, modalities=("S2L2A",)).isel(
        y=[*range(100), *range(103, 224)]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::terramind_xr.TerramindWarning")
@pytest.mark.parametrize("kind", FAULTY)
def test_the_line_that_an_error_of_the_grid_prints_settles_it(kind):
    ds = FAULTY[kind]()
    with pytest.raises(InputError) as caught:
        ds.terramind.generate("LULC", model="demo")
    assert kind in caught.value.kinds
    scope = {"ds": ds, "np": np}
    exec(remedy_of(caught.value), scope)
    made = scope["ds"].terramind.generate("LULC", model="demo")
    assert int(made.max()) > 0
    if "align" in remedy_of(caught.value):
        assert made.sizes["y"] in (224, 112 * 2)


# Trees

needs_products = pytest.mark.skipif(not eopf.FOLDER.exists(), reason="no metadata of EOPF products")


@needs_products
@pytest.mark.parametrize("is_decoded", [True, False])
@pytest.mark.parametrize(("kind", "modality"), [("MSIL2A", "S2L2A"), ("MSIL1C", "S2L1C")])
def test_an_eopf_product_becomes_one_dataset(tmp_path, kind, modality, is_decoded):
    (path,) = eopf.products(kind)
    store = eopf.write(path, tmp_path / "product.zarr")
    tree = xr.open_datatree(store, engine="zarr", chunks={}, mask_and_scale=is_decoded)
    with pytest.raises(InputError, match=r"ds = tree\.terramind\.align\(\)") as caught:
        tree.terramind.generate("LULC")
    assert caught.value.kinds == ("grid.tree",)
    assert [check.kind for check in validate(tree).errors if check.check == "grid"] == ["grid.tree"]
    ds = tree.terramind.align()
    assert all(isinstance(data.data, dask.array.Array) for data in ds.values())
    assert dict(ds.sizes) == {"y": 120, "x": 120}
    assert ds.rio.crs == CRS.from_epsg(32632)
    assert ("scl" in ds) == (kind == "MSIL2A")
    report = validate(ds)
    left = {check.kind for check in report.errors}
    assert left == ({"scale.units"} if is_decoded else set()), report
    assert {check.variable for check in report.checks} == {modality}
    for name in ("b02", "b05", "b01"):
        values = ds[name].values
        empty = np.isnan(values) if is_decoded else values == 0
        assert empty[:6, :6].all()
        assert empty.sum() == 36
        number = values * (1 if is_decoded else 1e-4) - (0 if is_decoded else 0.1)
        # Numbers grow by 1 a metre southwards; Level-2A has b01 at 20 m, too.
        centre = {"b02": 600, "b05": 595, "b01": 595 if kind == "MSIL2A" else 575}[name]
        assert number[60, 60] == pytest.approx(0.02 + 1e-4 * centre, abs=1e-6)
    assert not any(key.startswith("proj:") for key in ds["b05"].attrs)
    assert ds["b05"].attrs["long_name"] == tree["measurements/reflectance/r20m/b05"].attrs["long_name"]


@needs_products
def test_radar_geometry_is_refused_as_that(tmp_path):
    (path,) = eopf.products("GRDH")
    tree = xr.open_datatree(eopf.write(path, tmp_path / "product.zarr"), engine="zarr", chunks={})
    for call in (tree.terramind.align, lambda: tree.terramind.generate("LULC")):
        with pytest.raises(InputError, match=r"radar geometry.*S1RTC") as caught:
            call()
        assert caught.value.kinds == ("grid.radar",)
    assert [check.kind for check in tree.terramind.validate().errors] == ["grid.radar"]


def test_two_scenes_in_one_tree_are_refused_with_the_line_that_takes_one():
    group = xr.Dataset({"DEM": single("DEM")})
    tree = xr.DataTree.from_dict({"/june/r10m": group, "/july/r10m": group + 1})
    with pytest.raises(InputError, match="groups with pixels of one size") as caught:
        tree.terramind.align()
    scope = {"tree": tree}
    exec(remedy_of(caught.value), scope)
    np.testing.assert_array_equal(scope["ds"]["DEM"], group["DEM"])

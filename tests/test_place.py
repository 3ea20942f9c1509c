"""Results know where they lie: CRS, axes and transform, in memory and in files, with rioxarray as judge."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import terramind_xr
from scenes import plain, split
from terramind_xr import validate
from terramind_xr.data import find_inputs
from terramind_xr.grid import Grid
from terramind_xr.kernels.describe import modality_output
from terramind_xr.label import label


def result_of(data, name="LULC"):
    """What a call labels, without the model."""
    each = next(
        iter(find_inputs(data if isinstance(data, xr.Dataset) else data.to_dataset()).inputs.values())
    )
    extra = {dim: each.data[dim] for dim in each.data.dims[:-3]}
    shape = [each.data.sizes[dim] for dim in (*extra, *each.grid.dims)]
    values = np.ones(shape, "uint8")
    described = modality_output(name, 0)
    return label(described, values, each.data, each.grid, beside=True, extra=extra, attrs={})


def stac(**coords):
    """Without a grid mapping, as stackstac gives it."""
    data = plain("S2L2A", boa_add_offset=0).drop_vars("spatial_ref")
    data.encoding = {}
    return data.assign_coords(coords)


SAID = {
    "epsg": lambda: stac(epsg=32632),
    "proj:epsg": lambda: stac(**{"proj:epsg": np.int64(32632)}),
    "proj:code": lambda: stac(**{"proj:code": "EPSG:32632"}),
    "by date": lambda: stac().expand_dims(time=3).assign_coords({"proj:epsg": ("time", [32632] * 3)}),
    "some dates silent": lambda: stac().expand_dims(time=2).assign_coords(epsg=("time", [np.nan, 32632])),
    "as objects": lambda: stac(epsg=((), np.array(32632, object))),
    "attribute": lambda: stac().assign_attrs(crs="epsg:32632"),
    "attribute, code": lambda: stac().assign_attrs({"proj:code": "EPSG:32632"}),
    "attribute of the dataset": lambda: split(stac()).assign_attrs(crs="epsg:32632", boa_add_offset=0),
    "a variable for each band": lambda: split(stac(epsg=32632)).assign_attrs(boa_add_offset=0),
    "grid mapping of another name": lambda: stac().rio.write_crs(32632, "utm"),
}


@pytest.mark.parametrize("where", SAID)
def test_the_crs_is_found_and_written_wherever_it_is_said(where, tmp_path):
    data = SAID[where]()
    report = validate(data)
    assert [check.found for check in report.checks if check.check == "crs"] == ["EPSG:32632"]
    result = result_of(data)
    assert result.rio.crs.to_epsg() == 32632
    assert result.attrs.get("grid_mapping") is None
    for back in stored(result, tmp_path):
        assert back.rio.crs.to_epsg() == 32632
        assert back.rio.transform() == result.rio.transform()


def test_what_is_said_of_the_crs_must_agree_and_be_readable():
    two = stac().expand_dims(time=2).assign_coords(epsg=("time", [32632, 32633]))
    assert Grid.of(two).crs is None
    assert "EPSG:32632, EPSG:32633" in Grid.of(two).crs_fault
    for data in (two, stac().assign_attrs(crs="EPSG:nonsense"), stac(epsg=1)):
        assert [check.check for check in validate(data).errors] == ["crs"]
    assert Grid.of(stac()).crs is None
    assert Grid.of(stac(epsg=np.nan)).crs is None
    # the grid mapping counts first
    assert Grid.of(stac(epsg=32633).rio.write_crs(32632)).crs.to_epsg() == 32632


def stored(result, folder):
    """Opened as everyone opens: by Zarr and netCDF of xarray's, and by ours."""
    result.to_dataset().to_zarr(folder / "plain.zarr", zarr_format=3, consolidated=False)
    result.to_netcdf(folder / "plain.nc")
    result.chunk().terramind.to_zarr(folder / "ours.zarr", progress=False)
    yield xr.open_zarr(folder / "plain.zarr", consolidated=False)[result.name]
    yield xr.open_dataset(folder / "plain.nc")[result.name]
    yield xr.open_zarr(folder / "ours.zarr")[result.name]
    yield xr.open_zarr(folder / "ours.zarr", decode_coords="all")[result.name]


def test_files_keep_place_and_coordinates_also_when_written_again(tmp_path):
    data = plain("S2L2A", boa_add_offset=0).expand_dims(time=2)
    data = data.assign_coords({"s2:tile": ("time", ["a", "b"]), "platform": "S2A"})
    result = result_of(data)
    for number, back in enumerate(stored(result, tmp_path)):
        assert back.rio.crs == data.rio.crs
        assert set(back.coords) == set(result.coords)
        assert back.dtype == np.uint8
        again = tmp_path / f"{number}.nc"
        # Texts as numpy's own: not every netCDF4 writes those of newer numpy, as older zarr reads them.
        texts = {
            name: coord.copy(data=np.array(coord.values.tolist()))
            for name, coord in back.coords.items()
            if coord.dtype.kind in "TO"
        }
        back = back.assign_coords(texts)
        back.assign_coords(note=1).isel(time=0).to_netcdf(again)
        with xr.open_dataset(again) as once_more:
            assert once_more.LULC.rio.crs == data.rio.crs
            assert set(once_more.coords) == {*result.coords, "note"}


def test_a_dataset_of_results_keeps_its_place(tmp_path):
    data = plain("S2L2A", boa_add_offset=0)
    both = xr.Dataset({name: result_of(data, name) for name in ("LULC", "NDVI")})
    both.terramind.to_zarr(tmp_path / "both.zarr", progress=False)
    back = xr.open_zarr(tmp_path / "both.zarr")
    assert back.rio.crs == back.NDVI.rio.crs == data.rio.crs
    assert list(back.data_vars) == ["LULC", "NDVI"]


SPAN = st.tuples(st.integers(0, 20), st.integers(2, 9))


@pytest.mark.slow
@given(SPAN, SPAN, st.integers(1, 3), st.booleans())
def test_the_transform_fits_a_crop_of_input_or_result(rows, columns, step, first):
    data = plain("S2L2A", 90, 90, boa_add_offset=0).rio.write_transform()
    crop = {
        dim: slice(start, start + step * size, step)
        for dim, (start, size) in {"y": rows, "x": columns}.items()
    }
    result = result_of(data.isel(crop)) if first else result_of(data).isel(crop)
    assert "GeoTransform" not in result.spatial_ref.attrs
    size = 10.0 * step
    expected = Affine(size, 0, float(result.x[0]) - size / 2, 0, -size, float(result.y[0]) + size / 2)
    assert result.rio.transform() == expected
    assert data.spatial_ref.attrs["GeoTransform"]  # the user's own is left alone


def test_gdal_reads_the_place_of_a_crop(tmp_path):
    data = plain("S2L2A", 40, 40, boa_add_offset=0).rio.write_transform()
    crop = result_of(data).isel(y=slice(10, 30), x=slice(5, 30))
    crop.rio.to_raster(tmp_path / "crop.tif")
    crop.to_netcdf(tmp_path / "crop.nc")
    expected = Affine(10, 0, 500_045, 0, -10, 4_999_905)
    for path in (tmp_path / "crop.tif", f"netcdf:{tmp_path / 'crop.nc'}:LULC"):
        with rasterio.open(path) as file:
            assert file.transform == expected
            assert file.crs.to_epsg() == 32632
    assert rioxarray.open_rasterio(tmp_path / "crop.tif").rio.transform() == expected


def test_a_single_row_keeps_what_its_coordinates_cannot_say():
    row = plain("S2L2A", 40, 40, boa_add_offset=0).rio.write_transform().isel(y=slice(7, 8), x=slice(3, 9))
    result = result_of(row)
    assert result.rio.transform() == Affine(10, 0, 500_025, 0, -10, 4_999_935)
    numbers = map(float, result.spatial_ref.attrs["GeoTransform"].split())
    assert Affine.from_gdal(*numbers) == result.rio.transform()


@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_a_single_column_has_the_rows_that_it_has(step):
    """The GeoTransform of the file is that of its own rows, not of turned or thinned ones."""
    column = plain("S2L2A", 40, 40, boa_add_offset=0).rio.write_transform().isel(x=slice(3, 4))
    column = column.isel(y=slice(None, None, step))
    transform = result_of(column).rio.transform()
    assert transform == Affine(10, 0, 500_025, 0, -10 * step, float(column.y[0]) + 5 * step)


NAMES = [
    ("lat", "lon"), ("latitude", "longitude"), ("northing", "easting"), ("Y", "X"), ("row", "col"),
    ("y", "x"),
]  # fmt: skip


@pytest.mark.parametrize("names", NAMES, ids="-".join)
@pytest.mark.parametrize("epsg", [None, 32632])
def test_rioxarray_finds_the_axes_whatever_their_names(names, epsg, tmp_path):
    y_dim, x_dim = names
    data = plain("S2L2A", boa_add_offset=0).drop_vars("spatial_ref").rename(y=y_dim, x=x_dim)
    data.encoding = {}
    geographic = y_dim.startswith("lat")
    if geographic:
        data = data.assign_coords({y_dim: 45 - 9e-5 * np.arange(6), x_dim: 10 + 1.27e-4 * np.arange(5)})
        epsg = epsg and 4326
    before = {name: dict(data[name].attrs) for name in names}
    result = result_of(data if epsg is None else data.assign_coords(epsg=epsg))
    assert {name: dict(data[name].attrs) for name in names} == before
    every = [result, *stored(result, tmp_path)]
    for each in every:
        assert (each.rio.y_dim, each.rio.x_dim) == names
        assert each.rio.transform() == result.rio.transform()
        assert (each.rio.crs and each.rio.crs.to_epsg()) == epsg
        assert each[x_dim].attrs["axis"] == "X"
    if geographic:
        assert result[y_dim].attrs["units"] == "degrees_north"
    elif epsg:
        assert result[y_dim].attrs["standard_name"] == "projection_y_coordinate"


def test_attributes_that_coordinates_have_are_kept():
    scene = terramind_xr.synthetic.scene(300)
    result = result_of(scene)
    assert result.y.attrs == scene.y.attrs
    assert result.y.attrs["long_name"] == "northing"
    assert result.spatial_ref.attrs.keys() == scene.spatial_ref.attrs.keys() - {"GeoTransform"}


def test_a_call_gives_the_place_too():
    scene = terramind_xr.synthetic.scene(300).drop_vars("spatial_ref").assign_coords(epsg=32632)
    result = scene.terramind.generate(["LULC", "NDVI"], model="demo")
    assert result.rio.crs == result.NDVI.rio.crs == "EPSG:32632"
    assert "spatial_ref" in result.LULC.encoding["coordinates"]

"""Rasters from files: bands are named by the file, or by the declared modality, which is recorded."""

from __future__ import annotations

import re

import dask.array
import numpy as np
import pytest
import rasterio
import xarray as xr

import terramind_xr
from scenes import TILES, plain, single
from terramind_xr import validate
from terramind_xr.data import find_inputs
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import modalities
from terramind_xr.io import open_rasters


@pytest.fixture
def write(tmp_path):
    """Write an array as GeoTIFF, with band descriptions where given."""

    def written(data, descriptions=None, name="file.tif"):
        path = tmp_path / name
        data.rio.to_raster(path)
        if descriptions is not None:
            with rasterio.open(path, "r+") as file:
                for number, text in enumerate(descriptions, 1):
                    file.set_band_description(number, text)
        return path

    return written


def test_a_file_without_names_gets_those_of_the_declared_modality(write):
    ds = open_rasters({"S2L2A": write(plain("S2L2A"))})
    assert ds.S2L2A.dims == ("band", "y", "x")
    assert ds.S2L2A.band.values.tolist() == list(modalities["S2L2A"].band_names)
    assert ds.S2L2A.attrs["band_names"] == "declared"
    assert ds.rio.crs.to_epsg() == 32632
    np.testing.assert_array_equal(ds.S2L2A.values, plain("S2L2A").values)
    (check,) = [check for check in validate(ds).checks if check.check == "bands"]
    assert "declared" in check.found


def test_the_files_own_names_count_in_any_order_with_strangers(write):
    order = [3, 11, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    data = plain("S2L2A").isel(band=order)
    names = [modalities["S2L2A"].bands[place].terratorch for place in order]
    scl = data[:1].assign_coords(band=["SCL"])
    path = write(xr.concat([scl, data], "band", join="outer"), ["SCL", *names])
    ds = open_rasters({"S2L2A": path})
    assert ds.S2L2A.attrs["band_names"] == "file"
    assert ds.S2L2A.band.values[:3].tolist() == ["SCL", "B04", "B12"]
    inputs, faults, _ = find_inputs(ds)
    assert faults == []
    np.testing.assert_array_equal(inputs["S2L2A"].data.values, plain("S2L2A").values)


@pytest.mark.parametrize("placeholders", [["bands"] * 12, [f"Band {i}" for i in range(1, 13)], [""] * 12])
def test_placeholders_are_no_names(write, placeholders):
    ds = open_rasters({"S2L2A": write(plain("S2L2A"), placeholders)})
    assert ds.S2L2A.attrs["band_names"] == "declared"
    assert "long_name" not in ds.S2L2A.attrs


@pytest.mark.parametrize("name", ["DEM", "LULC", "NDVI"])
def test_single_bands_have_no_band_dimension(write, name):
    ds = open_rasters({name: write(plain(name), ["whatever"])})
    assert ds[name].dims == ("y", "x")
    assert "band" not in ds.coords
    assert list(find_inputs(ds, [name])[0]) == [name]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [(3, ((12,), (3, 3), (3, 2))), ("auto", ((12,), (6,), (5,))), ({"y": 4}, ((12,), (4, 2), (5,)))],
)
def test_chunks(write, chunks, expected):
    ds = open_rasters({"S2L2A": write(plain("S2L2A"))}, chunks=chunks)
    got = ds.S2L2A.chunks
    assert got[1:] == expected[1:]
    assert sum(got[0]) == 12


def test_without_chunks_nothing_is_read_and_inputs_are_lazy(write):
    path = write(plain("S2L2A"))
    ds = open_rasters({"S2L2A": str(path)}, chunks=None)
    assert ds.S2L2A.chunks is None
    given = find_inputs(ds)[0]["S2L2A"]
    assert isinstance(given.data.data, dask.array.Array)
    np.testing.assert_array_equal(given.data.values, plain("S2L2A").values)


def test_several_files_on_one_grid(write):
    radar = plain("S1RTC", dtype="float32").assign_coords(x=plain("S1RTC").x + 1e-6)  # the last bits
    ds = open_rasters({"S2L2A": write(plain("S2L2A"), name="a.tif"), "S1RTC": write(radar, name="b.tif"),
                       "DEM": write(plain("DEM"), name="c.tif")})  # fmt: skip
    assert dict(ds.sizes) == {"band_S2L2A": 12, "band_S1RTC": 2, "y": 6, "x": 5}
    assert ds.S2L2A.dtype == "int16"
    np.testing.assert_array_equal(ds.S1RTC.values, radar.values)
    assert validate(ds).ok
    assert list(find_inputs(ds)[0]) == ["S2L2A", "S1RTC", "DEM"]


def test_files_on_other_grids_are_refused_and_the_printed_line_brings_them_together(write):
    radar = plain("S1RTC", dtype="float32")
    wide = xr.concat([radar] * 2, "x").assign_coords(x=500_005 + 5.0 * np.arange(10))
    paths = {"S2L2A": write(plain("S2L2A"), name="a.tif"), "S1RTC": write(wide, name="b.tif")}
    with pytest.raises(InputError, match=r"another grid than S2L2A") as raised:
        open_rasters(paths)
    line = re.search(r"Bring them onto one: ds = (.*)\.$", str(raised.value)).group(1)
    ds = eval(line, {"terramind_xr": terramind_xr, "paths": paths})
    assert dict(ds.sizes) == {"band_S2L2A": 12, "band_S1RTC": 2, "y": 6, "x": 5}
    assert list(find_inputs(ds)[0]) == ["S2L2A", "S1RTC"]


def test_values_come_as_stored(write):
    path = write(single("DEM").rio.write_nodata(-5))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5,), (100.0,)
    ds = open_rasters({"DEM": path})
    assert ds.DEM.dtype == "int16"
    assert find_inputs(ds)[0]["DEM"].nodata == -5
    (error,) = validate(ds).errors
    assert error.check == "scale"
    assert validate(xr.decode_cf(ds)).ok  # the remedy that it names


def test_a_file_may_hold_some_of_the_bands_if_it_names_them(write):
    few = write(plain("S2L2A").isel(band=[3, 0, 11]), ["RED", "B01", "SWIR_2"])
    ds = open_rasters({"S2L2A": few, "S1RTC": write(plain("S1RTC").isel(band=[1]), ["vh"], name="b.tif")})
    assert (ds.S2L2A.attrs["band_names"], ds.S1RTC.attrs["band_names"]) == ("file", "file")
    assert ds.S2L2A.band_S2L2A.values.tolist() == ["B04", "B01", "B12"]
    assert ds.S1RTC.band_S1RTC.values.tolist() == ["VH"]
    inputs, faults, _ = find_inputs(ds, ["S2L2A"], bands={"S2L2A": ("B12", "B04")})
    assert faults == []
    np.testing.assert_array_equal(inputs["S2L2A"].data.values, plain("S2L2A").values[[11, 3]])
    assert [str(check.variable) for check in validate(ds).errors] == ["S2L2A", "S1RTC"]
    assert "no B02" in str(validate(ds, "S2L2A").errors[0])


def test_a_single_band_is_found_by_its_name_among_others(write):
    both = xr.concat([plain("DEM") * 0, plain("DEM")], "band")
    ds = open_rasters({"DEM": write(both, ["slope", "elevation"])})
    np.testing.assert_array_equal(ds.DEM.values, plain("DEM").values.squeeze())


def faults_of(paths):
    with pytest.raises(InputError) as caught:
        open_rasters(paths)
    return caught.value.faults


def test_faulty_files_are_refused(write, tmp_path):
    (fault,) = faults_of({"S2L2A": tmp_path / "none.tif"})
    assert "none.tif" in fault
    (tmp_path / "text.tif").write_text("no raster")
    (fault,) = faults_of({"S2L2A": tmp_path / "text.tif"})
    assert "cannot be read" in fault
    (fault,) = faults_of({"S2L2A": write(plain("S2L1C"))})
    assert "13 bands without names" in fault
    (fault,) = faults_of({"S1RTC": write(plain("S1RTC").isel(band=[1]), [""])})
    assert "1 bands without names" in fault
    (fault,) = faults_of({"S1RTC": write(plain("S1RTC"), ["HH", "HV"])})
    assert "HH, HV" in fault
    assert "VV, VH" in fault
    (fault,) = faults_of({"S1RTC": write(plain("S1RTC"), ["VV", "vv"])})
    assert "one for VV;" in fault
    (fault,) = faults_of({"DEM": write(plain("S1RTC"))})
    assert "2 bands" in fault


def test_all_faulty_files_come_at_once(write, tmp_path):
    paths = {
        "S2L2A": write(plain("S2L2A"), name="a.tif"),
        "S1RTC": tmp_path / "none.tif",
        "S1GRD": write(plain("S2L1C"), name="b.tif"),
        "DEM": write(plain("DEM", 7), name="c.tif"),
        "NDVI": write(plain("NDVI").assign_coords(x=plain("NDVI").x + 5), name="d.tif"),
        "LULC": write(plain("LULC").rio.write_crs(32633), name="e.tif"),
    }
    faults = faults_of(paths)
    assert [fault.split(":")[0] for fault in faults] == ["S1RTC", "S1GRD", "DEM", "NDVI", "LULC"]
    assert "7 × 5 pixels against 6 × 5" in faults[2]
    assert "'x' differs by up to 5" in faults[3]
    assert "EPSG:32633 against EPSG:32632" in faults[4]


def test_unknown_modalities_and_no_files():
    with pytest.raises(OptionError, match="did you mean 'S2L2A'"):
        open_rasters({"S2L2": "a.tif"})
    with pytest.raises(OptionError, match="no files"):
        open_rasters({})
    for wrong in ("all", 0, -1, 1.5):
        with pytest.raises(OptionError, match="chunks"):
            open_rasters({"S2L2A": "a.tif"}, chunks=wrong)


@pytest.mark.skipif(not TILES.is_dir(), reason="the TerraMesh tiles are not here")
@pytest.mark.parametrize("tile", ["433D_629L_3_1", "637U_59R_1_3", "38D_378R_2_3"])
@pytest.mark.parametrize("folder", ["S2L2A", "S2L1C", "S2RGB", "S1RTC", "DEM", "LULC", "NDVI"])
def test_real_tiles_open_as_they_are(folder, tile):
    name = "RGB" if folder == "S2RGB" else folder
    path = TILES / folder / f"{tile}.tif"
    ds = open_rasters({name: path})
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(
            np.atleast_3d(ds[name].values.squeeze()), np.atleast_3d(file.read().squeeze())
        )
        assert ds.rio.crs == file.crs
        assert ds.rio.transform().almost_equals(file.transform, 1e-6)
    assert ds[name].attrs["band_names"] == "declared"
    assert find_inputs(ds, [name])[1] == []

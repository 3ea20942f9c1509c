"""Every fault of an input is found, by its metadata alone, and comes with its remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import dask.array
import numpy as np
import pytest
import xarray as xr

import terramind_xr
from scenes import TILES, axes, plain, single, split, unreadable
from terramind_xr import validate
from terramind_xr.data import as_dataset, check_inputs, examine, find_inputs
from terramind_xr.errors import InputError, OptionError
from terramind_xr.io import open_rasters


def s2(**attrs):
    return plain("S2L2A", **attrs)


def scene():
    """Three modalities without a fault."""
    radar = plain("S1RTC", dtype="float32", units="dB").rename(band="band_S1RTC")
    return xr.Dataset({"S2L2A": s2(boa_add_offset=0), "S1RTC": radar, "DEM": single("DEM")})


def on_grid(data, **coords):
    return data.assign_coords(coords)


def geographic(data, lat_step, lon_step, lat=45.0):
    data = data.drop_vars("spatial_ref").rename(y="lat", x="lon")
    lats, lons = lat - lat_step * np.arange(6), 10 + lon_step * np.arange(5)
    return data.assign_coords(lat=lats, lon=lons)


def labelled(labels):
    return s2().assign_coords(band=list(labels))


@dataclass
class Fault:
    """A broken input: what the error must name, and the remedy that it must give."""

    title: str
    make: Callable[[], xr.Dataset | xr.DataArray]
    variable: str
    check: str
    remedy: str
    modality: str | list[str] | None = None


FAULTS = [
    # bands
    Fault("not recognised", lambda: s2().rename("foo"), "foo", "bands", "da.rename('S2L2A')"),
    Fault("no name at all", lambda: s2().rename(None), "data", "bands", "da.rename('S2L2A')"),
    Fault("empty dataset", xr.Dataset, "dataset", "bands", "open_rasters"),
    Fault("asked for, absent", s2, "S1RTC", "bands", 'inputs={"S1RTC": "variable"}', "S1RTC"),
    Fault("numbered", lambda: labelled(range(1, 13)), "S2L2A", "bands", ".assign_coords(band=['B01', "),
    Fault("numbered file", lambda: labelled(range(1, 13)), "S2L2A", "bands", "open_rasters"),
    Fault("no labels", lambda: s2().drop_vars("band"), "S2L2A", "bands", ".assign_coords(band=['B01', "),
    Fault("placeholders", lambda: labelled(f"Band {i}" for i in range(12)), "S2L2A", "bands", "open_"),
    Fault("too few", lambda: s2().isel(band=slice(10)), "S2L2A", "bands", ".assign_coords(band=[…])"),
    Fault("others", lambda: labelled("abcdefghijkl"), "S2L2A", "bands", ".assign_coords"),
    Fault("twice", lambda: xr.concat([s2(), s2()[:1]], "band"), "S2L2A", "bands", "isel(band=[0, 1"),
    Fault("no band dimension", lambda: s2()[0], "S2L2A", "bands", '{"B01": "my_variable", …}'),
    Fault("layers of one", lambda: plain("S1GRD").rename("DEM"), "DEM", "bands", ".assign_coords(band="),
    Fault("variable missing", lambda: split(s2()).drop_vars("B05"), "B01", "bands",
          '{"B05": "my_variable"}'),
    Fault("variable twice", lambda: split(s2()).assign(red=s2()[0]), "red", "bands", '"B04": "B04"'),
    Fault("level 1C or 2A", lambda: split(plain("S2L1C")), "B10", "bands", 'inputs={"S2L2A": {"B01": "B01"'),
    Fault("GRD or RTC", lambda: split(plain("S1GRD")), "VH, VV", "bands",
          'inputs={"S1RTC": {"VV": "VV", "VH": "VH"}}'),
    Fault("asked for both", lambda: split(plain("S1GRD")), "VH, VV", "bands", "inputs={", ["S1GRD", "S1RTC"]),
    Fault("two of one", lambda: xr.Dataset({"s2_l2a": s2(), "S2-L2A": s2()}), "S2-L2A", "bands",
          '{"S2L2A": "s2'),
    # what the attributes say
    Fault("another level", lambda: s2(processing_level="Level-1C"), "S2L2A", "product", "S2L1C"),
    Fault("another product", lambda: split(plain("S1GRD", product="rtc")), "VH, VV", "product", "S1RTC",
          "S1GRD"),
    # dimensions and dtypes
    Fault("no space", lambda: s2().rename(y="u", x="v"), "S2L2A", "dimensions", "rename({'u': 'y'"),
    Fault("no space in one", lambda: split(s2()).assign(B05=("u", [1])), "B05", "dimensions", "Rename them"),
    Fault("empty axis", lambda: s2().isel(y=slice(0)), "S2L2A", "shape", ".sel(y=slice(north, south))"),
    Fault("booleans", lambda: single("DEM", dtype=bool), "DEM", "dtype", ".astype('float32')"),
    Fault("strings", lambda: single("DEM", dtype="U3"), "DEM", "dtype", ".astype('float32')"),
    Fault("objects", lambda: single("DEM", dtype=object), "DEM", "dtype", ".astype('float32')"),
    Fault("complex", lambda: plain("S1GRD", dtype="complex64"), "S1GRD", "dtype", "backscatter"),
    Fault("dates", lambda: single("DEM", dtype="datetime64[ns]"), "DEM", "dtype", ".astype('float32')"),
    Fault("16-bit colours", lambda: plain("RGB", dtype="uint16"), "RGB", "dtype", "0…255"),
    # units and packing
    Fault("unknown units", lambda: s2(units="furlong"), "S2L2A", "units", "units = 'DN'"),
    Fault("of another quantity", lambda: single("DEM", units="dB"), "DEM", "units", "units = 'm'"),
    Fault("units by band", lambda: plain("S1GRD", units=("dB", "1")), "S1GRD", "units", "units = 'dB'"),
    Fault("units differ", lambda: split(s2()).assign(B03=split(s2(units="%")).B03), "B03", "units",
          "Convert"),
    Fault("nodata differs", lambda: split(s2()).assign(B03=split(s2(nodata=5)).B03), "B03", "metadata",
          "correct"),
    Fault("packed", lambda: single("DEM", scale_factor=0.1), "DEM", "scale", "xr.decode_cf(ds)"),
    Fault("shifted", lambda: single("DEM", add_offset=-100.0), "DEM", "scale", "mask_and_scale=True"),
    Fault("packed floats", lambda: s2(scale_factor=1e-4).astype(float), "S2L2A", "scale",
          "delete the attributes"),
    Fault("unpacked, called DN", lambda: xr.decode_cf(s2(scale_factor=1e-4, units="DN").to_dataset()),
          "S2L2A",
          "scale", 'ds["S2L2A"].attrs["units"] = "1"'),
    Fault("unpacked, counts",
          lambda: xr.decode_cf(split(s2(scale_factor=1e-4, units="digital_counts"))),
          "S2L2A", "scale", '"B12"]: ds[name].attrs["units"] = "1"'),
    # offset
    Fault("contradiction", lambda: s2(boa_add_offset=-1000, boa_offset_applied=True), "S2L2A", "offset",
          "offset=0"),
    Fault("strange offset", lambda: s2(BOA_ADD_OFFSET=-500), "S2L2A", "offset", "offset=1000"),
    # grid
    Fault("20 m", lambda: plain("S2L2A", step=20.0), "S2L2A", "resolution", "ds.terramind.align()"),
    Fault("square degrees", lambda: geographic(s2(), 9e-5, 9e-5), "S2L2A", "resolution", "terramind.align()"),
    Fault("web mercator", lambda: s2().rio.write_crs(3857), "S2L2A", "resolution", "ds.terramind.align()"),
    Fault("a row is missing", lambda: s2().isel(y=[0, 1, 3, 4]), "S2L2A", "resolution", "regular grid"),
    Fault("NaN in x", lambda: on_grid(s2(), x=[0, 1, np.nan, 3, 4]), "S2L2A", "resolution", "notnull()"),
    Fault("broken CRS", lambda: s2().drop_vars("spatial_ref").assign_attrs(crs="EPSG:nonsense"), "S2L2A",
          "crs",
          "write_crs"),
    Fault("variables shifted", lambda: split(s2()).assign(B05=split(s2().rename(y="lat", x="lon")).B05),
          "B05", "grid",
          "ds.terramind.align()"),
    Fault("bands at 20 m", lambda: split(s2()).assign(B05=split(plain("S2L2A", 3, 3)).B05.rename(
        y="northing", x="easting")), "B05", "grid", "ds.terramind.align()"),
    Fault("modalities apart", lambda: scene().assign(DEM=single("DEM", 7).rename(y="lat", x="lon")), "DEM",
          "alignment", "ds.terramind.align()"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.title.replace(" ", "-"))
def test_a_fault_is_refused_with_its_variable_and_remedy(fault):
    report = validate(fault.make(), fault.modality)
    (check,) = [check for check in report.errors if check.check == fault.check]
    assert fault.variable in check.variable
    assert fault.remedy in check.remedy
    assert check.found
    assert check.expected
    with pytest.raises(InputError) as caught:
        report.raise_for_errors()
    assert caught.value.faults == tuple(map(str, report.errors))
    assert any(fault.variable in each and fault.remedy in each for each in caught.value.faults)
    # what a call sees is what validate says
    report = examine(as_dataset(fault.make()), fault.modality).report
    assert any(fault.remedy in str(each) for each in report.errors)


def test_the_same_scene_without_the_faults_is_right():
    report = validate(scene())
    assert report.ok
    assert report.warnings == ()
    report.raise_for_errors()
    for name in ("S2L2A", "S2L1C"):
        assert validate(plain(name)).ok
        assert validate(split(plain(name)), name).ok


def test_all_faults_come_at_once():
    ds = split(plain("S1GRD")).assign_coords(axes(step=20.0))
    optical = s2(units="K", boa_add_offset=-1000, boa_offset_applied=True).isel(band=slice(11))
    ds["S2L2A"] = optical.drop_vars(["y", "x"])
    ds["DEM"] = single("DEM", units="dB", scale_factor=2.0).astype("complex64").drop_vars(["y", "x"])
    with pytest.raises(InputError) as caught:
        validate(ds).raise_for_errors()
    expected = {
        "no B12": 1, "'K'": 1, "contradicting": 1, "S1GRD or S1RTC": 1, "complex64": 1, "'dB'": 1,
        "scale_factor 2": 1, "20.01 × 20.01 m": 2,
    }  # fmt: skip
    for part, times in expected.items():
        assert sum(part in fault for fault in caught.value.faults) == times, part
        assert part in str(caught.value)
    assert len(caught.value.faults) == sum(expected.values())


def test_all_faults_of_bands_in_variables_of_their_own_come_at_once():
    ds = split(s2(units="K")).drop_vars("B12")
    ds["blue"], ds["B03"] = ds.B02, ds.B03.assign_attrs(units="percent")
    ds["B05"], ds["B06"] = ds.B05.rename(x="lon", y="lat"), ds.B06.rename(x="u", y="v").drop_vars(["u", "v"])
    errors = validate(ds).errors
    assert {(check.variable, check.check) for check in errors} == {
        ("B01, B02, B03, B04, B05, B06, B07, B08, B09, B11, B8A", "bands"), ("B02, blue", "bands"),
        ("B05", "grid"), ("B06", "dimensions"), ("B03", "units"), ("S2L2A", "units"),
    }  # fmt: skip


def units_row(obj, modality=None):
    (check,) = [check for check in validate(obj, modality).checks if check.check == "units"]
    return check.status, check.remedy


def test_floats_without_units_are_warned_of_with_the_line_that_says_what_they_are():
    for dtype in ("float32", "float64"):
        status, remedy = units_row(plain("S2L2A", dtype=dtype))
        assert (status, remedy.endswith('ds["S2L2A"].attrs["units"] = "DN"')) == ("warning", True)
        status, remedy = units_row(split(plain("S1RTC", dtype=dtype)), "S1RTC")
        assert status == "warning"
        assert remedy.endswith('for name in ["VV", "VH"]: ds[name].attrs["units"] = "dB"')
        assert units_row(plain("S1RTC", dtype=dtype, units="DB"))[0] == "ok"
        assert units_row(single("NDVI", dtype=dtype))[0] == "warning"
        assert units_row(single("LULC", dtype=dtype))[0] == "ok"  # codes have no unit to say
    assert units_row(plain("S2L2A", dtype="int16"))[0] == "ok"
    assert units_row(single("DEM", dtype="int32"))[0] == "ok"


def test_the_same_units_written_in_several_ways_are_the_same():
    ds = split(s2(units="DN"))
    for name, text in {
        "B02": "dn",
        "B03": "digital_counts",
        "B04": "Digital Number",
        "B05": "0.0001",
    }.items():
        ds[name].attrs["units"] = text
    assert units_row(ds)[0] == "ok"
    assert units_row(plain("S1GRD", units=("dB", "decibels")))[0] == "ok"
    assert units_row(single("DEM", units="Metres"))[0] == "ok"


@pytest.mark.parametrize("kind", ["dask", "lazy"])
@pytest.mark.parametrize("layout", ["layers", "variables"])
def test_no_pixel_is_read(kind, layout):
    data = s2(boa_add_offset=-1000, units="DN", _FillValue=0, nodata=0)
    ds = data.to_dataset() if layout == "layers" else split(data)
    assert validate(ds.map(unreadable, kind=kind, keep_attrs=True)).ok


def test_a_scene_of_any_size_is_checked_at_once():
    # 10¹⁰ pixels that nobody could read
    side = 100_000
    values = dask.array.zeros((12, side, side), "int16", chunks=10_000)
    coords = {"band": s2().band.values, **axes(side, side)}
    data = xr.DataArray(values, dims=("band", "y", "x"), coords=coords, name="S2L2A")
    assert validate(data.rio.write_crs(32632)).ok


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_a_single_pixel_or_row_has_no_resolution_to_measure(size):
    report = validate(plain("S2L2A", *size, boa_add_offset=0))
    assert report.ok
    assert [check.check for check in report.warnings] == ["resolution"]


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: plain("S2L2A", step=10.05), "ok"),
        (lambda: plain("S2L2A", step=10.3), "warning"),
        (lambda: plain("S2L2A", step=10.6), "error"),
        (lambda: s2().isel(y=slice(None, None, -1)), "ok"),
        (lambda: s2().drop_vars(["y", "x"]), "warning"),
        (lambda: s2().drop_vars("spatial_ref"), "ok"),
        # 10 m in degrees at 45° north: 111.13 km and 78.85 km a degree (WGS 84)
        (lambda: geographic(s2(), 10 / 111_132, 10 / 78_847), "ok"),
        (lambda: geographic(s2(), 10 / 111_132, 10 / 78_847).rio.write_crs(4326), "ok"),
        (lambda: geographic(s2(), 10 / 110_575, 10 / 111_320, lat=0.01), "ok"),
        # feet on the ground; float32 coordinates, which cannot hold a northing to the metre
        (lambda: on_grid(s2(), x=2e6 + np.arange(5) / 0.3048 * 10, y=7e5 - np.arange(6) / 0.3048 * 10)
         .rio.write_crs(2263), "ok"),
        (lambda: on_grid(plain("S2L2A", 99), y=(9_625_093.2 - 9.97 * np.arange(99)).astype("float32"))
         .rio.write_crs(32736), "ok"),
    ],
)  # fmt: skip
def test_resolution_is_measured_in_metres_on_the_ground(make, status):
    (check,) = [check for check in validate(make()).checks if check.check == "resolution"]
    assert check.status == status, check


def test_what_cannot_be_measured_is_not_reported_as_resolution():
    assert "holds NaN" in validate(on_grid(s2(), x=[0, 1, np.nan, 3, 4])).errors[0].found
    assert all(check.check != "resolution" for check in validate(s2().isel(y=slice(0))).checks)


def test_missing_crs_is_a_warning_with_the_call():
    report = validate(s2(boa_add_offset=0).drop_vars("spatial_ref"))
    assert report.ok
    assert [(check.check, "write_crs" in check.remedy) for check in report.warnings] == [("crs", True)]


def test_one_grid_up_to_the_last_bits():
    apart = plain("S1RTC").rename(y="lat", x="lon", band="pol")
    near = xr.Dataset({"S2L2A": s2(), "S1RTC": plain("S1RTC").rename(band="pol")})
    assert validate(near).ok
    assert not validate(xr.Dataset({"S2L2A": s2(), "S1RTC": apart})).ok
    inputs = find_inputs(near).inputs
    for shift, right in ((1e-6, True), (5.0, False)):
        moved = find_inputs(near.assign_coords(x=near.x + shift))[0]["S1RTC"]
        report, _ = check_inputs({**inputs, "S1RTC": moved})
        assert report.ok == right
    elsewhere = find_inputs(near.rio.write_crs(32633))[0]["S1RTC"]
    assert "CRS" in str(check_inputs({**inputs, "S1RTC": elsewhere})[0].errors[0])


def offset_of(obj, offset="auto", name="S2L2A"):
    report, offsets = check_inputs(find_inputs(as_dataset(obj))[0], offset)
    (check,) = [check for check in report.checks if check.check == "offset"]
    return offsets[name], check


@pytest.mark.parametrize(
    ("attrs", "expected", "status"),
    [
        ({}, 0, "warning"),
        ({"boa_add_offset": -1000}, 1000, "ok"),
        ({"BOA_ADD_OFFSET": [-1000] * 12}, 1000, "ok"),
        ({"RADIO_ADD_OFFSET": "-1000"}, 1000, "ok"),
        ({"boa_add_offset": {"B01": -1000, "B02": -1000}}, 1000, "ok"),
        ({"radio_add_offset": 0}, 0, "ok"),
        ({"boa_offset_applied": True}, 0, "ok"),
        ({"earthsearch:boa_offset_applied": "true"}, 0, "ok"),
        ({"boa_offset_applied": False}, 0, "warning"),
        ({"processing_baseline": "05.09"}, 1000, "warning"),
        ({"s2:processing_baseline": 4.0}, 1000, "warning"),
        ({"processing_baseline": "03.01"}, 0, "ok"),
        ({"boa_offset_applied": False, "processing_baseline": "04.00"}, 1000, "warning"),
        ({"boa_offset_applied": True, "processing_baseline": "04.00"}, 0, "ok"),
        ({"boa_add_offset": -1000, "boa_offset_applied": True}, None, "error"),
        ({"boa_add_offset": [-1000, 0]}, None, "error"),
        ({"scale_factor": 1e-4, "add_offset": -0.1}, 1000, "ok"),
        ({"scale_factor": np.float32(1e-4), "add_offset": np.float32(-0.1)}, 1000, "ok"),
        ({"scale_factor": 1e-4, "add_offset": 0.0}, 0, "warning"),
        ({"scale_factor": 1.0, "add_offset": 0.0}, 0, "warning"),
        ({"scale_factor": 1e-4, "add_offset": -0.1, "boa_offset_applied": 1}, None, "error"),
    ],
)
@pytest.mark.parametrize("where", ["variable", "dataset"])
def test_the_offset_as_metadata_tell_it(attrs, expected, status, where):
    packing = {key: attrs[key] for key in ("scale_factor", "add_offset") if key in attrs}
    own, shared = (attrs, {}) if where == "variable" else (packing, attrs)
    ds = s2().assign_attrs(own).to_dataset().assign_attrs(shared)
    value, check = offset_of(ds)
    assert check.status == status, check
    assert expected is None or value == expected
    if status == "warning":
        assert "terramind_xr.validate" in check.remedy
        assert "offset=1000" in check.remedy
    # a variable for each band is told the same
    assert offset_of(split(ds.S2L2A).assign_attrs(ds.attrs))[1].status == status


def test_the_offset_was_removed_where_packing_was_applied():
    read = xr.decode_cf(s2(scale_factor=1e-4, add_offset=-0.1).to_dataset())
    value, check = offset_of(read)
    assert (value, check.status) == (0, "ok")
    assert "applied when read" in check.found


def test_each_date_of_a_series_is_judged_by_its_own_metadata():
    series = s2().expand_dims(time=2)
    mixed = series.assign_coords({"s2:processing_baseline": ("time", ["03.00", "05.09"])})
    value, check = offset_of(mixed)
    assert (value.values.tolist(), check.status) == ([0, 1000], "warning")
    assert "in 1 of 2 dates" in check.found
    newer = series.assign_coords({"s2:processing_baseline": ("time", ["04.00", "05.09"])})
    assert offset_of(newer)[0] == 1000
    mixed = series.assign_coords(boa_add_offset=("time", [0, -1000]))
    value, check = offset_of(mixed.chunk())  # which makes the metadata lazy, too
    assert (value.values.tolist(), check.status) == ([0, 1000], "ok")
    assert offset_of(mixed.isel(time=1))[0] == 1000
    both = mixed.assign_coords(boa_offset_applied=("time", [True, True]))
    assert offset_of(both)[1].status == "error"


@pytest.mark.parametrize(
    ("attrs", "offset", "status"),
    [
        ({}, 0, "ok"),
        ({}, 1000, "ok"),
        ({}, np.float32(1000), "ok"),
        ({"processing_baseline": "05.09"}, 0, "ok"),
        ({"boa_add_offset": -1000}, 1000, "ok"),
        ({"boa_add_offset": -1000}, 0, "error"),
        ({"boa_offset_applied": True}, 1000, "error"),
        ({"boa_add_offset": -1000, "boa_offset_applied": True}, 0, "ok"),
    ],
)
def test_a_given_offset_decides_but_not_against_metadata(attrs, offset, status):
    value, check = offset_of(s2(**attrs), offset)
    assert check.status == status
    assert status == "error" or value == offset


@pytest.mark.parametrize("wrong", ["inferred", "none", 500, -1000, True, False, float("nan")])
def test_other_offsets_are_refused(wrong):
    with pytest.raises(OptionError, match="offset"):
        check_inputs(find_inputs(s2().to_dataset())[0], wrong)


def test_only_sentinel_2_has_an_offset():
    _, offsets = check_inputs(find_inputs(scene())[0])
    assert offsets == {"S2L2A": 0.0}


def test_the_report_as_text_html_and_dictionary():
    report = validate(s2(units="<K> & co"))
    lines = repr(report).splitlines()
    assert lines[0] == "Report: 1 error, 1 warning"
    assert lines[1].split()[:3] == ["error", "S2L2A", "units.unknown"]
    assert lines[3].split()[:3] == ["warning", "S2L2A", "offset.silent"]
    assert repr(report).count("→") == 2
    html = report._repr_html_()
    assert "&lt;K&gt; &amp; co" in html
    assert "<K>" not in html
    assert html.index(">error<") < html.index(">warning<") < html.index(">ok<")
    flat = json.loads(json.dumps(report.to_dict()))
    assert flat["ok"] is False
    assert {check["status"] for check in flat["checks"]} == {"ok", "warning", "error"}
    order = [check["status"] for check in flat["checks"]]
    assert order == sorted(order, key=["error", "warning", "ok"].index)
    assert set(flat["checks"][0]) == {"variable", "kind", "status", "found", "expected", "remedy"}


def test_validate_finds_all_that_the_object_holds():
    ds = scene().assign(LULC=single("LULC", dtype="uint8"), NDVI=single("NDVI", dtype="float32"))
    report = validate(ds)
    assert {check.variable for check in report.checks} == {"S2L2A", "S1RTC", "DEM", "LULC", "NDVI"}
    assert {check.variable for check in validate(ds, ["DEM"]).checks} == {"DEM"}
    assert validate(ds.NDVI).ok
    assert validate(s2().rename("band_data"), "S2L2A").ok


def test_what_is_not_xarray_or_unknown_is_raised():
    with pytest.raises(InputError, match="open_rasters"):
        validate(np.zeros((12, 4, 4)))
    with pytest.raises(OptionError, match="did you mean 'S2L2A'"):
        validate(s2(), "s2-l2a")


@pytest.mark.skipif(not TILES.is_dir(), reason="the TerraMesh tiles are not here")
@pytest.mark.parametrize("tile", ["433D_629L_3_1", "637U_59R_1_3", "38D_378R_2_3"])
def test_real_tiles_are_right_but_for_the_offset(tile):
    folders = {"RGB": "S2RGB"} | {name: name for name in ("S2L2A", "S2L1C", "S1RTC", "DEM", "LULC", "NDVI")}
    report = validate(
        open_rasters({name: TILES / folder / f"{tile}.tif" for name, folder in folders.items()})
    )
    assert report.ok, report
    assert {(check.variable, check.check) for check in report.warnings} == {
        ("S2L2A", "offset"), ("S2L1C", "offset"), ("S1RTC", "units"), ("NDVI", "units"),
    }  # fmt: skip
    assert {check.found for check in report.checks if check.check == "resolution"} <= {
        "10 × 10 m",
        "9.998 × 9.998 m",
    }


@pytest.mark.parametrize(
    "value", [["-1000"], {"B01": ["-1000"]}, b"-1000", np.array([-1000]), np.str_("-1000")]
)
def test_numbers_in_metadata_are_read_alike_everywhere(value):
    """The same reader for offsets, packing and no data: as text, or the first of several."""
    assert offset_of(s2(boa_add_offset=value))[0] == 1000
    if not isinstance(value, dict):
        assert find_inputs(as_dataset(s2(nodata=value))).inputs["S2L2A"].nodata == -1000


def test_a_truth_value_is_no_number():
    value, check = offset_of(s2(boa_add_offset=True))
    assert (value, check.status, check.found) == (0, "warning", "0 assumed: metadata are silent")
    assert offset_of(s2(processing_baseline=True))[1].status == "warning"


@pytest.fixture(scope="module")
def tokens():
    ds = terramind_xr.synthetic.scene((100, 60), modalities=("DEM", "NDVI"))
    return xr.Dataset({f"{name}_tokens": ds.terramind.tokenize(name, model="demo") for name in ds})


def test_tokens_are_known_and_checked(tokens):
    report = validate(tokens.DEM_tokens)
    assert report.ok
    assert not report.warnings
    rows = {check.check: check for check in report.checks}
    assert list(rows) == ["tokens", "dtype", "vocabulary", "shape", "crs", "resolution"]
    assert {check.variable for check in report.checks} == {"DEM_tokens"}
    assert rows["tokens"].found == "tokens of DEM, no pixels"
    assert "detokenize(tokens)" in rows["tokens"].remedy
    assert "inputs={'DEM': tokens}" in rows["tokens"].remedy
    assert rows["vocabulary"].found.startswith("1600 tokens (")
    assert rows["shape"].found == "7 × 4 patches of 100 × 60 pixels"
    assert rows["resolution"].found == "160 × 160 m"
    assert "cut out of" in str(validate(tokens.DEM_tokens[2:]).checks[3])


def test_tokens_beside_pixels_and_of_several_modalities(tokens):
    assert {check.variable for check in validate(tokens).checks} == {"DEM_tokens", "NDVI_tokens"}
    assert {check.variable for check in validate(tokens, "NDVI").checks} == {"NDVI_tokens"}
    both = tokens.rename(y="patch_row", x="patch_column").assign(DEM=single("DEM", units="m"))
    assert {check.variable for check in validate(both, "DEM").checks} == {"DEM_tokens", "DEM"}
    (error,) = validate(tokens.DEM_tokens.to_dataset(name="a"), "S2L2A").errors
    assert "S2L2A" in str(error)


@pytest.mark.parametrize(
    ("change", "check", "status"),
    [
        (lambda t: t.astype(float), "dtype", "error"),
        (lambda t: t.assign_attrs(terramind_tokens="RGB"), "tokens", "error"),
        (lambda t: t.assign_attrs(vocabulary_size=7), "vocabulary", "error"),
        (lambda t: t.expand_dims(band=3), "shape", "error"),
        (lambda t: t.isel(y=[0, 1, 3]), "resolution", "error"),
        (lambda t: t.assign_coords(x=t.x / 16, y=t.y / 16), "resolution", "error"),
        (lambda t: t.drop_attrs().assign_attrs(terramind_tokens="DEM"), "vocabulary", "warning"),
        (lambda t: t.drop_attrs().assign_attrs(terramind_tokens="DEM"), "shape", "warning"),
        (lambda t: t.drop_vars(["y", "x", "spatial_ref"]), "resolution", "warning"),
        (lambda t: t.drop_vars("spatial_ref"), "crs", "warning"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_tokens_is_a_row(tokens, change, check, status):
    report = validate(change(tokens.DEM_tokens))
    assert check in {each.check for each in (report.errors if status == "error" else report.warnings)}
    assert report.ok == (status == "warning")
    if status == "error":
        with pytest.raises(terramind_xr.TerramindError):
            terramind_xr.detokenize(change(tokens.DEM_tokens), model="demo")

"""A sample of the pixels: where it lies, what it reads, and what it settles."""

from __future__ import annotations

import functools
import re

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from scenes import TILES, axes, split
from terramind_xr.data.darkness import shown_by
from terramind_xr.data.sampling import SIDE, starts
from terramind_xr.errors import InputError
from terramind_xr.facts import modalities
from terramind_xr.synthetic import window

WORLD = {
    name: window(7, 2000, 2000, 128, 128, (name,))[name]
    for name in ("S2L2A", "S2L1C", "S1RTC", "DEM", "NDVI")
}


def made(name, change=lambda values: values, **attrs):
    """A land scene of a modality, changed."""
    values = WORLD[name]
    modality = modalities[name]
    data = xr.DataArray(
        change(values if values.ndim == 3 else values[None]),
        dims=("band", "y", "x"),
        coords={"band": list(modality.band_names), **axes(128, 128)},
        name=name,
        attrs={"units": modality.units} | attrs,
    )
    return data.rio.write_crs("EPSG:32632")


def rows(data):
    """Rows on numbers, by kind."""
    report = terramind_xr.validate(data, sample=True)
    return {
        check.kind: check
        for check in report.checks
        if check.status != "ok" and check.kind.startswith(("sample.", "values.", "offset."))
    }


def run(check, data):
    """The scene after the remedy's code was run as printed."""
    ds = data.to_dataset() if isinstance(data, xr.DataArray) else data
    code = re.search(r"(?:: )((?:ds|for|\[ds).*)", check.remedy)[1]
    code = re.split(r' \((?:and|"amplitude")', code)[0]  # what is said beside it
    scope = {"ds": ds.copy(deep=True), "xr": xr}
    exec(code, scope)
    return scope["ds"]


@given(st.integers(1, 200_000))
def test_windows_lie_within_and_on_multiples_of_their_side(size):
    places = starts(size)
    assert 1 <= len(places) <= 4
    assert all(0 <= place <= max(0, size - SIDE) for place in places)
    assert size < 4 * SIDE or all(place % SIDE == 0 for place in places)
    assert len(set(places)) == len(places)


class Counting:
    """A scene of any size whose reads are counted, pixel by pixel."""

    dtype = np.dtype("uint16")

    def __init__(self, shape):
        self.shape, self.ndim, self.reads = shape, len(shape), []

    def __getitem__(self, index):
        shape = tuple(len(range(size)[at]) for size, at in zip(self.shape, index, strict=True))
        self.reads.append(shape[-2:])
        return np.full(shape, 300, self.dtype)


def test_a_large_scene_is_read_at_sixteen_places_only():
    source = Counting((12, 100_000, 100_000))
    lazy = da.from_array(source, chunks=(-1, 1024, 1024), meta=np.empty((0, 0, 0), "uint16"))
    coords = {"band": list(modalities["S2L2A"].band_names), **axes(100_000, 100_000)}
    data = xr.DataArray(lazy, dims=("band", "y", "x"), coords=coords, name="S2L2A")
    terramind_xr.validate(data)
    assert source.reads == []
    terramind_xr.validate(data, sample=True)
    assert len(source.reads) <= 16
    assert sum(height * width for height, width in source.reads) <= 16 * 1024**2


@functools.cache
def _report_of_the_whole():
    return repr(terramind_xr.validate(made("S2L2A"), sample=True))


@settings(max_examples=examples(8))
@given(st.integers(31, 128), st.integers(31, 128), st.booleans())
def test_chunks_and_orientation_change_nothing(height, width, backwards):
    whole = made("S2L2A")
    other = whole.chunk(y=height, x=width)
    if backwards:
        other = other.isel(y=slice(None, None, -1))
    assert repr(terramind_xr.validate(other, sample=True)) == _report_of_the_whole()


def test_another_date_changes_nothing_in_the_first():
    one = made("S2L2A").expand_dims(time=[0])
    two = xr.concat(
        [one, made("S2L2A", lambda values: values + np.uint16(1000)).expand_dims(time=[1])], "time"
    )
    result = two.terramind.generate("LULC", model="demo", offset="infer")
    assert result.attrs["terramind_offset"] == "S2L2A: 0 1000"
    assert result.isel(time=0).equals(result.isel(time=1).assign_coords(time=0))


def test_a_call_that_infers_says_so_and_does_not_depend_on_metadata():
    silent = made("S2L2A", lambda values: values + np.uint16(1000))
    inferred = silent.terramind.generate("LULC", model="demo", offset="infer")
    assert inferred.attrs["terramind_offset"] == "S2L2A: 1000"
    assert inferred.attrs["terramind_offset_from"] == "sampled pixels"
    said = silent.terramind.generate("LULC", model="demo", offset=1000)
    assert "terramind_offset_from" not in said.attrs
    assert inferred.equals(said)
    for lazy in (silent.chunk(y=32, x=50), silent.chunk()):
        attrs = lazy.terramind.generate("LULC", model="demo", offset="infer").attrs
        assert attrs["terramind_offset"] == "S2L2A: 1000"


def test_what_pixels_do_not_tell_is_an_error_where_metadata_are_silent_too():
    clouds = made("S2L2A", lambda values: values // 2 + np.uint16(6000))
    with pytest.raises(InputError, match="clouds, snow") as caught:
        clouds.terramind.generate("LULC", model="demo", offset="infer")
    assert caught.value.kinds == ("offset.undecided",)
    assert {*rows(clouds)} >= {"offset.undecided"}
    known = clouds.assign_attrs(boa_add_offset=-1000)
    lulc = known.terramind.generate("LULC", model="demo", offset="infer")
    assert lulc.attrs["terramind_offset"] == "S2L2A: 1000"
    with pytest.raises(InputError, match="too few"):
        made("S2L2A", lambda values: values * (np.arange(128) < 1)).terramind.generate(
            "LULC", model="demo", offset="infer"
        )


@pytest.mark.parametrize("name", ["S2L2A", "S2L1C"])
@pytest.mark.parametrize(("said", "added"), [(-1000, 0), (0, 1000)])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("where", ["attrs", "dataset", "coords"])
def test_pixels_against_metadata_are_an_error_and_the_line_repairs_it(name, said, added, several, where):
    data = made(name, lambda values: values + np.uint16(added))
    ds = split(data).assign_attrs(product_type=f"S2MSI{name[3:]}") if several else data.to_dataset()
    if where == "coords":
        ds = ds.assign_coords(boa_add_offset=said)
    elif where == "dataset":
        ds = ds.assign_attrs(BOA_ADD_OFFSET=said)
    else:
        for band in ds.data_vars:
            ds[band].attrs["boa_add_offset"] = said
    found = rows(ds)
    assert {*found} == {"offset.contradiction"}
    assert found["offset.contradiction"].status == "error"
    with pytest.raises(InputError, match="offset.contradiction"):
        ds.terramind.plan("LULC", model="demo", offset="infer")
    assert rows(run(found["offset.contradiction"], ds)) == {}


def test_silent_metadata_are_completed_by_the_line():
    data = made("S2L2A", lambda values: values + np.uint16(1000))
    found = rows(data)
    assert {kind: check.status for kind, check in found.items()} == {"offset.pixels": "warning"}
    assert rows(run(found["offset.pixels"], data)) == {}
    assert rows(made("S2L2A")) == {}  # the pixels confirm what is assumed
    removed = made("S2L2A", processing_baseline="05.09")
    assert {*rows(removed)} == {"offset.pixels"}


def test_a_night_is_no_contradiction():
    night = made("S2L2A", lambda values: values % 200 + np.uint16(100), boa_add_offset=-1000)
    assert "offset.contradiction" not in rows(night)
    lulc = night.terramind.generate("LULC", model="demo")
    assert lulc.shape == (128, 128)
    removed = made("S2L2A", lambda values: values % 200 - 900.0, boa_add_offset=0)
    assert removed.terramind.generate("LULC", model="demo").shape == (128, 128)


@pytest.mark.parametrize(
    "attrs",
    [
        {"PROCESSING_BASELINE": "05.09"},
        {"processing_baseline": "N0509"},
        {"s2:product_uri": "S2A_MSIL2A_20230625T111121_N0509_R137_T30UXC_20230625T170801.SAFE"},
        {"title": "S2A_MSIL2A_20230625T111121_N0509_R137_T30UXC_20230625T170801"},
        {"DATATAKE_IDENTIFIER": "GS2A_20230625T111121_041814_N05.09"},
    ],
)
@pytest.mark.parametrize("where", ["attrs", "dataset", "coords"])
def test_the_baseline_in_every_spelling(attrs, where):
    data = made("S2L2A", lambda values: values + np.uint16(1000))
    ds = data.to_dataset()
    if where == "attrs":
        ds["S2L2A"] = data.assign_attrs(attrs)
    elif where == "dataset":
        ds = ds.assign_attrs(attrs)
    else:
        series = {key: ("time", [value, value.replace("05.09", "02.12").replace("0509", "0212")])
                  for key, value in attrs.items()}  # fmt: skip
        ds = ds.expand_dims(time=2).assign_coords(series)
    report = terramind_xr.validate(ds)
    (check,) = (check for check in report.checks if check.check == "offset")
    assert check.kind == "offset.baseline"
    assert "05.09" in check.found
    assert (where == "coords") == ("1 of 2 dates" in check.found)


CAUSES = {
    "÷ 10,000": ("S2L2A", lambda v: v * 1e-4, {}, "values.reflectance"),
    "percent": ("S2L2A", lambda v: v * 1e-2, {}, "sample.scale"),
    "÷ 10": ("S2L2A", lambda v: v * 0.1, {}, "sample.scale"),
    "power": ("S1RTC", lambda v: 10 ** (v / 10), {}, "values.power"),
    "called linear": ("S1RTC", lambda v: v, {"units": "1"}, "sample.units"),
}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("several", [False, True])
def test_a_scale_is_named_and_the_line_repairs_it(cause, several):
    name, change, attrs, kind = CAUSES[cause]
    data = made(name, change, **attrs | ({"boa_add_offset": 0} if name == "S2L2A" else {}))
    ds = split(data) if several else data.to_dataset()
    if several and name == "S1RTC":
        ds.attrs["product_type"] = "RTC"
    found = rows(ds)
    assert {*found} == {kind}
    assert rows(run(found[kind], ds)) == {}


@pytest.mark.parametrize(("first", "second"), [("B03", "B11"), ("B04", "B08"), ("B08", "B12")])
def test_exchanged_bands_are_named(first, second):
    ds = split(made("S2L2A", boa_add_offset=0))
    ds = ds.rename({first: second, second: first})
    found = rows(ds)
    assert {*found} == {"sample.bands"}
    assert f"{first} and {second} look exchanged" in found["sample.bands"].found
    assert rows(run(found["sample.bands"], ds)) == {}


def test_what_else_is_named():
    assert "VV and VH" in rows(made("S1RTC", lambda v: v[::-1]))["sample.bands"].found
    assert "× 100" in rows(made("S1RTC", lambda v: v * 100))["sample.scale"].found
    assert {*rows(made("DEM", lambda v: v * 0 + np.float32(8500)))} == {"sample.distance"}
    assert {*rows(made("DEM", lambda v: v * np.float32(np.nan)))} == {"sample.few"}
    cirrus = made("S2L1C", radio_add_offset=0)
    names = {"B10": "B12", "B12": "B10"}
    swapped = cirrus.assign_coords(band=[names.get(str(band), str(band)) for band in cirrus.band.values])
    assert "B10 and B12" in rows(swapped)["sample.bands"].found


@pytest.mark.parametrize("name", WORLD)
def test_a_sound_scene_is_not_accused(name):
    report = terramind_xr.validate(made(name), sample=True)
    (check,) = (check for check in report.checks if check.kind == "sample")
    assert "standard deviations of training" in check.found


@pytest.mark.parametrize("name", ["S2L2A", "DEM"])
@pytest.mark.parametrize("share", [0, 1, 2, 3, 4])
def test_the_share_of_pixels_that_hold_data_is_a_row(name, share):
    """128 pixels a side are sampled whole; the report comes with it whatever else is found."""
    nodata = np.nan if name == "DEM" else 0
    data = made(name, lambda values: np.where(np.arange(128) < 32 * share, values, nodata))
    report = terramind_xr.validate(data, sample=True)
    (check,) = (check for check in report.checks if check.kind == "validity")
    assert check.found == f"{share / 4:.1%} of 16384 sampled pixels hold data"


@pytest.mark.parametrize(("value", "seen"), [(0, 0.0), (1000, 1000.0), (5000, None)])
def test_a_few_odd_pixels_decide_nothing(value, seen):
    numbers = WORLD["S2L2A"].reshape(12, -1).astype("f4") + value
    numbers[:, :20] = -50
    assert shown_by(numbers).value == seen


@pytest.mark.skipif(not TILES.is_dir(), reason="the TerraMesh tiles are not here")
@pytest.mark.parametrize(
    ("tile", "offset"), [("433D_629L_3_1", 1000), ("637U_59R_1_3", 0), ("38D_378R_2_3", 0)]
)
@pytest.mark.parametrize("name", ["S2L1C", "S2L2A"])
def test_real_tiles_show_their_offset_and_are_not_accused(tile, offset, name):
    ds = terramind_xr.open_rasters({name: TILES / name / f"{tile}.tif"})
    _, offsets = inferred(ds)
    assert offsets == {name: offset}
    assert {*rows(ds)} <= {"offset.pixels"}


def inferred(ds):
    from terramind_xr.data import check_inputs, find_inputs

    return check_inputs(find_inputs(ds).inputs, "infer")

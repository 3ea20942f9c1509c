"""Bands are found by name in every layout, and what is ambiguous is refused with the call that settles it."""

from __future__ import annotations

import re

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from scenes import plain, single, split, unreadable
from terramind_xr.data import as_dataset, find_inputs, lookup
from terramind_xr.data.labels import band_of
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import modalities

LAYERED = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC")


def found(obj, names=None, **options):
    result = find_inputs(as_dataset(obj), names, **options)
    assert result.faults == []
    return result.inputs


def faults_of(obj, names=None, **options):
    return [str(check) for check in find_inputs(as_dataset(obj), names, **options).faults]


def assert_canonical(given, name):
    expected = plain(name)
    assert given.modality is modalities[name]
    assert given.data.dims[-3:] == ("band", "y", "x")
    assert given.data.band.values.tolist() == list(modalities[name].band_names)
    np.testing.assert_array_equal(given.data.values, expected.values)


@pytest.mark.parametrize(
    ("name", "label", "band"),
    [
        ("S2L2A", "B02", "B02"), ("S2L2A", "b2", "B02"), ("S2L2A", "BLUE", "B02"), ("S2L2A", "coastal",
        "B01"),
        ("S2L2A", "NIR_NARROW", "B8A"), ("S2L2A", "nir", "B08"), ("S2L2A", "red edge 1", "B05"),
        ("S2L2A", "SWIR_1", "B11"), ("S2L2A", "B4, central wavelength 665 nm", "B04"),
        ("S2L2A", "B02 (blue)", "B02"), ("S2L2A", "B8A_20m", "B8A"), ("S2L2A", 842, "B08"),
        ("S2L2A", 0.8647, "B8A"), ("S2L2A", 2190.0, "B12"), ("S2L1C", "cirrus", "B10"),
        ("RGB", "red", "R"), ("RGB", "B02", "B"), ("S1GRD", "vv", "VV"), ("DEM", "elevation", "DEM"),
        # and what is no band
        ("S2L2A", "B10", None), ("S2L2A", "B02_mask", None), ("S2L2A", "SCL", None), ("S2L2A", "1", None),
        ("S2L2A", 3, None), ("S2L2A", 1200.0, None), ("S2L2A", float("nan"), None), ("S1GRD", "VVVH", None),
    ],
)  # fmt: skip
def test_a_label_means_one_band(name, label, band):
    assert band_of(label, modalities[name]) == band


@st.composite
def relabelled(draw):
    """A modality with its bands in another order, under other names, with strangers among them."""
    name = draw(st.sampled_from(LAYERED))
    data = plain(name)
    aliases = [draw(st.sampled_from(sorted(band.names))) for band in modalities[name].bands]
    aliases = [alias.upper() if draw(st.booleans()) else alias for alias in aliases]
    strangers = draw(st.lists(st.sampled_from(["SCL", "AOT", "visual", "band_17"]), unique=True))
    labels = dict(zip(data.band.values.tolist(), aliases, strict=True)) | {
        other: other for other in strangers
    }
    order = draw(st.permutations(list(labels)))
    extra = xr.DataArray(
        np.full((len(strangers), 6, 5), -1, "int16"), dims=data.dims, coords={"band": strangers}
    )
    everything = xr.concat([data, extra.assign_coords(y=data.y, x=data.x)], "band") if strangers else data
    return name, everything.sel(band=order), [labels[band] for band in order]


@given(relabelled(), st.sampled_from(["band", "bands", "common_name", "s2_band"]), st.booleans())
@settings(max_examples=examples(80), deadline=None)
def test_order_and_names_along_a_dimension_do_not_matter(case, dim, chunked):
    name, data, labels = case
    data = data.rename(name).rename({"band": dim} if dim != "band" else {}).assign_coords({dim: labels})
    given = found(data.chunk() if chunked else data.transpose("y", dim, "x"), [name])[name]
    assert_canonical(given, name)
    assert isinstance(given.data.data, dask.array.Array if chunked else np.ndarray)


@given(relabelled(), st.booleans())
@settings(max_examples=examples(80), deadline=None)
def test_order_and_names_of_variables_do_not_matter(case, chunked):
    name, data, labels = case
    ds = xr.Dataset({label: data.isel(band=i, drop=True) for i, label in enumerate(labels)})
    given = found(ds.chunk() if chunked else ds, [name])[name]
    assert_canonical(given, name)
    assert isinstance(given.data.data, dask.array.Array if chunked else np.ndarray)
    assert given.variables == tuple(
        labels[list(data.band.values).index(b)] for b in modalities[name].band_names
    )


def test_labels_are_also_read_from_attributes_and_wavelengths():
    s2 = plain("S2L2A").isel(band=slice(None, None, -1))
    numbered = s2.assign_coords(band=np.arange(1, 13))
    names = tuple(s2.band.values)
    assert_canonical(found(numbered.assign_attrs(long_name=names))["S2L2A"], "S2L2A")
    assert_canonical(found(numbered.assign_attrs(descriptions=list(names)))["S2L2A"], "S2L2A")
    assert_canonical(found(numbered.assign_coords(common_name=("band", list(names))))["S2L2A"], "S2L2A")
    # the source that names the most bands: Earth Search calls B05, B06 and B07 all "rededge"
    vague = s2.assign_coords(
        band=[name if name not in ("B05", "B06", "B07") else "rededge" for name in names]
    )
    assert_canonical(found(vague.assign_attrs(long_name=names))["S2L2A"], "S2L2A")
    centres = {band.name: band.wavelength for band in modalities["S2L2A"].bands}
    waves = s2.rename(band="wavelength").assign_coords(wavelength=[centres[name] for name in names])
    assert_canonical(found(waves)["S2L2A"], "S2L2A")
    # attributes of the old order would be wrong now
    given = found(numbered.assign_attrs(long_name=names))["S2L2A"]
    assert "long_name" not in given.data.attrs


def test_layouts_are_mixed_and_the_order_is_the_tables():
    ds = xr.merge([single("DEM").to_dataset(name="elevation"), split(plain("S1RTC")), plain("S2L2A")])
    inputs = found(ds, ["DEM", "S1RTC", "S2L2A"])
    assert list(inputs) == ["DEM", "S1RTC", "S2L2A"]
    ds.VV.attrs["product"] = "sentinel-1-rtc"
    inputs = found(ds)
    assert list(inputs) == ["S2L2A", "S1RTC", "DEM"]
    assert inputs["DEM"].data.dims == ("band", "y", "x")
    assert inputs["S2L2A"].variables == ("S2L2A",)


def test_lulc_and_ndvi_only_when_named():
    ds = xr.Dataset({name: single(name) for name in ("DEM", "LULC", "NDVI")})
    assert list(found(ds)) == ["DEM"]
    assert list(found(ds, ["NDVI", "LULC"])) == ["NDVI", "LULC"]


def test_extra_dimensions_and_other_spatial_names_are_carried():
    data = plain("S2L2A").expand_dims(time=3).rename(y="lat", x="lon").transpose("lat", "band", "time", "lon")
    given = found(data)["S2L2A"]
    assert given.data.dims == ("time", "band", "lat", "lon")
    assert (given.y_dim, given.x_dim) == ("lat", "lon")
    ds = split(plain("S2L2A")).expand_dims(time=3)
    assert found(ds)["S2L2A"].data.dims == ("time", "band", "y", "x")


def test_one_file_for_each_band_as_rioxarray_reads_it():
    ds = split(plain("S2L2A")).expand_dims(band=[1])
    assert_canonical(found(ds)["S2L2A"], "S2L2A")
    dem = single("DEM").expand_dims(band=[1])
    np.testing.assert_array_equal(found(dem)["DEM"].data.values[0], single("DEM").values)


@pytest.mark.parametrize("kind", ["dask", "lazy"])
@pytest.mark.parametrize("layout", ["layers", "variables"])
def test_no_pixel_is_read(kind, layout):
    data = plain("S2L2A")
    ds = data.to_dataset() if layout == "layers" else split(data)
    ds = ds.map(unreadable, kind=kind, keep_attrs=True)
    given = found(ds)["S2L2A"]
    assert isinstance(given.data.data, dask.array.Array)
    with pytest.raises(AssertionError, match="a pixel was read"):
        given.data.compute()


def test_units_nodata_and_crs_come_along():
    data = plain("S2L2A", units=" DN ", _FillValue=0)
    data.encoding["grid_mapping"] = "spatial_ref"
    given = found(data)["S2L2A"]
    assert (given.units, given.nodata) == ("DN", 0.0)
    # netCDF opened without decode_coords="all": the CRS is a data variable
    given = found(data.to_dataset().reset_coords("spatial_ref"))["S2L2A"]
    assert given.data.rio.crs.to_epsg() == 32632
    assert found(plain("S2L2A"))["S2L2A"].units is None
    assert found(plain("S2L2A"))["S2L2A"].nodata is None


def test_packed_reflectance_tells_its_units():
    stored = plain("S2L2A", scale_factor=1e-4, add_offset=-0.1, units="1")
    assert found(stored)["S2L2A"].units == "DN"
    read = xr.decode_cf(stored.to_dataset())
    assert read.S2L2A.dtype.kind == "f"
    assert found(read.S2L2A.assign_attrs(units=""))["S2L2A"].units == "1"


def test_nodata_in_memory_is_what_counts():
    read = xr.decode_cf(plain("S2L2A", _FillValue=7).to_dataset())
    assert read.S2L2A.encoding["_FillValue"] == 7  # in memory it is NaN by now
    assert found(read)["S2L2A"].nodata is None
    whole = plain("S2L2A")
    whole.encoding["_FillValue"] = 7
    assert found(whole)["S2L2A"].nodata == 7


def test_the_users_object_is_left_alone():
    ds = split(plain("S2L2A", units="DN")).assign_attrs(boa_add_offset=-1000)
    before = ds.copy(deep=True)
    given = found(ds)["S2L2A"]
    given.data.attrs["touched"] = True
    given.data.encoding["touched"] = True
    xr.testing.assert_identical(ds, before)
    assert all("touched" not in variable.encoding for variable in ds.variables.values())


def test_ambiguous_polarisations_are_settled_by_the_call_that_the_fault_names():
    ds = split(plain("S1GRD"))
    (fault,) = faults_of(ds)
    assert "S1GRD or S1RTC" in fault
    assert 'inputs={"S1RTC": {"VV": "VV", "VH": "VH"}}' in fault
    assert_canonical(found(ds, {"S1RTC": {"VV": "VV", "VH": "VH"}})["S1RTC"], "S1RTC")
    assert list(found(ds, ["S1GRD"])) == ["S1GRD"]
    # the output must not decide what the input is
    assert len(faults_of(ds, exclude=["S1RTC"])) == 1


@pytest.mark.parametrize(
    ("attrs", "name"),
    [
        ({"product": "sentinel-1-rtc"}, "S1RTC"),
        ({"collection": "sentinel-1-grd"}, "S1GRD"),
        ({"product_type": "S1_GRD"}, "S1GRD"),
        ({"long_name": "gamma0 backscatter"}, "S1RTC"),
        ({"collection": "sentinel-1-rtc", "sar:product_type": "GRD"}, "S1RTC"),
    ],
)
@pytest.mark.parametrize("where", ["dataset", "variables"])
def test_attributes_settle_the_radar_product(attrs, name, where):
    ds = split(plain("S1GRD"))
    for target in [ds] if where == "dataset" else list(ds.data_vars.values()):
        target.attrs.update(attrs)
    assert list(found(ds)) == [name]
    other = "S1GRD" if name == "S1RTC" else "S1RTC"
    assert f"attributes that say {name}" in faults_of(ds, [other])[0]
    assert faults_of(ds, exclude=[name])[0].startswith(f"{name}: no other modality")


def test_b10_makes_the_level_ambiguous_unless_attributes_say():
    ds = split(plain("S2L1C"))
    assert "S2L1C or S2L2A" in faults_of(ds)[0]
    assert list(found(ds, ["S2L1C"])) == ["S2L1C"]
    assert found(ds, ["S2L2A"])["S2L2A"].data.sizes["band"] == 12
    assert list(found(ds.assign_attrs({"s2:product_type": "S2MSI1C"}))) == ["S2L1C"]
    assert list(found(ds.drop_vars("B10"))) == ["S2L2A"]


def test_two_candidates_are_refused_and_the_named_call_settles_them():
    ds = split(plain("S2L2A"))
    ds["blue"] = ds.B02 * 0
    (fault,) = faults_of(ds)
    assert "B02: B02 or blue" in fault
    assert 'inputs={"S2L2A": {"B02": "B02"}}' in fault
    assert_canonical(found(ds, {"S2L2A": {"B02": "B02"}})["S2L2A"], "S2L2A")
    assert found(ds, {"S2L2A": {"blue": "blue"}})["S2L2A"].variables[1] == "blue"
    # a variable that was given to one band is no candidate for another
    ds = ds.rename(blue="green")
    assert "B03: B03 or green" in faults_of(ds)[0]
    assert found(ds, {"S2L2A": {"B02": "green"}})["S2L2A"].variables[1:3] == ("green", "B03")


def test_a_variable_of_any_name_when_said_so():
    ds = plain("S2L2A").to_dataset(name="reflectance")
    assert_canonical(found(ds, {"S2L2A": "reflectance"})["S2L2A"], "S2L2A")
    ds.reflectance.attrs["modality"] = "S2L2A"
    assert_canonical(found(ds)["S2L2A"], "S2L2A")


def test_rgb_is_not_made_of_sentinel_2_unasked():
    assert list(found(split(plain("S2L2A"), dict(zip(
        modalities["S2L2A"].band_names, [band.common_name for band in modalities["S2L2A"].bands], strict=True
    ))))) == ["S2L2A"]  # fmt: skip
    assert list(found(plain("RGB", dtype="uint8").rename("S2RGB"))) == ["RGB"]


@pytest.mark.parametrize("names", [["S2L2"], "sentinel-2-l2a", {"NDWI": "x"}])
def test_unknown_modalities_are_named_with_the_closest(names):
    with pytest.raises(OptionError, match="Known: S2L2A, S2L1C"):
        find_inputs(plain("S2L2A").to_dataset(), names)


def test_the_closest_name_is_suggested():
    for wrong, right in {"s2l2a": "S2L2A", "S2RGB": "RGB", "LUCL": "LULC"}.items():
        with pytest.raises(OptionError, match=f"did you mean '{right}'"):
            lookup(wrong)


def test_coordinates_are_not_looked_for_among_the_variables():
    with pytest.raises(OptionError, match="Coordinates"):
        find_inputs(plain("S2L2A").to_dataset(), ["Coordinates"])


@pytest.mark.parametrize("wrong", [np.zeros((12, 4, 4)), "scene.tif", None, {"S2L2A": 1}])
def test_what_is_not_xarray_is_refused(wrong):
    with pytest.raises(InputError, match=r"expected an xarray Dataset or DataArray.*open_rasters"):
        as_dataset(wrong)


def eopf_like():
    """Groups by pixel size as in an EOPF product, a coarser copy of a band among them."""

    def group(names, step):
        size = 120 // (step // 10)
        return xr.Dataset(
            {name: single("DEM", size, size).drop_vars("spatial_ref") for name in names}
        ).assign_coords(y=5e6 - step * (0.5 + np.arange(size)), x=5e5 + step * (0.5 + np.arange(size)))

    bands = "/measurements/reflectance"
    return xr.DataTree.from_dict(
        {
            f"{bands}/r60m": group(["b01", "b09", "b02"], 60),
            f"{bands}/r20m": group(["b05", "b06", "b07", "b8a", "b11", "b12", "b02"], 20),
            f"{bands}/r10m": group(["b02", "b03", "b04", "b08"], 10),
            "/conditions/mask": xr.Dataset({"scl": single("LULC", 60, 60).drop_vars("spatial_ref")}),
        }
    )


def test_a_datatree_is_refused_with_a_recipe_that_works():
    tree = eopf_like()
    with pytest.raises(InputError, match="DataTree: bands in 4 groups; expected a Dataset") as caught:
        tree.terramind.generate("LULC", model="demo")
    scope = {"tree": tree}
    exec(re.search(r"ds = tree.*\(\)", str(caught.value))[0], scope)
    found = find_inputs(scope["ds"], ["S2L2A"])
    assert found.faults == []
    assert found.inputs["S2L2A"].data.shape == (12, 120, 120)
    assert not found.inputs["S2L2A"].data.isnull().any()


def test_a_datatree_without_bands_is_refused_with_its_groups():
    tree = xr.DataTree.from_dict({"/a/b": xr.Dataset({"wind": ("t", [1.0])})})
    with pytest.raises(InputError, match="among /a/b"):
        as_dataset(tree)


@given(st.data())
def test_only_bands_that_are_needed_are_looked_for(data):
    """In any layout and order, with or without the others, and laid out in the order asked for."""
    name = data.draw(st.sampled_from(LAYERED))
    names = list(modalities[name].band_names)
    needed = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    there = needed + data.draw(st.lists(st.sampled_from(names), unique=True).map(lambda some: some))
    array = plain(name).sel(band=data.draw(st.permutations(sorted(set(there)))))
    asked = {
        name: [
            data.draw(st.sampled_from(sorted(modalities[name].bands[names.index(n)].names))) for n in needed
        ]
    }
    for layout in (array, split(array)):
        given = found(layout, [name], bands=asked)[name]
        assert given.modality == modalities[name].only(needed)
        assert given.data.band.values.tolist() == needed
        np.testing.assert_array_equal(given.data, plain(name).sel(band=needed))


def test_a_needed_band_is_never_another_one():
    """Nor the nearest of a few in wavelength, nor a single layer that nothing names, nor one of two."""
    s2 = plain("S2L2A")
    waves = s2.sel(band=["B8A"]).rename(band="wavelength").assign_coords(wavelength=[864.7])
    assert "no B08 in" in faults_of(waves, bands={"S2L2A": ["B08"]})[0]
    layer = s2.sel(band=["B08"]).drop_vars("band")
    assert "1 bands along 'band' without names" in faults_of(layer, bands={"S2L2A": ["B04"]})[0]
    assert "without one for bands" in faults_of(layer.isel(band=0), bands={"S2L2A": ["B04"]})[0]
    twice = split(s2).assign(nir=s2.sel(band="B08", drop=True))
    assert "more than one candidate" in faults_of(twice, ["S2L2A"], bands={"S2L2A": ["B08", "B04"]})[0]
    assert found(twice, ["S2L2A"], bands={"S2L2A": ["B04"]})["S2L2A"].variables == ("B04",)
    (fault,) = faults_of(split(s2.sel(band=["B04"])), ["S2L2A"], bands={"S2L2A": ["B08", "B04"]})
    assert "no B08 of S2L2A" in fault
    assert "all of B08, B04." in fault

"""Numbers that cannot be what they are taken for stop the block; sound ones pass, whatever the scene."""

from __future__ import annotations

import re

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr.data.units import Conversion, conversion
from terramind_xr.data.values import FEWEST, check_values, suspicion
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import modalities
from terramind_xr.kernels import KernelInput
from terramind_xr.synthetic import window

SIDE = 20
LINE = re.compile(r'(for name in \[[^]]*\]: )?ds\[\S+\]\.attrs\["\w+"\] = ("[^"]*"|[-+.\de]+)')
WORLD = window(3, 500, 500, SIDE, SIDE, ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI"))


def sound(name):
    """(band, y, x) of a modality, FEWEST pixels."""
    values = WORLD[name]
    return values if values.ndim == 3 else values[None]


def by_day(values):
    """With a twentieth of the pixels as bright as land: open water alone may as well be a night."""
    return with_row(values, 3000)


def power(name):
    return 10 ** (sound(name) / 10)


def with_one(values, number):
    """With a single odd pixel."""
    changed = values.copy()
    changed[..., 3, 5] = number
    return changed


def with_row(values, number):
    """With a twentieth of the pixels of one number."""
    changed = values.copy()
    changed[..., 3, :] = number
    return changed


def found(name, values, units=None):
    numbers = values.reshape(len(values), -1)
    return suspicion(name, numbers, conversion(modalities[name], units))


FAULTS = {
    "reflectance": ("S2L2A", lambda: sound("S2L2A") * 1e-4, None, 'attrs["units"] = "1"'),
    "reflectance, called DN": ("S2L1C", lambda: sound("S2L1C") * 1e-4, "dn", 'attrs["units"] = "1"'),
    "reflectance, offset removed": ("S2L2A", lambda: sound("S2L2A") * 1e-4 - 0.01, None, '"boa_add_offset"'),
    "offset taken off twice": ("S2L2A", lambda: by_day(sound("S2L2A")).astype("int32") - 1000, None,
                               "offset=0"),
    "offset taken off twice, reflectance": ("S2L2A", lambda: by_day(sound("S2L2A")) * 1e-4 - 0.1, "1",
                                            "data + 0.1"),
    "wrapped around zero": ("S2L2A", lambda: sound("S2L2A").astype("uint16") - np.uint16(1000), None,
                            "int32"),
    "wrapped, then scaled": ("S2L1C", lambda: (sound("S2L1C").astype("uint16") - np.uint16(2000)) * 1e-4, "1",
                             "wrapped"),
    "nodata in a part": ("S2L2A", lambda: with_row(sound("S2L2A"), 65_535), None, "= 65535"),
    "a part not dark, called reflectance": ("S2L2A", lambda: with_row(sound("S2L2A"), 5000) * 1e-4
                                            * np.where(np.arange(SIDE) < 2, 1e4, 1), "1", '= "DN"'),
    "digital numbers, called reflectance": ("S2L2A", lambda: sound("S2L2A"), "1", 'attrs["units"] = "DN"'),
    "reflectance of 16 bits": ("S2L2A", lambda: np.full((12, SIDE, SIDE), 40_000, "uint16")
                               + np.arange(SIDE, dtype="uint16"), None, "10000"),
    "saturated": ("S2L2A", lambda: np.full((12, SIDE, SIDE), 65_535, "uint16"), None, "= 65535"),
    "nodata in Sentinel-2": ("S2L2A", lambda: with_one(sound("S2L2A").astype("int16"), -9999), None,
                             'attrs["_FillValue"] = -9999'),
    "power": ("S1RTC", lambda: power("S1RTC"), None, 'attrs["units"] = "1"'),
    "power, called dB": ("S1GRD", lambda: power("S1GRD"), "dB", 'attrs["units"] = "1"'),
    "power with zeros": ("S1GRD", lambda: with_one(power("S1GRD"), 0), None, 'attrs["units"] = "1"'),
    "uncalibrated": ("S1GRD", lambda: power("S1GRD") * 1e6, "1", "Calibrate"),
    "nodata in radar": ("S1RTC", lambda: with_one(sound("S1RTC"), -32768), "dB",
                        'attrs["_FillValue"] = -32768'),
    "nodata in heights": ("DEM", lambda: with_one(sound("DEM"), -9999), None, 'attrs["_FillValue"] = -9999'),
    "lowest float": ("DEM", lambda: with_one(sound("DEM"), np.finfo("f4").min), None, "-3.40282346"),
    "sea floor": ("DEM", lambda: sound("DEM") - 4000, None, "units"),
    "centimetres": ("DEM", lambda: np.full((1, SIDE, SIDE), 25_000.5), None, 'attrs["units"] = "cm"'),
    "index in percent": ("NDVI", lambda: sound("NDVI") * 100, None, 'attrs["units"] = "percent"'),
    "packed index": ("NDVI", lambda: (sound("NDVI") * 10_000).astype("int16"), None, '"0.0001"'),
    "nodata in codes": ("LULC", lambda: with_one(sound("LULC"), 255), None, 'attrs["_FillValue"] = 255'),
    "another legend": ("LULC", lambda: sound("LULC") * 10, None, "1 water, 2 trees"),
    "mixed codes": ("LULC", lambda: sound("LULC") + 0.25, None, "1 water, 2 trees"),
    "colours of 16 bits": ("RGB", lambda: sound("RGB") * 12.0, None, "255"),
    "colours from 0 to 1": ("RGB", lambda: sound("RGB") / 255, None, "255"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_what_it_looks_like_and_the_line_that_declares_it(fault):
    name, make, units, remedy = FAULTS[fault]
    raw = make()
    with pytest.raises(InputError) as caught:
        check_values(name, raw, np.ones(raw.shape[1:], bool), conversion(modalities[name], units))
    message = str(caught.value)
    assert message.startswith(f"{name}: a block holds numbers from {raw.min():g} to {raw.max():g}")
    assert remedy in message
    assert "check_values=False" in message


@pytest.mark.parametrize("fault", FAULTS)
def test_the_line_declares_all_variables_and_settles_what_can_be_declared(fault):
    name, make, units, _ = FAULTS[fault]
    raw = make()
    variables = [f"v{band}" for band in range(len(raw))]
    numbers = raw.reshape(len(raw), -1)
    told = suspicion(name, numbers, conversion(modalities[name], units), tuple(variables)).remedy
    if ".attrs[" not in told:
        return
    ds = xr.Dataset({variable: ((), 0) for variable in variables})
    exec(LINE.search(told)[0], {"ds": ds})
    said = [ds[variable].attrs for variable in variables]
    assert all(each == said[0] for each in said)
    assert said[0]
    if "_FillValue" in said[0]:
        numbers = numbers[:, (numbers != said[0]["_FillValue"]).all(axis=0)]
    units = conversion(modalities[name], said[0].get("units", units))
    if fault not in (
        "uncalibrated",
        "sea floor",
        "another legend",
        "mixed codes",
        "a part not dark, called reflectance",
    ):  # not to be declared away
        with np.errstate(divide="ignore"):
            numbers = numbers[:, np.isfinite(units.apply(numbers)).all(axis=0)]
        assert suspicion(name, numbers, units) is None


def test_the_world_and_its_unit_variants_pass():
    for name in modalities:
        if name in WORLD:
            assert found(name, sound(name)) is None, name
    assert found("S2L2A", sound("S2L2A") * 1e-4, "1") is None
    assert found("S2L2A", sound("S2L2A") * 1e-2, "percent") is None
    assert found("S1RTC", power("S1RTC"), "1") is None
    assert found("S1RTC", np.sqrt(power("S1RTC")), "amplitude") is None
    assert found("DEM", sound("DEM") / 0.3048, "ft") is None
    assert found("NDVI", sound("NDVI") * 100, "percent") is None


def field(low, high, dtype, bands=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, (bands, SIDE, SIDE)).astype(dtype)


SOUND = {
    "night": ("S2L1C", lambda: field(0, 3, "uint16", 13), None),
    "night as floats": ("S2L1C", lambda: field(0, 3, "uint16", 13).astype("float32"), None),
    "black": ("S2L2A", lambda: np.zeros((12, SIDE, SIDE), "float32"), None),
    "water after the offset was removed": ("S2L2A", lambda: field(-40, 60, "float32"), None),
    "water in reflectance": ("S2L2A", lambda: field(-4e-3, 2e-4, "float32"), "1"),
    "snow": ("S2L2A", lambda: field(9_000, 21_000, "uint16"), None),
    "snow and sun": ("S2L2A", lambda: with_one(field(9_000, 21_000, "float64"), 65_535), None),
    "bright clouds in reflectance": ("S2L1C", lambda: field(0.8, 2.1, "float32", 13), "1"),
    "town in radar": ("S1RTC", lambda: field(-8, 30, "float32", 2), None),
    "dead sea": ("DEM", lambda: field(-440, -380, "float32", 1), None),
    "dead sea in cm": ("DEM", lambda: with_one(field(-44_000, -38_000, "int32", 1), -9999), "cm"),
    "packed index with -9999": ("NDVI", lambda: with_one(field(-3000, 9000, "int16", 1), -9999), "0.0001"),
    "a little beyond": ("NDVI", lambda: with_one(field(-1, 1, "float32", 1), 1.7), None),
    "codes as floats": ("LULC", lambda: field(0, 10, "uint8", 1).astype("float32"), None),
    "dark colours": ("RGB", lambda: field(0, 2, "uint8", 3), None),
}


@pytest.mark.parametrize("case", SOUND)
def test_what_is_sound_passes(case):
    name, make, units = SOUND[case]
    assert found(name, make(), units) is None


@given(
    # A code is right or wrong by itself.
    st.sampled_from(sorted(fault for fault, case in FAULTS.items() if case[0] != "LULC")),
    st.integers(0, SIDE * SIDE),
)
@settings(max_examples=examples(60))
def test_few_valid_pixels_conclude_nothing(fault, count):
    name, make, units, _ = FAULTS[fault]
    raw = make()
    valid = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) < count
    arguments = (name, raw, valid, conversion(modalities[name], units))
    if count < FEWEST:
        check_values(*arguments)
    else:
        with pytest.raises(InputError):
            check_values(*arguments)


@given(st.integers(0, 65_535), st.integers(0, 1000), st.floats(0.5, 60_000), st.integers(0, 2**32 - 1))
@settings(max_examples=examples(60))
def test_integers_are_never_taken_for_reflectance(low, spread, scale, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(low, low + spread + 1, (12, 300))
    told = suspicion("S2L2A", numbers, Conversion())
    assert (told is None) == (np.mean(numbers > 30_000) <= 0.5)
    # the same as reflectance, undeclared and declared
    share = rng.uniform(0, 1, (12, 300)) * min(scale / 30_000, 2)
    assert suspicion("S2L2A", share, Conversion()).looks == "reflectance"
    assert suspicion("S2L2A", share, Conversion(1e4)) is None


def test_only_what_is_valid_and_not_masked_counts():
    raw = np.stack([sound("DEM")[0]] * 2, axis=-1).reshape(1, SIDE, 2 * SIDE)
    raw[:, :, :3] = -9999
    cloud = (raw == -9999).astype("uint8")
    for each, more in ((KernelInput("DEM", Conversion(), nodata=-9999), []),
                       (KernelInput("DEM", Conversion(), masked=True), [cloud]),
                       (KernelInput("DEM", Conversion(), check=False), [])):  # fmt: skip
        kernel(each).load([raw, *more])
    with pytest.raises(InputError, match="-9999 stands for no data"):
        kernel(KernelInput("DEM", Conversion(), variables=("heights",))).load([raw])


def kernel(each):
    from terramind_xr.kernels import GenerateKernel
    from terramind_xr.model.execution import Execution
    from terramind_xr.model.recipe import find
    from terramind_xr.model.sampling import Sampling

    return GenerateKernel(find("demo", ["LULC"]), (each,), ("LULC",), Sampling(), Execution())


@given(
    st.sampled_from(["S2L2A", "S1RTC", "DEM"]),
    st.sampled_from([np.inf, -np.inf]),
    st.integers(1, SIDE * SIDE),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=examples(30))
def test_infinite_numbers_are_refused_wherever_they_are_not_hidden(name, number, count, seed):
    """One is enough, in one band; not so where the pixel is no data anyway, or masked."""
    rng = np.random.default_rng(seed)
    raw = sound(name).astype("float32")
    odd = np.zeros(SIDE * SIDE, bool)
    odd[rng.permutation(odd.size)[:count]] = True
    odd = odd.reshape(SIDE, SIDE)
    raw[rng.integers(len(raw)), odd] = number

    def check(values, **more):
        check_values(name, values, np.isfinite(values).all(axis=0), Conversion(), **more)

    with pytest.raises(InputError, match=rf"{name}.*infinite numbers \({count} pixels\).*division by zero"):
        check(raw)
    check(raw, hidden=odd)
    check(np.where(np.isfinite(raw), raw, np.nan))  # what the message says
    check(np.concatenate([raw, np.where(odd, np.nan, 1)[None].astype("float32")]))


def test_zeros_in_linear_power_are_no_data_and_no_fault():
    raw = with_one(power("S1RTC"), 0).astype("float32")
    layer = kernel(KernelInput("S1RTC", conversion(modalities["S1RTC"], "1"))).load([raw])[0]
    assert (~layer.valid).sum() == 1


def test_a_scene_with_infinite_numbers_stops_where_it_is_computed():
    ds = terramind_xr.synthetic.scene(240, seed=1)[["S2L2A"]].load()
    ratio = (ds / ds.where(ds.x > ds.x[40], 0)).S2L2A * ds.S2L2A
    ratio = ratio.assign_attrs(ds.S2L2A.attrs).to_dataset().chunk()
    result = ratio.terramind.generate("LULC", model="demo")
    with pytest.raises(InputError, match=r'infinite.*ds\["S2L2A"\].where\(np.isfinite\(ds\["S2L2A"\]\)\)'):
        result.compute(scheduler="sync")
    ratio["S2L2A"] = ratio.S2L2A.where(np.isfinite(ratio.S2L2A))
    assert (ratio.terramind.generate("LULC", model="demo")[:, 41:] > 0).all()


def test_the_real_tiles_pass(terramesh):
    for path in sorted(terramesh.glob("*/*.tif")):
        name = path.parent.name.replace("S2RGB", "RGB")
        with rasterio.open(path) as file:
            assert found(name, file.read()) is None, path


@pytest.mark.parametrize(
    ("place", "name", "is_found"),
    [
        ("433D_629L_3_1", "S2L2A", False),  # the offset is in it
        ("433D_629L_3_1", "S2L1C", False),
        ("637U_59R_1_3", "S2L2A", True),
        ("637U_59R_1_3", "S2L1C", True),
        ("38D_378R_2_3", "S2L1C", True),
        ("38D_378R_2_3", "S2L2A", None),  # desert: so bright that it looks sound without another 1000
    ],
)
def test_real_tiles_less_1000_are_sound_where_the_offset_was_in_them(terramesh, place, name, is_found):
    with rasterio.open(terramesh / name / f"{place}.tif") as file:
        numbers = file.read()
    told = found(name, numbers.astype("int32") - 1000)
    assert (told is not None and "taken that was not in them" in told.looks) == bool(is_found)
    told = found(name, numbers.astype("uint16") - np.uint16(1000))
    assert (told is not None and "wrapped around zero" in told.looks) == (is_found is not False)


@given(
    st.sampled_from([40_001, 60_000, 64_600, -501, -1000]), st.integers(0, 200), st.sampled_from([1, 1e-4])
)
def test_offset_faults_are_told_by_their_share_alone(number, count, scale):
    """Of a hundred numbers one may be odd, whatever the unit."""
    numbers = np.random.default_rng(count).integers(1, 20_000, (12, 300)).astype("float64")
    numbers.flat[:count] = number
    units = None if scale == 1 else "1"
    assert (found("S2L2A", numbers * scale, units) is not None) == (count / numbers.size > 0.01)


def packed(ds):
    """As a file with CF packing, opened."""
    stored = ds.assign(S2L2A=ds.S2L2A.assign_attrs(scale_factor=1e-4, add_offset=0.0))
    return xr.decode_cf(stored)


def by_band(ds):
    return xr.Dataset({str(name): ds.S2L2A.sel(band=name, drop=True) for name in ds.band.values})


USES = {
    "arithmetic": lambda ds: ds.assign(S2L2A=ds.S2L2A * 1e-4),
    "arithmetic without attributes": lambda ds: ds.assign(S2L2A=(ds.S2L2A * 1e-4).drop_attrs()),
    "clouds cut out after decoding": lambda ds: packed(ds).where(ds.x > 0).drop_attrs(),
    "digital counts that were decoded": lambda ds: packed(ds).where(ds.x > 0).map(
        lambda data: data.assign_attrs(units="digital_counts")),
    "rescaled by the loader, a variable for each band": lambda ds: by_band(
        ds.assign(S2L2A=(ds.S2L2A * 1e-4).drop_attrs())),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(none. DN assumed|0 assumed|crs)")
@pytest.mark.parametrize("use", USES)
def test_a_lazy_scene_of_reflectance_stops_where_it_is_computed(use):
    ds = USES[use](terramind_xr.synthetic.scene(300, seed=3)[["S2L2A"]])
    result = ds.terramind.generate("LULC", model="demo")
    with pytest.raises(InputError, match="S2L2A.*look like reflectance"):
        result.compute(scheduler="sync")
    for each in ds.data_vars.values():  # what the message says
        each.attrs["units"] = "1"
    assert (ds.terramind.generate("LULC", model="demo").compute() > 0).all()


@pytest.mark.parametrize("less", [np.uint16(1000), np.int32(1000)])
def test_a_scene_that_lost_an_offset_it_never_had_is_refused(less):
    s2 = terramind_xr.synthetic.scene(240, seed=1)[["S2L2A"]].load().S2L2A
    with pytest.raises(InputError, match=r"S2L2A.*(wrapped around zero|that was not in them).*offset="):
        (s2 - less).assign_attrs(s2.attrs).terramind.generate("LULC", model="demo")


def test_floats_without_units_are_warned_of_at_the_call():
    ds = terramind_xr.synthetic.scene(32, seed=3)
    ds["S2L2A"] = ds.S2L2A.astype("float32").drop_attrs().assign_attrs(boa_add_offset=0)
    with pytest.warns(terramind_xr.TerramindWarning, match="none: DN assumed.*attrs"):
        ds.terramind.generate("LULC", model="demo")


def test_the_switch_is_true_or_false():
    with pytest.raises(OptionError, match="check_values"):
        terramind_xr.set_options(check_values="no")

"""Units: factors, decibels, there and back, and no registry but the private one."""

from __future__ import annotations

import numpy as np
import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

import terramind_xr
from terramind_xr.data.units import Conversion, accepted_units, conversion
from terramind_xr.errors import InputError
from terramind_xr.facts import modalities


@pytest.mark.parametrize(
    ("name", "units", "value", "expected"),
    [
        ("S2L2A", None, 1234, 1234),
        ("S2L2A", "  ", 1234, 1234),
        ("S2L2A", "DN", 1234, 1234),
        ("S2L2A", "digital_number", 1234, 1234),
        ("S2L2A", "0.0001", 1234, 1234),
        ("S2L2A", "Digital Counts", 1234, 1234),
        ("RGB", "digital_counts", 12, 12),
        ("S2L1C", "1", 0.1234, 1234),
        ("S2L2A", "reflectance", 0.1234, 1234),
        ("S2L2A", "percent", 12.34, 1234),
        ("S2L2A", "%", 12.34, 1234),
        ("S1GRD", "dB", -12.5, -12.5),
        ("S1RTC", "1", 0.01, -20),
        ("S1RTC", "linear power", 10, 10),
        ("S1GRD", "Amplitude", 0.1, -20),
        ("DEM", "m", 100, 100),
        ("DEM", "metres", 100, 100),
        ("DEM", "ft", 1000, 304.8),
        ("DEM", "km", 1.5, 1500),
        ("NDVI", "1", 0.5, 0.5),
        ("NDVI", "percent", 50, 0.5),
        ("RGB", "1", 200, 200),
        ("LULC", "1", 3, 3),
    ],
)
def test_values_come_out_in_model_units(name, units, value, expected):
    found = conversion(modalities[name], units)
    result = found.apply(np.array([value]))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [expected], rtol=1e-6)
    np.testing.assert_allclose(found.invert(result), [value], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("S2L2A", "K"), ("S2L2A", "m"), ("S2L2A", "dB"), ("S2L2A", "DN DN("), ("S2L2A", "-1"), ("S2L2A",
        "1/0"),
        ("S1RTC", "m"), ("S1RTC", "percent"), ("DEM", "1"), ("DEM", "dB"), ("NDVI", "m"), ("RGB", "percent"),
        ("LULC", "percent"),
    ],
)  # fmt: skip
def test_other_units_are_refused_with_what_is_accepted(name, units):
    with pytest.raises(InputError) as caught:
        conversion(modalities[name], units)
    message = str(caught.value)
    assert repr(units) in message
    assert name in message
    assert all(unit in message for unit in accepted_units(modalities[name]))


def test_what_has_no_logarithm_is_no_data():
    result = Conversion(decibel=True).apply(np.array([1.0, 0.0, -1.0, np.nan]))
    assert result[0] == 0
    assert np.isnan(result[1:]).all()


@given(st.floats(0.001, 1000), st.floats(-100, 100), st.booleans(), st.floats(0.01, 100))
def test_invert_undoes_apply(scale, shift, decibel, value):
    way = Conversion(scale, shift, decibel)
    there = way.apply(np.array([value]))
    # float32 loses digits where the shift swamps the value; the way back cannot find them again
    lost = np.float32(4e-7) * max(abs(float(there[0])), abs(shift)) / scale
    if decibel:
        np.testing.assert_allclose(10 * np.log10(way.invert(there)), 10 * np.log10(value), atol=lost + 1e-4)
    else:
        np.testing.assert_allclose(way.invert(there), [value], rtol=1e-6, atol=lost)


def test_factors_are_exact():
    for units, scale in {"1": 10_000, "0.0001": 1, "1e-4": 1, "percent": 100}.items():
        assert conversion(modalities["S2L2A"], units).scale == scale


def test_nothing_to_do_makes_no_copy():
    values = np.ones(3, "float32")
    assert Conversion().apply(values) is values
    assert Conversion().invert(values) is values


def test_the_applications_registry_is_left_alone():
    mine = pint.UnitRegistry()
    mine.define("DN = 42 = dn")
    pint.set_application_registry(mine)
    try:
        assert conversion(modalities["S2L2A"], "1").scale == 10000
        assert pint.get_application_registry().get() is mine
        assert mine.Quantity("DN").to("").magnitude == 42
    finally:
        pint.set_application_registry(pint.UnitRegistry())


@pytest.mark.parametrize("is_lazy", [False, True])
def test_quantities_of_any_registry_are_numbers_with_units(is_lazy):
    """As pint-xarray wraps them; without their units they would be taken for the modality's own."""
    registry = pint.UnitRegistry()
    ds = terramind_xr.synthetic.scene(224, modalities=("S2L2A", "DEM"))
    ds = ds.chunk() if is_lazy else ds.compute()
    wrapped = ds.copy()
    for name, factor, units in (("S2L2A", 0.01, "percent"), ("DEM", 0.001, "km")):
        values = (ds[name] * factor).data
        wrapped[name] = ds[name].copy(data=registry.Quantity(values, units))
        wrapped[name].attrs.pop("units")
    assert wrapped.terramind.validate().ok
    assert not [each for each in wrapped.terramind.validate().warnings if each.check == "units"]
    found = wrapped.terramind.generate("LULC", model="demo")
    assert (found.chunks is not None) == is_lazy
    assert (found.compute() == ds.terramind.generate("LULC", model="demo").compute()).mean() > 0.999
    only = wrapped["DEM"].terramind.validate()
    assert [each.found for each in only.checks if each.check == "units"] == ["kilometer, converted to m"]

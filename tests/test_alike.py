"""One scene as users have it: order and names of bands, layouts, units, offsets, packing and orientation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr.facts import modalities

SIZE = 224
COUNTS = ["uint16", "int16", "int32", "float32", "float64"]
BANDS = modalities["S2L2A"].bands
ALIASES = [sorted(band.names) for band in BANDS]


@pytest.fixture(scope="module")
def scene():
    """Digital numbers without an offset."""
    data = terramind_xr.synthetic.scene(SIZE, seed=5)[["S2L2A"]].compute().S2L2A
    data.attrs = {"boa_add_offset": 0, "units": "DN"}
    return data


@pytest.fixture(scope="module")
def expected(scene):
    return land_cover(scene.to_dataset())


def land_cover(ds):
    with warnings.catch_warnings():
        warnings.simplefilter("error", terramind_xr.TerramindWarning)
        return ds.terramind.generate("LULC", model="demo", inputs=["S2L2A"]).compute(scheduler="sync")


def with_offset(draw, data):
    """1000 in the numbers or none, and any of the spellings that tell so."""
    added = draw(st.sampled_from([0, 1000]))
    data = data.copy(data=data.values + np.asarray(added, data.dtype))
    del data.attrs["boa_add_offset"]
    said = [{key: 0 - added} for key in ("boa_add_offset", "BOA_ADD_OFFSET", "radio_add_offset")]
    said += [{"RADIO_ADD_OFFSET": str(0 - added)}, {"boa_add_offset": [0 - added] * len(BANDS)}]
    if not added:
        said += [{"boa_offset_applied": True}, {"earthsearch:boa_offset_applied": "true"}]
        said += [{"processing_baseline": "03.01"}, {"title": "S2A_MSIL2A_20200714T112121_N0214_R037_T29SNC"}]
    return data, draw(st.sampled_from(said)), added


def in_units(draw, data, added):
    """The same numbers in other units, types and packing."""
    kind = draw(st.sampled_from(["counts", "packed", "reflectance", "percent"]))
    if kind == "counts":
        units = draw(st.sampled_from(["DN", "dn", "digital_counts", "0.0001"]))
        return data.astype(draw(st.sampled_from(COUNTS))).assign_attrs(units=units)
    if kind == "packed":  # as in a file that was opened without decoding
        return data.astype("int16").assign_attrs(scale_factor=1e-4, add_offset=-added / 1e4, units="1")
    scale, units = (1e-4, ["1", "reflectance"]) if kind == "reflectance" else (1e-2, ["percent", "%"])
    made = (data * scale).astype(draw(st.sampled_from(["float32", "float64"])))
    return made.assign_attrs(data.attrs | {"units": draw(st.sampled_from(units))})


def laid_out(draw, data, order):
    """A dimension of bands anywhere with any labels, or a variable for each band, by any of their names."""
    layout = draw(st.sampled_from(["dimension", "common_name", "wavelength", "variables", "long_name"]))
    names = [draw(st.sampled_from(ALIASES[band])) for band in order]
    names = [draw(st.sampled_from([name, name.upper(), name.lower()])) for name in names]
    data = data.isel(band=order).drop_vars("band")
    layers = [data.isel(band=place) for place in range(len(order))]
    if layout == "variables":
        return xr.Dataset(dict(zip(names, layers, strict=True)))
    if layout == "long_name":
        told = [layer.assign_attrs(long_name=name) for layer, name in zip(layers, names, strict=True)]
        return xr.Dataset({f"layer_{place}": layer for place, layer in enumerate(told)})
    if layout == "dimension":
        data = data.assign_coords(band=names)
    elif layout == "common_name":
        data = data.assign_coords(common_name=("band", [BANDS[band].common_name for band in order]))
    else:
        unit = draw(st.sampled_from([1, 1e-3]))  # nm or µm
        data = data.assign_coords(wavelength=("band", [BANDS[band].wavelength * unit for band in order]))
    dim = draw(st.sampled_from(["band", "channel", "band_10m"]))
    data = data if dim == "band" else data.rename(band=dim)
    return data.transpose(*draw(st.permutations(data.dims))).to_dataset(name="S2L2A")


@given(data=st.data())
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.too_slow])
def test_one_scene_however_it_is_written_gives_one_map(scene, expected, data):
    draw = data.draw
    numbers, said, added = with_offset(draw, scene)
    numbers = in_units(draw, numbers, added)
    if draw(st.booleans()):
        numbers, shared = numbers.assign_attrs(said), {}
    else:
        shared = said
    order = draw(st.permutations(range(len(BANDS))))
    ds = laid_out(draw, numbers, order).assign_attrs(shared)
    ds = ds.isel(dict.fromkeys(draw(st.sets(st.sampled_from(["y", "x"]))), slice(None, None, -1)))
    found = land_cover(ds).sel(y=expected.y, x=expected.x)
    if numbers.dtype.kind in "iu" or numbers.units not in ("1", "reflectance", "percent", "%"):
        np.testing.assert_array_equal(found.values, expected.values)
    else:
        assert (found.values == expected.values).mean() >= 0.99


def test_other_numbers_give_another_map(scene, expected):
    """Neither exchanged bands nor an undeclared offset pass for the same scene."""
    names = scene.band.values.copy()
    names[[3, 10]] = names[[10, 3]]
    for wrong in (scene.assign_coords(band=names), scene.copy(data=scene.values + np.uint16(1000))):
        assert (land_cover(wrong.to_dataset()).values == expected.values).mean() < 0.99

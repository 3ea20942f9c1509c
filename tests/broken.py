"""A hundred inputs with one fault each: what is said of them, and how many lines of its remedy are code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

from scenes import axes, plain, single, split
from terramind_xr.facts import modalities
from terramind_xr.synthetic import window


@dataclass(frozen=True)
class Fault:
    """A broken input.

    Parameters
    ----------
    kind
        Name of the fault; empty where messages have none (options).
    title
        What was done to the input.
    make
        The input, or several objects by the name that remedies call them.
    variable, remedy
        What the message must name and tell.
    codes
        How many pieces of code the remedy holds; each of them repairs the input, or `pick` alone.
    fill
        Placeholders of the remedy, and what the user knows.
    modality, sample
        As for `validate`.
    call
        Options of a call, for faults that only a call has.
    """

    kind: str
    title: str
    make: Callable[[], Any]
    variable: str
    remedy: str
    codes: int = 1
    pick: int | None = None
    fill: Mapping[str, str] = field(default_factory=dict)
    modality: str | list[str] | None = None
    sample: bool = False
    call: Mapping[str, Any] | None = None
    warns: bool = False


NO_ITEMS = {"ds.terramind.with_stac(items)": "ds"}
"""For a scene that has no STAC items."""


def ds(name="S2L2A", **attrs):
    """A right dataset of one modality."""
    if name in ("S2L2A", "S2L1C"):
        attrs = {"boa_add_offset": 0} | attrs
    data = plain(name, **attrs) if modalities[name].is_banded else single(name, **attrs)
    return data.to_dataset()


def silent(name="S2L2A", **attrs):
    """Sentinel-2 that does not say its offset."""
    return plain(name, **attrs).to_dataset()


def bands(name="S2L2A", **attrs):
    """The same with a variable for each band."""
    return split(ds(name, **attrs)[name])


def labelled(name, labels, dim="band"):
    """With other labels of the bands, or without any."""
    data = ds(name).drop_vars("band")
    data = data.assign_coords(band=list(labels)) if labels is not None else data
    return data.rename({"band": dim}) if dim != "band" else data


def one_band(change, name="B03"):
    """Variables for each band, of which one is changed."""
    made = bands()
    return made.assign({name: change(made[name])})


def other_grid(data, step=20.0, size=3):
    """A layer on another grid, with dimensions of its own."""
    return plain("S2L2A", size, size, step)[0].drop_vars("band").rename(y=f"y_{step:g}m", x=f"x_{step:g}m")


def geographic(made, step=9e-5):
    made = made.drop_vars("spatial_ref").rename(y="lat", x="lon")
    return made.assign_coords(lat=45 - step * np.arange(6), lon=10 + step * np.arange(5)).rio.write_crs(4326)


def with_crs(crs):
    made = ds().drop_vars("spatial_ref")
    return made.assign({"S2L2A": made.S2L2A.assign_attrs(crs=crs)})


def series(**coords):
    """Two dates."""
    return silent().expand_dims(time=[0, 1]).assign_coords(coords)


@cache
def world(name):
    values = window(7, 2000, 2000, 128, 128, (name,))[name]
    return values if values.ndim == 3 else values[None]


def real(name="S2L2A", change=lambda values: values, several=False, **attrs):
    """A land scene of a modality, changed."""
    modality = modalities[name]
    said = {"units": modality.units} | ({"boa_add_offset": 0} if modality.is_optical else {})
    attrs = {key: value for key, value in (said | attrs).items() if value is not None}
    coords = {"band": list(modality.band_names), **axes(128, 128)}
    data = xr.DataArray(change(world(name)), coords, ("band", "y", "x"), name=name, attrs=attrs)
    data = data.rio.write_crs("EPSG:32632")
    data = data if modality.is_banded else data.isel(band=0, drop=True)
    return split(data) if several else data.to_dataset()


def row(values, number):
    """With a few rows of another number."""
    values = values.copy()
    values[..., 40:44, :] = number
    return values


def tokens(name="DEM", dtype="uint16", size=(4, 4), **attrs):
    """Tokens as `tokenize` makes them."""
    said = {"terramind_tokens": name, "vocabulary_size": 1600, "codebook": "8 8 5 5"}
    said |= {"terramind_rows": 16 * size[0], "terramind_columns": 16 * size[1]}
    said = {key: value for key, value in (said | attrs).items() if value is not None}
    data = xr.DataArray(np.ones(size, dtype), axes(*size, 160.0), ("y", "x"), name="dem_tokens", attrs=said)
    return data.rio.write_crs("EPSG:32632")


def tree(**groups):
    return {"tree": xr.DataTree.from_dict({f"/{path}": group for path, group in groups.items()})}


def clouds(**changes):
    """A dataset, and a mask on its grid."""
    made = ds().assign(SCL=single("LULC", dtype="uint8"), classes=single("LULC", dtype="uint8"))
    return {"ds": made, "mask": (made.SCL > 5).drop_vars("spatial_ref"), **changes}


def masked(change):
    made = clouds()
    return made | {"mask": change(made["mask"])}


def radar_product():
    dims = ("azimuth_time", "ground_range")
    return xr.Dataset({"grd": (dims, np.ones((4, 4), "uint16"))})


F = Fault
S2, S1 = "S2L2A", "S1RTC"
WRITE = {"EPSG:…": "EPSG:32632"}
CODED = {"[…]": "[0, 1000]"}

BANDS = [
    F("bands.none", "another name", lambda: ds().rename(S2L2A="foo"), "foo", "rename({'foo'", 2),
    F("bands.none", "an empty dataset", xr.Dataset, "dataset", "open_rasters", 0),
    F("bands.none", "a map alone", lambda: ds("LULC", dtype="uint8"), "LULC", "inputs=['LULC']", call={}),
    F("bands.absent", "called otherwise", lambda: ds().assign(radar=plain(S1).rename(band="pol")), S1,
      'inputs={"S1RTC": "variable"}', fill={'"variable"': '"radar"'}, modality=S1),
    F("bands.absent", "a relief called z", lambda: ds("DEM").rename(DEM="z"), "DEM", "inputs=",
      fill={'"variable"': '"z"'}, modality="DEM"),
    F("bands.missing", "ten of twelve", lambda: ds().isel(band=slice(10)), S2, "Add what is missing", 0),
    F("bands.missing", "VV alone", lambda: ds(S1).isel(band=[0]), S1, "assign_coords", 0),
    F("bands.missing", "of others", lambda: labelled("RGB", ["R", "G", "x"]), "RGB", "correct the names", 0),
    F("bands.missing", "a variable called otherwise", lambda: bands().rename(B05="edge"), "B01",
      'inputs={"S2L2A": {"B05": "my_variable"}}', 1, fill={"my_variable": "edge"}),
    F("bands.missing", "VH called otherwise", lambda: bands(S1).rename(VH="cross"), "VV", "my_variable",
      fill={"my_variable": "cross"}, modality=S1),
    F("bands.twice", "a band twice", lambda: xr.concat([ds(), ds().isel(band=[0])], "band"), S2,
      "isel(band=["),
    F("bands.twice", "two names for blue", lambda: bands().assign(blue=bands().B02), "B02, blue", "inputs="),
    F("bands.twice", "two of a kind", lambda: xr.Dataset({"s2_l2a": ds()[S2], "S2-L2A": ds()[S2]}), "S2-L2A",
      'inputs={"S2L2A": "s2_l2a"}'),
    F("bands.unnamed", "counted", lambda: labelled(S2, range(1, 13)), S2, "band=['B01', 'B02'"),
    F("bands.unnamed", "no labels", lambda: labelled(S2, None), S2, "band=['B01', 'B02'"),
    F("bands.unnamed", "Band 1…", lambda: labelled(S2, [f"Band {n}" for n in range(12)]), S2, "band=['B01'"),
    F("bands.unnamed", "of another dimension", lambda: labelled(S2, range(12), "channel"), S2,
      "channel=['B01'"),
    F("bands.unnamed", "Level-1C", lambda: labelled("S2L1C", range(13)), "S2L1C", "'B10', 'B11'"),
    F("bands.unnamed", "radar", lambda: labelled(S1, [1, 2]), S1, "['VV', 'VH']"),
    F("bands.unnamed", "colours", lambda: labelled("RGB", None), "RGB", "['R', 'G', 'B']"),
    F("bands.ambiguous", "GRD or RTC", lambda: bands(S1), "VH, VV", 'inputs={"S1RTC": {"VV": "VV"', 2),
    F("bands.ambiguous", "Level-1C or 2A", lambda: bands("S2L1C"), "B10", 'inputs={"S2L1C": {"B01"', 2),
    F("bands.dimension", "one layer", lambda: ds().isel(band=0), S2, "a variable for each band", 0),
    F("bands.dimension", "radar of one layer", lambda: ds(S1).isel(band=0), S1, "a variable for each band",
      0),
    F("bands.request", "no such variable", ds, "nope", "Correct", 0, call={"inputs": {S2: "nope"}}),
    F("bands.request", "no such band", bands, S2, "Correct", 0, call={"inputs": {S2: {"B77": "B01"}}}),
    F("bands.request", "one twice", bands, S2, "Correct", 0,
      call={"inputs": {S2: {"B02": "B02", "blue": "B03"}}}),
    F("dimensions.spatial", "u and v", lambda: ds().rename(y="u", x="v"), S2, "rename({'u': 'y', 'v': 'x'})"),
    F("dimensions.spatial", "of a relief", lambda: ds("DEM").rename(y="r", x="c"), "DEM", "'r': 'y'"),
    F("dimensions.spatial", "of one band", lambda: bands().assign(B05=("u", [1])), "B05", "Rename", 0),
    F("product.other", "called Level-1C", lambda: ds(processing_level="Level-1C"), S2, "S2L1C", 0),
    F("product.other", "asked for GRD", lambda: bands(S1, product="rtc"), "VH, VV", "Ask for S1RTC", 0,
      modality="S1GRD"),
]  # fmt: skip

NUMBERS = [
    F("shape.empty", "y upwards", lambda: ds().isel(y=slice(0)), S2, "slices of y run downwards", 0),
    F("dtype.unfit", "complex", lambda: ds("S1GRD", dtype="complex64"), "S1GRD", "backscatter", 0),
    F("dtype.unfit", "strings", lambda: ds("DEM", dtype="U3"), "DEM", "float32", 0),
    F("dtype.unfit", "booleans", lambda: ds("DEM", dtype=bool), "DEM", "float32", 0),
    F("dtype.unfit", "dates", lambda: ds("DEM", dtype="datetime64[ns]"), "DEM", "float32", 0),
    F("dtype.colours", "16 bits", lambda: ds("RGB", dtype="uint16"), "RGB", "0…255", 0),
    F("scale.unapplied", "heights in dm", lambda: ds("DEM", scale_factor=0.1), "DEM", "xr.decode_cf(ds)"),
    F("scale.unapplied", "shifted", lambda: ds("DEM", add_offset=-100.0), "DEM", "xr.decode_cf(ds)"),
    F("scale.unapplied", "packed dB", lambda: ds(S1, scale_factor=0.01, units="dB"), S1, "xr.decode_cf(ds)"),
    F("scale.unapplied", "NDVI", lambda: ds("NDVI", scale_factor=1e-4), "NDVI", "decode_cf", modality="NDVI"),
    F("scale.units", "called DN", lambda: xr.decode_cf(ds(scale_factor=1e-4, units="DN")), S2,
      'ds["S2L2A"].attrs["units"] = "1"'),
    F("scale.units", "counts by band", lambda: xr.decode_cf(bands(scale_factor=1e-4, units="dn")), S2,
      "for name in ["),
    F("units.unknown", "furlongs", lambda: ds(units="furlong"), S2, "units = 'DN'", 0),
    F("units.unknown", "dB of heights", lambda: ds("DEM", units="dB"), "DEM", "units = 'm'", 0),
    F("units.unknown", "metres of radar", lambda: ds(S1, units="m"), S1, "units = 'dB'", 0),
    F("units.unknown", "by band", lambda: ds(S1, units=("dB", "1")), S1, "units = 'dB'", 0),
    F("units.silent", "floats", lambda: ds(dtype="float32"), S2, '"units"] = "DN"', warns=True),
    F("units.silent", "by band", lambda: bands(S1, dtype="float32"), "S1RTC", "for name in", modality=S1,
      warns=True),
    F("units.silent", "heights", lambda: ds("DEM", dtype="float64"), "DEM", '"units"] = "m"', warns=True),
    F("units.silent", "an index", lambda: ds("NDVI", dtype="float32"), "NDVI", '"units"] = "1"', warns=True,
      modality="NDVI"),
    F("units.mixed", "percent", lambda: one_band(lambda da: da.assign_attrs(units="%")), "B03", "alike", 0),
    F("metadata.mixed", "no data", lambda: one_band(lambda da: da.assign_attrs(nodata=5)), "B03", "alike", 0),
    F("metadata.mixed", "packing", lambda: one_band(lambda da: da.assign_attrs(scale_factor=1e-4)), "B03",
      "alike", 0),
    F("offset.silent", "nothing said", silent, S2, "say offset=1000", 3, 1,
      NO_ITEMS, warns=True),
    F("offset.silent", "Level-1C", lambda: silent("S2L1C"), "S2L1C",
      "say offset=1000", 3, 1, NO_ITEMS, warns=True),
    F("offset.silent", "by band", lambda: split(plain(S2)), S2, "say offset=1000", 3, 1,
      NO_ITEMS, warns=True),
    F("offset.silent", "not removed", lambda: silent(boa_offset_applied=False), S2, "offset=0", 3, 1,
      NO_ITEMS, warns=True),
    F("offset.baseline", "05.09", lambda: silent(processing_baseline="05.09"), S2, "offset=0", 2, warns=True),
    F("offset.baseline", "in a name", lambda: silent(title="S2A_MSIL2A_20230625T111121_N0509_R137_T30UXC"),
      S2, "offset=0", 2, warns=True),
    F("offset.baseline", "of one date",
      lambda: series(**{"s2:processing_baseline": ("time", ["03.00", "05.09"])}), S2, "offset=0", 2,
      warns=True),
    F("offset.contradiction", "and removed", lambda: ds(boa_add_offset=-1000, boa_offset_applied=True), S2,
      "offset=1000", 2),
    F("offset.contradiction", "by band", lambda: ds(BOA_ADD_OFFSET=[-1000, 0]), S2, "offset=0", 2),
    F("offset.contradiction", "and packing",
      lambda: silent(scale_factor=1e-4, add_offset=-0.1, boa_offset_applied=1), S2, "offset=1000", 2, 0),
    F("offset.contradiction", "of dates",
      lambda: series(boa_add_offset=("time", [0, -1000]), boa_offset_applied=("time", [True, True])), S2,
      "coords={'time': ds.time}", 3, 2, fill=CODED),
    F("offset.contradiction", "against the option", ds, S2, "offset='auto'", call={"offset": 1000}),
    F("offset.unknown", "-500", lambda: ds(boa_add_offset=-500), S2, "darkest pixels", 2),
    F("offset.series", "another dimension", ds, S2, "Say offset=0", 2,
      call={"offset": xr.DataArray([0, 1000], dims="time")}),
    F("offset.series", "without coordinates", series, S2, "coords={'time': ds.time}", fill=CODED,
      call={"offset": xr.DataArray([0, 1000], dims="time")}),
    F("offset.series", "other dates", series, S2, "coords={'time': ds.time}", fill=CODED,
      call={"offset": xr.DataArray([0, 1000], coords={"time": [0, 7]})}),
]  # fmt: skip

TOKENS = [
    F("tokens.modality", "of colours", lambda: tokens("RGB"), "dem_tokens", "terramind_tokens", 0),
    F("dtype.tokens", "read as floats", lambda: tokens(dtype="float32"), "dem_tokens", ".fillna(65535)"),
    F("shape.layers", "three", lambda: tokens().expand_dims(band=3), "dem_tokens", "isel(band=0)"),
    F("shape.silent", "not said", lambda: tokens(terramind_rows=None), "dem_tokens", "shape=(64, 64)",
      warns=True),
    F("vocabulary.silent", "no codebook", lambda: tokens(codebook=None), "dem_tokens", "model=", 0,
      warns=True),
    F("vocabulary.contradiction", "7", lambda: tokens(vocabulary_size=7), "dem_tokens", "tokenize again", 0),
    F("resolution.other", "resampled", lambda: tokens().assign_coords(axes(4, 4)), "dem_tokens", "without",
      0),
    F("resolution.irregular", "a row of tokens is missing", lambda: tokens(size=(6, 4)).isel(y=[0, 1, 3, 4]),
      "dem_tokens", "as tokenize made them", 0),
    F("dimensions.spatial", "rows", lambda: tokens().rename(y="rows", x="columns"), "dem_tokens",
      "tokens.rename({'rows': 'y', 'columns': 'x'})"),
]  # fmt: skip

GRID = [
    F("crs.missing", "none", lambda: ds().drop_vars("spatial_ref"), S2, "write_crs", fill=WRITE, warns=True),
    F("crs.missing", "of bands", lambda: bands().drop_vars("spatial_ref"), S2, "write_crs", fill=WRITE,
      warns=True),
    F("crs.unreadable", "nonsense", lambda: with_crs("EPSG:nonsense"), S2, "write_crs", fill=WRITE),
    F("crs.unreadable", "two", lambda: ds(**{"proj:epsg": [32632, 32633]}).drop_vars("spatial_ref"), S2,
      "write_crs", fill=WRITE),
    F("resolution.silent", "no coordinates", lambda: ds().drop_vars(["y", "x"]), S2, "10 m", 0, warns=True),
    F("resolution.silent", "one pixel", lambda: ds().isel(y=[0], x=[0]), S2, "coordinates y and x", 0,
      warns=True),
    F("resolution.other", "20 m", lambda: plain(S2, step=20.0).to_dataset(), S2, "align()"),
    F("resolution.other", "20 m by band", lambda: split(plain(S2, step=20.0)), S2, "align()"),
    F("resolution.other", "30 m of heights", lambda: single("DEM", step=30.0).to_dataset(), "DEM", "align()"),
    F("resolution.other", "degrees", lambda: geographic(ds()), S2, "align()"),
    F("resolution.other", "web mercator", lambda: ds().rio.write_crs(3857), S2, "align()"),
    F("resolution.other", "a little off", lambda: plain(S2, step=10.3).to_dataset(), S2, "align()",
      warns=True),
    F("resolution.irregular", "a row is missing", lambda: ds().isel(y=[0, 1, 3, 4]), S2, "reindex(y="),
    F("resolution.irregular", "rows and columns", lambda: ds().isel(y=[0, 1, 3], x=[0, 2, 3, 4]), S2,
      "x=np."),
    F("resolution.irregular", "NaN", lambda: ds().assign_coords(x=[0.0, 10, 20, 30, np.nan]), S2,
      "notnull()"),
    F("resolution.irregular", "not sorted", lambda: ds().isel(y=[1, 0, 2, 3, 4]), S2, "sortby("),
    F("resolution.irregular", "a row twice", lambda: ds().isel(y=[0, 1, 1, 2, 3]), S2, "drop_duplicates("),
    F("grid.bands", "20 m", lambda: one_band(other_grid), "B03", "align()"),
    F("grid.bands", "60 m", lambda: one_band(lambda da: other_grid(da, 60.0, 2)), "B03", "align()"),
    F("grid.bands", "dimensions turned", lambda: one_band(lambda da: da.transpose("x", "y")), "B03",
      "transpose"),
    F("grid.tree", "10 and 20 m", lambda: tree(r10m=bands()[["B02", "B03", "B04", "B08"]].rename(
        {name: name.lower() for name in ("B02", "B03", "B04", "B08")}), r20m=split(plain(S2, 3, 3, 20.0))[
            ["B01", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"]]), "DataTree", "align()"),
    F("grid.tree", "one group", lambda: tree(scene=ds()), "DataTree", "align()"),
    F("bands.twice", "two scenes", lambda: tree(**{"a/r10m": ds(), "b/r10m": ds()}), S2, "tree['/a']"),
    F("bands.none", "a tree of something", lambda: tree(a=ds().rename(S2L2A="foo")), "DataTree", "tree[path]",
      fill={"path": "'/a'"}, pick=-1),
    F("grid.radar", "slant range", lambda: tree(vv=radar_product()), "/vv", "sarsen", 0),
    F("alignment.modalities", "heights at 20 m", lambda: ds().assign(
        DEM=single("DEM", 3, 3, step=20.0).rename(y="lat", x="lon")), "DEM", "align()"),
    F("alignment.modalities", "radar of the next zone", lambda: ds().assign({S1: plain(S1).rio.write_crs(
        32633, grid_mapping_name="crs33").rename(y="northing", x="easting", band="pol")}), S1, "align()"),
]  # fmt: skip

SAMPLED = [
    F("sample.few", "no valid pixel", lambda: real("DEM", lambda v: v * np.float32("nan")), "DEM", "picture",
      0),
    F("sample.units", "dB called linear", lambda: real(S1, units="1"), S1, '"units"] = "dB"'),
    F("sample.units", "by band", lambda: real(S1, several=True, units="1"), "S1RTC", "for name", modality=S1),
    F("sample.scale", "percent", lambda: real(change=lambda v: v * 1e-2), S2, '= "percent"'),
    F("sample.scale", "a tenth", lambda: real(change=lambda v: v * 0.1), S2, '= "0.001"'),
    F("sample.scale", "ten times", lambda: real(change=lambda v: v * 10.0), S2, '= "0.00001"'),
    F("sample.scale", "a tenth by band", lambda: real(change=lambda v: v * 0.1, several=True), S2,
      "for name"),
    F("sample.scale", "dB × 100", lambda: real(S1, lambda v: (v * 100).astype("int16")), S1, "Divide", 0),
    F("sample.bands", "B04 and B08", lambda: real(several=True).rename(B04="B08", B08="B04"), S2, "rename("),
    F("sample.bands", "B03 and B11", lambda: real(several=True).rename(B03="B11", B11="B03"), S2, "rename("),
    F("sample.bands", "in a dimension", lambda: real(S1, lambda v: v[::-1]), S1, "VV and VH", 0),
    F("sample.distance", "above all mountains", lambda: real("DEM", lambda v: v * 0 + np.float32(8500)),
      "DEM",
      "unit and scale", 0),
    F("offset.pixels", "1000, silent", lambda: real(change=lambda v: v + 1000, boa_add_offset=None), S2,
      "attrs.update("),
    F("offset.pixels", "by band", lambda: real(change=lambda v: v + 1000, boa_add_offset=None, several=True),
      S2, "for name in"),
    F("offset.contradiction", "1000, said 0", lambda: real(change=lambda v: v + 1000), S2, "attrs.update("),
    F("offset.contradiction", "0, said 1000", lambda: real("S2L1C", boa_add_offset=-1000), "S2L1C",
      "update("),
    F("offset.undecided", "clouds alone", lambda: real(change=lambda v: v // 2 + 6000, boa_add_offset=None),
      S2,
      "offset=1000", 2),
]  # fmt: skip

VALUES = [
    F("values.infinite", "a division by zero", lambda: real(change=lambda v: row(v.astype("f4"), np.inf)), S2,
      "np.isfinite"),
    F("values.infinite", "by band", lambda: real(change=lambda v: row(v.astype("f4"), np.inf), several=True),
      S2, "ds = ds.where(np.isfinite(ds))"),
    F("values.infinite", "the logarithm of 0", lambda: real(S1, lambda v: row(v, -np.inf)), S1,
      "np.isfinite"),
    F("values.nodata", "-9999", lambda: real("DEM", lambda v: row(v, -9999)), "DEM", '"_FillValue"] = -9999'),
    F("values.nodata", "-32768", lambda: real(S1, lambda v: row(v, -32768)), S1, '"_FillValue"] = -32768'),
    F("values.nodata", "65535", lambda: real(change=lambda v: row(v, 65535)), S2, '"_FillValue"] = 65535'),
    F("values.nodata", "lowest float", lambda: real("DEM", lambda v: row(v, np.finfo("f4").min)), "DEM",
      "e+38"),
    F("values.nodata", "by band", lambda: real(S1, lambda v: row(v, -9999), several=True), "S1RTC",
      "for name",
      modality=S1),
    F("values.reflectance", "called DN", lambda: real(change=lambda v: v * 1e-4), S2, '"units"] = "1"'),
    F("values.reflectance", "by band", lambda: real(change=lambda v: v * 1e-4, several=True), S2, "for name"),
    F("values.reflectance", "Level-1C", lambda: real("S2L1C", lambda v: v * 1e-4), "S2L1C", '"units"] = "1"'),
    F("values.digital", "called reflectance", lambda: real(units="1"), S2, '"units"] = "DN"'),
    F("values.scale", "of 16 bits", lambda: real(change=lambda v: v * 0 + 40_000 + np.arange(128)), S2,
      "10000", 0),
    F("values.wrapped", "1000 off uint16", lambda: real(change=lambda v: v.astype("u2") - np.uint16(1000)),
      S2,
      "Read them anew", 1, -1),
    F("values.offset", "taken off twice", lambda: real(change=lambda v: v.astype("i4") - 1000), S2, "+ 1000",
      2, 0),
    F("values.offset", "by band", lambda: real(change=lambda v: v.astype("i4") - 1000, several=True), S2,
      "+ 1000", 2, 0),
    F("values.offset", "of reflectance", lambda: real(change=lambda v: v * 1e-4 - 0.1, units="1"), S2,
      "+ 0.1", 2, 0),
    F("values.power", "called dB", lambda: real(S1, lambda v: 10 ** (v / 10)), S1, '"units"] = "1"'),
    F("values.power", "of GRD, by band", lambda: real("S1GRD", lambda v: 10 ** (v / 10), several=True),
      "S1GRD",
      "for name", modality="S1GRD"),
    F("values.uncalibrated", "counts", lambda: real(S1, lambda v: 1e6 * 10 ** (v / 10), units="1"), S1,
      "Calibrate", 1, -1),
    F("values.heights", "centimetres", lambda: real("DEM", lambda v: v * 0 + np.float32(25_000.5)), "DEM",
      '= "cm"', 2, 0),
    F("values.heights", "-10000", lambda: real("DEM", lambda v: row(v, -10_000)), "DEM", "= -10000", 2, 1),
    F("values.index", "percent", lambda: real("NDVI", lambda v: v * 100), "NDVI", '"percent"',
      modality="NDVI"),
    F("values.index", "ten thousandths", lambda: real("NDVI", lambda v: (v * 1e4).astype("i2")), "NDVI",
      '"0.0001"', modality="NDVI"),
    F("values.colours", "from 0 to 1", lambda: real("RGB", lambda v: v / 255), "RGB", "by 255", 0,
      modality="RGB"),
    F("values.colours", "of 12 bits", lambda: real("RGB", lambda v: v * 16.0), "RGB", "0…255", 0,
      modality="RGB"),
    F("values.codes", "255", lambda: real("LULC", lambda v: row(v, 255)), "LULC", "= 255", modality="LULC"),
    F("values.codes", "WorldCover's", lambda: real("LULC", lambda v: v * 10), "LULC", "1 water", 1, -1,
      modality="LULC"),
]  # fmt: skip

MASKS = [
    F("", "no such mask", ds, "mask='SCL'", "found no such variable", call={"mask": "SCL"},
      fill={"mask=clouds": "mask=ds.S2L2A[0] > 5"}),
    F("", "unknown codes", clouds, "mask='classes'", "Say which", call={"mask": "classes"},
      fill={"[1, 2]": "[8, 9]"}),
    F("", "codes in words", clouds, "SCL", "whole numbers", 0, call={"mask": {"SCL": ["cloud"]}}),
    F("mask.inputs", "clouds of radar", lambda: ds(S1, units="dB").assign(SCL=single("LULC", dtype="uint8")),
      "mask='SCL'",
      "name them: mask={'S1RTC': 'SCL'}", call={"mask": "SCL"}),
    F("mask.inputs", "of no input", clouds, "one for 'DEM'", "inputs: S2L2A", 0,
      call={"mask": {"DEM": "SCL"}}),
    F("mask.codes", "floats", lambda: masked(lambda m: m.astype("f4")), "mask of S2L2A", "mask > 0",
      call={"mask": None}),
    F("mask.codes", "codes as an array", lambda: masked(lambda m: m.astype("u1") * 8), "mask of S2L2A",
      "isin", call={"mask": None}),
    F("mask.grid", "another place", lambda: masked(lambda m: m.assign_coords(x=m.x + 5)), "mask of S2L2A",
      "mask.reindex(", call={"mask": None}),
    F("mask.places", "no coordinates", lambda: masked(lambda m: m.drop_vars(["y", "x"])), "mask of S2L2A",
      "mask.assign_coords", call={"mask": None}),
    F("mask.dimensions", "layers", lambda: masked(lambda m: m.expand_dims(band=2)), "mask of S2L2A",
      "mask.any('band')", call={"mask": None}),
    F("mask.dimensions", "dates", lambda: masked(lambda m: m.expand_dims(time=2)), "mask of S2L2A",
      "mask.any('time')", 2, call={"mask": None}),
    F("mask.grid", "another CRS", lambda: masked(lambda m: m.rio.write_crs(32633)), "mask of S2L2A",
      ".terramind.align(", call={"mask": None}),
    F("mask.type", "an array of numpy", lambda: masked(np.asarray), "mask of S2L2A",
      "xr.DataArray(mask, coords=", 0, call={"mask": None}),
    F("", "offset of 500", ds, "offset is 500", "'auto', 'infer', 0 or 1000", 0, call={"offset": 500}),
]  # fmt: skip

GUESSES = (
    "sample.few",
    "sample.scale",
    "sample.bands",
    "sample.distance",
    "offset.pixels",
    "offset.undecided",
)
LOOKED_AT = [replace(each, sample=True, warns=each.kind in GUESSES) for each in (*SAMPLED, *VALUES)]
FAULTS = [*BANDS, *NUMBERS, *TOKENS, *GRID, *LOOKED_AT, *MASKS]

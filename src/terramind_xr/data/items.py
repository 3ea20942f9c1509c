"""What STAC items say of the numbers, given back to data whose loader dropped it.

Sources
-------
- Fields: github.com/stac-extensions/raster v1 (``raster:bands``) and v2 (``raster:scale`` of an asset or of
  its ``bands``), github.com/stac-extensions/processing, github.com/stac-extensions/sentinel-2.
- Items that keep ``offset`` = -0.1 where ``earthsearch:boa_offset_applied`` is true, and flags that are
  wrong: github.com/Element84/earth-search, issues 24, 66 and 71.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.labels import band_of
from terramind_xr.data.layout import ModalityInput, listed
from terramind_xr.data.metadata import APPLIED_KEYS, BASELINE_KEYS, is_true, number
from terramind_xr.data.products import FAMILIES, product_of
from terramind_xr.data.report import Report
from terramind_xr.data.search import Found, as_dataset, find_inputs
from terramind_xr.errors import warn
from terramind_xr.facts import modalities

Raster = TypeVar("Raster", xr.Dataset, xr.DataArray)

_BASELINES = (*BASELINE_KEYS, "processing:version", "sentinel:processing_baseline")
_APPLIED = (*APPLIED_KEYS, "sentinel:boa_offset_applied")
# "S2A_MSIL2A_20200714T115221_N0214_R123_T28QCH_20200714T191310"; N9999 stands for none.
_BASELINE_IN_NAME = re.compile(r"^S2\w_MSIL\w\w_\w+?_N(?!9999)(\d\d)(\d\d)_")
_S2 = modalities["S2L1C"]  # has the bands of both levels
_REFLECTANCE_SCALE = 1e-4


@dataclass(frozen=True)
class Item:
    """One STAC item, as far as it is told here.

    Parameters
    ----------
    id
        Its name.
    time
        Acquisition, in UTC without a zone, as loaders have it.
    longitude
        Of its centre, by which loaders tell the solar day; NaN where nothing says where it lies.
    properties
        Those of the item, with its ``collection``.
    scales
        Every ``(scale, offset)`` that is said of a Sentinel-2 band, by band.
    """

    id: str
    time: pd.Timestamp
    longitude: float
    properties: Mapping[str, Any]
    scales: Mapping[str, frozenset[tuple[float, float]]]

    @classmethod
    def of(cls, item: Any) -> Item:
        """From a pystac Item or its dict."""
        told = item if isinstance(item, Mapping) else item.to_dict(include_self_link=False)
        properties = {"collection": told.get("collection"), **told["properties"]}
        time = pd.Timestamp(properties.get("datetime") or properties.get("start_datetime"))
        time = time if time.tz is None else time.tz_convert("UTC").tz_localize(None)
        box = told.get("bbox") or [math.nan]
        longitude = (box[0] + box[len(box) // 2]) / 2
        return cls(str(told["id"]), time, longitude, properties, _scales(told.get("assets", {})))

    def said(self, *keys: str) -> Any:
        """The first of the properties that is there, or None."""
        return next((self.properties[key] for key in keys if self.properties.get(key) is not None), None)

    @property
    def product(self) -> str | None:
        """Modality that the item is of, where it says so without contradiction."""
        found = {name for family in FAMILIES for name in product_of(self.properties, family)}
        return found.pop() if len(found) == 1 else None

    @property
    def baseline(self) -> str | None:
        """Processing baseline of Sentinel-2, if need be from the name of the product."""
        value = self.said(*_BASELINES)
        if number(value) is not None:
            return str(value)
        names = (self.said("s2:product_uri"), self.said("sentinel:product_id"), self.id)
        found = next((match for name in names if (match := _BASELINE_IN_NAME.search(str(name)))), None)
        return f"{found[1]}.{found[2]}" if found else None

    @property
    def software(self) -> str | None:
        """What made it, as ``name version``."""
        value = self.said("processing:software")
        return " ".join(f"{name} {of}" for name, of in value.items()) if isinstance(value, Mapping) else value

    @property
    def crs(self) -> str | None:
        """Its CRS, as a code."""
        code, epsg = self.said("proj:code"), self.said("proj:epsg")
        return str(code) if code is not None else f"EPSG:{epsg}" if epsg is not None else None

    @property
    def is_applied(self) -> bool:
        """Whether the catalogue says that it took the offset off the numbers."""
        return is_true(self.said(*_APPLIED))

    def scaling(self, bands: Collection[str]) -> frozenset[tuple[float, float]]:
        """Every ``(scale, offset)`` of some bands."""
        return frozenset().union(*(self.scales.get(band, ()) for band in bands))

    @property
    def solar_day(self) -> dt.date:
        """Date at its longitude, four minutes for each degree."""
        seconds = 0 if math.isnan(self.longitude) else int(self.longitude * 240)
        day: dt.date = (self.time + pd.Timedelta(seconds=seconds)).date()
        return day


def with_stac(obj: Raster, items: Any, *, rescaled: bool | None = None) -> Raster:
    """Give data the radiometry, product and CRS that its loader dropped, from its STAC items.

    odc-stac gives pixels alone: scale, offset and processing baseline stay in the items. Here each date gets
    those of its items, as coordinates that every verb reads. No pixel is read or changed.

    Parameters
    ----------
    obj
        What was loaded, with the bands as variables or along a dimension.
    items
        The items: of pystac, as dicts, an ItemCollection, or a FeatureCollection. Those that were not loaded
        do no harm. A date is matched by the coordinate ``id`` where there is one, else by its time, and by
        its solar day where that holds several items.
    rescaled
        Whether the loader applied scale and offset, as stackstac does by default. Integers were not
        rescaled; of floats it must be said.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        The same data, with ``boa_add_offset`` and ``s2:processing_baseline`` along time, the product and, of
        floats, the units in its attributes, and ``proj:code`` where it had no CRS.

    Raises
    ------
    InputError
        A date has no item, or items that contradict each other, or an offset that was in the numbers twice.

    Examples
    --------
    >>> import numpy as np, terramind_xr
    >>> time = np.array(["2023-06-25T23:46:21"], "datetime64[ns]")
    >>> ds = xr.Dataset(
    ...     {name: (("time", "y", "x"), np.ones((1, 4, 4), "uint16")) for name in ("red", "nir")},
    ...     coords={"time": time},
    ... )
    >>> asset = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
    >>> item = {
    ...     "id": "S2A_T01WCP",
    ...     "properties": {"datetime": "2023-06-25T23:46:21Z", "s2:processing_baseline": "05.09"},
    ...     "assets": {"red": asset, "nir": asset},
    ... }
    >>> ds = terramind_xr.with_stac(ds, [item])
    >>> ds["boa_add_offset"].values, ds["s2:processing_baseline"].values
    (array([-1000.]), array(['05.09'], dtype='<U5'))
    """
    groups = _groups(as_dataset(obj), [Item.of(item) for item in _each(items)])
    checks: list[Check] = []
    product = _one("product", [item for group in groups for item in group], lambda item: item.product, checks)
    if product is not None:
        obj = obj.assign_attrs({"modality" if isinstance(obj, xr.DataArray) else "product": product})
    found: Found = find_inputs(as_dataset(obj))
    given = [*found.inputs.values(), *found.faulty.values()]
    optical = [each for each in given if each.modality.is_optical]
    coords: dict[str, list[Any]] = {
        "processing:software": [
            _one("software", group, lambda item: item.software, checks) for group in groups
        ]
    }
    if optical:
        bands = {band for each in optical for band in each.modality.band_names}
        is_scaled = _is_scaled(optical[0], groups, bands, rescaled, checks)
        coords["boa_add_offset"] = [_added(group, bands, is_scaled, checks) for group in groups]
        coords["s2:processing_baseline"] = [
            _one("processing baseline", group, lambda item: item.baseline, checks) for group in groups
        ]
        if optical[0].data.dtype.kind == "f":
            obj = _with_units(obj, optical[0].variables, "1" if is_scaled else "DN")
    codes = {item.crs for group in groups for item in group}
    if given and given[0].grid.crs is None and len(codes) == 1 and None not in codes:
        obj = obj.assign_coords({"proj:code": codes.pop()})
    Report(tuple(dict.fromkeys(checks))).raise_for_errors()
    for check in dict.fromkeys(checks):
        warn(str(check))
    return _with_coords(obj, coords)


def _each(items: Any) -> list[Any]:
    """Items of whatever holds them."""
    if isinstance(items, Mapping):
        return list(items["features"]) if "features" in items else [items]
    return [items] if hasattr(items, "to_dict") and hasattr(items, "assets") else list(items)


def _scales(assets: Mapping[str, Any]) -> dict[str, frozenset[tuple[float, float]]]:
    """What is said of each Sentinel-2 band, in all spellings of the raster extension."""
    found: dict[str, set[tuple[float, float]]] = {}
    for key, asset in assets.items():
        bands = asset.get("eo:bands") or asset.get("bands") or [{}]
        rasters = asset.get("raster:bands") or asset.get("bands") or [{}]
        for band, raster in zip(bands, rasters, strict=False):
            labels = (band.get("name"), key, band.get("eo:common_name"), band.get("common_name"))
            name = next((of for label in labels if label and (of := band_of(str(label), _S2))), None)
            scale, offset = (
                _first((raster, asset), (f"raster:{each}", each)) for each in ("scale", "offset")
            )
            if name is not None and (scale, offset) != (None, None):
                found.setdefault(name, set()).add((1.0 if scale is None else scale, offset or 0.0))
    return {name: frozenset(said) for name, said in found.items()}


def _first(places: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> float | None:
    values = (number(place.get(key)) for place in places for key in keys)
    return next((value for value in values if value is not None), None)


def _groups(obj: xr.Dataset, items: list[Item]) -> list[list[Item]]:
    """Items of each date of the data; all of them for data without dates."""
    if "time" not in obj.coords:
        return [items] if items else _refuse(obj, [])
    times = pd.DatetimeIndex(np.ravel(obj["time"].values))
    ids = np.ravel(obj["id"].values) if "id" in obj.coords and obj["id"].dims == obj["time"].dims else None
    groups, missing = [], []
    for place, time in enumerate(times):
        if ids is not None:
            group = [item for item in items if item.id == ids[place]]
        else:
            group = _of_time(time, times, items)
        groups.append(group)
        missing += [] if group else [str(time) if ids is None else str(ids[place])]
    return _refuse(obj, missing) if missing else groups


def _of_time(time: pd.Timestamp, times: pd.DatetimeIndex, items: list[Item]) -> list[Item]:
    """Items of a date: those of its solar day, unless the data has several times of that day."""
    exact = [item for item in items if abs(item.time - time) < pd.Timedelta("1ms")]
    if not exact:  # lazycogs gives the day
        return [item for item in items if item.time.normalize() == time]
    days = {item.solar_day for item in exact}
    group = [item for item in items if item.solar_day in days]
    others = [each for each in times if each != time and any(item.time == each for item in group)]
    return exact if others else group


def _refuse(obj: xr.Dataset, missing: list[str]) -> list[list[Item]]:
    Report((Check(
        "time" if "time" in obj.coords else "items", "items.unmatched", "error",
        f"no item for {listed(missing, 5)}" if missing else "no items",
        "the items that the data was loaded from",
        "Give all of them, as they were given to the loader.",
    ),)).raise_for_errors()  # fmt: skip
    return []


def _one(what: str, group: list[Item], told: Callable[[Item], Any], checks: list[Check]) -> Any:
    """What the items of a date say with one voice; None where they say nothing."""
    said = {value: item.id for item in group if (value := told(item)) is not None}
    if len(said) > 1:
        which = ", ".join(f"{value} in {name}" for value, name in said.items())
        checks.append(Check(
            "items", "items.contradiction", "error", f"more than one {what} ({which})",
            "one for all items of a date",
            "Load them apart, a date for each item: odc.stac.load(items, groupby='id').",
        ))  # fmt: skip
    return next(iter(said), None)


def _is_scaled(
    given: ModalityInput,
    groups: list[list[Item]],
    bands: Collection[str],
    rescaled: bool | None,
    checks: list[Check],
) -> bool:
    """Whether the numbers are reflectance by now, and the faults that forbid to tell."""
    scales = {scale for group in groups for item in group for scale, _ in item.scaling(bands)}
    is_float = given.data.dtype.kind == "f"
    if is_float and rescaled is None and scales - {1.0}:
        checks.append(Check(
            given.title, "items.rescaled", "error", "floats, and nothing tells whether they were rescaled",
            "to be told whether the loader applied scale and offset of the items",
            "Say it: ds = ds.terramind.with_stac(items, rescaled=True) if it did, as stackstac does by "
            "default, else rescaled=False.",
        ))  # fmt: skip
    elif rescaled and not is_float:
        checks.append(Check(
            given.title, "items.rescaled", "error", f"rescaled=True, and dtype {given.data.dtype}",
            "floats, as rescaled numbers are", "Leave rescaled out: integers are as they were stored.",
        ))  # fmt: skip
    if any(not math.isclose(scale, _REFLECTANCE_SCALE, rel_tol=1e-6) for scale in scales):
        checks.append(Check(
            given.title, "items.scale", "error", f"scale {', '.join(map(str, sorted(scales)))} in the items",
            f"{_REFLECTANCE_SCALE}, as in products of Sentinel-2",
            "Convert the numbers to reflectance by hand, and set units = '1' and boa_add_offset = 0.",
        ))  # fmt: skip
    return bool(rescaled and scales)


def _added(group: list[Item], bands: Collection[str], is_scaled: bool, checks: list[Check]) -> float | None:
    """What is still to be added to the digital numbers of a date, 0 or -1000; None where nothing tells."""

    def told(item: Item) -> float | None:
        said = {round(offset / scale, 3) + 0.0 for scale, offset in item.scaling(bands) if scale}
        if len(said) > 1:
            checks.append(Check(
                "items", "items.contradiction", "error", f"offsets {sorted(said)} in {item.id}",
                "one for all bands", "Say it yourself in the call that follows: offset=0 or offset=1000.",
            ))  # fmt: skip
        stored = next(iter(said), None)
        if item.is_applied and stored:
            checks.append(_applied(item, stored, is_scaled))
        return 0.0 if item.is_applied or (is_scaled and said) else stored

    return _one("offset", group, told, checks)  # type: ignore[no-any-return]


def _applied(item: Item, stored: float, is_scaled: bool) -> Check:
    """The catalogue says that the offset is off the numbers, and gives it all the same."""
    collection = item.said("collection") or item.id
    if is_scaled:
        return Check(
            str(collection), "items.rescaled", "error",
            f"an offset of {stored:g} that the loader applied, and boa_offset_applied", "it once",
            "Load the numbers as they are stored: stackstac.stack(items, rescale=False).",
        )  # fmt: skip
    return Check(
        str(collection), "items.applied", "warning",
        f"boa_offset_applied, and an offset of {stored:g}: taken for numbers without it", "one of them",
        "Look at the darkest pixels: water near 1000 or above means offset=1000.",
    )  # fmt: skip


def _with_units(obj: Raster, names: Sequence[str], units: str) -> Raster:
    if isinstance(obj, xr.DataArray):
        return obj.assign_attrs(units=units)
    return obj.assign({name: obj[name].assign_attrs(units=units) for name in names})


def _with_coords(obj: Raster, coords: Mapping[str, list[Any]]) -> Raster:
    """What is said of each date, along time; what nothing says of any is left out."""
    dims = obj["time"].dims if "time" in obj.coords else ()
    told = {}
    for key, values in coords.items():
        if any(value is not None for value in values):
            blank = "" if any(isinstance(value, str) for value in values) else math.nan
            filled = np.array([blank if value is None else value for value in values])
            told[key] = (dims, filled if dims else filled[0])
    return obj.assign_coords(told)

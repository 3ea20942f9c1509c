"""Results as STAC items: where and when they are, by which model, and from what.

Sources
-------
- Fields and their meaning: github.com/radiantearth/stac-spec 1.1, github.com/stac-extensions/projection 2.0
  and github.com/stac-extensions/mlm 1.4, json-schema/schema.json; pystac writes them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from terramind_xr.conventions import model_url, where
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import TILE, Modality, modalities
from terramind_xr.grid import is_by_tile

if TYPE_CHECKING:
    import pystac

Time = str | dt.datetime | np.datetime64

_POINTS = 16
"""Parts of each side of a footprint: straight lines of a projection are not straight in degrees."""


def stac_item(
    obj: xr.Dataset | xr.DataArray,
    *,
    id: str | None = None,
    href: str | None = None,
    datetime: Time | None = None,
) -> pystac.Item:
    """Describe a result as a STAC item, with the extensions ``proj`` and ``mlm``.

    Nothing is read or computed.

    Parameters
    ----------
    obj
        A result of this package, such as one of `embed` or `generate`, with coordinates and a CRS.
    id
        Of the item; by default made of the name and of what the result is.
    href
        Where the result is stored, for the asset ``data``; without it there is no such asset.
    datetime
        When the data was acquired, in UTC; by default from the coordinate ``time``.

    Returns
    -------
    pystac.Item
        With the footprint in WGS 84, the grid (``proj:code`` or ``proj:wkt2``, ``proj:shape``,
        ``proj:transform``), the model and its inputs (``mlm:input`` with bands, mean and standard
        deviation), and the result as ``mlm:output``. The asset ``model`` says where the model is described.

    Raises
    ------
    InputError
        `obj` is no result, or one by tile, its place is not known, or nothing says its time.
    OptionError
        `datetime` is no time.

    Examples
    --------
    >>> import terramind_xr
    >>> embedding = terramind_xr.synthetic.scene(224).terramind.embed(model="demo")
    >>> item = terramind_xr.stac_item(embedding, href="s3://bucket/e.zarr", datetime="2024-06-01")
    >>> item.properties["mlm:name"], item.properties["proj:code"], item.properties["proj:shape"]
    ('demo', 'EPSG:32632', [14, 14])
    """
    import pystac
    from pystac.extensions.projection import ProjectionExtension

    results = _results(obj)
    first = _first_raster(results)
    place = where(first)
    if "spatial:bbox" not in place or "proj:wkt2" not in place:
        raise InputError(
            f"{first.name}: nothing says where it lies; expected coordinates along y and x, and a CRS. Give "
            "both: result.assign_coords(y=…, x=…).rio.write_crs('EPSG:…')."
        )
    geometry, bbox = _footprint(first, place)
    when = _times(first, datetime)
    item = pystac.Item(
        id=id or _identifier(results, place),
        geometry=geometry,
        bbox=bbox,
        datetime=when[0] if len(when) == 1 else None,
        properties={"gsd": abs(place["spatial:transform"][0])} if _is_metric(place) else {},
        **({"start_datetime": when[0], "end_datetime": when[-1]} if len(when) > 1 else {}),
    )
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=place.get("proj:code"),
        wkt2=None if "proj:code" in place else place["proj:wkt2"],
        shape=place["spatial:shape"],
        transform=place["spatial:transform"],
        bbox=place["spatial:bbox"],
    )
    if href is not None:
        kind = "application/vnd.zarr" if href.rstrip("/").endswith(".zarr") else None
        item.add_asset("data", pystac.Asset(href, media_type=kind, roles=["data"]))
    _add_model(item, results)
    return item


def _results(obj: xr.Dataset | xr.DataArray) -> list[xr.DataArray]:
    """The variables that a model of this package made."""
    every = list(obj.data_vars.values()) if isinstance(obj, xr.Dataset) else [obj]
    found = [each for each in every if isinstance(each, xr.DataArray) and "terramind_model" in each.attrs]
    if not found:
        raise InputError(
            f"found {type(obj).__name__} without the attribute terramind_model, expected a result of this "
            "package. Give it as embed or generate returned it, or as it was stored: attributes tell how it "
            "was made (xr.set_options(keep_attrs=True) keeps them in arithmetic)."
        )
    return found


def _first_raster(results: list[xr.DataArray]) -> xr.DataArray:
    """The variable whose grid is the item's."""
    for each in results:
        if not is_by_tile(each):
            return each
    raise InputError(
        f"{results[0].name}: dimensions {tuple(map(str, results[0].dims))}; expected rows and columns of a "
        "raster, and tiles overlap. Describe a result on pixels or patches instead: embed(pool=None)."
    )


def _footprint(data: xr.DataArray, place: dict[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """Polygon and bounding box in longitude and latitude."""
    from pyproj import Transformer

    west, south, east, north = place["spatial:bbox"]
    steps = np.arange(_POINTS) / _POINTS
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    ring = [
        (x0 + step * (x1 - x0), y0 + step * (y1 - y0))
        for (x0, y0), (x1, y1) in itertools.pairwise(corners)
        for step in steps
    ]
    to_degrees = Transformer.from_crs(place["proj:wkt2"], "OGC:CRS84", always_xy=True)
    lon, lat = (np.round(np.asarray(each), 7) for each in to_degrees.transform(*zip(*ring, strict=True)))
    if not np.isfinite([lon, lat]).all() or np.ptp(lon) > 180:
        raise InputError(
            f"{data.name}: its footprint crosses the 180th meridian, or has no place in degrees; a polygon "
            "cannot say that. Cut the result in two, and make an item of each."
        )
    points = np.stack([lon, lat], axis=1).tolist()
    bbox = [float(each) for each in (lon.min(), lat.min(), lon.max(), lat.max())]
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}, bbox


def _times(data: xr.DataArray, given: Time | None) -> list[dt.datetime]:
    """The first and the last acquisition, or the only one."""
    if given is None and "time" not in data.coords:
        raise InputError(
            f"{data.name}: nothing says when it was acquired (no coordinate time). Say it: "
            "stac_item(result, datetime='2024-06-01T10:30')."
        )
    try:
        times = pd.DatetimeIndex(np.ravel(data["time"].values if given is None else pd.Timestamp(given)))
    except (ValueError, TypeError) as error:
        raise OptionError(f"datetime={given!r} cannot be read ({error}); expected a time in UTC.") from None
    times = times.tz_localize("UTC") if times.tz is None else times.tz_convert("UTC")
    return [each.to_pydatetime(warn=False) for each in sorted({times.min(), times.max()})]


def _identifier(results: list[xr.DataArray], place: dict[str, Any]) -> str:
    """Name and a digest of how and where it was made."""
    told = [[each.name, {key: str(value) for key, value in each.attrs.items()}] for each in results]
    digest = hashlib.sha256(json.dumps([told, place], sort_keys=True, default=str).encode()).hexdigest()
    return f"{results[0].name}-{digest[:16]}"


def _is_metric(place: dict[str, Any]) -> bool:
    from pyproj import CRS

    axes = CRS.from_wkt(place["proj:wkt2"]).axis_info
    return bool(axes) and all(axis.unit_name == "metre" for axis in axes)


def _add_model(item: pystac.Item, results: list[xr.DataArray]) -> None:
    """The model, what it read and what it gave, by the ``mlm`` extension."""
    import pystac
    from pystac.extensions.mlm import AssetGeneralMLMExtension, Hyperparameters, MLMExtension

    attrs = results[0].attrs
    name = str(attrs["terramind_model"])
    inputs = _inputs(results[0])
    outputs = [_output(each) for each in results]
    options = {
        key.removeprefix("terramind_"): value.item() if isinstance(value, np.generic) else value
        for key, value in attrs.items()
        if key.startswith("terramind_") and isinstance(value, str | int | float | np.generic)
    }
    bands = dict.fromkeys(band for each in inputs for band in each.band_names)
    item.properties["bands"] = [{"name": band} for band in bands]
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=name,
        architecture="Vision Transformer",
        tasks=list(dict.fromkeys(task for each in outputs for task in each.tasks)),
        input=[_input(each, int(attrs.get("terramind_tile", TILE))) for each in inputs],
        output=outputs,
        framework="PyTorch",
        framework_version=str(attrs["torch_version"]) if "torch_version" in attrs else None,
        pretrained=True,
        pretrained_source="terramind_xr.synthetic" if name == "demo" else "TerraMesh",
        hyperparameters=Hyperparameters.create(**options),
    )
    asset = pystac.Asset(model_url(name), title=name, roles=["mlm:model"])
    item.add_asset("model", asset)
    AssetGeneralMLMExtension.ext(asset).apply(
        artifact_type="safetensors.torch.save_file" if name == "demo" else "torch.save"
    )


def _inputs(data: xr.DataArray) -> list[Modality]:
    """Modalities that were read, with their bands and statistics; a tokenizer's is told by the tokens."""
    told = data.attrs.get(
        "terramind_inputs", data.attrs.get("terramind_tokens", data.attrs.get("modality", ""))
    )
    found = [modalities[name] for name in str(told).split() if name in modalities]
    bands, means, stds = (_by_modality(data, name) for name in ("bands", "means", "stds"))
    found = [each.only(bands[each.name]) if each.name in bands else each for each in found]
    return [
        replace(each, mean=tuple(map(float, means[each.name])), std=tuple(map(float, stds[each.name])))
        if each.name in means and each.name in stds
        else each
        for each in found
    ]


def _by_modality(data: xr.DataArray, name: str) -> dict[str, list[str]]:
    """What `segment` says of each input: ``S2L2A: B02 B8A; S1GRD: VV VH``."""
    told = str(data.attrs.get(f"terramind_{name}", ""))
    parts = (part.partition(":") for part in told.split(";") if ":" in part)
    return {modality.strip(): values.split() for modality, _, values in parts}


def _input(modality: Modality, tile: int) -> Any:
    """One input; `modality` has the bands that were read."""
    from pystac.extensions.mlm import InputStructure, ModelInput, ValueScaling, ValueScalingType
    from pystac.extensions.raster import DataType

    found = ModelInput.create(
        name=modality.name,
        bands=list(modality.band_names),
        input=InputStructure.create(
            [-1, len(modality.bands), tile, tile], ["batch", "channel", "height", "width"], DataType.FLOAT32
        ),
        description=f"{modality.title} in {modality.units}",
    )
    # One by band, as the schema has it; pystac's own property takes a single one.
    found.properties["value_scaling"] = [
        ValueScaling.create(ValueScalingType.Z_SCORE, mean=mean, stddev=std).to_dict()
        for mean, std in zip(modality.mean, modality.std, strict=True)
    ]
    return found


def _output(data: xr.DataArray) -> Any:
    from pystac.extensions.mlm import ModelOutput, ResultStructure, TaskType
    from pystac.extensions.raster import DataType

    if "geoemb:type" in data.attrs:
        task = TaskType.SIMILARITY_SEARCH
    elif "flag_values" in data.attrs or {"lulc_class", "category"} & {*data.dims}:  # codes, probabilities
        task = TaskType.SEMANTIC_SEGMENTATION
    else:
        task = TaskType.GENERATIVE
    return ModelOutput.create(
        name=str(data.name),
        tasks=[task],
        result=ResultStructure.create(
            list(data.shape), [_dim_name(str(dim)) for dim in data.dims], DataType(str(data.dtype))
        ),
        description=str(data.attrs.get("long_name", data.name)),
    )


def _dim_name(dim: str) -> str:
    """As the schema wants it: small letters, hyphens and underscores."""
    return re.sub("[^a-z_-]", "", dim.lower()).strip("_")

"""What a store of embeddings says of itself, by the Zarr conventions ``geoemb:``, ``spatial:`` and ``proj:``.

Sources
-------
- ``geoemb:`` github.com/geo-embeddings/embeddings-zarr-convention, v1: README.md, schema.json
- ``spatial:`` github.com/zarr-conventions/spatial, v0.1: README.md, schema.json
- ``proj:`` github.com/zarr-conventions/proj, v0.1: README.md, schema.json

Attributes of an array in memory are flat (text, numbers, lists of them), and hold nothing that a crop makes
wrong. What a group in a Zarr store holds is made of them when it is written, with where the array lies.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import xarray as xr

from terramind_xr.facts import PATCH, RESOLUTION, TILE
from terramind_xr.grid import Grid, is_by_tile

CONVENTIONS: tuple[dict[str, str], ...] = (
    {
        "schema_url": "https://raw.githubusercontent.com/geo-embeddings/embeddings-zarr-convention/refs/tags/v1/"
        "schema.json",
        "spec_url": "https://github.com/geo-embeddings/embeddings-zarr-convention/blob/v1/README.md",
        "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
        "name": "geoemb:",
        "description": "Geoembeddings convention for geospatial embedding arrays with model provenance",
    },
    {
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial",
        "description": "Spatial coordinate information",
    },
    {
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj",
        "description": "Coordinate reference system information for geospatial data",
    },
)
"""As each convention asks to be registered, word for word."""

_SENTINEL_1 = "https://sentiwiki.copernicus.eu/web/s1-products"
_SENTINEL_2 = "https://sentiwiki.copernicus.eu/web/s2-products"
_TERRAMESH = "https://doi.org/10.48550/arXiv.2504.11172"
_SOURCES = {"S2L2A": _SENTINEL_2, "S2L1C": _SENTINEL_2, "S1GRD": _SENTINEL_1, "S1RTC": _SENTINEL_1}


def model_url(name: str) -> str:
    """Where a model is described: its page on the hub; the demo lies in this package."""
    if name == "demo":
        return f"pkg:pypi/terramind-xr@{importlib.metadata.version('terramind_xr')}#src/terramind_xr/demo"
    return f"https://huggingface.co/ibm-esa-geospatial/TerraMind-1.0-{name.removeprefix('terramind_v1_')}"


def embedding_attributes(data: xr.DataArray, model: str, inputs: tuple[str, ...]) -> dict[str, Any]:
    """Attributes of an embedding in memory: all required ones of ``geoemb:`` that are flat, and more.

    Parameters
    ----------
    data
        (…, feature, y, x), or by tile.
    model
        Name of the model.
    inputs
        Modalities. What was read is not known by an address: products of Sentinel-1 and -2 are named by
        their description, other modalities by that of TerraMesh, which TerraMind was trained on.
    """
    return {
        "geoemb:type": "chip",
        "geoemb:dimensions": data.sizes["feature"],
        "geoemb:model": model_url(model),
        "geoemb:source_data": list(dict.fromkeys(_SOURCES.get(name, _TERRAMESH) for name in inputs)),
        "geoemb:data_type": str(data.dtype),
        "geoemb:gsd": RESOLUTION,
        "geoemb:build_version": importlib.metadata.version("terramind_xr"),
    }


def group_attributes(ds: xr.Dataset) -> dict[str, Any]:
    """What the group of a Zarr store with embeddings holds by the conventions; empty for other datasets.

    Several embeddings that differ (in their type, say) cannot be described as one: then it is empty, too.
    """
    found = [_of_array(data) for data in ds.data_vars.values() if "geoemb:type" in data.attrs]
    return found[0] if found and all(each == found[0] for each in found) else {}


def _of_array(data: xr.DataArray) -> dict[str, Any]:
    """The three conventions for one array, as it lies now: it may be a crop, or selected features."""
    attrs = {key: _plain(value) for key, value in data.attrs.items() if str(key).startswith("geoemb:")}
    if isinstance(attrs["geoemb:source_data"], str):  # a list of one, as netCDF gives it back
        attrs["geoemb:source_data"] = [attrs["geoemb:source_data"]]
    attrs["geoemb:dimensions"] = data.sizes.get("feature", attrs["geoemb:dimensions"])
    attrs["geoemb:chip_layout"] = _chip_layout(data)
    scale = data.attrs.get("scale_factor", data.encoding.get("scale_factor"))
    if scale is not None:
        attrs["geoemb:quantization"] = {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": attrs["geoemb:data_type"],
            "scale": {"type": "scalar", "scale": float(scale), "offset": 0.0},
        }
    spatial = where(data)
    known = [each for each in CONVENTIONS if each["name"].rstrip(":") in {"geoemb", *_prefixes(spatial)}]
    return {"zarr_conventions": [dict(each) for each in known], **attrs, **spatial}


def _chip_layout(data: xr.DataArray) -> dict[str, Any]:
    """Patches side by side, or tiles, of which the last ones of a scene lie closer."""
    if is_by_tile(data):
        return {"layout_type": "irregular", "chip_size": [TILE, TILE]}
    return {"layout_type": "regular_grid", "chip_size": [PATCH, PATCH], "stride": [PATCH, PATCH]}


def where(data: xr.DataArray) -> dict[str, Any]:
    """``spatial:`` and ``proj:`` of an array; what is not known is left out, such as a raster of tiles."""
    grid = Grid.find(data)
    if grid is None:
        return {}
    transform = None if is_by_tile(data) else grid.transform
    if transform is None:  # it is required
        return crs_attributes(grid.crs)
    a, b, c, d, e, f = (float(value) for value in transform[:6])
    corners = [(col, row) for col in (0, grid.x.size) for row in (0, grid.y.size)]
    xs = [a * col + b * row + c for col, row in corners]
    ys = [d * col + e * row + f for col, row in corners]
    return {
        "spatial:dimensions": list(grid.dims),
        "spatial:shape": list(grid.shape),
        "spatial:transform": [a, b, c, d, e, f],
        "spatial:bbox": [min(xs), min(ys), max(xs), max(ys)],
        "spatial:registration": "pixel",
        **crs_attributes(grid.crs),
    }


def crs_attributes(crs: Any) -> dict[str, str]:
    """A CRS as ``proj:wkt2``, and as ``proj:code`` where it has one, as is recommended; empty without one."""
    if crs is None:
        return {}
    from pyproj import CRS

    authority = crs.to_authority()
    code = ":".join(authority) if authority is not None and authority[1].isdigit() else None
    text = CRS.from_user_input(code or crs.to_wkt()).to_wkt("WKT2_2019")
    return {"proj:wkt2": text} if code is None else {"proj:code": code, "proj:wkt2": text}


def _prefixes(attrs: dict[str, Any]) -> set[str]:
    return {key.split(":")[0] for key in attrs}


def _plain(value: Any) -> Any:
    """Numbers and lists of files as JSON knows them."""
    return value.tolist() if hasattr(value, "tolist") else value

"""Names, coordinates and attributes of results: labelled as xarray, CF and rioxarray expect."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from terramind_xr.bands.grid import crs_of, is_geographic
from terramind_xr.modalities import lulc_classes, modalities
from terramind_xr.model.execution import Execution
from terramind_xr.model.sampling import Sampling
from terramind_xr.models import Recipe


def label(
    name: str,
    data: da.Array,
    like: xr.DataArray,
    *,
    spatial: tuple[str, str],
    extra: Mapping[str, xr.DataArray],
    attrs: Mapping[str, Any],
    band_dim: str = "band",
    probabilities: bool = False,
) -> xr.DataArray:
    """Name a generated array and give it the coordinates of the input.

    Parameters
    ----------
    name
        Modality; also the name of the result.
    data
        (*extra, [band or lulc_class], y, x).
    like
        Input whose coordinates and CRS the result takes.
    spatial
        Names of the two spatial dims.
    extra
        Coordinates of the extra dims by dim, in order.
    attrs
        How the result was made.
    band_dim
        Dim of the bands of a modality that has several.
    probabilities
        Whether `data` holds class probabilities.
    """
    layer, layer_coords = _layer(name, band_dim, probabilities)
    dims = (*extra, *layer, *spatial)
    keep = {*extra, *spatial}
    coords = {key: value for key, value in like.coords.items() if set(value.dims) <= keep and key != "band"}
    for dim, index in extra.items():
        coords.update({key: value for key, value in index.coords.items() if set(value.dims) <= {dim}})
    result = xr.DataArray(data, dims=dims, coords={**coords, **layer_coords}, name=name)
    result.attrs = {**modalities[name].attributes, "modality": name, **attrs}
    if name == "LULC" and probabilities:
        result.attrs |= {"long_name": "probability of each land-cover class", "standard_name": None}
    result.attrs = {key: value for key, value in result.attrs.items() if value is not None}
    if np.issubdtype(result.dtype, np.floating):
        result.encoding["_FillValue"] = np.asarray(np.nan, result.dtype)[()]
    result = _placed(result, like, spatial)
    # Listed among a variable's coordinates, the grid mapping is one again however a file is opened.
    beside = [str(key) for key in result.coords if key not in result.dims and " " not in str(key)]
    if beside:
        result.encoding["coordinates"] = " ".join(sorted(beside))
    return result


def _placed(result: xr.DataArray, like: xr.DataArray, spatial: tuple[str, str]) -> xr.DataArray:
    """With the CRS of `like` in a grid mapping, and axes that CF readers such as rioxarray and GDAL know."""
    crs = crs_of(like)
    for dim, axis in zip(spatial, ("Y", "X"), strict=True):
        if dim in result.coords:
            variable = result.coords[dim].variable.copy(deep=False)
            variable.attrs = _axis_attributes(axis, crs, spatial[0]) | variable.attrs
            result = result.assign_coords({dim: variable})
    mapping = like.encoding.get("grid_mapping", like.attrs.get("grid_mapping", "spatial_ref"))
    if mapping in result.coords:
        result.encoding["grid_mapping"] = mapping
        reference = result.coords[mapping].variable.copy(deep=False)
        if "GeoTransform" in reference.attrs and all(dim in result.coords for dim in spatial):
            # The input may be a crop. Coordinates say it all, but for the height of a single row.
            fitting = result.rio.transform()
            del reference.attrs["GeoTransform"]
            if 1 in (result.sizes[dim] for dim in spatial):
                reference.attrs["GeoTransform"] = " ".join(map(str, fitting.to_gdal()))
            result = result.assign_coords({mapping: reference})
    if crs is not None and result.rio.crs is None:
        result = result.rio.write_crs(crs, inplace=True)
    return result


def _axis_attributes(axis: str, crs: Any, y_dim: str) -> dict[str, str]:
    """CF attributes of a spatial coordinate."""
    if is_geographic(crs, y_dim):
        name, units = ("latitude", "degrees_north") if axis == "Y" else ("longitude", "degrees_east")
        return {"axis": axis, "standard_name": name, "units": units}
    if crs is None or not crs.is_projected:
        return {"axis": axis}
    metres = {"units": "m"} if crs.linear_units_factor[1] == 1 else {}
    return {"axis": axis, "standard_name": f"projection_{axis.lower()}_coordinate", **metres}


def _layer(name: str, band_dim: str, probabilities: bool) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Dim and coordinates that stand before y and x."""
    if name == "LULC":
        if not probabilities:
            return (), {}
        return ("lulc_class",), {"lulc_class": [each.name for each in lulc_classes]}
    bands = modalities[name].band_names
    return ((band_dim,), {band_dim: list(bands)}) if len(bands) > 1 else ((), {})


def provenance(recipe: Recipe, sampling: Sampling, execution: Execution, **more: Any) -> dict[str, Any]:
    """Attributes that say how a result was made: enough to make it again, flat, for netCDF and Zarr."""
    attrs: dict[str, Any] = {
        "terramind_model": recipe.name,
        "terramind_revision": recipe.backbone.revision or None,
        **{f"terramind_{name}_sha256": digest for name, digest in recipe.digests.items()},
        "terramind_seed": int(sampling.seed),
        "terramind_temperature": float(sampling.temperature),
        "terramind_diffusion_steps": sampling.diffusion_steps,
        "terramind_clamp": sampling.clamp or "none",
        "terramind_precision": execution.precision,
        "terramind_xr_version": importlib.metadata.version("terramind_xr"),
        "terratorch_version": importlib.metadata.version("terratorch"),
        "torch_version": importlib.metadata.version("torch"),
        **{f"terramind_{key}": value for key, value in more.items()},
    }
    if sampling.temperature > 0:
        attrs |= {"terramind_top_p": float(sampling.top_p), "terramind_top_k": sampling.top_k}
    if recipe.name == "demo":
        attrs["terramind_note"] = "made with the demo model, a miniature that is not for science"
    return attrs

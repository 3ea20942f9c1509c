"""Names, coordinates and attributes of results: labelled as xarray, CF and rioxarray expect."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from terramind_xr.engine import Output
from terramind_xr.grid import Grid
from terramind_xr.model.execution import Execution
from terramind_xr.model.finetuned import Finetuned
from terramind_xr.model.recipe import Recipe


def label(
    output: Output,
    data: da.Array,
    like: xr.DataArray,
    grid: Grid,
    *,
    beside: bool,
    extra: Mapping[str, xr.DataArray],
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """Name a finished array as its kernel describes it, and give it the coordinates of the input.

    Parameters
    ----------
    output
        What the array is.
    data
        (*extra, *pixel, y, x).
    like
        Input whose coordinates the result takes.
    grid
        Where the array lies.
    beside
        Whether that is where `like` lies, so that its coordinates along y and x are those of the result, too.
    extra
        Coordinates of the extra dims by dim, in order.
    attrs
        How the result was made.
    """
    dims = (*extra, *output.dims, *grid.dims)
    keep = {*extra, *(grid.dims if beside else ())}
    held = {key: value for key, value in like.coords.items() if set(value.dims) <= keep and key != "band"}
    for dim, index in extra.items():
        held.update({key: value for key, value in index.coords.items() if set(value.dims) <= {dim}})
    coords = {key: value for key, value in held.items() if _is_storable(value)}
    result = xr.DataArray(data, dims=dims, coords={**coords, **output.coords}, name=output.name)
    result.attrs = {key: value for key, value in {**output.attrs, **attrs}.items() if value is not None}
    if np.issubdtype(result.dtype, np.floating):
        result.encoding["_FillValue"] = np.asarray(np.nan, result.dtype)[()]
    result = grid.assign(result)
    # Listed among a variable's coordinates, the grid mapping is one again however a file is opened.
    listed = [str(key) for key in result.coords if key not in result.dims and " " not in str(key)]
    if listed:
        result.encoding["coordinates"] = " ".join(sorted(listed))
    return result


def _is_storable(coordinate: xr.DataArray) -> bool:
    """Whether files take it: stackstac makes coordinates of whole dicts and sets."""
    if coordinate.dtype.kind != "O" or coordinate.chunks is not None:
        return True
    return not any(isinstance(each, dict | set | list | tuple) for each in coordinate.values.ravel().tolist())


def provenance(recipe: Recipe | Finetuned, execution: Execution, **more: Any) -> dict[str, Any]:
    """Attributes that say how a result was made: enough to make it again, flat, for netCDF and Zarr."""
    converted = (recipe.transformer, recipe.decoders) if isinstance(recipe, Recipe) else ((), ())
    backbone, decoders = (
        " ".join(sorted({each.precision for _, each in some})) or None for some in converted
    )
    attrs: dict[str, Any] = {
        "terramind_model": recipe.name,
        "terramind_revision": recipe.backbone.revision or None,
        **{f"terramind_{name}_sha256": digest for name, digest in recipe.digests.items()},
        "terramind_precision": execution.precision,
        "terramind_backbone_precision": backbone,
        "terramind_decoder_precision": decoders,
        "terramind_xr_version": importlib.metadata.version("terramind_xr"),
        "terratorch_version": importlib.metadata.version("terratorch"),
        "torch_version": importlib.metadata.version("torch"),
        **{f"terramind_{key}": value for key, value in more.items()},
    }
    if recipe.name == "demo":
        attrs["terramind_note"] = "made with the demo model, a miniature that is not for science"
    return attrs

"""Token rasters by their metadata: whose tokens they are, of which vocabulary, and of which pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.labels import band_dim
from terramind_xr.data.metadata import number
from terramind_xr.data.placement import check_place
from terramind_xr.facts import PATCH, RESOLUTION, modalities
from terramind_xr.grid import Grid

TOKENS = "terramind_tokens"
"""Attribute that says whose tokens a variable holds."""


def scene_shape(data: xr.DataArray) -> tuple[int, int] | None:
    """Rows and columns of the scene in pixels, as attributes of its tokens say; None where they do not."""
    rows, columns = (number(data.attrs.get(f"terramind_{side}")) for side in ("rows", "columns"))
    return None if rows is None or columns is None else (int(rows), int(columns))


def patches_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the patches that hold so many pixels."""
    return math.ceil(shape[0] / PATCH), math.ceil(shape[1] / PATCH)


def check_tokens(data: xr.DataArray, name: str, title: str) -> Iterator[Check]:
    """Check what holds the tokens of a modality, without reading any.

    Examples
    --------
    >>> import numpy as np
    >>> tokens = xr.DataArray(np.zeros((4, 4), "uint16"), dims=("y", "x"), attrs={TOKENS: "DEM"})
    >>> [(each.check, each.status) for each in check_tokens(tokens, "DEM", "dem")][:3]
    [('tokens', 'ok'), ('dtype', 'ok'), ('vocabulary', 'warning')]
    """
    if name not in modalities or not modalities[name].codebook:
        having = ", ".join(each for each, modality in modalities.items() if modality.codebook)
        yield Check(
            title,
            "tokens.modality",
            "error",
            f"tokens of {name!r}",
            having,
            f"Correct its attribute {TOKENS}.",
        )
        return
    yield Check(
        title, "tokens", "ok", f"tokens of {name}, no pixels", "",
        f"Decode them: detokenize(tokens). Generate from them: generate(…, inputs={{{name!r}: tokens}}).",
    )  # fmt: skip
    if data.dtype.kind in "iu":
        yield Check(title, "dtype", "ok", str(data.dtype), "")
    else:
        yield Check(
            title, "dtype.tokens", "error", f"dtype {data.dtype}", "whole numbers",
            "Read as floats, they are tokens again by tokens.fillna(65535).astype('uint16'); pixels become "
            f"tokens by tokenize({name!r}).",
        )  # fmt: skip
    yield _vocabulary(data, title)
    grid = Grid.find(data)
    if grid is None:
        yield Check(
            title, "dimensions.spatial", "error", f"dimensions {tuple(map(str, data.dims))}",
            "two spatial ones, (y, x)", "Rename them: tokens.rename({'rows': 'y', 'columns': 'x'}).",
        )  # fmt: skip
        return
    layers = band_dim(data, grid.dims)
    if layers is not None and data.sizes[layers] != 1:
        yield Check(
            title, "shape.layers", "error", f"{data.sizes[layers]} layers along {layers!r}",
            "one map of tokens",
            f"Select one: tokens.isel({layers}=0).",
        )  # fmt: skip
    else:
        yield _shape(data, grid, title)
    remedy = "Give tokens as tokenize made them, without resampling."
    yield from check_place(title, grid, PATCH * RESOLUTION, "the patch grid", remedy)


def _vocabulary(data: xr.DataArray, title: str) -> Check:
    """Whether the tokens' vocabulary is said; which one a model has is compared when they are used."""
    size = number(data.attrs.get("vocabulary_size"))
    levels = [number(level) for level in str(data.attrs.get("codebook", "")).split()]
    if size is None or not levels or None in levels:
        return Check(
            title, "vocabulary.silent", "warning", "none said", "attributes vocabulary_size and codebook",
            "Make sure that they are decoded by the model that made them: model=….",
        )  # fmt: skip
    found = f"{size:.0f} tokens ({' × '.join(f'{level:.0f}' for level in levels if level)})"
    if math.prod(level for level in levels if level is not None) != size:
        return Check(
            title, "vocabulary.contradiction", "error", found,
            "a vocabulary_size that is the product of the codebook",
            "Correct the attributes, or tokenize again.",
        )  # fmt: skip
    by = data.attrs.get("terramind_model")
    return Check(title, "vocabulary", "ok", f"{found}{f', made by {by}' if by else ''}", "")


def _shape(data: xr.DataArray, grid: Grid, title: str) -> Check:
    found = " × ".join(map(str, grid.shape)) + " patches"
    said = scene_shape(data)
    if said is None:
        whole = tuple(PATCH * side for side in grid.shape)
        return Check(
            title, "shape.silent", "warning", f"{found}, of how many pixels is not said",
            "attributes terramind_rows and terramind_columns",
            f"Say it in them, or when they are decoded: detokenize(tokens, shape={whole}) for whole patches.",
        )  # fmt: skip
    if patches_of(said) == grid.shape:
        return Check(title, "shape", "ok", f"{found} of {said[0]} × {said[1]} pixels", "")
    return Check(title, "shape", "ok", f"{found}, cut out of {said[0]} × {said[1]} pixels: decoded whole", "")

"""Arrays of a modality, for whichever verb makes them: what is blended, what is finished, how it is named."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine import Field, Output
from terramind_xr.facts import lulc_classes, modalities
from terramind_xr.kernels.reading import Mask


def modality_field(name: str) -> Field:
    """What tiles predict of a modality: its bands, the probabilities of land-cover classes, or a place."""
    if name == "Coordinates":
        return Field(2, merge="tile")
    return Field(len(lulc_classes) if name == "LULC" else len(modalities[name].bands))


def finish_modality(
    name: str, merged: NDArray[np.float32], valid: Mask, offset: float, probabilities: bool
) -> NDArray[Any]:
    """Array of a modality ([band,] y, x) from its blended field: codes of LULC, units of the others."""
    modality = modalities[name]
    if name == "LULC" and not probabilities:
        return np.where(valid, likeliest(merged), np.uint8(0))
    values = merged.astype(np.float32)
    if modality.is_optical:
        values += np.float32(offset)
    if modality.limits is not None:
        values = values.clip(*modality.limits)
    values[:, ~valid] = np.nan
    return values if len(values) > 1 else values[0]


def likeliest(merged: NDArray[np.float32]) -> NDArray[np.integer]:
    """Number of the largest channel (channel, y, x), of equal ones the first: `argmax`, several times faster.

    Examples
    --------
    >>> likeliest(np.array([[[1, 5]], [[3, 5]], [[2, 4]]], np.float32)).tolist()
    [[1, 0]]
    """
    if len(merged) > 256:
        return np.asarray(merged.argmax(axis=0))
    best = merged[0].copy()
    codes, code = np.zeros(best.shape, np.uint8), np.empty(best.shape, np.uint8)
    larger = np.empty(best.shape, bool)
    for number, channel in enumerate(merged[1:], start=1):
        np.greater(channel, best, out=larger)
        np.maximum(channel, best, out=best)
        np.multiply(larger.view(np.uint8), np.uint8(number), out=code)
        np.maximum(codes, code, out=codes)
    return codes


def modality_output(name: str, field: int, band_dim: str = "band", offset: float = 0.0) -> Output:
    """Describe an array of a modality: codes of LULC, physical units of the others."""
    modality = modalities[name]
    banded = len(modality.bands) > 1
    attrs = {**modality.attributes, "modality": name}
    return Output(
        name,
        field,
        pixel=(len(modality.bands),) if banded else (),
        dtype=modality.dtype,
        dims=(band_dim,) if banded else (),
        coords={band_dim: list(modality.band_names)} if banded else {},
        attrs={**attrs, "boa_add_offset": -offset} if modality.is_optical else attrs,
        nodata=modality.nodata if modality.dtype == "uint8" else None,
    )


def coordinates_output(field: int) -> Output:
    """Describe the longitude and latitude of each tile."""
    names = ["longitude", "latitude"]
    attrs = {**modalities["Coordinates"].attributes, "modality": "Coordinates"}
    dim = "coordinate"
    return Output("Coordinates", field, (2,), "float32", (dim,), {dim: names}, attrs)


def probabilities_output(field: int) -> Output:
    """Describe the probabilities of the land-cover classes."""
    names = [each.name for each in lulc_classes]
    # No flags: the values are no codes, and the coordinate names the classes.
    attrs = {"long_name": "probability of each land-cover class", "units": "1", "modality": "LULC"}
    dim = "lulc_class"
    return Output("LULC", field, (len(names),), "float32", (dim,), {dim: names}, attrs)

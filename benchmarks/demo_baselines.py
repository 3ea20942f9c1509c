"""What needs no model: constants, and a linear regression by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from demo_tiles import Tiles
from numpy.typing import NDArray

EVERY = 4
"""Every n-th row and column is fitted on: neighbours say much the same."""


def pixels(tiles: Tiles, names: Sequence[str]) -> NDArray[np.float64]:
    """All bands of some modalities side by side (tile, y, x, band)."""
    parts = [tiles[name] if tiles[name].ndim == 4 else tiles[name][:, None] for name in names]
    return np.moveaxis(np.concatenate(parts, axis=1, dtype=np.float64), 1, -1)


def mean_of_all(fitted: Tiles, tiles: Tiles, output: str) -> NDArray[Any]:
    """The mean of each band over the fitted tiles, everywhere."""
    mean = fitted[output].mean(axis=(0, -2, -1), keepdims=True, dtype=float)
    return np.broadcast_to(mean, tiles[output].shape)


def mean_of_tile(tiles: Tiles, output: str) -> NDArray[Any]:
    """The true mean of each band and tile: more than a model can know."""
    truth = tiles[output]
    return np.broadcast_to(truth.mean(axis=(-2, -1), keepdims=True, dtype=float), truth.shape)


def linear(fitted: Tiles, tiles: Tiles, inputs: Sequence[str], output: str) -> NDArray[Any]:
    """Least squares with intercept, from the bands of a pixel to the bands of the same pixel."""
    thinned = {name: values[..., ::EVERY, ::EVERY] for name, values in fitted.items()}
    known, sought = (pixels(thinned, names) for names in (inputs, (output,)))
    known = known.reshape(-1, known.shape[-1])
    centre, scale = known.mean(axis=0), known.std(axis=0) + 1e-9
    design = np.column_stack([np.ones(len(known)), (known - centre) / scale])
    weights = np.linalg.lstsq(design, sought.reshape(len(design), -1), rcond=None)[0]
    estimate = ((pixels(tiles, inputs) - centre) / scale) @ weights[1:] + weights[0]
    result: NDArray[Any] = np.moveaxis(estimate, -1, 1).reshape(tiles[output].shape)
    return result

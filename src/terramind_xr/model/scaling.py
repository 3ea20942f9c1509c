"""From a modality's own units to those that the networks read, and back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from terramind_xr.facts import Modality


def standardize(modality: Modality, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (band, …) minus the pre-training mean, over the standard deviation, float32."""
    return standardize_by(modality.mean, modality.std, values)


def standardize_by(
    mean: tuple[float, ...], std: tuple[float, ...], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Values (band, …) minus a mean, over a standard deviation, float32."""
    result = np.empty_like(values)
    standardize_into(result, mean, std, values)
    return result


def standardize_into(
    out: NDArray[np.float32],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    bands: Iterable[NDArray[np.float32 | np.integer]],
) -> None:
    """Write the same of bands to `out` (band, …); whole numbers become float32 on the way."""
    for band, *numbers, to in zip(bands, mean, std, out, strict=True):
        centre, spread = map(np.float32, numbers)
        np.subtract(band, centre, out=to, dtype=np.float32, casting="unsafe")
        np.divide(to, spread, out=to)


def destandardize(modality: Modality, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of `standardize`."""
    mean, std = (_shaped(each, values.ndim - 1) for each in (modality.mean, modality.std))
    return values * std + mean


def _shaped(numbers: tuple[float, ...], trailing: int) -> NDArray[np.float32]:
    return np.asarray(numbers, np.float32).reshape(-1, *(1,) * trailing)

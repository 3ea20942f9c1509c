"""From a modality's own units to those that the networks read, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terramind_xr.facts import Modality


def standardize(modality: Modality, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (band, …) minus the pre-training mean, over the standard deviation, float32."""
    mean, std = _statistics(modality, values.ndim - 1)
    result = values - mean
    result /= std
    return result


def destandardize(modality: Modality, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of `standardize`."""
    mean, std = _statistics(modality, values.ndim - 1)
    return values * std + mean


def _statistics(modality: Modality, trailing: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shape = (-1, *(1,) * trailing)
    return (
        np.asarray(modality.mean, np.float32).reshape(shape),
        np.asarray(modality.std, np.float32).reshape(shape),
    )

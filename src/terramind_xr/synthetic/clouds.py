"""Clouds at a chosen share, and their shadows."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from terramind_xr.synthetic.fields import Float, fractal, node_positions, refine
from terramind_xr.synthetic.world import Surface, overcast

Mask = NDArray[np.bool_]

_SPREAD = 0.70  # standard deviation of the field, measured over many worlds
_SHADOW = (24, 16)  # pixels from a shadow to its cloud, south and east: the sun of a morning in the north
_DARK = np.float32(0.4)  # light that the sky still gives


def clouded(clear: Surface, seed: int, day: int, y: int, x: int, share: float) -> tuple[Surface, Mask]:
    """A cloudless surface with the clouds of `day` over `share` of the world; and where their shadows fall.

    The share holds over many clouds: a scene of a few hundred pixels has more of them, or less.
    """
    if not 0 < share < 1:
        everywhere = np.full(clear.shade.shape, np.float32(1 if share else -1))
        return overcast(clear, everywhere), np.zeros(everywhere.shape, bool)
    height, width = clear.shade.shape
    threshold = np.float32(NormalDist(0, _SPREAD).inv_cdf(1 - share))
    away = _field(seed, day, y + _SHADOW[0], x + _SHADOW[1], height, width) - threshold
    light = np.float32(1) - (np.float32(1) - _DARK) * np.clip(away * np.float32(6), 0, 1)
    shaded = replace(clear, shade=clear.shade * light)
    excess = _field(seed, day, y, x, height, width) - threshold
    return overcast(shaded, excess), (away > 0) & (excess <= 0)


def _field(seed: int, day: int, y: int, x: int, height: int, width: int) -> Float:
    rows, columns = node_positions(y, height), node_positions(x, width)
    v, u = (np.ascontiguousarray(axis) for axis in np.meshgrid(rows, columns, indexing="ij"))
    return refine(fractal(seed, f"weather/{day}", v, u, (190, 90, 45, 24)), y, x, height, width)

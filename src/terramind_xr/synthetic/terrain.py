"""Relief of the procedural world in metres: sea at zero, level lakes, valleys along rivers, steep heights.

The same smooth fields decide about the land cover (`world`). Rivers lie in valleys, but as they follow the
contour of a field of its own their beds may rise and fall along the course: the world has no hydrology.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from terramind_xr.modalities import RESOLUTION
from terramind_xr.synthetic.fields import NODE, Double, Float, fractal, node_positions, refine_smooth

ALTITUDE: Sequence[float] = (2400, 1000, 450, 180, 70)
RIVER: Sequence[float] = (1100, 420, 130)
LAKE: Sequence[float] = (330, 120)
SEA = np.float32(-1.05)
"""Where the field of altitude meets the sea."""
SHORE = 1.75
"""Where the field of lakes meets their shores."""

# Of the field of lakes: between these two, the land meets the lake's level.
_BANK = np.float32(1.3), np.float32(1.6)
_VALLEY = np.float32(0.22)
_CLIMB = 40.0 * 0.87 ** np.arange(60)  # pixels; the last steps are below a hundredth of one


def bent(seed: int, v: Double, u: Double) -> tuple[Double, Double]:
    """Positions at which most fields are evaluated: bent, so that nothing runs along the noise's lattice."""
    bend_v = v + 70.0 * fractal(seed, "bend-y", v, u, (420, 150))
    bend_u = u + 70.0 * fractal(seed, "bend-x", v, u, (420, 150))
    return bend_v, bend_u


def elevation(seed: int, y: int, x: int, height: int, width: int) -> Float:
    """Elevation of dry land in metres, before water and microrelief; (y, x) float32.

    Computed on the nodes and interpolated with cubic splines: its slopes are continuous.
    """
    relief, lake, level = _nodes(seed, y, x, height, width)
    bank = np.clip((lake - _BANK[0]) / (_BANK[1] - _BANK[0]), 0, 1)
    return refine_smooth(relief + bank * (level - relief), y, x, height, width)


def slope_east(seed: int, y: int, x: int, height: int, width: int) -> Float:
    """Rise of `elevation` towards the east (1), by central differences."""
    wide = elevation(seed, y, x - 1, height, width + 2)
    return (wide[:, 2:] - wide[:, :-2]) * np.float32(0.5 / RESOLUTION)


def lake_level(seed: int, y: int, x: int, height: int, width: int) -> Float:
    """Elevation in metres of the lake that a pixel lies in; (y, x), of no meaning outside lakes."""
    _, _, level = _nodes(seed, y, x, height, width)
    down = np.arange(y, y + height) // NODE - y // NODE + 1  # the nodes begin one before the window
    along = np.arange(x, x + width) // NODE - x // NODE + 1
    # Nodes have a level far beyond the shore: any node at a pixel in a lake knows that of the lake.
    result: Float = level[down][:, along]
    return result


def _nodes(seed: int, y: int, x: int, height: int, width: int) -> tuple[Float, Float, Float]:
    """Relief, field of lakes, and level of the lake on all nodes that a cubic spline needs."""
    rows = node_positions(y - NODE, height + 2 * NODE)
    columns = node_positions(x - NODE, width + 2 * NODE)
    v, u = (np.ascontiguousarray(axis) for axis in np.meshgrid(rows, columns, indexing="ij"))
    at = bent(seed, v, u)
    relief = _metres(fractal(seed, "altitude", *at, ALTITUDE))
    valley: Float = np.clip(np.float32(1) - np.abs(fractal(seed, "river", v, u, RIVER)) / _VALLEY, 0, 1)
    depth: Float = np.minimum(np.float32(0.3) * np.maximum(relief, 0), np.float32(45))
    relief = relief - depth * valley * valley
    lake = fractal(seed, "lake", *at, LAKE)
    level = relief.copy()
    wet = lake > _BANK[0]
    if wet.any():
        level[wet] = _lake_surface(seed, at[0][wet], at[1][wet])
    return relief, lake, level


def _metres(altitude: Float) -> Float:
    """Low land is gentle, high land steep: a polynomial of the height above the sea."""
    above = altitude - SEA
    square: Float = np.square(np.maximum(above, 0))
    metres: Float = np.float32(140) * above + np.float32(14) * square * square
    return metres


def _lake_surface(seed: int, v: Double, u: Double) -> Float:
    """Level of the lakes that points lie in: the relief at the summit of the field that makes the lakes.

    All points of a lake climb to the same summit, so that it is level, and no point needs to know the
    extent of its lake. The rare lake with two summits has two levels: 2 of 34 in 130 windows.
    """
    broad = LAKE[:1]
    for step in _CLIMB:
        here = fractal(seed, "lake", v, u, broad)
        up = (fractal(seed, "lake", v + 2, u, broad) - here).astype(np.float64)
        along = (fractal(seed, "lake", v, u + 2, broad) - here).astype(np.float64)
        steepness = np.sqrt(up * up + along * along) + 1e-9
        v, u = v + step * (up / steepness), u + step * (along / steepness)
    half_metres = np.rint(np.float32(2) * _metres(fractal(seed, "altitude", v, u, ALTITUDE)))
    level: Float = np.maximum(half_metres * np.float32(0.5), np.float32(0.5))
    return level

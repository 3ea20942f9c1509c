"""Relief of the procedural world in metres: valleys along rivers that run downhill, level lakes, sea at zero.

The relief is a fractal whose low land is gentle and whose high land is steep. Two networks of streams
(`rivers`) carve it: the coarse one holds the rivers, which end in lakes or in the sea, the fine one dissects
the slopes between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from terramind_xr.facts import RESOLUTION
from terramind_xr.synthetic.fields import (
    Double,
    Float,
    fractal,
    node_positions,
    refine_smooth,
    stream,
    uniform,
)
from terramind_xr.synthetic.rivers import (
    FAR,
    Box,
    Channels,
    Courses,
    channels,
    confluences,
    courses,
    drain,
    nodes,
    upstream,
    valleys,
)

ALTITUDE: Sequence[float] = (2400, 1000, 450)
HILLS: Sequence[float] = (180, 70)
SEA = np.float32(-1.05)
"""Where the field of altitude meets the sea."""

_BEND = 30.0
_HILLS = np.float32(0.1)
# Spacing of the nodes, reach of a course, and half the breadth of a valley.
_RIVERS = (160.0, 110.0, 26.0)
_BROOKS = (45.0, 40.0, 12.0)
_STEP = 4  # pixels between the points at which valleys are computed
_UPSTREAM = 5  # steps for which tributaries are counted
_LAKE = 130.0  # pixels from the middle of a lake to where it changes nothing
_LOWEST = np.float32(0.5)  # of the land, in metres


class Relief(NamedTuple):
    """Relief of a window, every field (y, x).

    Parameters
    ----------
    height
        The field of altitude that climate and land cover follow, in the world's own unit.
    elevation
        Metres, level on the sea (0) and on each lake.
    shore
        The same, but falling below zero in the sea.
    river
        Pixels to the nearest river, below zero on it; `rivers.FAR` if there is none.
    lake
        Below one in lakes, growing away from their shores; `rivers.FAR` if there is none.
    slope_south, slope_east
        Rise of `elevation` towards the south and the east, metres per metre.
    """

    height: Float
    elevation: Float
    shore: Float
    river: Float
    lake: Float
    slope_south: Float
    slope_east: Float


class Lake(NamedTuple):
    """A lake: its middle in bent coordinates, its level in metres, and its radius on flat land in pixels."""

    v: float
    u: float
    level: float
    radius: float


class Drainage(NamedTuple):
    """Rivers and lakes around a window."""

    rivers: Courses
    lakes: list[Lake]


def bent(seed: int, v: Double, u: Double) -> tuple[Double, Double]:
    """Positions at which most fields are evaluated: bent, so that nothing runs along the noise's lattice.

    Gently enough for no place to appear twice: a river stays in one piece.
    """
    bend_v = v + _BEND * fractal(seed, "bend-y", v, u, (420, 150, 55, 24))
    bend_u = u + _BEND * fractal(seed, "bend-x", v, u, (420, 150, 55, 24))
    return bend_v, bend_u


def relief(seed: int, y: int, x: int, height: int, width: int) -> Relief:
    """Relief of the window whose first pixel is row `y`, column `x` of the world."""
    # One more pixel at each side for the slopes.
    carved = _carved(seed, y - 1, x - 1, height + 2, width + 2)
    dry = carved.lake >= 1
    land = np.maximum(np.where(dry, carved.ground, carved.level), _LOWEST)
    elevation = np.where(dry & (carved.ground < 0), np.float32(0), land)
    inner = slice(1, -1), slice(1, -1)
    scale = np.float32(0.5 / RESOLUTION)
    return Relief(
        height=carved.height[inner],
        elevation=elevation[inner],
        shore=carved.ground[inner],
        river=carved.river[inner],
        lake=carved.lake[inner],
        slope_south=(elevation[2:, 1:-1] - elevation[:-2, 1:-1]) * scale,
        slope_east=(elevation[1:-1, 2:] - elevation[1:-1, :-2]) * scale,
    )


def illumination(slope_south: Float, slope_east: Float, sun_elevation: float, sun_azimuth: float) -> Float:
    """Light on sloping ground in proportion to that on flat ground: of the sun and of the sky.

    The cosine of the incidence angle over that on flat ground (P. Teillet et al. 1982,
    doi:10.1080/07038992.1982.10855028), and a share of light that comes from the whole sky.

    Parameters
    ----------
    slope_south, slope_east
        Rise of the ground towards the south and the east, metres per metre.
    sun_elevation, sun_azimuth
        Degrees; the azimuth clockwise from north.
    """
    azimuth, tangent = math.radians(sun_azimuth), math.tan(math.radians(sun_elevation))
    south, east = np.float32(math.cos(azimuth) / tangent), np.float32(-math.sin(azimuth) / tangent)
    upright = np.float32(1) / np.sqrt(np.float32(1) + slope_south * slope_south + slope_east * slope_east)
    direct = np.maximum((np.float32(1) + south * slope_south + east * slope_east) * upright, 0)
    diffuse = np.float32(0.5) + np.float32(0.5) * upright  # share of the sky that a slope sees
    light = (np.float32(1) - _SKY) * direct + _SKY * diffuse
    limited: Float = np.clip(light, np.float32(0.25), np.float32(1.6))
    return limited


_SKY = np.float32(0.2)


def drainage(seed: int, box: Box) -> Drainage:
    """All rivers and lakes that matter to points in a box of bent coordinates."""
    spacing, reach, _ = _RIVERS
    at = nodes(stream(seed, "rivers"), spacing, box, margin=_UPSTREAM + 4)
    metres = _metres(fractal(seed, "altitude", at.v, at.u, ALTITUDE))
    sea = metres <= 0
    bed = np.where(sea, np.maximum(metres, np.float32(-3)), _incised(metres))
    target = drain(bed, sea)
    size = upstream(target, _UPSTREAM).astype(np.float32)
    half = np.where(size > 1, np.minimum(np.float32(0.6) * np.sqrt(size), np.float32(4.5)), np.float32(0))
    chance = uniform(at.bits * np.uint32(0x9E3779B1))
    basin = ~sea & ((target < 0) | ((chance < np.float32(0.1)) & (size > 0)))
    # A lake stands as high as the land and the rivers that come into it allow.
    inflow = np.full(bed.size, np.inf, np.float32)
    np.minimum.at(inflow, target[target >= 0], bed[target >= 0])
    full = np.minimum(metres - np.float32(2), np.float32(0.5) * (bed + inflow.reshape(bed.shape)))
    bed = np.where(basin, np.maximum(bed, full), bed)
    rivers = courses(at, bed, target, half, sea, np.float32(1) + np.float32(0.15) * size)
    basin &= (at.v > box.top - _LAKE) & (at.v < box.bottom + _LAKE)
    basin &= (at.u > box.left - _LAKE) & (at.u < box.right + _LAKE)
    chance = uniform(at.bits * np.uint32(0x85EBCA6B))[basin]
    radius = np.float32(20) + np.float32(50) * chance * chance
    level = np.maximum(bed[basin], _LOWEST)
    lakes = zip(*(c.tolist() for c in (at.v[basin], at.u[basin], level, radius)), strict=True)
    return Drainage(rivers.near(box, reach), [Lake(*lake) for lake in lakes])


def _brooks(seed: int, box: Box, rivers: Courses) -> Courses:
    """The fine network: it drains the relief that the rivers have carved, and ends at the rivers."""
    spacing, reach, _ = _BROOKS
    at = nodes(stream(seed, "brooks"), spacing, box, margin=3)
    _, ground = _uncarved(seed, at.v, at.u)
    ground, weight = _with_rivers(at.v, at.u, ground, rivers)
    mouth = confluences(at.v, at.u, rivers, 0.55 * spacing)
    away = np.minimum(np.float32(0.01) / np.sqrt(weight + np.float32(1e-6)), np.float32(1))
    cut = away * np.minimum(np.float32(0.28) * np.maximum(ground, np.float32(0)), np.float32(55))
    bed = np.where(mouth.found, mouth.bed, ground - cut)
    sea, dry = ground <= 0, np.zeros_like(bed)
    target = drain(bed, sea | mouth.found)
    moved = at._replace(v=mouth.v, u=mouth.u)
    return courses(moved, bed, target, dry, sea, np.ones_like(bed)).near(box, reach)


def _with_rivers(v: Double, u: Double, ground: Float, rivers: Courses) -> tuple[Float, Float]:
    """Ground with the valleys of the rivers, and the weight of the rivers, at points (row, column)."""
    _, reach, breadth = _RIVERS
    found = valleys(v, u, rivers, reach)
    # Rivers lower the land, but hardly fill the sea.
    own = np.float32(1 / (breadth * breadth)) * (
        np.float32(1) + np.float32(8) * np.square(np.clip(-ground, 0, 30))
    )
    return (own * ground + found.weight * found.bed) / (own + found.weight), found.weight


def _with_brooks(v: Double, u: Double, ground: Float, weight: Float, brooks: Courses) -> Float:
    """Ground with the valleys of the brooks, too, at points where the rivers have some weight."""
    _, reach, breadth = _BROOKS
    found = valleys(v, u, brooks, reach)
    # A river's valley is its own: brooks fade out in its last pixels.
    share = found.weight / (np.float32(1) + np.float32(60) * weight)
    own = np.float32(1 / (breadth * breadth))
    return np.minimum(ground, (own * ground + share * found.bed) / (own + share))


def _with_channels(ground: Float, channel: Channels) -> Float:
    """Ground with the beds of the rivers and their banks, at pixels."""
    near = channel.near
    own = np.float32(1 / 36)
    blend = (own * ground + near.weight * near.bed) / (own + near.weight)
    # Land rises from a river at least a little, and then may fall again: banks, levees, fans.
    away = np.float32(1) / np.sqrt(near.weight + np.float32(1e-6))
    levee = np.clip(np.float32(8) + ground, 1, 8)
    fan = np.float32(0.05) * np.minimum(away + np.float32(5), near.bed)
    fan -= np.float32(0.3) * np.maximum(away - levee, 0)
    banks = np.where(near.weight > 0, np.maximum(blend, near.bed + fan), ground)
    return np.where(channel.water < np.inf, channel.water, banks)


class _Carved(NamedTuple):
    """Relief of a window before its waters are level."""

    height: Float
    ground: Float
    river: Float
    lake: Float
    level: Float


def _carved(seed: int, y: int, x: int, height: int, width: int) -> _Carved:
    def to_pixels(field: Float) -> Float:
        return refine_smooth(field, y, x, height, width, _STEP)

    rows = node_positions(y - _STEP, height + 2 * _STEP, _STEP)
    columns = node_positions(x - _STEP, width + 2 * _STEP, _STEP)
    node_v, node_u = (np.ascontiguousarray(axis) for axis in np.meshgrid(rows, columns, indexing="ij"))
    at = bent(seed, node_v, node_u)
    box = Box.around(*at)
    water = drainage(seed, box.wider(5 * _BROOKS[0]))
    field, ground = _uncarved(seed, *at)
    ground, weight = _with_rivers(*at, ground, water.rivers)
    ground = _with_brooks(*at, ground, weight, _brooks(seed, box, water.rivers))
    # To pixels. Only the bend is rounded, not the position, which may be large.
    v = to_pixels((at[0] - node_v).astype(np.float32)) + np.arange(y, y + height, dtype=np.float64)[:, None]
    u = to_pixels((at[1] - node_u).astype(np.float32)) + np.arange(x, x + width, dtype=np.float64)[None, :]
    channel = channels(v, u, water.rivers, 24.0)
    ground = _with_channels(to_pixels(ground), channel)
    lake, level = np.full(ground.shape, FAR, np.float32), np.zeros(ground.shape, np.float32)
    if water.lakes:
        rim = to_pixels(fractal(seed, "shores", *at, (80, 30)))
        for one in water.lakes:
            _flood(one, v, u, rim, ground, lake, level)
    return _Carved(to_pixels(field), ground, channel.river, lake, level)


def _flood(one: Lake, v: Double, u: Double, rim: Float, ground: Float, lake: Float, level: Float) -> None:
    """Put a lake into the ground: it drowns what lies little above it, and the nearer the more."""
    dv, du = (v - one.v).astype(np.float32), (u - one.u).astype(np.float32)
    part = (dv * dv + du * du) * np.float32(1 / (one.radius * one.radius))
    if part.min() > 3:
        return
    own_level = np.float32(one.level)
    above = ground - own_level
    field = part + np.abs(above) * np.float32(1 / 18) + np.float32(0.25) * rim
    rise = np.clip((field - np.float32(1)) * np.float32(1 / 1.5), 0, 1)
    rise = rise * rise * (np.float32(3) - np.float32(2) * rise)
    np.copyto(ground, own_level + above * rise, where=rise < 1)
    np.copyto(level, own_level, where=field < 1)
    np.minimum(lake, field, out=lake)


def _uncarved(seed: int, v: Double, u: Double) -> tuple[Float, Float]:
    """Field of altitude, and metres before rivers; v, u in bent coordinates."""
    broad, hills = fractal(seed, "altitude", v, u, ALTITUDE), fractal(seed, "hills", v, u, HILLS)
    # Hills are lower on low land, whose coasts are smoother for it.
    gain = np.clip(np.float32(0.35) + np.float32(0.5) * (broad - SEA), np.float32(0.35), np.float32(1))
    return broad + _HILLS * hills, _metres(broad + _HILLS * gain * hills)


def _incised(metres: Float) -> Float:
    """Height of a river's bed by that of the land: growing with it, so that rivers keep their way."""
    bed: Float = metres - np.minimum(np.float32(0.3) * metres, np.float32(45))
    return bed


def _metres(altitude: Float) -> Float:
    """Low land is gentle, high land steep: a polynomial of the height above the sea."""
    above: Any = altitude - SEA
    square: Any = np.square(np.maximum(above, 0))
    result: Float = np.float32(140) * above + np.float32(14) * square * square
    return result

"""Drainage of the procedural world: networks of streams that run downhill, and the valleys they carve.

Nodes of a jittered lattice drain to the lowest of their eight neighbours. What happens at a place is
decided by the nodes around it, so that any window of the world can be computed by itself; no two courses
cross, as of the two diagonals between four nodes only the one to the lowest node can be a course. Courses
are straight between their nodes, but lie in bent coordinates (`terrain.bent`), so that they meander.

Sources of the ideas
--------------------
- Dendritic patterns on lattices of several levels, evaluated locally: M. Gaillard et al., "Dendry: a
  procedural model for dendritic patterns", I3D 2019 (doi:10.1145/3306131.3317020).
- Terrain made from its rivers: J.-D. Génevaux et al., "Terrain generation using procedural models based
  on hydrology", ACM Transactions on Graphics 32(4), 2013 (doi:10.1145/2461912.2461996).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from terramind_xr.synthetic.fields import Bits, Double, Float, lattice

FAR = np.float32(99)
"""Pixels to the nearest river where there is none."""

_JITTER = 0.5 * 2.0**-16  # up to a quarter of the spacing to each side: more might let courses cross
_POINT = np.float32(0.25)  # square pixels: what keeps weights finite on a course
_STRIDE = 8  # pixels between those that are tested for whether a course is near
_BLOCK = 32  # side of the blocks of points that are computed at once


class Box(NamedTuple):
    """Bounds of a set of points in bent coordinates."""

    top: float
    bottom: float
    left: float
    right: float

    @classmethod
    def around(cls, v: Double, u: Double) -> Box:
        """Bounds of points."""
        return cls(float(v.min()), float(v.max()), float(u.min()), float(u.max()))

    def wider(self, margin: float) -> Box:
        """With a margin all around."""
        return Box(self.top - margin, self.bottom + margin, self.left - margin, self.right + margin)


class Nodes(NamedTuple):
    """Nodes of a jittered lattice, (row, column): random bits and positions in bent coordinates."""

    bits: Bits
    v: Double
    u: Double


def nodes(key: np.uint32, spacing: float, box: Box, margin: int) -> Nodes:
    """All nodes in a box, and `margin` more at each side."""
    rows = np.arange(math.floor(box.top / spacing) - margin, math.floor(box.bottom / spacing) + 2 + margin)
    columns = np.arange(math.floor(box.left / spacing) - margin, math.floor(box.right / spacing) + 2 + margin)
    bits = lattice(key, rows, columns)
    v = (rows[:, None] + 0.25 + (bits & np.uint32(0xFFFF)) * _JITTER) * spacing
    u = (columns[None, :] + 0.25 + (bits >> np.uint32(16)) * _JITTER) * spacing
    return Nodes(bits, v, u)


def drain(bed: Float, ends: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Flat index of the node that each node drains to: the lowest of its neighbours; -1 if there is none.

    Parameters
    ----------
    bed
        Height of the nodes, (row, column); the outermost do not drain, as not all neighbours are known.
    ends
        Nodes that drain nowhere.
    """
    height, width = bed.shape
    inner = np.arange(height * width).reshape(height, width)[1:-1, 1:-1]
    steps = [down * width + right for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    around = np.stack([inner + step for step in steps])
    heights = bed.ravel().take(around)
    lowest = np.take_along_axis(around, heights.argmin(axis=0)[None], axis=0)[0]
    runs = (heights.min(axis=0) < bed[1:-1, 1:-1]) & ~ends[1:-1, 1:-1]
    target = np.full(bed.shape, -1, np.intp)
    target[1:-1, 1:-1] = np.where(runs, lowest, -1)
    return target


def upstream(target: NDArray[np.intp], steps: int) -> NDArray[np.intp]:
    """Number of nodes that drain through each node within some steps: the size of its river."""
    running = target.ravel() >= 0
    into = target.ravel()[running]
    count = np.zeros(target.size, np.intp)
    for _ in range(steps):
        further = np.zeros_like(count)
        np.add.at(further, into, 1 + count[running])
        count = further
    return count.reshape(target.shape)


class Courses(NamedTuple):
    """Parts of streams, straight in bent coordinates; every field has one value for each part.

    Parameters
    ----------
    v, u, down, right
        Where a part starts and how far it goes.
    head, foot
        Height of its bed in metres, at its start and at its end.
    head_half, foot_half
        Half the width of the water in pixels; zero all along where there is none.
    strength
        How broad a valley it makes.
    """

    v: Double
    u: Double
    down: Double
    right: Double
    head: Float
    foot: Float
    head_half: Float
    foot_half: Float
    strength: Float

    def only(self, chosen: NDArray[np.bool_]) -> Courses:
        """Some of them, in the same order."""
        kept: tuple[Any, ...] = tuple(values[chosen] for values in self)
        return Courses(*kept)

    def near(self, box: Box, reach: float) -> Courses:
        """Those that come within `reach` pixels of a box."""
        return self.only(
            (np.maximum(self.v, self.v + self.down) > box.top - reach)
            & (np.minimum(self.v, self.v + self.down) < box.bottom + reach)
            & (np.maximum(self.u, self.u + self.right) > box.left - reach)
            & (np.minimum(self.u, self.u + self.right) < box.right + reach)
        )

    def nearest(self, v: Double, u: Double) -> tuple[Float, Float]:
        """Squared distance of points, and the place on the course that is nearest, 0 to 1; (course, …)."""
        shape = (-1,) + (1,) * v.ndim
        start_v, start_u, down, right = (c.reshape(shape) for c in (self.v, self.u, self.down, self.right))
        length = np.maximum(down * down + right * right, 1e-6)
        dv, du = (v - start_v).astype(np.float32), (u - start_u).astype(np.float32)
        along = dv * (down / length).astype(np.float32) + du * (right / length).astype(np.float32)
        along = np.minimum(np.maximum(along, np.float32(0)), np.float32(1))
        dv -= along * down.astype(np.float32)
        du -= along * right.astype(np.float32)
        return dv * dv + du * du, along

    def bed(self, along: Float) -> Float:
        """Height of the beds in metres at places on the courses; (course, …)."""
        return _between(self.head, self.foot, along)

    def half(self, along: Float) -> Float:
        """Half the width of the water in pixels at places on the courses; (course, …)."""
        return _between(self.head_half, self.foot_half, along)


def _between(first: Float, last: Float, along: Float) -> Float:
    shape = (-1,) + (1,) * (along.ndim - 1)
    result: Float = first.reshape(shape) + along * (last - first).reshape(shape)
    return result


def courses(
    at: Nodes, bed: Float, target: NDArray[np.intp], half: Float, sea: NDArray[np.bool_], strength: Float
) -> Courses:
    """All courses of a network in the order of their lattice, each in two parts.

    The greatest river into a node and the river out of it form an arc: from the middle of the way to the
    node, past it, to the middle of the next. Other rivers join where the arc passes the node.

    Parameters
    ----------
    at, bed, target, half, sea, strength
        Of each node: its position, bed, the node that it drains to (`drain`), half the width of the river
        that leaves it, whether it lies in the sea, and how broad a valley its river makes.
    """
    starts = np.flatnonzero(target.ravel() >= 0)
    ends = target.ravel()[starts]
    bed, half, strength = bed.ravel(), half.ravel(), strength.ravel()
    order = np.argsort(strength[starts], kind="stable")  # of several values for one place, the last stays
    before = np.full(bed.shape, -1, np.intp)
    before[ends[order]] = starts[order]
    widest = np.zeros_like(half)
    np.maximum.at(widest, ends, half[starts])
    after = target.ravel()
    turns = (before >= 0) & (after >= 0)
    v, u = (np.where(turns, 0.25 * (p[before] + p[after]) + 0.5 * p, p) for p in (at.v.ravel(), at.u.ravel()))
    middle_v, middle_u = (0.5 * (p[starts] + p[ends]) for p in (at.v.ravel(), at.u.ravel()))
    # A river falls steeply towards the coast, and runs out gently.
    share = np.where(sea.ravel()[ends], np.float32(0.1), np.float32(0.5))
    middle = bed[ends] + share * (bed[starts] - bed[ends])
    middle_half = np.float32(0.5) * (widest[starts] + half[starts])
    upper = (
        v[starts], u[starts], middle_v - v[starts], middle_u - u[starts],
        bed[starts], middle, widest[starts], middle_half, strength[starts],
    )  # fmt: skip
    lower = (
        middle_v, middle_u, v[ends] - middle_v, u[ends] - middle_u,
        middle, bed[ends], middle_half, half[starts], strength[starts],
    )  # fmt: skip
    return Courses(*(np.stack(pair, axis=1).ravel() for pair in zip(upper, lower, strict=True)))


class Valleys(NamedTuple):
    """Courses around points: their weights (the inverse of the squared distance), and the mean of their beds.

    The weights are sums in the order of the lattice, where a course out of reach adds zero: they do not
    depend on the window.
    """

    weight: Float
    bed: Float


def valleys(v: Double, u: Double, network: Courses, reach: float) -> Valleys:
    """Valleys at points (row, column); courses further than `reach` pixels have no weight."""
    weight, bed = np.zeros(v.shape, np.float32), np.zeros(v.shape, np.float32)
    for block in _blocks(v):
        close = network.near(Box.around(v[block], u[block]), reach)
        square, along = close.nearest(v[block], u[block])
        own = _weight(square, reach) * close.strength[:, None, None]
        for one, of_bed in zip(own, own * close.bed(along), strict=True):
            weight[block] += one
            bed[block] += of_bed
    return Valleys(weight, _mean(bed, weight))


class Confluences(NamedTuple):
    """Points moved onto the nearest course in reach: where, the height of its bed, and whether one is."""

    v: Double
    u: Double
    bed: Float
    found: NDArray[np.bool_]


def confluences(v: Double, u: Double, network: Courses, reach: float) -> Confluences:
    """The nearest place on a network for points (row, column)."""
    to_v, to_u, bed, found = v.copy(), u.copy(), np.zeros(v.shape, np.float32), np.zeros(v.shape, bool)
    for block in _blocks(v):
        close = network.near(Box.around(v[block], u[block]), reach)
        if not len(close.v):
            continue
        square, along = close.nearest(v[block], u[block])
        best = square.argmin(axis=0)
        here = np.take_along_axis(square, best[None], axis=0)[0] < np.float32(reach * reach)
        place = np.take_along_axis(along, best[None], axis=0)[0]
        found[block] = here
        np.copyto(to_v[block], close.v[best] + place * close.down[best], where=here)
        np.copyto(to_u[block], close.u[best] + place * close.right[best], where=here)
        np.copyto(bed[block], close.head[best] + place * (close.foot - close.head)[best], where=here)
    return Confluences(to_v, to_u, bed, found)


def _blocks(points: Double) -> Iterator[tuple[slice, slice]]:
    for top in range(0, points.shape[0], _BLOCK):
        for left in range(0, points.shape[1], _BLOCK):
            yield slice(top, top + _BLOCK), slice(left, left + _BLOCK)


class Channels(NamedTuple):
    """Rivers at pixels: the valleys near them, pixels to the water, and its height (infinite beside it)."""

    near: Valleys
    river: Float
    water: Float


def channels(v: Double, u: Double, network: Courses, reach: float) -> Channels:
    """The courses that hold water at the pixels of a window."""
    weight, bed = np.zeros(v.shape, np.float32), np.zeros(v.shape, np.float32)
    river = np.full(v.shape, FAR, np.float32)
    water = np.full(v.shape, np.inf, np.float32)
    sample = v[::_STRIDE, ::_STRIDE], u[::_STRIDE, ::_STRIDE]
    wet = network.near(Box.around(v, u), reach)
    wet = wet.only(wet.foot_half > 0)
    for number in range(len(wet.v)):
        course = wet.only(np.arange(len(wet.v)) == number)
        part = _around(course, *sample, reach)
        square, along = (values[0] for values in course.nearest(v[part], u[part]))
        own, own_bed = _weight(square, reach), course.bed(along[None])[0]
        weight[part] += own
        bed[part] += own * own_bed
        beyond = np.sqrt(square) - course.half(along[None])[0]
        np.minimum(river[part], beyond, out=river[part])
        np.minimum(water[part], own_bed, out=water[part], where=beyond < 0)
    return Channels(Valleys(weight, _mean(bed, weight)), river, water)


def _mean(total: Float, weight: Float) -> Float:
    result: Any = total / np.maximum(weight, np.float32(1e-9))
    mean: Float = result
    return mean


def _weight(square: Float, reach: float) -> Float:
    taper = np.maximum(np.float32(1) - square * np.float32(1 / (reach * reach)), np.float32(0))
    result: Float = taper * taper / (square + _POINT)
    return result


def _around(course: Courses, v: Double, u: Double, reach: float) -> tuple[slice, slice]:
    """Slices of a window that hold all in reach of a course; by the positions of every `_STRIDE`th pixel."""
    pad = reach + 3 * _STRIDE  # bent coordinates are stretched, but not more than threefold
    ends_v, ends_u = (course.v[0], course.v[0] + course.down[0]), (course.u[0], course.u[0] + course.right[0])
    inside = (
        (v > min(ends_v) - pad) & (v < max(ends_v) + pad) & (u > min(ends_u) - pad) & (u < max(ends_u) + pad)
    )
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0), slice(0)
    return (
        slice(max(int(rows[0]) - 1, 0) * _STRIDE, (int(rows[-1]) + 1) * _STRIDE),
        slice(max(int(columns[0]) - 1, 0) * _STRIDE, (int(columns[-1]) + 1) * _STRIDE),
    )

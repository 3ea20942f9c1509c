"""Random fields as pure functions of (seed, stream, absolute position).

Every number comes from an integer hash of a lattice position, so that a crop, a chunk and the whole
scene see the same world. Only additions, multiplications, divisions and square roots touch the values:
these are exact to the last bit in any array shape, where exponentials or matrix products are not.

Sources
-------
- Integer hash: "lowbias32", C. Wellons, hash-prospector (github.com/skeeto/hash-prospector).
- Gradient noise: K. Perlin, "Improving Noise", SIGGRAPH 2002.
- Cell noise: S. Worley, "A Cellular Texture Basis Function", SIGGRAPH 1996.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Bits = NDArray[np.uint32]

NODE = 8
"""Spacing in pixels of the nodes on which smooth fields are computed before they are interpolated."""

_GOLDEN_ROW = np.uint32(0x9E3779B9)
_GOLDEN_COLUMN = np.uint32(0x85EBCA6B)
_UNIT = np.float32(2.0**-24)
_ROTATION = (0.8191520, 0.5735764)  # 35 degrees between octaves: their lattices must not line up
_GAIN = np.float32(1 / 0.245)  # extremes of the noise come to about 2, its standard deviation to 0.7


def stream(seed: int, name: str) -> np.uint32:
    """Key of one random stream of one world."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest()
    return np.uint32(int.from_bytes(digest, "little"))


def scramble(bits: Bits) -> Bits:
    """Hash unsigned 32-bit integers (lowbias32)."""
    bits = bits ^ (bits >> np.uint32(16))
    bits = bits * np.uint32(0x7FEB352D)
    bits = bits ^ (bits >> np.uint32(15))
    bits = bits * np.uint32(0x846CA68B)
    return bits ^ (bits >> np.uint32(16))


def lattice(key: np.uint32, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Bits:
    """32 random bits at every crossing of `rows` and `columns` (1-D integer positions)."""
    across = scramble(rows.astype(np.uint32) * _GOLDEN_ROW ^ key)
    along = columns.astype(np.uint32) * _GOLDEN_COLUMN
    return scramble(across[:, None] + along[None, :])


def uniform(bits: Bits) -> Float:
    """Numbers in [0, 1) from the upper 24 of 32 random bits."""
    return (bits >> np.uint32(8)).astype(np.float32) * _UNIT


def speckle(key: np.uint32, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Float:
    """Nearly normal noise of unit variance, independent from pixel to pixel.

    The sum of the four bytes of the hash: an Irwin-Hall distribution, without a logarithm.
    """
    bits = lattice(key, rows, columns)
    low = bits & np.uint32(0x00FF00FF)
    high = (bits >> np.uint32(8)) & np.uint32(0x00FF00FF)
    pair = low + high
    total = (pair & np.uint32(0xFFFF)) + (pair >> np.uint32(16))
    return (total.astype(np.float32) - np.float32(510.0)) * np.float32(1.0 / 147.8)


class _Corner(NamedTuple):
    """Cell of a lattice in which every point lies, and the window of the lattice that covers them."""

    cell: NDArray[np.intp]
    fy: Float
    fx: Float
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def _corner(y: Double, x: Double, wavelength: float, margin: int) -> _Corner:
    v, u = y * (1.0 / wavelength), x * (1.0 / wavelength)
    iy, ix = np.floor(v), np.floor(u)
    rows = np.arange(int(iy.min()) - margin, int(iy.max()) + 2 + margin)
    columns = np.arange(int(ix.min()) - margin, int(ix.max()) + 2 + margin)
    index = (iy - rows[0]).astype(np.intp) * len(columns) + (ix - columns[0]).astype(np.intp)
    return _Corner(index, (v - iy).astype(np.float32), (u - ix).astype(np.float32), rows, columns)


def _fade(t: Float) -> Float:
    polynomial: Any = t * (t * np.float32(6) - np.float32(15)) + np.float32(10)
    faded: Float = t * t * t * polynomial
    return faded


def noise(key: np.uint32, y: Double, x: Double, wavelength: float) -> Float:
    """Gradient noise at points `y`, `x` (same shape, in pixels): zero mean, standard deviation 0.7."""
    corner = _corner(y, x, wavelength, margin=0)
    bits = lattice(key, corner.rows, corner.columns)
    slope_y = ((bits & np.uint32(0xFFFF)).astype(np.float32) * np.float32(2.0**-15) - np.float32(1)).ravel()
    slope_x = ((bits >> np.uint32(16)).astype(np.float32) * np.float32(2.0**-15) - np.float32(1)).ravel()
    across = len(corner.columns)

    def ramp(down: int, right: int) -> Float:
        at = corner.cell + (down * across + right)
        dy, dx = corner.fy - np.float32(down), corner.fx - np.float32(right)
        result: Float = slope_y.take(at) * dy + slope_x.take(at) * dx
        return result

    wy, wx = _fade(corner.fy), _fade(corner.fx)
    top, bottom = ramp(0, 0), ramp(1, 0)
    top = top + wx * (ramp(0, 1) - top)
    bottom = bottom + wx * (ramp(1, 1) - bottom)
    return (top + wy * (bottom - top)) * _GAIN


def fractal(seed: int, name: str, y: Double, x: Double, wavelengths: Sequence[float]) -> Float:
    """Sum of octaves of gradient noise, each rotated against the last; standard deviation about 0.7.

    The amplitude of an octave is proportional to its wavelength to the power of 0.8, between the
    slopes of relief (1) and of texture (0.5).
    """
    weights = [wavelength**0.8 for wavelength in wavelengths]
    scale = 1.0 / math.sqrt(sum(weight * weight for weight in weights))
    total: Any = np.float32(0)
    cosine, sine = _ROTATION
    for number, (wavelength, weight) in enumerate(zip(wavelengths, weights, strict=True)):
        y, x = cosine * y + sine * x, cosine * x - sine * y
        total = total + np.float32(weight * scale) * noise(stream(seed, f"{name}/{number}"), y, x, wavelength)
    result: Float = total
    return result


class Cells(NamedTuple):
    """Cells of points: 32 random bits of the cell, and pixels to its centre and to its border."""

    bits: Bits
    distance: Float
    border: Float


def cells(key: np.uint32, y: Double, x: Double, size: float) -> Cells:
    """Voronoi cells of mean side `size` around the points of a jittered grid."""
    corner = _corner(y, x, size, margin=1)
    bits = lattice(key, corner.rows, corner.columns)
    across = len(corner.columns)
    jitter = np.float32(0.8 * 2.0**-16)
    off_y = ((bits & np.uint32(0xFFFF)).astype(np.float32) * jitter + np.float32(0.1)).ravel()
    off_x = ((bits >> np.uint32(16)).astype(np.float32) * jitter + np.float32(0.1)).ravel()
    best = np.full(y.shape, 9, np.float32)
    second = best.copy()
    owner = corner.cell.copy()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            at = corner.cell + (down * across + right)
            dy = off_y.take(at) - (corner.fy - np.float32(down))
            dx = off_x.take(at) - (corner.fx - np.float32(right))
            away = np.sqrt(dy * dy + dx * dx)
            nearer = away < best
            second = np.minimum(second, np.maximum(best, away))
            best = np.minimum(best, away)
            np.copyto(owner, at, where=nearer)
    identity = scramble(bits.ravel() ^ key).take(owner)
    return Cells(identity, best * np.float32(size), (second - best) * np.float32(0.5 * size))


def node_positions(start: int, length: int, spacing: int = NODE) -> Double:
    """Absolute positions of the nodes around pixels start … start + length - 1."""
    first, last = start // spacing, (start + length - 1) // spacing + 1
    return np.arange(first, last + 1, dtype=np.float64) * spacing


def _split(start: int, length: int, spacing: int = NODE) -> tuple[NDArray[np.intp], Float]:
    """Of each pixel, the node before it (counted from the first), and its place between two, 0 to 1."""
    pixels = np.arange(start, start + length)
    return pixels // spacing - start // spacing, (pixels % spacing).astype(np.float32) / np.float32(spacing)


def refine(field: Float, y: int, x: int, height: int, width: int) -> Float:
    """Interpolate a field given on the nodes to every pixel of a window, bilinearly."""
    row, fy = _split(y, height)
    column, fx = _split(x, width)
    left, right = field[:, column], field[:, column + 1]
    along = left + fx[None, :] * (right - left)
    top, bottom = along[row], along[row + 1]
    result: Float = top + fy[:, None] * (bottom - top)
    return result


def refine_smooth(field: Float, y: int, x: int, height: int, width: int, spacing: int = NODE) -> Float:
    """Approximate a field given on the nodes, and on one more at each side, by cubic B-splines.

    Unlike that of `refine`, the slope has no crease at the nodes.
    """
    row, fy = _split(y, height, spacing)
    column, fx = _split(x, width, spacing)
    along: Any = sum(weight[None, :] * field[:, column + tap] for tap, weight in enumerate(_spline(fx)))
    result: Float = sum(weight[:, None] * along[row + tap] for tap, weight in enumerate(_spline(fy)))
    return result


def _spline(t: Float) -> tuple[Float, Float, Float, Float]:
    """Weights of the four nodes around a place `t` between the middle two."""
    sixth, rest = np.float32(1 / 6), np.float32(1) - t
    before, after = rest * rest * rest * sixth, t * t * t * sixth
    second = np.float32(2 / 3) - t * t * (np.float32(1) - np.float32(0.5) * t)
    return before, second, np.float32(1) - before - second - after, after

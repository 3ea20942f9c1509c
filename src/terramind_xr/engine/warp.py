"""One raster laid on the grid of another, block by block, by GDAL: any chunks give the same bytes."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import dask.array as da
import numpy as np
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

Method = Literal["nearest", "bilinear", "average"]
Window = tuple[slice, slice]
Numbers = NDArray[Any]

BLOCK = 1024
"""Side of a block of the result. A constant: what a block reads, and so its bytes, follow from the grids."""

# rasterio wants a CRS on both sides. Where neither raster has one, coordinates are compared as they are.
_PLANE = "EPSG:3857"


@dataclass(frozen=True)
class Lattice:
    """Where pixels lie: CRS as WKT (empty without one), the affine a…f, and how many rows and columns."""

    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]

    @cached_property
    def affine(self) -> Any:
        """`affine.Affine` from (column, row) to places."""
        from rasterio import Affine

        return Affine(*self.transform)

    def part(self, window: Window) -> Lattice:
        """Lattice of some of its rows and columns."""
        rows, cols = window
        a, b, _, d, e, _ = self.transform
        x, y = _applied(self.affine, cols.start, rows.start)
        return Lattice(self.crs, (a, b, x, d, e, y), (rows.stop - rows.start, cols.stop - cols.start))

    def places(self, other: Lattice, cols: Numbers, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Columns and rows of another lattice where those of this one lie; not finite where nowhere."""
        x, y = _applied(self.affine, cols, rows)
        if self.crs != other.crs:
            x, y = (np.asarray(each) for each in _transformer(self.crs, other.crs).transform(x, y))
            if _is_geographic(other.crs):  # longitudes of a raster that crosses the antimeridian go on
                middle, _ = _applied(other.affine, other.shape[1] / 2, other.shape[0] / 2)
                x = middle + (x - middle + 180) % 360 - 180
        return _applied(~other.affine, x, y)


@dataclass(frozen=True)
class Warp:
    """How one raster comes to lie on another grid.

    Parameters
    ----------
    source, target
        Where its pixels lie, and are to lie.
    method
        How numbers are made: of the nearest pixel, of the four around, or of all that a larger one covers.
    nodata
        Number of pixels without data, which take no part; None where all have data.
    fill
        Number of pixels without data in the result.
    dtype
        Of the result.
    """

    source: Lattice
    target: Lattice
    method: Method
    nodata: float | None
    fill: float
    dtype: str

    def window(self, block: Window) -> Window | None:
        """Rows and columns of the source that a block of the result is made of; None without any."""
        rows, cols = (np.linspace(each.start, each.stop, 21) for each in block)
        across, down = (
            each.ravel()
            for each in self.target.places(self.source, *(each.ravel() for each in np.meshgrid(cols, rows)))
        )
        finite = np.isfinite(across) & np.isfinite(down)
        if not finite.any():
            return None
        found = []
        for places, size in zip((down[finite], across[finite]), self.source.shape, strict=True):
            low, high = float(places.min()), float(places.max())
            # Beyond the kernel's reach, some for what bends between the places that were looked at.
            margin = 3 + math.ceil((high - low) * (0.01 + 2 / min(b.stop - b.start for b in block)))
            start, stop = max(0, math.floor(low) - margin), min(size, math.ceil(high) + margin)
            if start >= stop:
                return None
            found.append(slice(start, stop))
        return found[0], found[1]

    def run(self, array: Numbers, window: Window, block: Window) -> Numbers:
        """A block of the result (…, y, x), of the window of the source (…, y, x)."""
        target = self.target.part(block)
        made = np.empty((*array.shape[:-2], *target.shape), self.dtype)
        for place in np.ndindex(*array.shape[:-2]):
            made[place] = self._layer(array[place], self.source.part(window), target)
        return made

    def _layer(self, layer: Numbers, source: Lattice, target: Lattice) -> Numbers:
        from rasterio.enums import Resampling
        from rasterio.warp import reproject

        given = np.ascontiguousarray(layer, _known(layer.dtype))
        nodata, fill = self.nodata, self.fill
        if np.dtype(self.dtype).kind == "f":
            # NaN and a declared number are the same: nothing may bleed out of either.
            given = given.astype(_known(np.result_type(given.dtype, self.dtype)))
            if nodata is not None and not math.isnan(nodata):
                given = np.where(given == given.dtype.type(nodata), np.nan, given)
            nodata = fill = math.nan
        # GDAL would take the scale from the windows, and so smooth small or turned blocks more than others.
        scale = {"XSCALE": "1", "YSCALE": "1"} if self.method == "bilinear" else {}
        made = np.full(target.shape, fill, given.dtype)
        reproject(
            given, made,
            src_transform=source.affine, src_crs=source.crs or _PLANE, src_nodata=nodata,
            dst_transform=target.affine, dst_crs=target.crs or _PLANE, dst_nodata=fill,
            resampling=Resampling[self.method], num_threads=1, tolerance=0.0, **scale,
        )  # fmt: skip
        if math.isnan(fill) and not math.isnan(self.fill):
            made = np.where(np.isnan(made), made.dtype.type(self.fill), made)
        return made.astype(self.dtype, copy=False)


def warp(array: Any, how: Warp) -> Any:
    """A raster (…, y, x) on another grid: dask for dask, numpy for numpy, with the same bytes."""
    return _lazily(array, how) if isinstance(array, da.Array) else _now(array, how)


def _now(array: Numbers, how: Warp) -> Numbers:
    made = np.full((*array.shape[:-2], *how.target.shape), how.fill, how.dtype)
    for _, block in _blocks(how.target.shape):
        window = how.window(block)
        if window is not None:
            made[(..., *block)] = how.run(array[(..., *window)], window, block)
    return made


def _lazily(array: da.Array, how: Warp) -> da.Array:
    token = tokenize(array.name, how)
    name, part = f"terramind-align-{token}", f"terramind-align-part-{token}"
    lead, borders = array.chunks[:-2], [np.cumsum((0, *sizes)) for sizes in array.chunks[-2:]]
    tasks: dict[Any, Task] = {}
    for at, block in _blocks(how.target.shape):
        window = how.window(block)
        taken = None if window is None else [_taken(*pair) for pair in zip(borders, window, strict=True)]
        for place in np.ndindex(*map(len, lead)):
            key = (name, *place, *at)
            if taken is None:
                shape = [sizes[number] for sizes, number in zip(lead, place, strict=True)]
                whole = (*shape, *(each.stop - each.start for each in block))
                tasks[key] = Task(key, np.full, whole, how.fill, how.dtype)
                continue
            parts = []
            for row, rows in taken[0].items():
                line = [(part, *place, *at, row, col) for col in taken[1]]
                for own, (col, cols) in zip(line, taken[1].items(), strict=True):
                    index = (..., rows, cols)
                    tasks[own] = Task(own, operator.getitem, TaskRef((array.name, *place, row, col)), index)
                parts.append(List(*map(TaskRef, line)))
            tasks[key] = Task(key, _joined, how, List(*parts), window, block)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[array])
    chunks = (*lead, *(_steps(size) for size in how.target.shape))
    return da.Array(graph, name, chunks=chunks, meta=np.empty((0,) * array.ndim, how.dtype))


def _joined(how: Warp, parts: list[list[Numbers]], window: Window, block: Window) -> Numbers:
    return how.run(np.concatenate([np.concatenate(line, -1) for line in parts], -2), window, block)


def _taken(borders: Numbers, wanted: slice) -> dict[int, slice]:
    """Of each chunk along an axis that is touched, what is wanted of it."""
    found = {}
    for number, (start, stop) in enumerate(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)):
        low, high = max(start, wanted.start), min(stop, wanted.stop)
        if low < high:
            found[number] = slice(low - start, high - start)
    return found


def _steps(size: int) -> tuple[int, ...]:
    return tuple(min(BLOCK, size - start) for start in range(0, size, BLOCK))


def _blocks(shape: tuple[int, int]) -> Iterator[tuple[tuple[int, int], Window]]:
    """Blocks of a result: their numbers, and their rows and columns."""
    rows, cols = (
        [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)] for size in shape
    )
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            yield (i, j), (row, col)


def _applied(affine: Any, x: Any, y: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = affine[:6]
    return a * x + b * y + c, d * x + e * y + f


def _known(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which GDAL takes numbers."""
    return np.dtype({"b1": "u1", "f2": "f4"}.get(dtype.str[1:], dtype.newbyteorder("=")))


@lru_cache(maxsize=32)
def _transformer(source: str, target: str) -> Any:
    import pyproj

    return pyproj.Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=32)
def _is_geographic(crs: str) -> bool:
    import pyproj

    return bool(crs) and bool(pyproj.CRS.from_user_input(crs).is_geographic)

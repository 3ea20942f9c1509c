"""The tasks of one call of `map_tiles`, made where they are asked for, however large the scene is."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask._task_spec import DataNode, GraphNode, List, Task, TaskRef
from dask.highlevelgraph import Layer, MaterializedLayer

from terramind_xr.engine.blocks import Work, cut, finish_chunk, margin, run_block
from terramind_xr.engine.tiling import AxisTiling, Interval, Tiling

Place = tuple[int, ...]
Touched = dict[int, slice]
"""Chunks along an axis, and which of its cells are taken of each."""


@dataclass(frozen=True)
class Chunked:
    """Where the chunks of an input array (*extra, band, y, x) lie.

    Parameters
    ----------
    name
        Of the array's tasks.
    chunks
        Sizes of its chunks, axis by axis.
    axes
        For each of its extra axes, the number of the extra axis of the result that it follows.
    tiling
        In its cells.
    """

    name: str
    chunks: tuple[tuple[int, ...], ...]
    axes: tuple[int, ...]
    tiling: Tiling

    @functools.cached_property
    def scenes(self) -> tuple[int, ...]:
        """Shape of its extra axes."""
        return tuple(map(sum, self.chunks[:-3]))

    @functools.cached_property
    def taken(self) -> tuple[tuple[Touched, ...], ...]:
        """Of each axis, what each place along it (all bands, each block) takes."""
        *extra, bands, rows, cols = self.chunks
        return (
            *(tuple(_touched(sizes, Interval(at, at + 1)) for at in range(sum(sizes))) for sizes in extra),
            (_touched(bands, Interval(0, sum(bands))),),
            _by_block(rows, self.tiling.y),
            _by_block(cols, self.tiling.x),
        )

    def of(self, place: Place, row: int, col: int) -> list[Touched]:
        """What a block takes along each axis."""
        return [axis[at] for axis, at in zip(self.taken, (*place, 0, row, col), strict=True)]


def _by_block(sizes: tuple[int, ...], axis: AxisTiling) -> tuple[Touched, ...]:
    extents = [axis.extent(block) or Interval(0, 0) for block in range(axis.blocks)]
    return tuple(_touched(sizes, extent) for extent in extents)


def _touched(sizes: tuple[int, ...], interval: Interval) -> Touched:
    borders = np.cumsum((0, *sizes))
    first, stop = np.searchsorted(borders, (interval.start, interval.stop), side="right")
    wholes = {
        at: Interval(int(borders[at]), int(borders[at + 1])) for at in range(first - 1, min(stop, len(sizes)))
    }
    return {at: (whole & interval).within(whole) for at, whole in wholes.items() if len(whole & interval)}


@dataclass(frozen=True)
class Tasks:
    """All tasks of a call, by their keys. None is kept: what they are follows from the tiling.

    Parameters
    ----------
    work
        What the tasks share.
    sources
        Inputs, as they are chunked.
    extra
        Shape of the extra axes of the results.
    """

    work: Work
    sources: tuple[Chunked, ...]
    extra: tuple[int, ...]

    def task(self, key: Any) -> GraphNode:
        """Task of a key; KeyError if there is none."""
        work = self.work
        if key == work.key:
            return DataNode(key, work)
        name, *at = key
        if name == work.block:
            return self._block(key, tuple(at))
        if name == work.margin:
            *place, row, col = at
            return Task(key, margin, TaskRef((work.block, *place)), row, col)
        if name == work.cut:
            number, *place, row, col = at[:-3]
            return self._cut(key, self.sources[number], (*place, 0, row, col), at[-3:])
        index = work.chunks.index(name)
        return self._finished(key, index, (*at[: len(self.extra)], *at[-2:]))

    def keys(self, name: str) -> Iterator[Any]:
        """Keys of all tasks of a name."""
        work = self.work
        if name == work.key:
            yield name
        elif name == work.cut:
            for number, source in enumerate(self.sources):
                for place in np.ndindex(*source.scenes, *source.tiling.shape):
                    yield from self._cuts(number, place)
        else:
            for place in np.ndindex(*self.extra, *work.tilings[1].shape):
                if name == work.margin:
                    yield from self._incoming(place)
                elif name == work.block:
                    if self._runs(place):
                        yield (name, *place)
                else:
                    index = work.chunks.index(name)
                    if work.field_of(index).is_raster or self._runs(place):
                        pixel = (0 for _ in work.kernel.outputs[index].pixel)
                        yield (name, *place[:-2], *pixel, *place[-2:])

    def _runs(self, place: Place) -> bool:
        """Whether a block has tiles."""
        tiling = self.work.tilings[1]
        return tiling.y.extent(place[-2]) is not None and tiling.x.extent(place[-1]) is not None

    def _cuts(self, number: int, place: Place) -> Iterator[Any]:
        """Keys of what a block takes from the chunks of a source."""
        *_, bands, rows, cols = self.sources[number].of(place[:-2], *place[-2:])
        for chunk in itertools.product(bands, rows, cols):
            yield (self.work.cut, number, *place, *chunk)

    def _cut(self, key: Any, source: Chunked, at: Place, chunk: list[int]) -> Task:
        *extra, bands, rows, cols = source.of(at[:-3], *at[-2:])
        lead = [next(iter(touched.items())) for touched in extra]
        numbers = (*(number for number, _ in lead), *chunk)
        window = (*(each for _, each in lead), bands[chunk[0]], rows[chunk[1]], cols[chunk[2]])
        return Task(key, cut, TaskRef((source.name, *numbers)), window)

    def _block(self, key: Any, place: Place) -> Task:
        if not self._runs(place):
            raise KeyError(key)
        regions = []
        for number, source in enumerate(self.sources):
            at = (*(place[axis] for axis in source.axes), *place[-2:])
            *_, bands, rows, cols = source.of(at[:-2], *at[-2:])
            keys = {
                chunk: (self.work.cut, number, *at, *chunk) for chunk in itertools.product(bands, rows, cols)
            }
            regions.append(
                List(
                    *(
                        List(*(List(*(TaskRef(keys[band, i, j]) for j in cols)) for i in rows))
                        for band in bands
                    )
                )
            )
        return Task(key, run_block, TaskRef(self.work.key), *place[-2:], List(*regions))

    def _finished(self, key: Any, index: int, place: Place) -> Task:
        runs, is_raster = self._runs(place), self.work.field_of(index).is_raster
        if not (runs or is_raster):
            raise KeyError(key)
        block = TaskRef((self.work.block, *place)) if runs else None
        incoming = self._incoming(place) if is_raster else []
        # Waiting for the margins it hands out as well frees the block once its chunk is finished:
        # left to itself, dask would cut them when a neighbour asks, and keep whole rows of blocks.
        wait = self._outgoing(place) if is_raster else []
        margins = (List(*map(TaskRef, keys)) for keys in (incoming, wait))
        return Task(
            key, finish_chunk, TaskRef(self.work.key), index, len(self.extra), *place[-2:], block, *margins
        )

    def _incoming(self, place: Place) -> list[Any]:
        """Keys of the margins that a chunk gets."""
        *scene, row, col = place
        tiling = self.work.tilings[1]
        others = itertools.product(tiling.y.touching(row), tiling.x.touching(col))
        return [(self.work.margin, *scene, *other, row, col) for other in others if other != (row, col)]

    def _outgoing(self, place: Place) -> list[Any]:
        """Keys of the margins that a block hands out."""
        *_, row, col = place
        tiling = self.work.tilings[1]
        others = itertools.product(tiling.y.reached(row), tiling.x.reached(col))
        return [(self.work.margin, *place, *other) for other in others if other != (row, col)]


class TileLayer(Layer):  # type: ignore[misc]
    """Tasks of some names, as a layer of a graph that is expanded only where it is computed."""

    has_legacy_tasks = False

    def __init__(self, tasks: Tasks, names: tuple[str, ...]) -> None:
        super().__init__()
        self.tasks = tasks
        self.names = names

    def __getitem__(self, key: Any) -> GraphNode:
        name = key[0] if isinstance(key, tuple) and key else key
        if name in self.names and (key == name or all(number >= 0 for number in key[1:])):
            try:
                return self.tasks.task(key)
            except (IndexError, ValueError):
                pass
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(map(self.tasks.keys, self.names))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def is_materialized(self) -> bool:
        """Whether its tasks are there already."""
        return False

    def get_output_keys(self) -> set[Any]:
        """Keys that other layers can need."""
        return set(self)

    def cull(
        self, keys: Collection[Any], all_hlg_keys: Collection[Any]
    ) -> tuple[MaterializedLayer, Mapping[Any, set[Any]]]:
        """The tasks that are needed for some keys, made, and what each depends on."""
        found: dict[Any, GraphNode] = {}
        stack = [key for key in keys if self._is_own(key)]
        while stack:
            key = stack.pop()
            if key not in found:
                found[key] = self.tasks.task(key)
                stack += filter(self._is_own, found[key].dependencies)
        dependencies = {key: set(task.dependencies) for key, task in found.items()}
        return MaterializedLayer(found, annotations=self.annotations), dependencies

    def _is_own(self, key: Any) -> bool:
        return (key[0] if isinstance(key, tuple) else key) in self.names

"""A run over a scene too large for one graph, region by region, without doing anything twice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
from dask._task_spec import DataNode, convert_legacy_graph
from dask.blockwise import fuse_roots, optimize_blockwise
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph

from terramind_xr.engine.order import Graph, Together, name_of, needs, works_of

CHUNKS = 4000
"""Most chunks that are written with one graph, which has some ten tasks for each."""


@dataclass
class Region:
    """Part of a run.

    Parameters
    ----------
    tasks
        All that it computes.
    keys
        Of the chunks that are taken (written).
    given
        Results of earlier regions that it needs.
    handed
        Results that the next one needs.
    """

    tasks: Graph
    keys: list[Any]
    given: set[Any]
    handed: list[Any]


def in_regions(arrays: Sequence[da.Array], done: Collection[Any] = ()) -> Iterator[Region]:
    """Cut the computation of arrays into regions: rows of chunks, from the top of a scene to its end.

    What the chunks of a region share with those of the next, above all the margins of its last row of blocks
    and the input chunks that reach across, is a result of the one and given to the other.

    Optimised as dask does for arrays, except that linear chains are not fused: its own order of fused
    tasks leaves more blocks waiting.

    Parameters
    ----------
    arrays
        Chunks that are taken by the last tasks of their graphs.
    done
        Keys of chunks to be left out, with all that only they need.
    """
    graph = HighLevelGraph.merge(*(array.__dask_graph__() for array in arrays))
    ends = [(array.name, *(0 for _ in array.shape)) for array in arrays]
    graph = fuse_roots(optimize_blockwise(graph, keys=ends), keys=ends)
    current: Region | None = None
    for wanted in _bands(graph, arrays):
        keys = [key for key in wanted if key not in done]
        region = Region(_culled(graph, keys), keys, set(), [])
        if current is not None:
            _hand_over(current, region)
            yield current
        current = region
    if current is not None:
        yield current


def _culled(graph: HighLevelGraph, keys: Collection[Any]) -> Graph:
    tasks: Graph = convert_legacy_graph(dict(graph.cull(set(keys))))
    return tasks


def _hand_over(current: Region, following: Region) -> None:
    """Leave out of a region what the one before it computes or is given, and have it handed on."""
    known = {key for key, task in current.tasks.items() if not isinstance(task, DataNode)} | current.given
    needed: Graph = {}
    stack = list(following.keys)
    while stack:
        key = stack.pop()
        if key in known:
            following.given.add(key)
        elif key not in needed and key in following.tasks:
            needed[key] = following.tasks[key]
            stack += needed[key].dependencies
    following.tasks = needed
    current.handed = list(following.given)


def _bands(graph: HighLevelGraph, arrays: Sequence[da.Array]) -> list[list[Any]]:
    """Keys of all chunks, region by region."""
    if sum(array.npartitions for array in arrays) <= CHUNKS:
        return [list(flatten([array.__dask_keys__() for array in arrays]))]
    rows, reach = _rows(graph, arrays)
    bands: list[list[Any]] = []
    height = 0
    for row in rows:
        # With fewer rows, the tiles of a block could be needed in a third region.
        if not bands or (height >= reach and len(bands[-1]) + len(row) > CHUNKS):
            bands.append([])
            height = 0
        bands[-1] += row
        height += 1
    return bands


def _rows(graph: HighLevelGraph, arrays: Sequence[da.Array]) -> tuple[list[list[Any]], int]:
    """Keys by row of chunks, in the order in which they are to run; and how many rows on a block is needed.

    Scenes (e.g. dates) that read nothing in common come one after the other, all others side by side. Both
    is seen at the first column of chunks.
    """
    count = max(_height(array) for array in arrays)
    place = {
        key: ((key[0], key[1:-2]), key[-2] * count // _height(array) if array.ndim > 1 else 0)
        for array in arrays
        for key in flatten(array.__dask_keys__())
    }
    first_column = sorted((key for key in place if key[-1] in (0, key[0])), key=lambda key: place[key][1])
    tasks = _culled(graph, first_column)
    first, last = _readers(tasks, first_column), _readers(tasks, first_column[::-1])
    blocks = {work.block for work in works_of(tasks)}
    reaches = [place[last[key]][1] - place[first[key]][1] for key in first if name_of(key) in blocks]
    if not reaches:
        return [list(place)], 0
    together = Together(scene for scene, _ in place.values())
    for key, reader in first.items():
        for each in needs(tasks, key):
            together.join(place[reader][0], place[first[each]][0])
    rows: dict[Any, list[Any]] = {}
    for key, (scene, row) in place.items():
        rows.setdefault((together.first(scene), row), []).append(key)
    return [rows[at] for at in sorted(rows, key=lambda at: (together.number(at[0]), at[1]))], max(reaches)


def _height(array: da.Array) -> int:
    """Number of rows of chunks."""
    return array.numblocks[-2] if array.ndim > 1 else 1


def _readers(tasks: Graph, ends: Sequence[Any]) -> dict[Any, Any]:
    """Of each task, the one of these that is the first to need it."""
    found: dict[Any, Any] = {}
    for end in ends:
        stack = [end]
        while stack:
            key = stack.pop()
            if key not in found:
                found[key] = end
                stack += needs(tasks, key)
    return found

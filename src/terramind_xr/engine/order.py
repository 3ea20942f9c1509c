"""A run over a whole scene in a window that moves over its blocks, so that memory stays bounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dask._task_spec import DataNode, List, Task, TaskRef, convert_legacy_graph
from dask.core import reverse_dict

from terramind_xr.engine.blocks import Work

Graph = dict[Any, Any]


def in_window(
    tasks: Graph, keys: Sequence[Any], *, ahead: int, run: str, given: Collection[Any] = ()
) -> tuple[Graph, list[Any]]:
    """Graph that runs tasks in a window (see `in_sequence`), and the keys in it.

    All tasks get names of their own, because on a cluster the same names may stand for the unchanged tasks of
    the same result, e.g. after a `persist`.

    Parameters
    ----------
    tasks
        As for `in_sequence`.
    keys
        Of what is wanted.
    ahead
        As for `in_sequence`.
    run
        Makes the names: those of a run are the same in each of its graphs.
    given
        Keys of what a cluster holds already from an earlier graph of the run.
    """
    tasks = in_sequence(tasks, ahead)
    names = {key: _named_for(key, run) for key in (*tasks, *given)}
    graph = {names[key]: task.substitute(names, names[key]) for key, task in tasks.items()}
    return graph, [names[key] for key in keys]


def _named_for(key: Any, run: str) -> Any:
    return (f"{key[0]}-{run}", *key[1:]) if isinstance(key, tuple) else f"{key}-{run}"


def in_sequence(graph: Mapping[Any, Any], ahead: int) -> Graph:
    """Hold a run over whole scenes to a window that moves over the blocks, row by row.

    The order in which dask runs a graph is its own: it can leave many blocks waiting for a neighbour that
    comes late, and reads far ahead while the model is busy. Here each block, and what is read for it, waits
    for all chunks up to `ahead` places before it. This is not for parts of a scene: a block would draw in all
    those before it.

    Parameters
    ----------
    graph
        Of what is to be computed, tasks not yet fused.
    ahead
        Blocks at work or waiting at a time.

    Returns
    -------
    dict
        The same tasks with the same keys, and those that hold them back.
    """
    tasks: Graph = convert_legacy_graph(dict(graph))
    works = works_of(tasks)
    own = frozenset(name for work in works for name in (work.block, work.margin, *work.chunks))
    for work in works:
        places = in_order(tasks, work.block, own)
        consumed = _consumed_by_place(tasks, work, places)
        before: list[TaskRef] = []
        for place, earlier in zip(places[ahead:], places, strict=False):
            done = (_done_name(work), *earlier)
            # With the one before it, all are done: else scenes side by side would drift apart.
            tasks[done] = Task(done, _done, List(*consumed[earlier], *before))
            before = [TaskRef(done)]
            key = (work.block, *place)
            tasks[key] = _after(done, tasks[key])
        if len(works) == 1:
            # Of several calls each would hold back what another waits for.
            blocks = [(work.block, *place) for place in places]
            reads = itertools.islice(_leaves(tasks, blocks, own | {_done_name(work)}), ahead, None)
            for leaves, earlier in zip(reads, places, strict=False):
                done = (_done_name(work), *earlier)
                tasks |= {leaf: _after(done, tasks[leaf]) for leaf in leaves}
    return tasks


def works_of(tasks: Mapping[Any, Any]) -> list[Work]:
    """What the calls of `map_tiles` in a graph left in it: the names of their tasks."""
    found = [node.value for node in tasks.values() if isinstance(node, DataNode)]
    return [work for work in found if isinstance(work, Work)]


def _done_name(work: Work) -> str:
    return f"terramind-done-{work.token}"


def in_order(tasks: Mapping[Any, Any], block: str, own: frozenset[str]) -> list[Any]:
    """Places (*extra, row, column) of all blocks, in the order in which they are to run.

    `block` is the name of the tasks that run them, `own` those of all tasks that are no inputs.

    Scenes (e.g. dates) that read nothing in common run one after the other, so that the margins of one row
    are held and not those of a row in each. Those that read the same chunks run side by side, block by
    block: else each chunk would stay from the first scene to the last, and so the whole input.
    """
    places = sorted(key[1:] for key in tasks if key[0] == block)
    together = Together(place[:-2] for place in places)
    reader: dict[Any, Any] = {}  # scene of the block that was first to need a task
    for place in places:
        stack = _inputs(tasks, (block, *place), own)
        while stack:
            key = stack.pop()
            if key not in reader:
                stack += _inputs(tasks, key, own)
            together.join(reader.setdefault(key, place[:-2]), place[:-2])
    return sorted(places, key=lambda place: (together.number(place[:-2]), place[-2:], place))


class Together:
    """Scenes that read the same, and so are to run side by side.

    Parameters
    ----------
    scenes
        All of them; those that come first are to run first.
    """

    def __init__(self, scenes: Iterable[Any]) -> None:
        self._number = {scene: number for number, scene in enumerate(dict.fromkeys(scenes))}
        self._first = {scene: scene for scene in self._number}

    def first(self, scene: Any) -> Any:
        """First of the scenes that read the same as this one."""
        while self._first[scene] != scene:
            scene = self._first[scene]
        return scene

    def number(self, scene: Any) -> int:
        """Turn of the scenes that read the same as this one."""
        return self._number[self.first(scene)]

    def join(self, one: Any, other: Any) -> None:
        """Say that two read the same."""
        one, other = sorted((self.first(one), self.first(other)), key=self._number.__getitem__)
        self._first[other] = one


def _inputs(tasks: Mapping[Any, Any], key: Any, own: frozenset[str]) -> list[Any]:
    """What a task needs, our own tasks left out."""
    return [each for each in needs(tasks, key) if name_of(each) not in own]


def name_of(key: Any) -> Any:
    """Name of the tasks that one belongs to."""
    return key[0] if isinstance(key, tuple) else key


def _consumed_by_place(tasks: Mapping[Any, Any], work: Work, places: list[Any]) -> dict[Any, list[Any]]:
    """For each block, what is left when its finished chunk has been used up, e.g. stored.

    Of a block that runs for its neighbours alone, the margins that it hands them.
    """
    dependents = reverse_dict({key: task.dependencies for key, task in tasks.items()})
    consumed: dict[Any, list[Any]] = {place: [] for place in places}
    for key in tasks if places else ():  # the last rows of a scene may run none
        if name_of(key) in work.chunks:
            # (name, *place, *pixel, row, column)
            place = (*key[1 : len(places[0]) - 1], *key[-2:])
            if place in consumed:
                consumed[place] += map(TaskRef, _ends(tasks, dependents, key))
    margins: dict[Any, list[Any]] = {}
    for key in tasks:
        if name_of(key) == work.margin:
            margins.setdefault(key[1:-2], []).append(TaskRef(key))
    return {place: found or margins.get(place, []) for place, found in consumed.items()}


def _ends(tasks: Mapping[Any, Any], dependents: Mapping[Any, Any], key: Any) -> list[Any]:
    """Last tasks that need this one and no other: waiting for them cannot wait for another block."""
    only = [each for each in dependents[key] if needs(tasks, each) == [key]]
    return [end for each in only for end in _ends(tasks, dependents, each)] or [key]


def needs(tasks: Mapping[Any, Any], key: Any) -> list[Any]:
    """Tasks that this one waits for: not data in the graph, nor what a cluster holds already."""
    return [
        each for each in tasks[key].dependencies if each in tasks and not isinstance(tasks[each], DataNode)
    ]


def _leaves(tasks: Mapping[Any, Any], blocks: list[Any], own: frozenset[str]) -> Iterator[list[Any]]:
    """For each block, the tasks that read for it and for no block before it."""
    seen: set[Any] = set(blocks)
    for block in blocks:
        found, stack = [], [block]
        while stack:
            key = stack.pop()
            if not needs(tasks, key) and isinstance(tasks[key], Task):
                found.append(key)
            new = [each for each in _inputs(tasks, key, own) if each not in seen]
            seen.update(new)
            stack.extend(new)
        yield found


def _after(done: Any, task: Task) -> Task:
    """Task that runs as before once `done` is there."""
    return Task(task.key, _call_after, TaskRef(done), task.func, *task.args, **task.kwargs)


def _call_after(done: None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _done(consumed: list[Any]) -> None:
    """Stand for chunks that are done with, without holding them."""

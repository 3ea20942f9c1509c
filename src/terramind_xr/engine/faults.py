"""What a run cannot read or write, told in the user's words: the variable, the place and what helps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from dask._task_spec import Task

from terramind_xr.engine.blocks import Work
from terramind_xr.engine.order import Graph, name_of, needs, works_of
from terramind_xr.errors import InputError, OptionError, TerramindError


@contextlib.contextmanager
def writable(store: Any) -> Iterator[None]:
    """Say it where nothing can be written, not even what describes the values."""
    try:
        yield
    except OSError as error:
        raise OptionError(
            f"The store {str(store)!r} cannot be written: {error}. Give a path where you may write and which "
            "has room. If a run has begun there, the same call goes on with it once that is mended."
        ) from error


@contextlib.contextmanager
def writing_chunk(variable: str, where: tuple[slice, ...], store: Any, stays: bool) -> Iterator[None]:
    """Name the chunk that cannot be written; `stays` is whether a later call goes on with the others."""
    try:
        yield
    except Exception as error:  # stores and codecs have errors of their own
        window = ", ".join(f"{axis.start}:{axis.stop}" for axis in where)
        remedy = (
            "Finished chunks stay. Mend that (space, rights, the network) and make the same call again: it "
            "goes on with them."
            if stays
            else "Mend that (space, rights, the network) and write to a new store."
        )
        raise OptionError(
            f"{variable}[{window}] cannot be written to {str(store)!r} ({_told(error)}). {remedy}"
        ) from error


def with_places(tasks: Graph) -> Graph:
    """Tasks that read the inputs of our results name input and place where they fail; else the same.

    A place is that of the first block that needs what is read: chunks of an input may be larger.
    """
    named: Graph = {}
    for work in works_of(tasks):
        own = {*work.shared, *work.chunks}
        for key in tasks:
            if name_of(key) == work.cut:
                told = _place(work, key)
                stack = needs(tasks, key)
                while stack:
                    each = stack.pop()
                    if each not in named and name_of(each) not in own:
                        named[each] = _telling(told, tasks[each])
                        stack += needs(tasks, each)
    return tasks | named


def _telling(told: str, task: Any) -> Any:
    if not isinstance(task, Task):
        return task
    return Task(task.key, _read, told, task.func, *task.args, **task.kwargs)


def _read(told: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except TerramindError:
        raise
    except Exception as error:  # formats have errors of their own
        raise unreadable(told, error) from error


def unreadable(told: str, error: Exception) -> InputError:
    """What to raise where an input, told with its place, could not be read."""
    return InputError(
        f"{told} cannot be read ({_told(error)}). Mend that part of the input, or write a copy of it without "
        "the damage, and make the same call again: chunks that to_zarr has finished stay."
    )


def _place(work: Work, key: Any) -> str:
    """Input and place of a task that cuts: (name, source, *place, row, column, and three chunks)."""
    number, *place, row, col = key[1:-3]
    tiling = work.tilings[work.cells[number]]
    y, x = tiling.y.extent(row), tiling.x.extent(col)
    assert y is not None, "only blocks with tiles read"
    assert x is not None, "only blocks with tiles read"
    rows, cols = f"{y.start}:{min(y.stop, tiling.y.size)}", f"{x.start}:{min(x.stop, tiling.x.size)}"
    beside = f" at {', '.join(map(str, place))} of the other dimensions" if place else ""
    return f"{work.names[number]} in rows {rows} and columns {cols} from the north-west corner{beside}"


def _told(error: BaseException) -> str:
    """Type and text of an error, and of the one behind it: GDAL tells there what it was."""
    cause = error.__cause__
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text if cause is None or not str(cause) else f"{text.rstrip('.')}; {cause}"

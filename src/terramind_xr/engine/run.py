"""A run over whole scenes on dask's scheduler in force, for whatever takes the blocks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import dask
import dask.array as da
from dask.base import get_scheduler, named_schedulers
from dask.callbacks import Callback
from dask.system import CPU_COUNT

from terramind_xr.engine.order import in_window, works_of
from terramind_xr.engine.progress import Progress


def compute_in_window(writing: list[da.Array], progress: Progress, done: Collection[Any] = ()) -> None:
    """Run a graph whose chunks are taken (written) by its last tasks, in a window over the scene.

    Chunks whose keys are among those `done` are left out.
    """
    run = get_scheduler(collections=writing)
    owner = getattr(run, "__self__", None)
    client = owner if hasattr(owner, "nthreads") else None  # of a cluster
    threads = sum(client.nthreads().values()) if client else dask.config.get("num_workers", CPU_COUNT)
    # Twice the threads: wide enough to keep every one at work.
    graph, keys = in_window(writing, ahead=2 * threads, done=done)
    waits_for = "the model loads, the first blocks run" if works_of(graph) else ""
    with progress.counting(keys, client, waits_for) as callbacks:
        if client is None:
            # Handed over, not entered: callbacks that are entered count what other threads compute as well.
            run(graph, keys, callbacks=Callback.active | callbacks)
        else:
            run(graph, keys)


def is_in_this_process(array: da.Array) -> bool:
    """Whether the scheduler in force runs tasks in threads of this process, which share what is open here."""
    run: Any = get_scheduler(collections=[array])
    return run in (named_schedulers["threads"], named_schedulers["sync"])

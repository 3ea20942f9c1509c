"""A run over whole scenes on dask's scheduler in force, for whatever takes the blocks."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection
from typing import Any

import dask
import dask.array as da
from dask._task_spec import DataNode, Task
from dask.base import get_scheduler, named_schedulers
from dask.callbacks import Callback
from dask.system import CPU_COUNT

from terramind_xr.engine.faults import with_places
from terramind_xr.engine.order import Graph, in_window, works_of
from terramind_xr.engine.progress import Progress
from terramind_xr.engine.regions import in_regions
from terramind_xr.engine.workers import client_of


def compute_in_window(writing: list[da.Array], progress: Progress, done: Collection[Any] = ()) -> None:
    """Run a graph whose chunks are taken (written) by its last tasks, in a window over the scene.

    Where it would be large, it is run region by region. Chunks whose keys are among those `done` are left
    out.
    """
    run = get_scheduler(collections=writing)
    client = client_of(run)
    token, frees = uuid.uuid4().hex, is_in_this_process(writing[0])
    held: dict[Any, Any] = {}  # what one region hands to the next: results, or futures of a cluster
    with contextlib.nullcontext() if client is None else _Cluster(client, progress) as cluster:
        for region in in_regions(writing, done):
            passed = {key: held[key] for key in region.handed if key in region.given}
            handed = [key for key in region.handed if key not in region.given]
            tasks = with_places(region.tasks)
            if cluster is None:
                tasks |= {
                    # Taken out by the task, so that it can be freed before the region ends.
                    key: Task(key, held.pop, key) if frees and key not in passed else DataNode(key, held[key])
                    for key in region.given
                }
            # Twice the threads: wide enough to keep every one at work.
            ahead = 2 * _threads(client)
            graph, keys = in_window(
                tasks, [*region.keys, *handed], ahead=ahead, run=token, given=region.given
            )
            wanted = len(region.keys)
            if works_of(tasks):
                progress.waits_for = "the model loads, the first blocks run"
            if cluster is not None:
                results = cluster.submit(graph, keys, wanted)
            else:
                with progress.counting(keys[:wanted]) as callbacks:
                    # Handed over, not entered: entered callbacks count what other threads compute as well.
                    results = run(graph, keys, callbacks=Callback.active | callbacks)
            held = passed | dict(zip(handed, results[wanted:], strict=True))


def _threads(client: Any) -> int:
    """Threads at work now; of a cluster whose workers are all still to come, 1."""
    found: int = sum(client.nthreads().values()) if client else dask.config.get("num_workers", CPU_COUNT)
    return max(found, 1)


class _Cluster:
    """Regions on a cluster, which has two at a time: no worker waits for the last chunks of one.

    Parameters
    ----------
    client
        Of the cluster.
    progress
        To count what is written.
    """

    def __init__(self, client: Any, progress: Progress) -> None:
        self._client, self._progress = client, progress
        self._running: list[tuple[list[Any], int]] = []

    def __enter__(self) -> _Cluster:
        self._is_aside = _stand_aside()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            while self._running and error is None:
                self._finish()
        finally:
            for futures, _wanted in self._running:
                for future in futures:
                    future.release()
            if self._is_aside:
                from distributed import rejoin

                rejoin()

    def submit(self, graph: Graph, keys: list[Any], wanted: int) -> list[Any]:
        """Begin a region, of whose keys so many are waited for, and end the one before it.

        Futures of all keys: they stay on the cluster as long as these are held.
        """
        futures: list[Any] = self._client.get(graph, keys, sync=False)
        self._running.append((futures, wanted))
        self._progress.begun(self._client, keys[:wanted])
        if len(self._running) > 1:
            self._finish()
        return futures

    def _finish(self) -> None:
        """Wait for the first of the regions, and raise what went wrong in it."""
        futures, wanted = self._running[0]
        self._client.gather(futures[:wanted])
        self._progress.ended([future.key for future in futures[:wanted]])
        del self._running[0]


def _stand_aside() -> bool:
    """Give back the thread of a worker, if this run is a task of one; whether it was.

    As dask does where a task computes: else the blocks could wait for that very thread.
    """
    from distributed import secede
    from distributed.utils import thread_state

    if not getattr(thread_state, "key", None):
        return False
    with contextlib.suppress(Exception):  # it has given the thread back already: `worker_client`, say
        secede()
        return True
    return False


def is_in_this_process(array: da.Array) -> bool:
    """Whether the scheduler in force runs tasks in threads of this process, which share what is open here."""
    run: Any = get_scheduler(collections=[array])
    return run in (named_schedulers["threads"], named_schedulers["sync"])

"""Who computes: the processes of dask's scheduler in force, their threads and their memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
from dask.base import get_scheduler, named_schedulers
from dask.system import CPU_COUNT


@dataclass(frozen=True)
class Workers:
    """What a run is spread over.

    Parameters
    ----------
    processes
        How many there are.
    threads
        Blocks that each works on at a time, at most.
    memory
        Bytes that each may take, at least; None where there is no limit, or no worker yet.
    """

    processes: int
    threads: int
    memory: int | None

    @classmethod
    def in_force(cls) -> Workers:
        """Those of the scheduler that computes lazy arrays here and now."""
        run = get_scheduler(cls=da.Array)
        client = client_of(run)
        if client and not client.asynchronous:
            known = client.nthreads().values()
            told = client.scheduler_info()["workers"].values()
            limits = [worker["memory_limit"] for worker in told if worker.get("memory_limit")]
            return cls(max(len(known), 1), max(known, default=1), min(limits, default=None))
        if run == named_schedulers["processes"]:
            processes = dask.config.get("num_workers", CPU_COUNT)
            return cls(processes, 1, _limit_of_machine() // processes)
        return cls(1, 1, _limit_of_machine()) if run == named_schedulers["sync"] else cls.in_this_process()

    @classmethod
    def in_this_process(cls) -> Workers:
        """The threads of this process."""
        return cls(1, dask.config.get("num_workers", CPU_COUNT), _limit_of_machine())


def client_of(run: Any) -> Any:
    """Client of the cluster that a scheduler is, if it is one."""
    owner = getattr(run, "__self__", None)
    return owner if hasattr(owner, "nthreads") else None


def _limit_of_machine() -> int:
    """Bytes of memory of this machine, or of the container that this process runs in."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)

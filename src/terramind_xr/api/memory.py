"""How a scene is cut so that a run fits into memory, and what it takes then."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import dask
from dask.utils import format_bytes, parse_bytes

from terramind_xr.api.start import Start, extra_shape
from terramind_xr.engine import Kernel, Tiling
from terramind_xr.engine.cost import estimate
from terramind_xr.engine.workers import Workers
from terramind_xr.errors import OptionError
from terramind_xr.model.execution import Execution, chosen_device
from terramind_xr.model.footprint import LIBRARIES, Footprint


class Heavy(Kernel, Protocol):
    """A kernel that says what running it takes."""

    @property
    def execution(self) -> Execution:
        """Where the model runs."""

    @property
    def footprint(self) -> Footprint:
        """Memory beside the blocks."""


@dataclass(frozen=True)
class Cut:
    """How a scene is cut, and what that takes.

    Parameters
    ----------
    tiling
        Tiles and blocks.
    batch_size
        Tiles to one run of the model.
    workers
        Who computes.
    device
        Where the model runs.
    cost
        Work and traffic, and memory of blocks, margins and inputs, as `estimate` gives them.
    model_memory, batch_memory
        Bytes of the weights, and of a batch at work.
    """

    tiling: Tiling
    batch_size: int
    workers: Workers
    device: str
    cost: dict[str, int]
    model_memory: int
    batch_memory: int

    @classmethod
    def of(cls, start: Start, kernel: Heavy, tiling: Tiling, batch_size: int) -> Cut:
        """A scene cut in this very way."""
        most, footprint = min(batch_size, tiling.most_tiles), kernel.footprint
        return cls(
            tiling,
            batch_size,
            Workers.in_force() if start.is_lazy else Workers.in_this_process(),
            chosen_device(kernel.execution.device),
            estimate(start.sources(tiling), kernel, tiling, extra_shape(start), batch_size),
            footprint.weights,
            most * footprint.tile,
        )

    @property
    def base_memory(self) -> int:
        """Host memory of a process before it works on a block: libraries, model, and a batch of its own."""
        # One batch runs at a time in a process. Weights pass through the host on their way to a device.
        return LIBRARIES + self.model_memory + (self.batch_memory if self.device == "cpu" else 0)

    @property
    def peak_memory(self) -> int:
        """Host memory of each process at most; margins and inputs lie spread over them."""
        spread = self.cost["margin_memory"] + self.cost["input_memory"]
        blocks = self.workers.threads * self.cost["block_memory"]
        return self.base_memory + blocks + -(-spread // self.workers.processes)

    @property
    def device_memory(self) -> int | None:
        """Memory of the device, where that is not the host's."""
        return None if self.device == "cpu" else self.model_memory + self.batch_memory


def bytes_of(limit: int | str, workers: Workers) -> int:
    """Bytes of a memory limit; ``"auto"`` is what dask lets its workers take before it holds them back.

    Raises
    ------
    OptionError
        The workers have none.
    """
    if limit != "auto":
        return int(parse_bytes(limit))
    if workers.memory is None:
        raise OptionError(
            "memory_limit='auto' cannot be used: the cluster has no worker yet, or its workers have no "
            "memory limit. Say how much a process may take: memory_limit='4GiB'."
        )
    held_back = dask.config.get("distributed.worker.memory.pause", 0.8)
    return int(workers.memory * held_back) if held_back else workers.memory


def fitted(start: Start, kernel: Heavy, tiling: Tiling, batch_size: int, limit: int | str | None) -> Cut:
    """Cut a scene as given, or in the largest smaller batches and blocks that a limit admits.

    Batches come first, as smaller ones run slower; blocks change no number of the result.

    Raises
    ------
    OptionError
        The limit cannot be met.
    """
    batch_size = int(batch_size)  # numpy's numbers lack bit_length
    asked = Cut.of(start, kernel, tiling, batch_size)
    if limit is None or asked.peak_memory <= bytes_of(limit, asked.workers):
        return asked
    most = bytes_of(limit, asked.workers)
    batches = {max(batch_size >> halvings, 1) for halvings in range(batch_size.bit_length())}
    blocks = range(1, tiling.y.block + 1)
    choices = [(tiling.in_blocks_of(block), batch) for block, batch in itertools.product(blocks, batches)]
    # More tiles than a block has are no batch.
    passes = len(tiling.phases)
    choices.sort(
        key=lambda each: (min(each[1], passes * each[0].y.block ** 2), each[0].y.block, each[1]), reverse=True
    )
    cuts = (Cut.of(start, kernel, *choice) for choice in choices)
    least = asked
    for cut in cuts:
        if cut.peak_memory <= most:
            return cut
        least = min(least, cut, key=lambda each: each.peak_memory)
    raise OptionError(_too_little(limit, most, least))


def _too_little(limit: int | str, most: int, least: Cut) -> str:
    """Say what a limit lacks, of the cut that takes least."""
    parts = {
        "the libraries": LIBRARIES,
        "the model": least.model_memory,
        "a batch": least.batch_memory if least.device == "cpu" else 0,
        f"{least.workers.threads} blocks at a time": least.workers.threads * least.cost["block_memory"],
        "margins": least.cost["margin_memory"] // least.workers.processes,
        "input chunks": least.cost["input_memory"] // least.workers.processes,
    }
    listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if size)
    return (
        f"memory_limit={limit!r} ({format_bytes(most)}) cannot be met: with block={least.tiling.y.block} and "
        f"batch_size={least.batch_size} each process takes {format_bytes(least.peak_memory)} ({listed}). "
        # Rounded up, so that it does.
        f"Give at least memory_limit='{-(-least.peak_memory // 2**20)}MiB'; or take fewer threads "
        "(dask.config.set(num_workers=1), or threads_per_worker=1 of the cluster), a smaller model, or "
        "smaller chunks: ds.chunk(y=1024, x=1024)."
    )

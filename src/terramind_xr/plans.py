"""What a call would do, before anything is read or computed."""

from __future__ import annotations

import html
from dataclasses import dataclass, fields

import dask.utils


@dataclass(frozen=True)
class Plan:
    """What a call of `generate` will do: its work, traffic and memory.

    Traffic is that of uncompressed arrays; memory is estimated. In a notebook it shows as a table.

    Parameters
    ----------
    model
        Name of the model.
    inputs, outputs
        Modalities that are read and generated.
    shape
        Rows and columns of the scene, in pixels.
    scenes
        Places along extra dims such as time, each a scene of its own.
    tiles, blocks
        Tiles that the model runs, and the blocks (tasks) that they are run in. Tiles without a valid pixel
        are counted, and skipped when their block is computed.
    device
        Where the model runs.
    processes, threads
        Of the scheduler in force: its processes, and the blocks that each works on at a time.
    shifts
        Passes over the scene that were asked for; a scene not larger than a tile has one only.
    overlap
        Pixels that neighbouring tiles share.
    block_shape
        Rows and columns of an output chunk, in pixels.
    batch_size
        Tiles to one run of the model.
    bytes_read, bytes_written
        Traffic of the whole call.
    block_memory
        Host memory of one block at work, in bytes, besides the model.
    margin_memory
        Host memory of one row of margins that wait for their neighbours, in bytes: in each scene of those
        that read the same chunks, which `to_zarr` works on side by side.
    input_memory
        Host memory of the input chunks that a row of blocks touches, in bytes: those of all the scenes that
        it works on side by side. Chunks of one scene each, and not much higher than a block, keep it small.
    library_memory, model_memory, batch_memory
        Memory of torch and what else is imported; of the weights in float32; and of a batch while the model
        runs: one at a time in each process.
    peak_memory
        Host memory of each process at most: libraries, model, a batch (on a GPU, in its memory), a block
        for each thread, and the process's share of margins and input chunks.
    device_memory
        Memory of the device for model and batch; None where it is the host's.
    memory_limit
        Bytes that a process may take, where a limit was given: it chose block and batch.
    seconds, joules
        Time and energy of all tiles on one process, from one measured batch; None where not measured. Reading
        and writing are not in it.
    measured
        How they were measured.
    """

    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: tuple[int, int]
    device: str
    processes: int
    threads: int
    scenes: int
    tiles: int
    blocks: int
    shifts: int
    overlap: int
    block_shape: tuple[int, int]
    batch_size: int
    bytes_read: int
    bytes_written: int
    block_memory: int
    margin_memory: int
    input_memory: int
    library_memory: int
    model_memory: int
    batch_memory: int
    peak_memory: int
    device_memory: int | None = None
    memory_limit: int | None = None
    seconds: float | None = None
    joules: float | None = None
    measured: str | None = None

    def _rows(self) -> list[tuple[str, str]]:
        rows = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if "bytes" in field.name or "memory" in field.name:
                value = dask.utils.format_bytes(value)
            elif "shape" in field.name:
                value = f"{value[0]:,} × {value[1]:,} pixels"
            elif isinstance(value, tuple):
                value = ", ".join(value)
            elif field.name == "seconds":
                value = dask.utils.format_time(value)
            elif isinstance(value, int | float):
                value = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
            rows.append((field.name.replace("_", " "), str(value)))
        return rows

    def __repr__(self) -> str:
        return "Plan\n" + "\n".join(f"  {name:<14} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._rows()
        )
        return f"<table><caption>terramind_xr plan</caption>{rows}</table>"

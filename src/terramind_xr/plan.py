"""What a call would do, before anything is read or computed."""

from __future__ import annotations

import html
from dataclasses import dataclass, fields

import dask.utils
import numpy as np

from terramind_xr.graph import Kernel, Source
from terramind_xr.tiling import Tiling


@dataclass(frozen=True)
class Plan:
    """Work, traffic and memory of one call.

    Parameters
    ----------
    model
        Name of the model.
    inputs, outputs
        Modalities read and generated.
    shape
        Rows and columns of the scene, in pixels.
    scenes
        Places along extra dims such as time, each a scene of its own.
    tiles, blocks
        Tiles run by the model, and blocks (tasks) that run them; tiles without valid pixels are skipped.
    overlap
        Pixels that neighbouring tiles share.
    block_shape
        Rows and columns of an output chunk, in pixels.
    batch_size
        Tiles to one run of the model.
    bytes_read, bytes_written
        Uncompressed.
    block_memory
        Host memory of one block at work, in bytes, besides the model: multiply by the number of blocks at
        work at a time (threads, or workers).
    margin_memory
        Host memory of one row of margins that wait for their neighbours, in bytes: in each scene of those
        that read the same chunks, which `to_zarr` works on side by side.
    input_memory
        Host memory of the input chunks that a row of blocks touches, in bytes: those of all the scenes that
        it works on side by side. Chunks of one scene each, and not much higher than a block, keep it small.
    """

    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: tuple[int, int]
    scenes: int
    tiles: int
    blocks: int
    overlap: int
    block_shape: tuple[int, int]
    batch_size: int
    bytes_read: int
    bytes_written: int
    block_memory: int
    margin_memory: int
    input_memory: int

    def _rows(self) -> list[tuple[str, str]]:
        rows = []
        for field in fields(self):
            value = getattr(self, field.name)
            if "bytes" in field.name or "memory" in field.name:
                value = dask.utils.format_bytes(value)
            elif "shape" in field.name:
                value = f"{value[0]:,} × {value[1]:,} pixels"
            elif isinstance(value, tuple):
                value = ", ".join(value)
            elif isinstance(value, int):
                value = f"{value:,}"
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


def estimate(
    sources: list[Source], kernel: Kernel, tiling: Tiling, extra: tuple[int, ...], batch_size: int
) -> dict[str, int]:
    """Work, traffic and memory of `terramind_xr.graph.map_tiles` with the same arguments.

    The largest block is counted: its raw region, the same in float32, the sums in float64 with the
    finished chunk beside them, and the tiles of a batch in and out.
    """
    scenes = int(np.prod(extra, dtype=int))
    side = [min(axis.chunk + axis.overlap, axis.padded) for axis in (tiling.y, tiling.x)]
    region, tile = side[0] * side[1], tiling.y.tile**2
    chunk = max(tiling.y.chunks) * max(tiling.x.chunks)
    bands = [source.array.shape[-3] for source in sources]
    raw = sum(band * source.array.dtype.itemsize for band, source in zip(bands, sources, strict=True))
    channels = sum(output.channels for output in kernel.outputs)
    written = sum(
        int(np.prod(output.pixel, dtype=int)) * np.dtype(output.dtype).itemsize for output in kernel.outputs
    )
    reading = region * (raw + 4 * sum(bands))
    batch = batch_size * tile * 4 * (sum(bands) + 2 * channels)
    beside = _side_by_side(sources, extra)
    per_margin = tiling.y.overlap * tiling.x.padded + tiling.x.overlap * tiling.y.chunk
    return {
        "scenes": scenes,
        "tiles": scenes * tiling.tiles,
        "blocks": scenes * tiling.shape[0] * tiling.shape[1],
        "bytes_read": sum(source.array.nbytes for source in sources),
        "bytes_written": scenes * tiling.y.size * tiling.x.size * written,
        "block_memory": reading + batch + 8 * channels * (region + chunk) + chunk * written,
        "margin_memory": int(np.prod(beside, dtype=int)) * per_margin * (8 * channels + raw),
        "input_memory": sum(_row_of_chunks(source, tiling, beside) for source in sources),
    }


def _side_by_side(sources: list[Source], extra: tuple[int, ...]) -> list[int]:
    """Most places along each extra axis that read the same chunks (see `terramind_xr.window`)."""
    largest = []
    for axis, size in enumerate(extra):
        borders = set(range(size + 1))
        for source in sources:
            sizes = source.array.chunks[source.axes.index(axis)] if axis in source.axes else (size,)
            borders &= {0, *np.cumsum(sizes).tolist()}
        largest.append(int(np.diff(sorted(borders)).max()))
    return largest


def _row_of_chunks(source: Source, tiling: Tiling, beside: list[int]) -> int:
    """Bytes of the chunks of an input that the row of blocks with the most of them touches."""
    stops = np.cumsum(source.array.chunks[-2])
    starts = stops - source.array.chunks[-2]
    extents = [extent for row in range(tiling.y.blocks) if (extent := tiling.y.extent(row))]
    rows = max(
        int((stops - starts)[(stops > extent.start) & (starts < extent.stop)].sum()) for extent in extents
    )
    scenes = int(np.prod([beside[axis] for axis in source.axes], dtype=int))
    bands, _height, width = source.array.shape[-3:]
    return scenes * rows * int(bands * width * source.array.dtype.itemsize)

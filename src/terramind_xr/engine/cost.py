"""Work, traffic and memory of a run, before anything is read or computed."""

from __future__ import annotations

import numpy as np

from terramind_xr.engine.graph import Source
from terramind_xr.engine.kernel import Kernel
from terramind_xr.engine.tiling import AxisTiling, Tiling


def estimate(
    sources: list[Source], kernel: Kernel, tiling: Tiling, extra: tuple[int, ...], batch_size: int
) -> dict[str, int]:
    """Work, traffic and memory of `terramind_xr.engine.graph.map_tiles` with the same arguments.

    The largest block is counted: its raw region, the same in float32, the tiles of a batch in and out, the
    predictions of all its tiles, the sums in float64 of what it shares, and the finished chunk.
    """
    scenes = int(np.prod(extra, dtype=int))
    (height, below), (width, beside_it) = map(_largest_block, (tiling.y, tiling.x))
    region, tile = height * width, tiling.y.tile**2
    chunk = max(tiling.y.chunks) * max(tiling.x.chunks)
    # Per pixel: what lies on the patch grid counts a 256th.
    bands = [source.array.shape[-3] / source.cell**2 for source in sources]
    raw = sum(band * source.array.dtype.itemsize for band, source in zip(bands, sources, strict=True))
    # One value a tile counts nothing beside them.
    channels = sum(field.channels / field.cell**2 for field in kernel.fields if field.is_raster)
    rasters = [output for output in kernel.outputs if kernel.fields[output.field].is_raster]
    sizes = [int(np.prod(output.pixel, dtype=int)) * np.dtype(output.dtype).itemsize for output in rasters]
    cells = [kernel.fields[output.field].cell for output in rasters]
    written = sum(size / cell**2 for size, cell in zip(sizes, cells, strict=True))
    grids = [tiling.in_cells(cell) for cell in cells]
    reading = region * (raw + 4 * sum(bands))
    tiles = tiling.most_tiles
    batch = min(batch_size, tiles) * tile * 4 * (sum(bands) + 2 * channels)
    shared = 2 * (below * width + beside_it * height)  # half of it its own, half its neighbours'
    beside = _side_by_side(sources, extra)
    per_margin = below * tiling.x.padded + beside_it * tiling.y.chunk
    return {
        "scenes": scenes,
        "tiles": scenes * tiling.tiles,
        "blocks": scenes * tiling.shape[0] * tiling.shape[1],
        "bytes_read": sum(source.array.nbytes for source in sources),
        "bytes_written": scenes
        * sum(size * grid.y.size * grid.x.size for size, grid in zip(sizes, grids, strict=True)),
        "block_memory": int(reading + batch + channels * (4 * tiles * tile + 8 * shared) + chunk * written),
        "margin_memory": int(np.prod(beside, dtype=int) * per_margin * (8 * channels + raw)),
        "input_memory": sum(
            _row_of_chunks(source, tiling.in_cells(source.cell), beside) for source in sources
        ),
    }


def _largest_block(axis: AxisTiling) -> tuple[int, int]:
    """Most pixels of an axis that the tiles of a block cover, and most of them beyond its chunk."""
    blocks = [(axis.output(block), extent) for block in range(axis.blocks) if (extent := axis.extent(block))]
    covered = max(len(extent) for _, extent in blocks)
    # Padding beyond the scene goes to no neighbour.
    return covered, max(min(extent.stop, axis.size) - output.stop for output, extent in blocks)


def _side_by_side(sources: list[Source], extra: tuple[int, ...]) -> list[int]:
    """Most places along each extra axis that read the same chunks (see `terramind_xr.engine.order`)."""
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

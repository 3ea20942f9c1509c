"""What a scene of the size of Europe costs before its first pixel, and what its tasks cost the scheduler.

    python benchmarks/europe.py                       # 100,000² and 316,000² pixels: Europe at 10 m
    python benchmarks/europe.py --tile-seconds 0.5    # one tile on one worker, for the hours on 100 workers

The first table is of a scene without pixels (zeros in chunks of 2048) and the demo model: seconds of each
step, and how far it raises the peak memory of its process. The second is of a piece of it through a kernel
that costs nothing, written nowhere: what reading, cutting, blending and dask cost on this machine, as hours
for all of Europe, beside those of a model on 100 workers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr
from memory import peak

from terramind_xr.engine import Field, Layer, Output, Source, Tiling, map_tiles
from terramind_xr.engine.kernel import Array, Mask
from terramind_xr.engine.progress import Progress
from terramind_xr.engine.run import compute_in_window

EUROPE, WORKERS = 316_000, 100


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print the seconds that something takes, and by how much it raises the peak."""
    before, start = peak(), time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    print(f"{what:>14} {seconds:>9.2f} {peak() - before:>8.0f}", flush=True)


def steps(size: int) -> None:
    """Plan, build and first block of one scene in this process; a small one loads libraries and weights."""
    import terramind_xr

    small = terramind_xr.synthetic.scene(300, modalities=["S2L2A"])["S2L2A"]
    small.to_dataset().terramind.generate("LULC", model="demo")
    metres = 10.0 * np.arange(size)
    scene = xr.DataArray(
        da.zeros((12, size, size), dtype=small.dtype, chunks=(12, 2048, 2048)),
        dims=small.dims,
        coords={"band": small.band, "y": 5e6 - metres, "x": 1e6 + metres},
        attrs=small.attrs,
        name="S2L2A",
    )
    ds = scene.rio.write_crs(3035).to_dataset()
    print(f"\n{size:>14} {'seconds':>9} {'MiB':>8}", flush=True)
    with measured("plan"):
        ds.terramind.plan("LULC", model="demo")
    with measured("build"):
        lulc = ds.terramind.generate("LULC", model="demo")
    with measured("first block"):
        lulc.isel(y=slice(0, 10), x=slice(0, 10)).compute()


@dataclass(frozen=True)
class Free:
    """A kernel that predicts zeros."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """One channel."""
        return (Field(1),)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One map."""
        return (Output("map", 0, (), "uint8"),)

    def load(self, regions: list[Array]) -> list[Layer]:
        """All is valid."""
        return [Layer(regions[0], np.ones(regions[0].shape[1:], bool))]

    def run(self, pixels: list[Array], valid: list[Mask], places: Array) -> list[Array]:
        """Zeros."""
        return [np.broadcast_to(np.float32(0), (len(places), 1, 224, 224))]

    def finish(self, index: int, blended: Array, valid: Mask) -> Array:
        """As they are."""
        return blended[0].astype(np.uint8)


def _forget(chunk: Array) -> None:
    return None


def throughput(rows: int, columns: int) -> tuple[float, Tiling]:
    """Seconds for a piece through the kernel that costs nothing."""
    tiling = Tiling.of((rows, columns))
    source = da.zeros((1, rows, columns), dtype="uint8", chunks=(1, 2048, 2048))
    (result,) = map_tiles([Source(source)], Free(), tiling)
    start = time.perf_counter()
    compute_in_window([result.map_blocks(_forget, meta=result._meta)], Progress("", 1, shown=False))
    return time.perf_counter() - start, tiling


def report(name: str, rows: int, columns: int, tile_seconds: float) -> None:
    """A line on a piece of this size."""
    throughput(1000, 1000)  # loads libraries on the workers
    seconds, tiling = throughput(rows, columns)
    europe = Tiling.of((EUROPE, EUROPE))
    blocks = tiling.shape[0] * tiling.shape[1]
    all_blocks = europe.shape[0] * europe.shape[1]
    overhead = seconds / blocks * all_blocks / 3600
    hours = europe.tiles * tile_seconds / WORKERS / 3600
    print(
        f"{name:>14} {blocks:>8} {seconds:>9.1f} {blocks / seconds:>9.0f} {tiling.tiles / seconds:>9.0f} "
        f"{overhead:>12.1f} {hours:>12.1f}",
        flush=True,
    )


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, EUROPE], help="sides in pixels")
    parser.add_argument("--piece", type=int, nargs=2, default=[20_000, 20_000], help="rows and columns")
    parser.add_argument("--tile-seconds", type=float, default=1.0, help="of one tile on one worker")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.one:
        steps(arguments.one)
        return
    for size in arguments.sizes:
        subprocess.run([sys.executable, __file__, "--one", str(size)], check=True)
    print(
        f"\n{'scheduler':>14} {'blocks':>8} {'seconds':>9} {'blocks/s':>9} {'tiles/s':>9} "
        f"{'Europe, h':>12} {'model, h':>12}",
        flush=True,
    )
    piece = tuple(arguments.piece)
    report("threads", *piece, arguments.tile_seconds)
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        report("cluster", *piece, arguments.tile_seconds)


if __name__ == "__main__":
    main()

"""A broken run is gone on with: the same bytes, nothing twice that need not be, and nothing of another run."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, WrapperStore, ZipStore

import terramind_xr
from kernels import TrivialKernel
from scenes import axes
from terramind_xr.engine import ORIGIN, Origin, Source, Tiling, map_tiles
from terramind_xr.engine.identity import digest, positions
from terramind_xr.engine.store import to_zarr
from terramind_xr.errors import OptionError, TerramindWarning
from terramind_xr.kernels.generate import GenerateKernel

SHAPE = (700, 500)
TILING = Tiling.of(SHAPE, overlap=32, block=1)
RAN, FAILING = [], []


@dataclass(frozen=True)
class Counting(TrivialKernel):
    """Remembers its tiles, and fails at those that are to fail."""

    kind: str = "tile mean"

    def run(self, pixels, valid, places):
        RAN.extend(map(tuple, places.tolist()))
        if {*map(tuple, places.tolist())} & {*FAILING}:
            raise RuntimeError("out of memory")
        return super().run(pixels, valid, places)


@pytest.fixture(autouse=True)
def _nothing_ran():
    RAN.clear()
    FAILING.clear()


VALUES = (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 977).astype("float32")
VALUES[:240, :240] = np.nan  # a chunk that holds nothing but nodata


def result(values=VALUES, chunks=200, kernel=None, tiling=TILING, is_ours=True):
    """A lazy map as a verb gives it."""
    kernel = kernel or Counting()
    sources = [Source(da.from_array(values[None], chunks=(1, chunks, chunks)), name="S2L2A")]
    array = xr.DataArray(
        map_tiles(sources, kernel, tiling)[1], dims=("y", "x"), coords=axes(*values.shape), name="map"
    ).rio.write_crs(32632)
    array.encoding["_FillValue"] = -1
    if is_ours:
        array.encoding[ORIGIN] = Origin.of(array.data, sources, kernel, tiling, 8)
    return array


def write(obj, store, **options):
    return to_zarr(obj, store, progress=False, **options)


def files(folder):
    """All that lies in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one run writes."""
    folder = tmp_path_factory.mktemp("whole") / "map.zarr"
    write(result(), folder)
    return files(folder)


def break_off(obj, store, at=(384, 192)):
    """Run until the tile that starts there fails."""
    FAILING.append(at)
    with pytest.raises(RuntimeError, match="out of memory"), dask.config.set(scheduler="sync"):
        write(obj, store)
    FAILING.clear()


# The same bytes.

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import dask
import test_resume
from test_resume import Counting, result, write

class Slow(Counting):
    def run(self, *args):
        time.sleep(0.01)
        return super().run(*args)

def run(store):
    pid = os.fork()  # what is imported is there already
    if pid == 0:
        with dask.config.set(num_workers=2):
            write(result(kernel=Slow()), store)
        os._exit(0)
    return pid

folder, moments = Path(sys.argv[1]), random.Random(5)
began = time.monotonic()
assert os.waitpid(run(folder / "whole.zarr"), 0)[1] == 0
whole = time.monotonic() - began
for number in range(int(sys.argv[2])):
    kills, status = 0, 1
    while status:
        pid = run(folder / f"{number}.zarr")
        time.sleep(moments.random() * whole * min(0.2 * (kills + 1), 1.5))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL), status
        root = folder / f"{number}.zarr/zarr.json"
        kills += 1
        if root.exists():
            break
    print(kills)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="forks")
def test_processes_killed_at_any_moment_leave_what_the_next_one_finishes(tmp_path):
    here = Path(__file__).parent
    script = f"import sys; sys.path.insert(0, {str(here)!r})\n{KILLED}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), "4"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) >= 12
    expected = files(tmp_path / "whole.zarr")
    for number in range(4):
        found = files(tmp_path / f"{number}.zarr")
        # A kill between the root and the end leaves the ledger, which does no harm.
        assert {key: value for key, value in found.items() if not key.startswith(".terramind/")} == expected
        xr.testing.assert_identical(
            xr.open_zarr(tmp_path / f"{number}.zarr"), xr.open_zarr(tmp_path / "whole.zarr")
        )


def needed(missing):
    """First pixels of all tiles of the blocks that chunks need."""
    blocks = {
        (i, j) for row, col in missing for i in TILING.y.touching(row) for j in TILING.x.touching(col)
    }
    return sorted((place.y, place.x) for block in blocks for place in TILING.places(*block))


def test_only_what_is_missing_and_its_neighbours_are_computed(tmp_path, whole):
    folder = tmp_path / "map.zarr"
    break_off(result(), folder)
    marks = [path.name.split(".")[1:3] for path in (folder / ".terramind/done/map").iterdir()]
    done = {(int(row), int(col)) for row, col in marks}
    assert len(done) >= 4
    RAN.clear()
    xr.testing.assert_identical(write(result(), folder).compute(), result().compute(scheduler="sync"))
    assert files(folder) == whole
    # `compute` above ran all tiles once more.
    again = sorted(RAN)
    for place in needed(set(np.ndindex(*TILING.shape))):
        again.remove(place)
    valid = [(y, x) for y, x in needed(set(np.ndindex(*TILING.shape)) - done) if (y, x) != (0, 0)]
    assert [place for place in again if place != (0, 0)] == valid
    assert len(valid) < TILING.tiles - 1 if hasattr(TILING, "tiles") else True

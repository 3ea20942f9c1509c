"""What goes wrong with real processes, disks and inputs: it is told, nothing finished is lost or wrong."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore, WrapperStore

import terramind_xr
from kernels import TrivialKernel
from scenes import axes
from terramind_xr.engine import ORIGIN, Origin, Source, Tiling, map_tiles, regions
from terramind_xr.engine.cog import _Parts
from terramind_xr.engine.identity import positions
from terramind_xr.errors import InputError, OptionError, TerramindWarning, WeightsError
from terramind_xr.raster import to_raster
from test_resume import SHAPE, TILING, VALUES, files, result, whole, write  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PATHS = f"import sys; sys.path.insert(0, {str(HERE)!r})\n"


def without_ledger(folder):
    """All that lies in a store but for what a run keeps to itself."""
    return {key: value for key, value in files(folder).items() if not key.startswith(".terramind/")}


def assert_sound(folder, whole):  # noqa: F811
    """What a broken run leaves does not open, and each chunk that is marked as finished is the right one."""
    assert not (folder / "zarr.json").exists()
    marked = [path.name.split(".")[1:3] for path in folder.glob(".terramind/done/map/c.*")]
    marked = [mark for mark in marked if "partial" not in mark]
    found = files(folder)
    for row, col in marked:
        key = f"map/c/{row}/{col}"
        assert found.get(key) == whole.get(key)  # neither is there where all is nodata
    return len(marked)


@contextmanager
def mounted(folder, size):
    """A small file system of its own, where that can be mounted; yields what changes its options."""
    folder.mkdir()

    def mount(*options):
        return subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True)

    try:
        is_mounted = mount("-o", f"size={size}").returncode == 0
    except OSError:
        is_mounted = False
    if not is_mounted:
        pytest.skip("nothing can be mounted here")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# Killed, and interrupted.

KILLED = """
import os, random, signal, time
from pathlib import Path
import dask, numpy as np, xarray as xr
import terramind_xr
from terramind_xr.engine import regions
from test_faults import assert_sound, without_ledger
from test_resume import Counting, result, write

folder, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

class Slow(Counting):
    def run(self, *args):
        time.sleep(0.01)
        return super().run(*args)

def made():
    if kind == "trivial":
        regions.CHUNKS = 4
        return result(kernel=Slow())
    from terramind_xr.model.quiet import import_terratorch
    import_terratorch()
    terramind_xr.set_options(block=1)
    scene = terramind_xr.synthetic.scene(700, seed=3, modalities=["S2L2A"], chunks=200)
    return scene.terramind.generate("LULC", model="demo").rename("map")

obj = made()

def run(store):
    pid = os.fork()  # what is imported is there already
    if pid == 0:
        with dask.config.set(num_workers=2):
            write(obj, store)
        os._exit(0)
    return pid

assert os.waitpid(run(folder / "whole.zarr"), 0)[1] == 0
whole, moments = without_ledger(folder / "whole.zarr"), random.Random(5)
chunks = obj.data.npartitions
for number in range(count):
    store = folder / f"{number}.zarr"
    pid = run(store)
    wanted = number * chunks // count  # chunks that are finished, and a bit
    while len([*store.glob(".terramind/done/map/c.*")]) < wanted and not (store / "zarr.json").exists():
        time.sleep(0.001)
    time.sleep(moments.random() * 0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if (store / "zarr.json").exists():
        print("whole")
    else:
        print(assert_sound(store, whole))
        assert os.waitpid(run(store), 0)[1] == 0
    assert without_ledger(store) == whole
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("trivial", 3),
        pytest.param("trivial", 30, marks=pytest.mark.slow),
        pytest.param("demo", 3, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_moment_loses_nothing_that_is_finished(kind, count, tmp_path):
    """Region by region, too."""
    done = subprocess.run(
        [sys.executable, "-c", PATHS + KILLED, str(tmp_path), kind, str(count)],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    left = done.stdout.split()
    assert len(left) == count
    assert any(each not in ("whole", "0") for each in left)  # some in the middle


INTERRUPTED = """
import time
from pathlib import Path
import dask
from test_resume import Counting, result, write
import terramind_xr

folder, kind = Path(sys.argv[1]), sys.argv[2]

run = Counting.run

def slowly(self, *args):
    Path(folder, "runs").touch()
    time.sleep(0.1)
    return run(self, *args)

Counting.run = slowly

if __name__ == "__main__":
    obj = result()
    with dask.config.set(num_workers=2):
        if kind == "zarr":
            write(obj, folder / "map.zarr")
        else:
            terramind_xr.to_raster(obj, folder / "map.tif", progress=False)
"""


@pytest.mark.parametrize("kind", ["zarr", "raster"])
def test_an_interrupt_ends_the_run_at_once_and_it_can_be_gone_on_with(kind, tmp_path, whole):  # noqa: F811
    code = [sys.executable, "-c", PATHS + INTERRUPTED, str(tmp_path), kind]
    process = subprocess.Popen(code, stderr=subprocess.PIPE, text=True)
    try:
        started = "map.zarr/.terramind/done/map/c.*" if kind == "zarr" else "runs"
        until = time.monotonic() + 60
        while not any(tmp_path.glob(started)) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert told.rstrip().endswith("KeyboardInterrupt")
    if kind == "zarr":
        assert assert_sound(tmp_path / "map.zarr", whole) >= 1
        write(result(), tmp_path / "map.zarr")
        assert files(tmp_path / "map.zarr") == whole
    else:
        assert [each.name for each in tmp_path.iterdir()] == ["runs"]  # no half file, no hidden folder


@dataclass(frozen=True)
class Fatal(TrivialKernel):
    """Takes its worker with it once, at a tile, if there is a file that says so; the class is no option."""

    kind: str = "tile mean"

    def run(self, pixels, valid, places):
        fuse = os.environ.get("FAULTS_FUSE", "")
        if fuse and (576, 192) in set(map(tuple, places.tolist())) and os.path.exists(fuse):
            os.unlink(fuse)
            os._exit(1)
        return super().run(pixels, valid, places)


@pytest.mark.slow
@pytest.mark.parametrize("failures", [0, 3])
def test_a_worker_that_dies_between_regions_takes_nothing_along(failures, tmp_path, monkeypatch):
    """Its blocks, and what it held for the next region, are computed elsewhere; else the run is resumed."""
    from distributed import Client, KilledWorker, LocalCluster

    obj = result(kernel=Fatal())
    expected = files_of(obj, tmp_path / "whole.zarr")
    monkeypatch.setattr(regions, "CHUNKS", 4)
    monkeypatch.setenv("FAULTS_FUSE", str(tmp_path / "fuse"))
    (tmp_path / "fuse").touch()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": failures}),
        LocalCluster(**options) as cluster,
        Client(cluster),
    ):
        if failures:
            write(obj, tmp_path / "map.zarr")
        else:
            with pytest.raises(KilledWorker):
                write(obj, tmp_path / "map.zarr")
            assert assert_sound(tmp_path / "map.zarr", expected) >= 3
            write(obj, tmp_path / "map.zarr")
    assert not (tmp_path / "fuse").exists()
    assert without_ledger(tmp_path / "map.zarr") == expected


def files_of(obj, folder):
    write(obj, folder)
    return files(folder)


# Disks.


@pytest.mark.parametrize("size", ["12k", "100k", "160k"])
def test_a_full_disk_is_told_and_gone_on_with_when_there_is_room(size, tmp_path, whole):  # noqa: F811
    """The first has no room for the metadata, the others none for some chunk."""
    with mounted(tmp_path / "disk", size) as remount:
        folder = tmp_path / "disk/map.zarr"
        with pytest.raises(OptionError, match=r"cannot be written.*No space left.* same call") as caught:
            write(result(), folder)
        assert size == "12k" or str(caught.value).startswith("map[")
        assert_sound(folder, whole)
        remount("size=10m")
        write(result(), folder)
        assert files(folder) == whole


LIMITED = """
import resource
from test_resume import result, write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write(result(), sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits")
def test_a_file_that_cannot_grow_is_told_and_gone_on_with(tmp_path, whole):  # noqa: F811
    sizes = sorted(len(value) for key, value in whole.items() if "/c/" in key and key.startswith("map"))
    assert sizes[0] < sizes[-1]
    code = [sys.executable, "-c", PATHS + LIMITED, str(tmp_path / "map.zarr"), str(sizes[-1] - 1)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OptionError map[")
    assert "File too large" in done.stdout
    assert_sound(tmp_path / "map.zarr", whole)
    write(result(), tmp_path / "map.zarr")
    assert files(tmp_path / "map.zarr") == whole


def test_a_disk_that_is_read_only_is_told_and_left_as_it_was(tmp_path, whole):  # noqa: F811
    with mounted(tmp_path / "disk", "1m") as remount:
        folder = tmp_path / "disk/map.zarr"
        break_by_flaky(folder)
        remount("ro")
        before = files(folder)
        for place in (folder, tmp_path / "disk/new.zarr"):
            with pytest.raises(OptionError, match="cannot be written.*Read-only.*where you may write"):
                write(result(), place)
        with pytest.raises(OptionError, match=r"map\.tif' cannot be written.*Read-only"):
            to_raster(result(), tmp_path / "disk/map.tif", progress=False)
        assert files(tmp_path / "disk") == {f"map.zarr/{key}": value for key, value in before.items()}
        remount("rw")
        write(result(), folder)
        assert files(folder) == whole


def test_parts_that_find_no_room_are_told(tmp_path, monkeypatch):
    def full(file, chunk):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OptionError, match="could not be written whole.*No space left.*disk is full"):
        _Parts(tmp_path, tmp_path / "map.tif").put(np.zeros((2, 2)), (slice(0, 2), slice(0, 2)))


# Stores that fail now and then.

SEEN: Counter[str] = Counter()


class Flaky(WrapperStore):
    """Loses the network at the first tries to write some objects."""

    def lose(self, key):
        SEEN[key] += 1
        if SEEN[key] <= random.Random(key).choice([0, 0, 1, 2]):
            raise OSError(104, "Connection reset by peer")

    async def set(self, key, value):
        self.lose(key)
        await super().set(key, value)

    async def set_if_not_exists(self, key, value):
        self.lose(key)
        await super().set_if_not_exists(key, value)


def break_by_flaky(folder):
    """Leave a broken run in which some chunks are finished."""
    SEEN.clear()
    for _ in range(20):
        with pytest.raises(OptionError, match="Connection reset by peer"):
            write(result(), Flaky(LocalStore(folder)))
        if any(folder.glob(".terramind/done/map/*")):
            return
    raise AssertionError("nothing was finished")


def test_a_store_that_fails_now_and_then_is_told_and_gone_on_with(tmp_path, whole):  # noqa: F811
    SEEN.clear()
    told = []
    for _ in range(200):
        try:
            with dask.config.set(num_workers=2):
                write(result(), Flaky(LocalStore(tmp_path / "map.zarr")))
            break
        except OptionError as error:
            told.append(str(error))
            assert_sound(tmp_path / "map.zarr", whole)
    assert len(told) > 5
    assert all("Connection reset by peer" in each and "same call" in each for each in told)
    assert without_ledger(tmp_path / "map.zarr") == whole


def test_on_a_cluster_its_own_retries_are_enough(tmp_path, whole):  # noqa: F811
    from distributed import Client, LocalCluster

    SEEN.clear()
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster), dask.annotate(retries=4):
        told: list[str] = []
        for _ in range(20):  # metadata is written by this process, which tries once
            try:
                write(result(), Flaky(LocalStore(tmp_path / "map.zarr")))
                break
            except OptionError as error:
                told.append(str(error))
    assert not any("map[" in each for each in told)
    assert without_ledger(tmp_path / "map.zarr") == whole
    assert max(count for key, count in SEEN.items() if key.startswith("map/c/")) > 1


# Inputs.


def damaged(array, name="map"):
    """A lazy map of an input (band, y, x), in blocks of a tile."""
    tiling = Tiling.of(array.shape[1:], overlap=32, block=1)
    source, kernel = Source(array, name="S2L2A"), TrivialKernel("tile mean")
    data = xr.DataArray(
        map_tiles([source], kernel, tiling)[1], dims=("y", "x"), coords=axes(*array.shape[1:]), name=name
    ).rio.write_crs(32632)
    data.encoding[ORIGIN] = Origin.of(data.data, [source], kernel, tiling, 8)
    return data


def sampled(shape, chunk):
    """Chunks of an input (band, y, x) that hold one of the values by which a run is known again."""
    _, y, x = positions(shape)
    return {(int(row) // chunk, int(col) // chunk) for row, col in zip(y, x, strict=True)}


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty"])
def test_a_damaged_chunk_of_a_zarr_input_is_named_and_what_is_written_stays(damage, tmp_path, whole):  # noqa: F811
    """One that the samples miss, so that it is met in the middle, and one that they meet."""
    shape, chunk = (1, *SHAPE), 50
    data = xr.DataArray(VALUES[None], dims=("band", "y", "x"), name="S2L2A").chunk(y=chunk, x=chunk)
    data.to_dataset().to_zarr(tmp_path / "scene.zarr")
    made = lambda: damaged(xr.open_zarr(tmp_path / "scene.zarr")["S2L2A"].data)  # noqa: E731
    expected = files_of(made(), tmp_path / "whole.zarr")
    met = sampled(shape, chunk)
    missed = next((row, col) for row in range(15, 22) for col in range(10) if (row, col) not in met)

    def damage_chunk(row, col):
        path = tmp_path / f"scene.zarr/S2L2A/c/0/{row}/{col}"
        good = path.read_bytes()
        path.write_bytes(
            {"truncated": good[: len(good) // 2], "overwritten": bytes(len(good)), "empty": b""}[damage]
        )
        return lambda: path.write_bytes(good)

    repair = damage_chunk(*missed)
    for write_it in (
        lambda: write(made(), tmp_path / "map.zarr"),
        lambda: to_raster(made(), tmp_path / "map.tif", progress=False),
    ):
        with dask.config.set(scheduler="sync"), pytest.raises(InputError) as caught:
            write_it()
        found = str(caught.value)
        assert found.startswith("S2L2A in rows ")
        assert "cannot be read (" in found
        first, last = map(int, found.split("rows ")[1].split(" ")[0].split(":"))
        assert first < (missed[0] + 1) * chunk
        assert missed[0] * chunk < last
    assert not any(tmp_path.glob("*.tif"))
    assert not any(tmp_path.glob(".map*"))
    assert assert_sound(tmp_path / "map.zarr", expected) >= 3
    repair()
    repair = damage_chunk(*max(met))
    with pytest.raises(InputError, match=r"S2L2A\[0, \d+, \d+\] cannot be read"):
        write(made(), tmp_path / "map.zarr")
    repair()
    write(made(), tmp_path / "map.zarr")
    assert files(tmp_path / "map.zarr") == expected


def test_a_truncated_geotiff_is_named_and_nothing_is_invented(tmp_path):
    """By a verb: what the user called, and what GDAL says."""
    whole_file, path = tmp_path / "whole.tif", tmp_path / "scene.tif"
    scene = terramind_xr.synthetic.scene(300, seed=3, modalities=["S2L2A"])["S2L2A"]
    scene.assign_attrs(long_name=list(scene["band"].values)).rio.to_raster(whole_file, tiled=True)
    content = whole_file.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    ds = terramind_xr.open_rasters({"S2L2A": path}, chunks=224)
    lulc = ds.terramind.generate("LULC", model="demo")
    for write_it in (
        lambda: write(lulc, tmp_path / "map.zarr"),
        lambda: to_raster(lulc, tmp_path / "map.tif", progress=False),
    ):
        with pytest.raises(InputError, match=r"^S2L2A.* cannot be read \(.*(scene\.tif|TIFF)"):
            write_it()
    assert not (tmp_path / "map.zarr/zarr.json").exists()
    assert not (tmp_path / "map.tif").exists()
    path.write_bytes(content)
    ds = terramind_xr.open_rasters({"S2L2A": path}, chunks=224)
    write(ds.terramind.generate("LULC", model="demo"), tmp_path / "map.zarr")


# Two at once.

WRITING = """
import time
import dask
from pathlib import Path
from test_resume import Counting, result, write
from terramind_xr.errors import OptionError

class Slow(Counting):
    def run(self, *args):
        time.sleep(0.01)
        return super().run(*args)

obj = result(kernel=Slow(fill=float(sys.argv[2])))
Path(sys.argv[3]).touch()
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
try:
    with dask.config.set(num_workers=2):
        write(obj, Path(sys.argv[1], "map.zarr"))
    print("written")
except OptionError as error:
    print(error)
"""


@pytest.mark.parametrize("fills", [(-9.0, -9.0), (-9.0, -8.0)])
def test_two_processes_at_once_leave_one_map_never_a_mix(fills, tmp_path):
    """Of the same they do the work twice; of two different ones the second is refused."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PATHS + WRITING, str(tmp_path), str(fill), str(tmp_path / f"ready{n}")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n, fill in enumerate(fills)
    ]
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    (tmp_path / "go").touch()
    told = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "written" in told
    refused = [each for each in told if each != "written"]
    assert all("something else" in each or "exists already" in each for each in refused)
    assert fills[0] == fills[1] or len(refused) == 1
    from test_resume import Counting

    winner = fills[told.index("written")]
    expected = files_of(result(kernel=Counting(fill=winner)), tmp_path / "whole.zarr")
    assert without_ledger(tmp_path / "map.zarr") == expected


def test_of_two_that_cannot_be_compared_one_that_begins_at_the_same_moment_is_refused(tmp_path, monkeypatch):
    from terramind_xr.engine import store

    derived = result(is_ours=False)
    break_by_flaky_derived(derived, tmp_path / "map.zarr")
    with pytest.warns(TerramindWarning, match="Metadata alone"):  # the other one has stopped: a broken run
        write(derived, tmp_path / "map.zarr")
    break_by_flaky_derived(derived, tmp_path / "again.zarr")
    monkeypatch.setattr(store, "_is_broken", lambda *_: False)  # when this call looked, nothing was there
    before = files(tmp_path / "again.zarr")
    with pytest.raises(OptionError, match="Another call has just begun.*map"):
        write(derived, tmp_path / "again.zarr")
    assert files(tmp_path / "again.zarr") == before


def break_by_flaky_derived(obj, folder):
    def lose(*_, **__):
        raise OSError(104, "Connection reset by peer")

    with pytest.MonkeyPatch.context() as patched, dask.config.set(scheduler="sync"):
        patched.setattr("terramind_xr.engine.ledger.Ledger.mark", lose)
        with pytest.raises(OptionError):
            write(obj, folder)


# Weights.


@pytest.mark.parametrize("kind", ["threads", pytest.param("cluster", marks=pytest.mark.slow)])
def test_half_a_file_of_weights_is_told_and_the_whole_one_gone_on_with(kind, released, tmp_path):
    import shutil

    from distributed import Client, LocalCluster

    shutil.copytree(released, tmp_path / "model")
    path = tmp_path / "model/TerraMind_v1_tiny.pt"
    content = path.read_bytes()
    scene = terramind_xr.synthetic.scene(100, seed=3, modalities=["S2L2A"]).chunk()

    def lulc():
        return scene.terramind.generate("LULC", model=str(tmp_path / "model"))

    def attempt(told):
        if kind == "threads":
            with pytest.raises(WeightsError, match=told):
                write(obj, tmp_path / "map.zarr")
            return
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster),
            pytest.raises(WeightsError, match=told),
        ):
            write(obj, tmp_path / "map.zarr")

    obj = lulc()
    path.write_bytes(content[: len(content) // 2])
    attempt("TerraMind_v1_tiny.pt holds other weights than the call recorded")
    assert not (tmp_path / "map.zarr/zarr.json").exists()
    obj = lulc()  # of half a file: another model
    with pytest.raises(OptionError, match="digest.* of 'LULC'"):
        write(obj, tmp_path / "map.zarr")
    if kind == "threads":
        with pytest.raises(WeightsError, match="damaged or truncated.*fetch it again"):
            write(obj, tmp_path / "half.zarr")
    path.write_bytes(content)
    write(lulc(), tmp_path / "map.zarr")
    write(lulc(), tmp_path / "whole.zarr")
    assert files(tmp_path / "map.zarr") == files(tmp_path / "whole.zarr")

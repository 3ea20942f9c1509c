"""A broken run is gone on with: the same bytes, nothing twice without need, nothing of another run."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import terramind_xr
from examples import examples
from kernels import TrivialKernel
from scenes import axes
from terramind_xr.api.to_zarr import to_zarr
from terramind_xr.engine import ORIGIN, Origin, Source, Tiling, map_tiles
from terramind_xr.engine.identity import digest, positions
from terramind_xr.errors import OptionError, TerramindWarning
from terramind_xr.kernels.generate import GenerateKernel

SHAPE = (1100, 500)
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


def break_off(obj, store, at=(768, 192)):
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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("stores", [1, 8])
def test_processes_killed_at_any_moment_leave_what_the_next_one_finishes(stores, tmp_path):
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{KILLED}"
    code = [sys.executable, "-c", script, str(tmp_path), str(stores)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert all(int(kills) >= 3 for kills in done.stdout.split())
    expected = files(tmp_path / "whole.zarr")
    for number in range(stores):
        found = files(tmp_path / f"{number}.zarr")
        # A kill between the root and the end leaves the ledger, which does no harm.
        assert {key: value for key, value in found.items() if not key.startswith(".terramind/")} == expected


def needed(missing):
    """First pixels of all tiles of the blocks that chunks need."""
    blocks = {(i, j) for row, col in missing for i in TILING.y.touching(row) for j in TILING.x.touching(col)}
    return sorted((place.y, place.x) for block in blocks for place in TILING.places(*block))


def test_only_what_is_missing_and_its_neighbours_are_computed(tmp_path, whole):
    folder = tmp_path / "map.zarr"
    break_off(result(), folder)
    marks = [path.name.split(".")[1:3] for path in (folder / ".terramind/done/map").iterdir()]
    done = {(int(row), int(col)) for row, col in marks}
    assert len(done) >= 4
    RAN.clear()
    write(result(), folder)
    again, everything = needed({*np.ndindex(*TILING.shape)} - done), needed({*np.ndindex(*TILING.shape)})
    assert sorted(RAN) == [place for place in again if place != (0, 0)]  # which holds nodata alone
    assert len(again) < len(everything)
    assert files(folder) == whole


class NeverDone(WrapperStore):
    """Takes all but the root."""

    async def set(self, key, value):
        if key == "zarr.json":
            raise RuntimeError("out of memory")
        await super().set(key, value)


@pytest.fixture(scope="module")
def before_the_root():
    """All objects of a run in which only the root is missing."""
    objects = {}
    with pytest.raises(RuntimeError), dask.config.set(scheduler="sync"):
        write(result(), NeverDone(MemoryStore(objects)))
    return {key: value.to_bytes() for key, value in objects.items()}


DAMAGE = st.sampled_from(
    ["chunk lost", "mark lost", "half a chunk", "other chunk", "wrong mark", "no mark at all"]
)


@settings(max_examples=examples(25))
@given(data=st.data())
def test_whatever_is_lost_or_damaged_is_computed_again(data, before_the_root, whole):
    """Chunks and marks may be there in any combination, in any state: power may have failed."""
    from terramind_xr.engine.ledger import buffer

    objects = dict(before_the_root)
    marks = sorted(key for key in objects if "/done/" in key)
    for mark in sorted(data.draw(st.sets(st.sampled_from(marks)))):
        damage, (row, col) = data.draw(DAMAGE), mark.split(".")[2:4]
        chunk = f"map/c/{row}/{col}"
        if damage == "chunk lost":
            objects.pop(chunk, None)
        elif damage == "half a chunk" and chunk in objects:
            objects[chunk] = objects[chunk][: len(objects[chunk]) // 2]
        elif damage == "other chunk":
            objects[chunk] = before_the_root["map/c/3/1"]
        elif damage in ("wrong mark", "no mark at all", "mark lost"):
            del objects[mark]
            if damage != "mark lost":
                ending = "0" * 32 if damage == "wrong mark" else "partial"
                objects[f"{mark.rpartition('.')[0]}.{ending}"] = b""
    for key in data.draw(st.sets(st.sampled_from(["map/zarr.json", "y/c/0", "spatial_ref/zarr.json"]))):
        objects[key] = objects[key][:7]
    found = {key: buffer("").from_bytes(value) for key, value in objects.items()}
    with dask.config.set(scheduler="sync"):
        write(result(), MemoryStore(found))
    assert {key: value.to_bytes() for key, value in found.items()} == whole


def test_nothing_is_computed_where_only_the_root_is_missing(before_the_root, whole):
    from terramind_xr.engine.ledger import buffer

    RAN.clear()
    found = {key: buffer("").from_bytes(value) for key, value in before_the_root.items()}
    write(result(), MemoryStore(found))
    assert RAN == []
    assert {key: value.to_bytes() for key, value in found.items()} == whole


@pytest.mark.parametrize("kind", ["memory", "URL", "local"])
def test_other_kinds_of_stores_are_gone_on_with(kind, tmp_path):
    store = {
        "memory": MemoryStore(),
        "URL": f"memory://{tmp_path.name}/resume.zarr",
        "local": LocalStore(tmp_path / "map.zarr"),
    }[kind]
    break_off(result(), store)
    RAN.clear()
    stored = write(result(), store)
    assert 0 < len(RAN) < len(needed({*np.ndindex(*TILING.shape)})) - 1
    np.testing.assert_array_equal(stored.fillna(-1), result().compute(scheduler="sync"))


class NeverDeletes(WrapperStore):
    """As a ZIP file."""

    supports_deletes = False


def test_a_store_that_cannot_delete_has_no_ledger():
    objects = {}
    stored = write(result(), NeverDeletes(MemoryStore(objects)))
    np.testing.assert_array_equal(stored.fillna(-1), result().compute(scheduler="sync"))
    assert not any(".terramind" in key for key in objects)


def test_other_chunks_of_the_input_are_the_same_run(tmp_path, whole):
    break_off(result(chunks=200), tmp_path / "map.zarr")
    write(result(chunks=91), tmp_path / "map.zarr")
    assert files(tmp_path / "map.zarr") == whole


def test_other_chunks_of_what_is_not_ours_are_the_same_run(tmp_path):
    """The store keeps the chunks that it began with."""
    first = result().chunk(300).assign_coords(height=(("y", "x"), da.zeros(SHAPE, chunks=150)))
    write(first, tmp_path / "whole.zarr")
    break_off(first, tmp_path / "map.zarr", at=(768, 288))
    other = result().chunk(200).assign_coords(height=(("y", "x"), da.zeros(SHAPE, chunks=77)))
    with pytest.warns(TerramindWarning, match="Metadata alone.* for (map, height|height, map)"):
        stored = write(other, tmp_path / "map.zarr")
    assert stored.chunks[0][0] == 300
    assert files(tmp_path / "map.zarr") == files(tmp_path / "whole.zarr")


def test_on_a_cluster(tmp_path, whole):
    from distributed import Client, LocalCluster

    break_off(result(), tmp_path / "map.zarr")
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        write(result(), tmp_path / "map.zarr")
    assert files(tmp_path / "map.zarr") == whole


def test_two_calls_at_once_do_the_work_twice_and_no_harm(tmp_path, whole):
    faults = []

    def run():
        try:
            write(result(), tmp_path / "map.zarr")
        except Exception as error:
            faults.append(error)

    calls = [threading.Thread(target=run) for _ in range(2)]
    for call in calls:
        call.start()
        time.sleep(0.02)
    for call in calls:
        call.join()
    # Whoever comes when the other has finished is told so.
    assert all(isinstance(fault, OptionError) for fault in faults)
    assert {
        key: value for key, value in files(tmp_path / "map.zarr").items() if ".terramind" not in key
    } == whole


# Nothing of another run.


def other_values():
    values = VALUES.copy()
    values[500:, :] += 1
    return values


OTHERS = {
    "option": (
        lambda: result(kernel=Counting(fill=-8.0)),
        r"option options.fill of 'map' -8.0 \(in the store -9.0\)",
    ),
    "tiling": (
        lambda: result(tiling=Tiling.of(SHAPE, overlap=48, block=1)),
        r"option tiling.y.overlap of 'map' 48 \(in the store 32\)",
    ),
    "values": (
        lambda: result(other_values()),
        r"values of input 1 \(S2L2A\) of 'map' \(in the store another\)",
    ),
    "dtype": (lambda: result(VALUES.astype(float)), r"dtype of input 1 \(S2L2A\) of 'map' 'float64'"),
    "shape": (
        lambda: result(VALUES[:1060], tiling=Tiling.of((1060, 500), overlap=32, block=1)),
        r"shape of 'map' \[1060, 500\] \(in the store \[1100, 500\]\)",
    ),
    "place": (lambda: result().assign_coords(x=result().x + 10), "values of 'x'"),
    "CRS": (lambda: result().rio.write_crs(32633), "attribute crs_wkt of 'spatial_ref'"),
    "attribute": (
        lambda: result().assign_attrs(seed=1),
        r"attribute seed of 'map' 1 \(in the store none\)",
    ),
    "variables": (
        lambda: result().to_dataset().assign(mask=("y", np.zeros(1100))),
        r"dims of 'mask' \['y'\] \(in the store none\)",
    ),
    "derived": (lambda: result(is_ours=False), r"untouched result 'map' none \(in the store True\)"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_run_is_refused_with_what_differs_and_touches_nothing(kind, tmp_path):
    other, told = OTHERS[kind]
    break_off(result(), tmp_path / "map.zarr")
    before = files(tmp_path / "map.zarr")
    with pytest.raises(OptionError, match=f"broken run of something else.*{told}.*Give the same again"):
        write(other(), tmp_path / "map.zarr")
    assert files(tmp_path / "map.zarr") == before


def test_results_that_were_changed_are_not_taken_for_ours():
    import copy

    from terramind_xr.engine.identity import origins_of

    ours = result()
    for same in (
        ours,
        ours.copy(),
        copy.deepcopy(ours),
        ours.assign_attrs(a=1),
        pickle.loads(pickle.dumps(ours)),
    ):
        assert [*origins_of(same.to_dataset())] == ["map"]
    changed = [
        ours + 0,
        ours[1:],
        ours.copy(data=ours.data + 1),
        ours.persist(),
        ours.compute(),
        ours.shift(x=1),
    ]
    for each in changed:
        assert origins_of(each.to_dataset(name="map")) == {}


def test_resume_can_be_declined(tmp_path):
    break_off(result(), tmp_path / "map.zarr")
    before = files(tmp_path / "map.zarr")
    with pytest.raises(OptionError, match="broken run. Go on with it by resume=True"):
        write(result(), tmp_path / "map.zarr", resume=False)
    assert files(tmp_path / "map.zarr") == before
    write(result(), tmp_path / "new.zarr", resume=False)


def test_a_damaged_ledger_is_told_unless_nothing_is_lost(tmp_path, whole):
    folder = tmp_path / "map.zarr"
    break_off(result(), folder)
    ledger = folder / ".terramind/ledger.json"
    contents = json.loads(ledger.read_text())
    for text, told in (
        (ledger.read_text()[:100], "it is damaged"),
        ("{}", "it is damaged"),
        ("[1]", "it is damaged"),
        (json.dumps({**contents, "format": 99}), "format 99, this release knows 1"),
    ):
        ledger.write_text(text)
        before = files(folder)
        with pytest.raises(
            OptionError, match=f"broken run whose ledger cannot be used: .*{told}.*delete it first"
        ):
            write(result(), folder)
        assert files(folder) == before
    for name in ("ledger.json", "ledger.0123.partial"):  # torn when it was first written
        alone = tmp_path / f"{name}.zarr"
        (alone / ".terramind").mkdir(parents=True)
        (alone / ".terramind" / name).write_text('{"format')
        write(result(), alone)
        assert files(alone) == whole


def test_a_broken_run_without_a_ledger_is_refused(tmp_path):
    """As releases left it that did not go on with one."""
    import shutil

    folder = tmp_path / "map.zarr"
    break_off(result(), folder)
    shutil.rmtree(folder / ".terramind")
    before = files(folder)
    with pytest.raises(OptionError, match="exists already and holds data"):
        write(result(), folder)
    assert files(folder) == before


def test_a_store_that_is_read_only_is_told(tmp_path):
    with pytest.raises(OptionError, match="cannot be written.*read-only"):
        write(result(), LocalStore(tmp_path / "map.zarr", read_only=True))
    break_off(result(), tmp_path / "map.zarr")
    with pytest.raises(OptionError, match="cannot be written.*read-only"):
        write(result(), LocalStore(tmp_path / "map.zarr", read_only=True))


# What is compared.


@given(shape=st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_positions_are_the_same_ones_within_any_shape(shape):
    found = positions(shape)
    assert all(len(axis) == 64 and axis.min() >= 0 for axis in found)
    assert all(axis.max() < size for axis, size in zip(found, shape, strict=True))
    np.testing.assert_array_equal(found, positions(shape))


def test_positions_spread_over_a_scene():
    y, x = positions((100_000, 100_000))
    assert len({(row // 25_000, col // 25_000) for row, col in zip(y, x, strict=True)}) == 16


def test_a_digest_is_of_what_is_read_back():
    zeros = np.array([0.0, np.nan])
    assert digest(-zeros) == digest(zeros) != digest(zeros + 1)
    assert digest(np.array([1, 2], ">i4")) == digest(np.array([1, 2], "<i4"))
    assert digest(np.array(["a", "bc"])) == digest(np.array(["a", "bc"], dtype=object))
    assert digest(np.zeros(0)) == digest(np.zeros(0))


# Verbs.


@pytest.fixture
def scene():
    return terramind_xr.synthetic.scene(420, seed=3, modalities=["S2L2A"]).compute().chunk(y=100, x=100)


def lulc(scene, **options):
    return scene.terramind.generate("LULC", **{"model": "demo", "overlap": 32, **options})


def break_generate(monkeypatch, obj, store, runs=2):
    """Run until the model has been called so often."""
    original, count = GenerateKernel.run, []

    def run(self, *args):
        count.append(1)
        if len(count) > runs:
            raise RuntimeError("out of memory")
        return original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(GenerateKernel, "run", run)
        with pytest.raises(RuntimeError, match="out of memory"), dask.config.set(scheduler="sync"):
            write(obj, store)


def test_generate_is_gone_on_with_and_another_plan_or_scene_refused(tmp_path, monkeypatch, scene):
    with terramind_xr.set_options(block=1):
        write(lulc(scene), tmp_path / "whole.zarr")
        break_generate(monkeypatch, lulc(scene), tmp_path / "map.zarr")
        values = scene.copy(deep=True)
        values["S2L2A"] = values["S2L2A"] + xr.ones_like(values["S2L2A"])
        options = {"seed": 1, "decoding": "expected", "probabilities": True}
        for option, value in options.items():
            with pytest.raises(OptionError, match=f"terramind_{option}|dims of 'LULC'"):
                write(lulc(scene, **{option: value}), tmp_path / "map.zarr")
        for other, told in (
            (values, r"values of input 1 \(S2L2A\) of 'LULC' \(in the store another\)"),
            (scene.isel(y=slice(None, None, -1)), "values of 'y'"),
            (scene.assign_coords(x=scene.x + 10), "values of 'x'"),
        ):
            with pytest.raises(OptionError, match=told):
                write(lulc(other), tmp_path / "map.zarr")
        write(lulc(scene.chunk(y=77, x=320)), tmp_path / "map.zarr")
    assert files(tmp_path / "map.zarr") == files(tmp_path / "whole.zarr")


def test_several_outputs_of_a_turned_scene_with_a_mask_are_gone_on_with(tmp_path, monkeypatch, scene):
    turned = scene.isel(y=slice(None, None, -1), x=slice(None, None, -1))

    def maps(hidden):
        mask = xr.zeros_like(turned["S2L2A"].isel(band=0, drop=True), bool) | (turned.x > hidden)
        return turned.terramind.generate(["LULC", "NDVI"], model="demo", mask=mask, diffusion_steps=1)

    middle = float(turned.x.mean())
    with terramind_xr.set_options(block=1):
        write(maps(middle), tmp_path / "whole.zarr")
        break_generate(monkeypatch, maps(middle), tmp_path / "map.zarr")
        with pytest.raises(OptionError, match=r"values of input 2 \(mask of S2L2A\) of 'LULC'"):
            write(maps(middle - 500), tmp_path / "map.zarr")
        write(maps(middle), tmp_path / "map.zarr")
    assert files(tmp_path / "map.zarr") == files(tmp_path / "whole.zarr")


def test_building_a_result_reads_no_pixel_for_its_origin():
    def fail(block):
        raise AssertionError("read")

    data = terramind_xr.synthetic.scene(64, modalities=["S2L2A"]).chunk()
    data["S2L2A"] = data["S2L2A"].copy(
        data=data["S2L2A"].data.map_blocks(fail, dtype=np.uint16, meta=np.empty(0))
    )
    assert isinstance(lulc(data).encoding[ORIGIN], Origin)


PLANS = """
import sys, json, terramind_xr
from terramind_xr.engine import ORIGIN
ds = terramind_xr.synthetic.scene(64, modalities=["S2L2A", "DEM"]).chunk()
made = [
    ds.terramind.generate("LULC", model="demo", mask=ds["DEM"] > 0),
    ds.terramind.tokenize("DEM", model="demo"),
    ds.terramind.embed(model="demo"),
]
inputs = {"S2L2A": None, "DEM": made[1]}
made.append(ds.terramind.generate("NDVI", inputs=inputs, model="demo"))
print(json.dumps([each.encoding[ORIGIN].plan for each in made]))
"""


@pytest.mark.slow
def test_plans_are_the_same_in_every_process():
    code = [sys.executable, "-W", "ignore", "-c", PLANS]
    first, second = (
        subprocess.run(code, capture_output=True, text=True, check=True).stdout for _ in range(2)
    )
    assert first == second
    assert len(json.loads(first)) == 4


def test_a_computed_result_is_written_by_others_as_before(tmp_path, scene):
    result = lulc(scene).compute()
    result.rio.to_raster(tmp_path / "map.tif")
    result.to_netcdf(tmp_path / "map.nc")
    result.to_zarr(tmp_path / "map.zarr", consolidated=False)
    for name in ("map.nc", "map.zarr"):
        with xr.open_dataset(
            tmp_path / name, **({"consolidated": False} if name.endswith("zarr") else {})
        ) as back:
            np.testing.assert_array_equal(back["LULC"], result)


# Stores of earlier releases.


def test_a_store_of_an_earlier_release_is_read():
    """`lulc-0.1.zarr`: what 0.1.0.dev0, which kept no ledger, made of `synthetic.scene(64, seed=3)`."""
    folder = Path(__file__).parent / "data/lulc-0.1.zarr"
    stored = xr.open_zarr(folder)["LULC"]
    assert stored.shape == (64, 64)
    assert stored.dtype == "uint8"
    assert stored.rio.crs.to_epsg() == 32632
    assert stored.attrs["terramind_seed"] == 0
    assert {*np.unique(stored)} <= {*range(1, 10)}
    with pytest.raises(OptionError, match="exists already"):
        write(stored, folder)


DATA = Path(__file__).parent / "data"
"""Stores that `tools/stores.py` has written with a release."""


def kept_map():
    """The map of which the stores `broken-….zarr` hold a part; never to be changed."""
    shape = (600, 500)
    values = (np.arange(600 * 500).reshape(shape) // 977).astype("float32")[None]
    source = Source(da.from_array(values, chunks=(1, 200, 200)), name="S2L2A")
    kernel, tiling = Counting(), Tiling.of(shape, overlap=32, block=1)
    array = xr.DataArray(
        map_tiles([source], kernel, tiling)[1], dims=("y", "x"), coords=axes(*shape), name="map"
    )
    array.encoding[ORIGIN] = Origin.of(array.data, [source], kernel, tiling, 8)
    return array


@pytest.mark.parametrize("folder", sorted(DATA.glob("broken-*.zarr")), ids=lambda path: path.stem)
def test_what_an_earlier_release_left_broken_is_gone_on_with(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "map.zarr")
    done = len([*folder.glob(".terramind/done/map/*")])
    assert done >= 3
    stored = write(kept_map(), tmp_path / "map.zarr")
    assert len(RAN) < 9 + 3
    np.testing.assert_array_equal(stored, kept_map().compute(scheduler="sync"))
    assert not (tmp_path / "map.zarr/.terramind").exists()


@pytest.mark.parametrize("folder", sorted(DATA.glob("finished-*.zarr")), ids=lambda path: path.stem)
def test_what_an_earlier_release_finished_is_read(folder):
    stored = xr.open_zarr(folder, decode_coords="all")["LULC"]
    assert stored.shape == (64, 64)
    assert stored.rio.crs.to_epsg() == 32632
    assert stored.attrs["terramind_model"] == "demo"
    assert {*np.unique(stored)} <= {*range(1, 10)}
    with pytest.raises(OptionError, match="exists already"):
        write(stored, folder)

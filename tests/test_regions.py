"""Scenes too large for one graph: tasks made where they are computed, and runs region by region."""

from __future__ import annotations

import collections
import pickle
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback
from dask.sizeof import sizeof
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from examples import examples
from kernels import TrivialKernel
from terramind_xr.api.to_zarr import to_zarr
from terramind_xr.engine import Field, Output, Source, Tiling, map_tiles, regions
from terramind_xr.engine.progress import Progress
from terramind_xr.engine.run import compute_in_window
from terramind_xr.errors import TerramindWarning

RAN: collections.Counter = collections.Counter()
READ: collections.Counter = collections.Counter()


@dataclass(frozen=True)
class Waiting(TrivialKernel):
    """Its last tile of a region waits for a tile of the next one."""

    folder: str = ""

    def run(self, pixels, valid, places):
        for y in {int(y) for y, _ in places}:
            if y == LATE:
                limit = time.monotonic() + 60
                while not any(Path(self.folder).iterdir()):
                    assert time.monotonic() < limit, "no tile of the next region was run"
                    time.sleep(0.01)
            elif y >= LATE + 3 * 192:
                (Path(self.folder) / str(y)).touch()
        return super().run(pixels, valid, places)


LATE = 0


@dataclass(frozen=True)
class Counting(TrivialKernel):
    """Pixels, and codes on the patch grid; remembers its tiles, in a folder if processes run them."""

    kind: str = "tile mean"
    folder: str = ""
    fails: bool = False

    @property
    def fields(self):
        return (Field(1), Field(1, cell=16, merge="nearest"))

    @property
    def outputs(self):
        return (
            Output("values", 0, (1,), "float32"),
            Output("map", 0, (), "int16"),
            Output("codes", 1, (), "uint16"),
        )

    def run(self, pixels, valid, places):
        for (y, x), tile in zip(places.tolist(), pixels[0], strict=True):
            if self.fails and FAILING in [(y, x)]:
                raise RuntimeError("out of memory")
            RAN[y, x, float(tile.mean())] += 1
            if self.folder:
                (Path(self.folder) / f"{y}.{x}.{uuid.uuid4().hex}").touch()
        patches = pixels[0][:, :, ::16, ::16] % 50 + places.sum(axis=1)[:, None, None, None] % 50
        return [*super().run(pixels, valid, places), patches.astype(np.float32)]

    def finish(self, index, blended, valid):
        if index < 2:
            return super().finish(index, blended, valid)
        return np.where(valid, np.rint(blended[0]), 65535).astype(np.uint16)


FAILING: tuple[int, int] | None = None


def made(shape, chunks):
    """Numbers that differ everywhere; counts how often each chunk is made."""

    def make(block_info=None):
        READ[tuple(block_info[None]["chunk-location"])] += 1
        where = [slice(*borders) for borders in block_info[None]["array-location"]]
        return values(shape)[tuple(where)]

    return da.map_blocks(make, chunks=da.core.normalize_chunks(chunks, shape), dtype="float32")


def values(shape):
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return ((numbers * 7919) % 9973).astype("float32")


def dataset(array, *, overlap=32, block=1, shifts=1, extra=(), kernel=None):
    """All outputs of a kernel, as they would be stored."""
    tiling = Tiling.of(array.shape[-2:], overlap=overlap, block=block, shifts=shifts)
    source = Source(array, tuple(range(len(extra))))
    found = map_tiles([source], kernel or Counting(), tiling, extra=extra)
    time = ("time",)[: len(extra)]
    dims = ((*time, "band", "y", "x"), (*time, "y", "x"), (*time, "patch_y", "patch_x"))
    names = ("values", "map", "codes")
    return xr.Dataset({name: (axes, each) for name, axes, each in zip(names, dims, found, strict=True)})


def written(ds, most, **options):
    """Bytes that a run in regions of so many chunks writes."""
    files: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "CHUNKS", most)
        to_zarr(ds, MemoryStore(files), progress=False, **options)
    return {key: value.to_bytes() for key, value in files.items()}


def number_of_regions(ds, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "CHUNKS", most)
        return len([*regions.in_regions([each.data for each in ds.data_vars.values()])])


# The tasks of a layer.


@settings(max_examples=examples(20))
@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 500)), times=st.integers(0, 2),
    chunk=st.integers(30, 400), overlap=st.sampled_from([0, 32, 112]), shifts=st.sampled_from([1, 2]),
)  # fmt: skip
def test_a_layer_holds_what_it_says(shape, times, chunk, overlap, shifts):
    extra = (times,) if times else ()
    array = da.zeros((*extra, 3, *shape), chunks=(*(2 for _ in extra), 2, chunk, chunk), dtype="float32")
    ds = dataset(array, overlap=overlap, shifts=shifts, extra=extra)
    for each in ds.data_vars.values():
        each.data.dask.validate()
        for layer in each.data.dask.layers.values():
            keys = [*layer]
            assert len(layer) == len({*keys})
            assert all(layer[key].key == key for key in keys if hasattr(layer, "tasks"))


def test_a_layer_knows_no_other_keys():
    array = map_tiles([Source(da.zeros((1, 500, 500)))], TrivialKernel(), Tiling.of((500, 500), block=1))[1]
    layer = array.dask.layers[array.name]
    assert (array.name, 2, 2) in layer
    for key in ((array.name, 3, 0), (array.name, -1, 0), (array.name, 0), (array.name,), array.name, "x", ()):
        assert key not in layer


def test_a_continent_costs_no_more_than_what_is_computed_of_it():
    shape = (316_000, 316_000)
    source = da.zeros((1, *shape), chunks=(1, 2048, 2048), dtype="uint16")
    result = map_tiles([Source(source)], TrivialKernel(), Tiling.of(shape))[1]
    assert len(pickle.dumps(result.dask)) < 100_000
    part = result[100_000:100_010, 200_000:200_010]
    (optimised,) = dask.optimize(part)
    assert len(dict(optimised.dask)) < 60
    assert (part.compute() == 0).all()


def test_results_are_used_as_any_other_array():
    shape = (500, 400)
    source = da.from_array(values((1, *shape)), chunks=(1, 150, 150))
    first, second = map_tiles([Source(source)], TrivialKernel("tile mean"), Tiling.of(shape, block=1))
    whole, other = dask.compute(first, second)
    np.testing.assert_array_equal(first[0, 100:300:3, ::-1] + 1, whole[0, 100:300:3, ::-1] + 1)
    np.testing.assert_array_equal(first.persist(), whole)
    np.testing.assert_array_equal(second.rechunk(77), other)
    together = xr.concat([xr.DataArray(second), xr.DataArray(second) * 2], "time")
    np.testing.assert_array_equal(together, [other, other * 2])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(second)), other)


# Regions.


@settings(max_examples=examples(10), deadline=None)
@given(
    shape=st.tuples(st.integers(300, 900), st.integers(200, 400)), times=st.integers(0, 2),
    span=st.integers(1, 3), chunk=st.integers(80, 500), overlap=st.sampled_from([0, 32, 112]),
    block=st.integers(1, 2), shifts=st.sampled_from([1, 2]), most=st.integers(1, 30),
    scheduler=st.sampled_from(["threads", "sync"]),
)  # fmt: skip
def test_regions_change_no_byte_and_nothing_is_done_twice(
    shape, times, span, chunk, overlap, block, shifts, most, scheduler
):
    extra = (times,) if times else ()
    array = made((*extra, 1, *shape), (*(span for _ in extra), 1, chunk, chunk))
    ds = dataset(array, overlap=overlap, block=block, shifts=shifts, extra=extra)
    with dask.config.set(scheduler=scheduler):
        expected = written(ds, 10**9)
        once, read = RAN.copy(), READ.copy()
        RAN.clear(), READ.clear()
        assert written(ds, most) == expected
    assert (once, read) == (RAN, READ)
    assert {*RAN.values()} == {*READ.values()} == {1}
    RAN.clear(), READ.clear()


def test_a_region_is_as_small_as_a_row_of_blocks():
    ds = dataset(da.zeros((1, 2000, 600), chunks=(1, 300, 300)))[["map"]]
    assert ds["map"].data.numblocks == (11, 4)
    assert [number_of_regions(ds, most) for most in (44, 43, 8, 4, 1)] == [1, 2, 6, 11, 11]


def test_dates_that_read_nothing_in_common_come_one_after_the_other():
    def dates(span):
        ds = dataset(da.zeros((3, 1, 900, 400), chunks=(span, 1, 400, 400)), extra=(3,))[["map"]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(regions, "CHUNKS", 6)
            found = regions.in_regions([ds["map"].data])
            return [sorted({key[1] for key in region.keys}) for region in found]

    apart = [date for each in dates(1) for date in each]
    assert apart == sorted(apart)
    assert all(each == [0, 1, 2] for each in dates(3))


@pytest.mark.slow
def test_what_needs_all_of_a_scene_is_computed_all_the_same():
    ds = dataset(made((1, 1300, 400), (1, 300, 300)))
    rolled = ds[["map"]].roll(y=500)
    other = (ds["map"] - ds["map"].mean()).to_dataset(name="other").chunk(y=100)
    for each in (
        rolled,
        other,
        ds.isel(y=slice(None, None, -1)),
        ds.isel(y=slice(70, None), x=slice(9, None)),
    ):
        expected = written(each, 10**9)
        RAN.clear()
        assert written(each, 4) == expected
        assert {*RAN.values()} == {1}
    RAN.clear(), READ.clear()


def test_a_broken_run_is_gone_on_with_in_other_regions():
    global FAILING
    ds = dataset(made((1, 1300, 400), (1, 300, 300)), kernel=Counting(fails=True))
    expected = written(ds, 10**9)
    for most, then in ((8, 8), (8, 4), (4, 10**9), (10**9, 4)):
        files: dict = {}
        with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="sync"):
            patch.setattr(regions, "CHUNKS", most)
            FAILING = (768, 176)
            with pytest.raises(RuntimeError, match="out of memory"):
                to_zarr(ds, MemoryStore(files), progress=False)
            FAILING = None
            RAN.clear()
            patch.setattr(regions, "CHUNKS", then)
            with pytest.warns(TerramindWarning, match="Metadata alone"):
                to_zarr(ds, MemoryStore(files), progress=False)
        assert {key: value.to_bytes() for key, value in files.items()} == expected
        assert {*RAN.values()} == {1}
        assert (0, 0) not in {(y, x) for y, x, _ in RAN}  # what is finished is not run again
    RAN.clear(), READ.clear()


def peak(ds, most):
    """Bytes that tasks hold at the worst moment."""
    found = 0

    def look(key, value, dsk, state, worker):
        nonlocal found
        found = max(found, sum(map(sizeof, state["cache"].values())))

    def forget(chunk):
        return None

    with pytest.MonkeyPatch.context() as patch, Callback(posttask=look), dask.config.set(num_workers=1):
        patch.setattr(regions, "CHUNKS", most)
        array = ds["map"].data
        compute_in_window([array.map_blocks(forget, meta=array._meta)], Progress("", 1, shown=False))
    return found


@pytest.mark.slow
def test_regions_hold_no_more_than_one_graph_does():
    ds = dataset(da.ones((1, 6000, 1500), chunks=(1, 300, 310), dtype="float32") + 1)
    one = peak(ds, 10**9)
    assert peak(ds, 32) < 1.5 * one
    RAN.clear()


@pytest.fixture(scope="module")
def cluster():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("times", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_cluster_hands_on_what_its_workers_hold(times, cluster, tmp_path):
    extra = (times,) if times else ()
    shape = (*extra, 1, 1300, 400)
    source = da.from_array(values(shape), chunks=(*(2 for _ in extra), 1, 300, 300)) + 1
    with dask.config.set(scheduler="sync"):
        expected = dataset(source, extra=extra).compute()
    (tmp_path / "ran").mkdir()
    ds = dataset(source, extra=extra, kernel=Counting(folder=str(tmp_path / "ran")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "CHUNKS", 12)
        stored = to_zarr(ds, tmp_path / "map.zarr", progress=False)
    xr.testing.assert_identical(stored.compute(scheduler="sync").drop_attrs(), expected)
    ran = collections.Counter(tuple(each.name.split(".")[:2]) for each in (tmp_path / "ran").iterdir())
    assert {*ran.values()} == {max(times, 1)}
    assert not cluster.futures
    RAN.clear()


def test_no_worker_of_a_cluster_waits_for_the_end_of_a_region(cluster, tmp_path):
    """One of two workers is held up at the start of a region; the other goes on with the next one."""
    tiling = Tiling.of((4000, 224), overlap=32, block=1)
    source = Source(da.ones((1, 4000, 224), chunks=(1, 400, 224), dtype="float32") + 1)
    found, *_ = map_tiles([source], Waiting("identity", folder=str(tmp_path)), tiling)
    writing = found.map_blocks(lambda chunk: None, meta=np.empty((0, 0, 0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "CHUNKS", 6)  # three rows of blocks
        compute_in_window([writing], Progress("", 1, shown=False))
    limit = time.monotonic() + 30
    while cluster.futures:  # they are released a moment later
        assert time.monotonic() < limit, cluster.futures
        time.sleep(0.01)

"""Laws 1, 2, 4, 5, 6 and 7 with trivial kernels, against a whole-scene oracle in plain numpy."""

import collections
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import convert_legacy_graph
from dask.callbacks import Callback
from dask.highlevelgraph import HighLevelGraph
from dask.sizeof import sizeof
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from kernels import TrivialKernel, oracle
from terramind_xr.engine.cost import estimate
from terramind_xr.engine.graph import Source, map_tiles
from terramind_xr.engine.order import in_order, in_sequence, in_window, works_of
from terramind_xr.engine.regions import in_regions
from terramind_xr.engine.tiling import Tiling

OVERLAPS = st.sampled_from(range(0, 113, 16))


@st.composite
def chunks(draw, size):
    """Any chunking of an axis."""
    borders = draw(st.lists(st.integers(1, size), max_size=6, unique=True).map(sorted))
    borders = [0, *(border for border in borders if border < size), size]
    return tuple(np.diff(borders).tolist())


@st.composite
def scenes(draw):
    """A scene with holes, chunked at will."""
    height, width, bands = draw(st.integers(1, 700)), draw(st.integers(1, 500)), draw(st.integers(1, 2))
    dtype = draw(st.sampled_from(["float32", "float64", "int16", "uint8"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = (rng.normal(size=(bands, height, width)) * 40 + 100).astype(dtype)
    if dtype.startswith("float") and draw(st.booleans()):
        values[:, draw(st.integers(0, height - 1)) :, draw(st.integers(0, width - 1)) :] = np.nan
    chunking = (draw(chunks(bands)), draw(chunks(height)), draw(chunks(width)))
    return values, da.from_array(values, chunks=chunking)


def run(array, kernel, *, overlap, block=4, batch_size=8, extra=(), axes=()):
    tiling = Tiling.of(array.shape[-2:], overlap=overlap, block=block)
    return map_tiles([Source(array, axes)], kernel, tiling, extra=extra, batch_size=batch_size)


@settings(max_examples=examples(60))
@given(
    scene=scenes(), overlap=OVERLAPS, block=st.integers(1, 4), batch_size=st.integers(1, 9),
    kind=st.sampled_from(["identity", "tile mean", "noise"]),
)  # fmt: skip
def test_equals_the_oracle(scene, overlap, block, batch_size, kind):
    values, array = scene
    kernel = TrivialKernel(kind, len(values))
    lazy = run(array, kernel, overlap=overlap, block=block, batch_size=batch_size)
    blended, map_ = dask.compute(*lazy, scheduler="sync")
    expected, expected_map = oracle(kernel, [values], overlap=overlap)
    # Weights are rounded to 1/1024 here, and tiles differ by some tens where they overlap.
    np.testing.assert_allclose(blended, expected, atol=0.05, rtol=1e-4)
    assert (np.abs(map_.astype(int) - expected_map) <= 1).all()
    assert blended.dtype == lazy[0].dtype
    assert blended.shape == lazy[0].shape


@settings(max_examples=examples(40))
@given(scene=scenes(), data=st.data(), overlap=OVERLAPS)
def test_chunks_and_blocks_change_no_byte(scene, data, overlap):
    values, array = scene
    kernel = TrivialKernel("tile mean", len(values))
    other = da.from_array(values, chunks=tuple(data.draw(chunks(size)) for size in values.shape))
    first = dask.compute(*run(array, kernel, overlap=overlap, block=1), scheduler="sync")
    second = dask.compute(*run(other, kernel, overlap=overlap, block=3), scheduler="threads")
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()


@settings(max_examples=examples(25))
@given(height=st.integers(1, 900), width=st.integers(1, 600), overlap=OVERLAPS)
def test_blending_a_constant_gives_that_very_constant(height, width, overlap):
    array = da.zeros((1, height, width), dtype="float32")
    blended = run(array, TrivialKernel("constant"), overlap=overlap, block=2)[0].compute()
    assert (blended == np.float32(0.1)).all()


@dataclass(frozen=True)
class CountingKernel(TrivialKernel):
    def run(self, pixels, valid, places):
        seen.update(map(tuple, places.tolist()))
        return super().run(pixels, valid, places)


seen = collections.Counter()


@pytest.mark.parametrize("overlap", [0, 32, 112])
@pytest.mark.parametrize("block", [1, 2, 5])
def test_each_tile_is_run_once(overlap, block):
    seen.clear()
    array = da.zeros((1, 1030, 615), chunks=(1, 100, 333))
    dask.compute(*run(array, CountingKernel(), overlap=overlap, block=block), scheduler="sync")
    tiling = Tiling.of((1030, 615), overlap=overlap)
    assert seen == {(y, x): 1 for y in tiling.y.starts for x in tiling.x.starts}


def test_tiles_without_a_valid_pixel_are_not_run():
    seen.clear()
    values = np.full((1, 1000, 1000), np.nan, "float32")
    values[:, 500, 700] = 3.0
    lazy = run(da.from_array(values, chunks=300), CountingKernel(), overlap=32)[0]
    blended = lazy.compute(scheduler="sync")
    assert all(y <= 500 < y + 224 and x <= 700 < x + 224 for y, x in seen)
    assert (blended == -9).sum() == 1000 * 1000 - 1
    assert blended[0, 500, 700] == 3


def test_a_scene_without_a_valid_pixel_is_all_nodata():
    seen.clear()
    array = da.full((1, 300, 300), np.nan, chunks=100)
    assert (run(array, CountingKernel(), overlap=32)[0].compute() == -9).all()
    assert not seen


def test_building_computes_nothing_and_names_are_deterministic():
    def fail():
        raise AssertionError("computed while building")

    array = da.from_delayed(dask.delayed(fail)(), (1, 5000, 5000), "float32")
    first = run(array, TrivialKernel(), overlap=32)
    second = run(array, TrivialKernel(), overlap=32)
    assert [a.name for a in first] == [b.name for b in second]
    assert first[0].name != run(array, TrivialKernel(fill=-8.0), overlap=32)[0].name
    assert first[0].name != run(array, TrivialKernel(), overlap=16)[0].name
    with pytest.raises(AssertionError, match="computed while building"):
        first[0].compute(scheduler="sync")


def test_extra_dims_are_scenes_of_their_own():
    values = np.random.default_rng(0).normal(size=(3, 1, 250, 300)).astype("float32")
    kernel = TrivialKernel("tile mean")
    together = run(da.from_array(values, chunks=(2, 1, 99, 99)), kernel, overlap=32, extra=(3,), axes=(0,))[0]
    assert together.shape == (3, 1, 250, 300)
    for time in range(3):
        alone = run(da.from_array(values[time]), kernel, overlap=32)[0].compute()
        assert together[time].compute().tobytes() == alone.tobytes()


def test_sources_without_a_dim_are_used_along_it():
    rng = np.random.default_rng(0)
    changing, fixed = rng.normal(size=(2, 1, 230, 230)), rng.normal(size=(1, 230, 230))
    tiling = Tiling.of((230, 230))
    sources = [Source(da.from_array(fixed)), Source(da.from_array(changing), (0,))]
    result = map_tiles(sources, TrivialKernel(), tiling, extra=(2,))[0].compute()
    for time in range(2):
        np.testing.assert_array_equal(result[time], fixed.astype("float32"))


def forget(chunk):
    """What is left of a chunk that has been stored."""


def stored(array):
    return array.map_blocks(forget, meta=array._meta)


def windowed(array, ahead=4):
    """Graph in a window, and its keys, of a scene small enough for one region."""
    (region,) = in_regions([stored(array)])
    return in_window(region.tasks, region.keys, ahead=ahead, run="test")


def peak_memory(rows, columns, *, in_a_window, crop=0):
    """Bytes of data that tasks hold at the worst moment of a run over the scene."""
    array = da.ones((4, rows, columns), chunks=(4, 200, 310), dtype="float32") + 1
    result = run(array, TrivialKernel("identity", 4), overlap=32, block=2)[0]
    if crop:
        result = result[:, crop:, crop:].rechunk((4, 384, 384), threshold=1e9)
    peak = 0

    def look(key, value, dsk, state, worker):
        nonlocal peak
        peak = max(peak, sum(map(sizeof, state["cache"].values())))

    with Callback(posttask=look):
        if in_a_window:
            dask.get(*windowed(result))
        else:
            stored(result).compute(scheduler="sync")
    return peak


def test_peak_memory_does_not_grow_with_the_scene():
    """A longer scene holds no more; a wider one holds the margins of a longer row."""
    short = peak_memory(3200, 700, in_a_window=True)
    long = peak_memory(9600, 700, in_a_window=True)
    assert long < 2 * short  # three times as long; dask breaks ties at random
    narrow, wide = (peak_memory(2400, width, in_a_window=True) for width in (1000, 4000))
    assert wide < 3 * narrow
    # Left to dask's own order, it does grow: the window is what bounds it.
    assert peak_memory(9600, 700, in_a_window=False) > 2 * long


@pytest.mark.slow
def test_peak_memory_of_a_crop_does_not_grow_with_the_scene():
    """Its chunks, cut anew, wait for a row of blocks."""
    short, long = (peak_memory(rows, 700, in_a_window=True, crop=100) for rows in (3200, 9600))
    assert long < 2 * short


def test_a_run_in_a_window_gives_the_same_bytes():
    values = np.random.default_rng(0).normal(size=(2, 1, 900, 700)).astype("float32")
    array = da.from_array(values, chunks=(1, 1, 300, 250))
    first, second = run(array, TrivialKernel("tile mean"), overlap=32, block=1, extra=(2,), axes=(0,))
    merged = HighLevelGraph.merge(first.__dask_graph__(), second.__dask_graph__())
    graph = in_sequence(merged, ahead=3)
    assert any(key[0].startswith("terramind-done") for key in graph if isinstance(key, tuple))
    for each in (first, second):
        again = da.Array(graph, each.name, each.chunks, meta=each._meta)
        assert again.compute().tobytes() == each.compute(scheduler="sync").tobytes()


def test_the_graph_of_a_huge_scene_is_small_enough():
    array = da.zeros((12, 30_000, 30_000), chunks=(12, 1024, 1024), dtype="uint16")
    result = run(array, TrivialKernel("identity", 12), overlap=32)[0]
    blocks = 40 * 40
    assert len(result.__dask_graph__()) < 20 * blocks


class Alive:
    """Makes input chunks, and counts those that are still in memory, however they are held."""

    def __init__(self):
        self.now = self.peak = self.made = 0
        self.lock = threading.Lock()

    def source(self, shape, chunks):
        def make(block_info=None):
            chunk = np.ones(block_info[None]["chunk-shape"], "float32")
            weakref.finalize(chunk, self.free)
            with self.lock:
                self.made += 1
                self.now += 1
                self.peak = max(self.peak, self.now)
            return chunk

        return da.map_blocks(make, chunks=da.core.normalize_chunks(chunks, shape), dtype="float32")

    def free(self):
        with self.lock:
            self.now -= 1


def chunks_alive(rows, *, dates, span, fixed, threads):
    """Most input chunks alive at a time; blocks of 192 and chunks of 200 pixels, two blocks a row."""
    alive = Alive()
    shape = (rows * 192, 384)
    sources = [Source(alive.source((dates, 1, *shape), (span, 1, 200, 400)), (0,))]
    if fixed:  # no dates: read for all of them
        sources.append(Source(alive.source((1, *shape), (1, 200, 400))))
    result = map_tiles(sources, TrivialKernel(), Tiling.of(shape, block=1), extra=(dates,))[0]
    graph, keys = windowed(result)
    if threads:
        with ThreadPoolExecutor(threads) as pool:
            dask.local.get_async(pool.submit, threads, graph, keys)
    else:
        dask.get(graph, keys)
    assert alive.made == sum(source.array.npartitions for source in sources)  # each is read once
    return alive.peak


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("span", [1, 2, 6])
def test_the_input_chunks_in_memory_do_not_grow_with_the_scene(span, fixed, threads):
    """Those that a row of blocks touches and the window reaches, whatever dates they span."""
    peak = chunks_alive(24, dates=6, span=span, fixed=fixed, threads=threads)
    scenes = 6 // span + 1 if fixed else 1
    # A row of blocks touches two rows of chunks, the window reaches the next ones; threads free them late.
    assert peak <= (7 if threads else 4) * scenes


def test_a_plan_counts_the_input_chunks_of_a_row_of_blocks():
    tiling = Tiling.of((2000, 1000), block=1)

    def memory(*sources):
        found = estimate(list(sources), TrivialKernel(), tiling, (6,), 8)
        return found["input_memory"], found["margin_memory"]

    def source(*chunks):
        return Source(da.zeros((6, 3, 2000, 1000), dtype="int16", chunks=chunks), (0,))

    row = 3 * 1000 * 2  # bytes of a row of pixels
    single, margin = memory(source(1, 3, 100, 300))
    assert single == 400 * row  # tiles of 224 pixels from 192 or 384 on touch four or three chunks of 100
    assert memory(source(1, 3, 2000, 1000)) == (2000 * row, margin)
    assert memory(source(6, 1, 100, 300)) == (6 * 400 * row, 6 * margin)
    assert memory(source(4, 3, 100, 300)) == (4 * 400 * row, 4 * margin)
    fixed = Source(da.zeros((1, 2000, 1000), dtype="int16", chunks=100))
    together, _ = memory(source(1, 3, 100, 300), fixed)
    assert together == 6 * 400 * row + 400 * 1000 * 2


def test_dates_run_one_by_one_unless_they_are_read_together():
    def order(*sources):
        result = map_tiles(list(sources), TrivialKernel(), Tiling.of((800, 400), block=1), extra=(4,))[0]
        tasks = convert_legacy_graph(dict(result.__dask_graph__()))
        (work,) = works_of(tasks)
        own = frozenset((work.block, work.margin, *work.chunks))
        return [place[0] for place in in_order(tasks, work.block, own)]

    def dated(span):
        return Source(da.zeros((4, 1, 800, 400), chunks=(span, 1, 400, 200)), (0,))

    blocks = len(order(dated(1))) // 4
    assert blocks > 1
    one_by_one = [date for date in range(4) for _ in range(blocks)]
    assert order(dated(1)) == one_by_one
    assert order(dated(4)) == [*range(4)] * blocks
    assert order(dated(2)) == [0, 1] * blocks + [2, 3] * blocks
    assert order(dated(1), Source(da.zeros((1, 800, 400), chunks=200))) == [*range(4)] * blocks
    rechunked = Source(dated(4).array.rechunk((1, 1, 100, 100)), (0,))
    assert order(rechunked) == [*range(4)] * blocks  # read as they lie in the file

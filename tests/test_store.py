"""Zarr runs: only a finished store opens, any source goes in, and nothing outside the run is touched."""

from __future__ import annotations

import datetime
import json
import logging
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from examples import examples
from kernels import TrivialKernel
from scenes import axes
from terramind_xr.api.to_zarr import to_zarr
from terramind_xr.engine.graph import Source, map_tiles
from terramind_xr.engine.tiling import Tiling
from terramind_xr.errors import InputError, OptionError, TerramindWarning


def raster(values, chunks=None, name="map"):
    """A georeferenced DataArray whose last two axes are y and x."""
    height, width = values.shape[-2:]
    dims = (*(f"extra_{axis}" for axis in range(values.ndim - 2)), "y", "x")
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    array = xr.DataArray(data, dims=dims, coords=axes(height, width), name=name, attrs={"units": "m"})
    return array.rio.write_crs(32632)


def numbers(*shape):
    return np.arange(np.prod(shape)).reshape(shape).astype("float32")


def write(obj, store=None):
    return to_zarr(obj, MemoryStore() if store is None else store, progress=False)


# Only a finished store opens.


def test_the_finished_store_is_returned_as_it_was_given(tmp_path):
    array = raster(numbers(60, 50), chunks=20)
    ds = xr.Dataset({"map": array, "twice": array * 2, "small": ((), 3.0)}).rio.write_crs(32632)
    for obj, name in ((array, "one.zarr"), (ds, "several.zarr"), (array.compute(), "eager.zarr")):
        stored = write(obj, tmp_path / name)
        assert type(stored) is type(obj)
        xr.testing.assert_identical(stored.compute(), obj.compute())
        assert stored.rio.crs.to_epsg() == 32632
        assert stored.chunks
        assert all(layer.startswith(("open_dataset", "original")) for layer in layers(stored))
    assert write(array.rename(None)).name == "data"


def layers(obj):
    return obj.__dask_graph__().layers


def test_a_finished_store_opens_without_a_warning_and_as_zarr_would_consolidate_it(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        write(raster(numbers(60, 50), chunks=20), tmp_path / "map.zarr")
        xr.open_zarr(tmp_path / "map.zarr")
    root = tmp_path / "map.zarr" / "zarr.json"
    ours = json.loads(root.read_text())
    with pytest.warns(UserWarning, match="Consolidated"):
        zarr.consolidate_metadata(tmp_path / "map.zarr")
    assert ours == json.loads(root.read_text())


class Recording(WrapperStore):
    """Remembers what is written, in order."""

    def __init__(self, store):
        super().__init__(store)
        self.keys = []

    async def set(self, key, value):
        self.keys.append(key)
        await super().set(key, value)


def test_the_root_is_written_last():
    store = Recording(MemoryStore())
    write(raster(numbers(60, 50), chunks=20), store)
    assert store.keys.count("zarr.json") == 1
    assert store.keys[-1] == "zarr.json"
    assert {"map/zarr.json", "map/c/0/0", "map/c/2/2", "y/c/0", "spatial_ref/zarr.json"} <= set(store.keys)


KILLED = """
import sys, time
from pathlib import Path
import dask, dask.array as da, xarray as xr
from terramind_xr.engine.graph import Source, map_tiles
from terramind_xr.api.to_zarr import to_zarr
from terramind_xr.engine.tiling import Tiling

def wait(block, block_info=None):
    while block_info[0]["chunk-location"] == (2, 1) and not Path(sys.argv[1], "never").exists():
        time.sleep(0.01)
    return block + 1

data = da.zeros((60, 40), chunks=20).map_blocks(wait, dtype=float)
with dask.config.set(num_workers=2):
    to_zarr(xr.DataArray(data, dims=("y", "x"), name="map"), Path(sys.argv[1], "map.zarr"), progress=False)
"""


def assert_unfinished(path):
    # Older releases of zarr know the first alone.
    with pytest.raises((FileNotFoundError, getattr(zarr.errors, "GroupNotFoundError", FileNotFoundError))):
        xr.open_zarr(path)
    with pytest.raises(OptionError, match="broken run"):
        write(raster(numbers(60, 40), chunks=20), path)
    array = zarr.open_array(path / "map", mode="r+")
    assert (array[:20] == 1).all()
    array[40:, 20:] = 7  # by path, blocks can still be written
    assert (zarr.open_array(path / "map", mode="r")[40:, 20:] == 7).all()


def test_what_a_killed_process_leaves_does_not_open(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    chunks = tmp_path / "map.zarr/map/c"
    try:
        until = time.monotonic() + 60
        while len(list(chunks.glob("*/*"))) < 5 and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(chunks.glob("*/*"))) == 5
    assert_unfinished(tmp_path / "map.zarr")


def test_a_failing_block_leaves_no_store_that_opens(tmp_path):
    def fail(block, block_info=None):
        if block_info[0]["chunk-location"] == (2, 1):
            raise ValueError("no such pixels")
        return block + 1

    data = da.zeros((60, 40), chunks=20).map_blocks(fail, dtype=float)
    array = xr.DataArray(data, dims=("y", "x"), name="map")
    with pytest.raises(ValueError, match="no such pixels"), dask.config.set(scheduler="sync"):
        write(array, tmp_path / "map.zarr")
    assert not (tmp_path / "map.zarr/zarr.json").exists()
    with pytest.raises((FileNotFoundError, getattr(zarr.errors, "GroupNotFoundError", FileNotFoundError))):
        xr.open_zarr(tmp_path / "map.zarr")


# Any source, any kind of store.


@st.composite
def chunked(draw):
    """An array of three axes, each cut at will."""
    shape = [draw(st.integers(1, 30)) for _ in range(3)]
    borders = [sorted({0, size, *draw(st.lists(st.integers(1, size), max_size=5))}) for size in shape]
    return raster(numbers(*shape), chunks=tuple(tuple(np.diff(axis).tolist()) for axis in borders))


@settings(max_examples=examples(40))
@given(array=chunked())
def test_chunks_of_any_sizes_become_the_largest_of_them(array):
    stored = write(array)
    xr.testing.assert_identical(stored.compute(), array.compute())
    for sizes, given_sizes in zip(stored.chunks, array.chunks, strict=True):
        assert max(sizes) == max(given_sizes)
        assert len(set(sizes[:-1])) <= 1


def test_whatever_lay_in_another_zarr_format(tmp_path):
    from numcodecs import Blosc, Delta

    ds = xr.Dataset({"map": raster(numbers(60, 50)), "name": ("band", ["a", "bcd"])})
    ds["packed"] = ds["map"].copy()
    ds["packed"].encoding = {"scale_factor": 0.5, "add_offset": 3.0, "dtype": "int16", "_FillValue": -1}
    encoding = {"map": {"compressors": [Blosc()], "filters": [Delta("f4")], "chunks": (17, 23)}}
    ds.to_zarr(tmp_path / "old.zarr", zarr_format=2, encoding=encoding, consolidated=True)
    old = xr.open_zarr(tmp_path / "old.zarr", decode_coords="all")
    stored = write(old, tmp_path / "new.zarr")
    xr.testing.assert_identical(stored.compute(), old.compute())
    assert stored["map"].chunks == old["map"].chunks
    assert stored["packed"].encoding["dtype"] == "int16"
    assert zarr.open_array(tmp_path / "new.zarr" / "packed").dtype == "int16"
    write(stored.isel(y=slice(5, None)), tmp_path / "again.zarr")  # and so on


STORES = {
    "path": lambda folder: str(folder / "map.zarr"),
    "path object": lambda folder: folder / "map.zarr",
    "URL": lambda folder: f"memory://{folder.name}/map.zarr",
    "URL of a file": lambda folder: f"file://{folder}/with space/map.zarr",
    "memory": lambda folder: MemoryStore(),
    "local": lambda folder: LocalStore(folder / "map.zarr"),
}


@pytest.mark.parametrize("kind", STORES)
def test_an_empty_store_is_written_and_a_full_one_refused_untouched(kind, tmp_path):
    store, array = STORES[kind](tmp_path), raster(numbers(60, 50), chunks=20)
    if kind.startswith("path"):
        Path(store).mkdir()
    xr.testing.assert_identical(write(array, store).compute(), array.compute())
    with pytest.raises(OptionError, match="exists already"):
        write(array + 1, store)
    back = xr.open_zarr(store, decode_coords="all")["map"]
    xr.testing.assert_identical(back.compute(), array.compute())


@pytest.mark.parametrize("kind", ["URL", "memory"])
def test_a_store_in_memory_is_refused_where_other_processes_would_write_to_copies(kind, tmp_path):
    store, array = STORES[kind](tmp_path), raster(numbers(60, 50), chunks=20)
    with (
        dask.config.set(scheduler="processes", num_workers=1),
        pytest.raises(OptionError, match="in the memory of this process; expected one that all workers"),
    ):
        write(array, store)
    xr.testing.assert_identical(write(array, store).compute(), array.compute())  # untouched


def test_what_is_no_group_at_all_is_refused_untouched(tmp_path):
    array = raster(numbers(60, 50), chunks=20)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "folder", tmp_path / "file" / "below"):
        with pytest.raises(OptionError, match="exists already"):
            write(array, path)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/notes.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["notes.txt"]
    with pytest.raises(OptionError, match="expected a path"):
        write(array, 5)


# What Zarr has no type for.


def objects(values):
    """An array of one dim that holds these objects as they are."""
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)


@settings(max_examples=examples(40))
@given(values=st.tuples(JSON, JSON), is_lazy=st.booleans())
def test_coordinates_of_objects_become_json_and_all_else_stays(values, is_lazy):
    array = raster(numbers(2, 20, 20), chunks=20).assign_coords(
        {
            "bbox": ((), objects([{"all": values[0]}])[0:1].reshape(())),
            "each": ("extra_0", objects([[values], {}])),
        }
    )
    with pytest.warns(TerramindWarning, match="JSON text: bbox, each.*drop_vars"):
        stored = write(array.chunk() if is_lazy else array).compute()
    assert json.loads(stored.bbox.item()) == {"all": values[0]}
    assert [json.loads(each) for each in stored.each.values] == [[list(values)], {}]
    xr.testing.assert_identical(
        stored.drop_vars(["bbox", "each"]), array.drop_vars(["bbox", "each"]).compute()
    )


def test_objects_that_are_no_json_are_left_out_and_named():
    array = raster(numbers(2, 20, 20), chunks=20)
    odd = array.assign_coords(
        {
            "proj:bbox": ((), objects([{3.5, 1.5}]).reshape(())),
            "when": ("extra_0", objects([np.datetime64("2024-05-01"), "later"])),
            "lock": ((), objects([threading.Lock()]).reshape(())),
        }
    )
    with (
        pytest.warns(TerramindWarning, match="left out: lock"),
        pytest.warns(TerramindWarning, match="JSON text: proj:bbox, when"),
    ):
        stored = write(odd)
    assert stored["proj:bbox"].item() == "[1.5, 3.5]"
    assert stored.when.values.tolist() == ['"2024-05-01"', '"later"']
    assert "lock" not in stored.coords
    with pytest.raises(InputError, match="'odd' holds Python objects.*drop_vars"):
        write(xr.Dataset({"map": array, "odd": ("n", objects([threading.Lock()]))}))


def test_what_stays_as_it_is_comes_without_a_warning():
    """Text has a specification in Zarr 3 only where its width varies."""
    import cftime

    array = raster(numbers(2, 20, 20), chunks=20).rename(extra_0="band")
    array = array.assign_coords(
        band=["B02", "blue"],
        title="a scene",
        object_text=("band", objects(["a", "bcd"])),
        some=("band", objects([1.5, None])),
        flag=("band", objects([True, False])),
        when=("band", objects([cftime.DatetimeNoLeap(2024, 5, day) for day in (1, 2)])),
    )
    with warnings.catch_warnings():
        if zarr.__version__ >= "3.1":  # earlier ones warn of every text
            warnings.simplefilter("error")
        for obj in (array, array.chunk().to_dataset().assign(name=("band", ["x", "yz"]))):
            stored = write(obj)
            again = write(stored)
    for each in (stored, again):
        assert each["map"].sel(band="blue").shape == (20, 20)
        assert each.band.values.tolist() == ["B02", "blue"]
        assert each.name.values.tolist() == ["x", "yz"]
        assert each.title.item() == "a scene"
        assert each.object_text.values.tolist() == ["a", "bcd"]
        np.testing.assert_array_equal(each.some, [1.5, np.nan])
        assert each.flag.values.tolist() == [True, False]
        assert each.when.values.tolist() == array.when.values.tolist()


def test_attributes_of_objects_become_json_or_are_left_out_and_are_named():
    when = datetime.date(2025, 6, 1)
    array = raster(numbers(60, 50), chunks=20).assign_attrs(when=when, spec=object(), some=np.arange(2))
    ds = xr.Dataset({"map": array}, attrs={"times": [when], "scale": np.float32(0.5)})
    with pytest.warns(TerramindWarning) as told:
        stored = write(ds)
    converted, left = [str(each.message) for each in told]
    assert "written as text: 'times' of the dataset, 'when' of 'map'" in converted
    assert "left out: 'spec' of 'map'. Drop" in left
    assert stored.attrs["times"] == ["2025-06-01"]
    assert stored.attrs["scale"] == 0.5
    assert (stored["map"].attrs["when"], stored["map"].attrs["some"]) == ("2025-06-01", [0, 1])
    assert array.attrs["when"] is when


def test_what_cannot_be_encoded_is_told_and_leaves_nothing_that_is_in_the_way(tmp_path):
    array = raster(numbers(60, 50), chunks=20)
    zones = pd.date_range("2025", periods=60, tz="UTC")
    for wrong, said in (
        (array.assign_attrs(grid_mapping="spatial_ref"), "'grid_mapping' already exists.*variable 'map'"),
        (array.assign_coords(when=("y", zones)), "UTC.*variable 'when'"),
    ):
        with pytest.raises(InputError, match=f"cannot be stored: .*{said}"):
            write(wrong, tmp_path / "map.zarr")
    write(array, tmp_path / "map.zarr")


@pytest.mark.parametrize("name", ["B08/B04", 4, ("map", 1), "."])
def test_names_that_are_no_keys_are_refused_before_anything_is_written(name, tmp_path):
    ds = raster(numbers(60, 50), chunks=20).to_dataset(name="map").rename(map=name)
    for obj in (ds, ds[name]):
        with pytest.raises(InputError, match=r"named .*expected text.*da\.rename\('map'\)") as error:
            write(obj, tmp_path / "map.zarr")
        assert repr(name) in str(error.value)
        assert not (tmp_path / "map.zarr").exists()


def test_pixels_in_a_row_are_refused_with_the_line_that_helps(tmp_path):
    rows = raster(numbers(60, 50), chunks=20).stack(pixel=("y", "x"))
    with pytest.raises(InputError, match=r"'pixel'.*ds\.reset_index\('pixel'\)"):
        write(rows, tmp_path / "map.zarr")
    assert not (tmp_path / "map.zarr").exists()
    stored = write(rows.reset_index("pixel"), tmp_path / "map.zarr")
    xr.testing.assert_identical(stored.set_index(pixel=("y", "x")).compute(), rows.compute())


def test_what_is_no_xarray_and_where_nothing_can_be_written_are_told():
    with pytest.raises(InputError, match="found ndarray.*xr.DataArray"):
        write(numbers(4, 4))
    with pytest.raises(OptionError, match="'/proc/x.zarr' cannot be written.*where you may write"):
        write(raster(numbers(60, 50), chunks=20), "/proc/x.zarr")


# Nothing outside the run.


def test_two_runs_at_once_touch_nothing_global(tmp_path):
    """A third thread watches while they run, and all is as before when they are done."""

    def state():
        return dask.config.get("array_optimize", None), list(warnings.filters), set(Callback.active)

    def slowly(block):
        time.sleep(0.01)
        return block

    def watch():
        while not done.is_set():
            seen.append(state())
            time.sleep(0.0005)

    array = raster(numbers(100, 100), chunks=10)
    array = array.copy(data=array.data.map_blocks(slowly))
    write(array)  # imports what is imported late
    before, seen, done = state(), [], threading.Event()
    runs = [
        threading.Thread(target=to_zarr, args=(array, tmp_path / f"{number}.zarr")) for number in range(2)
    ]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for run in runs:
        run.start()
        time.sleep(0.05)
    for run in runs:
        run.join()
    done.set()
    watcher.join()
    assert len(seen) > 100
    assert all(each == before for each in seen)
    assert state() == before


# On a cluster.


@pytest.fixture
def cluster():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def tiled(values, chunks):
    """A result of tiles that blend, in four rows of blocks."""
    tiling = Tiling.of(values.shape, overlap=32, block=1)
    kernel = TrivialKernel("tile mean")
    source = da.from_array(values[None], chunks=(1, chunks, chunks), name=False) + 1
    return raster(map_tiles([Source(source)], kernel, tiling)[1])


@pytest.mark.parametrize("first", ["compute", "persist", "persisted input", "same run"])
def test_a_cluster_is_not_given_two_tasks_of_one_name(first, cluster, caplog, tmp_path):
    values = numbers(800, 500) / 1e4
    expected = tiled(values, 200).compute(scheduler="sync")
    array, kept = tiled(values, 200), None
    if first == "compute":
        array.compute()
    elif first == "persist":
        kept = array.persist()
        xr.testing.assert_identical(write(kept, tmp_path / "kept.zarr").compute(), expected)
    elif first == "persisted input":
        source = da.from_array(values[None], chunks=200).persist()
        tiling = Tiling.of(values.shape, overlap=32, block=1)
        array = raster(map_tiles([Source(source + 1)], TrivialKernel("tile mean"), tiling)[1])
        kept = source
    else:
        kept = cluster.compute(array)
    with caplog.at_level(logging.WARNING):
        for name in ("one.zarr", "again.zarr"):
            xr.testing.assert_identical(write(array, tmp_path / name).compute(), expected)
    assert "run_spec" not in caplog.text
    del kept

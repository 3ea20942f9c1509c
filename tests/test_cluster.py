"""dask.distributed as it is: models preloaded, resources, retries, workers that come, go and die."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, get_worker
from zarr.storage import LocalStore

import terramind_xr
from kernels import TrivialKernel
from scenes import axes
from terramind_xr.engine import Source, Tiling, map_tiles
from terramind_xr.errors import OptionError, WeightsError
from terramind_xr.model import weights
from terramind_xr.model.files import WeightsFile
from terramind_xr.model.recipe import find

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "cluster.py"
FAILED = []


def raster(function, shape=(120, 100), chunks=20):
    data = da.zeros(shape, chunks=chunks, dtype="float32")
    data = data.map_blocks(function, meta=data._meta)
    return xr.DataArray(data, dims=("y", "x"), coords=axes(*shape), name="map").rio.write_crs(32632)


@pytest.fixture
def in_process():
    """A cluster within this process: quick, and tests see what its workers hold."""
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def nothing_loaded():
    weights._load_sampler.cache_clear()
    weights._load_tokenizer.cache_clear()


# Models on workers.


def loaded():
    """How often a backbone and a tokenizer were loaded in a process."""
    return weights._load_sampler.cache_info().misses, weights._load_tokenizer.cache_info().misses


def test_a_preloaded_model_is_the_one_that_blocks_take(nothing_loaded, in_process, tmp_path):
    assert loaded() == (0, 0)
    terramind_xr.preload(in_process, "demo", ["LULC"])
    assert loaded() == (1, 1)
    lulc = terramind_xr.synthetic.scene(100).terramind.generate("LULC", model="demo")
    lulc.terramind.to_zarr(tmp_path / "map.zarr", progress=False)
    assert loaded() == (1, 1)


def test_without_outputs_the_encoder_alone_is_loaded(nothing_loaded, in_process):
    terramind_xr.preload(in_process, "demo", inputs="S2L2A")
    assert loaded() == (1, 0)
    terramind_xr.preload(in_process, "demo", inputs=["S2L2A", "LULC"])
    assert loaded() == (1, 1)


def test_workers_that_join_load_it_too(nothing_loaded, in_process):
    terramind_xr.preload(in_process, "demo")
    in_process.cluster.scale(2)
    in_process.wait_for_workers(2)
    found = in_process.run(lambda dask_worker: dask_worker.plugins["terramind_xr-model"].loading.result(60))
    assert list(found.values()) == [None, None]


def test_a_fault_of_a_worker_comes_back_as_ours_and_is_forgotten(nothing_loaded, in_process, monkeypatch):
    def damaged(file):
        raise WeightsError(f"{file.filename} was replaced.")

    monkeypatch.setattr(WeightsFile, "verified_path", damaged)
    with pytest.raises(WeightsError, match=r"1 of 1 workers cannot load .* backbone\S+ was replaced"):
        terramind_xr.preload(in_process, "demo")
    assert not any("terramind" in name for name in in_process.run(lambda dask_worker: [*dask_worker.plugins]))

    def too_large(file):
        raise MemoryError("of the GPU")

    monkeypatch.setattr(WeightsFile, "verified_path", too_large)
    with pytest.raises(WeightsError, match="MemoryError: of the GPU"):
        terramind_xr.preload(in_process, "demo")
    monkeypatch.undo()
    terramind_xr.preload(in_process, "demo")


def test_what_cannot_be_preloaded_is_told(in_process):
    with pytest.raises(OptionError, match="expected a distributed.Client"):
        terramind_xr.preload(None, "demo")
    with pytest.raises(OptionError, match="no model 'terramind_v2'"):
        terramind_xr.preload(in_process, "terramind_v2")
    with pytest.raises(OptionError, match="S1GRX"):
        terramind_xr.preload(in_process, "demo", "S1GRX")
    with pytest.raises(OptionError, match="device='gpu'"):
        terramind_xr.preload(in_process, "demo", device="gpu")


def test_what_is_sent_to_workers_is_small():
    from distributed.protocol.pickle import dumps

    from terramind_xr.api.options import execution
    from terramind_xr.cluster import _Resident

    assert len(dumps(_Resident(find("demo", {"LULC"}), execution(None)))) < 10_000


# Where tasks run, and what is done when they fail.


class UnsharedStore(LocalStore):
    """A path that is another disk on a worker."""

    def __reduce__(self):
        return UnsharedStore, (Path(f"{self.root}-of-a-worker"),)


def test_a_store_that_workers_do_not_see_is_told(in_process, tmp_path):
    """Else what they write stays with them, and the map that opens here is all fill value."""
    with pytest.raises(OptionError, match="worker does not see the store .*Give a path or a URL"):
        raster(np.ones_like).terramind.to_zarr(UnsharedStore(tmp_path / "map.zarr"), progress=False)
    assert not list(tmp_path.glob("*-of-a-worker/map/c/*/*"))
    assert not (tmp_path / "map.zarr" / "zarr.json").exists()


def total(path):
    """A map made and summed up by a task."""
    return int(raster(np.ones_like).terramind.to_zarr(path, progress=False).sum())


def test_tasks_make_maps_of_their_own_on_the_threads_that_they_give_back(tmp_path):
    """As many tasks as there are threads: else each would hold the one that its blocks wait for."""
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        futures = client.map(total, [tmp_path / "0.zarr", tmp_path / "1.zarr"])
        assert [future.result(timeout=30) for future in futures] == [120 * 100] * 2


def test_a_run_waits_for_the_first_worker(tmp_path):
    """As jobs in a queue, or an adaptive cluster that is idle."""
    options = {"processes": False, "n_workers": 0, "threads_per_worker": 1, "dashboard_address": None}
    tiling = Tiling.of((400, 300), overlap=32, block=1)
    source = Source(da.ones((1, 400, 300), chunks=100))
    tiles = map_tiles([source], TrivialKernel(), tiling)[1]
    array = xr.DataArray(tiles, dims=("y", "x"), coords=axes(400, 300), name="map")
    with LocalCluster(**options) as cluster, Client(cluster):
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        stored = array.terramind.to_zarr(tmp_path / "map.zarr", progress=False)
        assert (stored.compute() == 10).all()


def name_of_worker(block):
    return np.full_like(block, get_worker().name)


def test_resources_say_which_workers_run_blocks(tmp_path):
    """Of two workers, the one that has a GPU; of dask's own options none is lost on the way."""
    options = {"nthreads": 1, "silence_logs": 40}
    workers = {
        0: {"cls": Nanny, "options": options},
        1: {"cls": Nanny, "options": options | {"resources": {"GPU": 1}}},
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": None}}
    with SpecCluster(scheduler=scheduler, workers=workers) as cluster, Client(cluster):
        result = raster(name_of_worker)
        everywhere = result.terramind.to_zarr(tmp_path / "0.zarr", progress=False).compute()
        assert set(np.unique(everywhere)) == {0, 1}
        with dask.annotate(resources={"GPU": 1}):
            stored = result.terramind.to_zarr(tmp_path / "1.zarr", progress=False).compute()
            path = result.terramind.to_raster(tmp_path / "1.tif", progress=False)
        assert (stored == 1).all()
        assert (terramind_xr.open_rasters({"DEM": str(path)})["DEM"] == 1).all()
        assert (result.compute(resources={"GPU": 1}) == 1).all()


def fail_once(block):
    FAILED.append(block.shape)
    if len(FAILED) == 1:
        raise RuntimeError("the network was down")
    return block


@pytest.mark.parametrize("retries", [0, 2])
def test_retries_are_those_of_dask(in_process, tmp_path, retries):
    FAILED.clear()
    with dask.annotate(retries=retries):
        if retries:
            raster(fail_once).terramind.to_zarr(tmp_path / "map.zarr", progress=False)
        else:
            with pytest.raises(RuntimeError, match="the network was down"):
                raster(fail_once).terramind.to_zarr(tmp_path / "map.zarr", progress=False)
    assert len(FAILED) >= (31 if retries else 1)


def number(block, block_info=None):
    """The number of a block, slowly: time for workers to come and go."""
    time.sleep(0.05)
    row, column = block_info[0]["chunk-location"]
    return block + row * 5 + column


def test_an_adaptive_cluster_loses_no_block(tmp_path):
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=1, maximum=2, interval="100ms", wait_count=1)
        for run in range(2):
            stored = raster(number).terramind.to_zarr(tmp_path / f"{run}.zarr", progress=False)
            found = stored.compute(scheduler="sync").values[::20, ::20]
            np.testing.assert_array_equal(found, np.arange(30).reshape(6, 5))
        assert len(client.scheduler_info()["workers"]) >= 1


@pytest.mark.slow
def test_a_worker_is_killed_and_the_map_is_right(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Killed the worker" in done.stdout
    assert "the same bytes as on threads" in done.stdout

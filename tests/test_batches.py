"""Batches that a device's memory does not hold are halved, down to one tile, and told."""

import gc
import warnings
import weakref
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from kernels import TrivialKernel
from terramind_xr import DeviceMemoryError, OptionError, TerramindWarning
from terramind_xr.engine.batches import in_batches
from terramind_xr.engine.graph import Source, map_tiles
from terramind_xr.engine.tiling import Tiling
from terramind_xr.model import chain, decoding, features, tokens
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution, session

TOLD = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free. Of the allocated memory 1 GiB"
)


@dataclass(frozen=True)
class CrampedKernel(TrivialKernel):
    """On a device that holds so many tiles."""

    holds: int = 1

    def run(self, pixels, valid, places):
        if len(places) > self.holds:
            raise DeviceMemoryError("no memory left")
        return super().run(pixels, valid, places)


def lazily(kernel):
    scene = np.random.default_rng(0).normal(size=(1, 600, 700)).astype(np.float32)
    tiling = Tiling.of(scene.shape[-2:], overlap=32, block=3)
    source = Source(da.from_array(scene, chunks=250), ())
    return map_tiles([source], kernel, tiling, extra=(), batch_size=8)


@settings(max_examples=examples(12))
@given(tiles=st.integers(0, 40), size=st.integers(1, 12), holds=st.integers(1, 12))
def test_each_tile_is_run_once_in_order_in_batches_that_fit(tiles, size, holds):
    tried = []

    def run(batch):
        tried.append(len(batch))
        if len(batch) > holds:
            raise DeviceMemoryError
        return sum(batch)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TerramindWarning)
        batches = list(in_batches(range(tiles), size, run))
    assert [tile for batch, _ in batches for tile in batch] == list(range(tiles))
    assert all(0 < len(batch) <= min(size, holds) and result == sum(batch) for batch, result in batches)
    assert sum(count > holds for count in tried) <= size.bit_length()


@pytest.mark.parametrize(("holds", "fitting"), [(1, 1), (3, 2), (7, 4)])
def test_a_scene_comes_out_the_same_and_what_fits_is_told(holds, fitting):
    expected = dask.compute(*lazily(TrivialKernel("tile mean")), scheduler="sync")
    with pytest.warns(TerramindWarning, match=f"a batch of 8 tiles.* batches of {fitting}. With batch_size"):
        found = dask.compute(*lazily(CrampedKernel("tile mean", holds=holds)), scheduler="threads")
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_a_tile_that_does_not_fit_is_an_error():
    with pytest.raises(DeviceMemoryError, match=r"^A single tile is too much for the device\. no memory"):
        dask.compute(*lazily(CrampedKernel(holds=0)), scheduler="sync")


@pytest.mark.filterwarnings("ignore::terramind_xr.TerramindWarning")
def test_what_a_failed_run_held_is_free_before_the_next_one():
    held = []

    def run(batch):
        import torch

        assert all(each() is None for each in held)
        with session(Execution("cpu")):
            tensor = torch.empty(1)
            held.append(weakref.ref(tensor))
            if len(batch) > 1:
                raise torch.cuda.OutOfMemoryError(TOLD)
        return len(batch)

    gc.disable()  # what only it could free would still be on the device
    try:
        assert len(list(in_batches(range(4), 4, run))) == 4
    finally:
        gc.enable()
    assert len(held) == 6


@pytest.mark.slow
def test_a_client_is_told_what_its_workers_met():
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=40)
    with cluster, Client(cluster), pytest.warns(TerramindWarning, match="in batches of 2"):
        dask.compute(*lazily(CrampedKernel(holds=2)))


ONE_STEP = {"model": "demo", "diffusion_steps": 1}
VERBS = {  # what takes the tiles of a batch in each, as which argument; and the call
    "generate": (chain, "encode", 1, lambda ds: ds.terramind.generate("LULC", model="demo")),
    "embed": (features, "encode", 1, lambda ds: ds.terramind.embed(model="demo")),
    "tokenize": (tokens, "tokenize", 2, lambda ds: ds.terramind.tokenize("S2L2A", model="demo")),
    "reconstruct": (decoding, "in_units", 1, lambda ds: ds.terramind.reconstruct("S2L2A", **ONE_STEP)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_goes_on_in_smaller_batches(verb, monkeypatch):
    import torch

    module, name, position, call = VERBS[verb]
    ds = terramind_xr.synthetic.scene((250, 450), seed=2, modalities=("S2L2A",))[["S2L2A"]].load()
    expected = call(ds)
    function, sizes = getattr(module, name), []

    def cramped(*given):
        tiles = given[position]
        sizes.append(tiles.grid[0] if isinstance(tiles, Batch) else len(tiles))
        if sizes[-1] > 3:
            raise torch.cuda.OutOfMemoryError(TOLD)
        return function(*given)

    monkeypatch.setattr(module, name, cramped)
    with pytest.warns(TerramindWarning, match="in batches of 3"):
        found = call(ds)
    assert sizes == [6, 3, 3]
    if found.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-4)
    else:
        assert (found == expected).mean() > 0.999


def test_the_error_says_what_was_needed_and_what_helps():
    import torch

    told = r"device='cpu' has no memory left \(CUDA out.*Tried.*GPU 0 has 1.00 GiB free\)\. .*smaller model"
    with pytest.raises(DeviceMemoryError, match=told), session(Execution("cpu")):
        raise torch.cuda.OutOfMemoryError(TOLD)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(OptionError, match="device='cuda:2': of CUDA GPUs, this process sees 2"),
        session(Execution("cuda:2")),
    ):
        pass


def test_a_device_of_torch_is_taken_as_its_name():
    import torch

    chip = terramind_xr.synthetic.scene(64, modalities=("S2L2A",))
    told, device = ({"model": "demo", "device": each} for each in ("cpu", torch.device("cpu")))
    assert chip.terramind.plan("LULC", **device) == chip.terramind.plan("LULC", **told)
    named = chip.chunk().terramind.generate("LULC", **told)
    assert chip.chunk().terramind.generate("LULC", **device).data.name == named.data.name
    with terramind_xr.set_options(device=torch.device("cpu")):
        assert chip.chunk().terramind.generate("LULC", model="demo").data.name == named.data.name


@pytest.mark.parametrize("device", ["mps", "xpu", "xpu:1"])
def test_another_device_that_is_not_there_is_refused(monkeypatch, device):
    import torch

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    with (
        pytest.raises(OptionError, match=f"device='{device}': this process sees no .*'cpu'"),
        session(Execution(device)),
    ):
        pass

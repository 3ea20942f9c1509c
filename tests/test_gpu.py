"""Laws 2, 3 and 9 on a CUDA GPU, its memory and half precision: `make test-gpu`, which prints figures."""

import dataclasses
import time
import warnings

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import terramind_xr
import upstream
from terramind_xr import OptionError, TerramindWarning
from terramind_xr.facts import modalities
from terramind_xr.model import chain, sampling, weights
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.quiet import full_precision
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import standardize
from terramind_xr.noise import Stream, splitmix

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
NAMES = ("LULC", "NDVI", "DEM")
PRECISIONS = ("fp32", "bf16", "fp16")


@pytest.fixture(scope="module", autouse=True)
def card():
    """Its name; torch is not imported before it is asked for."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    return torch.cuda.get_device_name()


@pytest.fixture(scope="module")
def scene(card):
    return terramind_xr.synthetic.scene((400, 530), seed=5, modalities=("S2L2A",))[["S2L2A"]].load()


@pytest.fixture(scope="module")
def batch(scene):
    """Eight tiles of the scene."""
    values = standardize(modalities["S2L2A"], scene.S2L2A.values.astype(np.float32))
    places = np.array([(y, x) for y in (0, 176) for x in (0, 96, 192, 304)])
    cut = np.stack([values[:, y : y + 224, x : x + 224] for y, x in places])
    return Batch({"S2L2A": cut}, {"S2L2A": np.ones((8, 14, 14), bool)}, places)


def supported(precision):
    """Execution on the GPU; bf16 is skipped where the card has no units for it."""
    execution = Execution(DEVICE, precision)
    try:
        with session(execution):
            return execution
    except OptionError as error:
        pytest.skip(str(error))


def tokens(execution, name, batch):
    with session(execution) as device:
        return chain.generate_tokens(find("demo", {name}), batch, (name,), Sampling(), device)[name].cpu()


# Law 2: chunks, schedulers and workers change no byte; device, precision and batch size little.


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.0, "seed": 3}, {"shifts": 2, "probabilities": True}]
)
def test_chunks_and_threads_change_no_byte(scene, options):
    with terramind_xr.set_options(block=1, device=DEVICE, model="demo"):
        whole = scene.terramind.generate("LULC", **options)
        lazy = [
            scene.chunk({"y": y, "x": x}).terramind.generate("LULC", **options)
            for y, x in ((90, 530), (400, 131))
        ]
    for workers, each in enumerate(lazy, 1):
        with dask.config.set(scheduler="threads", num_workers=workers):
            assert each.values.tobytes() == whole.values.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_diffusion_outputs_do_not_depend_on_chunks(scene, precision):
    supported(precision)
    with terramind_xr.set_options(block=1, device=DEVICE, model="demo", precision=precision):
        options = {"outputs": ["DEM", "S1GRD"], "diffusion_steps": 4}
        whole, again = (ds.terramind.generate(**options) for ds in (scene, scene.chunk({"y": 77, "x": 300})))
    for name in whole:
        assert whole[name].values.tobytes() == again[name].values.tobytes()


def test_workers_with_a_resource_give_the_same_bytes(scene):
    with terramind_xr.set_options(block=1, device=DEVICE, model="demo"):
        expected = scene.terramind.generate("LULC").values
        lazy = scene.chunk({"y": 100, "x": 530}).terramind.generate("LULC")
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with LocalCluster(**options, resources={"GPU": 2}) as cluster, Client(cluster) as client:
        terramind_xr.preload(client, "demo", "LULC", device=DEVICE)
        found = lazy.compute(resources={"GPU": 1}).values
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_processor_gives_nearly_the_same_tokens(batch, name):
    share = (tokens(Execution(DEVICE), name, batch) == tokens(Execution("cpu"), name, batch)).float().mean()
    print(f"\n{name}: {share:.2%} of tokens as on the processor")
    assert share >= 0.99


@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_keeps_nearly_all_tokens(batch, name, precision):
    half = supported(precision)
    share = (tokens(half, name, batch) == tokens(Execution(DEVICE), name, batch)).float().mean()
    print(f"\n{name}: {share:.2%} of tokens in {precision} as in fp32")
    assert share >= 0.95


def test_other_batch_sizes_change_little(scene):
    with terramind_xr.set_options(device=DEVICE, model="demo"):
        first, second = (scene.terramind.generate("LULC", batch_size=size) for size in (8, 3))
    assert (first == second).mean() >= 0.99


# Law 3: random numbers belong to places, on every device.


def test_random_bits_are_those_of_numpy():
    import torch

    rng = np.random.default_rng(0)
    seeds, numbers = (rng.integers(0, 2**64, 10_000, dtype=np.uint64) for _ in range(2))
    on_device = (torch.from_numpy(each.view(np.int64)).to(DEVICE) for each in (seeds, numbers))
    found = splitmix(*on_device).cpu().numpy().view(np.uint64)
    np.testing.assert_array_equal(found, splitmix(seeds, numbers))


def test_noise_is_that_of_numpy():
    import torch

    stream, y, x, items = Stream(-5, "DEM/diffusion"), np.arange(64)[:, None], 10**6, np.arange(15360)
    on_device = torch.from_numpy(items).to(DEVICE)
    np.testing.assert_array_equal(stream.uniform(y, x, on_device).cpu().numpy(), stream.uniform(y, x, items))
    gumbel = stream.gumbel(y, x, on_device).cpu().numpy()
    np.testing.assert_allclose(gumbel, stream.gumbel(y, x, items), rtol=0, atol=1e-6)
    size = {"height": 224, "width": 224, "bands": 6}
    normal = stream.normal_on(DEVICE, np.array([[32, 10**6]]), **size).cpu().numpy()[0]
    np.testing.assert_array_equal(normal, stream.normal(y=32, x=10**6, **size))


def test_draws_are_those_of_the_processor():
    import torch

    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 14, 14, 4375)).astype(np.float32) * 3)
    given = np.array([[0, 0], [32, 64]]), Stream(1, "LULC/tokens"), Sampling(temperature=1.0)
    drawn = [sampling.sample_tokens(logits.to(device), *given).cpu() for device in (DEVICE, "cpu")]
    assert (drawn[0] == drawn[1]).float().mean() >= 0.999


# Law 9: upstream's numbers.


def test_land_cover_equals_upstreams_forward(released):
    import torch

    raw = np.random.default_rng(0).integers(0, 4000, (2, 12, 224, 224)).astype(np.float32)
    theirs, found = upstream.build_upstream(released, ["S2L2A"], ["LULC"]).to(DEVICE), {}
    theirs.pretraining_mean, theirs.pretraining_std = (
        {key: value.to(DEVICE) for key, value in table.items()}
        for table in (theirs.pretraining_mean, theirs.pretraining_std)
    )
    own = theirs.sampler.generate
    theirs.sampler.generate = lambda *given, **options: found.update(own(*given, **options)) or found
    with torch.inference_mode(), full_precision(DEVICE):
        expected = theirs({"S2L2A": torch.from_numpy(raw).to(DEVICE)})["LULC"].softmax(dim=1).cpu().numpy()
    values = standardize(modalities["S2L2A"], raw.swapaxes(0, 1)).swapaxes(0, 1)
    given = Batch({"S2L2A": values}, {"S2L2A": np.ones((2, 14, 14), bool)}, np.zeros((2, 2), np.int64))
    recipe = find(released, ["LULC"])
    ours = chain.generate(recipe, given, ("LULC",), Sampling(), Execution(DEVICE))["LULC"]
    with session(Execution(DEVICE)) as device:
        drawn = chain.generate_tokens(recipe, given, ("LULC",), Sampling(), device)["LULC"].flatten(1)
    same = (drawn == found["tok_lulc@224"]["tensor"]).float().mean().item()
    largest = float(np.abs(ours - expected).max())
    print(f"\n{same:.2%} of tokens are upstream's, probabilities differ by {largest:.1e} at most")
    assert same >= 0.99
    assert np.median(np.abs(ours - expected)) < 1e-5


def test_the_demo_equals_upstreams_decoder(batch):
    import torch

    recipe = find("demo", ["LULC"])
    drawn = tokens(Execution(DEVICE), "LULC", batch).to(DEVICE)
    with session(Execution(DEVICE)) as device:
        theirs = weights.tokenizer(recipe, "LULC", device).decode_tokens(drawn).softmax(dim=1).cpu().numpy()
    ours = chain.generate(recipe, batch, ("LULC",), Sampling(), Execution(DEVICE))["LULC"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert torch.equal(drawn.cpu(), tokens(Execution(DEVICE), "LULC", batch))


# The device itself.


def test_without_a_device_the_gpu_is_taken():
    with session(Execution()) as device:
        assert device == "cuda"


def test_each_gpu_can_be_named(scene):
    import torch

    found = {}
    for number in range(torch.cuda.device_count()):
        # With weights of its own on it.
        with terramind_xr.set_options(device=f"cuda:{number}", model="demo"):
            result = scene.terramind.generate("LULC").values
        assert torch.cuda.memory_allocated(number) > 0
        assert found.setdefault(torch.cuda.get_device_name(number), result).tobytes() == result.tobytes()
    with (
        pytest.raises(OptionError, match="this process sees"),
        session(Execution(f"cuda:{torch.cuda.device_count()}")),
    ):
        pass


def test_a_batch_beyond_the_memory_is_halved_and_told(released, batch, card):
    """The memory of this process is bounded to what lies between the needs of one and of eight tiles."""
    import torch

    recipe = find(released, ["LULC"])

    def peak(tiles):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        chain.generate(recipe, first_of(batch, tiles), ("LULC",), Sampling(), Execution(DEVICE))
        return torch.cuda.max_memory_reserved()

    peak(1)  # loads the weights
    one, eight = peak(1), peak(8)
    print(f"\n{card}: {one / 1e6:.0f} MB for a tile, {eight / 1e6:.0f} MB for eight")
    ds = terramind_xr.synthetic.scene((400, 800), seed=1, modalities=("S2L2A",))[["S2L2A"]].load()
    call = {"outputs": "LULC", "model": released, "device": DEVICE, "batch_size": 8}
    expected = ds.terramind.generate(**call)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        (one + eight) / 2 / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        with pytest.warns(TerramindWarning, match="does not hold a batch of 8 tiles"):
            found = ds.terramind.generate(**call)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (found == expected).mean() >= 0.99


def first_of(batch, tiles):
    """A batch of only the first tiles."""
    return dataclasses.replace(
        batch,
        pixels={name: each[:tiles] for name, each in batch.pixels.items()},
        visible={name: each[:tiles] for name, each in batch.visible.items()},
        places=batch.places[:tiles],
    )


# Figures, without a bound.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tiles_a_second(released, batch, precision, card):
    execution, recipe = supported(precision), find(released, ["LULC"])
    best = np.inf
    for _ in range(6):  # the first ones load and warm up
        start = time.perf_counter()
        found = chain.generate(recipe, batch, ("LULC",), Sampling(), execution)["LULC"]
        best = min(best, time.perf_counter() - start)
    print(f"\n{card}, S2L2A to LULC, tiny, {precision}, batch of 8: {8 / best:.1f} tiles/s")
    assert np.isfinite(found).all()


def test_a_scene_in_tiles_a_second(scene, card):
    large = scene.isel(y=np.arange(1600) % 400, x=np.arange(1600) % 530).drop_vars(
        ["y", "x"], errors="ignore"
    )
    with warnings.catch_warnings(), terramind_xr.set_options(device=DEVICE, model="demo"):
        warnings.simplefilter("ignore", TerramindWarning)
        large.isel(y=slice(0, 300), x=slice(0, 300)).terramind.generate("LULC")
        start = time.perf_counter()
        result = large.terramind.generate("LULC")
        seconds = time.perf_counter() - start
    tiles = int(np.ceil((1600 - 32) / 192)) ** 2
    print(f"\n{card}, a scene of 1600 × 1600 pixels, demo: {tiles / seconds:.1f} tiles/s, {seconds:.1f} s")
    assert (result != 0).all()

"""Diffusion solvers: the terminal step without signal, the clamp, and the laws for each."""

import dask
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr import OptionError
from terramind_xr.model import decoding, solvers, weights
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling

SOLVERS = ("ddim", "dpm++", "unipc")
OTHERS = SOLVERS[1:]
PLACES = np.array([[0, 0], [16, 208], [400, 32]])
each_solver = pytest.mark.parametrize("solver", SOLVERS)


@pytest.fixture(scope="module")
def scene():
    """A scene of 2 by 2 blocks of one tile, in memory."""
    return terramind_xr.synthetic.scene((250, 290), seed=5, modalities=("S2L2A", "DEM")).load()


@pytest.fixture(scope="module")
def tokenizer():
    return weights.tokenizer(find("demo", ["NDVI"]), "NDVI", "cpu")


def generate(ds, **options):
    with terramind_xr.set_options(block=1):
        options = {"model": "demo", "inputs": ["S2L2A"], "diffusion_steps": 3} | options
        return ds.terramind.generate("NDVI", **options)


def trajectory(own, network, *, image=None, **options):
    """Every image from noise to result, where `network` estimates."""
    scheduler = solvers.scheduler(own.noise_scheduler, Sampling(**options))
    images = [torch.ones(1, 1, 4, 4) if image is None else image]
    for step in scheduler.timesteps:
        images.append(solvers.advance(scheduler, network(images[-1], step), step, images[-1]))
    return images


def smooth(image, step):
    """An estimate that changes along the way, with places beyond what the clamp lets pass."""
    return torch.linspace(-3, 3, image.numel()).reshape(image.shape) + 0.3 * torch.tanh(image)


@pytest.mark.parametrize("solver", OTHERS)
def test_the_first_step_is_ddims_and_one_step_is_the_estimate(tokenizer, solver):
    """At the first step there is no signal: the image is noise, and only the model's estimate counts."""
    options = {"diffusion_steps": 5, "clamp": None}
    first, ddims = (trajectory(tokenizer, smooth, solver=each, **options)[1] for each in (solver, "ddim"))
    torch.testing.assert_close(first, ddims, rtol=0, atol=1e-6)
    noise = torch.ones(1, 1, 4, 4)
    *_, only = trajectory(tokenizer, smooth, solver=solver, diffusion_steps=1, clamp=None)
    assert torch.equal(only, smooth(noise, 999))


@each_solver
def test_what_the_network_always_says_is_the_result(tokenizer, solver):
    constant = torch.linspace(-0.9, 0.9, 16).reshape(1, 1, 4, 4)
    *_, result = trajectory(tokenizer, lambda *_: constant, solver=solver, diffusion_steps=7)
    torch.testing.assert_close(result, constant, rtol=0, atol=1e-6)


@each_solver
@pytest.mark.parametrize("steps", [2, 3, 7, 61, 251, 1000])
def test_nothing_is_nan(tokenizer, solver, steps):
    assert all(
        image.isfinite().all()
        for image in trajectory(tokenizer, smooth, solver=solver, diffusion_steps=steps)
    )


@pytest.mark.parametrize("solver", OTHERS)
@given(steps=st.one_of(st.integers(1, 1000), st.sampled_from([61, 103, 251, 999, 1000])))
def test_as_many_steps_as_asked_go_down_from_the_last_of_the_training(tokenizer, solver, steps):
    made = solvers.scheduler(tokenizer.noise_scheduler, Sampling(solver=solver, diffusion_steps=steps))
    assert len(made.timesteps) == steps
    assert (made.timesteps[0], made.timesteps[-1] >= 0) == (999, True)
    assert (made.timesteps.diff() < 0).all()
    assert (made.sigmas.diff() < 0).all()
    assert made.sigmas[-1] == 0


@pytest.mark.parametrize("solver", OTHERS)
def test_the_second_order_is_nearer_the_true_end_of_the_path(tokenizer, solver):
    """Of pixels drawn from a normal distribution, best estimate and end of the path are known exactly."""
    spread, noise = 0.5, torch.linspace(-2, 2, 16).reshape(1, 1, 4, 4)

    def network(image, step):
        signal = tokenizer.noise_scheduler.alphas_cumprod[step]
        return signal.sqrt() * spread**2 * image / (signal * spread**2 + 1 - signal)

    ddim, other = (
        trajectory(tokenizer, network, image=noise, solver=each, diffusion_steps=20, clamp=None)[-1]
        for each in ("ddim", solver)
    )
    assert abs(other - spread * noise).mean() < 0.5 * abs(ddim - spread * noise).mean()


@each_solver
@pytest.mark.parametrize("steps", [1, 4])
def test_the_clamp_holds(tokenizer, solver, steps):
    clamped, free = (
        trajectory(tokenizer, smooth, solver=solver, diffusion_steps=steps, clamp=clamp)[-1]
        for clamp in ("upstream", None)
    )
    assert float(clamped.abs().max()) <= 1
    assert float(free.abs().max()) > 2


@pytest.mark.parametrize("solver", OTHERS)
def test_a_tokenizer_that_only_clips_is_clipped(tokenizer, solver):
    config = {**tokenizer.noise_scheduler.config, "thresholding": False, "clip_sample": True}
    own = type(tokenizer.noise_scheduler).from_config(config)
    made = solvers.scheduler(own, Sampling(solver=solver, diffusion_steps=2))
    first = made.timesteps[0]
    made.step(torch.full((1, 1, 4, 4), 5.0), first, torch.zeros(1, 1, 4, 4))
    assert float(made.model_outputs[-1].max()) == 1


@each_solver
def test_steps_are_taken_in_fp32_whatever_the_networks_precision(tokenizer, solver):
    def run(precision):
        with session(Execution("cpu", precision)):
            return trajectory(tokenizer, smooth, solver=solver, diffusion_steps=6)[-1]

    assert torch.equal(run("bf16"), run("fp32"))


@each_solver
def test_a_tile_does_not_depend_on_its_batch_and_no_random_state_is_used(solver):
    recipe = find("demo", ["NDVI"])
    tokens = np.random.default_rng(0).integers(0, 500, (3, 14, 14))
    sampling = Sampling(solver=solver, diffusion_steps=3)
    before = torch.get_rng_state()
    together = decoding.decode_tokens(recipe, "NDVI", tokens, PLACES, sampling, Execution("cpu"))
    for tile in range(3):
        one = slice(tile, tile + 1)
        alone = decoding.decode_tokens(recipe, "NDVI", tokens[one], PLACES[one], sampling, Execution("cpu"))
        np.testing.assert_allclose(alone, together[one], rtol=0, atol=1e-5)
    again = decoding.decode_tokens(
        recipe, "NDVI", tokens[::-1].copy(), PLACES[::-1].copy(), sampling, Execution("cpu")
    )
    np.testing.assert_array_equal(again[::-1], together)
    assert torch.equal(torch.get_rng_state(), before)


_references = {}


def reference(scene, solver):
    if solver not in _references:
        _references[solver] = generate(scene, solver=solver)
    return _references[solver]


@pytest.mark.parametrize("solver", OTHERS)
@settings(max_examples=examples(3))
@given(chunks=st.tuples(st.integers(20, 250), st.integers(20, 290)))
def test_chunking_changes_no_byte(scene, solver, chunks):
    lazy = generate(scene.chunk({"y": chunks[0], "x": chunks[1]}), solver=solver)
    assert dask.is_dask_collection(lazy)
    made = lazy.compute(scheduler="threads")
    assert made.values.tobytes() == reference(scene, solver).values.tobytes()


@pytest.mark.parametrize("solver", OTHERS)
def test_a_scene_that_runs_the_other_way_gives_the_same_pixels(scene, solver):
    other_way = {"y": slice(None, None, -1), "x": slice(None, None, -1)}
    turned = generate(scene.isel(other_way), solver=solver).isel(other_way)
    assert turned.values.tobytes() == reference(scene, solver).values.tobytes()


@pytest.mark.parametrize("solver", OTHERS)
def test_nodata_stays_nodata_and_the_seed_counts(scene, solver):
    holed = scene.copy(deep=True)
    holed.S2L2A[:, 40:90, 200:] = 0
    empty = np.zeros((250, 290), bool)
    empty[40:90, 200:] = True
    np.testing.assert_array_equal(np.isnan(generate(holed, solver=solver)), empty)
    assert (generate(scene, solver=solver, seed=1) != reference(scene, solver)).any()


def test_one_step_is_the_same_with_every_solver(scene):
    made = [generate(scene, solver=solver, diffusion_steps=1).values.tobytes() for solver in SOLVERS]
    assert len(set(made)) == 1
    assert len({reference(scene, solver).values.tobytes() for solver in SOLVERS}) == 3


@each_solver
def test_the_solver_is_part_of_the_task_and_of_the_attributes(scene, solver):
    lazy = generate(scene.chunk(), solver=solver)
    assert lazy.attrs["terramind_solver"] == solver
    others = {generate(scene.chunk(), solver=each).data.name for each in SOLVERS if each != solver}
    assert lazy.data.name not in others


@pytest.mark.parametrize("solver", OTHERS)
def test_reconstruct_is_both_in_one(scene, solver):
    options = {"model": "demo", "solver": solver, "diffusion_steps": 2}
    once = scene.terramind.reconstruct("DEM", **options)
    twice = scene.terramind.tokenize("DEM", model="demo").terramind.detokenize(**options)
    assert once.values.tobytes() == twice.values.tobytes()
    assert once.attrs["terramind_solver"] == solver


@pytest.mark.parametrize("solver", ["DDIM", "euler", None, 2, ["ddim"]])
def test_unknown_solvers_are_refused_at_the_call(scene, solver):
    for call in (generate, lambda ds, **options: ds.terramind.reconstruct("DEM", model="demo", **options)):
        with pytest.raises(OptionError, match=r"solver=.*'ddim', 'dpm\+\+' or 'unipc'"):
            call(scene.chunk(), solver=solver)

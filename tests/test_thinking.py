"""segment with models that think in modalities: upstream's numbers at temperature 0, draws by place above."""

from __future__ import annotations

import random

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import finetuned
import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import OptionError
from terramind_xr.facts import modalities
from terramind_xr.model.scaling import standardize

pytestmark = pytest.mark.filterwarnings("ignore:.*pre-training are taken:terramind_xr.TerramindWarning")
TIM = {**finetuned.DEMO, "backbone": "terramind_xr_demo_tim"}


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    from terramind_xr.model.registry import register

    register()
    with terramind_xr.set_options(block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((300, 250), seed=5, modalities=("S2L2A",)).compute()


@pytest.fixture(scope="module")
def tile(scene):
    return scene.isel(y=slice(224), x=slice(224))


def thinker(path, inputs=("S2L2A",), **arguments):
    """A task that thinks, and its checkpoint."""
    task = finetuned.task_of("segmentation", list(inputs), **{**TIM, **arguments})
    return task, finetuned.save(task, path / "tim.ckpt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return thinker(tmp_path_factory.mktemp("tim"), backbone_tim_modalities=["LULC", "NDVI"])[1]


def upstream(task, tile, inputs=("S2L2A",)):
    """Probabilities as terratorch's own forward gives them; it seeds what is global."""
    import torch

    pixels = {name: standardize(modalities[name], tile[name].values.astype("f"))[None] for name in inputs}
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        found = finetuned.forward(task, pixels).softmax(1)[0].numpy()
    random.setstate(state)
    return found


@pytest.mark.parametrize(
    "thinking",
    [
        {"backbone_tim_modalities": ["LULC"]},
        {"backbone_tim_modalities": ["LULC", "NDVI"]},
        {"backbone_tim_modalities": ["lulc", "tok_ndvi@224"], "backbone_tim_chained_generations": False},
        {"backbone_tim_modalities": ["DEM", "LULC"], "backbone_merge_method": "concat"},
        {"backbone_merge_method": "max"},
    ],
    ids=["single", "chained", "not chained", "concat", "by default"],
)
def test_at_temperature_0_a_tile_is_what_the_task_says(tile, tmp_path, thinking, one_thread):
    task, path = thinker(tmp_path, **thinking)
    found = tile.terramind.segment(path, probabilities=True)
    np.testing.assert_allclose(found, upstream(task, tile), atol=1e-5)
    names = thinking.get("backbone_tim_modalities", ["LULC"])
    assert len(found.attrs["terramind_tim_modalities"].split()) == len(names)


@pytest.mark.slow
def test_what_it_thinks_counts(tile, tmp_path, one_thread):
    """Else the parity above would say nothing: chained, later tokens follow from earlier ones."""
    found = []
    for number, thinking in enumerate((["LULC"], ["LULC", "NDVI"], ["NDVI", "LULC"])):
        folder = tmp_path / str(number)
        _, path = thinker(folder, backbone_tim_modalities=thinking)
        found.append(tile.terramind.segment(path, probabilities=True))
        assert found[-1].attrs["terramind_tim_modalities"] == " ".join(thinking)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert np.abs(found[1] - found[2]).max() > 1e-4


@pytest.mark.slow
def test_released_shapes_with_their_tokenizer(tile, tmp_path, one_thread):
    """The checkpoint holds a tokenizer of 0.7 GB, which thinking does not need."""
    arguments = {**finetuned.TERRAMIND, "backbone": "terramind_v1_tiny_tim", "backbone_tim_temps": 0.0}
    task, path = thinker(tmp_path, **arguments)
    assert any("tokenizer" in key for key in task.state_dict())
    found = tile.terramind.segment(path, probabilities=True)
    np.testing.assert_allclose(found, upstream(task, tile), atol=1e-5)
    assert found.attrs["terramind_tim_modalities"] == "LULC"


_whole = {}


@settings(max_examples=examples(4))
@given(
    chunks=st.tuples(st.integers(40, 300), st.integers(40, 250), st.integers(1, 12)),
    batch_size=st.integers(1, 4),
)
def test_draws_belong_to_the_place(scene, checkpoint, chunks, batch_size):
    """Other chunks and batches change no byte of the tokens, and so none of the classes."""
    options = {"temperature": 1.0, "seed": 3}
    if not _whole:
        _whole["eager"] = scene.terramind.segment(checkpoint, **options)
    lazy = scene.chunk({"y": chunks[0], "x": chunks[1], "band": chunks[2]})
    found = lazy.terramind.segment(checkpoint, batch_size=batch_size, **options).compute(scheduler="threads")
    assert found.values.tobytes() == _whole["eager"].values.tobytes()


def test_a_seed_is_a_draw(tile, checkpoint):
    def probabilities(**options):
        return tile.terramind.segment(checkpoint, probabilities=True, **options)

    greedy, drawn = probabilities(), probabilities(temperature=1.0)
    assert np.abs(greedy - drawn).max() > 1e-3
    assert np.abs(probabilities(temperature=1.0, seed=1) - drawn).max() > 1e-3
    np.testing.assert_array_equal(probabilities(temperature=1.0), drawn)
    np.testing.assert_array_equal(probabilities(temperature=0, seed=7), greedy)
    told = {key: drawn.attrs[f"terramind_{key}"] for key in ("seed", "temperature", "top_p", "top_k")}
    assert told == {"seed": 0, "temperature": 1.0, "top_p": 0.8, "top_k": 0}
    assert greedy.attrs["terramind_temperature"] == 0


def test_the_candidates_are_those_of_the_training(tile, tmp_path, checkpoint):
    _, path = thinker(tmp_path, backbone_tim_modalities=["LULC", "NDVI"], backbone_tim_top_k=1)
    found = tile.terramind.segment(path, temperature=1.0, probabilities=True)
    np.testing.assert_array_equal(found, tile.terramind.segment(checkpoint, probabilities=True))


def test_a_turned_scene_gives_the_turned_map(scene, checkpoint):
    turned = scene.isel(y=slice(None, None, -1))
    found = turned.terramind.segment(checkpoint, temperature=1.0)
    expected = scene.terramind.segment(checkpoint, temperature=1.0)
    np.testing.assert_array_equal(found.sel(y=scene.y), expected)


def test_nothing_global_is_read_or_changed(tile, checkpoint):
    import torch
    from terratorch.models.backbones.terramind.model import terramind_tim

    before = random.getstate(), torch.get_rng_state().tolist(), terramind_tim.TerraMindTiM.forward
    tile.terramind.segment(checkpoint, temperature=1.0)
    assert (random.getstate(), torch.get_rng_state().tolist(), terramind_tim.TerraMindTiM.forward) == before


def test_building_reads_no_pixel(scene, checkpoint):
    small = scene.isel(y=slice(60), x=slice(60))  # the unreadable chunks are tiny
    unread = small.assign(S2L2A=unreadable(small.S2L2A, "dask"))
    found = unread.terramind.segment(checkpoint, temperature=1.0)
    assert dask.is_dask_collection(found)
    with pytest.raises(AssertionError, match="was read"):
        found.compute(scheduler="sync")


def test_nodata_stays_nodata(scene, checkpoint):
    holed = scene.copy(deep=True)
    holed.S2L2A[:, 40:90, 200:] = 0
    found = holed.terramind.segment(checkpoint)
    np.testing.assert_array_equal(found == 255, (holed.S2L2A == 0).all("band"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone_bands": {"S2L2A": ["RED"]}}, "terratorch refuses: .* from all bands"),
        ({"backbone_tim_decoding_steps": 2}, "tim_decoding_steps is 2"),
        ({"backbone_tim_modalities": ["coords"]}, "thinks in 'coords', which is not available yet"),
    ],
)
def test_what_cannot_think_is_one_error(checkpoint, tile, tmp_path, arguments, message):
    import torch

    settings = {"model_args": {**TIM, "backbone_modalities": ["S2L2A"], "num_classes": 3, **arguments}}
    settings |= {"model_factory": "EncoderDecoderFactory", "task": "segmentation"}
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "hyper_parameters": settings}, tmp_path / "wrong.ckpt")
    with pytest.raises(OptionError, match=message):
        tile.terramind.segment(tmp_path / "wrong.ckpt")


@pytest.mark.parametrize("options", [{"temperature": -1}, {"seed": 0.5}])
def test_impossible_options_are_refused(checkpoint, tile, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        tile.terramind.segment(checkpoint, **options)


def test_a_model_that_does_not_think_has_no_temperature(tile, tmp_path):
    path = finetuned.save(finetuned.task_of("segmentation", ["S2L2A"], **finetuned.DEMO), tmp_path / "a.ckpt")
    with pytest.raises(OptionError, match=r"temperature=1.0 is for models that think"):
        tile.terramind.segment(path, temperature=1.0)
    assert "terramind_seed" not in tile.terramind.segment(path).attrs

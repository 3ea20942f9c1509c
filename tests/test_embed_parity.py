"""Law 9 for the encoder alone: features equal those of terratorch's own backbones, with the same weights."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest

from terramind_xr.facts import modalities
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.features import MERGES, encoder_size, features
from terramind_xr.model.quiet import full_precision
from terramind_xr.model.recipe import find

BATCH = 2
RUN = Execution("cpu")


@pytest.fixture(autouse=True)
def float32():
    """Upstream in float32, as ours: importing terratorch asks for less."""
    with full_precision("cpu"):
        yield


def given(names):
    """Batch of standardised random numbers, everything visible."""
    rng = np.random.default_rng(0)
    pixels = {
        name: rng.normal(size=(BATCH, len(modalities[name].bands), 224, 224)).astype(np.float32)
        for name in names
    }
    visible = {name: np.ones((BATCH, 14, 14), bool) for name in names}
    return Batch(pixels, visible, np.zeros((BATCH, 2), np.int64))


def upstream_vit(recipe, names, merge):
    """terratorch's backbone of the size of a recipe, with its weights."""
    import torch
    from terratorch.models.backbones.terramind.model import terramind_register
    from terratorch.models.backbones.terramind.model.terramind_vit import TerraMindViT
    from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm

    from terramind_xr.model import weights

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if recipe.name == "demo":
            width, depth = encoder_size("demo")
            model = TerraMindViT(
                modalities=list(names), merge_method=merge, dim=width, encoder_depth=depth, num_heads=4,
                norm_layer=partial(LayerNorm, eps=1e-6, bias=False),
            )  # fmt: skip
        else:
            model = getattr(terramind_register, recipe.name)(modalities=list(names), merge_method=merge)
    source = weights.sampler(recipe, (), (), "cpu").model.state_dict()
    state = {key: source.get(key, value) for key, value in model.state_dict().items()}
    lacking = [key for key in state if key not in source and not key.startswith("tokenizer")]
    assert set(lacking) <= {"missing_mod_token"}
    model.load_state_dict(state)
    assert isinstance(model, torch.nn.Module)
    return model.eval()


@pytest.mark.parametrize("names", [("S2L2A",), ("S2L2A", "S1GRD"), ("DEM", "S2L2A", "S1RTC")])
@pytest.mark.parametrize("merge", MERGES)
def test_features_of_the_demo_equal_upstreams(names, merge):
    check("demo", names, merge, layers=(0, 2, 4))


@pytest.mark.parametrize("merge", ["mean", "concat"])
def test_features_of_a_released_size_equal_upstreams(released, merge):
    check(released, ("S2L2A", "S1GRD"), merge, layers=(11, 3))


def check(model, names, merge, layers):
    import torch

    recipe, batch = find(model, []), given(names)
    theirs = upstream_vit(recipe, names, merge)
    with torch.inference_mode():
        expected = theirs({name: torch.from_numpy(values) for name, values in batch.pixels.items()})
    ours = features(recipe, batch, layers, merge, RUN)
    assert ours.dtype == np.float32
    for index, layer in enumerate(layers):
        raster = _rasters(expected[layer], names, merge)
        np.testing.assert_allclose(ours[:, index], raster, rtol=1e-5, atol=1e-5)
    assert len(expected) == encoder_size(recipe.name)[1]


def _rasters(found, names, merge):
    """Upstream's (tile, patch, feature) as (tile, modality, feature, row, column)."""
    if merge == "dict":
        parts = [found[name] for name in names]
    elif merge is None:
        parts = found.split(196, dim=1)
    else:
        parts = [found]
    return np.stack([each.numpy().swapaxes(1, 2).reshape(BATCH, -1, 14, 14) for each in parts], axis=1)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_sizes_are_those_of_upstreams_backbones(size, monkeypatch):
    from terratorch.models.backbones.terramind.model import terramind_register

    found = {}
    monkeypatch.setattr(terramind_register, "build_terrammind_vit", lambda **options: found.update(options))
    getattr(terramind_register, f"terramind_v1_{size}")()
    assert encoder_size(f"terramind_v1_{size}") == (found["dim"], found["encoder_depth"])
    assert found["num_register_tokens"] == 0


def test_half_precision_stays_near():
    recipe, batch = find("demo", []), given(["S2L2A"])
    full, half = (
        features(recipe, batch, (4,), "mean", Execution("cpu", precision)) for precision in ("fp32", "bf16")
    )
    assert half.dtype == np.float32
    assert 0 < float(np.abs(full - half).mean()) < 0.05


def test_a_tile_does_not_depend_on_its_batch():
    recipe, batch = find("demo", []), given(["S2L2A"])
    both = features(recipe, batch, (4,), "mean", RUN)
    alone = Batch(
        {"S2L2A": batch.pixels["S2L2A"][1:]}, {"S2L2A": batch.visible["S2L2A"][1:]}, batch.places[1:]
    )
    np.testing.assert_allclose(features(recipe, alone, (4,), "mean", RUN)[0], both[1], rtol=1e-5, atol=1e-5)

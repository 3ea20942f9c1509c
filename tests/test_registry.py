"""The demo's encoder as a backbone of terratorch, with and without thinking in modalities."""

import copy

import numpy as np
import pytest

import upstream
from terramind_xr import OptionError, WeightsError
from terramind_xr.facts import modalities
from terramind_xr.model import miniature, registry, weights
from terramind_xr.model.recipe import demo_config, find
from terramind_xr.synthetic import window

INPUTS = ("S2L1C", "S1GRD")


@pytest.fixture(scope="module")
def registered():
    """terratorch's registry with the demo in it."""
    registry.register()
    from terratorch.registry import BACKBONE_REGISTRY

    return BACKBONE_REGISTRY


@pytest.fixture(scope="module")
def tiles():
    """Standardised tiles of two places by modality, (place, band, 224, 224)."""
    places = [window(0, y, 0, 224, 224, INPUTS) for y in (0, 4000)]
    return {
        name: np.stack([_standardised(place[name], name) for place in places]).astype(np.float32)
        for name in INPUTS
    }


def _standardised(pixels, name):
    mean, std = (np.array(each)[:, None, None] for each in (modalities[name].mean, modalities[name].std))
    return (pixels - mean) / std


@pytest.fixture(scope="module")
def generator():
    """The demo as the verbs run it."""
    return weights.sampler(find("demo", ()), (), (), "cpu")


def _tensors(tiles):
    """A fresh dict: terratorch's models write what they generate into the one they get."""
    import torch

    return {name: torch.from_numpy(values.copy()) for name, values in tiles.items()}


def _features(model, inputs):
    import torch

    with torch.no_grad():
        return model.eval()(inputs)


def _encoded(generator, tensors):
    """Last features by the generator's own encoder, merged by the mean over modalities."""
    import torch

    model = generator.model
    with torch.no_grad():
        parts = [model.encoder_embeddings[key]({"tensor": value}) for key, value in tensors.items()]
        x = torch.cat([part["x"] + part["emb"] for part in parts], dim=1)
        x = model.forward_encoder(x, torch.zeros(len(x), 1, x.shape[1], dtype=torch.bool))
    return torch.stack(x.split([part["x"].shape[1] for part in parts], dim=1), dim=1).mean(dim=1)


def test_features_are_those_of_the_demos_encoder(registered, tiles, generator):
    import torch

    model = registered.build("terramind_xr_demo", pretrained=True, modalities=list(INPUTS))
    features = _features(model, _tensors(tiles))
    by_key = {modalities[name].raw_key: value for name, value in _tensors(tiles).items()}
    assert [layer.shape for layer in features] == [(2, 196, 128)] * 5
    torch.testing.assert_close(features[-1], _encoded(generator, by_key), rtol=1e-5, atol=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("names", "chained"), [(("LULC",), True), (("DEM", "LULC"), True), (("DEM", "LULC"), False)]
)
def test_what_it_thinks_in_is_what_upstreams_loop_generates(registered, tiles, generator, names, chained):
    import torch

    model = registered.build(
        "terramind_xr_demo_tim",
        pretrained=True,
        modalities=list(INPUTS),
        tim_modalities=list(names),
        tim_chained_generations=chained,
    )
    keys = [modalities[name].token_key for name in names]
    if chained:
        tokens = upstream.generated_tokens(generator, tiles, keys)
    else:
        tokens = {key: upstream.generated_tokens(generator, tiles, [key])[key] for key in keys}
    inputs = _tensors(tiles)
    features = _features(model, inputs)
    for name, key in zip(names, keys, strict=True):
        assert torch.equal(inputs[name], tokens[key]), "terratorch adds them to the dict it was given"
    by_key = {modalities[name].raw_key: value for name, value in _tensors(tiles).items()} | tokens
    torch.testing.assert_close(features[-1], _encoded(generator, by_key), rtol=1e-5, atol=1e-5)


def test_thinking_equals_upstreams_own_at_temperature_0(registered, tiles, monkeypatch):
    """Upstream's class as it builds itself, with the demo's small vocabulary in its table."""
    import torch
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
    from terratorch.models.backbones.terramind.model.terramind_tim import TerraMindTiM

    ours = registered.build("terramind_xr_demo_tim", pretrained=True, modalities=list(INPUTS))
    small = MODALITY_INFO["tok_lulc@224"] | {"vocab_size": 5**5}
    monkeypatch.setitem(MODALITY_INFO, "tok_lulc@224", small)
    theirs = TerraMindTiM(
        modalities=list(INPUTS), tim_modalities=["LULC"], tim_temps=0.0, decoder_depth=2, **registry._sizes()
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for mine, its in zip(_features(ours, _tensors(tiles)), _features(theirs, _tensors(tiles)), strict=True):
        assert torch.equal(mine, its)
    frozen = [{name for name, each in m.named_parameters() if not each.requires_grad} for m in (ours, theirs)]
    assert frozen[0] == frozen[1]


def test_a_second_call_and_another_batch_think_the_same(registered, tiles, one_thread):
    import torch

    model = registered.build("terramind_xr_demo_tim", pretrained=True, modalities=list(INPUTS))
    both = _features(model, _tensors(tiles))
    alone = _features(model, _tensors({name: values[1:] for name, values in tiles.items()}))
    assert torch.equal(_features(model, _tensors(tiles))[-1], both[-1])
    torch.testing.assert_close(alone[-1], both[-1][1:], rtol=1e-5, atol=1e-5)
    drawn = registered.build("terramind_xr_demo_tim", pretrained=True, modalities=list(INPUTS), tim_temps=1.0)
    assert not torch.equal(_features(drawn, _tensors(tiles))[-1], _features(drawn, _tensors(tiles))[-1])


def test_bands_are_picked_from_the_weights_by_any_name(registered, tiles):
    import torch
    from terratorch.datasets import HLSBands

    picked = registered.build(
        "terramind_xr_demo",
        pretrained=True,
        modalities=["S2L1C"],
        bands={"S2L1C": ["B12", HLSBands.RED, "blue"]},
    )
    whole = registered.build("terramind_xr_demo", pretrained=True, modalities=["S2L1C"])
    pixels = _tensors(tiles)["S2L1C"]
    at = [[band.name for band in modalities["S2L1C"].bands].index(name) for name in ("B12", "B04", "B02")]
    masked = torch.zeros_like(pixels)
    masked[:, at] = pixels[:, at]
    expected = _features(whole, {"S2L1C": masked})[-1]
    torch.testing.assert_close(
        _features(picked, {"S2L1C": pixels[:, at]})[-1], expected, rtol=1e-4, atol=1e-4
    )


def test_tokens_and_new_modalities_are_inputs_too(registered, tiles):
    import torch

    model = registered.build("terramind_xr_demo", pretrained=True, modalities=["S1GRD", "LULC", {"SLOPE": 2}])
    inputs = {
        "S1GRD": _tensors(tiles)["S1GRD"],
        "LULC": torch.full((2, 196), 3124),  # the last entry of the demo's codebook
        "SLOPE": torch.randn(2, 2, 224, 224),
    }
    assert _features(model, inputs)[-1].shape == (2, 196, 128)


def test_weights_are_copies_and_random_ones_differ(registered, generator):
    import torch

    before = copy.deepcopy(generator.model.state_dict())
    model = registered.build("terramind_xr_demo_tim", pretrained=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in generator.model.state_dict().items())
    random = registered.build("terramind_xr_demo", pretrained=False)
    key = "encoder.0.attn.qkv.weight"
    assert not torch.equal(random.state_dict()[key], before[key])


def test_an_absent_modality_of_concat_starts_at_zero(registered):
    model = registered.build(
        "terramind_xr_demo", pretrained=True, modalities=list(INPUTS), merge_method="concat"
    )
    assert not model.missing_mod_token.any()  # terratorch: whatever the memory held


def test_missing_weights_are_an_error_that_lists_them(registered):
    with pytest.raises(WeightsError, match=r"register_tokens"):
        registered.build("terramind_xr_demo", pretrained=True, num_register_tokens=2)
    assert registered.build("terramind_xr_demo", num_register_tokens=2).register_tokens.shape == (1, 2, 128)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("terramind_xr_demo", {"modalities": ["coords"]}, "does not know; expected some of .* S2L1C"),
        ("terramind_xr_demo", {"bands": {"S2L2A": ["BLEU"]}}, "'BLEU' in S2L2A"),
        ("terramind_xr_demo", {"bands": {"S1GRD": ["VV"]}}, "'S1GRD', expected one of .* S2L2A"),
        ("terramind_xr_demo_tim", {"bands": {"S2L2A": ["B02"]}}, "all bands that it was trained with"),
        ("terramind_xr_demo_tim", {"modalities": [{"SLOPE": 1}]}, "SLOPE, which is new"),
        ("terramind_xr_demo_tim", {"tim_modalities": ["coords"]}, "does not know"),
    ],
)
def test_what_the_demo_cannot_do_is_refused(registered, name, options, words):
    with pytest.raises(OptionError, match=words):
        registered.build(name, pretrained=True, **options)


def test_the_demos_sizes_are_asked_of_its_configuration():
    assert miniature.build_backbone(demo_config()).dim == registry._sizes()["dim"]

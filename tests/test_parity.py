"""Law 9: tokens, logits, features and pixels equal terratorch's own, with the same weights."""

import numpy as np
import pytest

import upstream
from terramind_xr.facts import modalities
from terramind_xr.model import chain, decoding, drawing, sampling, weights
from terramind_xr.model.batch import Batch, Target
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.quiet import full_precision, import_terratorch
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import standardize
from terramind_xr.model.tokens import encode

BATCH = 2
PLACES = np.zeros((BATCH, 2), np.int64)


@pytest.fixture(autouse=True)
def float32():
    """Upstream in float32, as ours: importing terratorch, which is done before, asks for less."""
    import_terratorch()
    with full_precision("cpu"):
        yield


@pytest.fixture(scope="module")
def raw():
    rng = np.random.default_rng(0)
    return {
        "S2L2A": rng.integers(0, 4000, (BATCH, 12, 224, 224)).astype(np.float32),
        "S1GRD": rng.normal(-12, 5, (BATCH, 2, 224, 224)).astype(np.float32),
    }


def standardized(name, values):
    return standardize(modalities[name], values.swapaxes(0, 1)).swapaxes(0, 1)


def everything(names):
    return {name: np.ones((BATCH, 14, 14), bool) for name in names}


def seen(pixels, tokens=None):
    """Batch of which every patch is visible."""
    tokens = tokens or {}
    return Batch(pixels, everything([*pixels, *tokens]), PLACES, tokens)


def generate(recipe, batch, outputs, **options):
    return chain.generate(recipe, batch, outputs, Sampling(**options), Execution())


def tensors(raw, names):
    import torch

    return {name: torch.from_numpy(raw[name].copy()) for name in names}


def test_the_table_of_modalities_is_upstreams():
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
    from terratorch.models.backbones.terramind.model.terramind_register import (
        PRETRAINED_BANDS,
        v1_pretraining_mean,
        v1_pretraining_std,
    )

    for modality in modalities.values():
        if modality.raw_key:
            assert [band.terratorch for band in modality.bands] == PRETRAINED_BANDS[modality.raw_key]
            assert modality.mean == tuple(v1_pretraining_mean[modality.raw_key])
            assert modality.std == tuple(v1_pretraining_std[modality.raw_key])
        if modality.codebook:
            assert modality.vocabulary_size == MODALITY_INFO[modality.token_key]["vocab_size"]
            assert modality.mean == tuple(map(float, v1_pretraining_mean[modality.token_key]))
            assert modality.std == tuple(map(float, v1_pretraining_std[modality.token_key]))


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_the_sizes_are_those_of_upstreams_generation_models(size, monkeypatch):
    from terratorch.models.backbones.terramind.model import terramind, terramind_register

    given = {}
    record = lambda **options: given.update(theirs=options)  # noqa: E731
    monkeypatch.setattr(terramind_register, "TerraMindGeneration", record)
    monkeypatch.setattr(terramind, "TerraMind", lambda **options: given.update(ours=options))
    getattr(terramind_register, f"terramind_v1_{size}_generate")()
    weights.build_backbone(f"terramind_v1_{size}", (), ())
    ours, theirs = given["ours"], given["theirs"]
    for options in (ours, theirs):
        layer = options.pop("norm_layer")
        options["norm_layer"] = (layer.func, layer.keywords)
    del ours["encoder_embeddings"], ours["decoder_embeddings"], ours["modality_info"]
    assert theirs["num_register_tokens"] == 0
    assert ours == {key: theirs[key] for key in ours}
    assert {"dim", "num_heads", "gated_mlp", "act_layer", "qkv_bias"} <= set(ours)


@pytest.mark.parametrize("names", [("S2L2A",), ("S2L2A", "S1GRD")])
def test_land_cover_equals_upstreams_generation(released, raw, names):
    import torch

    theirs = upstream.build_upstream(released, list(names), ["LULC"])
    with torch.inference_mode():
        expected = theirs(tensors(raw, names))["LULC"].softmax(dim=1).numpy()
    recipe = find(released, ["LULC"])
    pixels = {name: standardized(name, raw[name]) for name in names}
    ours = generate(recipe, seen(pixels), ("LULC",))["LULC"]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("names", [("S2L2A",), ("S2L2A", "S1GRD")])
def test_encoder_logits_and_tokens_equal_upstreams(released, raw, names):
    compare_with_upstream(released, "tiny", raw, names)


@pytest.mark.slow
def test_the_large_model_equals_upstreams(tmp_path, raw):
    """With gated blocks without biases and 24 blocks on both sides: a file of some gigabytes."""
    upstream.save_random_backbone(tmp_path, "large")
    upstream.save_random_tokenizer(tmp_path, "LULC")
    try:
        compare_with_upstream(tmp_path, "large", raw, ("S2L2A",))
    finally:
        weights._load_sampler.cache_clear()  # it is not to stay for the other tests


def compare_with_upstream(folder, size, raw, names):
    """Upstream's own step decodes tokens in random order: they are put back in raster order."""
    import torch

    theirs = upstream.build_upstream(folder, list(names), ["LULC"], size).sampler
    recipe = find(folder, ["LULC"])
    pixels = {name: standardized(name, raw[name]) for name in names}
    statistics = upstream_statistics()
    for name, values in pixels.items():
        mean, std = statistics[modalities[name].raw_key]
        np.testing.assert_array_equal(values, (raw[name] - mean) / std)

    def inputs():
        hidden = torch.zeros((BATCH, 196), dtype=torch.bool)
        return {
            modalities[name].raw_key: {"tensor": torch.from_numpy(values), "input_mask": hidden.clone()}
            for name, values in pixels.items()
        }

    target = {
        "tensor": torch.zeros((BATCH, 196), dtype=torch.int64),
        "input_mask": torch.ones((BATCH, 196), dtype=torch.bool),
        "target_mask": torch.zeros((BATCH, 196), dtype=torch.bool),
    }
    with torch.inference_mode():
        expected, order = theirs.forward_enc_dec_roar_batched(
            {**inputs(), "tok_lulc@224": target}, "tok_lulc@224", 196, seed=0
        )
        raster = torch.empty_like(expected).scatter_(1, order[..., None].expand_as(expected), expected)
        sampler = weights.sampler(recipe, tuple(inputs()), ("tok_lulc@224",), "cpu")
        known = encode(recipe, seen(pixels), "cpu")
        drawn = drawing.draw(recipe, known, Target.hidden("LULC", (BATCH, 14, 14)), PLACES, Sampling(), "cpu")
        features = [encoder_output(each, inputs()) for each in (theirs, sampler)]
    assert not torch.equal(order, order.sort(dim=1).values)
    torch.testing.assert_close(features[1], features[0], rtol=0, atol=0)
    torch.testing.assert_close(drawn.logits.flatten(1, 2), raster, rtol=1e-4, atol=1e-5)
    assert torch.equal(drawn.tokens.flatten(1), raster.argmax(dim=-1))


def encoder_output(sampler, inputs):
    model = sampler.model
    embedded = {key: model.encoder_embeddings[key](value) for key, value in inputs.items()}
    tokens, emb, mask, _ = sampler.forward_mask_encoder_generation(embedded)
    return model.forward_encoder(tokens + emb, mask)


def upstream_statistics():
    from terratorch.models.backbones.terramind.model import terramind_register as register

    return {
        key: tuple(
            np.asarray(table[key], np.float32)[:, None, None]
            for table in (register.v1_pretraining_mean, register.v1_pretraining_std)
        )
        for key in register.PRETRAINED_BANDS
    }


def test_a_second_output_is_conditioned_on_the_first_as_upstream(released, raw):
    import torch

    recipe = find(released, ["LULC"])
    pixels = {"S2L2A": standardized("S2L2A", raw["S2L2A"])}
    with session(Execution()) as device:
        ours = chain.generate_tokens(recipe, seen(pixels), ("LULC", "NDVI"), Sampling(), device)
        sampler = weights.sampler(recipe, (), (), device)
        expected = upstream.generated_tokens(sampler, pixels, ["tok_lulc@224", "tok_ndvi@224"])
        alone = upstream.generated_tokens(sampler, pixels, ["tok_ndvi@224"])
    for name, key in {"LULC": "tok_lulc@224", "NDVI": "tok_ndvi@224"}.items():
        assert torch.equal(ours[name].flatten(1), expected[key])
    assert not torch.equal(alone["tok_ndvi@224"], expected["tok_ndvi@224"])


def test_the_demo_equals_upstreams_loop_and_decoder():
    """Tokens by upstream's own loop and pixels by its own tokenizer, with the demo's weights."""
    import torch

    import terramind_xr

    recipe = find("demo", ["LULC", "NDVI"])
    window = terramind_xr.synthetic.scene(224, seed=3).S2L2A.values.astype(np.float32)
    pixels = {"S2L2A": standardized("S2L2A", np.stack([window, window[:, ::-1]]))}
    ours = generate(recipe, seen(pixels), ("LULC", "NDVI"), diffusion_steps=1)
    with session(Execution()) as device:
        sampler = weights.sampler(recipe, (), (), device)
        tokens = upstream.generated_tokens(sampler, pixels, ["tok_lulc@224", "tok_ndvi@224"])
        drawn = chain.generate_tokens(recipe, seen(pixels), ("LULC", "NDVI"), Sampling(), device)
        expected = weights.tokenizer(recipe, "LULC", device).decode_tokens(
            tokens["tok_lulc@224"].reshape(BATCH, 14, 14)
        )
    for name, key in {"LULC": "tok_lulc@224", "NDVI": "tok_ndvi@224"}.items():
        assert torch.equal(drawn[name].flatten(1), tokens[key])
    np.testing.assert_allclose(ours["LULC"], expected.softmax(dim=1).numpy(), atol=1e-6)
    assert ours["NDVI"].shape == (BATCH, 1, 224, 224)


SIX = ("S2L2A", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")
COMBINATIONS = {  # inputs in pixels, maps that are tokenized among them; and in tokens
    "optical": (("S2L2A",), ()),
    "radar and relief": (("S1GRD", "DEM"), ()),
    "maps": (("LULC", "NDVI"), ()),
    "tokens": (("S1GRD",), ("DEM", "NDVI")),
}


@pytest.fixture(scope="module")
def world():
    """Two tiles of each modality, in its own units: (tile, band, y, x)."""
    import terramind_xr

    ds = terramind_xr.synthetic.scene((224, 448), seed=4, modalities=SIX)
    values = {name: np.asarray(ds[name], np.float32).reshape(-1, 224, 448) for name in SIX}
    return {name: np.stack([each[..., :224], each[..., 224:]]) for name, each in values.items()}


def tokenizers_of(recipe):
    return {modalities[name].token_key: weights.tokenizer(recipe, name, "cpu") for name in SIX}


def given(recipe, world, combination):
    """Our batch of a combination, and what upstream's sampler takes for it, made by upstream's tokenizers."""
    import torch

    in_pixels, in_tokens = COMBINATIONS[combination]
    pixels = {name: standardized(name, world[name]) for name in in_pixels}
    tokenizers, theirs, tokens = tokenizers_of(recipe), {}, {}
    for name in (*in_pixels, *in_tokens):
        key, tensor = modalities[name].raw_key, torch.from_numpy(standardized(name, world[name]))
        if key is None or name in in_tokens:
            key = modalities[name].token_key
            tensor = tokenizers[key].encode(tensor)[-1].flatten(1)
        if name in in_tokens:
            tokens[name] = tensor.reshape(BATCH, 14, 14).numpy()
        theirs[key] = {"tensor": tensor, "input_mask": torch.zeros((BATCH, 196), dtype=torch.bool)}
    return seen(pixels, tokens), theirs


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_output_from_every_kind_of_input_equals_upstreams(world, combination):
    """Logits and greedy tokens, with the demo's weights."""
    import torch

    recipe = find("demo", SIX)
    sampler = weights.sampler(recipe, (), (), "cpu")
    for name in SIX:
        key = modalities[name].token_key
        with torch.inference_mode():
            batch, conditions = given(recipe, world, combination)
            if key in conditions:
                continue
            conditions[key] = {
                "tensor": torch.zeros((BATCH, 196), dtype=torch.int64),
                "input_mask": torch.ones((BATCH, 196), dtype=torch.bool),
                "target_mask": torch.zeros((BATCH, 196), dtype=torch.bool),
            }
            found, order = sampler.forward_enc_dec_roar_batched(conditions, key, 196, seed=0)
            expected = torch.empty_like(found).scatter_(1, order[..., None].expand_as(found), found)
            known = encode(recipe, batch, "cpu")
            hidden = Target.hidden(name, (BATCH, 14, 14))
            drawn = drawing.draw(recipe, known, hidden, PLACES, Sampling(), "cpu")
        torch.testing.assert_close(drawn.logits.flatten(1, 2), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(drawn.tokens.flatten(1), expected.argmax(dim=-1)), name
        assert len(expected.argmax(dim=-1).unique()) > 1


@pytest.mark.parametrize("outputs", [("DEM", "LULC", "S1RTC"), ("S1RTC", "S2L2A", "DEM")])
@pytest.mark.parametrize("combination", ["optical", "radar and relief", "maps"])
def test_outputs_follow_each_other_as_in_upstreams_generation(world, combination, outputs, monkeypatch):
    """Its whole forward, from raw numbers to pixels, around the demo's networks."""
    import torch

    names, _ = COMBINATIONS[combination]
    outputs = tuple(name for name in outputs if name not in names)
    recipe = find("demo", SIX)
    sampler = weights.sampler(recipe, (), (), "cpu")
    theirs = upstream.wrap_upstream(sampler, tokenizers_of(recipe), list(names), list(outputs))
    found, own = {}, sampler.generate
    monkeypatch.setattr(
        sampler, "generate", lambda *given, **options: found.update(own(*given, **options)) or found
    )
    with torch.inference_mode():
        pixels = theirs(tensors(world, names))
    batch, _ = given(recipe, world, combination)
    with session(Execution()) as device:
        ours = chain.generate_tokens(recipe, batch, outputs, Sampling(), device)
        backwards = chain.generate_tokens(recipe, batch, outputs[::-1], Sampling(), device)
    for name in outputs:
        assert torch.equal(ours[name].flatten(1), found[modalities[name].token_key]["tensor"]), name
    assert any((ours[name] != backwards[name]).any() for name in outputs)
    if "LULC" in outputs:
        shares = generate(recipe, batch, outputs, diffusion_steps=1)["LULC"]
        np.testing.assert_allclose(shares, pixels["LULC"].softmax(dim=1).numpy(), atol=1e-6)


def test_hidden_patches_change_nothing_in_the_others(released, raw):
    """What lies in patches that the encoder may not see has no influence, alone or in a batch."""
    recipe = find(released, ["LULC"])
    pixels = {"S2L2A": standardized("S2L2A", raw["S2L2A"])}
    visible = everything(["S2L2A"])
    visible["S2L2A"][0, :5] = False
    first = generate(recipe, Batch(pixels, visible, PLACES), ("LULC",))["LULC"]
    pixels["S2L2A"] = pixels["S2L2A"].copy()
    pixels["S2L2A"][0, :, :80] = 123.0
    second = generate(recipe, Batch(pixels, visible, PLACES), ("LULC",))["LULC"]
    np.testing.assert_array_equal(first, second)
    pixels, visible = ({name: values[:1] for name, values in each.items()} for each in (pixels, visible))
    alone = generate(recipe, Batch(pixels, visible, PLACES[:1]), ("LULC",))["LULC"]
    np.testing.assert_allclose(alone[0], first[0], atol=1e-5)


@pytest.mark.parametrize("clamp", ["upstream", None])
def test_a_diffusion_trajectory_equals_upstreams_with_the_same_noise(clamp, monkeypatch):
    """The demo's NDVI decoder, in upstream's own pipeline; upstream draws its noise by torch.randn."""
    import torch

    recipe = find("demo", ["NDVI"])
    tokenizer = weights.tokenizer(recipe, "NDVI", "cpu")
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, tokenizer.quantize.codebook_size, (BATCH, 14, 14)))
    noise = torch.from_numpy(rng.normal(size=(BATCH, 1, 224, 224)).astype(np.float32))
    with torch.inference_mode():
        latent = tokenizer.tokens_to_embedding(tokens)
        ours = decoding.denoise(tokenizer, latent, noise, Sampling(diffusion_steps=5, clamp=clamp))
        monkeypatch.setattr(torch, "randn", lambda *shape, **options: noise.clone())
        scheduler = type(tokenizer.noise_scheduler).from_config(
            tokenizer.noise_scheduler.config, thresholding=bool(clamp), clip_sample=False
        )
        theirs = tokenizer.decode_tokens(
            tokens, timesteps=5, image_size=224, scheduler=scheduler if clamp is None else None
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    if clamp:
        assert float(ours.abs().max()) <= 1.0


@pytest.mark.slow
def test_a_full_size_diffusion_decoder_equals_upstreams(tmp_path, monkeypatch):
    import torch

    upstream.save_random_backbone(tmp_path)
    upstream.save_random_tokenizer(tmp_path, "S1GRD")
    tokenizer = weights.tokenizer(find(tmp_path, ["S1GRD"]), "S1GRD", "cpu")
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, 15360, (1, 14, 14)))
    noise = torch.from_numpy(rng.normal(size=(1, 2, 224, 224)).astype(np.float32))
    with torch.inference_mode():
        latent = tokenizer.tokens_to_embedding(tokens)
        ours = decoding.denoise(tokenizer, latent, noise, Sampling(diffusion_steps=2))
        monkeypatch.setattr(torch, "randn", lambda *shape, **options: noise.clone())
        theirs = tokenizer.decode_tokens(tokens, timesteps=2, image_size=224)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_sampling_takes_the_same_nucleus_as_upstream():
    import torch
    from terratorch.models.backbones.terramind.model.generate import GenerationSampler

    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 400)).astype(np.float32) * 2)
    for top_p, top_k in [(0.8, 0), (0.0, 10), (0.5, 30), (0.0, 0), (1.0, 400)]:
        kept = GenerationSampler(torch.nn.Identity()).top_k_top_p_filtering(logits.clone(), top_k, top_p)
        ranked, order = sampling.nucleus(logits, top_p, top_k)
        ours = torch.full_like(logits, -float("inf")).scatter_(1, order, ranked)
        assert torch.equal(ours.isfinite(), kept.isfinite()), (top_p, top_k)


def test_overlapping_tiles_start_from_the_same_diffusion_noise(monkeypatch):
    monkeypatch.setattr(decoding, "denoise", lambda tokenizer, codes, image, *_: image)
    tokens, places = np.zeros((BATCH, 14, 14), np.int64), np.array([[16, 32], [64, 80]])
    recipe = find("demo", ["NDVI"])
    first, second = decoding.decode_tokens(recipe, "NDVI", tokens, places, Sampling(), Execution())
    np.testing.assert_array_equal(first[:, 48:, 48:], second[:, :-48, :-48])
    assert (first != second).any()


def test_draws_follow_the_temperature_and_agree_between_shifted_tiles():
    import torch

    from terramind_xr.noise import Stream

    rng = np.random.default_rng(0)
    # One field of logits over 17 patches, seen by two tiles that are 3 patches apart.
    field = torch.from_numpy(rng.normal(size=(14, 17, 50)).astype(np.float32))
    tiles = torch.stack([field[:, :14], field[:, 3:]])
    stream, places = Stream(0, "LULC/tokens"), np.array([[0, 0], [0, 48]])
    drawn = sampling.sample_tokens(tiles, places, stream, Sampling(temperature=1.0))
    first, second = drawn
    assert torch.equal(first[:, 3:], second[:, :11])
    greedy = tiles.argmax(dim=-1)
    assert (drawn != greedy).any()
    cold = sampling.sample_tokens(tiles, places, stream, Sampling(temperature=1e-4))
    assert torch.equal(cold, greedy)

"""The model's stages by themselves: encode, draw, decode; and that the chain is nothing but these."""

import dataclasses

import numpy as np
import pytest
import torch

import terramind_xr
import upstream
from terramind_xr.facts import modalities
from terramind_xr.model import chain, weights
from terramind_xr.model.batch import Batch, Target
from terramind_xr.model.decoding import decode_expected, decode_tokens, expected_codes, token_codes
from terramind_xr.model.drawing import draw
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import destandardize
from terramind_xr.model.tokens import encode, encode_tokens
from terramind_xr.noise import Stream

GRID = (3, 14, 14)
PLACES = np.array([[0, 0], [0, 192], [192, 64]])
NODATA = 65535
CPU = Execution(device="cpu")
TOKENIZED = sorted(name for name, modality in modalities.items() if modality.codebook)


def pixels(name, tiles=3):
    """Standardised noise, or classes in squares that are no patches."""
    rng = np.random.default_rng(0)
    if name == "LULC":
        squares = rng.integers(0, 10, (tiles, 1, 28, 28))
        return squares.repeat(8, axis=2).repeat(8, axis=3).astype(np.float32)
    return rng.normal(size=(tiles, len(modalities[name].bands), 224, 224)).astype(np.float32)


def random_tokens(name, recipe, grid=GRID):
    codes = weights.tokenizer(recipe, name, "cpu").quantize.codebook_size
    return np.random.default_rng(1).integers(0, codes, grid)


def batch(tokens=None, visible=None):
    names = ["S2L2A", *(tokens or {})]
    seen = {name: np.ones(GRID, bool) for name in names} | (visible or {})
    return Batch({"S2L2A": pixels("S2L2A")}, seen, PLACES, tokens or {})


def drawn(recipe, given, target, tiles=slice(None), **options):
    """Result of `draw` for some tiles, as arrays."""
    with session(CPU) as device:
        known = {
            key: each.of(np.arange(GRID[0])[tiles]) for key, each in encode(recipe, given, device).items()
        }
        target = Target(target.name, target.decided[tiles], target.tokens[tiles])
        result = draw(recipe, known, target, PLACES[tiles], Sampling(**options), device)
    return result.tokens.numpy(), result.logits.numpy()


@pytest.fixture(scope="module")
def partly():
    """Land cover of three tiles with more, fewer and no decided patches, and no data elsewhere."""
    rng = np.random.default_rng(2)
    decided = rng.random(GRID) < np.array([0.5, 0.1, 0.0])[:, None, None]
    return Target("LULC", decided, np.where(decided, rng.integers(0, 4375, GRID), NODATA))


@pytest.fixture
def tokenizer_of(released, tmp_path):
    """Folder with the files that a modality needs, and terratorch's own tokenizer with the same weights."""

    def find_both(name):
        from terratorch.models.backbones.terramind.tokenizer import tokenizer_register

        folder = released
        if name != "LULC":
            folder = tmp_path
            upstream.save_random_backbone(folder)
            upstream.save_random_tokenizer(folder, name)
        theirs = getattr(tokenizer_register, f"terramind_v1_tokenizer_{name.lower()}")(pretrained=False)
        path = folder / f"TerraMind_Tokenizer_{name}.pt"
        theirs.load_state_dict(torch.load(path, weights_only=True), strict=True)
        return folder, theirs.eval()

    yield find_both
    if list(tmp_path.iterdir()):
        weights._load_tokenizer.cache_clear()  # a gigabyte each


@pytest.mark.slow  # of full size; test_parity has land cover's pixels, test_tokens the tokens
@pytest.mark.parametrize("name", TOKENIZED)
def test_tokens_and_pixels_are_those_of_upstreams_tokenizer(tokenizer_of, name, monkeypatch):
    """Codes to the bit; pixels of a diffusion decoder from the same noise, as upstream draws it."""
    folder, theirs = tokenizer_of(name)
    recipe, values = find(folder, [name]), pixels(name, tiles=2)
    image = np.eye(10, dtype=np.float32)[values[:, 0].astype(int)].transpose(0, 3, 1, 2)
    given = torch.from_numpy(np.ascontiguousarray(image) if name == "LULC" else values)
    with session(CPU):
        expected = theirs.tokenize(given).numpy()
    tokens = encode_tokens(recipe, name, values, CPU)
    assert tokens.dtype == np.int64
    np.testing.assert_array_equal(tokens, expected)
    assert len(np.unique(tokens)) > 1  # random weights tell few patches apart
    places = PLACES[:2]
    stream = Stream(7, f"{name}/diffusion")
    options = {"height": 224, "width": 224, "bands": len(modalities[name].bands)}
    noise = torch.from_numpy(np.stack([stream.normal(y=int(y), x=int(x), **options) for y, x in places]))
    decoded = decode_tokens(recipe, name, tokens, places, Sampling(seed=7, diffusion_steps=1), CPU)
    if name == "LULC":
        with session(CPU):
            wanted = theirs.decode_tokens(torch.from_numpy(tokens)).softmax(dim=1).numpy()
        np.testing.assert_allclose(decoded, wanted, atol=1e-5)
        return
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: noise.clone())
    with session(CPU):
        wanted = theirs.decode_tokens(torch.from_numpy(tokens), timesteps=1, image_size=224).numpy()
    wanted = destandardize(modalities[name], wanted.swapaxes(0, 1)).swapaxes(0, 1)
    scale = np.asarray(modalities[name].std)[:, None, None]
    np.testing.assert_allclose(decoded / scale, wanted / scale, atol=1e-4)


@pytest.mark.parametrize("name", ["LULC", "NDVI"])
def test_the_demo_reads_back_what_it_encodes(name):
    recipe = find("demo", [name])
    window = terramind_xr.synthetic.scene(224, seed=3, modalities=(name,))[name].values
    values = window.reshape(1, 1, 224, 224).astype(np.float32)
    if name == "NDVI":
        values = (values - modalities[name].mean[0]) / np.float32(modalities[name].std[0])
    tokens = encode_tokens(recipe, name, values, CPU)
    decoded = decode_tokens(recipe, name, tokens, PLACES[:1], Sampling(clamp=None), CPU)[0]
    if name == "LULC":
        assert (decoded.argmax(axis=0) == window).mean() > 0.8
    else:
        assert np.abs(decoded[0] - window).mean() < 0.85 * np.abs(window - window.mean()).mean()


def test_tokens_come_in_fp32_whatever_the_precision():
    recipe, values = find("demo", ["NDVI"]), pixels("NDVI")
    full = encode_tokens(recipe, "NDVI", values, CPU)
    half = encode_tokens(recipe, "NDVI", values, Execution("cpu", "bf16"))
    np.testing.assert_array_equal(full, half)


@pytest.mark.parametrize("name", ["LULC", "NDVI"])
def test_what_leaves_one_token_without_doubt_is_decoded_as_that_token(name):
    recipe, sampling = find("demo", [name]), Sampling(diffusion_steps=1)
    tokens = random_tokens(name, recipe)
    size = weights.tokenizer(recipe, name, "cpu").quantize.codebook_size
    logits = np.where(np.arange(size) == tokens[..., None], 0, -np.inf).astype(np.float32)
    expected = decode_expected(recipe, name, logits, PLACES, sampling, CPU)
    np.testing.assert_array_equal(expected, decode_tokens(recipe, name, tokens, PLACES, sampling, CPU))


def test_the_expected_code_is_the_mean_over_the_tokens():
    recipe = find("demo", ["LULC"])
    rng = np.random.default_rng(3)
    size = weights.tokenizer(recipe, "LULC", "cpu").quantize.codebook_size
    logits = torch.from_numpy(rng.normal(size=(*GRID, size)).astype(np.float32)) * 3
    with session(CPU) as device:
        codes = expected_codes(recipe, "LULC", logits, device)
        alone = expected_codes(recipe, "LULC", logits[1:2], device)
        every = torch.arange(size).reshape(1, 1, -1)
        codebook = token_codes(recipe, "LULC", every, device)[0, :, 0].double()
    probabilities = logits.double().softmax(dim=-1)
    wanted = torch.einsum("tyxv,cv->tcyx", probabilities, codebook)
    torch.testing.assert_close(codes.double(), wanted, rtol=0, atol=1e-5)
    assert torch.equal(alone, codes[1:2])


@pytest.mark.slow
def test_tokens_as_input_condition_as_the_pixels_do(released):
    """And without the tokenizer: its file is not even named."""
    recipe, alone = find(released, ["LULC"]), find(released, [])
    land = pixels("LULC")
    tokens = encode_tokens(recipe, "LULC", land, CPU)
    visible = np.random.default_rng(4).random(GRID) < 0.7
    given = batch({"LULC": np.where(visible, tokens, NODATA)}, {"LULC": visible})
    as_pixels = dataclasses.replace(given, pixels={**given.pixels, "LULC": land}, tokens={})
    target = Target.hidden("NDVI", GRID)
    by_tokens, by_pixels = drawn(alone, given, target), drawn(recipe, as_pixels, target)
    np.testing.assert_array_equal(by_tokens[1], by_pixels[1])
    assert (by_tokens[0] != drawn(alone, batch(), target)[0]).any()


@pytest.mark.parametrize(("name", "output"), [("LULC", "NDVI"), ("NDVI", "LULC")])
def test_maps_as_inputs_are_tokenized(name, output):
    scene = terramind_xr.synthetic.scene(64, modalities=("S2L2A", name))
    result = scene.terramind.generate(output, inputs=["S2L2A", name], model="demo", diffusion_steps=1)
    assert np.isfinite(result.values).all()


@pytest.mark.parametrize("temperature", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_a_chain_is_its_outputs_one_by_one(released, temperature):
    recipe, sampling = find(released, []), Sampling(temperature=temperature)
    with session(CPU) as device:
        both = chain.generate_tokens(recipe, batch(), ("LULC", "NDVI"), sampling, device)
    first, _ = drawn(recipe, batch(), Target.hidden("LULC", GRID), temperature=temperature)
    second, _ = drawn(recipe, batch({"LULC": first}), Target.hidden("NDVI", GRID), temperature=temperature)
    np.testing.assert_array_equal(both["LULC"], first)
    np.testing.assert_array_equal(both["NDVI"], second)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decided_patches_are_kept_and_condition_the_others(released, partly, temperature):
    recipe = find(released, [])
    hidden = drawn(recipe, batch(), Target.hidden("LULC", GRID), temperature=temperature)
    tokens, logits = drawn(recipe, batch(), partly, temperature=temperature)
    np.testing.assert_array_equal(tokens[partly.decided], partly.tokens[partly.decided])
    np.testing.assert_array_equal(logits.argmax(axis=-1)[partly.decided], partly.tokens[partly.decided])
    assert np.isfinite(logits[~partly.decided]).all()
    assert (tokens != hidden[0])[0][~partly.decided[0]].any()
    np.testing.assert_array_equal(tokens[2], hidden[0][2])


def test_a_tile_with_decided_patches_depends_on_no_other(released, partly):
    recipe = find(released, [])
    tokens, logits = drawn(recipe, batch(), partly)
    for tile in range(len(tokens)):
        alone = drawn(recipe, batch(), partly, slice(tile, tile + 1))
        np.testing.assert_array_equal(alone[0][0], tokens[tile])
        np.testing.assert_allclose(alone[1][0], logits[tile], atol=1e-5)


def test_a_target_that_is_decided_already_comes_back_as_it_is(released):
    tokens = np.random.default_rng(5).integers(0, 4375, GRID)
    target = Target("LULC", np.ones(GRID, bool), tokens)
    np.testing.assert_array_equal(drawn(find(released, []), batch(), target, temperature=1.0)[0], tokens)


def test_the_step_from_decided_patches_is_upstreams(released):
    """Upstream's own MaskGIT step, which wants equally many hidden patches in each tile."""
    recipe = find(released, [])
    decided = np.zeros(GRID, bool)
    decided[:, 3:9] = True
    tokens = np.random.default_rng(6).integers(0, 4375, GRID)
    ours, _ = drawn(recipe, batch(), Target("LULC", decided, tokens))
    with session(CPU) as device:
        sampler = weights.sampler(recipe, (), (), device)
        mask = torch.from_numpy(decided).flatten(1)
        inputs = {
            "untok_sen2l2a@224": {
                "tensor": torch.from_numpy(pixels("S2L2A")),
                "input_mask": torch.zeros((3, 196), dtype=torch.bool),
            },
            "tok_lulc@224": {
                "tensor": torch.from_numpy(np.where(decided, tokens, 0)).flatten(1),
                "input_mask": ~mask,
                "target_mask": mask.clone(),
            },
        }
        step = sampler.maskgit_step_batched(inputs, "tok_lulc@224", 196 - 6 * 14, 0.0, 0, 0.0)
    np.testing.assert_array_equal(ours.reshape(3, -1), step["tok_lulc@224"]["tensor"])

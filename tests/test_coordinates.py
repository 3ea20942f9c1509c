"""Coordinates in both directions: the mechanics, with a vocabulary and weights of the tests' own."""

import os
import shutil

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr import InputError, OptionError, WeightsError
from terramind_xr.georeference import Georeference
from terramind_xr.grid import Grid
from terramind_xr.model import chain, coordinates, weights
from terramind_xr.model.batch import Batch
from terramind_xr.model.coordinates import Text
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.files import VOCABULARY
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.tokens import encode

SPECIAL = ("[PAD]", "[UNK]", "[SOS]", "[EOS]", "[S_0]", "[S_1]", "[S_2]")
LATITUDES = [f"lat={value:.2f}" for value in np.arange(-90, 90.1, 0.25)]
LONGITUDES = [f"lon={value:.2f}" for value in np.arange(-180, 180.1, 0.25)]


def save_vocabulary(path, words=(*LATITUDES, *LONGITUDES), special=SPECIAL):
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokens = {word: number for number, word in enumerate((*special, *words))}
    vocabulary = Tokenizer(WordLevel(tokens, unk_token="[UNK]"))
    vocabulary.pre_tokenizer = WhitespaceSplit()
    vocabulary.add_tokens([AddedToken(word, normalized=False, special=True) for word in special])
    vocabulary.save(str(path))
    return tokens


def say_places(state, tokens):
    """Weights that let a latitude follow on the start, then a longitude, then the end; which, by the tile."""
    import torch

    prefix = "decoder_embeddings.coords."
    given, said = (torch.zeros_like(state[prefix + key]) for key in ("token_emb.weight", "to_logits.weight"))
    groups = [[tokens["[S_1]"]], [*map(tokens.get, LATITUDES)], [*map(tokens.get, LONGITUDES)]]
    following = [*groups[1:], [tokens["[S_2]"]]]
    for axis, (group, after) in enumerate(zip(groups, following, strict=True)):
        given[group, axis] = 15
        said[after, axis] = 15
    said[groups[1] + groups[2], 3:] = torch.randn(len(LATITUDES) + len(LONGITUDES), said.shape[1] - 3)
    return {**state, prefix + "token_emb.weight": given, prefix + "to_logits.weight": said}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, released):
    """A model with embeddings of Coordinates, narrow but otherwise as released."""
    import torch

    folder = tmp_path_factory.mktemp("model")
    tokens = save_vocabulary(folder / VOCABULARY)
    os.link(released / "TerraMind_Tokenizer_LULC.pt", folder / "TerraMind_Tokenizer_LULC.pt")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setitem(weights.BACKBONES, "terramind_v1_tiny", (32, 1, 1, 2))
        torch.manual_seed(1)
        encoded = ("untok_sen2l2a@224", "tok_lulc@224", "coords")
        state = weights.build_backbone("terramind_v1_tiny", encoded, ("tok_lulc@224", "coords")).state_dict()
        torch.save(say_places(state, tokens), folder / "TerraMind_v1_tiny.pt")
        yield folder


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene(500, modalities=["S2L2A"]).load()


def lazy(ds, size):
    return ds.chunk({"y": size, "x": size})


def batch(pixels, lonlat=None):
    places = np.array([(0, 192 * number) for number in range(len(pixels))])
    return Batch({"S2L2A": pixels}, {"S2L2A": np.ones((len(pixels), 14, 14), bool)}, places, lonlat=lonlat)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(6, 12, 224, 224)) + 3 * rng.normal(size=(6, 12, 1, 1))).astype(np.float32)


def upstream_tokenizer(folder):
    from terratorch.models.backbones.terramind.tokenizer.text.text_tokenizer import CoordsTokenizer

    return CoordsTokenizer(str(folder / VOCABULARY))


@settings(max_examples=examples(300))
@given(st.floats(-180, 180, width=32), st.floats(-90, 90, width=32))
def test_the_text_is_upstreams(lon, lat):
    import torch
    from terratorch.models.backbones.terramind.tokenizer.text import text_tokenizer

    class Keep:
        def encode_batch(self, texts, **_):
            self.texts = texts
            return []

    theirs = text_tokenizer.CoordsTokenizer(None)
    theirs.text_tokenizer = Keep()
    theirs.encode(torch.tensor([[lon, lat]], dtype=torch.float32))
    assert coordinates.written(np.array([[lon, lat]])) == theirs.text_tokenizer.texts


def test_tokens_and_the_way_back_are_upstreams(folder):
    import torch

    lonlat = np.random.default_rng(0).uniform((-180, -90), (180, 90), (50, 2)).astype(np.float32)
    lonlat = lonlat[(abs(lonlat) > 0.2).all(axis=1)]
    recipe, theirs = find(folder, {"Coordinates"}), upstream_tokenizer(folder)
    ours = coordinates.encode_coordinates(recipe, lonlat.astype(np.float64), "cpu")
    expected = theirs.encode(torch.from_numpy(lonlat))["tensor"]
    assert torch.equal(ours.tensor, expected)
    assert not ours.hidden.any()
    expected[0] = expected[0].roll(1)  # nonsense
    text = Text(expected.numpy(), np.zeros(expected.shape, bool))
    with pytest.warns(UserWarning, match="NaN"):
        places = np.array(theirs.decode_text({"coords": {"tensor": expected}}), np.float32)
    np.testing.assert_array_equal(coordinates.decode_coordinates(recipe, text), places)
    np.testing.assert_array_equal(places[1:], (lonlat[1:] * 4).round() / 4)


def test_zeros_with_a_sign_are_those_without_where_the_vocabulary_has_no_other(folder):
    assert "lat=-0.00" not in LATITUDES
    recipe = find(folder, {"Coordinates"})
    signed, plain = coordinates.encode_coordinates(recipe, np.array([[-0.1, -0.1], [0.0, 0.0]]), "cpu").tensor
    assert signed.tolist() == plain.tolist()


def upstream_places(folder, pixels, lonlat=None):
    """Coordinates, as upstream's own loop draws them as the last output, at temperature 0."""
    import torch
    from terratorch.models.backbones.terramind.model import generate
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

    state = torch.load(folder / "TerraMind_v1_tiny.pt", weights_only=True)
    backbone = weights.build_backbone("terramind_v1_tiny", ("untok_sen2l2a@224",), ("coords",)).eval()
    backbone.load_state_dict({key: state[key] for key in backbone.state_dict()}, assign=True)
    inputs = {
        "untok_sen2l2a@224": {
            "tensor": torch.from_numpy(pixels.copy()),
            "input_mask": torch.zeros(len(pixels), 196, dtype=torch.bool),
        },
        "coords": generate.init_empty_target_modality(MODALITY_INFO, "coords", len(pixels), 4, "cpu"),
    }
    schedule = generate.build_chained_generation_schedules(
        ["untok_sen2l2a@224"], ["coords"], [4], ["autoregressive"], [None], [None], [0.0], ["constant"],
        [1.0], ["constant"],
    )  # fmt: skip
    theirs = upstream_tokenizer(folder)
    found = generate.GenerationSampler(backbone).generate(inputs, schedule, tokenizer={"coords": theirs})
    return found["coords"]["tensor"].numpy(), np.array(theirs.decode_text(found), np.float32)


def test_a_text_is_drawn_as_upstream_draws_it(folder, pixels):
    recipe, run = find(folder, {"Coordinates"}), batch(pixels)
    with session(Execution()) as device:
        known = encode(recipe, run, device)
        drawn = coordinates.draw_coordinates(recipe, known, run.places, Sampling(), device)
    tokens, places = upstream_places(folder, pixels)
    np.testing.assert_array_equal(drawn.tokens, tokens)
    found = chain.generate(recipe, run, ("Coordinates",), Sampling(), Execution())["Coordinates"]
    np.testing.assert_array_equal(found[:, :, 0, 0], places)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) > 1


def test_a_tile_is_drawn_alone_as_in_a_batch(folder, pixels):
    recipe, sampling = find(folder, {"Coordinates"}), Sampling(seed=3, temperature=3.0, top_p=0.0)
    together = chain.generate(recipe, batch(pixels), ("Coordinates",), sampling, Execution())["Coordinates"]
    run = batch(pixels)
    for tile in range(len(pixels)):
        alone = Batch({"S2L2A": pixels[[tile]]}, {"S2L2A": run.visible["S2L2A"][[tile]]}, run.places[[tile]])
        one = chain.generate(recipe, alone, ("Coordinates",), sampling, Execution())["Coordinates"]
        np.testing.assert_array_equal(one[0], together[tile])
    other = Sampling(seed=4, temperature=3.0, top_p=0.0)
    drawn = chain.generate(recipe, batch(pixels), ("Coordinates",), other, Execution())["Coordinates"]
    assert not np.array_equal(drawn, together, equal_nan=True)


def test_each_step_draws_from_a_stream_of_its_own_at_the_place_of_the_tile(folder, pixels, monkeypatch):
    seen = []

    def remember(logits, places, stream, sampling):
        seen.append((stream.seed, stream.name, stream.step, places.tolist()))
        return sample(logits, places, stream, sampling)

    sample = coordinates.sample_tokens
    monkeypatch.setattr(coordinates, "sample_tokens", remember)
    run = batch(pixels[:2])
    chain.generate(find(folder, {"Coordinates"}), run, ("Coordinates",), Sampling(seed=9), Execution())
    assert seen == [(9, "Coordinates/tokens", step, run.places.tolist()) for step in range(3)]


def test_what_follows_other_sentinels_is_left_out():
    assert coordinates._kept([5, 70, 80, 6, 90], {4, 5, 6}) == [70, 80]
    assert coordinates._kept([5, 70, 4, 80, 5, 90], {4, 5, 6}) == [70, 90]
    assert Text.of([[], [7, 8]]).hidden.tolist() == [[True, True], [False, False]]


def test_places_as_an_input_condition_as_upstreams_do(folder, pixels):
    """Logits of LULC with and without, against terratorch's own sampler and tokenizer."""
    import torch
    from terratorch.models.backbones.terramind.model import generate
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

    from terramind_xr.model import drawing
    from terramind_xr.model.batch import Target

    recipe, lonlat = find(folder, {"Coordinates"}), np.array([[11.6, 48.1]])
    run = batch(pixels[:1], lonlat)
    hidden = Target.hidden("LULC", run.grid)
    with session(Execution()) as device:
        known = encode(recipe, run, device)
        sampler = weights.sampler(recipe, tuple(known), ("tok_lulc@224",), device)
        ours = drawing.token_logits(sampler, known, hidden, device).numpy()
        known.pop("coords")
        without = drawing.token_logits(sampler, known, hidden, device).numpy()
    value = upstream_tokenizer(folder).encode(torch.from_numpy(lonlat))
    inputs = {
        "untok_sen2l2a@224": {
            "tensor": torch.from_numpy(pixels[:1].copy()),
            "input_mask": torch.zeros(1, 196, dtype=torch.bool),
        },
        "coords": generate.init_full_input_modality(value, MODALITY_INFO, "coords", "cpu"),
        "tok_lulc@224": generate.init_empty_target_modality(MODALITY_INFO, "tok_lulc@224", 1, 196, "cpu"),
    }
    with torch.inference_mode():
        theirs, _ = sampler.forward_enc_dec_maskgit_batched(inputs, "tok_lulc@224")
    np.testing.assert_allclose(ours.reshape(1, 196, -1), theirs.numpy(), atol=1e-5)
    assert abs(ours - without).max() > 1e-3


FLIPS = [(), ("y",), ("x",), ("y", "x")]


@pytest.mark.parametrize("flips", FLIPS)
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3857"])
def test_centres_are_those_of_rasterio(flips, crs):
    from rasterio.warp import transform

    axes = {"y": 5.2e6 - 10 * np.arange(500.0), "x": 6e5 + 10 * np.arange(300.0)}
    data = xr.DataArray(np.zeros((500, 300)), dims=("y", "x"), coords=axes).rio.write_crs(crs)
    flipped = data.isel(dict.fromkeys(flips, slice(None, None, -1)))
    places = np.array([(0, 0), (192, 80), (288, 80)])
    found = Georeference.of(Grid.of(flipped)).lonlat(places, 224)
    # The last row of tiles reaches beyond the scene by 12 pixels: the middle of what is within.
    rows, cols = [112, 192 + 112, (288 + 500) / 2], [112, 190, 190]
    x, y = 6e5 - 5 + 10 * np.array(cols), 5.2e6 + 5 - 10 * np.array(rows)
    np.testing.assert_allclose(found, np.stack(transform(crs, "EPSG:4326", x, y), axis=-1), atol=1e-7)
    # Pixels of the scene itself, as rioxarray brings them over.
    middle = data.isel(y=slice(111, 113), x=slice(111, 113)).rio.reproject("EPSG:4326")
    assert abs(found[0] - (middle.x.mean(), middle.y.mean())).max() < 1e-4


def test_tiles_are_told_their_own_centre_however_the_scene_is_chunked(folder, scene, monkeypatch):
    """What conditions, place by place, and the map that follows."""
    told = {}

    def remember(recipe, run, *rest):
        told.update({tuple(place): pair for place, pair in zip(run.places.tolist(), run.lonlat, strict=True)})
        return generate(recipe, run, *rest)

    generate = chain.generate
    monkeypatch.setattr(chain, "generate", remember)
    options = {"inputs": ["S2L2A", "Coordinates"], "model": folder}
    part = scene.isel(y=slice(0, 235), x=slice(0, 224))
    maps = [lazy(part, size).terramind.generate("LULC", **options).compute() for size in (100, 235)]
    np.testing.assert_array_equal(*maps)
    assert sorted(told) == [(0, 0), (16, 0)]
    expected = Georeference.of(Grid.of(part.S2L2A)).lonlat(np.array(sorted(told)), 224)
    np.testing.assert_array_equal([told[place] for place in sorted(told)], expected)
    assert maps[0].attrs["terramind_inputs"] == "S2L2A Coordinates"
    assert "never tried" in maps[0].attrs["terramind_unverified"]
    assert len(maps[0].attrs["terramind_Coordinates_sha256"]) == 64
    told.clear()
    backwards = part.isel(y=slice(None, None, -1))
    flipped = lazy(backwards, 235).terramind.generate("LULC", **options).compute()
    np.testing.assert_array_equal(flipped.isel(y=slice(None, None, -1)), maps[0])


def test_coordinates_come_one_pair_a_tile(folder, scene):
    whole = lazy(scene, 500).terramind.generate("Coordinates", model=folder)
    assert whole.name == "Coordinates"
    assert whole.dtype == "float32"
    assert isinstance(whole.data, da.Array)
    assert whole.dims == ("coordinate", "tile_y", "tile_x")
    assert whole.shape == (2, 3, 3)
    assert whole.coordinate.values.tolist() == ["longitude", "latitude"]
    np.testing.assert_allclose(whole.tile_y[0], scene.y[111:113].mean())
    assert "never tried" in whole.attrs["terramind_unverified"]
    assert whole.attrs["units"] == "degree"
    assert whole.rio.crs == scene.rio.crs
    values = whole.compute()
    assert np.isfinite(values).all()
    assert (abs(values[1]) <= 90).all()
    eager = scene.terramind.generate("Coordinates", model=folder)
    np.testing.assert_array_equal(eager, values)
    backwards = scene.isel(y=slice(None, None, -1)).terramind.generate("Coordinates", model=folder)
    xr.testing.assert_equal(backwards.isel(tile_y=slice(None, None, -1)), eager)


@settings(max_examples=examples(4))
@given(st.integers(60, 500))
def test_no_chunk_changes_a_pair(folder, scene, size):
    options = {"model": folder, "temperature": 2.0, "seed": 5}
    expected = scene.terramind.generate("Coordinates", **options)
    np.testing.assert_array_equal(lazy(scene, size).terramind.generate("Coordinates", **options), expected)


def test_blocks_of_other_sizes_and_stores_hold_the_same(folder, scene, tmp_path):
    expected = scene.terramind.generate("Coordinates", model=folder)
    with terramind_xr.set_options(block=1):
        small = lazy(scene, 200).terramind.generate("Coordinates", model=folder)
    assert small.chunks[1:] == ((1, 2), (1, 2))
    stored = small.terramind.to_zarr(tmp_path / "places.zarr", progress=False)
    np.testing.assert_array_equal(stored, expected)


def test_tiles_without_data_have_no_place(folder, scene):
    holed = scene.astype(np.float32).where(scene.y < scene.y[230])
    found = holed.terramind.generate("Coordinates", model=folder)
    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[:, 1:]).all()


def test_dates_are_carried_through(folder, scene):
    times = xr.concat([scene, scene // 2], dim="time").isel(y=slice(0, 224), x=slice(0, 224))
    found = times.terramind.generate("Coordinates", model=folder)
    assert found.dims == ("time", "coordinate", "tile_y", "tile_x")
    one = times.isel(time=1).terramind.generate("Coordinates", model=folder)
    np.testing.assert_array_equal(found[1], one)


def test_outputs_stand_in_any_order_and_condition_what_follows(folder, scene):
    chip = scene.isel(y=slice(0, 224), x=slice(0, 224))
    alone = chip.terramind.generate("LULC", model=folder, probabilities=True)
    after = chip.terramind.generate(["Coordinates", "LULC"], model=folder, probabilities=True)
    before = chip.terramind.generate(["LULC", "Coordinates"], model=folder, probabilities=True)
    assert list(after) == ["Coordinates", "LULC"]
    assert list(before) == ["LULC", "Coordinates"]
    assert after.LULC.sizes["y"] == 224
    assert after.Coordinates.sizes["tile_y"] == 1
    np.testing.assert_array_equal(before.LULC, alone)
    assert not np.array_equal(after.LULC, alone)


def test_a_scene_without_crs_or_places_is_told_how_to_give_them(folder, scene):
    options = {"inputs": ["S2L2A", "Coordinates"], "model": folder}
    bare = scene.drop_vars(["spatial_ref", "y", "x"])
    with pytest.warns(terramind_xr.TerramindWarning), pytest.raises(InputError, match="write_crs") as raised:
        bare.terramind.generate("LULC", **options)
    assert len(raised.value.faults) == 2
    assert "assign_coords" in str(raised.value)


def test_what_cannot_be_is_refused_at_the_call(folder, scene, tmp_path):
    refused = {
        "only input": {"outputs": "LULC", "inputs": ["Coordinates"]},
        "follow from the CRS": {"outputs": "LULC", "inputs": {"S2L2A": None, "Coordinates": "place"}},
        "as input and as output": {"outputs": "Coordinates", "inputs": ["S2L2A", "Coordinates"]},
        "shifts=2": {"outputs": "Coordinates", "shifts": 2},
    }
    for message, options in refused.items():
        with pytest.raises(OptionError, match=message):
            scene.terramind.generate(**options, model=folder)
    for options in ({"outputs": "Coordinates"}, {"outputs": "LULC", "inputs": ["S2L2A", "Coordinates"]}):
        with pytest.raises(OptionError, match="Coordinates cannot be .* demo"):
            scene.terramind.generate(**options, model="demo")


def test_the_plan_counts_them(folder, scene):
    planned = scene.terramind.plan(["Coordinates", "LULC"], model=folder)
    assert planned.outputs == ("Coordinates", "LULC")
    assert planned.bytes_written == 500 * 500
    assert scene.terramind.plan("LULC", inputs=["S2L2A", "Coordinates"], model=folder).inputs == (
        "S2L2A",
        "Coordinates",
    )


def test_the_vocabulary_of_the_hub_is_its_own_repository(folder, tmp_path, monkeypatch):
    import huggingface_hub

    from test_models import lay_out

    shutil.copy(folder / VOCABULARY, tmp_path / "config.json")
    lay_out(tmp_path / "hub", tmp_path / "config.json", "TerraMind-1.0-Tokenizer-Coords")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = dict(find("terramind_v1_tiny", {"Coordinates"}, backbone=False).tokenizers)["Coordinates"]
    assert (found.source, found.filename) == (
        "hub:ibm-esa-geospatial/TerraMind-1.0-Tokenizer-Coords",
        "config.json",
    )
    assert found.digest == find(folder, {"Coordinates"}).digests["Coordinates"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("{}"), "no vocabulary"),
        (lambda path: save_vocabulary(path, special=SPECIAL[::-1]), "special tokens"),
        (lambda path: save_vocabulary(path, words=LATITUDES), "another vocabulary"),
    ],
)
def test_another_vocabulary_is_refused(folder, tmp_path, write, message):
    os.link(folder / "TerraMind_v1_tiny.pt", tmp_path / "TerraMind_v1_tiny.pt")
    with pytest.raises(WeightsError, match=r"TerraMind_Tokenizer_Coords.json.*config.json of"):
        find(tmp_path, {"Coordinates"})
    write(tmp_path / VOCABULARY)
    with pytest.raises(WeightsError, match=message):
        coordinates.encode_coordinates(find(tmp_path, {"Coordinates"}), np.array([[11.6, 48.1]]), "cpu")

"""`export`: a folder that is a model, faster decoders with nearly the same pixels, and the laws with them."""

import importlib.util
import shutil
import sys

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr import InputError, OptionError, WeightsError
from terramind_xr.facts import modalities
from terramind_xr.model import compiled, weights
from terramind_xr.model.decoding import decode_tokens
from terramind_xr.model.execution import Execution
from terramind_xr.model.exported import MANIFEST, Manifest
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling

CPU = Execution("cpu")
PLACES = np.array([[0, 0], [192, 64], [8, 200]])


def skip_without_openvino():
    """Skip where the extra is not installed; it is not imported, which the tests look at."""
    if not all(map(importlib.util.find_spec, ("openvino", "nncf"))):
        pytest.skip("the extra openvino is not installed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The demo with decoders of land cover and of heights in int8."""
    skip_without_openvino()
    path = tmp_path_factory.mktemp("exported") / "new" / "demo-int8"
    return terramind_xr.export("demo", ["LULC", "DEM"], path)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The demo with its backbone and the decoder of land cover in int8."""
    skip_without_openvino()
    path = tmp_path_factory.mktemp("converted") / "demo-int8"
    return terramind_xr.export("demo", "LULC", path, backbone=True)


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((250, 290), seed=5, modalities=("S2L2A",))[["S2L2A"]].load()


def generate(ds, model, outputs=("LULC", "DEM"), **options):
    with terramind_xr.set_options(block=1):
        return ds.terramind.generate(list(outputs), model=model, diffusion_steps=2, **options).compute()


def three_tiles(name):
    """Tokens of a tile, and shifted."""
    tile = terramind_xr.synthetic.scene(224, seed=8, modalities=(name,))
    tokens = tile.terramind.tokenize(name, model="demo").values.astype(np.int64)
    return np.stack([tokens, np.roll(tokens, 1, axis=0), np.roll(tokens, 3, axis=1)])


def test_what_calibrates_are_standardised_tiles():
    """Needs no OpenVINO: numbers of a tile are those that `generate` gives to the model."""
    from terramind_xr.api.export import _batches
    from terramind_xr.model.scaling import standardize

    (batch,) = _batches("demo", "LULC", terramind_xr.synthetic.scene(224, modalities=("S2L2A",)))
    pixels = terramind_xr.synthetic.scene(224, modalities=("S2L2A",))["S2L2A"].values.astype(np.float32)
    np.testing.assert_array_equal(batch.pixels["S2L2A"][0], standardize(modalities["S2L2A"], pixels))


def test_it_agrees_with_the_model_that_it_was_made_of(exported, scene):
    plain, fast = generate(scene, "demo"), generate(scene, exported)
    assert 0.98 <= float((plain["LULC"] == fast["LULC"]).mean()) < 1  # the converted decoder did run
    error = (fast["DEM"] - plain["DEM"]).values
    assert 0 < np.abs(error).mean() < 0.2 * plain["DEM"].values.std()
    assert fast["LULC"].attrs["terramind_decoder_precision"] == "int8"
    digests = {key for key in fast["LULC"].attrs if key.endswith("_sha256")}
    assert {"terramind_LULC_decoder_sha256", "terramind_DEM_decoder_graph_sha256"} <= digests
    assert "terramind_decoder_precision" not in plain["LULC"].attrs


@settings(max_examples=examples(6))
@given(chunks=st.tuples(st.integers(60, 290), st.integers(60, 290)), batch=st.integers(1, 5))
def test_chunks_and_batches_change_no_byte(exported, scene, chunks, batch):
    lazy = scene.chunk({"y": chunks[0], "x": chunks[1]})
    with dask.config.set(scheduler="synchronous"):
        first = generate(scene, exported, ("LULC",), batch_size=8)["LULC"].values
        other = generate(lazy, exported, ("LULC",), batch_size=batch)["LULC"].values
    assert first.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", ["LULC", "DEM"])
def test_a_tile_is_the_same_alone_and_in_another_place_of_a_batch(exported, name):
    recipe, sampling, tokens = find(exported, {name}), Sampling(diffusion_steps=2), three_tiles(name)
    together = decode_tokens(recipe, name, tokens, PLACES, sampling, CPU)
    for order in ([2, 0, 1], [1], [0, 2]):
        again = decode_tokens(recipe, name, tokens[order], PLACES[order], sampling, CPU)
        assert again.tobytes() == together[order].tobytes()


def test_a_call_that_fails_leaves_nothing_to_the_next_one(exported):
    import torch

    from terramind_xr.model import compiled
    from terramind_xr.model.decoding import token_codes
    from terramind_xr.model.execution import session

    recipe, tokens = find(exported, {"LULC"}), torch.from_numpy(three_tiles("LULC"))
    with session(CPU) as device:
        network = compiled.network(dict(recipe.decoders)["LULC"])
        codes = token_codes(recipe, "LULC", tokens, device)
        expected = network(codes)
        for _ in range(torch.get_num_threads() + 1):  # more often than tiles run side by side
            with pytest.raises(RuntimeError, match="shape"):
                network(codes[..., 1:])
        assert torch.equal(network(codes.flip(0)), expected.flip(0))


def test_a_converted_backbone_gives_nearly_the_same_tokens(converted, exported, scene):
    maps = {each: generate(scene, each, ("LULC",))["LULC"] for each in ("demo", exported, converted)}
    assert 0.95 < float((maps["demo"] == maps[converted]).mean()) < 1
    assert (maps[exported] != maps[converted]).any()  # the converted backbone did run
    attrs = maps[converted].attrs
    assert attrs["terramind_backbone_precision"] == attrs["terramind_decoder_precision"] == "int8"
    assert {"terramind_backbone_encoder_sha256", "terramind_backbone_decoder_graph_sha256"} <= set(attrs)
    assert "terramind_backbone_precision" not in maps[exported].attrs


def test_chunks_change_no_byte_of_a_converted_backbone_batches_and_threads_little(
    converted, scene, one_thread
):
    import torch

    first = generate(scene, converted, ("LULC",), batch_size=8)["LULC"].values
    lazy = scene.chunk({"y": 130, "x": 97})
    again = generate(lazy, converted, ("LULC",), batch_size=8)["LULC"].values
    assert again.tobytes() == first.tobytes()
    torch.set_num_threads(2)  # embeddings and logits are torch's, whose last bits batches and threads change
    for batch in (1, 3):
        again = generate(lazy, converted, ("LULC",), batch_size=batch)["LULC"].values
        assert (again == first).mean() > 0.98


def test_a_backbone_in_full_precision_gives_the_same_map_from_any_inputs(tmp_path):
    skip_without_openvino()
    path = terramind_xr.export("demo", "LULC", tmp_path / "fp32", precision="fp32", backbone=True)
    scene = terramind_xr.synthetic.scene(224, seed=5, modalities=("S2L2A", "S1GRD", "DEM")).load()
    half = xr.zeros_like(scene.S2L2A.isel(band_S2L2A=0, drop=True), bool)
    half[:100] = True
    for inputs in (["S2L2A"], ["DEM", "S1GRD", "S2L2A"]):
        maps = [
            scene.terramind.generate("LULC", model=each, inputs=inputs, probabilities=True, mask=half)
            for each in ("demo", path)
        ]
        np.testing.assert_allclose(*maps, atol=1e-4)


def test_embed_runs_the_backbone_as_it_was(converted, scene):
    plain, ours = (scene.terramind.embed(model=each) for each in ("demo", converted))
    np.testing.assert_allclose(ours, plain, atol=1e-5)
    assert "terramind_backbone_precision" not in ours.attrs


def test_no_decoder_is_loaded_beside_a_converted_one(exported):
    for name in ("LULC", "DEM"):
        tokenizer = weights.tokenizer(find(exported, {name}), name, "cpu")
        whole = weights.tokenizer(find("demo", {name}), name, "cpu")
        assert tokenizer.decoder is None
        assert not [key for key in tokenizer.state_dict() if key.startswith(("decoder", "post_quant"))]
        assert sum(each.numel() for each in tokenizer.parameters()) < 0.7 * sum(
            each.numel() for each in whole.parameters()
        )


def test_threads_change_no_byte_of_land_cover(exported, one_thread):
    import torch

    recipe, tokens = find(exported, {"LULC"}), three_tiles("LULC")
    one = decode_tokens(recipe, "LULC", tokens, PLACES, Sampling(), CPU)
    torch.set_num_threads(2)
    two = decode_tokens(recipe, "LULC", tokens, PLACES, Sampling(), CPU)
    assert one.tobytes() == two.tobytes()


def test_the_folder_is_complete_and_may_be_moved(exported, scene, tmp_path):
    moved = shutil.copytree(exported, tmp_path / "elsewhere")
    here, there = (generate(scene, path, ("LULC",))["LULC"] for path in (exported, str(moved)))
    xr.testing.assert_identical(here, there)


def test_detokenize_uses_the_converted_decoder(exported):
    tile = terramind_xr.synthetic.scene(224, seed=8, modalities=("DEM",)).load()
    tokens = tile.terramind.tokenize("DEM", model=exported)
    assert tokens.equals(tile.terramind.tokenize("DEM", model="demo"))
    plain, fast = (tokens.terramind.detokenize(model=each, diffusion_steps=1) for each in ("demo", exported))
    assert float(np.abs(plain - fast).mean()) > 0


def test_an_export_in_full_precision_gives_the_same_map(scene, tmp_path):
    skip_without_openvino()
    path = terramind_xr.export("demo", "LULC", tmp_path / "fp32", precision="fp32")
    probabilities = [
        scene.terramind.generate("LULC", model=each, probabilities=True).values for each in ("demo", path)
    ]
    np.testing.assert_allclose(*probabilities, atol=1e-5)
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.calibration == {}
    assert set(manifest.versions) >= {"openvino", "torch"}


def test_calibration_on_a_scene_of_ones_own(exported, scene, tmp_path):
    path = terramind_xr.export("demo", "LULC", tmp_path / "own", calibration=scene)
    ours, theirs = Manifest.read(path), Manifest.read(exported)
    assert ours is not None
    assert theirs is not None
    assert (ours.calibration["data"], ours.calibration["LULC"]["tiles"]) == ("given", 4)
    assert ours.calibration["LULC"]["tokens_sha256"] != theirs.calibration["LULC"]["tokens_sha256"]
    small = scene.isel(y=slice(0, 100))
    with pytest.raises(InputError, match="calibration: found 100 × 290 pixels, expected at least 224"):
        terramind_xr.export("demo", "LULC", tmp_path / "small", calibration=small)
    assert not list(tmp_path.glob("*small*")) + list(tmp_path.glob(".*small*"))


def test_what_is_not_in_the_folder_is_named(exported, scene):
    with pytest.raises(WeightsError, match="decoders of LULC, DEM.*outputs of export"):
        generate(scene, exported, ("NDVI",))
    with pytest.raises(OptionError, match="is an export already"):
        terramind_xr.export(exported, "LULC", exported.parent / "again")


@pytest.mark.parametrize("filename", ["decoder_LULC.bin", "decoder_LULC.xml", "tokenizer_lulc.safetensors"])
def test_a_file_that_was_changed_is_refused(exported, scene, tmp_path, filename):
    folder = shutil.copytree(exported, tmp_path / "changed")
    lazy = scene.chunk().terramind.generate("LULC", model=folder)
    with open(folder / filename, "ab") as file:
        file.write(b" ")
    with pytest.raises(WeightsError, match=f"{filename} is not what was exported"):
        find(folder, {"LULC"})
    compiled._load.cache_clear()
    weights._load_tokenizer.cache_clear()
    with pytest.raises(WeightsError, match=f"{filename} holds other weights than the call recorded"):
        lazy.compute(scheduler="synchronous")


def test_a_worker_without_openvino_says_what_to_install(exported, scene, monkeypatch):
    lazy = scene.chunk().terramind.generate("LULC", model=exported)
    compiled._load.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionError, match=r"openvino.*every worker: pip install terramind_xr\[openvino\]"):
        lazy.compute(scheduler="synchronous")


def test_openvino_is_imported_without_its_telemetry(exported):
    assert "openvino_telemetry" not in sys.modules


def test_without_the_extra_export_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionError, match=r"pip install terramind_xr\[openvino\]"):
        terramind_xr.export("demo", "LULC", tmp_path / "never")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": "Coordinates"}, "Coordinates has no tokenizer"),
        ({"outputs": "RGB"}, "RGB has no tokenizer"),
        ({"outputs": []}, "expected a modality"),
        ({"outputs": "LULC", "precision": "int4"}, "expected one of int8, bf16, fp32"),
        (
            {"outputs": "LULC", "precision": "bf16", "calibration": "scene"},
            "calibration is for precision='int8'",
        ),
        ({"outputs": "LULC", "model": "demi"}, "no model 'demi'"),
        ({"outputs": "LULC", "backbone": "int8"}, "it is True or False"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, arguments, message):
    with pytest.raises(OptionError, match=message):
        terramind_xr.export(**{"model": "demo", "path": tmp_path / "never"} | arguments)


def test_nothing_is_written_over(tmp_path):
    with pytest.raises(OptionError, match="exists already"):
        terramind_xr.export("demo", "LULC", tmp_path)


def test_a_manifest_of_another_version_or_of_something_else(tmp_path):
    (tmp_path / MANIFEST).write_text('{"name": "a web page"}')
    assert Manifest.read(tmp_path) is None
    (tmp_path / MANIFEST).write_text('{"terramind_xr_export": 7}')
    with pytest.raises(WeightsError, match="of format 7, expected 1"):
        find(tmp_path, {"LULC"})
    (tmp_path / MANIFEST).write_text('{"terramind_xr_export": 1, "model')
    with pytest.raises(WeightsError, match="cannot be read"):
        find(tmp_path, {"LULC"})

"""Weights: the hub's cache, folders, strictness, and one load in each process. No network."""

import contextlib
import hashlib
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import terramind_xr
from terramind_xr import OptionError, TerramindWarning, WeightsError
from terramind_xr.model import files, weights
from terramind_xr.model.files import WeightsFile
from terramind_xr.model.recipe import describe, find, package_folder, readable, writable

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay_out(cache: Path, file: Path, repository: str) -> Path:
    """A file in a cache as huggingface_hub lays it out: blob, snapshot and reference."""
    folder = cache / f"models--ibm-esa-geospatial--{repository}"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True)
    shutil.copy(file, folder / "blobs" / digest)
    (folder / "refs/main").write_text(COMMIT)
    link = folder / "snapshots" / COMMIT / file.name
    link.symlink_to(f"../../blobs/{digest}")
    return link


@pytest.fixture(scope="session")
def home(tmp_path_factory, released):
    home = tmp_path_factory.mktemp("huggingface")
    lay_out(home / "hub", released / "TerraMind_v1_tiny.pt", "TerraMind-1.0-tiny")
    lay_out(home / "hub", released / "TerraMind_Tokenizer_LULC.pt", "TerraMind-1.0-Tokenizer-LULC")
    return home


@pytest.fixture
def cached(home, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_the_hubs_cache_is_found_offline_with_revision_and_digest(cached, released):
    recipe = find("terramind_v1_tiny", ["LULC"])
    assert recipe.backbone.source == "hub:ibm-esa-geospatial/TerraMind-1.0-tiny"
    assert recipe.backbone.revision == COMMIT
    content = (released / "TerraMind_v1_tiny.pt").read_bytes()
    assert recipe.backbone.digest == hashlib.sha256(content).hexdigest()
    assert recipe == find(f"terramind_v1_tiny@{COMMIT}", ["LULC"])
    assert recipe.digests == find(released, ["LULC"]).digests
    assert len(pickle.dumps(recipe)) < 2000


@pytest.mark.slow
def test_generation_from_the_hubs_cache_in_a_fresh_process(home):
    """The environment's HF_HOME and HF_HUB_OFFLINE are all that a user sets."""
    script = (
        "import terramind_xr\n"
        "ds = terramind_xr.synthetic.scene(100)\n"
        "lulc = ds.terramind.generate('LULC', model='terramind_v1_tiny').compute()\n"
        "print(lulc.attrs['terramind_revision'], lulc.shape, lulc.attrs.get('terramind_note'))\n"
    )
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[-2] == f"{COMMIT} (100, 100) None", done.stderr


def test_missing_files_are_listed_at_the_call_with_the_remedy(cached):
    ds = terramind_xr.synthetic.scene(64)
    with pytest.raises(WeightsError, match="missing") as caught:
        ds.terramind.generate(["LULC", "NDVI", "DEM"], model="terramind_v1_tiny")
    message = str(caught.value)
    assert "TerraMind_Tokenizer_NDVI.pt" in message
    assert "TerraMind_Tokenizer_DEM.pt" in message
    assert "TerraMind_Tokenizer_LULC.pt" not in message
    assert 'model="demo"' in message
    with pytest.raises(WeightsError, match=r"TerraMind_v1_base\.pt.*cache of the Hugging Face hub"):
        ds.terramind.generate("LULC", model="terramind_v1_base")


@pytest.fixture
def endpoint():
    """Address that takes requests and never answers, and the first bytes of each."""
    connections, requests = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):  # closed
                while True:
                    connection, _ = server.accept()
                    connections.append(connection)
                    requests.append(connection.recv(4))

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", requests
        server.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(("offline", "attempts"), [pytest.param("0", 1, marks=pytest.mark.slow), ("1", 0)])
def test_a_hub_that_does_not_answer_is_asked_once(endpoint, offline, attempts, tmp_path):
    script = (
        "from terramind_xr.model.recipe import find\n"
        "try:\n"
        "    find('terramind_v1_base', ['LULC', 'NDVI', 'DEM'])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    address, requests = endpoint
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": address, "NO_PROXY": "*"}
    environment |= {"HF_HUB_OFFLINE": offline, "HF_HUB_ETAG_TIMEOUT": "1", "no_proxy": "*"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("WeightsError Weights of terramind_v1_base are missing"), done.stderr
    for name in ("v1_base", "Tokenizer_LULC", "Tokenizer_NDVI", "Tokenizer_DEM"):
        assert f"TerraMind_{name}.pt: not in the cache of the Hugging Face hub, and" in done.stdout
    assert 'model="demo"' in done.stdout
    # For one file of four; the client may ask something of its own besides.
    assert requests.count(b"HEAD") == attempts


def test_a_model_is_described_without_files_or_network(released, monkeypatch):
    import huggingface_hub

    for name in ("try_to_load_from_cache", "hf_hub_download", "get_hf_file_metadata"):
        monkeypatch.setattr(huggingface_hub, name, None)
    monkeypatch.setattr(files, "_content_sha256", None)
    for model in [name for name in terramind_xr.models() if name != "demo"]:
        assert describe(model).name == describe(f"{model}@main").name == model
    assert (describe("demo").name, describe(released).name) == ("demo", "terramind_v1_tiny")
    with pytest.raises(OptionError, match="There is no model 'no/such/folder'"):
        describe("no/such/folder")
    with pytest.raises(WeightsError, match="TerraMind_v1_base.pt"):
        describe("terramind_v1_base").backbone.verified_path()


def test_what_a_model_reads_and_writes_is_known_without_weights(released, monkeypatch):
    monkeypatch.setattr(files, "_content_sha256", None)
    everything = {"S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI"}
    for model in ("demo", "terramind_v1_base", released, describe("terramind_v1_large")):
        known = everything if model == "demo" else {*everything, "Coordinates"}
        assert readable(model) == known
        assert writable(model) == known - {"S2L1C", "RGB"}
    with pytest.raises(OptionError, match="There is no model"):
        readable("terramind_v1_huge")


def test_the_demo_reads_and_writes_what_it_has_weights_for():
    model = weights.sampler(find("demo", []), (), (), "cpu").model
    read = {terramind_xr.modalities[name] for name in readable("demo")}
    keys = {each.raw_key or each.token_key for each in read}
    # Earlier outputs condition later ones by their tokens.
    assert keys | {each.token_key for each in read if each.codebook} == set(model.encoder_embeddings)
    written = {terramind_xr.modalities[name].token_key for name in writable("demo")}
    assert written == set(model.decoder_embeddings)
    find("demo", writable("demo"))


def test_an_unknown_revision_is_missing(cached):
    with pytest.raises(WeightsError, match="TerraMind_v1_tiny.pt"):
        find("terramind_v1_tiny@v9", ["LULC"])


@pytest.mark.parametrize("name", ["terramind_v1_huge", "terramind", "", "no/such/folder"])
def test_an_unknown_model_names_the_known_ones(name):
    with pytest.raises(OptionError, match="terramind_v1_base.*demo"):
        find(name, ["LULC"])


def test_a_folder_must_hold_one_model(tmp_path, released):
    with pytest.raises(WeightsError, match="holds 0 model files"):
        find(tmp_path, [])
    for size in ("tiny", "base"):
        (tmp_path / f"TerraMind_v1_{size}.pt").touch()
    with pytest.raises(WeightsError, match="holds 2 model files"):
        find(tmp_path, [])


def altered(released, tmp_path, change):
    """Folder with a changed backbone, and a load of it."""
    import torch

    path = tmp_path / "TerraMind_v1_tiny.pt"
    state = torch.load(released / path.name, weights_only=True)
    change(state)
    torch.save(state, path)
    return weights.sampler(find(tmp_path, []), ("untok_sen2l2a@224",), ("tok_lulc@224",), "cpu")


def test_a_missing_key_is_an_error(released, tmp_path):
    with pytest.raises(WeightsError, match=r"1 missing: encoder\.3\.mlp\.fc1\.weight"):
        altered(released, tmp_path, lambda state: state.pop("encoder.3.mlp.fc1.weight"))


def test_a_renamed_key_is_an_error(released, tmp_path):
    def rename(state):
        state["encodr.norm"] = state.pop("encoder_norm.weight")

    with (
        pytest.warns(TerramindWarning, match=r"encodr\.norm"),
        pytest.raises(WeightsError, match=r"1 missing: encoder_norm\.weight"),
    ):
        altered(released, tmp_path, rename)


def test_unknown_keys_of_a_backbone_are_a_warning_that_lists_them(released, tmp_path):
    def add(state):
        state["encoder_embeddings.tok_moon@224.mod_emb"] = state["encoder_embeddings.tok_lulc@224.mod_emb"]
        state["head.weight"] = state["mask_token"]
        state["encoder_embeddings.caption.mod_emb"] = state["mask_token"]  # upstream knows captions

    expected = r"TerraMind_v1_tiny\.pt .*left out: encoder_embeddings\.tok_moon@224\.mod_emb, head\.weight\.$"
    with pytest.warns(TerramindWarning, match=expected):
        altered(released, tmp_path, add)


@pytest.mark.slow
def test_unknown_keys_of_a_tokenizer_are_an_error(released, tmp_path):
    import torch

    shutil.copytree(released, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "TerraMind_Tokenizer_LULC.pt"
    torch.save(torch.load(path, weights_only=True) | {"head.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"1 unknown: head\.weight"):
        weights.tokenizer(find(tmp_path, ["LULC"]), "LULC", "cpu")


def test_modalities_that_the_file_lacks_are_an_error_where_they_are_asked_for(released, tmp_path):
    def drop(state):
        for key in [key for key in state if "untok_sen1grd" in key or "decoder_embeddings.tok_ndvi" in key]:
            del state[key]

    assert altered(released, tmp_path, drop) is not None
    recipe = find(tmp_path, [])
    s1, ndvi, lulc = "untok_sen1grd@224", "tok_ndvi@224", "tok_lulc@224"
    with pytest.raises(WeightsError, match=r"TerraMind_v1_tiny\.pt .* to read S1GRD \(encoder_emb.*@224\)\."):
        weights.sampler(recipe, (s1, lulc), (lulc,), "cpu")
    with pytest.raises(WeightsError, match=r"read S1GRD .*, nor to generate NDVI \(decoder_embeddings\."):
        weights.sampler(recipe, (s1,), (lulc, ndvi), "cpu")
    assert weights.sampler(recipe, (ndvi,), (lulc,), "cpu") is not None


@pytest.mark.parametrize("model", ["demo", "released"])
def test_one_backbone_is_resident_whatever_is_asked_of_it(model, request, monkeypatch):
    loads = []
    read = weights._read
    monkeypatch.setattr(weights, "_read", lambda path: loads.append(path) or read(path))
    weights._load_sampler.cache_clear()
    folder = model if model == "demo" else request.getfixturevalue("released")
    s2, lulc, ndvi = "untok_sen2l2a@224", "tok_lulc@224", "tok_ndvi@224"
    asked = [((s2,), (lulc,)), ((s2, lulc), (lulc, ndvi)), ((ndvi, s2), (lulc,)), ((), ())]
    found = {
        id(weights.sampler(find(folder, needed), *keys, "cpu")) for keys in asked for needed in ([], ["LULC"])
    }
    assert (len(loads), len(found)) == (1, 1)


def test_a_file_has_one_digest_whatever_else_a_call_needs():
    alone, both = find("demo", ["LULC"]), find("demo", ["NDVI", "LULC"])
    assert list(both.digests) == ["backbone", "LULC", "NDVI"]
    assert alone.digests == {name: both.digests[name] for name in ("backbone", "LULC")}
    assert both.digests["NDVI"] == dict(both.tokenizers)["NDVI"].digest


def test_weights_of_another_size_are_an_error(released, tmp_path):
    def widen(state):
        import torch

        state["decoder_proj_context.weight"] = torch.zeros(384, 384)

    with pytest.raises(WeightsError, match=r"of another shape: decoder_proj_context.weight: \(384, 384\)"):
        altered(released, tmp_path, widen)


def test_modalities_that_were_not_asked_for_may_be_in_the_file_or_not(released, tmp_path):
    def drop(state):
        for key in [key for key in state if "untok_dem" in key]:
            del state[key]

    assert altered(released, tmp_path, drop) is not None


def test_a_truncated_file_is_an_error(released, tmp_path):
    content = (released / "TerraMind_v1_tiny.pt").read_bytes()
    (tmp_path / "TerraMind_v1_tiny.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="damaged or truncated.*fetch it again"):
        weights.sampler(find(tmp_path, []), ("untok_sen2l2a@224",), ("tok_lulc@224",), "cpu")


def test_a_pickle_with_code_is_refused(tmp_path):
    import torch

    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save({"weight": Payload()}, tmp_path / "TerraMind_v1_tiny.pt")
    with pytest.raises(WeightsError, match="more than weights"):
        weights.sampler(find(tmp_path, []), ("untok_sen2l2a@224",), ("tok_lulc@224",), "cpu")
    assert not marker.exists()


def replace_weights(folder, number=1.0):
    """Other weights of the same shapes, under the size and the dates of the file."""
    import torch

    path = folder / "TerraMind_v1_tiny.pt"
    state, status = torch.load(path, weights_only=True), path.stat()
    state["mask_token"].fill_(number)
    torch.save(state, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


def test_weights_that_were_replaced_after_the_call_are_refused(released, tmp_path):
    shutil.copytree(released, tmp_path, dirs_exist_ok=True)
    lulc = terramind_xr.synthetic.scene(64).terramind.generate("LULC", model=str(tmp_path))
    before = find(tmp_path, []).backbone.digest
    replace_weights(tmp_path)
    after = find(tmp_path, []).backbone.digest
    assert after != before
    with pytest.raises(WeightsError, match=rf"TerraMind_v1_tiny\.pt.*{after} here, {before} when") as caught:
        lulc.compute(scheduler="sync")
    assert "make the call again" in str(caught.value)


def test_weights_at_work_do_not_change_with_their_file(released, tmp_path):
    import torch

    shutil.copy(released / "TerraMind_v1_tiny.pt", tmp_path)
    recipe = find(tmp_path, [])
    model = weights.sampler(recipe, (), ("tok_lulc@224",), "cpu").model
    before = model.mask_token.clone()
    content = bytearray((tmp_path / "TerraMind_v1_tiny.pt").read_bytes())
    with open(tmp_path / "TerraMind_v1_tiny.pt", "r+b") as file:
        file.write(bytes(len(content)))
    assert torch.equal(model.mask_token, before)
    assert weights.sampler(recipe, (), ("tok_lulc@224",), "cpu").model is model


@given(content=st.binary(min_size=1, max_size=64), data=st.data())
def test_any_other_content_is_refused(content, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pt")
        path.write_bytes(content)
        file = WeightsFile(f"folder:{folder}", path.name, "", hashlib.sha256(content).hexdigest())
        assert file.verified_path() == path
        other = data.draw(st.binary(max_size=64).filter(lambda other: other != content))
        path.write_bytes(other)
        with pytest.raises(WeightsError, match="other weights than the call recorded"):
            file.verified_path()


def test_a_damaged_file_in_the_hubs_cache_is_refused(released, tmp_path, monkeypatch):
    """The hub names its files by their content, which says nothing of a copy that went bad."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    link = lay_out(tmp_path, released / "TerraMind_v1_tiny.pt", "TerraMind-1.0-tiny")
    recipe = find("terramind_v1_tiny", [])
    with open(link.resolve(), "r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"x")
    with pytest.raises(WeightsError, match="TerraMind_v1_tiny.pt.*delete it and fetch it again"):
        weights.sampler(recipe, (), ("tok_lulc@224",), "cpu")


def test_files_that_a_worker_cannot_see_are_an_error_that_says_so(released, tmp_path, cached):
    folder = tmp_path / "here"
    shutil.copytree(released, folder)
    recipe = find(folder, ["LULC"])
    folder.rename(tmp_path / "there")
    with pytest.raises(WeightsError, match="TerraMind_v1_tiny.pt.*visible from every worker"):
        weights.sampler(recipe, (), ("tok_lulc@224",), "cpu")
    with pytest.raises(WeightsError, match="TerraMind_Tokenizer_LULC.pt.*visible from every worker"):
        weights.tokenizer(recipe, "LULC", "cpu")
    elsewhere = WeightsFile("hub:ibm-esa-geospatial/TerraMind-1.0-large", "a.pt", COMMIT, "")
    with pytest.raises(WeightsError, match=r"a\.pt cannot be found in this process(.|\n)*HF_HOME"):
        elsewhere.verified_path()


def test_weights_are_loaded_once_by_many_threads(released, monkeypatch):
    loads = []
    read = weights._read
    monkeypatch.setattr(weights, "_read", lambda path: loads.append(path) or read(path))
    weights._load_sampler.cache_clear()
    recipe, found = find(released, []), []

    def load():
        found.append(weights.sampler(recipe, ("untok_sen2l2a@224",), ("tok_lulc@224",), "cpu"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len({id(sampler) for sampler in found}) == 1


def test_nothing_global_changes_when_a_model_is_loaded_and_run():
    """Environment, warning filters and random states, in a process that has not seen terratorch yet."""
    script = """
import os, random, warnings
import numpy as np, torch, terramind_xr
def state():
    return (dict(os.environ), list(warnings.filters), random.getstate(), torch.get_rng_state().tolist(),
            str(np.random.get_state()), torch.get_num_threads(), torch.get_default_dtype(),
            torch.get_float32_matmul_precision())
torch.set_float32_matmul_precision("high")
before = state()
terramind_xr.synthetic.scene(64).terramind.generate(["LULC", "NDVI"], model="demo").compute(scheduler="sync")
after = state()
names = "environ filters random torch numpy threads dtype precision".split()
print([name for name, a, b in zip(names, before, after) if a != b])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def only(monkeypatch, inputs, outputs):
    """A demo whose configuration holds these keys alone."""
    import json

    config = json.loads((package_folder() / "config.json").read_text())
    config["backbone"] |= {"inputs": inputs, "outputs": outputs}
    monkeypatch.setattr("terramind_xr.model.recipe.demo_config", lambda: config)


@pytest.mark.parametrize(
    ("names", "inputs", "message"),
    [
        (("DEM",), None, "DEM cannot be an input of demo, which has embeddings of S2L2A, LULC.*Add one"),
        (("S1RTC", "DEM"), None, "S1RTC, DEM cannot be an input"),
        (("S2L2A", "DEM"), None, r"DEM cannot.*inputs=\['S2L2A'\]"),
        (("S2L2A", "DEM"), ["S2L2A", "DEM"], "DEM cannot"),
    ],
)
def test_inputs_that_the_model_cannot_read_are_refused_at_the_call(monkeypatch, names, inputs, message):
    only(monkeypatch, ["untok_sen2l2a@224", "tok_lulc@224"], ["tok_lulc@224"])
    ds = terramind_xr.synthetic.scene(64, modalities=names)
    for verb in (ds.terramind.generate, ds.terramind.plan):
        with pytest.raises(OptionError, match=message):
            verb("LULC", model="demo", inputs=inputs)


def test_outputs_that_the_model_cannot_write_are_refused_at_the_call(monkeypatch):
    only(monkeypatch, ["untok_sen2l2a@224"], ["tok_lulc@224"])
    with pytest.raises(OptionError, match="DEM cannot be generated by demo; its outputs are LULC"):
        terramind_xr.synthetic.scene(64).terramind.generate("DEM", model="demo")


def test_a_broken_installation_is_said_at_the_call(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "package_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"tokenizer_dem\.safetensors: not in this installation"):
        terramind_xr.synthetic.scene(64).terramind.generate("DEM", model="demo")


@pytest.mark.parametrize("name", sorted(readable("demo")))
def test_every_input_of_the_demo_is_used(name):
    """Two scenes that differ in one input alone give two maps."""
    output = "NDVI" if name == "LULC" else "LULC"
    ds = terramind_xr.synthetic.scene(224, seed=5, modalities=tuple(dict.fromkeys(("S2L2A", name))))
    other = terramind_xr.synthetic.scene(224, seed=77, modalities=(name,))
    options = {"model": "demo", "inputs": list(ds.data_vars), "diffusion_steps": 1, "decoding": "expected"}
    options["probabilities"] = output == "LULC"  # where the least change of a logit shows
    first = ds.terramind.generate(output, **options)
    second = ds.assign({name: other[name]}).terramind.generate(output, **options)
    assert (first != second).any()


def test_a_plan_needs_no_weights():
    plan = terramind_xr.synthetic.scene(300).terramind.plan("LULC", model="terramind_v1_large")
    assert (plan.model, plan.tiles) == ("terramind_v1_large", 4)


def test_models_lists_names_and_sources():
    listed = terramind_xr.models()
    assert list(listed)[-1] == "demo"
    assert "not for science" in listed["demo"].note
    hub = [each.source for name, each in listed.items() if name != "demo"]
    assert all(source.startswith("https://huggingface.co/ibm-esa-geospatial") for source in hub)

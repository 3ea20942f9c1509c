"""Weights: the hub's cache, folders, strictness, and one load in each process. No network."""

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import terramind_xr
from terramind_xr import OptionError, WeightsError, weights
from terramind_xr.models import find

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
    assert recipe.digest == find(released, ["LULC"]).digest
    assert len(pickle.dumps(recipe)) < 2000


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

    with pytest.raises(WeightsError, match=r"missing: encoder_norm\.weight; 1 unknown: encodr\.norm"):
        altered(released, tmp_path, rename)


def test_an_unknown_modality_prefix_is_an_error(released, tmp_path):
    def add(state):
        state["encoder_embeddings.tok_moon@224.mod_emb"] = state["encoder_embeddings.tok_lulc@224.mod_emb"]

    with pytest.raises(WeightsError, match="1 unknown: encoder_embeddings.tok_moon@224"):
        altered(released, tmp_path, add)


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
            str(np.random.get_state()), torch.get_num_threads(), torch.get_default_dtype())
before = state()
terramind_xr.synthetic.scene(64).terramind.generate(["LULC", "NDVI"], model="demo").compute(scheduler="sync")
after = state()
names = "environ filters random torch numpy threads dtype".split()
print([name for name, a, b in zip(names, before, after) if a != b])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_broken_installation_is_said_at_the_call(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["terramind_xr.models"], "package_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"tokenizer_dem\.safetensors: not in this installation"):
        terramind_xr.synthetic.scene(64).terramind.generate("DEM", model="demo")


def test_models_lists_names_and_sources():
    listed = terramind_xr.models()
    assert list(listed)[-1] == "demo"
    assert "not for science" in listed["demo"].note
    hub = [each.source for name, each in listed.items() if name != "demo"]
    assert all(source.startswith("https://huggingface.co/ibm-esa-geospatial") for source in hub)

"""`precision`: little changes, what decides tokens stays in fp32, and what a device cannot do is refused."""

import contextlib

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr import OptionError
from terramind_xr.facts import modalities
from terramind_xr.model import chain, weights
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.scaling import standardize
from terramind_xr.model.tokens import token_key

pytestmark = pytest.mark.slow

NAMES = ("LULC", "NDVI", "DEM")


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((250, 290), seed=5, modalities=("S2L2A",))[["S2L2A"]].load()


def tiles(scene):
    values = standardize(modalities["S2L2A"], scene.S2L2A.values.astype(np.float32))
    places = np.array([[0, 0], [16, 64]])
    cut = np.stack([values[:, y : y + 224, x : x + 224] for y, x in places])
    return Batch({"S2L2A": cut}, {"S2L2A": np.ones((2, 14, 14), bool)}, places)


def tokens(name, batch, precision):
    execution = Execution("cpu", precision)
    with session(execution) as device:
        return chain.generate_tokens(find("demo", {name}), batch, (name,), Sampling(), device)[name].numpy()


@pytest.mark.parametrize("name", NAMES)
def test_nearly_all_tokens_are_those_of_full_precision(scene, name):
    batch = tiles(scene)
    agreement = (tokens(name, batch, "bf16") == tokens(name, batch, "fp32")).mean()
    assert agreement >= 0.98  # with logits in bf16 0.96 for DEM


def test_logits_are_computed_in_full_precision(scene, monkeypatch):
    found = []
    embedding = weights.sampler(find("demo", ()), (), (), "cpu").model.decoder_embeddings[token_key("LULC")]
    forward = type(embedding).forward_logits
    monkeypatch.setattr(
        type(embedding), "forward_logits", lambda *given: found.append(forward(*given)) or found[-1]
    )
    tokens("LULC", tiles(scene), "bf16")
    (logits,) = found
    assert str(logits.dtype) == "torch.float32"
    assert (logits != logits.bfloat16()).any()


@settings(max_examples=examples(4))
@given(chunks=st.tuples(st.integers(60, 290), st.integers(60, 290)), workers=st.integers(1, 3))
def test_chunks_and_threads_change_no_byte_in_half_precision(scene, chunks, workers):
    lazy = scene.chunk({"y": chunks[0], "x": chunks[1]})
    options = {"outputs": "LULC", "model": "demo", "precision": "bf16"}
    with terramind_xr.set_options(block=1, device="cpu"):
        whole, again = scene.terramind.generate(**options), lazy.terramind.generate(**options)
    with dask.config.set(scheduler="threads", num_workers=workers):
        assert whole.values.tobytes() == again.values.tobytes()
    assert again.attrs["terramind_precision"] == "bf16"


def test_a_processor_refuses_fp16_at_the_call(scene):
    with pytest.raises(OptionError, match="precision='fp16' is for GPUs.*Use precision='bf16'"):
        scene.terramind.generate("LULC", model="demo", precision="fp16", device="cpu")
    with terramind_xr.set_options(precision="fp16"), pytest.raises(OptionError, match="is for GPUs"):
        scene.terramind.embed(model="demo", device="cpu")


def test_what_no_call_can_know_is_refused_where_it_runs(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="precision='fp16' is for GPUs"), session(Execution(None, "fp16")):
        pass
    emulated = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda *, including_emulation: emulated.append(including_emulation)
    )
    with (
        pytest.raises(OptionError, match="Tesla T4 has no units for it.*'fp16'"),
        session(Execution(None, "bf16")),
    ):
        pass
    assert emulated == [False]

"""Law 8: what belongs to the whole process is as the user left it, seen from other threads as well."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

DEMO = "terramind_xr.synthetic.scene(64).terramind.generate(['LULC', 'NDVI'], model='demo')"


def in_a_fresh_process(script: str) -> Any:
    """What a script prints last, as JSON, in a process that has not seen torch or terratorch yet."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def by_precision():
    """Matmul precision after the first call and after one more batch, and bytes, by what the user had set."""
    script = f"""
import hashlib, json, torch, terramind_xr
if {{0!r}} is not None:
    torch.set_float32_matmul_precision({{0!r}})
torch.set_num_threads(1)
seen, digest = [torch.get_float32_matmul_precision()], hashlib.sha256()
for _ in range(2):
    torch.set_float32_matmul_precision(seen[0])
    result = {DEMO}.compute(scheduler="sync")
    seen.append(torch.get_float32_matmul_precision())
    digest.update(result.LULC.values.tobytes() + result.NDVI.values.tobytes())
print(json.dumps([seen, digest.hexdigest()]))
"""
    return {choice: in_a_fresh_process(script.format(choice)) for choice in (None, "high", "medium")}


def test_torchs_matmul_precision_is_given_back(by_precision):
    seen = {choice: precisions for choice, (precisions, _) in by_precision.items()}
    assert seen == {None: ["highest"] * 3, "high": ["high"] * 3, "medium": ["medium"] * 3}


def test_our_bytes_do_not_depend_on_the_users_precision(by_precision):
    assert len({digest for _, digest in by_precision.values()}) == 1


def test_every_switch_of_precision_is_pinned_and_given_back():
    """Torch's old and new switches, alone and where they contradict each other, on both kinds of device."""
    script = """
import itertools, json, torch, terramind_xr
from torch import backends
from terramind_xr.quiet import full_precision
names = ["cuda.matmul", "mkldnn.matmul", "mkldnn.conv", "cudnn.conv"]
owners = {name: getattr(getattr(backends, name.split(".")[0]), name.split(".")[1], None) for name in names}
owners = {name: owner for name, owner in owners.items() if hasattr(owner, "fp32_precision")}
def read(get):
    try:
        return get()
    except RuntimeError:
        return "contradicted"
def state():
    old = [read(torch.get_float32_matmul_precision), read(lambda: backends.cudnn.allow_tf32)]
    return old, {name: owner.fp32_precision for name, owner in owners.items()}
def choose(name, value):
    if name == "old":
        torch.set_float32_matmul_precision(value)
    elif name == "cudnn":
        backends.cudnn.allow_tf32 = value
    elif name in owners:
        owners[name].fp32_precision = value
faults = []
choices = [("old", "medium"), ("mkldnn.conv", "bf16"), ("cudnn.conv", "ieee"), ("mkldnn.matmul", "bf16"),
           ("old", "high"), ("cuda.matmul", "ieee"), ("cudnn", True), ("cuda.matmul", "tf32"),
           ("old", "highest")]
for choice in [None, *choices]:
    if choice:
        choose(*choice)
    for device, own in {"cpu": "mkldnn", "cuda": "cu"}.items():
        before = state()
        with full_precision(device):
            pinned = {name: value for name, value in state()[1].items() if name.startswith(own)}
        if not set(pinned.values()) <= {"ieee", "none"} or state() != before:
            faults.append([choice, device, before, pinned, state()])
print(json.dumps(faults))
"""
    assert in_a_fresh_process(script) == []


def test_loading_a_model_leaves_what_another_thread_does_alone():
    """Variables and filters that another thread sets meanwhile stand, and its random numbers go on."""
    script = f"""
import json, os, random, threading, time, warnings
import numpy as np, torch, terramind_xr
draws, stop = {{"random": [], "numpy": [], "torch": []}}, threading.Event()
draw = {{"random": random.random, "numpy": np.random.random, "torch": lambda: torch.rand(()).item()}}
def expected(count):
    torch.manual_seed(0); np.random.seed(0)
    return {{name: [draw[name]() for _ in range(count)] for name in ("numpy", "torch")}}
wanted = expected(100_000)
random.seed(0); torch.manual_seed(0); np.random.seed(0)
categories = [type(f"Mine{{number}}", (UserWarning,), {{}}) for number in range(20)]
def work():
    number = 0
    while not stop.is_set() and number < 100_000:
        for name in draw:
            draws[name].append(draw[name]())
        os.environ[f"MINE_{{number % 20}}"] = str(number)
        if number < 20 * 200 and number % 200 == 0:
            warnings.simplefilter("ignore", categories[number // 200])
        number += 1
        time.sleep(0.0005)
    os.environ["MINE_LAST"] = str(number)
thread = threading.Thread(target=work)
thread.start()
while len(draws["torch"]) < 10:
    time.sleep(0.001)
{DEMO}.compute(scheduler="sync")
stop.set(); thread.join()
count = len(draws["torch"])
print(json.dumps(dict(
    variables=len([name for name in os.environ if name.startswith("MINE_")]),
    filters=len([each for each in warnings.filters if each[2] in categories]),
    set=min(20, 1 + (count - 1) // 200),
    repeated=count - len(set(draws["random"])),
    numpy=draws["numpy"] == wanted["numpy"][:count],
    torch=draws["torch"] == wanted["torch"][:count],
)))
"""
    found = in_a_fresh_process(script)
    assert found["filters"] == found.pop("set")
    del found["filters"]
    assert found == {"variables": 21, "repeated": 0, "numpy": True, "torch": True}


def test_building_a_model_draws_no_random_number():
    """Constructors of several sizes and of both kinds of tokenizers."""
    import random

    import numpy as np
    import torch
    from terratorch.models.backbones.terramind.tokenizer import tokenizer_register

    from terramind_xr import miniature
    from terramind_xr.quiet import without_draws
    from terramind_xr.weights import build_backbone, demo_config

    def state():
        return random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())  # noqa: NPY002

    before = state()
    with without_draws():
        for size in ("tiny", "small", "base"):
            build_backbone(f"terramind_v1_{size}", ("untok_sen2l2a@224",), ("tok_lulc@224",))
        tokenizer_register.terramind_v1_tokenizer_lulc(pretrained=False)
        tokenizer_register.terramind_v1_tokenizer_ndvi(pretrained=False)
        miniature.build_backbone(demo_config())
        for modality in ("LULC", "NDVI"):
            miniature.build_tokenizer(demo_config(), modality)
    assert state() == before

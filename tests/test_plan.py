"""What a plan says of memory, and how a memory limit chooses blocks and batches."""

from __future__ import annotations

import inspect
import re
import types

import dask
import numpy as np
import pytest
from dask.utils import parse_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr import OptionError
from terramind_xr.api import calibration
from terramind_xr.kernels import GenerateKernel

MIB = 2**20


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((900, 1100), seed=3, modalities=("S2L2A",), chunks=400)


def plan(scene, **options):
    return scene.terramind.plan("LULC", **{"model": "demo", **options})


def taken(plan):
    """Host memory as the plan itself adds it up."""
    alone = plan.library_memory + plan.model_memory + plan.batch_memory + plan.threads * plan.block_memory
    return alone + -(-(plan.margin_memory + plan.input_memory) // plan.processes)


def test_a_plan_takes_what_generate_takes(scene):
    ours, theirs = (inspect.signature(verb).parameters for verb in (terramind_xr.plan, terramind_xr.generate))
    assert {name: ours[name].default for name in theirs} == {
        name: each.default for name, each in theirs.items()
    }
    drawn = plan(scene, seed=3, temperature=1.0, top_k=5, decoding="argmax", solver="unipc", clamp=None)
    assert drawn == plan(scene)
    for impossible in ({"temperature": -1}, {"solver": "euler"}, {"samples": 2}):
        with pytest.raises(OptionError, match=next(iter(impossible))):
            plan(scene, **impossible)


def test_peak_memory_is_the_sum_of_its_parts(scene):
    found = plan(scene, device="cpu")
    assert found.peak_memory == taken(found)
    assert found.device_memory is None
    with dask.config.set(num_workers=3):
        more = plan(scene, device="cpu")
    with dask.config.set(num_workers=1):
        fewer = plan(scene, device="cpu")
    assert (more.threads, fewer.threads) == (3, 1)
    assert more.peak_memory - fewer.peak_memory == 2 * found.block_memory


def test_on_a_gpu_a_batch_is_not_in_host_memory(scene):
    host, device = plan(scene, device="cpu"), plan(scene, device="cuda:0")
    assert host.peak_memory - device.peak_memory == host.batch_memory
    assert device.device_memory == device.model_memory + device.batch_memory
    assert "device memory" in repr(device)
    assert "device memory" not in repr(host)


def test_the_model_counts_as_it_is_loaded(scene, released):
    demo, large = plan(scene), plan(scene, model="terramind_v1_large")
    # The demo's files are in half precision.
    assert 20 * MIB < demo.model_memory < 30 * MIB
    assert large.model_memory > 4_000 * MIB
    files = [released / f"TerraMind_{name}.pt" for name in ("v1_tiny", "Tokenizer_LULC")]
    folder = plan(scene, model=released)
    assert folder.model_memory == sum(file.stat().st_size for file in files)
    # The table of released sizes tells the same.
    assert plan(scene, model="terramind_v1_tiny").model_memory == pytest.approx(folder.model_memory, rel=0.01)


LIMITS = st.integers(1_300 * MIB, 2_000 * MIB)


@settings(max_examples=examples(25), deadline=None)
@given(
    limits=st.tuples(LIMITS, LIMITS),
    threads=st.integers(1, 2),
)
def test_a_limit_is_obeyed_and_more_memory_takes_no_smaller_steps(scene, limits, threads):
    with dask.config.set(num_workers=threads):
        less, more = (plan(scene, device="cpu", memory_limit=limit) for limit in sorted(limits))
    for found, limit in zip((less, more), sorted(limits), strict=True):
        assert taken(found) == found.peak_memory <= limit == found.memory_limit
        assert found.batch_size <= 8
        assert found.block_shape[0] <= 768

    def steps(found):
        block = found.block_shape[0] // 192
        return min(found.batch_size, block**2), block

    assert steps(less) <= steps(more)


def test_a_limit_that_admits_all_changes_nothing(scene):
    free, limited = plan(scene), plan(scene, memory_limit="64GiB")
    assert limited.memory_limit == 64 * 2**30
    assert limited.block_shape == free.block_shape
    assert limited.batch_size == free.batch_size


def test_a_limit_that_cannot_be_met_says_what_could(scene):
    with pytest.raises(OptionError, match=r"'1GiB'.*cannot be met.*block=1.*batch_size=1.*Give at least"):
        plan(scene, memory_limit="1GiB")
    with terramind_xr.set_options(memory_limit="1GiB"), pytest.raises(OptionError, match="cannot be met"):
        scene.terramind.generate("LULC", model="demo")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_least_that_an_error_names_does(scene, threads):
    with dask.config.set(num_workers=threads):
        with pytest.raises(OptionError) as caught:
            plan(scene, memory_limit="1GiB")
        named = re.search(r"Give at least memory_limit='(.*?)'", str(caught.value))
        assert named is not None
        assert plan(scene, memory_limit=named[1]).peak_memory <= parse_bytes(named[1])


def test_a_limit_goes_with_a_batch_size_of_numpy(scene):
    expected = plan(scene, memory_limit="1400MiB", batch_size=8)
    assert plan(scene, memory_limit="1400MiB", batch_size=np.int64(8)) == expected
    assert expected.batch_size < 8 or expected.block_shape < (768, 768)


@pytest.mark.parametrize("limit", ["much", 0, -5, True, 1.5j])
def test_impossible_limits_are_refused(scene, limit):
    with pytest.raises(OptionError, match="memory_limit="):
        terramind_xr.set_options(memory_limit=limit)
    with pytest.raises(OptionError, match="memory_limit="):
        plan(scene, memory_limit=limit)


def test_the_option_holds_for_plan_and_verbs_and_blocks_change_no_byte(scene):
    free = scene.terramind.generate("LULC", model="demo", batch_size=1, device="cpu")
    with dask.config.set(num_workers=1):
        low = plan(scene, batch_size=1, device="cpu").peak_memory - 40 * MIB
        with terramind_xr.set_options(memory_limit=low):
            planned = plan(scene, batch_size=1, device="cpu")
            result = scene.terramind.generate("LULC", model="demo", batch_size=1, device="cpu")
            tokens = scene.terramind.tokenize("S2L2A", model="demo", device="cpu")
    assert planned.block_shape < (768, 768)
    assert (result.chunksizes["y"][0], result.chunksizes["x"][0]) == planned.block_shape
    assert result.attrs["terramind_block"] == planned.block_shape[0] // 192 < free.attrs["terramind_block"]
    assert result.attrs["terramind_batch_size"] == planned.batch_size == 1
    assert tokens.attrs["terramind_block"] < 4 or tokens.attrs["terramind_batch_size"] < 8
    part = {"y": slice(0, 460), "x": slice(0, 460)}
    np.testing.assert_array_equal(result.isel(part).values, free.isel(part).values)


def test_auto_is_what_dask_lets_a_worker_take(scene):
    from distributed import Client

    options = {"processes": False, "n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with Client(memory_limit="3GB", **options):
        found = plan(scene, memory_limit="auto")
    assert (found.processes, found.threads, found.memory_limit) == (2, 1, 2_400_000_000)
    assert plan(scene, memory_limit="auto").processes == 1


def test_calibration_measures_a_batch_and_its_energy(scene, monkeypatch, tmp_path):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("0")
    batches = []

    def run(kernel, values, valid, places):
        batches.append([len(array) for array in values])
        (zone / "energy_uj").write_text(str(2_000_000 * len(batches)))

    monkeypatch.setattr(calibration, "RAPL", tmp_path)
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(calibration, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(GenerateKernel, "run", run)
    found = plan(scene, calibrate=True, device="cpu")
    assert batches == [[8], [8]]
    assert found.seconds == found.tiles / 8 * 4
    assert found.joules == found.tiles / 8 * 2
    assert "8 tiles in 4 s (cpu" in found.measured
    assert all(
        word in text
        for word in ("seconds", "joules", "measured")
        for text in (repr(found), found._repr_html_())
    )
    monkeypatch.setattr(calibration, "RAPL", tmp_path / "none")
    clock = iter([10.0, 14.0])
    assert plan(scene, calibrate=True, device="cpu").joules is None


@pytest.mark.parametrize("inputs", [["S2L2A"], ["LULC", "S1GRD", "DEM"]])
def test_a_trial_runs(inputs):
    scene = terramind_xr.synthetic.scene(100, modalities=tuple(inputs), chunks=64)
    found = scene.terramind.plan("NDVI", model="demo", inputs=inputs, calibrate=True, diffusion_steps=1)
    assert found.seconds > 0


def test_without_calibration_nothing_is_measured(scene, monkeypatch):
    monkeypatch.setattr(calibration.Calibration, "of", None)
    found = plan(scene, model="terramind_v1_large")
    assert found.seconds is found.joules is found.measured is None

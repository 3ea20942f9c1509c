"""Settings that hold for every test."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "benchmarks")]

from examples import examples  # noqa: E402 (lies in the folder just added)

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=examples(100),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def terramesh():
    """Folder of the real tiles; tests that need them are skipped where it is missing."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "terramesh"
    if not folder.is_dir():
        pytest.skip("the TerraMesh tiles are not here")
    return folder


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """Folder with the files of the tiny model as released, full shapes, random weights."""
    import upstream

    folder = tmp_path_factory.mktemp("released")
    upstream.save_random_backbone(folder)
    upstream.save_random_tokenizer(folder, "LULC")
    return folder


@pytest.fixture
def one_thread():
    """Torch on one thread, as in a dask worker, so that both sides compute the same bytes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

"""The quick start runs as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr

import terramind_xr
from terramind_xr.facts import lulc_classes

SCRIPT = Path(__file__).parents[1] / "examples" / "quickstart.py"


def run(*arguments, **environment):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def table_row(text, name):
    """Area and share of a class in the printed table."""
    (line,) = [line for line in text.splitlines() if name in line]
    area, share = line.replace("│", " ").split()[-2:]
    return float(area), float(share.rstrip("%"))


@pytest.mark.slow
@pytest.mark.parametrize("own_file", [False, True])
def test_a_map_a_picture_and_areas(tmp_path, own_file):
    arguments = ["--size", 300, "--output", tmp_path / "out"]
    if own_file:
        scene = terramind_xr.synthetic.scene(300)["S2L2A"]
        scene.rio.to_raster(tmp_path / "scene.tif")  # the bands go by position: it has no names
        arguments = ["--input", tmp_path / "scene.tif", "--output", tmp_path / "out", "--offset", 0]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr

    lulc = xr.open_zarr(tmp_path / "out/lulc.zarr")["LULC"]
    assert lulc.shape == (300, 300)
    assert lulc.rio.crs.is_projected
    assert matplotlib.image.imread(tmp_path / "out/lulc.png").ndim == 3
    codes, counts = np.unique(lulc, return_counts=True)
    name = lulc_classes[codes[counts.argmax()]].name.replace("_", " ")
    area, percent = table_row(done.stdout, name)
    assert percent == pytest.approx(100 * counts.max() / lulc.size, abs=0.051)
    assert area == pytest.approx(9 * counts.max() / lulc.size, abs=0.0051)  # the scene is 3 km × 3 km
    assert ("Agreement with the truth" in done.stdout) is not own_file
    assert ("Patch index" in done.stdout) is not own_file
    assert (lulc.attrs["terramind_decoding"], lulc.attrs["terramind_shifts"]) == ("expected", 2)

    again = run(*arguments)
    assert again.returncode == 1
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "missing.tif"], "InputError: S2L2A: no file 'missing.tif'"),
        (["--model", "terramind_v1_tiny"], "WeightsError: Weights of terramind_v1_tiny are missing"),
        (["--model", "terramind_v2"], "OptionError: There is no model 'terramind_v2'"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(tmp_path, arguments, words):
    done = run(*arguments, "--output", tmp_path / "out", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert done.returncode == 1
    # Libraries may warn of each other before.
    assert any(line.startswith(words) for line in done.stderr.splitlines())
    assert "Traceback" not in done.stderr

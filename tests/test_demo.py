"""The demo model: its files, its world, and what it has learnt, on worlds that it was not trained on."""

from __future__ import annotations

import hashlib
import json

import demo_baselines
import demo_cover
import demo_faults
import demo_tiles
import numpy as np
import pytest

import terramind_xr
import upstream
from terramind_xr.model import weights
from terramind_xr.model.recipe import find, package_folder

EVERY = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")
OUTPUTS = ("LULC", "NDVI", "DEM", "S1GRD", "S1RTC", "S2L2A")
COUNT = 12


@pytest.fixture(scope="module")
def digests() -> dict:
    return json.loads((package_folder() / "digests.json").read_text())


@pytest.fixture(scope="module")
def tiles() -> demo_tiles.Tiles:
    """Tiles of worlds that training has not seen."""
    return demo_tiles.held_out(COUNT)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_files_are_those_of_the_training(digests):
    files = {path.name: path for path in package_folder().glob("*.safetensors")}
    assert {name: sha256(path.read_bytes()) for name, path in files.items()} == digests["files"]
    assert set(files) == {
        "backbone.safetensors",
        *(f"tokenizer_{name.lower()}.safetensors" for name in OUTPUTS),
    }
    assert sum(path.stat().st_size for path in files.values()) <= 25e6
    assert "Not for science" in (package_folder() / "MODEL_CARD.md").read_text()


def test_the_world_is_the_one_of_the_training(digests):
    """Who changes the world must train the demo model anew, by ``tools/train_demo.py``."""
    world = digests["world"]
    part = terramind_xr.synthetic.window(**world["window"], modalities=EVERY)
    found = {name: sha256(np.ascontiguousarray(part[name]).tobytes()) for name in EVERY}
    assert found == world["modalities"]


def accuracy(tiles, *inputs, **options) -> float:
    made = demo_tiles.predict(tiles, inputs, "LULC", **options)
    return float(demo_cover.right(made, tiles["LULC"]).mean())


def commonest(tiles) -> float:
    """Accuracy of who knows the commonest class of each tile."""
    counts = np.stack([np.bincount(tile.ravel(), minlength=10) for tile in tiles["LULC"]])
    return float(counts.max(axis=1).sum() / counts.sum())


@pytest.mark.parametrize(
    ("inputs", "least"),
    [(("S2L2A",), 0.75), (("S2L1C",), 0.72), (("S2L2A", "S1GRD", "DEM"), 0.75)],
)
def test_land_cover_from_optical_inputs(tiles, inputs, least):
    assert accuracy(tiles, *inputs) > least > commonest(tiles)


@pytest.mark.parametrize("inputs", [("S1GRD", "DEM"), ("S1RTC", "DEM"), ("RGB",)])
def test_land_cover_from_other_inputs(tiles, inputs):
    """Better than the commonest class of all tiles; above that of each tile is for radar with relief only."""
    counts = np.bincount(tiles["LULC"].ravel(), minlength=10)
    assert accuracy(tiles, *inputs) > counts.max() / counts.sum() + 0.15


def test_land_cover_where_half_of_the_patches_are_hidden(tiles):
    codes = demo_cover.half_hidden(tiles, "demo")
    assert float(demo_cover.right(codes, tiles["LULC"]).mean()) > commonest(tiles)


def test_land_cover_in_several_decoding_steps(tiles):
    """By upstream's own loop: tokens that were decided first are seen by those decided later."""
    recipe = find("demo", ["LULC"])
    numbers = demo_tiles.standardized(tiles, "S2L2A", slice(None))
    sampler = weights.sampler(recipe, (), (), "cpu")
    by_steps = {}
    for steps in (1, 4):
        tokens = upstream.generated_tokens(sampler, {"S2L2A": numbers}, ["tok_lulc@224"], steps)
        logits = weights.tokenizer(recipe, "LULC", "cpu").decode_tokens(
            tokens["tok_lulc@224"].reshape(-1, 14, 14)
        )
        codes = logits.argmax(dim=1).numpy()
        by_steps[steps] = float(demo_cover.right(codes, tiles["LULC"]).mean())
    assert by_steps[4] > by_steps[1] - 0.02


@pytest.mark.parametrize(
    "bands", [("B02", "B04"), ("B03", "B11"), ("B04", "B08"), ("B08", "B11"), ("B11", "B12")]
)
def test_swapped_bands_cost_accuracy(tiles, bands):
    names = terramind_xr.modalities["S2L2A"].band_names
    one, other = (names.index(band) for band in bands)
    swapped = {**tiles, "S2L2A": demo_faults.swapped(tiles["S2L2A"], one, other)}
    assert accuracy(swapped, "S2L2A") < accuracy(tiles, "S2L2A") - 0.02


@pytest.mark.parametrize(
    ("inputs", "output", "share"),
    [
        (("S2L2A",), "NDVI", 0.7),
        (("S2L2A",), "DEM", 4.0),
        (("S2L2A",), "S1RTC", 0.9),
        (("S1RTC", "DEM"), "S1GRD", 0.9),
        (("S2L1C",), "S2L2A", 0.9),
    ],
)
def test_numbers_are_nearer_than_the_mean_of_each_tile(tiles, inputs, output, share):
    made = demo_tiles.predict(tiles, inputs, output, diffusion_steps=1, clamp=None)
    truth = tiles[output].astype(float)
    error = np.abs(made - truth).mean()
    mean = np.abs(demo_baselines.mean_of_tile(tiles, output) - truth).mean()
    assert error < share * mean

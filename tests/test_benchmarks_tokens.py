"""What is said of compression: true rates and errors, in the order that they must have."""

from __future__ import annotations

import math

import demo_tiles
import numpy as np
import pytest
import tokens
from tokens import JP2, JP2_USUAL, LOSSLESS, MEAN, RAW, TOKENS, TOKENS_BEST, TOKENS_PACKED

from terramind_xr.facts import TILE, modalities
from terramind_xr.model.recipe import codebook

pytestmark = pytest.mark.slow

COUNT = 2


@pytest.fixture(scope="module")
def stored() -> dict[tuple[str, str], tokens.Stored]:
    tiles = demo_tiles.held_out(COUNT)
    every = [each for name in tokens.TOKENIZED for each in tokens.ways(tiles, name)]
    return {(each.modality, each.way): each for each in every}


@pytest.mark.parametrize(
    ("name", "bits"), {"S2L2A": 192, "S1GRD": 64, "S1RTC": 64, "DEM": 32, "LULC": 8, "NDVI": 32}.items()
)
def test_pixels_take_what_is_delivered_and_tokens_what_the_vocabulary_takes(stored, name, bits):
    assert (stored[name, RAW].bits, stored[name, RAW].error) == (bits, 0)
    assert stored[name, TOKENS].bits == 16 / 256
    vocabulary = math.prod(codebook("demo", name))
    assert 2 ** (256 * stored[name, TOKENS_PACKED].bits) == pytest.approx(vocabulary)
    assert vocabulary < modalities[name].vocabulary_size  # of the released ones
    assert stored[name, TOKENS_PACKED].error == stored[name, TOKENS].error
    # one number a band, or one code, for each tile
    of_tile = 8 if name == "LULC" else 32 * len(modalities[name].bands)
    assert stored[name, MEAN].bits * TILE**2 == pytest.approx(of_tile)


@pytest.mark.parametrize("name", tokens.TOKENIZED)
def test_errors_follow_what_is_kept(stored, name):
    best = TOKENS if name == "LULC" else TOKENS_BEST
    assert 0 < stored[name, best].error < stored[name, MEAN].error


@pytest.mark.skipif(not tokens.has_jpeg2000(), reason="this GDAL has no JPEG2000")
def test_jpeg2000_keeps_its_rates(stored):
    assert stored["LULC", LOSSLESS].error == 0
    assert stored["LULC", LOSSLESS].bits < 8
    for name in set(tokens.TOKENIZED) - {"LULC"}:
        low, usual = stored[name, JP2], stored[name, JP2_USUAL]
        assert low.error > usual.error > 0
        # a quarter of 16 bits a band at most; two tiles have headers that weigh
        assert low.bits < usual.bits <= 1.01 * 4 * len(modalities[name].bands)
        assert low.bits == pytest.approx(stored[name, TOKENS_PACKED].bits, rel=0.5)


def test_without_jpeg2000_it_says_so(monkeypatch):
    monkeypatch.setattr(tokens, "has_jpeg2000", lambda: False)
    (row,) = tokens.by_jpeg2000(demo_tiles.held_out(COUNT), "LULC", 0.04)
    assert (row.bits, row.error) == (None, None)
    assert tokens.NO_JPEG2000 in tokens.as_table([row], COUNT).plain()


def test_the_table_says_what_it_cannot_show(stored):
    text = " ".join(tokens.as_table(list(stored.values()), COUNT).plain().split())
    pairs = tokens.at_equal_rate(list(stored.values()))
    ahead = sum(of_tokens < of_jpeg2000 for _name, of_tokens, of_jpeg2000 in pairs)
    counted = f"for {ahead} of {len(pairs)} modalities"
    for said in (counted, "never seen a real landscape", "15,360", "4,375", f"{COUNT} tiles"):
        assert said in text


@pytest.mark.parametrize("size", [100, 160])
def test_a_store_of_tokens_is_as_much_smaller_as_arithmetic_says(size):
    table = tokens.storage(size)
    patches = math.ceil(size / 16)
    assert table["pixels", "bytes of the array"] == 12 * 2 * size**2
    assert table["tokens", "bytes of the array"] == 2 * patches**2
    assert table["pixels / tokens", "bytes of the array"] == pytest.approx(12 * size**2 / patches**2)
    assert (size % 16 == 0) == np.isclose(table["pixels / tokens", "bytes of the array"], 3072)
    assert table["tokens", "bytes on disk"] > 0

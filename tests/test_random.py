"""Random fields by place: known answers, agreement of numpy and torch, distribution, independence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terramind_xr.noise import Stream, _normal, threefry

# Random123, tests/kat_vectors: threefry2x32 with 20 rounds.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
words = st.integers(0, 2**32 - 1)


def as_numpy(pair):
    return tuple(np.array([word], np.uint32) for word in pair)


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN)
def test_known_answers_of_the_authors(key, counter, answer):
    assert tuple(int(word[0]) for word in threefry(as_numpy(key), as_numpy(counter))) == answer


@given(st.tuples(words, words), st.tuples(words, words))
def test_numpy_and_torch_give_the_same_bits(key, counter):
    import torch

    expected = [int(word[0]) for word in threefry(as_numpy(key), as_numpy(counter))]
    tensors = [tuple(torch.tensor([word]).int() for word in pair) for pair in (key, counter)]
    assert [int(word[0]) % 2**32 for word in threefry(*tensors)] == expected


@given(seed=st.integers(-(2**63), 2**63 - 1), y=st.integers(0, 10**6), x=st.integers(0, 10**6))
def test_numpy_and_torch_give_the_same_noise(seed, y, x):
    import torch

    stream, size = Stream(seed, "DEM/diffusion"), {"height": 32, "width": 48, "bands": 2}
    both = stream.normal_on("cpu", np.array([[y, x], [x, y]]), **size)
    for found, place in zip(both.numpy(), ((y, x), (x, y)), strict=True):
        np.testing.assert_allclose(found, stream.normal(y=place[0], x=place[1], **size), rtol=0, atol=1e-6)
    places, items = np.array([[y], [x], [7]]), np.arange(50)
    uniform = stream.uniform(places, x, torch.from_numpy(items))
    np.testing.assert_array_equal(uniform.numpy(), stream.uniform(places, x, items))
    gumbel = stream.gumbel(places, x, torch.from_numpy(items))
    np.testing.assert_allclose(gumbel.numpy(), stream.gumbel(places, x, items), rtol=0, atol=1e-6)


@given(st.lists(words, min_size=1))
def test_normals_are_those_of_box_and_muller(bits):
    """With the functions of the mathematical library, at any angle."""
    first, second = np.array(bits, np.uint32), np.array(bits[::-1], np.uint32)
    radius = np.sqrt(-2 * np.log((first + 1.0) * 2**-32))
    expected = radius * np.cos(second * (2 * np.pi * 2**-32))
    np.testing.assert_allclose(_normal(first, second), expected, rtol=0, atol=1e-7)


@given(
    y=st.integers(0, 10**6), x=st.integers(0, 10**6), dy=st.integers(0, 40), dx=st.integers(0, 40),
    seed=st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip
def test_overlapping_windows_draw_the_same_noise(y, x, dy, dx, seed):
    stream = Stream(seed, "DEM/diffusion")
    first = stream.normal(y=y, x=x, height=48, width=48, bands=2)
    second = stream.normal(y=y + dy, x=x + dx, height=48, width=48, bands=2)
    np.testing.assert_array_equal(first[:, dy:, dx:], second[:, : 48 - dy, : 48 - dx])


def test_normals_are_standard_normal():
    from scipy import stats

    noise = Stream(1, "NDVI/diffusion").normal(y=0, x=0, height=500, width=500, bands=1)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    assert np.isfinite(noise).all()


def test_gumbels_are_gumbel_distributed():
    from scipy import stats

    noise = Stream(1, "LULC/tokens").gumbel(np.arange(300)[:, None], 7, np.arange(300))
    assert stats.kstest(noise.ravel(), "gumbel_r").pvalue > 0.01


@pytest.mark.parametrize(
    "other",
    [
        Stream(1, "S2L2A/diffusion"),
        Stream(0, "S1GRD/diffusion"),
        Stream(0, "S2L2A/diffusion", step=1),
        Stream(0, "S2L2A/diffusion", sample=1),
        Stream(2**32, "S2L2A/diffusion"),
    ],
)
def test_streams_are_independent(other):
    first = Stream(0, "S2L2A/diffusion").normal(y=0, x=0, height=256, width=256, bands=1).ravel()
    second = other.normal(y=0, x=0, height=256, width=256, bands=1).ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(first.size)


def test_neighbours_and_bands_are_independent():
    noise = Stream(0, "S2L2A/diffusion").normal(y=0, x=0, height=256, width=256, bands=2)
    limit = 4 / np.sqrt(noise[0].size)
    for a, b in [(noise[0], noise[1]), (noise[0, 1:], noise[0, :-1]), (noise[0, :, 1:], noise[0, :, :-1])]:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < limit


def test_gumbel_max_draws_from_the_distribution():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    places = np.arange(20_000)[:, None]
    drawn = (logits + Stream(0, "LULC/tokens").gumbel(places, 0, np.arange(4))).argmax(axis=1)
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, np.exp(logits), atol=0.012)

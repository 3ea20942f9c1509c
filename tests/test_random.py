"""Random fields by place: known answers, agreement of numpy and torch, distribution, independence."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terramind_xr.noise import Stream, _quantiles, splitmix

# First outputs of the reference implementation, https://prng.di.unimi.it/splitmix64.c.
KNOWN = {
    0: (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC),
    1234567: (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431),
}
words = st.integers(0, 2**64 - 1)


def outputs(seed, numbers):
    return splitmix(np.array([seed], np.uint64), np.array(numbers, np.uint64)).tolist()


@pytest.mark.parametrize(("seed", "answers"), KNOWN.items())
def test_known_answers_of_the_authors(seed, answers):
    assert outputs(seed, range(4)) == list(answers)


@given(words, st.lists(words, min_size=1))
def test_numpy_and_torch_give_the_same_bits(seed, numbers):
    import torch

    given = [torch.from_numpy(np.array(each, np.uint64).view(np.int64)) for each in ([seed], numbers)]
    assert splitmix(*given).numpy().view(np.uint64).tolist() == outputs(seed, numbers)


@given(seed=st.integers(-(2**63), 2**63 - 1), y=st.integers(0, 10**6), x=st.integers(0, 10**6))
def test_numpy_and_torch_give_the_same_noise(seed, y, x):
    import torch

    stream, size = Stream(seed, "DEM/diffusion"), {"height": 32, "width": 48, "bands": 6}
    both = stream.normal_on("cpu", np.array([[y, x], [x, y]]), **size)
    for found, place in zip(both.numpy(), ((y, x), (x, y)), strict=True):
        np.testing.assert_array_equal(found, stream.normal(y=place[0], x=place[1], **size))
    places, items = np.array([[y], [x], [7]]), np.arange(50)
    uniform = stream.uniform(places, x, torch.from_numpy(items))
    np.testing.assert_array_equal(uniform.numpy(), stream.uniform(places, x, items))
    gumbel = stream.gumbel(places, x, torch.from_numpy(items))
    np.testing.assert_allclose(gumbel.numpy(), stream.gumbel(places, x, items), rtol=0, atol=1e-6)


def test_normals_are_made_of_quantiles_of_the_normal_distribution():
    from scipy import stats

    found, count = 2 * _quantiles().astype(np.float64), 1 << 16
    expected = stats.norm.ppf((np.arange(count) + 0.5) / count)
    assert found.var() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=0)


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

    for band in Stream(1, "S2L2A/diffusion").normal(y=0, x=0, height=500, width=500, bands=12):
        assert stats.kstest(band.ravel(), "norm").pvalue > 0.01 / 12
        assert np.isfinite(band).all()


def test_tails_of_normals_are_as_long_as_they_should_be():
    from scipy import stats

    noise = Stream(0, "S2L2A/diffusion").normal(y=0, x=0, height=2000, width=1000, bands=12)
    for limit in (3, 4, 5):
        expected = noise.size * 2 * stats.norm.sf(limit)
        assert abs((np.abs(noise) > limit).sum() - expected) < 4 * np.sqrt(expected)


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
    noise = Stream(0, "S2L2A/diffusion").normal(y=0, x=0, height=256, width=256, bands=6)
    pairs = [(noise[0, 1:], noise[0, :-1]), (noise[0, :, 1:], noise[0, :, :-1])]
    pairs += itertools.combinations(noise, 2)
    for a, b in pairs:
        # What four bands share of their bits would show in their squares.
        for both in ((a, b), (a**2, b**2), (np.abs(a), b)):
            first, second = (each.ravel() for each in both)
            assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / np.sqrt(first.size)


def test_gumbel_max_draws_from_the_distribution():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    places = np.arange(20_000)[:, None]
    drawn = (logits + Stream(0, "LULC/tokens").gumbel(places, 0, np.arange(4))).argmax(axis=1)
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, np.exp(logits), atol=0.012)

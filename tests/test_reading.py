"""Regions become layers: whole numbers are standardised tile by tile, others at once, to the same bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terramind_xr.data.units import Conversion
from terramind_xr.facts import modalities
from terramind_xr.kernels.reading import KernelInput

BANDS = len(modalities["S2L2A"].bands)


@given(
    seed=st.integers(0, 99), offset=st.sampled_from([0.0, 1000.0, None]), nodata=st.sampled_from([None, 7]),
    conversion=st.sampled_from([Conversion(), Conversion(scale=0.1, shift=3.0)]), masked=st.booleans(),
    dtype=st.sampled_from(["uint16", "int16", "int32", "int64"]),
)  # fmt: skip
def test_whole_numbers_are_read_as_the_same_floats(seed, offset, nodata, conversion, masked, dtype):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 30, (BANDS, 48, 40)).astype(dtype)
    raw[:, 5:9] = 0
    beside = [np.full_like(raw, 1000)] if offset is None else []
    beside += [rng.random((1, 48, 40)) < 0.1] if masked else []
    given_ = KernelInput("S2L2A", conversion, offset, nodata, masked, check=False)
    one, other = (given_.layer(iter([array, *beside])) for array in (raw, raw.astype(np.float32)))
    np.testing.assert_array_equal(one.valid, other.valid)
    windows = [(slice(y, y + 16), slice(x, x + 16)) for y, x in ((0, 0), (4, 24), (32, 8))]
    for found, expected in ((one.whole(), other.whole()), (one.tiles(windows), other.tiles(windows))):
        assert found.dtype == np.float32
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_is_not_valid_becomes_the_mean_of_the_band(dtype):
    raw = np.full((BANDS, 16, 16), 500, dtype)
    raw[:, 3, 4] = 0
    layer = KernelInput("S2L2A", Conversion(), check=False).layer(iter([raw]))
    assert not layer.valid[3, 4]
    assert not layer.whole()[:, 3, 4].any()
    assert layer.whole()[:, 3, 5].all()

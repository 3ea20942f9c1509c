"""The tile plan: coverage, ownership, partition of unity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terramind_xr.engine.tiling import WEIGHT_ONE, AxisTiling, Tiling
from terramind_xr.errors import OptionError

axes = st.builds(
    AxisTiling,
    size=st.integers(1, 3000),
    overlap=st.sampled_from(range(0, 113, 16)),
    block=st.integers(1, 6),
)


@given(axes)
def test_every_tile_belongs_to_exactly_one_block(axis):
    owned = [tile for block in range(axis.blocks) for tile in axis.owned(block)]
    assert owned == list(range(len(axis.starts)))


@given(axes)
def test_tiles_start_on_patches_and_stay_within_the_padded_scene(axis):
    assert all(start % 16 == 0 for start in axis.starts)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.tile == axis.padded
    assert axis.padded - axis.size < 16 or axis.padded == axis.tile


@given(axes)
def test_weights_sum_to_one_at_every_pixel(axis):
    total = np.zeros(axis.padded, int)
    for index, start in enumerate(axis.starts):
        weights = axis.weights(index)
        assert (weights >= 0).all()
        total[start : start + axis.tile] += weights
    assert (total == WEIGHT_ONE).all()


@given(axes)
def test_blocks_that_touch_a_chunk_cover_it(axis):
    for block in range(axis.blocks):
        chunk = axis.output(block)
        covered = np.zeros(axis.size, bool)
        for other in axis.touching(block):
            extent = axis.extent(other)
            covered[extent.start : extent.stop] = True
        assert covered[chunk.start : chunk.stop].all()


@given(axes)
def test_chunks_are_equal_but_for_a_smaller_last_one(axis):
    *full, last = axis.chunks
    assert set(full) <= {axis.chunk}
    assert axis.chunk % axis.stride == 0
    assert 0 < last <= axis.chunk
    assert sum(axis.chunks) == axis.size


@given(axes)
def test_a_block_reaches_the_chunks_that_it_touches(axis):
    for block in range(axis.blocks):
        assert axis.reached(block) == tuple(
            chunk for chunk in range(axis.blocks) if block in axis.touching(chunk)
        )


def test_a_scene_of_a_hundred_thousand_pixels_has_the_tiles_it_should():
    tiling = Tiling.of((100_000, 100_000))
    assert len(tiling.y.starts) == 521
    assert tiling.shape == (131, 131)


@pytest.mark.parametrize("overlap", [-16, 8, 113, 128, 224, 33])
def test_overlap_must_be_whole_patches_up_to_half_a_tile(overlap):
    with pytest.raises(OptionError, match=f"overlap={overlap} cannot be used.*multiple of 16.*112"):
        AxisTiling(1000, overlap)


def test_empty_scenes_and_blocks_are_refused():
    with pytest.raises(OptionError, match="at least 1 pixel"):
        AxisTiling(0)
    with pytest.raises(OptionError, match="at least 1 tile"):
        AxisTiling(100, block=0)

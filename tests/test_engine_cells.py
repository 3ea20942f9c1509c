"""Patch grids, nearest tiles and several passes: the engine against plain numpy over the whole scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from examples import examples
from terramind_xr.engine import Field, Layer, Output, Source, Tiling, map_tiles
from terramind_xr.engine.tiling import WEIGHT_ONE, AxisTiling, Interval
from terramind_xr.errors import OptionError

OVERLAPS = st.sampled_from(range(0, 113, 16))
SHAPES = st.tuples(st.integers(1, 700), st.integers(1, 500))
HOLE = -1.0


def patchwise(values):
    """Mean of each patch (…, y, x), of whole patches."""
    *lead, height, width = values.shape
    return values.reshape(*lead, height // 16, 16, width // 16, 16).mean(axis=(-3, -1))


@dataclass(frozen=True)
class Tokens:
    """Pixels to codes on the patch grid: what a tile says depends on the tile."""

    @property
    def fields(self):
        return (Field(1, cell=16, merge="nearest"), Field(1))

    @property
    def outputs(self):
        return Output("codes", 0, (), "uint16"), Output("pixels", 1, (), "float32")

    def load(self, regions):
        return [Layer(np.nan_to_num(regions[0]), ~np.isnan(regions[0]).any(axis=0))]

    def run(self, values, valid, places):
        number = (places[:, 0] * 7 + places[:, 1] * 3) % 50
        codes = np.rint(patchwise(values[0])) + number[:, None, None, None]
        return [codes.astype(np.float32), values[0]]

    def finish(self, index, merged, valid):
        if index == 0:
            return np.where(valid, merged[0], 65535).astype(np.uint16)
        return np.where(valid, merged[0], HOLE).astype(np.float32)


@dataclass(frozen=True)
class Pixels:
    """Codes on the patch grid to pixels, beside a layer of pixels."""

    @property
    def fields(self):
        return (Field(1),)

    @property
    def outputs(self):
        return (Output("pixels", 0, (), "float32"),)

    def load(self, regions):
        codes, pixels = regions
        return [Layer(codes.astype(np.float32), codes[0] != 65535, cell=16), Layer(pixels, pixels[0] > 0)]

    def run(self, values, valid, places):
        codes = values[0].repeat(16, axis=-2).repeat(16, axis=-1)
        return [codes + values[1]]

    def finish(self, index, merged, valid):
        return np.where(valid, merged[0], HOLE).astype(np.float32)


@st.composite
def scenes(draw):
    shape = draw(SHAPES)
    values = np.random.default_rng(draw(st.integers(0, 99))).uniform(0, 900, (1, *shape)).astype("float32")
    if draw(st.booleans()):
        values[:, draw(st.integers(0, shape[0] - 1)) :, draw(st.integers(0, shape[1] - 1)) :] = np.nan
    return values, da.from_array(values, chunks=(1, draw(st.integers(20, 400)), draw(st.integers(20, 400))))


def nearest_tiles(values, overlap):
    """Codes of the whole scene: for each patch, of the tile whose centre is nearest, by brute force."""
    height, width = values.shape[-2:]
    tiling = Tiling.of((height, width), overlap=overlap)
    pad = (0, tiling.y.padded - height), (0, tiling.x.padded - width)
    padded = np.pad(values, ((0, 0), *pad), mode="reflect")
    rows, columns = math.ceil(height / 16), math.ceil(width / 16)
    codes = np.full((rows, columns), 65535, "uint16")
    means = patchwise(np.nan_to_num(padded))[0]
    valid = patchwise((~np.isnan(padded)).astype(float))[0] > 0
    tiles = [(y, x) for y in tiling.y.starts for x in tiling.x.starts]
    for row, column in np.ndindex(rows, columns):
        centre = row * 16 + 8, column * 16 + 8
        y, x = min(
            ((y, x) for y, x in tiles if y <= centre[0] < y + 224 and x <= centre[1] < x + 224),
            key=lambda at: (at[0] + 112 - centre[0]) ** 2 + (at[1] + 112 - centre[1]) ** 2,
        )
        if valid[row, column]:
            codes[row, column] = np.rint(means[row, column]) + (y * 7 + x * 3) % 50
    return codes


@settings(max_examples=examples(30))
@given(scene=scenes(), overlap=OVERLAPS, block=st.integers(1, 4), batch_size=st.integers(1, 9))
def test_codes_are_those_of_the_nearest_tile(scene, overlap, block, batch_size):
    values, array = scene
    tiling = Tiling.of(values.shape[-2:], overlap=overlap, block=block)
    codes, pixels = dask.compute(
        *map_tiles([Source(array)], Tokens(), tiling, batch_size=batch_size), scheduler="sync"
    )
    np.testing.assert_array_equal(codes, nearest_tiles(values, overlap))
    np.testing.assert_array_equal(pixels, np.where(np.isnan(values[0]), HOLE, values[0]))


@settings(max_examples=examples(30))
@given(shape=SHAPES, overlap=OVERLAPS, block=st.integers(1, 4), chunk=st.integers(3, 40))
def test_codes_become_pixels(shape, overlap, block, chunk):
    rng = np.random.default_rng(shape[0])
    grid = tuple(math.ceil(side / 16) for side in shape)
    codes = rng.integers(0, 900, (1, *grid)).astype("uint16")
    codes[:, grid[0] // 2 :, grid[1] // 2 :] = 65535
    pixels = np.where(rng.random((1, *shape)) < 0.9, 0.5, 0).astype("float32")
    sources = [Source(da.from_array(codes, chunks=(1, chunk, chunk)), cell=16), Source(da.from_array(pixels))]
    result = map_tiles(sources, Pixels(), Tiling.of(shape, overlap=overlap, block=block))[0].compute()
    spread = codes[0].repeat(16, axis=0).repeat(16, axis=1)[: shape[0], : shape[1]]
    expected = np.where((spread == 65535) & (pixels[0] == 0), HOLE, spread + pixels[0])
    np.testing.assert_array_equal(result, expected)


@given(
    size=st.integers(1, 5000),
    overlap=OVERLAPS,
    block=st.integers(1, 6),
)
def test_a_patch_grid_is_the_same_tiling_counted_in_patches(size, overlap, block):
    pixels = AxisTiling(size, overlap, block)
    patches = pixels.in_cells(16)
    assert patches.starts == tuple(start // 16 for start in pixels.starts)
    assert patches.blocks == pixels.blocks
    for each in range(pixels.blocks):
        assert patches.owned(each) == pixels.owned(each)
        assert patches.touching(each) == pixels.touching(each)


AXES = st.builds(
    AxisTiling,
    size=st.integers(1, 3000),
    overlap=OVERLAPS,
    block=st.integers(1, 6),
    shifts=st.just((0, 8)),
)


@given(AXES, st.sampled_from(["blend", "nearest"]))
def test_weights_of_each_pass_sum_to_one_where_it_covers(axis, merge):
    for shift, starts in axis.passes.items():
        total = np.zeros(axis.padded, int)
        for index, start in enumerate(starts):
            total[start : start + axis.tile] += axis.weights(index, shift, merge)
        expected = np.zeros(axis.padded, int)
        expected[axis.covered(shift).start : axis.covered(shift).stop] = WEIGHT_ONE
        np.testing.assert_array_equal(total, expected)
        owned = [tile for block in range(axis.blocks) for tile in axis.owned(block, shift)]
        assert owned == list(range(len(starts)))


@dataclass(frozen=True)
class Numbered(Tokens):
    """Each tile says a number of its own, as tiles of a model differ."""

    @property
    def fields(self):
        return (Field(1),)

    @property
    def outputs(self):
        return (Output("numbers", 0, (), "float64"),)

    def run(self, values, valid, places):
        return [np.ones_like(values[0]) * ((places[:, 0] * 7 + places[:, 1] * 3) % 50)[:, None, None, None]]

    def finish(self, index, merged, valid):
        return merged[0]


def averaged(shape, overlap, phases):
    """The mean over the passes that reach a pixel, of each pass's own blended scene."""
    tiling = Tiling.of(shape, overlap=overlap, shifts=phases)
    total, count = np.zeros((tiling.y.padded, tiling.x.padded)), np.zeros((tiling.y.padded, tiling.x.padded))
    for sy, sx in tiling.phases:
        for i, y in enumerate(tiling.y.passes[sy]):
            for j, x in enumerate(tiling.x.passes[sx]):
                weight = np.outer(tiling.y.weights(i, sy), tiling.x.weights(j, sx)) / WEIGHT_ONE**2
                total[y : y + 224, x : x + 224] += weight * ((y * 7 + x * 3) % 50)
                count[y : y + 224, x : x + 224] += weight
    return (total / np.rint(count))[: shape[0], : shape[1]]


@settings(max_examples=examples(25))
@given(shape=SHAPES, overlap=OVERLAPS, block=st.integers(1, 3), shifts=st.sampled_from([1, 2, 4]))
def test_passes_are_averaged(shape, overlap, block, shifts):
    array = da.ones((1, *shape), chunks=(1, 130, 170), dtype="float32")
    tiling = Tiling.of(shape, overlap=overlap, block=block, shifts=shifts)
    result = map_tiles([Source(array)], Numbered(), tiling)[0].compute(scheduler="sync")
    np.testing.assert_allclose(result, averaged(shape, overlap, shifts), rtol=1e-6)
    assert tiling.tiles == len(
        {(p.y, p.x) for r, c in np.ndindex(*tiling.shape) for p in tiling.places(r, c)}
    )


@settings(max_examples=examples(20))
@given(scene=scenes(), overlap=OVERLAPS, shifts=st.sampled_from([2, 4]))
def test_several_passes_change_no_pixel_of_the_identity(scene, overlap, shifts):
    values, array = scene
    tiling = Tiling.of(values.shape[-2:], overlap=overlap, block=2, shifts=shifts)
    codes, pixels = dask.compute(*map_tiles([Source(array)], Tokens(), tiling), scheduler="sync")
    np.testing.assert_array_equal(pixels, np.where(np.isnan(values[0]), HOLE, values[0]))
    np.testing.assert_array_equal(codes, nearest_tiles(values, overlap))


def test_the_number_of_passes_at_a_pixel():
    tiling = Tiling.of((300, 500), shifts=4)
    count = tiling.passes_at(Interval(0, 300), Interval(0, 500))
    assert (count[0, 0], count[0, 100], count[100, 0], count[100, 100]) == (1, 2, 2, 4)
    assert Tiling.of((200, 500), shifts=2).phases == ((0, 0),)  # too small for a second pass


@pytest.mark.parametrize("shifts", [0, 3, True, "2", None, 2.5])
def test_other_numbers_of_passes_are_refused(shifts):
    with pytest.raises(OptionError, match="shifts="):
        Tiling.of((300, 300), shifts=shifts)


@dataclass(frozen=True)
class OneATile:
    """The mean of a tile, beside its pixels."""

    alone: bool = False

    @property
    def fields(self):
        mean = Field(2, merge="tile")
        return (mean,) if self.alone else (Field(1), mean)

    @property
    def outputs(self):
        mean = Output("mean", len(self.fields) - 1, (2,), "float32")
        return (mean,) if self.alone else (Output("pixels", 0, (), "float32"), mean)

    def load(self, regions):
        return [Layer(np.nan_to_num(regions[0]), ~np.isnan(regions[0]).any(axis=0))]

    def run(self, values, valid, places):
        mean = values[0].mean(axis=(1, 2, 3))[:, None, None, None]
        both = np.concatenate([mean, places[:, :1, None, None] + mean * 0], axis=1)
        return [both] if self.alone else [values[0], both]

    def finish(self, index, merged, valid):
        if merged.shape[0] == 2:
            return np.where(valid, merged, HOLE).astype(np.float32)
        return np.where(valid, merged[0], HOLE).astype(np.float32)


@settings(max_examples=examples(40))
@given(SHAPES, OVERLAPS, st.integers(1, 3), st.sampled_from((1, 2)), st.booleans(), st.integers(50, 400))
@example((500, 400), 32, 2, 2, False, 300)
def test_a_value_of_each_tile_belongs_to_that_tile(shape, overlap, block, shifts, alone, chunk):
    scene = np.random.default_rng(0).integers(0, 9, (1, *shape)).astype(np.float32)
    scene[:, : shape[0] // 2, : shape[1] // 2] = np.nan
    tiling = Tiling.of(shape, overlap=overlap, block=block, shifts=shifts)
    source = da.from_array(scene, chunks=(1, chunk, chunk))
    found = map_tiles([Source(source)], OneATile(alone), tiling, batch_size=3)[-1]
    padded = np.pad(
        scene,
        ((0, 0), *((0, axis.padded - axis.size) for axis in (tiling.y, tiling.x))),
        mode="reflect",
    )
    expected = np.full((2, len(tiling.y.starts), len(tiling.x.starts)), HOLE, np.float32)
    for i, y in enumerate(tiling.y.starts):
        for j, x in enumerate(tiling.x.starts):
            tile = padded[:, y : y + 224, x : x + 224]
            if not np.isnan(tile).all():
                expected[:, i, j] = np.nan_to_num(tile).mean(), y
    assert found.shape == expected.shape
    assert sum(found.chunks[1]) == len(tiling.y.starts)
    np.testing.assert_array_equal(found.compute(scheduler="sync"), expected)


def test_what_is_reflected_beyond_the_scene_makes_no_patch_valid():
    """4 pixels of the last patch lie in the scene, none with data; their reflection has some."""
    values = np.random.default_rng(0).normal(size=(1, 244, 244)).astype("float32")
    values[..., 240:] = np.nan
    codes, pixels = map_tiles([Source(da.from_array(values))], Tokens(), Tiling.of((244, 244)))
    assert (codes.compute()[:, -1] == 65535).all()
    assert (codes.compute()[:, :-1] != 65535).all()
    assert (pixels.compute()[:, 240:] == HOLE).all()

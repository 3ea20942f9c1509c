"""`decoding` and `shifts`: what they mean, and that the laws hold for every combination."""

import dask
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from terramind_xr import OptionError
from terramind_xr.engine import Tiling
from terramind_xr.engine.cost import estimate
from terramind_xr.engine.graph import Source
from terramind_xr.kernels import GenerateKernel
from terramind_xr.model import chain
from terramind_xr.model.batch import Batch, Target
from terramind_xr.model.decoding import decode_expected, decode_tokens
from terramind_xr.model.drawing import draw
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling, sample_tokens
from terramind_xr.model.tokens import encode
from terramind_xr.noise import Stream

CPU = Execution(device="cpu")
PLACES = np.array([[0, 0], [8, 8], [192, 64], [8, 200]])
WAYS = [
    {"decoding": "expected", "shifts": 1},
    {"decoding": "expected", "shifts": 2},
    {"decoding": "argmax", "shifts": 4},
    {"temperature": 1.0, "shifts": 2},
]


@pytest.fixture(scope="module")
def scene():
    """A scene of 2 by 2 blocks of one tile, in memory."""
    return terramind_xr.synthetic.scene((250, 290), seed=5, modalities=("S2L2A", "LULC")).load()


def generate(ds, outputs=("LULC", "NDVI"), **options):
    options = {"model": "demo", "inputs": ["S2L2A"], "diffusion_steps": 1} | options
    with terramind_xr.set_options(block=1):
        return ds.terramind.generate(outputs, **options)


def same_bytes(first, second):
    return all(first[name].values.tobytes() == second[name].values.tobytes() for name in first)


def test_the_expected_code_is_decoded_and_tokens_condition_what_follows():
    """The chain against its stages: land cover from its logits, NDVI conditioned on land-cover tokens."""
    recipe, sampling = find("demo", ["LULC", "NDVI"]), Sampling(decoding="expected", diffusion_steps=1)
    grid = (4, 14, 14)
    pixels = np.random.default_rng(0).normal(size=(4, 12, 224, 224)).astype(np.float32)
    batch = Batch({"S2L2A": pixels}, {"S2L2A": np.ones(grid, bool)}, PLACES)
    made = chain.generate(recipe, batch, ("LULC", "NDVI"), sampling, CPU)
    with session(CPU) as device:
        known = encode(recipe, batch, device)
        land = draw(recipe, known, Target.hidden("LULC", grid), PLACES, sampling, device)
        known["tok_lulc@224"] = land.known()
        ndvi = draw(recipe, known, Target.hidden("NDVI", grid), PLACES, sampling, device)
    for name, drawn in (("LULC", land), ("NDVI", ndvi)):
        logits, tokens = drawn.logits.numpy(), drawn.tokens.numpy()
        expected = decode_expected(recipe, name, logits, PLACES, sampling, CPU)
        np.testing.assert_array_equal(made[name], expected)
        assert (expected != decode_tokens(recipe, name, tokens, PLACES, sampling, CPU)).any()


@pytest.mark.parametrize("way", WAYS, ids=str)
@settings(max_examples=examples(3))
@given(data=st.data())
def test_chunking_changes_no_byte(scene, way, data):
    chunks = {"y": data.draw(st.integers(20, 250)), "x": data.draw(st.integers(20, 290))}
    chunked = generate(scene.chunk(chunks), **way).compute(scheduler="threads")
    assert same_bytes(chunked, reference(scene, way))


_references = {}


def reference(scene, way):
    if str(way) not in _references:
        _references[str(way)] = generate(scene, **way)
    return _references[str(way)]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_batch_size_changes_next_to_nothing(scene, way):
    one = generate(scene, batch_size=1, **way)
    expected = reference(scene, way)
    assert float((one.LULC == expected.LULC).mean()) > 0.999
    assert float(abs(one.NDVI - expected.NDVI).mean()) < 1e-3


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_scene_that_runs_the_other_way_gives_the_same_pixels(scene, way):
    turned = generate(scene.isel(y=slice(None, None, -1), x=slice(None, None, -1)), **way)
    back = turned.isel(y=slice(None, None, -1), x=slice(None, None, -1))
    assert same_bytes(back, reference(scene, way))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nodata_stays_nodata(scene, way):
    holed = scene.copy(deep=True)
    holed.S2L2A[:, 40:90, 200:] = 0
    result = generate(holed, **way)
    empty = np.zeros(result.LULC.shape, bool)
    empty[40:90, 200:] = True
    assert (result.LULC.values[empty] == 0).all()
    np.testing.assert_array_equal(np.isnan(result.NDVI), empty)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no coordinates to measure")
@settings(max_examples=examples(6))
@given(
    shape=st.tuples(st.integers(1, 224), st.integers(1, 300)),
    shifts=st.sampled_from([2, 4]),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_a_scene_too_small_for_a_second_pass_has_one(shape, shifts, temperature):
    ds = terramind_xr.synthetic.scene(shape, modalities=("S2L2A",)).load()
    options = {"temperature": temperature, "shifts": shifts}
    made = generate(ds, **options)
    if len(Tiling.of(shape, shifts=shifts).phases) == 1:
        assert same_bytes(made, generate(ds, **options | {"shifts": 1}))
    assert made.LULC.attrs["terramind_shifts"] == shifts
    assert (made.LULC > 0).any()


def test_probabilities_are_the_mean_of_the_passes(scene):
    """Each pass by itself is what one pass gives on the scene that begins where its tiles do."""
    scene = scene.isel(y=slice(240), x=slice(288))
    both = generate(scene, ["LULC"], shifts=2, probabilities=True).LULC
    np.testing.assert_allclose(both.sum("lulc_class"), 1, atol=1e-5)
    np.testing.assert_array_equal(both.argmax("lulc_class"), generate(scene, ["LULC"], shifts=2).LULC)
    first = generate(scene, ["LULC"], probabilities=True).LULC
    # The tiles of the second pass cover all but 8 pixels at each side.
    np.testing.assert_allclose(both[:, :8], first[:, :8], atol=1e-6)
    inner = scene.isel(y=slice(8, 232), x=slice(8, 280))
    second = generate(inner, ["LULC"], probabilities=True).LULC
    wanted = (first[:, 8:232, 8:280].values + second.values) / 2
    np.testing.assert_allclose(both[:, 8:232, 8:280], wanted, atol=1e-5)


def test_tiles_of_further_passes_draw_from_streams_of_their_own():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4, 14, 14, 60)).astype(np.float32))
    sampling, stream = Sampling(temperature=1.0, top_p=0.0), Stream(0, "LULC/tokens")
    together = sample_tokens(logits, PLACES, stream, sampling)
    for tile, place in enumerate(PLACES):
        alone = sample_tokens(logits[tile : tile + 1], PLACES[tile : tile + 1], stream, sampling)
        assert torch.equal(alone[0], together[tile])
        if place.any() and place[0] == 8:
            shift = f"{place[0] % 16}-{place[1] % 16}"
            named = Stream(0, f"LULC/tokens/{shift}")
            at_patches = place[None] // 16 * 16
            wanted = sample_tokens(logits[tile : tile + 1], at_patches, named, sampling)
            assert torch.equal(wanted[0], together[tile])
            first_pass = sample_tokens(logits[tile : tile + 1], at_patches, stream, sampling)
            assert not torch.equal(first_pass[0], together[tile])


@pytest.mark.slow
def test_blocks_of_a_patch_show_less():
    ds = terramind_xr.synthetic.scene(500, seed=3, modalities=("S2L2A", "LULC")).load()
    ways = [{}, {"decoding": "expected"}, {"decoding": "expected", "shifts": 2}]
    made = [generate(ds, ["LULC"], **way).LULC for way in ways]
    plans = [ds[["S2L2A"]].terramind.plan("LULC", model="demo", shifts=way.get("shifts", 1)) for way in ways]
    patches = [each.terramind.seam_index(plan).patch for each, plan in zip(made, plans, strict=True)]
    agreements = [float((each == ds.LULC).mean()) for each in made]
    assert patches[0] > 2 * patches[1] > 2 * patches[2]
    assert agreements[2] > agreements[0] + 0.01


def test_the_attributes_say_how_it_was_decoded(scene):
    result = reference(scene, WAYS[1])
    for each in result.values():
        assert each.attrs["terramind_decoding"] == "expected"
        assert each.attrs["terramind_shifts"] == 2
    plain = reference(scene, WAYS[3]).LULC.attrs
    assert (plain["terramind_decoding"], type(plain["terramind_shifts"])) == ("argmax", int)


def test_other_options_have_other_names(scene):
    names = {generate(scene.chunk(), ["LULC"], **way).LULC.data.name for way in ({}, *WAYS)}
    assert len(names) == 1 + len(WAYS)


FAULTY = {
    "shifts": ({"shifts": 3}, "shifts=3 cannot be used: expected 1, 2 or 4"),
    "shifts a list": ({"shifts": [2]}, r"shifts=\[2\] cannot be used"),
    "shifts a float": ({"shifts": 2.0}, r"shifts=2.0 cannot be used"),
    "decoding": ({"decoding": "mean"}, "decoding='mean' cannot be used: expected 'argmax' or 'expected'"),
    "decoding a list": ({"decoding": ["argmax"]}, "cannot be used: expected 'argmax' or 'expected'"),
    "drawn": ({"decoding": "expected", "temperature": 1.0}, "temperature=1.0.*Leave out temperature"),
}


@pytest.mark.parametrize(("options", "message"), FAULTY.values(), ids=FAULTY)
def test_impossible_options_are_refused_at_the_call(scene, options, message):
    with pytest.raises(OptionError, match=message):
        generate(scene.chunk(), **options)
    if "shifts" in options:
        with pytest.raises(OptionError, match=message):
            scene.terramind.plan("LULC", model="demo", inputs=["S2L2A"], **options)


def test_a_plan_counts_the_tiles_of_all_passes(scene):
    plans = [
        scene.terramind.plan("LULC", model="demo", inputs=["S2L2A"], shifts=shifts) for shifts in (1, 2, 4)
    ]
    # Padded to 256 × 304 pixels: 2 × 2 tiles; in a shifted pass 2 along each axis, too.
    assert [plan.tiles for plan in plans] == [4, 8, 16]
    assert [plan.shifts for plan in plans] == [1, 2, 4]
    assert len({plan.blocks for plan in plans}) == 1
    assert "shifts" in repr(plans[1])


@settings(max_examples=examples(30))
@given(
    shape=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    overlap=st.sampled_from(range(0, 113, 16)),
    block=st.integers(1, 5),
    shifts=st.sampled_from([1, 2, 4]),
)
def test_a_plan_counts_the_largest_block(shape, overlap, block, shifts):
    tiling = Tiling.of(shape, overlap=overlap, block=block, shifts=shifts)
    kernel = GenerateKernel(find("demo", ["LULC"]), (), ("LULC",), Sampling(), CPU)
    source = Source(dask.array.zeros((12, *shape), dtype="uint16", chunks=-1))
    found = estimate([source], kernel, tiling, (), 1)
    extents = [
        [axis.extent(block) for block in range(axis.blocks) if axis.extent(block)]
        for axis in (tiling.y, tiling.x)
    ]
    pixels = max(len(each) for each in extents[0]) * max(len(each) for each in extents[1])
    chunk = max(tiling.y.chunks) * max(tiling.x.chunks)
    batch = 224**2 * 4 * (12 + 2 * 10)
    most = max(len(list(tiling.places(*block))) for block in np.ndindex(*tiling.shape))
    least = pixels * (24 + 48) + batch + 4 * 10 * 224**2 * most + chunk
    assert found["block_memory"] >= least
    assert found["tiles"] == tiling.tiles
    if shape[0] <= tiling.y.chunk and shape[1] <= tiling.x.chunk:
        assert found["margin_memory"] == 0  # one block has no neighbour
        assert found["block_memory"] == least

"""Token rasters as inputs of generate: the laws, where they must lie, and what is refused."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import InputError, OptionError, WeightsError
from terramind_xr.model import recipe

NODATA = 65535
TIMES = np.array(["2024-05-01", "2024-07-01"], "datetime64[ns]")
backwards = slice(None, None, -1)


@pytest.fixture(scope="module", autouse=True)
def demo():
    with terramind_xr.set_options(model="demo", block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    names = ("S2L2A", "S1GRD", "DEM", "LULC", "NDVI")
    return terramind_xr.synthetic.scene((300, 250), seed=5, modalities=names).compute()


@pytest.fixture(scope="module")
def tokens(scene):
    return {name: scene.terramind.tokenize(name) for name in ("S1GRD", "DEM", "LULC", "NDVI")}


@pytest.fixture(scope="module")
def expected(scene, tokens):
    return scene.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": tokens["DEM"]})


def bytes_of(result):
    return result.compute(scheduler="sync").values.tobytes()


@pytest.mark.parametrize(("name", "output"), [("LULC", "NDVI"), ("NDVI", "LULC")])
@pytest.mark.parametrize("others", [[], ["S2L2A"]])
def test_tokens_are_what_the_model_makes_of_a_map(scene, name, output, others):
    """On one tile, byte for byte: the map is tokenized on the way in."""
    tile = scene.isel(y=slice(224), x=slice(224))
    tokens = tile.terramind.tokenize(name)
    options = {"diffusion_steps": 1}
    by_map = tile.terramind.generate(output, inputs=[*others, name], **options)
    by_tokens = tile.terramind.generate(output, inputs={**dict.fromkeys(others), name: tokens}, **options)
    assert by_tokens.values.tobytes() == by_map.values.tobytes()
    xr.testing.assert_identical(by_tokens.drop_attrs(), by_map.drop_attrs())
    if not others:
        alone = tokens.terramind.generate(output, **options)
        xr.testing.assert_identical(alone.drop_attrs(), by_map.drop_attrs())


def test_tiles_that_do_not_overlap_are_those_of_the_map():
    tiles = terramind_xr.synthetic.scene((224, 448), seed=2, modalities=("NDVI",)).compute()
    by_map = tiles.terramind.generate("LULC", inputs=["NDVI"], overlap=0)
    tokens = tiles.terramind.tokenize("NDVI", overlap=0)
    assert tokens.terramind.generate("LULC", overlap=0).values.tobytes() == by_map.values.tobytes()


def test_tokens_condition_what_is_generated(scene, tokens, expected):
    without = scene.terramind.generate("LULC", inputs=["S2L2A"])
    assert (expected != without).any()
    other = tokens["DEM"].copy(data=(tokens["DEM"].values + 1) % 1600)
    changed = scene.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": other})
    assert (expected != changed).any()


@pytest.mark.parametrize("names", [("DEM",), ("S1GRD", "DEM", "NDVI")])
def test_tokens_alone_lie_where_their_pixels_lay(scene, tokens, names):
    given = {name: tokens[name] for name in names}
    result = xr.Dataset({f"{name}_tokens": each for name, each in given.items()}).terramind.generate(
        "LULC", inputs=list(names)
    )
    assert result.shape == (300, 250)
    np.testing.assert_allclose(result.y, scene.y)
    np.testing.assert_allclose(result.x, scene.x)
    assert result.rio.crs == scene.rio.crs
    assert result.rio.transform(recalc=True) == scene.LULC.rio.transform(recalc=True)
    assert result.attrs["terramind_inputs"] == " ".join(names)
    again = tokens["LULC"].terramind.generate("LULC", inputs=given)
    assert again.values.tobytes() == result.values.tobytes()


def test_tokens_are_found_like_pixels(scene, tokens):
    """LULC and NDVI only when named, or where there is nothing else; other dims may be beside pixels."""
    both = xr.Dataset({"a": tokens["DEM"], "b": tokens["NDVI"]})
    assert both.terramind.generate("LULC").attrs["terramind_inputs"] == "DEM"
    assert both[["b"]].terramind.generate("LULC").attrs["terramind_inputs"] == "NDVI"
    patches = tokens["DEM"].rename(y="patch_y", x="patch_x").rename("DEM_tokens")
    ds = scene[["S2L2A"]].assign(DEM_tokens=patches)
    by_name = {"S2L2A": None, "DEM": "DEM_tokens"}
    for inputs in (None, ["S2L2A", "DEM"], by_name):
        result = ds.terramind.generate("LULC", inputs=inputs)
        assert result.dims == ("y", "x")
        assert result.attrs["terramind_inputs"] == "S2L2A DEM"
    assert ds.terramind.plan("LULC").inputs == ("S2L2A", "DEM")


@settings(max_examples=examples(8))
@given(
    chunks=st.tuples(st.integers(30, 300), st.integers(30, 250)),
    patches=st.tuples(st.integers(1, 19), st.integers(1, 16)),
    batch_size=st.sampled_from([1, 3, 8]),
    are_lazy=st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_chunks_change_no_byte(scene, tokens, expected, chunks, patches, batch_size, are_lazy):
    ds, raster = scene[["S2L2A"]], tokens["DEM"]
    ds = ds.chunk({"y": chunks[0], "x": chunks[1]}) if are_lazy[0] else ds
    raster = raster.chunk({"y": patches[0], "x": patches[1]}) if are_lazy[1] else raster
    result = ds.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": raster}, batch_size=batch_size)
    assert dask.is_dask_collection(result)
    assert bytes_of(result) == expected.values.tobytes()
    alone = raster.terramind.generate("LULC", batch_size=batch_size)
    assert alone.values.tobytes() == tokens["DEM"].terramind.generate("LULC").values.tobytes()


@pytest.mark.parametrize("dims", [("y",), ("x", "y")])
def test_the_model_sees_tokens_north_up(scene, tokens, expected, dims):
    turn = dict.fromkeys(dims, backwards)
    turned, upright = scene.isel(turn), tokens["DEM"]
    own = turned.terramind.tokenize("DEM")
    np.testing.assert_array_equal(own.isel(turn), upright)
    for ds, raster in ((turned, own), (turned, upright), (scene, own)):
        result = ds.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": raster})
        xr.testing.assert_equal(result.sortby("y", ascending=False).sortby("x"), expected)
        np.testing.assert_array_equal(result.y, ds.y)
    alone = own.terramind.generate("LULC")
    np.testing.assert_allclose(alone.y, turned.y)
    np.testing.assert_array_equal(alone.isel(turn), upright.terramind.generate("LULC"))


def test_patches_without_tokens_are_hidden_and_come_out_as_nodata(scene, tokens):
    holed = tokens["DEM"].copy()
    holed[2:4, 5:7] = NODATA
    result = holed.terramind.generate("LULC")
    hole = np.zeros((300, 250), bool)
    hole[32:64, 80:112] = True
    np.testing.assert_array_equal(result == 0, hole)
    # As a map with the same hole does, on one tile.
    tile = scene.isel(y=slice(224), x=slice(224))
    gaps = tile.NDVI.copy()
    gaps[32:64, 80:112] = np.nan
    by_map = gaps.to_dataset(name="NDVI").terramind.generate("LULC", inputs=["NDVI"])
    by_tokens = gaps.to_dataset(name="NDVI").terramind.tokenize("NDVI").terramind.generate("LULC")
    assert by_tokens.values.tobytes() == by_map.values.tobytes()
    # A pixel is valid where any input is, and what is hidden may not be looked at.
    both = {"S2L2A": None, "DEM": holed}
    assert (scene.terramind.generate("LULC", inputs=both) > 0).all()
    dark = scene[["S2L2A"]].copy(deep=True)
    dark["S2L2A"][:, 30:70, 70:120] = 0
    np.testing.assert_array_equal(dark.terramind.generate("LULC", inputs=both) == 0, hole)


def test_a_scene_without_any_token_is_all_nodata(tokens):
    empty = tokens["DEM"].copy(data=np.full_like(tokens["DEM"], NODATA))
    with pytest.warns(terramind_xr.TerramindWarning, match="no valid pixel"):
        assert (empty.terramind.generate("LULC") == 0).all()


def test_dates_are_carried(scene, tokens):
    first = tokens["DEM"]
    second = first.copy(data=(first.values + 3) % 1600)
    dated = xr.concat([first, second], xr.Variable("time", TIMES)).assign_attrs(first.attrs)
    both = dated.chunk({"time": 1}).terramind.generate("LULC")
    assert both.dims == ("time", "y", "x")
    np.testing.assert_array_equal(both.time, TIMES)
    for date, raster in zip(both, (first, second), strict=True):
        np.testing.assert_array_equal(date, raster.terramind.generate("LULC"))
    series = xr.concat([scene.S2L2A] * 2, xr.Variable("time", TIMES)).assign_attrs(scene.S2L2A.attrs)
    ds = series.to_dataset(name="S2L2A")
    each = [scene.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": one}) for one in (first, second)]
    for raster, wanted in ((dated, each), (first, [each[0]] * 2)):
        found = ds.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": raster})
        np.testing.assert_array_equal(found, wanted)
    found = scene.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": dated.transpose("y", "time", "x")})
    np.testing.assert_array_equal(found.transpose("time", "y", "x"), each)


def test_nothing_is_read_at_the_call_and_eager_stays_eager(scene, tokens):
    lazy = unreadable(tokens["DEM"], "dask")
    result = scene.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": lazy})
    with pytest.raises(AssertionError, match="a pixel was read"):
        result.compute(scheduler="sync")
    scene.terramind.plan("LULC", inputs={"S2L2A": None, "DEM": lazy})
    assert not dask.is_dask_collection(tokens["DEM"].terramind.generate("LULC"))


def test_files_keep_what_an_input_takes(tokens, tmp_path):
    expected = tokens["DEM"].terramind.generate("LULC")
    tokens["DEM"].to_netcdf(tmp_path / "t.nc")
    tokens["DEM"].chunk({"y": 10}).terramind.to_zarr(tmp_path / "t.zarr", progress=False)
    for stored in (xr.open_dataset(tmp_path / "t.nc"), xr.open_zarr(tmp_path / "t.zarr")):
        result = stored.terramind.generate("LULC")
        assert bytes_of(result) == expected.values.tobytes()
        assert result.rio.crs == expected.rio.crs
        beside = tokens["LULC"].terramind.generate("LULC", inputs={"DEM": stored})
        assert bytes_of(beside) == expected.values.tobytes()


def test_a_crop_of_both_needs_no_attributes(scene, tokens):
    """The pixels say how many there are."""
    part = scene.isel(y=slice(32, 132), x=slice(48, 248))
    crop = tokens["DEM"][2:9, 3:16].drop_attrs()
    result = part.terramind.generate("LULC", inputs={"S2L2A": None, "DEM": crop})
    assert result.shape == (100, 200)


def test_the_digest_of_the_tokens_is_recorded(scene, tokens, expected):
    digest = tokens["DEM"].attrs["terramind_DEM_sha256"]
    assert expected.attrs["terramind_inputs"] == "S2L2A DEM"
    assert expected.attrs["terramind_token_inputs"] == f"DEM: {digest}"
    assert "terramind_tokens" not in expected.attrs  # it is no token raster
    nameless = tokens["DEM"].copy()
    del nameless.attrs["terramind_DEM_sha256"]
    told = nameless.terramind.generate("LULC").attrs["terramind_token_inputs"]
    assert told == "DEM: not recorded"


def test_a_mask_of_pixels_goes_with_tokens(scene, tokens):
    mask = xr.zeros_like(scene.DEM, dtype=bool)
    mask[:100] = True
    inputs = {"S2L2A": None, "DEM": tokens["DEM"]}
    result = scene.terramind.generate("LULC", inputs=inputs, mask={"S2L2A": mask})
    assert (result > 0).all()  # the tokens are there still
    for wrong in (mask, {"DEM": mask}):
        with pytest.raises(InputError, match=r"mask: one for DEM.*mask={'S2L2A': …}.*65535"):
            scene.terramind.generate("LULC", inputs=inputs, mask=wrong)
    with pytest.raises(InputError, match="mask: one for DEM"):
        tokens["DEM"].terramind.generate("LULC", mask=mask)


def moved(tokens, metres):
    return tokens.assign_coords(x=tokens.x + metres)


def dated(tokens, times):
    return xr.concat([tokens] * len(times), xr.Variable("time", times)).assign_attrs(tokens.attrs)


FAULTY = {
    "elsewhere": (lambda t: {"DEM": moved(t, 160.0)}, {}, InputError, "grid.*'x' differs by up to 160"),
    "a little off": (lambda t: {"DEM": moved(t, 1.0)}, {}, InputError, "grid.*'x' differs by up to 1"),
    "a part": (lambda t: {"DEM": t[:10]}, {}, InputError, "10 × 16 patches against 19 × 16.*cut both alike"),
    "other CRS": (
        lambda t: {"DEM": t.rio.write_crs("EPSG:32633")}, {}, InputError, "CRS EPSG:32633 against EPSG:32632",
    ),
    "no coordinates": (
        lambda t: {"DEM": t.drop_vars(["y", "x"])}, {}, InputError, "only one of them has coordinates.*'y'",
    ),
    "pixels": (lambda t: {"DEM": t.astype("float32")}, {}, InputError, "float32; expected whole numbers"),
    "other modality": (lambda t: {"S1GRD": t}, {}, OptionError, "'S1GRD' was given, but DEM_tokens.*of DEM"),
    "no tokens of it": (lambda t: {"RGB": t.drop_attrs()}, {}, OptionError, "RGB has no tokens"),
    "unknown": (lambda t: {"DEMM": t}, {}, OptionError, "unknown modality 'DEMM'"),
    "output": (lambda t: {"DEM": t}, {"outputs": "DEM"}, OptionError, "DEM is named as input and as output"),
    "shifts": (lambda t: {"DEM": t}, {"shifts": 2}, OptionError, r"shifts=2 cannot.*as inputs \(DEM\)"),
    "not a dict": (lambda t: t, {}, OptionError, r"inputs is a DataArray.*inputs={'DEM': tokens}"),
    "numpy": (lambda t: {"DEM": t.values}, {}, OptionError, "ndarray for DEM; expected.*in a DataArray"),
    "no names": (lambda t: 5, {}, OptionError, "inputs=5 cannot be used"),
    "other tokenizer": (
        lambda t: {"DEM": t.assign_attrs(terramind_DEM_sha256="0" * 64, terramind_model="base")},
        {}, InputError, r"made by base \(tokenizer 0{12}…\), expected those of demo.*Use the model",
    ),
    "a date": (lambda t: {"DEM": dated(t, TIMES[:1])}, {"dates": 2}, InputError, "1 places along 'time'"),
    "other dates": (lambda t: {"DEM": dated(t, TIMES[::-1])}, {"dates": 2}, InputError, "in the same order"),
    "one of two dates": (
        lambda t: {"DEM": dated(t, TIMES)[0]}, {"dates": 2}, InputError, r"one time.*drop_vars\('time'\)",
    ),
    "out of the vocabulary": (
        lambda t: {"DEM": t.where(t.y < float(t.y[3]), 1600).astype("uint16")},
        {}, InputError, "the token 1600, expected 0 to 1599, the vocabulary of DEM in demo",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "options", "error", "message"), FAULTY.values(), ids=FAULTY)
def test_what_cannot_be_an_input_is_refused_in_one_error(scene, tokens, break_it, options, error, message):
    inputs = break_it(tokens["DEM"])
    ds = scene
    if options.get("dates"):
        series = xr.concat([scene.S2L2A] * 2, xr.Variable("time", TIMES)).assign_attrs(scene.S2L2A.attrs)
        ds = series.to_dataset(name="S2L2A")
    inputs = {"S2L2A": None, **inputs} if isinstance(inputs, dict) else inputs
    options = {"outputs": "LULC"} | {key: value for key, value in options.items() if key != "dates"}
    with pytest.raises(error, match=f"(?s){message}"):
        ds.terramind.generate(inputs=inputs, **options)


def test_all_faults_of_tokens_come_at_once(scene, tokens):
    inputs = {"S2L2A": None, "DEM": moved(tokens["DEM"], 5.0), "NDVI": tokens["NDVI"][1:]}
    with pytest.raises(InputError, match=r"(?s)2 faults.*DEM_tokens: .*NDVI_tokens: ") as caught:
        scene.terramind.generate("LULC", inputs=inputs)
    assert len(caught.value.faults) == 2


def test_what_is_there_twice_is_refused(scene, tokens):
    patches = tokens["DEM"].rename(y="patch_y", x="patch_x")
    for inputs in (None, ["DEM"]):
        with pytest.raises(InputError, match="DEM: found as pixels and as tokens.*inputs={'DEM': 'tokens'}"):
            scene.assign(tokens=patches).terramind.generate("LULC", inputs=inputs)
    two = xr.Dataset({"a": tokens["DEM"], "b": tokens["DEM"]})
    with pytest.raises(InputError, match="a, b: found 2 token rasters of DEM.*inputs={'DEM': 'a'}"):
        two.terramind.generate("LULC")
    assert two.terramind.generate("LULC", inputs={"DEM": "b"}).shape == (300, 250)


def test_tokens_of_the_output_alone_are_no_input(tokens):
    with pytest.raises(InputError, match="found tokens of LULC, which is to be generated"):
        tokens["LULC"].terramind.generate("LULC")


def test_tokens_without_their_shape_need_pixels_beside(tokens):
    bare = tokens["DEM"].copy()
    del bare.attrs["terramind_rows"]
    with pytest.raises(InputError, match="nothing says how many pixels"):
        bare.terramind.generate("LULC")


def test_out_of_the_vocabulary_is_found_by_the_block(tokens):
    wrong = tokens["DEM"].copy()
    wrong[18, 15] = 5000
    lazy = wrong.copy(data=da.from_array(wrong.values, chunks=7)).terramind.generate("LULC")
    with pytest.raises(InputError, match="the token 5000"):
        lazy.compute(scheduler="sync")


def test_a_model_that_reads_no_tokens_of_it_refuses_at_the_call(tokens, monkeypatch):
    config = recipe.demo_config()
    inputs = [key for key in config["backbone"]["inputs"] if key != "tok_dem@224"]
    backbone = {**config["backbone"], "inputs": inputs}
    monkeypatch.setattr(recipe, "demo_config", lambda: {**config, "backbone": backbone})
    with pytest.raises(
        OptionError, match="DEM cannot be an input of demo as tokens, which has embeddings of S2"
    ):
        tokens["DEM"].terramind.generate("LULC")


def test_released_weights_without_the_embedding_raise_when_loaded(released, tmp_path, tokens):
    """A plan needs no weights; the tokens that name no tokenizer need none either."""
    import torch

    state = torch.load(released / "TerraMind_v1_tiny.pt", weights_only=True)
    lacking = {key: value for key, value in state.items() if "encoder_embeddings.tok_dem@224" not in key}
    torch.save(lacking, tmp_path / "TerraMind_v1_tiny.pt")
    (tmp_path / "TerraMind_Tokenizer_LULC.pt").symlink_to(released / "TerraMind_Tokenizer_LULC.pt")
    dem = tokens["DEM"][:14, :14].copy()
    assert dem.terramind.plan("LULC", model=tmp_path).inputs == ("DEM",)
    with pytest.raises(WeightsError, match="TerraMind_Tokenizer_DEM.pt"):  # to compare the digest with
        dem.terramind.generate("LULC", model=tmp_path)
    del dem.attrs["terramind_DEM_sha256"]
    with pytest.raises(WeightsError, match=r"no embedding to read DEM \(encoder_embeddings.tok_dem@224\)"):
        dem.terramind.generate("LULC", model=tmp_path)
    assert dem.terramind.generate("LULC", model=released).shape == (224, 224)

"""tokenize, detokenize and reconstruct: the laws, the patch grid, files, and terratorch's own codes."""

from __future__ import annotations

import math
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import InputError, OptionError
from terramind_xr.facts import modalities
from terramind_xr.model import weights
from terramind_xr.model.recipe import find, writable
from terramind_xr.model.scaling import standardize

SIX = ("S2L2A", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")
NODATA = 65535


@pytest.fixture(scope="module", autouse=True)
def demo():
    with terramind_xr.set_options(model="demo", block=1):
        yield


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((300, 250), seed=5, modalities=(*SIX, "S2L1C")).compute()


@pytest.fixture(scope="module")
def tokens(scene):
    return scene.terramind.tokenize("DEM")


def test_the_demo_has_all_six():
    assert writable("demo") == set(SIX)


@pytest.mark.parametrize("name", SIX)
def test_tokens_of_a_tile_are_terratorchs(scene, name):
    import torch

    tile = scene.isel(y=slice(224), x=slice(224))
    values = tile[name].values.astype("float32")
    values = values if values.ndim == 3 else values[None]
    tokenizer = weights.tokenizer(find("demo", [name]), name, "cpu")
    with torch.inference_mode():
        expected = tokenizer.tokenize(torch.from_numpy(standardize(modalities[name], values))[None])[0]
    found = tile.terramind.tokenize(name)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint16
    assert found.attrs["vocabulary_size"] == math.prod(map(int, found.attrs["codebook"].split()))


@pytest.mark.parametrize("dims", [(), ("y",), ("x", "y")])
def test_tokens_lie_on_the_patch_grid(scene, dims):
    turned = scene.isel(dict.fromkeys(dims, slice(None, None, -1)))
    found = turned.terramind.tokenize("DEM")
    assert found.shape == (19, 16)
    assert found.rio.crs == scene.rio.crs
    west, _south, _east, north = scene.DEM.rio.bounds(recalc=True)
    left, bottom, right, top = found.rio.bounds()
    assert (left, top, right - left, top - bottom) == (west, north, 2560, 3040)
    for dim, axis in (("y", found.y), ("x", found.x)):
        pixels = np.asarray(turned[dim])
        first = pixels[:16] if dim not in dims else pixels[-16:][::-1]
        corner = float(axis[0] if dim not in dims else axis[-1])
        assert corner == pytest.approx(first.mean())
    upright = scene.terramind.tokenize("DEM")
    np.testing.assert_array_equal(found.isel(dict.fromkeys(dims, slice(None, None, -1))), upright)


@settings(max_examples=examples(8))
@given(
    height=st.sampled_from([1, 15, 17, 223, 225, 241, 300]), width=st.integers(1, 250),
    chunks=st.tuples(st.integers(20, 300), st.integers(20, 250)), batch_size=st.integers(1, 5),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*no coordinates to measure")
def test_chunks_change_no_byte_and_pixels_come_back_in_their_place(scene, height, width, chunks, batch_size):
    part = scene[["DEM"]].isel(y=slice(height), x=slice(width))
    lazy = part.chunk({"y": chunks[0], "x": chunks[1]})
    found = lazy.terramind.tokenize("DEM", batch_size=batch_size)
    assert dask.is_dask_collection(found)
    assert found.shape == (math.ceil(height / 16), math.ceil(width / 16))
    np.testing.assert_array_equal(found, part.terramind.tokenize("DEM"))
    back = found.terramind.detokenize(diffusion_steps=1, batch_size=batch_size)
    expected = part.terramind.tokenize("DEM").terramind.detokenize(diffusion_steps=1, batch_size=batch_size)
    assert back.shape == (height, width)
    assert back.compute(scheduler="sync").values.tobytes() == expected.values.tobytes()
    np.testing.assert_allclose(back.y, part.y)
    np.testing.assert_allclose(back.x, part.x)


@pytest.mark.parametrize("name", SIX)
def test_reconstruct_is_both_in_one(scene, name):
    lazy = scene.chunk({"y": 130, "x": 110})
    options = {} if name == "LULC" else {"diffusion_steps": 2, "seed": 3}
    once = lazy.terramind.reconstruct(name, **options)
    twice = lazy.terramind.tokenize(name).terramind.detokenize(**options)
    assert once.values.tobytes() == twice.values.tobytes()
    assert once.shape == scene[name].shape
    assert once.dims == (("band", "y", "x") if scene[name].ndim == 3 else ("y", "x"))
    assert once.attrs["modality"] == name
    assert once.rio.transform() == scene[name].rio.transform()
    xr.testing.assert_allclose(once.y, scene.y)


@pytest.mark.parametrize(("name", "share"), [("S2L2A", 0.8), ("DEM", 0.9), ("NDVI", 0.9), ("S1RTC", 1.0)])
def test_a_reconstruction_is_nearer_than_the_mean_of_each_tile(name, share):
    errors = []
    for seed in range(4):
        truth = terramind_xr.synthetic.scene(224, seed=seed, modalities=(name,)).compute()
        back = truth.terramind.reconstruct(name, diffusion_steps=1, clamp=None)
        values = truth[name].astype(float)
        errors.append(
            [float(abs(each - values).mean()) for each in (back.astype(float), values.mean(["y", "x"]))]
        )
    ours, mean = np.mean(errors, axis=0)
    assert ours < share * mean


def test_land_cover_comes_back(scene):
    back = scene.terramind.reconstruct("LULC")
    assert back.dtype == np.uint8
    assert float((back == scene.LULC).mean()) > 0.8
    shares = scene.terramind.reconstruct("LULC", probabilities=True)
    np.testing.assert_array_equal(shares.argmax("lulc_class"), back)


def test_patches_without_data_hold_no_tokens_and_come_back_as_nodata(scene):
    holed = scene.copy(deep=True)
    holed["DEM"][32:64, :] = np.nan
    found = holed.terramind.tokenize("DEM")
    assert (found[2:4] == NODATA).all()
    assert (found[:2] != NODATA).all()
    assert found.attrs["terramind_nodata"] == NODATA
    assert "_FillValue" not in found.encoding
    back = found.terramind.detokenize(diffusion_steps=1)
    assert back[32:64].isnull().all()
    assert back[:32].notnull().all()
    mask = xr.zeros_like(scene.DEM, dtype=bool)
    mask[:, :16] = True
    masked = scene.terramind.tokenize("DEM", mask=mask)
    assert (masked[:, 0] == NODATA).all()
    assert (masked[:, 1:] != NODATA).all()


def test_dates_are_carried_and_do_not_depend_on_each_other(scene):
    times = np.array(["2024-05-01", "2024-07-01"], "datetime64[ns]")
    both = xr.concat([scene.DEM, scene.DEM + 100], xr.Variable("time", times)).assign_attrs(scene.DEM.attrs)
    ds = both.to_dataset(name="DEM").chunk({"y": 100})
    found = ds.terramind.tokenize("DEM")
    assert found.dims == ("time", "y", "x")
    np.testing.assert_array_equal(found[0], scene.terramind.tokenize("DEM"))
    back = found.terramind.detokenize(diffusion_steps=1)
    assert back.dims == ("time", "y", "x")
    np.testing.assert_array_equal(back.time, times)
    np.testing.assert_array_equal(back[0], found[0].terramind.detokenize(diffusion_steps=1))


def test_sentinel_2_comes_back_with_its_offset(scene):
    shifted = (scene.S2L2A + 1000).assign_attrs(scene.S2L2A.attrs, boa_add_offset=-1000).to_dataset()
    found = shifted.terramind.tokenize("S2L2A")
    np.testing.assert_array_equal(found, scene.terramind.tokenize("S2L2A"))
    back, plain = (ds.terramind.reconstruct("S2L2A", diffusion_steps=1) for ds in (shifted, scene))
    np.testing.assert_allclose(back - 1000, plain, atol=0.01)
    assert back.attrs["boa_add_offset"] == -1000
    assert list(back.band.values) == list(modalities["S2L2A"].band_names)


def test_nothing_is_read_at_the_call(scene):
    lazy = unreadable(scene.DEM, "dask").to_dataset(name="DEM")
    found = lazy.terramind.tokenize("DEM")
    back = found.terramind.detokenize()
    lazy.terramind.reconstruct("DEM")
    with pytest.raises(AssertionError, match="a pixel was read"):
        back.compute(scheduler="sync")


@pytest.mark.slow
def test_threads_and_processes_give_the_same_bytes(scene, one_thread, tmp_path):
    from distributed import Client, LocalCluster

    lazy = scene[["DEM"]].chunk({"y": 77, "x": 90})
    expected = lazy.terramind.reconstruct("DEM", diffusion_steps=1).compute(scheduler="sync")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        stored = lazy.terramind.tokenize("DEM").terramind.to_zarr(tmp_path / "t.zarr", progress=False)
        back = stored.terramind.detokenize(diffusion_steps=1).compute()
    assert back.values.tobytes() == expected.values.tobytes()


def test_files_keep_what_decoding_takes(scene, tokens, tmp_path):
    expected = tokens.terramind.detokenize(diffusion_steps=1).values.tobytes()
    tokens.to_netcdf(tmp_path / "t.nc")
    tokens.chunk({"y": 10}).terramind.to_zarr(tmp_path / "t.zarr", progress=False)
    tokens.rio.to_raster(tmp_path / "t.tif")
    opened = {
        "netCDF": xr.open_dataset(tmp_path / "t.nc"),
        "Zarr": xr.open_zarr(tmp_path / "t.zarr"),
        "GeoTIFF": rioxarray.open_rasterio(tmp_path / "t.tif"),
    }
    for kind, stored in opened.items():
        back = stored.terramind.detokenize(diffusion_steps=1)
        assert back.values.tobytes() == expected, kind
        assert back.rio.crs == scene.rio.crs
        assert back.rio.transform() == scene.DEM.rio.transform()


@pytest.mark.slow
def test_another_process_decodes_the_same_bytes(tokens, tmp_path):
    tokens.chunk({"y": 10}).terramind.to_zarr(tmp_path / "t.zarr", progress=False)
    code = f"""
import hashlib, torch, xarray, terramind_xr
torch.set_num_threads(1)
back = xarray.open_zarr({str(tmp_path / "t.zarr")!r}).terramind.detokenize(model="demo", diffusion_steps=1)
print(hashlib.sha256(back.values.tobytes()).hexdigest())
"""
    done = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert done[0] == done[1]


def test_a_crop_of_tokens_gives_whole_patches(scene, tokens):
    crop = tokens[3:7, 2:9]
    back = crop.terramind.detokenize(diffusion_steps=1)
    assert back.shape == (64, 112)
    np.testing.assert_allclose(back.y, scene.y[48:112])
    np.testing.assert_allclose(back.x, scene.x[32:144])
    assert tokens[-3:].terramind.detokenize(shape=(44, 250), diffusion_steps=1).shape == (44, 250)


def test_storage_is_what_arithmetic_says(scene, tokens):
    found = scene.terramind.tokenize("S2L2A").isel(y=slice(14), x=slice(14))
    pixels = scene.S2L2A.isel(y=slice(224), x=slice(224))
    assert pixels.nbytes / found.nbytes == 3072


def without(key):
    def break_it(tokens):
        broken = tokens.copy()
        broken.attrs.pop(key)
        return broken

    return break_it


def on_a_grid_of_10_m(tokens):
    y = float(tokens.y[0]) - 10.0 * np.arange(tokens.sizes["y"])
    return tokens.assign_coords(y=y, x=float(tokens.x[0]) + 10.0 * np.arange(tokens.sizes["x"]))


FAULTY = {
    "floats": (lambda t: t.astype("float32"), {}, InputError, r"float32; expected whole numbers.*fillna"),
    "no modality": (without("terramind_tokens"), {}, InputError, "nothing says whose tokens"),
    "no shape": (without("terramind_rows"), {}, InputError, r"how many pixels.*shape=\(304, 256\)"),
    "other modality": (lambda t: t, {"modality": "S1GRD"}, OptionError, "'S1GRD' was given.*tokens of DEM"),
    "no tokenizer": (without("terramind_tokens"), {"modality": "RGB"}, OptionError, "RGB has no tokens"),
    "wrong shape": (lambda t: t, {"shape": (500, 250)}, OptionError, r"shape=\(500, 250\).*19 × 16 patches"),
    "other grid": (on_a_grid_of_10_m, {}, InputError, "m; expected 160 m, the patch grid"),
    "other tokenizer": (lambda t: t.assign_attrs(terramind_DEM_sha256="0" * 64, terramind_model="base"),
                        {}, InputError, "made by base"),
    "layers": (lambda t: t.expand_dims(band=3), {}, InputError, "3 layers along 'band'"),
    "numpy": (lambda t: t.values, {}, InputError, "ndarray; expected a DataArray"),
    "two": (lambda t: xr.Dataset({"a": t, "b": t}), {}, InputError, "found 2 token rasters"),
    "probabilities": (lambda t: t, {"probabilities": True}, OptionError, "probabilities=True is for LULC"),
    "steps": (lambda t: t, {"diffusion_steps": 0}, OptionError, "diffusion_steps=0"),
    "batch": (lambda t: t, {"batch_size": 0}, OptionError, "batch_size=0"),
    "overlap": (lambda t: t, {"overlap": 10}, OptionError, "overlap=10"),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "options", "error", "message"), FAULTY.values(), ids=FAULTY)
def test_what_cannot_be_decoded_is_refused_at_the_call(tokens, break_it, options, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        terramind_xr.detokenize(break_it(tokens), **options)


def test_tokens_out_of_the_vocabulary_are_refused_by_the_block(tokens):
    wrong = tokens.copy(deep=True)
    wrong[3, 4] = 1600
    with pytest.raises(InputError, match=r"the token 1600, expected 0 to 1599"):
        terramind_xr.detokenize(wrong)
    lazy = terramind_xr.detokenize(wrong.copy(data=da.from_array(wrong.values, chunks=7)))
    with pytest.raises(InputError, match="the token 1600"):
        lazy.compute(scheduler="sync")


@pytest.mark.parametrize("name", ["RGB", "S2L1C", "Coordinates"])
def test_modalities_without_a_tokenizer_are_refused(scene, name):
    with pytest.raises(OptionError, match=f"{name} has no tokenizer"):
        scene.terramind.tokenize(name)
    with pytest.raises(OptionError, match="unknown modality"):
        scene.terramind.tokenize("DEMM")


def test_how_they_were_made_is_recorded(scene, tokens):
    assert len(tokens.attrs["terramind_DEM_sha256"]) == 64
    assert (tokens.attrs["terramind_rows"], tokens.attrs["terramind_columns"]) == (300, 250)
    assert all(isinstance(value, str | int | float) for value in tokens.attrs.values())
    back = tokens.terramind.detokenize(seed=4, diffusion_steps=2)
    assert (back.attrs["terramind_seed"], back.attrs["terramind_diffusion_steps"]) == (4, 2)
    assert "terramind_seed" not in tokens.attrs

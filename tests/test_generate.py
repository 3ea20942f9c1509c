"""The main job with the demo model: laws 1, 2, 6 (see test_graph), 7 and 8, labels and georeference."""

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
from terramind_xr import InputError, OptionError, TerramindError, TerramindWarning
from terramind_xr.kernels.describe import likeliest


@pytest.fixture(scope="module")
def scene():
    """A scene of 2 by 3 blocks of one tile, in memory."""
    return terramind_xr.synthetic.scene((300, 460), seed=5, modalities=("S2L2A", "LULC")).compute()


def lazy(ds, chunks=100):
    return ds.chunk({"y": chunks, "x": chunks})


def generate(ds, outputs="LULC", **options):
    with terramind_xr.set_options(block=1):
        return ds.terramind.generate(outputs, model="demo", inputs=["S2L2A"], **options)


def test_the_map_is_labelled_and_georeferenced(scene):
    result = generate(lazy(scene))
    assert result.name == "LULC"
    assert result.dims == ("y", "x")
    assert result.dtype == np.uint8
    assert dask.is_dask_collection(result)
    xr.testing.assert_equal(result.drop_vars(set(result.coords) - {"y", "x", "spatial_ref"}).y, scene.y)
    assert result.rio.crs == scene.rio.crs
    assert result.rio.transform() == scene.S2L2A.rio.transform()
    assert list(result.attrs["flag_values"]) == list(range(10))
    assert result.attrs["flag_meanings"].split()[2] == "trees"
    assert "_FillValue" not in result.encoding
    assert "not for science" in result.attrs["terramind_note"]
    assert result.attrs["terramind_seed"] == 0
    assert [len(result.attrs[f"terramind_{file}_sha256"]) for file in ("backbone", "LULC")] == [64, 64]


def test_land_cover_is_that_of_the_world():
    """The demo model must have learnt its world: a broken pipeline cannot reach this."""
    ds = terramind_xr.synthetic.scene(672, seed=77, modalities=("S2L2A", "LULC"))
    result, truth = dask.compute(generate(ds), ds.LULC)
    agreement = float((result == truth).mean())
    swapped = list(ds.band.values)
    b03, b11 = swapped.index("B03"), swapped.index("B11")
    swapped[b03], swapped[b11] = swapped[b11], swapped[b03]
    wrong = generate(ds[["S2L2A"]].assign_coords(band=swapped)).compute()
    assert agreement > 0.65
    assert float((wrong == truth).mean()) < agreement - 0.2


def test_numpy_in_numpy_out_and_equal_to_the_lazy_result(scene):
    eager = generate(scene)
    assert isinstance(eager.data, np.ndarray)
    assert eager.values.tobytes() == generate(lazy(scene)).compute().values.tobytes()


@settings(max_examples=examples(6))
@given(chunks=st.tuples(st.integers(20, 300), st.integers(20, 460), st.integers(1, 12)))
def test_chunking_changes_no_byte(scene, chunks):
    chunked = scene.chunk({"y": chunks[0], "x": chunks[1], "band": chunks[2]})
    result = generate(chunked, ["LULC", "NDVI"], diffusion_steps=1, temperature=1.0).compute(
        scheduler="threads"
    )
    expected = reference(scene)
    for name in ("LULC", "NDVI"):
        assert result[name].values.tobytes() == expected[name].values.tobytes()


_reference = {}


def reference(scene):
    if not _reference:
        _reference["result"] = generate(
            lazy(scene, 460), ["LULC", "NDVI"], diffusion_steps=1, temperature=1.0
        ).compute(scheduler="sync")
    return _reference["result"]


def test_schedulers_change_no_byte(scene, one_thread):
    result = generate(lazy(scene, 77), ["LULC", "NDVI"], diffusion_steps=1)
    expected = result.compute(scheduler="sync")
    threads = result.compute(scheduler="threads", num_workers=3)
    for name in ("LULC", "NDVI"):
        assert threads[name].values.tobytes() == expected[name].values.tobytes()


@pytest.mark.slow
def test_processes_change_no_byte(scene, one_thread, tmp_path):
    """A cluster of two worker processes that write to Zarr."""
    from distributed import Client, LocalCluster

    result = generate(lazy(scene, 77), ["LULC", "NDVI"], diffusion_steps=1)
    expected = result.compute(scheduler="sync")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        result.terramind.to_zarr(tmp_path / "map.zarr", progress=False)
    stored = xr.open_zarr(tmp_path / "map.zarr", decode_coords="all").compute()
    for name in ("LULC", "NDVI"):
        assert stored[name].values.tobytes() == expected[name].values.tobytes()
        assert stored[name].dtype == expected[name].dtype
    assert stored.LULC.rio.crs == scene.rio.crs


def test_batch_size_changes_next_to_nothing(scene):
    one = generate(lazy(scene), batch_size=1).compute()
    assert float((one == generate(lazy(scene), batch_size=6)).mean()) > 0.999


def test_half_precision_changes_little(scene):
    """The tolerance of law 2, for bfloat16: the share of pixels that agree."""
    half = generate(lazy(scene), precision="bf16").compute()
    assert half.attrs["terramind_precision"] == "bf16"
    assert 0.95 < float((half == generate(scene)).mean()) < 1


def test_building_computes_nothing(scene):
    def fail(*_):
        raise AssertionError("a pixel was read while building")

    unread = xr.zeros_like(scene[["S2L2A"]])
    unread["S2L2A"] = unread.S2L2A.copy(
        data=da.map_blocks(fail, da.zeros(unread.S2L2A.shape, dtype="uint16"), dtype="uint16")
    )
    result = generate(unread, ["LULC", "NDVI"], probabilities=True)
    unread.terramind.plan("LULC", model="demo")
    repr(result), result._repr_html_()
    with pytest.raises(AssertionError, match="was read"):
        result.compute(scheduler="sync")


def test_equal_calls_have_equal_names_and_others_do_not(scene):
    ds = lazy(scene)
    assert generate(ds).data.name == generate(ds).data.name
    others = [{"seed": 1}, {"overlap": 48}, {"top_k": 3}, {"probabilities": True}, {"batch_size": 2}]
    names = [generate(ds, **options).data.name for options in others]
    assert len({generate(ds).data.name, *names}) == 1 + len(others)


def test_files_not_yet_read_stay_lazy(scene, tmp_path):
    scene.to_netcdf(tmp_path / "scene.nc")
    opened = xr.open_dataset(tmp_path / "scene.nc", decode_coords="all")
    result = generate(opened)
    assert dask.is_dask_collection(result)
    assert not opened.S2L2A.variable._in_memory
    np.testing.assert_array_equal(result, generate(scene))


def test_nodata_stays_nodata(scene):
    holed = scene.copy(deep=True)
    holed.S2L2A[:, 40:90, 300:] = 0
    result = generate(holed, ["LULC", "NDVI"], diffusion_steps=1)
    empty = np.zeros(result.LULC.shape, bool)
    empty[40:90, 300:] = True
    assert (result.LULC.values[empty] == 0).all()
    np.testing.assert_array_equal(np.isnan(result.NDVI), empty)


def test_what_lies_under_a_mask_does_not_matter(scene):
    cloud = xr.zeros_like(scene.S2L2A[0], dtype=bool).drop_vars("band")
    cloud[70:150, 61:163] = True  # patches in whole and in part
    ruined = scene.copy(deep=True)
    ruined.S2L2A[:, 70:150, 61:163] = 19_000
    first, second = generate(scene, mask=cloud), generate(ruined, mask=cloud)
    np.testing.assert_array_equal(first, second)
    assert (first.values[cloud.values] == 0).all()
    assert (generate(ruined).values != first.values).any()


def test_a_scene_without_a_valid_pixel_gives_nodata_and_says_so(scene):
    empty = xr.zeros_like(scene[["S2L2A"]])
    with pytest.warns(TerramindWarning, match="no valid pixel"):
        result = generate(empty, ["LULC", "NDVI"])
    assert (result.LULC == 0).all()
    assert result.NDVI.isnull().all()


def test_an_offset_in_the_input_is_taken_off(scene):
    shifted = scene.copy(deep=True)
    shifted["S2L2A"] = (shifted.S2L2A + 1000).assign_attrs(shifted.S2L2A.attrs, boa_add_offset=-1000)
    np.testing.assert_array_equal(generate(shifted), generate(scene))


def test_reflectance_is_converted(scene):
    reflectance = scene.copy(deep=True)
    reflectance["S2L2A"] = (scene.S2L2A / 10_000).astype("float32").assign_attrs(scene.S2L2A.attrs, units="1")
    agreement = float((generate(reflectance) == generate(scene)).mean())
    assert agreement > 0.999


def test_bands_in_any_order_and_layout_give_the_same_bytes(scene):
    expected = generate(scene).values.tobytes()
    reversed_ = scene.isel(band=slice(None, None, -1))
    assert generate(reversed_).values.tobytes() == expected
    apart = xr.Dataset({str(band): scene.S2L2A.sel(band=band, drop=True) for band in scene.band.values})
    apart = apart.assign_attrs(boa_add_offset=0)
    assert generate(apart[sorted(apart.data_vars, reverse=True)]).values.tobytes() == expected


def test_probabilities_sum_to_one_and_agree_with_the_codes(scene):
    probabilities = generate(lazy(scene), probabilities=True)
    assert probabilities.dims == ("lulc_class", "y", "x")
    assert list(probabilities.lulc_class.values[:3]) == ["no_data", "water", "trees"]
    assert "flag_values" not in probabilities.attrs  # else taken for codes, e.g. by seam_index
    computed = probabilities.compute()
    np.testing.assert_allclose(computed.sum("lulc_class"), 1, atol=1e-5)
    np.testing.assert_array_equal(computed.argmax("lulc_class"), generate(scene))


def test_tokens_of_land_cover_and_ndvi_can_be_inputs(scene):
    """As pixels: they are tokenized on the way in, and they change the result."""
    with terramind_xr.set_options(model="demo"):
        without = scene.terramind.generate("NDVI", inputs=["S2L2A"], diffusion_steps=1)
        with_ = scene.terramind.generate("NDVI", inputs=["S2L2A", "LULC"], diffusion_steps=1)
    assert with_.attrs["terramind_inputs"] == "S2L2A LULC"
    assert (without != with_).any()
    assert abs(float((without - with_).mean())) < 0.2


def test_a_dataarray_and_the_free_function_do_the_same(scene):
    expected = generate(scene)
    np.testing.assert_array_equal(scene.S2L2A.terramind.generate("LULC", model="demo"), expected)
    np.testing.assert_array_equal(terramind_xr.generate(scene.S2L2A, "LULC", model="demo"), expected)
    assert scene.terramind.generate.__doc__ == terramind_xr.generate.__doc__


def test_several_outputs_give_a_dataset_in_order(scene):
    result = generate(lazy(scene), ["NDVI", "LULC"])
    assert list(result.data_vars) == ["NDVI", "LULC"]
    assert result.NDVI.dtype == np.float32
    assert np.isnan(result.NDVI.encoding["_FillValue"])


def test_time_is_carried_and_dates_are_independent(scene):
    later = (scene.S2L2A + 200).assign_attrs(scene.S2L2A.attrs)
    times = np.array(["2024-05-01", "2024-07-01"], "datetime64[ns]")
    both = xr.concat([scene.S2L2A, later], xr.Variable("time", times)).assign_attrs(scene.S2L2A.attrs)
    result = generate(lazy(both.to_dataset(name="S2L2A")), temperature=1.0)
    assert result.dims == ("time", "y", "x")
    np.testing.assert_array_equal(result.time, times)
    np.testing.assert_array_equal(result[0], generate(scene, temperature=1.0))


def test_inputs_without_time_go_with_every_date(scene):
    times = np.array(["2024-05-01", "2024-07-01"], "datetime64[ns]")
    dated = xr.concat([scene.S2L2A] * 2, xr.Variable("time", times)).assign_attrs(scene.S2L2A.attrs)
    ds = lazy(xr.Dataset({"S2L2A": dated, "LULC": scene.LULC}))
    options = {"model": "demo", "inputs": ["LULC", "S2L2A"], "diffusion_steps": 1}
    result = ds.terramind.generate("NDVI", **options)
    alone = lazy(scene).terramind.generate("NDVI", **options)
    assert result.dims == ("time", "y", "x")
    for date in result:
        np.testing.assert_array_equal(date, alone)


@pytest.mark.filterwarnings("ignore:.*no coordinates to measure")
@pytest.mark.parametrize("size", [1, 15, 16, 17, 223, 224, 225])
def test_scenes_of_any_size(size):
    ds = terramind_xr.synthetic.scene((size, 20))
    result = generate(ds).compute()
    assert result.shape == (size, 20)
    assert (result > 0).any()


def test_seeds_matter_only_where_something_is_drawn(scene):
    np.testing.assert_array_equal(generate(scene, seed=1), generate(scene, seed=2))
    first, second = (generate(scene, seed=seed, temperature=1.0) for seed in (1, 2))
    assert (first != second).any()
    np.testing.assert_array_equal(first, generate(scene, seed=1, temperature=1.0))


def test_netcdf_and_zarr_take_the_results(scene, tmp_path):
    result = generate(lazy(scene), ["LULC", "NDVI"], diffusion_steps=1)
    result.to_netcdf(tmp_path / "result.nc")
    result.terramind.to_zarr(tmp_path / "result.zarr", progress=False)
    for back in (
        xr.open_dataset(tmp_path / "result.nc", decode_coords="all"),
        xr.open_zarr(tmp_path / "result.zarr", decode_coords="all"),
    ):
        xr.testing.assert_equal(back.compute(), result.compute())
        assert back.LULC.dtype == np.uint8
        assert back.rio.crs == scene.rio.crs
    with pytest.raises(OptionError, match="exists already"):
        result.terramind.to_zarr(tmp_path / "result.zarr")


@pytest.mark.slow
def test_whatever_is_derived_from_results_can_be_stored(scene, tmp_path):
    """Two calls with blocks of their own, and results that need several chunks, in one run."""
    ds = lazy(xr.concat([scene[["S2L2A"]]] * 2, "time").assign_attrs(scene.attrs))
    lulc = generate(ds)
    with terramind_xr.set_options(block=2, model="demo"):
        ndvi = ds.terramind.generate("NDVI", overlap=16, diffusion_steps=1)
    derived = xr.Dataset(
        {
            "LULC": lulc,
            "NDVI": ndvi,
            "green": ndvi.where(lulc == 2).astype("float64"),
            "share": (lulc == 1).coarsen(y=100, x=115).mean().rename(y="y_100", x="x_115"),
            "changed": lulc.diff("time").rename(time="change"),
        }
    ).chunk({"y": 100, "x": -1, "y_100": -1, "x_115": -1})
    derived.terramind.to_zarr(tmp_path / "derived.zarr", progress=False)
    stored = xr.open_zarr(tmp_path / "derived.zarr", decode_coords="all")
    xr.testing.assert_equal(stored.compute(), derived.compute())
    part = lulc.isel(time=1, y=slice(200, 300))
    part.terramind.to_zarr(tmp_path / "part.zarr", progress=False)
    stored = xr.open_zarr(tmp_path / "part.zarr", decode_coords="all").LULC
    xr.testing.assert_equal(stored.compute(), part.compute())


def test_a_plan_counts_what_will_be_done(scene):
    plan = lazy(scene).terramind.plan(["LULC", "NDVI"], model="demo", inputs=["S2L2A"])
    assert (plan.tiles, plan.blocks, plan.scenes) == (6, 1, 1)
    assert plan.bytes_read == scene.S2L2A.nbytes
    assert plan.bytes_written == 300 * 460 * 5
    assert "tiles" in repr(plan)
    assert "<table>" in plan._repr_html_()


@pytest.mark.slow
def test_every_kind_of_output_from_radar_with_full_size_classes(released, tmp_path):
    """The released shapes with random weights: what comes out means nothing, but is labelled right."""
    import upstream

    upstream.save_random_tokenizer(released, "S2L2A")
    upstream.save_random_tokenizer(released, "DEM")
    ds = terramind_xr.synthetic.scene(100, modalities=("S1GRD",), chunks=64)
    outputs = ["S2L2A", "DEM", "LULC"]
    result = ds.terramind.generate(outputs, model=str(released), diffusion_steps=1).compute()
    assert result.S2L2A.dims == ("band", "y", "x")
    assert list(result.band.values[[1, 8]]) == ["B02", "B8A"]
    assert [result[name].attrs["units"] for name in outputs] == ["DN", "m", "1"]
    # Clamped to one standard deviation about the mean, as upstream does.
    assert abs(result.DEM - 670.665).max() <= 951.3
    assert np.isfinite(result.S2L2A).all()
    assert "terramind_note" not in result.DEM.attrs


def test_the_real_tiles_run_and_keep_their_place(terramesh):

    for path in sorted((terramesh / "S2L2A").glob("*.tif")):
        ds = terramind_xr.open_rasters({"S2L2A": path}, chunks=100)
        with pytest.warns(TerramindWarning, match="0 assumed"):
            result = ds.terramind.generate(["LULC", "NDVI"], model="demo", diffusion_steps=1)
        source = rioxarray.open_rasterio(path)
        for name in ("LULC", "NDVI"):
            assert result[name].rio.crs == source.rio.crs
            assert result[name].rio.transform() == source.rio.transform()
            assert result[name].shape == source.shape[1:]
        assert float(result.NDVI.min()) >= -1.1


FAULTY_OPTIONS = {
    "overlap too large": ({"overlap": 224}, r"overlap=224.*multiple of 16.*112"),
    "overlap not a patch": ({"overlap": 10}, r"overlap=10.*multiple of 16"),
    "no steps": ({"diffusion_steps": 0}, r"diffusion_steps=0.*1 to 1000"),
    "negative steps": ({"diffusion_steps": -5}, r"diffusion_steps=-5"),
    "decoding steps": ({"decoding_steps": 4}, r"decoding_steps=4 is not available yet"),
    "samples": ({"samples": 3}, r"samples=3 is not available yet"),
    "device": ({"device": "gpu"}, r"device='gpu' is unknown.*'cuda'"),
    "precision": ({"precision": "int8"}, r"precision='int8' is unknown.*'bf16'"),
    "batch": ({"batch_size": 0}, r"batch_size=0"),
    "temperature": ({"temperature": -1.0}, r"temperature=-1.0.*>= 0"),
    "top_p": ({"top_p": 1.5}, r"top_p=1.5.*0 to 1"),
    "top_k": ({"top_k": -1}, r"top_k=-1"),
    "clamp": ({"clamp": "hard"}, r"clamp='hard'.*'upstream' or None"),
    "seed": ({"seed": "zero"}, r"seed='zero'.*whole number"),
    "model": ({"model": "terramind_v2"}, r"no model 'terramind_v2'.*demo"),
    "input as output": ({"inputs": ["S2L2A", "LULC"]}, r"LULC is named as input and as output"),
    "no inputs": ({"inputs": []}, r"No input is named.*None for all"),
    "no inputs in a dict": ({"inputs": {}}, r"No input is named.*None for all"),
    "infinite": ({"temperature": float("inf")}, r"temperature=inf.*finite number >= 0"),
    "offset": ({"offset": 500}, r"offset.*500"),
}


@pytest.mark.parametrize(("options", "message"), FAULTY_OPTIONS.values(), ids=FAULTY_OPTIONS)
def test_impossible_options_are_refused_at_the_call(scene, options, message):
    with pytest.raises(OptionError, match=message):
        lazy(scene).terramind.generate("LULC", **{"model": "demo", "inputs": ["S2L2A"], **options})


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("LULCC", r"'LULCC'; did you mean 'LULC'"),
        ("S2L1C", r"S2L1C cannot be generated.*input only"),
        ("Coordinates", r"Coordinates cannot be generated by demo"),
        ([], r"No output is named"),
        (["LULC", "LULC"], r"LULC is named twice"),
    ],
)
def test_impossible_outputs_are_refused_at_the_call(scene, outputs, message):
    with pytest.raises(OptionError, match=message):
        lazy(scene).terramind.generate(outputs, model="demo")


FAULTY_DATA = {
    "no spatial dims": (lambda ds: ds.drop_vars(["y", "x"]).rename(y="a", x="b"), "S2L2A.*dimension"),
    "empty": (lambda ds: ds.isel(y=slice(0)), "S2L2A.*empty|0 pixels|y 0"),
    "bands missing": (lambda ds: ds.isel(band=slice(10)), "B11"),
    "text": (lambda ds: ds.assign(S2L2A=ds.S2L2A.astype(str)), "S2L2A.*dtype|numbers"),
    "complex": (lambda ds: ds.assign(S2L2A=ds.S2L2A.astype(complex)), "S2L2A.*complex"),
    "nothing usable": (
        lambda ds: ds[[]].assign(temperature=(("y", "x"), np.zeros((300, 460)))),
        "temperature",
    ),
    "contradicting offset": (
        lambda ds: ds.assign(S2L2A=ds.S2L2A.assign_attrs(boa_add_offset=-1000, boa_offset_applied=True)),
        "offset",
    ),
}


@pytest.mark.parametrize(("break_it", "message"), FAULTY_DATA.values(), ids=FAULTY_DATA)
def test_faulty_data_is_refused_at_the_call(scene, break_it, message):
    with pytest.raises(InputError, match=f"(?is){message}"):
        break_it(scene[["S2L2A"]]).terramind.generate("LULC", model="demo")


def test_all_faults_come_as_one_error(scene):
    broken = (
        scene[["S2L2A"]]
        .isel(band=slice(10))
        .assign(DEM=(("y", "x"), np.zeros((300, 460), bool), {"units": "K"}))
    )
    with pytest.raises(InputError) as caught:
        broken.terramind.generate("LULC", model="demo")
    assert len(caught.value.faults) >= 2
    assert any("S2L2A" in fault for fault in caught.value.faults)
    assert any("DEM" in fault for fault in caught.value.faults)


def test_what_is_no_xarray_object_is_refused():
    with pytest.raises(TerramindError, match="ndarray"):
        terramind_xr.generate(np.zeros((12, 224, 224)), "LULC", model="demo")


def test_a_mask_on_another_grid_is_refused(scene):
    with pytest.raises(InputError, match="mask of S2L2A: .*coordinates in the data only"):
        generate(scene, mask=xr.DataArray(np.zeros((10, 10), bool), dims=("y", "x")))
    with pytest.raises(InputError, match="one for 'DEM'; expected one for inputs"):
        generate(scene, mask={"DEM": scene.LULC > 0})


@given(st.integers(0, 99), st.integers(1, 300))
def test_the_likeliest_class_is_that_of_argmax(seed, channels):
    """Of equal ones the first, as everywhere."""
    values = np.random.default_rng(seed).integers(-3, 9, (channels, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(likeliest(values), values.argmax(axis=0))

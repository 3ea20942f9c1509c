"""What a call makes of its inputs: orientation, masks and offsets by coordinates, and what it records."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from scenes import unreadable
from terramind_xr import InputError, OptionError
from terramind_xr.scene import Scene

TIMES = np.array(["2024-05-01", "2024-07-01", "2024-09-01"], "datetime64[ns]")


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene((300, 260), seed=5, modalities=("S2L2A", "LULC")).compute()


@pytest.fixture(scope="module")
def expected(scene):
    return generate(scene)


def generate(ds, outputs="LULC", **options):
    with terramind_xr.set_options(block=1):
        return ds.terramind.generate(outputs, model="demo", inputs=["S2L2A"], **options)


def series(scene, number=3):
    """Dates of one scene, each a little brighter."""
    dates = [scene.S2L2A + np.uint16(100 * date) for date in range(number)]
    joined = xr.concat(dates, xr.Variable("time", TIMES[:number]))
    return joined.assign_attrs(scene.S2L2A.attrs).to_dataset(name="S2L2A")


def spot(scene):
    """A mask with a hole that is nowhere symmetric."""
    mask = xr.zeros_like(scene.S2L2A[0], dtype=bool).drop_vars("band")
    mask[70:150, 41:163] = True
    return mask


backwards = slice(None, None, -1)


@pytest.mark.parametrize("dims", [("y",), ("x",), ("y", "x")])
@pytest.mark.parametrize("is_lazy", [True, False])
def test_the_orientation_of_the_data_changes_no_pixel(scene, expected, dims, is_lazy):
    turned = scene.isel(dict.fromkeys(dims, backwards))
    result = generate(turned.chunk({"y": 100, "x": 90}) if is_lazy else turned)
    xr.testing.assert_equal(result.y, turned.y)
    xr.testing.assert_equal(result.x, turned.x)
    np.testing.assert_array_equal(result.isel(dict.fromkeys(dims, backwards)), expected)
    assert result.rio.transform() == turned.rio.transform(recalc=True)


def test_the_same_noise_falls_on_the_same_place_in_every_orientation(scene):
    options = {"temperature": 1.0, "diffusion_steps": 1}
    upright = generate(scene, ["LULC", "NDVI"], **options)
    turned = generate(scene.isel(y=backwards), ["LULC", "NDVI"], **options)
    xr.testing.assert_equal(turned.isel(y=backwards), upright)


@pytest.mark.filterwarnings("ignore:.*to place the result on Earth")
def test_rows_that_are_counted_run_down(scene, expected):
    """The coordinate ``row`` is a place in an image, not a northing."""
    counted = scene.rename(y="row", x="col").assign_coords(row=10.0 * np.arange(300))
    result = generate(counted.drop_vars("spatial_ref"), offset=0)
    np.testing.assert_array_equal(result, expected)


@settings(max_examples=examples(12))
@given(
    flips=st.tuples(st.booleans(), st.booleans()),
    margin=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    order=st.permutations(["time", "y", "x"]),
    is_dated=st.booleans(),
    is_lazy=st.booleans(),
)
def test_a_mask_is_matched_by_its_coordinates(scene, flips, margin, order, is_dated, is_lazy):
    """In any order of dims, running any way, larger than the data, with more dates in another order."""
    ds = series(scene, 2)
    # The mask lies on a larger grid: the data is cut out of it.
    part = ds.isel(y=slice(margin[0], 300 - margin[1]), x=slice(margin[1], 260 - margin[0]))
    mask = spot(scene)
    right = Scene.of(part, ["S2L2A"], mask=mask.sel(y=part.y, x=part.x)).masks["S2L2A"]
    if is_dated:
        mask = xr.concat([mask, ~mask, mask], xr.Variable("time", TIMES[[1, 2, 0]]))
    mask = mask.transpose(*[dim for dim in order if dim in mask.dims])
    mask = mask.isel({dim: backwards for dim, flip in zip("yx", flips, strict=True) if flip})
    found = Scene.of(part, ["S2L2A"], mask=mask.chunk(60) if is_lazy else mask).masks["S2L2A"]
    for date in found.transpose("time", "y", "x") if is_dated else [found]:
        np.testing.assert_array_equal(date.transpose("y", "x"), right)


def test_a_mask_that_runs_the_other_way_gives_the_same_map(scene):
    np.testing.assert_array_equal(
        generate(scene, mask=spot(scene).isel(y=backwards)), generate(scene, mask=spot(scene))
    )
    turned = generate(scene.isel(y=backwards), mask=spot(scene))
    np.testing.assert_array_equal(turned.isel(y=backwards), generate(scene, mask=spot(scene)))


def test_a_mask_with_time_holds_for_its_dates(scene):
    ds, hole = series(scene, 2), spot(scene)
    mask = xr.concat([~hole & False, hole, ~hole], xr.Variable("time", TIMES))
    result = generate(ds, mask=mask.isel(time=[2, 1, 0]))
    assert (result[0] > 0).all()
    np.testing.assert_array_equal(result[1] == 0, hole)


def moved(mask, metres):
    return mask.assign_coords(x=mask.x + metres)


def dated(mask, times):
    return xr.concat([mask] * len(times), xr.Variable("time", times))


FAULTY_MASKS = {
    "elsewhere": (lambda mask: moved(mask, 500_000.0), "no x .*mask.reindex"),
    "half a pixel off": (lambda mask: moved(mask, 5.0), "no x .*mask.reindex"),
    "a part": (lambda mask: mask.isel(y=slice(10, None)), "no y .* and 7 more"),
    "other size, no coordinates": (lambda mask: mask.isel(y=slice(10)).drop_vars("y"), "'y' has coordinates"),
    "no coordinates": (
        lambda mask: mask.drop_vars(["y", "x"]),
        "coordinates in the data only.*assign_coords",
    ),
    "other CRS": (
        lambda mask: mask.rio.write_crs("EPSG:32633"),
        r"CRS EPSG:32633; expected EPSG:32632.*align\(ds\['S2L2A'\]\)",
    ),
    "other dates": (lambda mask: dated(mask, TIMES[1:]), "no time 2024-05-01.*Add what is missing"),
    "a date too few": (lambda mask: dated(mask, TIMES[:1]), "no time 2024-07-01"),
    "a dim of its own": (lambda mask: mask.expand_dims(member=2), r"dim 'member'.*mask.any\('member'\)"),
    "bands": (lambda mask: mask.expand_dims(band=12), r"12 layers along 'band'.*mask.any\('band'\)"),
    "other dims": (lambda mask: mask.rename(y="lat", x="lon"), "dims.*expected those of the grid"),
    "floats": (lambda mask: mask.astype(float), "float64; expected booleans"),
    "twice": (lambda mask: xr.concat([mask, mask], "y"), "'y' occur twice"),
    "one date": (
        lambda mask: dated(mask, TIMES).isel(time=0),
        r"one time, 2024-05-01T.*the 2 of S2L2A.*mask.drop_vars\('time'\)",
    ),
    "numpy": (lambda mask: mask.values, "ndarray; expected a DataArray.*coords="),
}


@pytest.mark.parametrize(("break_it", "message"), FAULTY_MASKS.values(), ids=FAULTY_MASKS)
def test_a_mask_that_does_not_match_is_refused_at_the_call(scene, break_it, message):
    with pytest.raises(InputError, match=f"mask of S2L2A: .*{message}"):
        generate(series(scene, 2), mask=break_it(spot(scene)))


def test_a_dataset_is_no_mask_but_by_its_inputs(scene):
    hole = spot(scene)
    with pytest.raises(InputError, match=r"Dataset of cloud, snow.*one variable: mask=ds_mask\['cloud'\]"):
        generate(scene, mask=xr.Dataset({"cloud": hole, "snow": hole}))
    by_input = generate(scene, mask=xr.Dataset({"S2L2A": hole}))
    np.testing.assert_array_equal(by_input == 0, hole)


def test_the_mask_of_one_date_serves_one_date_and_every_date_when_said_so(scene):
    ds, hole = series(scene, 2), spot(scene)
    mask = dated(hole, TIMES).isel(time=0)
    for part, one in ((ds.isel(time=[0]), mask), (ds.isel(time=0), mask), (ds, mask.drop_vars("time"))):
        result = generate(part, mask=one).transpose(..., "y", "x")
        assert (((result == 0) == hole).values).all()
    result = generate(scene, mask=hole.assign_coords(band="B02"))  # made of a band, it holds for all
    np.testing.assert_array_equal(result == 0, hole)


def test_two_acquisitions_of_one_time_are_matched_by_position(scene):
    ds, hole = series(scene, 2), spot(scene)
    twice = ds.assign_coords(time=TIMES[[0, 0]])
    mask = xr.concat([hole, ~hole], xr.Variable("time", TIMES[[0, 0]]))
    result = generate(twice, mask=mask)
    np.testing.assert_array_equal(result[0] == 0, hole)
    np.testing.assert_array_equal(result[1] == 0, ~hole)
    numbers = mixed(scene, {}).assign_coords(time=twice.time)
    said = xr.DataArray([0, 1000], coords={"time": twice.time})
    np.testing.assert_array_equal(generate(numbers, offset=said), generate(ds))


def classified(scene, dtype="uint8"):
    """A scene with a scene classification beside it, cloud in its upper half."""
    codes = np.where(np.arange(scene.sizes["y"])[:, None] < scene.sizes["y"] // 2, 9, 4)
    codes = np.broadcast_to(codes, (scene.sizes["y"], scene.sizes["x"])).astype(dtype)
    return scene.assign(SCL=(("y", "x"), codes))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("mask", ["SCL", {"SCL": [9]}, {"S2L2A": "SCL"}, {"SCL": (9, 11)}])
def test_a_scene_classification_is_a_mask_by_its_name(scene, mask, dtype):
    ds = classified(scene, dtype)
    expected = generate(scene, "LULC", mask={"S2L2A": ds["SCL"] == 9})
    found = generate(ds, "LULC", mask=mask)
    np.testing.assert_array_equal(found, expected)
    assert (found[: scene.sizes["y"] // 2] == 0).all()


def test_clouds_hide_the_optical_inputs_alone(scene):
    radar = terramind_xr.synthetic.scene(scene.sizes["y"], modalities=("S2L2A", "S1GRD"))
    ds = classified(radar)
    by_name = terramind_xr.generate(ds, "LULC", model="demo", mask="SCL")
    by_input = terramind_xr.generate(radar, "LULC", model="demo", mask={"S2L2A": ds["SCL"] == 9})
    np.testing.assert_array_equal(by_name, by_input)
    assert (by_name != 0).all()


@pytest.mark.parametrize(
    ("change", "mask", "message"),
    [
        (lambda ds: ds, "scl", "found no such variable among .*'SCL'"),
        (lambda ds: ds.rename(SCL="quality"), "quality", r"mask=\{'quality': \[1, 2\]\}"),
        (lambda ds: ds, {"SCL": [8.5]}, "a list of whole numbers"),
        (lambda ds: ds[["SCL"]].assign(DEM=ds.SCL * 1.0), "SCL", "none is optical"),
    ],
)
def test_names_of_masks_that_cannot_be_used(scene, change, mask, message):
    ds = change(classified(scene))
    ds = ds.assign({name: ds[name].assign_attrs(units="m") for name in ds.data_vars if name == "DEM"})
    with pytest.raises(terramind_xr.TerramindError, match=message):
        terramind_xr.generate(ds, "LULC", model="demo", mask=mask)


def test_a_mask_without_coordinates_goes_with_data_without_them(scene):
    bare = scene[["S2L2A"]].drop_vars(["y", "x"])
    with pytest.warns(terramind_xr.TerramindWarning, match="no coordinates"):
        result = generate(bare, mask=spot(scene).drop_vars(["y", "x"]))
    np.testing.assert_array_equal(result == 0, spot(scene))
    with (
        pytest.raises(InputError, match="10 places along 'y'; expected 300"),
        pytest.warns(terramind_xr.TerramindWarning),
    ):
        generate(bare, mask=spot(scene).drop_vars(["y", "x"])[:10])


@pytest.mark.parametrize("kind", ["dask", "lazy"])
def test_a_mask_is_not_read_at_the_call(scene, kind):
    mask = unreadable(spot(scene).astype("uint8"), kind)
    result = generate(scene.chunk({"y": 100}), mask=mask)
    with pytest.raises(AssertionError, match="a pixel was read"):
        result.compute(scheduler="sync")


def scl(scene):
    """Codes as of Sentinel-2's scene classification; 9 is cloud."""
    codes = xr.where(spot(scene), np.uint8(9), np.uint8(4)).rename("SCL")
    codes[0, 0] = 1
    return codes.assign_coords(scene.drop_dims("band").coords)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "uint16"])
@pytest.mark.parametrize("is_lazy", [True, False])
def test_a_mask_of_codes_is_refused_with_the_line_that_makes_a_mask_of_it(scene, dtype, is_lazy):
    codes = scl(scene).astype(dtype)
    words = r"mask of S2L2A: 'SCL': 4(, 9)?; expected only 0 and 1.*mask.isin\(\[3, 8, 9, 10\]\)"
    if not is_lazy:
        with pytest.raises(InputError, match=words):
            generate(scene, mask=codes)
        codes = codes.isin([3, 8, 9, 10]).astype(dtype)
        np.testing.assert_array_equal(generate(scene, mask=codes) == 0, spot(scene))
        return
    ds, codes = scene.chunk({"y": 100}), codes.chunk({"y": 100})
    with pytest.raises(InputError, match=words):
        generate(ds, mask=codes).compute(scheduler="sync")
    codes = codes.isin([3, 8, 9, 10]).astype(dtype)
    np.testing.assert_array_equal(generate(ds, mask=codes) == 0, spot(scene))


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=30))
def test_masks_of_integers_hold_0_and_1_or_raise_with_the_others(values):
    from terramind_xr.data.masks import _as_booleans

    others = sorted(set(values) - {0, 1})
    if others:
        with pytest.raises(InputError, match=f": {others[0]}[,;]"):
            _as_booleans(np.array(values, "int8"), "mask of DEM")
    else:
        assert _as_booleans(np.array(values, "int8"), "mask of DEM").tolist() == [x == 1 for x in values]


def mixed(scene, keys):
    """Two dates with the offset of 1000 in the numbers of the second, as metadata say of each."""
    ds = series(scene, 2)
    numbers = ds.S2L2A + xr.DataArray(np.array([0, 1000], "uint16"), dims="time")
    numbers.attrs = {
        key: value
        for key, value in scene.S2L2A.attrs.items()
        if "offset" not in key and "baseline" not in key
    }
    return numbers.assign_coords(keys).to_dataset(name="S2L2A")


BY_DATE = {
    "add offset": {"boa_add_offset": ("time", [0, -1000])},
    "applied": {
        "earthsearch:boa_offset_applied": ("time", [True, False]),
        "s2:processing_baseline": ("time", ["05.09", "05.09"]),
    },
    "baseline": {"processing_baseline": ("time", ["02.08", "04.00"])},
}


@pytest.mark.filterwarnings("ignore:.*1000 assumed")
@pytest.mark.parametrize("keys", BY_DATE.values(), ids=BY_DATE)
@pytest.mark.parametrize("is_lazy", [True, False])
def test_each_date_is_judged_by_its_own_metadata(scene, keys, is_lazy):
    ds = mixed(scene, keys)
    result = generate(ds.chunk({"y": 100}) if is_lazy else ds)
    np.testing.assert_array_equal(result, generate(series(scene, 2)))
    assert result.attrs["terramind_offset"] == "S2L2A: 0 1000"


def test_offsets_can_be_said_for_each_date(scene):
    ds = mixed(scene, {})
    said = xr.DataArray([1000, 0, 0], coords={"time": TIMES[[1, 2, 0]]})
    np.testing.assert_array_equal(generate(ds, offset=said), generate(series(scene, 2)))
    bare = ds.drop_vars("time")
    by_place = generate(bare, offset=xr.DataArray([0, 1000], dims="time"))
    np.testing.assert_array_equal(by_place, generate(series(scene, 2)))
    with pytest.raises(InputError, match="3 places along 'time', the data 2"):
        generate(bare, offset=xr.DataArray([0, 0, 0], dims="time"))


@pytest.mark.parametrize(
    ("keys", "offset", "error", "message"),
    [
        (BY_DATE["add offset"], 1000, InputError, r"offset=1000 was given, but boa_add_offset = 0.*1 of 2"),
        (
            {**BY_DATE["add offset"], "boa_offset_applied": ("time", [True, True])},
            "auto", InputError, "contradicting metadata.*in 1 of 2 dates.*for each date",
        ),
        ({}, xr.DataArray([0], {"time": TIMES[:1]}, "time"), InputError, "nothing of time 2024-07-01.{9};"),
        ({}, xr.DataArray([0, 1000], dims="time"), InputError,
         "no coordinates along 'time', S2L2A has some.*coords={'time': ds.time}"),
        ({}, xr.DataArray([0, 0], coords={"time": TIMES[[0, 0]]}), InputError, "2024-05-01.* more than once"),
        ({}, xr.DataArray([0, 1000], dims="member"), InputError, "dim 'member'"),
        ({}, xr.DataArray([0, 500], dims="time"), OptionError, "of .0, 500.; expected"),
        ({}, None, OptionError, "offset is None; expected"),
        ({}, "1000", OptionError, "offset is '1000'"),
    ],
)  # fmt: skip
def test_offsets_that_cannot_be_are_refused(scene, keys, offset, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        generate(mixed(scene, keys), offset=offset)


def test_offset_and_masks_are_recorded(scene):
    """Two calls that differ give attributes that differ."""
    plain = scene.assign(S2L2A=scene.S2L2A.assign_attrs(boa_add_offset=None))
    plain.S2L2A.attrs.pop("boa_add_offset")
    hole = spot(scene)
    calls = [{"offset": 0}, {"offset": 1000}, {"offset": 0, "mask": hole}, {"offset": 0, "mask": ~hole}]
    results = [generate(plain, **options) for options in calls]
    assert [result.attrs["terramind_offset"] for result in results] == [
        f"S2L2A: {value}" for value in (0, 1000, 0, 0)
    ]
    told = [str(result.attrs) for result in results]
    assert len(set(told)) == 4
    assert all(isinstance(value, str | int | float | np.ndarray) for value in results[3].attrs.values())
    lazy = generate(plain.chunk(100), offset=0, mask=da_mask(hole))
    assert lazy.attrs["terramind_mask"].startswith("S2L2A: ")


def da_mask(mask):
    return mask.copy(data=da.from_array(mask.values, chunks=100))


def test_ndvi_stays_within_its_limits(scene):
    result = generate(scene, "NDVI", clamp=None, diffusion_steps=1)
    assert float(abs(result).max()) <= 1
    assert float(result.std()) > 0.05


def test_probabilities_are_for_land_cover(scene):
    with pytest.raises(OptionError, match="probabilities=True is for LULC.*NDVI"):
        generate(scene, "NDVI", probabilities=True)
    both = generate(scene, ["NDVI", "LULC"], probabilities=True, diffusion_steps=1)
    assert both.NDVI.dims == ("y", "x")
    assert both.LULC.dims == ("lulc_class", "y", "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 32.0}, r"overlap=32\.0"),
        ({"overlap": "32"}, r"overlap='32'"),
        ({"overlap": None}, r"overlap=None"),
        ({"outputs": 5}, r"outputs=5"),
        ({"outputs": None}, r"outputs=None"),
        ({"model": 5}, r"model=5"),
        ({"seed": 2**63}, r"seed=9223372036854775808"),
        ({"seed": 1.0}, r"seed=1\.0"),
        ({"batch_size": 8.0}, r"batch_size=8\.0"),
    ],
)
def test_options_of_a_wrong_kind_are_refused(scene, options, message):
    options = {"outputs": "LULC", "model": "demo", "inputs": ["S2L2A"], **options}
    with pytest.raises(OptionError, match=message):
        scene.terramind.generate(**options)


def test_codes_that_are_no_classes_are_refused_even_in_a_tiny_scene(scene):
    tiny = scene.isel(y=slice(20), x=slice(8)).copy(deep=True)
    tiny.LULC[3, 4] = 11
    with pytest.raises(InputError, match="codes of another legend"):
        tiny.terramind.generate("NDVI", model="demo", inputs=["LULC"], diffusion_steps=1)


def test_a_check_that_is_switched_off_is_recorded(scene):
    with terramind_xr.set_options(check_values=False):
        result = generate(scene)
    assert result.attrs["terramind_check_values"] == "off"
    assert "terramind_check_values" not in generate(scene).attrs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data - np.uint16(1000), "wrapped around zero.*offset=1000"),
        (lambda data: data.astype("int32") - 1000, "was not in them.*offset=0"),
        (lambda data: data.astype("float32") - 1000, "was not in them"),
    ],
)
def test_an_offset_that_was_taken_off_wrongly_is_refused(scene, change, message):
    dark = scene.S2L2A.where(scene.S2L2A < 3000, 3000).astype("uint16")
    broken = change(dark).assign_attrs(scene.S2L2A.attrs).to_dataset(name="S2L2A")
    with pytest.raises(InputError, match=f"(?s){message}"):
        generate(broken)
    water = (scene.S2L2A * 0 + 20).astype("int32").assign_attrs(scene.S2L2A.attrs)
    noisy = water.copy(data=water.values + np.random.default_rng(0).integers(-200, 200, water.shape))
    generate(noisy.to_dataset(name="S2L2A"))


def test_infinite_numbers_under_a_mask_do_not_matter(scene):
    broken = scene[["S2L2A"]].astype("float32")
    broken["S2L2A"] = broken.S2L2A.where(~spot(scene), np.inf).assign_attrs(scene.S2L2A.attrs)
    np.testing.assert_array_equal(generate(broken, mask=spot(scene)), generate(scene, mask=spot(scene)))
    with pytest.raises(InputError, match="infinite numbers"):
        generate(broken)

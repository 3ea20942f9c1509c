"""Scores against scikit-learn's over whole arrays, and maps that cannot be compared."""

import dask
import numpy as np
import pytest
import sklearn.metrics
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from terramind_xr import InputError, OptionError, evaluate

CLASSES = {1: "water", 2: "trees", 5: "built", 9: "rangeland"}


def as_map(values, name="LULC", flipped=False, **attrs):
    rows, columns = values.shape[-2:]
    dims = ("time", "y", "x")[-values.ndim :]
    coords = {"y": 5e6 - 10 * np.arange(rows), "x": 4e5 + 10 * np.arange(columns)}
    made = xr.DataArray(values, dims=dims, coords=coords, name=name, attrs=attrs)
    return made.isel(y=slice(None, None, -1)) if flipped else made


def maps(shape, seed=0, none=0.2):
    """Two maps that agree on half of the pixels, with some that hold no data."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(list(CLASSES), size=shape)
    made = np.where(rng.random(shape) < 0.5, truth, rng.choice(list(CLASSES), size=shape))
    truth[rng.random(shape) < none] = 0
    made[rng.random(shape) < none] = 0
    return made.astype("uint8"), truth.astype("uint8")


@settings(max_examples=examples(15))
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    chunks=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    lazy=st.tuples(st.booleans(), st.booleans()),
    flipped=st.booleans(),
    seed=st.integers(0, 9),
)
def test_scores_are_those_of_scikit_learn(shape, chunks, lazy, flipped, seed):
    made, truth = maps(shape, seed)
    arrays = [as_map(made), as_map(truth, flipped=flipped)]
    arrays = [
        each.chunk(time=1, y=chunks[0], x=chunks[1]) if is_lazy else each
        for each, is_lazy in zip(arrays, lazy, strict=True)
    ]
    scores = evaluate(*arrays, classes=CLASSES)
    assert dask.is_dask_collection(scores) == any(lazy)
    scores = scores.compute()
    valid = (made != 0) & (truth != 0)
    pair, labels = (truth[valid], made[valid]), list(CLASSES)
    assert scores.confusion.values.sum() == valid.sum()
    if not valid.any():
        assert np.isnan(scores.accuracy)
        return
    np.testing.assert_array_equal(scores.confusion, sklearn.metrics.confusion_matrix(*pair, labels=labels))
    assert float(scores.accuracy) == pytest.approx(sklearn.metrics.accuracy_score(*pair))
    options = {"labels": labels, "average": None, "zero_division": np.nan}
    for name, function in (("f1", "f1"), ("precision", "precision"), ("recall", "recall")):
        expected = getattr(sklearn.metrics, f"{function}_score")(*pair, **options)
        np.testing.assert_allclose(scores[name], expected)
    jaccard = sklearn.metrics.jaccard_score(*pair, labels=labels, average=None, zero_division=0)
    np.testing.assert_allclose(scores.iou.fillna(0), jaccard)


def test_classes_come_from_the_flags_or_from_the_codes():
    made, truth = (as_map(each) for each in maps((30, 30)))
    assert evaluate(made, truth)["class"].values.tolist() == ["1", "2", "5", "9"]
    flags = {"flag_values": [0, *CLASSES], "flag_meanings": " ".join(["no_data", *CLASSES.values()])}
    flagged = evaluate(made, truth.assign_attrs(flags))
    assert flagged["class"].values.tolist() == list(CLASSES.values())
    with pytest.raises(OptionError, match="nothing says which classes"):
        evaluate(made.chunk(), truth)


def test_a_truth_without_time_holds_for_every_date():
    made, truth = maps((2, 20, 20))
    scores = evaluate(as_map(made), as_map(truth[0]), classes=CLASSES)
    parts = [evaluate(as_map(each), as_map(truth[0]), classes=CLASSES).confusion for each in made]
    np.testing.assert_array_equal(scores.confusion, parts[0] + parts[1])


def test_errors_of_a_quantity():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 20, 20))
    made = truth + np.array([1.0, 0.0])[:, None, None] + 0.1 * rng.normal(size=truth.shape)
    made[0, 3, 4] = np.nan
    arrays = [as_map(each, "S1GRD", units="dB").rename(time="band") for each in (made, truth)]
    arrays[1] = arrays[1].rename(band="band_S1GRD").assign_coords(band_S1GRD=["VV", "VH"])
    arrays[0] = arrays[0].assign_coords(band=["VV", "VH"])
    scores = evaluate(*arrays)
    assert scores.pixels.values.tolist() == [399, 400]
    error = np.where(np.isnan(made), np.nan, made - truth)
    np.testing.assert_allclose(scores.bias, np.nanmean(error, axis=(1, 2)))
    np.testing.assert_allclose(scores.mae, np.nanmean(abs(error), axis=(1, 2)))
    np.testing.assert_allclose(scores.rmse, np.sqrt(np.nanmean(error**2, axis=(1, 2))))
    assert float(scores.r2[1]) == pytest.approx(sklearn.metrics.r2_score(truth[1].ravel(), made[1].ravel()))
    assert scores.rmse.attrs["units"] == "dB"
    xr.testing.assert_allclose(evaluate(*(each.chunk(y=7) for each in arrays)).compute(), scores)


@settings(max_examples=examples(10))
@given(order=st.permutations(list(CLASSES)), lazy=st.booleans())
def test_maps_of_other_codes_are_compared_by_name(order, lazy):
    """A model counts its classes from 0, in the order of its training."""
    made, truth = maps((30, 30))
    counted = np.full_like(made, 255)
    for code, original in enumerate(order):
        counted[made == original] = code
    flags = [
        {"flag_values": list(codes), "flag_meanings": " ".join(CLASSES[code] for code in named)}
        for codes, named in ((range(4), order), (CLASSES, CLASSES))
    ]
    for name in ("segmentation", "LULC"):
        segmented = as_map(counted, name, **flags[0], terramind_nodata=255)
        scores = evaluate(segmented.chunk(y=7) if lazy else segmented, as_map(truth, **flags[1], nodata=0))
        expected = evaluate(as_map(made), as_map(truth), classes=CLASSES)
        names = [CLASSES[code] for code in order]
        assert scores["class"].values.tolist() == names
        xr.testing.assert_identical(
            scores.compute().confusion, expected.confusion.sel(truth=names, prediction=names)
        )


@pytest.mark.parametrize("meanings", ["non-forest burnt-area sea", ["non-forest", "burnt area", "sea"]])
def test_names_are_compared_as_segment_writes_them(meanings):
    truth = as_map(np.array([[1, 2], [3, 1]], "uint8"), flag_values=[1, 2, 3], flag_meanings=meanings)
    flags = {"flag_values": [0, 1, 2], "flag_meanings": "burnt_area sea non_forest"}
    scores = evaluate(as_map(np.array([[2, 0], [0, 2]], "uint8"), "segmentation", **flags), truth)
    assert scores["class"].values.tolist() == ["burnt_area", "sea", "non_forest"]
    np.testing.assert_array_equal(scores.confusion, [[1, 0, 0], [1, 0, 0], [0, 0, 2]])
    with pytest.raises(InputError, match="do not match"):  # two of them are one word
        evaluate(truth.assign_attrs(flag_meanings=["a b", "a-b", "sea"]), truth)


def test_what_cannot_be_compared():
    made, truth = (as_map(each) for each in maps((30, 30)))
    for wrong, error, message in (
        (truth.values, OptionError, "truth is a ndarray"),
        (truth.isel(y=slice(20)), InputError, r"another grid.*truth = truth\.terramind\.align\(prediction\)"),
        (truth.assign_coords(y=truth.y + 5), InputError, "another grid"),
        (truth.expand_dims(time=2), InputError, "dim 'time'"),
        (truth.astype(float), InputError, "expected two maps of classes"),
    ):
        with pytest.raises(error, match=message):
            evaluate(made, wrong)
    moved = truth.assign_coords(y=truth.y + 5)
    with pytest.raises(InputError) as raised:
        evaluate(made, moved)
    assert raised.value.kinds == ("grid.other",)
    evaluate(made, moved.terramind.align(made))
    with pytest.raises(InputError, match="'LULC' holds the code 9, expected one of 1, 2"):
        evaluate(made, truth, classes={1: "water", 2: "trees", 5: "built"})
    flags = [{"flag_values": list(CLASSES), "flag_meanings": " ".join(names)} for names in ("abcd", "abce")]
    with pytest.raises(InputError, match="do not match"):
        evaluate(made.rename("one").assign_attrs(flags[0]), truth.assign_attrs(flags[1]))


def test_the_picture_shows_the_classes_that_occur():
    import matplotlib

    matplotlib.use("agg")
    made, truth = (as_map(each) for each in maps((30, 30)))
    ax = evaluate(made, truth, classes=CLASSES | {7: "snow"}).terramind.plot()
    assert [text.get_text().split("\n")[0] for text in ax.get_yticklabels()] == list(CLASSES.values())

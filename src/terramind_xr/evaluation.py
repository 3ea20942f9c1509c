"""How well a map agrees with the truth: confusion matrix and scores by class, or errors of a quantity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data.labels import band_dim
from terramind_xr.data.metadata import flagged_classes, missing_value
from terramind_xr.data.placement import laid_on
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import class_word
from terramind_xr.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def evaluate(
    prediction: xr.DataArray, truth: xr.DataArray, *, classes: Mapping[int, str] | None = None
) -> xr.Dataset:
    """Compare a map with the truth.

    Lazy for lazy maps: they are counted block by block when the scores are computed, and all scores of one
    ``.compute()`` together. Pixels without data in either map do not count.

    Parameters
    ----------
    prediction
        Map of classes, such as `generate` gives for LULC; or of a quantity, such as DEM.
    truth
        The same of the truth, on the same grid; it may run the other way. What it has no dim for (a truth
        without time) holds for every place along it.
    classes
        Name of each code. By default those of the attributes ``flag_values`` and ``flag_meanings``, without
        the one that means no data; without them the codes that occur, if both maps are in memory. Where both
        maps name the same classes by other codes, they are compared by name; what is neither letter nor
        digit in a name counts as ``_``, as `segment` writes it.

    Returns
    -------
    xarray.Dataset
        Of classes: ``confusion`` (truth, prediction), in pixels; ``precision``, ``recall``, ``f1``, ``iou``
        (class), NaN for classes that occur in neither map; ``accuracy``, the share of pixels that agree, and
        the means ``mean_f1`` and ``mean_iou``. `plot` draws it.
        Of quantities, over all pixels or by band: ``bias``, ``mae``, ``rmse`` in their units, ``r2``, and
        ``pixels``.

    Raises
    ------
    InputError
        The maps are on different grids, one is of classes and the other of a quantity, their classes do not
        match, or a map holds a code that is no class.
    OptionError
        `prediction` or `truth` is no DataArray, or nothing says which classes there are.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(300, modalities=("S2L2A", "LULC"))
    >>> lulc = ds[["S2L2A"]].terramind.generate("LULC", model="demo").compute()
    >>> scores = lulc.terramind.evaluate(ds.LULC.load())
    >>> bool(scores.accuracy > 0.5), int(scores.confusion.sum()) == 300 * 300
    (True, True)
    """
    for name, each in (("prediction", prediction), ("truth", truth)):
        if not isinstance(each, xr.DataArray):
            raise OptionError(
                f"{name} is a {type(each).__name__}; expected a DataArray. Pick one variable: ds['LULC']."
            )
    prediction, truth = _on_one_grid(prediction, truth)
    kinds = [_is_of_classes(prediction, classes), _is_of_classes(truth, classes)]
    if kinds[0] != kinds[1]:
        words = [f"{each.name!r} holds {each.dtype}" for each in (prediction, truth)]
        raise InputError(
            f"{words[0]} and {words[1]}: expected two maps of classes, or two of a quantity. Say which codes "
            "are classes: classes={1: 'water', …}, or convert one: .astype('uint8')."
        )
    return _class_scores(prediction, truth, classes) if kinds[0] else _errors(prediction, truth)


def _is_of_classes(data: xr.DataArray, classes: Mapping[int, str] | None) -> bool:
    return classes is not None or "flag_values" in data.attrs or data.dtype.kind in "bu"


def _on_one_grid(prediction: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both maps with the same dims in the same order, the truth turned to the prediction's orientation."""
    grid = Grid.of(prediction)
    remedy = "truth = truth.terramind.align(prediction)"
    truth = laid_on(truth, grid, what="truth", whose="prediction", remedy=remedy)
    bands, its_bands = band_dim(prediction, grid.dims), band_dim(truth, grid.dims)
    if bands is not None and its_bands is not None and bands != its_bands:  # band and band_S1GRD
        truth = truth.rename({its_bands: bands})
    others = [dim for dim in truth.dims if dim not in grid.dims]
    for dim in others:
        if dim not in prediction.dims:
            raise InputError(
                f"truth: {truth.name!r} has the dim {dim!r}, which {prediction.name!r} does not have. "
                f"Select one: truth.isel({dim}=0)."
            )
        if not prediction.get_index(dim).equals(truth.get_index(dim)):
            raise InputError(
                f"truth: {truth.name!r} has other places along {dim!r} than {prediction.name!r}. Select "
                f"those of both: xr.align(prediction, truth, join='inner', exclude={list(grid.dims)})."
            )
    truth = truth.reset_coords(drop=True).drop_vars(grid.dims, errors="ignore")
    truth = truth.broadcast_like(prediction.reset_coords(drop=True).drop_vars(grid.dims, errors="ignore"))
    return prediction, truth.transpose(*prediction.dims)


def _valid(data: xr.DataArray) -> xr.Variable:
    nodata = missing_value(data)
    valid: xr.Variable = data.variable.notnull()
    return valid if nodata is None else valid & (data.variable != nodata)


def _class_scores(
    prediction: xr.DataArray, truth: xr.DataArray, classes: Mapping[int, str] | None
) -> xr.Dataset:
    named, its_codes = _classes_of(prediction, truth) if classes is None else (dict(classes), sorted(classes))
    if not named:
        raise OptionError("classes is empty; give the name of each code: classes={1: 'water', …}.")
    names = [str(named[code]) for code in sorted(named)]
    codes = np.array([its_codes, sorted(named)], dtype=np.int64)
    valid = _valid(prediction) & _valid(truth)
    told = (str(prediction.name), str(truth.name))
    parts = [each.data for each in (prediction.variable, truth.variable, valid)]
    if any(isinstance(part, da.Array) for part in parts):
        chunks = next(part.chunks for part in parts if isinstance(part, da.Array))
        parts = [da.asarray(part).rechunk(chunks) for part in parts]
        blocks = [
            da.from_delayed(each, (len(names), len(names)), np.int64)
            for each in _counting(parts, codes, told)
        ]
        counts: Any = da.stack(blocks).sum(axis=0)
    else:
        counts = _count(parts[0], parts[1], parts[2], codes, told)
    return _scores(xr.DataArray(counts, dims=("truth", "prediction")), names)


def _counting(parts: list[Any], codes: NDArray[np.int64], told: tuple[str, str]) -> list[Any]:
    import dask

    count = dask.delayed(_count, pure=True)
    blocks = zip(*(part.to_delayed().ravel() for part in parts), strict=True)
    return [count(*block, codes, told) for block in blocks]


def _count(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    valid: NDArray[np.bool_],
    codes: NDArray[np.int64],
    told: tuple[str, str],
) -> NDArray[np.int64]:
    """Pixels by class of the truth (row) and of the prediction (column).

    `codes` are the codes of the truth and of the prediction, class by class; `told` names the two maps.
    """
    from sklearn.metrics import confusion_matrix

    pairs = [truth[valid], prediction[valid]]
    for name, values, known in zip(reversed(told), pairs, codes, strict=True):
        other = values[~np.isin(values, known)]
        if other.size:
            raise InputError(
                f"{name!r} holds the code {other[0]:g}, expected one of {', '.join(map(str, known))}. Name "
                f"it in classes=, or say that it means no data: {name}.attrs['nodata'] = {other[0]:g}."
            )
    count = codes.shape[1]
    if pairs[0].size == 0:
        return np.zeros((count, count), np.int64)
    classes = [_places(values, known) for values, known in zip(pairs, codes, strict=True)]
    matrix: NDArray[np.int64] = confusion_matrix(*classes, labels=np.arange(count))
    return matrix


def _places(values: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the codes each value is."""
    order = np.argsort(codes)
    return order[np.searchsorted(codes[order], values)]


def _classes_of(prediction: xr.DataArray, truth: xr.DataArray) -> tuple[dict[int, str], list[int]]:
    """Names by code of the prediction, and the truth's codes in the same order.

    From the attributes of either map, or else from the codes in memory.
    """
    ours, its = flagged_classes(prediction), flagged_classes(truth)
    if ours and its and ours != its:
        # As one word each: segment writes them so.
        by_name = {class_word(name): code for code, name in its.items()}
        if len(by_name) < len(its) or sorted(by_name) != sorted(map(class_word, ours.values())):
            raise InputError(
                f"the classes of {str(prediction.name)!r} and {str(truth.name)!r} do not match: found {ours} "
                f"and {its}. Bring the names or codes of one to those of the other, or say what they mean in "
                "both: classes={1: 'water', …}."
            )
        return ours, [by_name[class_word(ours[code])] for code in sorted(ours)]
    if ours or its:
        return ours or its, sorted(ours or its)
    if not all(each.variable._in_memory for each in (prediction, truth)):
        raise OptionError(
            f"nothing says which classes {prediction.name!r} and {truth.name!r} hold, and they are not in "
            "memory. Say it: classes={1: 'water', 2: 'trees', …}."
        )
    codes = [np.unique(each.values[_valid(each).values]) for each in (prediction, truth)]
    found = {int(code): str(int(code)) for code in np.union1d(*codes)}
    return found, sorted(found)


def _scores(confusion: xr.DataArray, names: list[str]) -> xr.Dataset:
    """All that follows from a confusion matrix; see `sklearn.metrics` for the definitions."""
    hit = xr.DataArray(_diagonal(confusion.data), dims="class")
    true, found = (
        confusion.sum(dim).rename({other: "class"})
        for dim, other in (("prediction", "truth"), ("truth", "prediction"))
    )
    scores = {
        "precision": _ratio(hit, found),
        "recall": _ratio(hit, true),
        "f1": _ratio(2 * hit, true + found),
        "iou": _ratio(hit, true + found - hit),
    }
    whole = {
        "accuracy": _ratio(hit.sum(), confusion.sum()),
        "mean_f1": scores["f1"].mean(),
        "mean_iou": scores["iou"].mean(),
    }
    coords = {"truth": names, "prediction": names, "class": names}
    ds = xr.Dataset({"confusion": confusion, **scores, **whole}, coords=coords)
    ds["confusion"].attrs = {"long_name": "pixels by class of the truth and of the prediction", "units": "1"}
    return ds


def _diagonal(matrix: Any) -> Any:
    return da.diagonal(matrix) if isinstance(matrix, da.Array) else np.diagonal(matrix)


def _ratio(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    """Share, NaN where there is nothing."""
    return part / whole.where(whole > 0)  # type: ignore[no-untyped-call]


def _errors(prediction: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """Errors of a quantity, by band where there are several."""
    bands = band_dim(prediction, Grid.of(prediction).dims)
    over = [dim for dim in prediction.dims if dim != bands]
    valid = prediction.copy(data=(_valid(prediction) & _valid(truth)).data)
    truth = valid.copy(data=truth.data.astype(np.float64)).where(valid)
    error = (prediction.astype(np.float64) - truth).where(valid)
    spread = ((truth - truth.mean(over)) ** 2).sum(over)
    ds = xr.Dataset(
        {
            "bias": error.mean(over),
            "mae": abs(error).mean(over),
            "rmse": (error**2).mean(over) ** 0.5,
            "r2": 1 - (error**2).sum(over) / spread.where(spread > 0),
            "pixels": valid.sum(over),
        }
    )
    for name in ("bias", "mae", "rmse"):
        ds[name].attrs = {"units": prediction.attrs["units"]} if "units" in prediction.attrs else {}
    kept = {dim for name in ds.data_vars for dim in ds[name].dims}
    return ds.drop_vars([name for name in ds.coords if name not in kept])


def plot_scores(scores: xr.Dataset, *, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw the confusion matrix of `evaluate`: shares of each true class, with IoU and accuracy.

    Parameters
    ----------
    scores
        What `evaluate` gives for maps of classes.
    ax
        Where to draw; by default a new figure.
    **options
        They are handed to :meth:`sklearn.metrics.ConfusionMatrixDisplay.plot`.
    """
    from sklearn.metrics import ConfusionMatrixDisplay

    scores = scores.compute()
    seen = np.flatnonzero(scores.confusion.sum("truth").values + scores.confusion.sum("prediction").values)
    scores = scores.isel({dim: seen for dim in ("truth", "prediction", "class")})
    shares = _ratio(scores.confusion, scores.confusion.sum("prediction"))
    names = [
        f"{name}\nIoU {iou:.2f}" for name, iou in zip(scores["class"].values, scores.iou.values, strict=True)
    ]
    if ax is None:
        import matplotlib.pyplot as plt

        side = 3 + 0.7 * len(names)
        ax = plt.subplots(layout="compressed", figsize=(side + 1, side))[1]
    drawn = ConfusionMatrixDisplay(shares.values, display_labels=names)
    chosen = {"cmap": "Blues", "values_format": ".2f", "colorbar": False, "xticks_rotation": "vertical"}
    drawn.plot(ax=ax, **(chosen | options))
    ax.set(xlabel="prediction", ylabel="truth", title=f"accuracy {float(scores.accuracy):.3f}")
    return ax

"""Pictures of modalities, as a remote-sensing eye expects them; matplotlib is imported late."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.axis import Axis
from terramind_xr.data.metadata import nodata_of, number
from terramind_xr.errors import OptionError
from terramind_xr.evaluation import plot_scores
from terramind_xr.facts import RESOLUTION, LandCoverClass, Modality, lulc_classes, modalities
from terramind_xr.grid import Grid
from terramind_xr.legend import named_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

LARGEST_SIDE = 1500
"""Longest side of a picture in pixels: about what a screen shows."""

_TRUE_COLOUR = ("red", "green", "blue")
_SHOWN_BANDS = {
    "S2L2A": _TRUE_COLOUR,
    "S2L1C": _TRUE_COLOUR,
    "RGB": _TRUE_COLOUR,
    "S1GRD": ("vv",),
    "S1RTC": ("vv",),
}
# Clouds, glint and a few dark pixels must not set the contrast.
_STRETCH_PERCENTILES = (2.0, 98.0)
# Reflectance 0.3 in digital numbers: brighter than most land, darker than cloud and snow.
_BRIGHTEST = 3000.0


@dataclass(frozen=True)
class _Picture:
    """What is drawn: values (y, x) or (y, x, colour), NaN where blank, and the place they cover."""

    values: NDArray[np.float32]
    extent: tuple[float, float, float, float]
    metres: tuple[float, float]  # northwards from row to row, eastwards from column to column


def plot(da: xr.DataArray | xr.Dataset, *, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw a modality in the colours its users expect, or the scores of `evaluate`.

    LULC comes in its class colours with a legend of the classes that occur, as do other classes that
    attributes name (a map of `segment`), NDVI from -1 to 1, Sentinel-2 in true colour, Sentinel-1 as VV in
    grey, DEM as heights over a hillshade. Pixels without data stay blank. Of a large array only every n-th
    pixel is drawn, so that the picture has at most 1500 pixels a side. North is up.

    A lazy array is computed whole all the same, since each of its blocks holds some of these pixels: for
    a result of `generate`, the model runs on the whole scene. Store it with `to_zarr` first and draw the
    stored one, or draw a part, as in ``lulc.isel(y=slice(2000), x=slice(2000)).terramind.plot()``.

    Parameters
    ----------
    da
        One modality, dims (y, x), or with one more dimension of named bands, in any order. Spatial dims
        may have any name that `generate` accepts. The attribute ``modality`` says which one it is, or else
        the name of the array. Other classes are told by ``flag_values`` (0, 1, 2, …) and ``flag_meanings``,
        and their colours by ``flag_colors`` where there are any. Or the Dataset of `evaluate`, of which the
        confusion matrix is drawn.
    ax
        Where to draw; by default a new figure, which legend and labels fit into. Make a figure of your
        own with ``layout="compressed"``, so that they fit into it as well.
    **options
        They are handed to :meth:`matplotlib.axes.Axes.imshow` (``cmap``, ``vmin``, ``vmax``, ``alpha``, …).
        In true colour, `vmin` and `vmax` are the values shown black and white.

    Returns
    -------
    matplotlib.axes.Axes
        In the coordinates of the array, with equal aspect.

    Raises
    ------
    OptionError
        If `da` is no DataArray, is empty, is of an unknown modality, is true or false, has no y and x, has
        a dimension beside them whose bands are not named, or holds fractions where there should be classes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import numpy as np, xarray as xr
    >>> codes = np.array([[1, 1], [2, 5]], "uint8")
    >>> ax = plot(xr.DataArray(codes, dims=("y", "x"), name="LULC"))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['water', 'trees', 'built']
    """
    if isinstance(da, xr.Dataset):
        if "confusion" in da:
            return plot_scores(da, ax=ax, **options)
        raise OptionError(
            "plot draws a DataArray, got Dataset. Pick one variable: ds['LULC'].terramind.plot()"
        )
    modality = _modality_of(da)
    grid = _checked_grid(da)
    layer = _select_bands(da, modality, grid.dims)
    picture = _compute(layer, modality, grid)
    if ax is None:
        import matplotlib.pyplot as plt

        # "constrained" takes axes of equal aspect for as wide as their place, and cuts the legend off.
        ax = plt.subplots(layout="compressed")[1]
    if picture.values.ndim == 3:
        _draw_true_colour(ax, picture, options)
    elif classes := _classes_of(layer, modality):
        _draw_classes(ax, picture, classes, options)
    else:
        label = _layer_label(layer, modality)
        _draw_continuous(ax, picture, modality, label, options)
    _dress(ax, layer, modality, grid)
    return ax


def _modality_of(da: xr.DataArray) -> Modality:
    """Modality of an array, by its attribute or its name."""
    if not isinstance(da, xr.DataArray):
        raise OptionError(
            f"plot draws a DataArray, got {type(da).__name__}. Pick one variable: ds['LULC'].terramind.plot()"
        )
    if da.dtype.kind == "b":
        raise OptionError(
            f"plot: {da.name!r} holds true and false, not the numbers of a modality. Draw it by "
            "da.rename('chosen').plot()."
        )
    known = [name for name in modalities if name != "Coordinates"]
    for name in (da.attrs.get("modality"), da.name):
        if name in known:
            return modalities[name]
    flags = _flags(da)
    if flags:
        title = str(da.attrs.get("long_name", da.name))
        nodata = number(da.attrs.get("terramind_nodata"))
        return Modality(str(da.name), title, (), "1", (0, len(flags) - 1), (), (), nodata=nodata)
    raise OptionError(
        f"plot cannot tell the modality of {da.name!r}: neither its name nor attrs['modality'] is one of "
        f"{', '.join(known)}. Say which it is, as in da.rename('NDVI'), or draw any array by da.plot()."
    )


def _classes_of(layer: xr.DataArray, modality: Modality) -> tuple[LandCoverClass, ...]:
    """Classes whose codes a layer holds; none where it holds other numbers."""
    if modality.name == "LULC":
        return () if "lulc_class" in layer.coords else lulc_classes
    return () if modality.name in modalities else _flags(layer)


def _flags(da: xr.DataArray) -> tuple[LandCoverClass, ...]:
    """Classes that CF flags name, where their codes are 0, 1, 2, …; none otherwise."""
    classes = named_classes(da)
    return classes if [each.code for each in classes] == list(range(len(classes))) else ()


def _checked_grid(da: xr.DataArray) -> Grid:
    """Grid of an array that can be drawn."""
    if 0 in da.shape:
        raise OptionError(f"plot: {da.name!r} is empty ({dict(da.sizes)}). Widen the selection.")
    if da.ndim < 2:
        raise OptionError(f"plot: {da.name!r} has dims {da.dims}, but a picture needs rows and columns.")
    found = Grid.find(da)
    if found is None:
        rows, columns = da.dims[-2:]
        raise OptionError(
            f"plot: {da.name!r} has dims {da.dims}, but none are known as rows and columns. "
            f"Name them, as in da.rename({{{rows!r}: 'y', {columns!r}: 'x'}})."
        )
    return found


def _select_bands(da: xr.DataArray, modality: Modality, spatial: tuple[str, str]) -> xr.DataArray:
    """The layer that is drawn, (y, x), or (y, x, colour) in the order red, green, blue."""
    da = da.squeeze([dim for dim in da.dims if dim not in spatial and da.sizes[dim] == 1])
    wanted = _SHOWN_BANDS.get(modality.name, ())
    unresolved = []
    for dim in (dim for dim in da.dims if dim not in spatial):
        labels = [str(label).lower() for label in da[dim].values]
        where = {
            str(band.common_name or band.name).lower(): position
            for position, label in enumerate(labels)
            for band in modality.bands
            if label in band.names
        }
        if wanted and where.keys() >= set(wanted):
            positions = [where[name] for name in wanted]
            da = da.isel({dim: positions if len(positions) > 1 else positions[0]})
        else:
            unresolved.append(dim)
    if unresolved:
        dim = unresolved[0]
        bands = f", or name its bands ({', '.join(wanted)} are drawn): da.assign_coords({dim}=[...])"
        raise OptionError(
            f"plot draws one picture, but {da.name!r} has {da.sizes[dim]} layers along {dim!r}. "
            f"Pick one: da.isel({dim}=0){bands if wanted else ''}."
        )
    return da.transpose(*spatial, ...)


def _compute(layer: xr.DataArray, modality: Modality, grid: Grid) -> _Picture:
    """Every n-th pixel of a layer, and the place of the outer pixel edges."""
    step = math.ceil(max(grid.shape) / LARGEST_SIDE)
    thinned = layer.isel(dict.fromkeys(grid.dims, slice(None, None, step)))
    values = thinned.values.astype(np.float32)
    if _classes_of(layer, modality):
        _refuse_fractions(values, layer.name)
    declared = nodata_of(layer)
    fill = modality.nodata if declared is None else declared
    blank = ~np.isfinite(values)
    colours = tuple(range(2, values.ndim))
    values[blank.any(axis=colours) | (values == fill).all(axis=colours)] = np.nan

    top, row = _edge_and_spacing(grid.y)
    left, column = _edge_and_spacing(grid.x)
    rows, columns = values.shape[:2]
    extent = (left, left + columns * step * column, top + rows * step * row, top)
    # A broken CRS must not keep its owner from looking at the data: pixels then have the usual size.
    height, width = grid.ground_resolution or (RESOLUTION, RESOLUTION)
    metres = (math.copysign(height, row) * step, math.copysign(width, column) * step)
    return _Picture(values, extent, metres)


def _refuse_fractions(values: NDArray[np.float32], name: Any) -> None:
    """Raise OptionError for numbers between two codes: means of classes are none."""
    fractions = values[np.isfinite(values) & (values != np.rint(values))]
    if fractions.size:
        raise OptionError(
            f"plot: {name!r} holds {fractions[0]:g}, which is no class; codes were averaged or "
            "interpolated. Draw it by da.plot(); to coarsen classes, take every n-th pixel, "
            "da.isel(y=slice(None, None, 4), x=slice(None, None, 4)), or the means of probabilities=True."
        )


def _edge_and_spacing(axis: Axis) -> tuple[float, float]:
    """Outer edge of the first pixel and distance of pixels, in units of the coordinate."""
    if axis.centres is None:  # rows and columns are counted
        return -0.5, 1.0
    spacing = 1.0 if axis.step is None else axis.step
    return float(axis.centres[0]) - spacing / 2, spacing


def _stretch(values: NDArray[np.float32]) -> tuple[float, float]:
    """Contrast limits that leave out the extremes."""
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, _STRETCH_PERCENTILES) if seen.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def _imshow(ax: Axes, picture: _Picture, values: NDArray[Any], **options: Any) -> AxesImage:
    return ax.imshow(values, **{"extent": picture.extent, "origin": "upper", "aspect": "equal", **options})


def _draw_classes(
    ax: Axes, picture: _Picture, classes: tuple[LandCoverClass, ...], options: dict[str, Any]
) -> None:
    """Class colours, with a legend of the classes that occur."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    shown = {
        "cmap": ListedColormap([cover.color for cover in classes]),
        "vmin": -0.5,
        "vmax": len(classes) - 0.5,
        # The default would average the codes of neighbours when it draws fewer pixels than there are.
        "interpolation": "nearest",
    }
    _imshow(ax, picture, picture.values, **{**shown, **options})
    occurring = np.unique(picture.values[np.isfinite(picture.values)])
    handles = [
        Patch(facecolor=cover.color, edgecolor="0.5", linewidth=0.5, label=cover.name.replace("_", " "))
        for cover in classes
        if cover.code in occurring
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, frameon=False)


def _draw_true_colour(ax: Axes, picture: _Picture, options: dict[str, Any]) -> None:
    """Red, green and blue under one stretch, so that the balance of colours is the data's own."""
    low, high = _stretch(picture.values)
    # Where clouds are many, they are the upper percentile, and the land would be black.
    low, high = options.get("vmin", low), options.get("vmax", min(high, low + _BRIGHTEST))
    blank = np.isnan(picture.values[..., :1])
    colours = np.clip((np.nan_to_num(picture.values) - low) / (high - low), 0, 1)
    rest = {name: value for name, value in options.items() if name not in ("vmin", "vmax")}
    _imshow(ax, picture, np.concatenate([colours, ~blank], axis=-1), **rest)


def _draw_continuous(
    ax: Axes, picture: _Picture, modality: Modality, label: str, options: dict[str, Any]
) -> None:
    """One layer under a colour map, with a colour bar."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    low, high = _stretch(picture.values)
    shown: dict[str, Any] = {"cmap": "gray", "vmin": low, "vmax": high}
    if modality.name == "NDVI":
        shown = {"cmap": "RdYlGn", "vmin": -1.0, "vmax": 1.0}
    elif modality.name == "LULC":
        shown = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
    elif modality.name == "DEM":
        # The lowest quarter of "terrain" is blue: it would paint the lowest land as water.
        shown["cmap"] = ListedColormap(colormaps["terrain"](np.linspace(0.25, 1.0, 256)))
    if "norm" in options:
        shown = {"cmap": shown["cmap"]}
    image = _imshow(ax, picture, picture.values, **{**shown, **options})
    # An inset is as high as the picture, whatever its aspect.
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, 0.04, 1)), label=label)
    if "norm" not in options:
        # By default ticks follow the size, and the size their labels: the layout would not settle.
        bar.ax.locator_params(axis="y", nbins=5)
    if modality.name == "DEM" and min(picture.values.shape) > 1:
        _imshow(ax, picture, _hillshade(picture), cmap="gray", vmin=0, vmax=1, alpha=0.35)


def _hillshade(picture: _Picture) -> NDArray[np.float32]:
    """Light from the north-west at 45 degrees on the slopes, 0 to 1; relief threefold exaggerated."""
    to_north, to_east = np.gradient(3 * picture.values, *picture.metres)
    toward_light = math.sqrt(0.5) + 0.5 * (to_east - to_north)
    shade: NDArray[np.float32] = np.clip(toward_light / np.sqrt(1 + to_east**2 + to_north**2), 0, 1)
    return shade


def _layer_label(layer: xr.DataArray, modality: Modality) -> str:
    """Name and unit of a layer, for its colour bar."""
    if "lulc_class" in layer.coords:
        return f"probability of {layer['lulc_class'].item()}"
    picked = [str(coord.item()) for coord in layer.coords.values() if coord.ndim == 0]
    name = next((label for label in picked if label in modality.band_names), modality.name)
    units = layer.attrs.get("units", modality.units)
    return name if units == "1" else f"{name} [{units}]"


def _dress(ax: Axes, layer: xr.DataArray, modality: Modality, grid: Grid) -> None:
    """Title, axis labels, and north up whichever way the rows are stored."""
    ax.set_title(", ".join([modality.title, *_when(layer)]), wrap=True)
    ax.set_xlabel(_axis_label(layer, grid.x.dim))
    ax.set_ylabel(_axis_label(layer, grid.y.dim))
    if grid.y.centres is not None:
        ax.set_ylim(*sorted(ax.get_ylim()))
        ax.set_xlim(*sorted(ax.get_xlim()))
    ax.ticklabel_format(style="plain", useOffset=False)
    ax.locator_params(nbins=5)


def _when(layer: xr.DataArray) -> list[str]:
    """The one time of a layer, as a day where it is a date of any calendar; nothing where it has none."""
    time = layer.coords.get("time")
    if time is None or time.ndim or time.isnull():
        return []
    if time.dtype.kind == "M":
        return [np.datetime_as_string(time.values, unit="D")]
    value = time.item()
    return [value.strftime("%Y-%m-%d") if hasattr(value, "strftime") else str(value)]


def _axis_label(layer: xr.DataArray, dim: str) -> str:
    attrs = layer[dim].attrs
    name = attrs.get("long_name", attrs.get("standard_name", dim)).replace("_", " ")
    return f"{name} [{attrs['units']}]" if "units" in attrs else name

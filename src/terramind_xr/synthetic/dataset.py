"""Scenes of the procedural world as labelled, lazy datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.facts import RESOLUTION, band_dims, modalities
from terramind_xr.synthetic.phenology import sun
from terramind_xr.synthetic.render import LAYERS, MASKS, Look, Window, layer, render

if TYPE_CHECKING:
    import xarray as xr

    Array = NDArray[Any]

_CRS = "EPSG:32632"
_WEST, _NORTH = 300_000.0, 6_000_000.0  # outer corner of the first pixel, in metres


def window(
    seed: int,
    y: int,
    x: int,
    height: int,
    width: int,
    modalities: Sequence[str] = ("S2L2A",),
    *,
    time: Any = None,
    offset: int = 0,
    clouds: float | None = None,
) -> dict[str, Array]:
    """Compute a window of a world as plain arrays.

    Parameters
    ----------
    seed
        Number of the world.
    y, x
        Row and column of the first pixel, counted from the scene's upper left corner.
    height, width
        Size in pixels.
    modalities, offset, clouds
        As for `scene`.
    time
        One date, as for `scene`.

    Returns
    -------
    dict of numpy.ndarray
        For each modality an array (band, y, x) or (y, x), with the dtypes and units of `scene`; ``cloud``
        and ``shadow``, (y, x) bool, where `clouds` is given.

    Raises
    ------
    OptionError
        A modality that the world does not have, a window without a pixel, or an option as for `scene`.

    Examples
    --------
    >>> window(0, 100, 200, 8, 16)["S2L2A"].shape
    (12, 8, 16)
    >>> sorted(window(0, 100, 200, 8, 16, ("DEM", "S1GRD"), clouds=0.5))
    ['DEM', 'S1GRD', 'cloud', 'shadow']
    """
    names = _checked_modalities(modalities)
    height, width = _checked_size((height, width))
    look = _checked_look(offset, clouds)
    dates = _checked_dates(time)
    if dates is not None:
        of_date = _on(look, dates)
        if isinstance(of_date, tuple):
            raise OptionError(f"time: found {time!r}, expected one date: a window has no time dimension.")
        look = of_date
    return render(Window(seed, y, x, height, width, look), _with_masks(names, look))


class _Source:
    """An array of a layer that is computed where it is read: what dask slices into chunks.

    Of one look it is (…, y, x), of several (time, …, y, x).
    """

    def __init__(self, seed: int, name: str, size: tuple[int, int], looks: Look | tuple[Look, ...]) -> None:
        bands = layer(name).bands
        self.seed, self.name, self.looks = seed, name, looks
        of_look = (*((len(bands),) if bands else ()), *size)
        self.shape: tuple[int, ...] = of_look if isinstance(looks, Look) else (len(looks), *of_look)
        self.dtype: np.dtype[Any] = np.dtype(layer(name).dtype)
        self.ndim = len(self.shape)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        looks = (self.looks,) if isinstance(self.looks, Look) else self.looks
        return ("terramind_xr.synthetic", 3, self.seed, self.name, self.shape, *map(astuple, looks))

    def __getitem__(self, index: tuple[Any, ...]) -> Array:
        if isinstance(self.looks, Look):
            return self._read(self.looks, index)
        chosen = self.looks[index[0]]
        if isinstance(chosen, Look):
            return self._read(chosen, index[1:])
        series = [self._read(look, index[1:]) for look in chosen or self.looks[:1]]
        return np.stack(series)[: len(chosen)]

    def _read(self, look: Look, index: tuple[Any, ...]) -> Array:
        *bands, rows, columns = index
        y, height, down = _span(rows, self.shape[-2])
        x, width, across = _span(columns, self.shape[-1])
        part = render(Window(self.seed, y, x, height, width, look), (self.name,))[self.name]
        selected: Array = part[..., down, :][..., across][tuple(bands)]
        return selected


def _span(index: slice | int, size: int) -> tuple[int, int, slice | int]:
    """First pixel and length of what `index` covers, and the index within it.

    dask passes slices, and integers where it has fused a selection into the reading.
    """
    places = range(size)[index]
    if isinstance(places, int):
        return places, 1, 0
    if not places:
        return 0, 1, slice(0)
    first, last = min(places[0], places[-1]), max(places[0], places[-1])
    return first, last - first + 1, slice(None, None, places.step)


def scene(
    size: int | tuple[int, int] = 448,
    seed: int = 0,
    modalities: Sequence[str] = ("S2L2A",),
    chunks: int | tuple[int, int] = 512,
    time: Any = None,
    *,
    offset: int = 0,
    clouds: float | None = None,
) -> xr.Dataset:
    """Build a lazy scene of a procedural world, with its true land cover.

    Every pixel is a pure function of the seed, of its position and of the date: any crop, any chunking and
    any choice of dates give the same numbers, and a larger scene contains the smaller one in its upper left
    corner. Seasons are those of the north: crops grow and are harvested, leaves fall, the snow line moves,
    the sun rises higher. Clouds, haze and speckle are others each day.

    Parameters
    ----------
    size
        Side in pixels, or (height, width).
    seed
        Number of the world.
    modalities
        Of ``"S2L2A"``, ``"S2L1C"``, ``"RGB"``, ``"S1GRD"``, ``"S1RTC"``, ``"DEM"``, ``"LULC"``, ``"NDVI"``.
    chunks
        Side of a dask chunk in pixels, or (height, width); one task makes one chunk of one modality of one
        date.
    time
        None: 1 July 2024, without a coordinate. A date, or several: what `pandas.to_datetime` reads. The
        hour does not matter.
    offset
        0, or 1000: what products of processing baseline 04.00 and later add to the digital numbers of
        S2L2A and S2L1C. The metadata say it. RGB and NDVI are made from the numbers without it.
    clouds
        None: the world's own few clouds, which are a class of LULC. A share from 0 to 1: clouds over this
        share of the world, and their shadows, with the true masks in the variables ``cloud`` and
        ``shadow``. LULC and NDVI then show the ground below. In a scene of a few hundred pixels the share
        is met roughly. Radar and DEM see no clouds in any case.

    Returns
    -------
    xarray.Dataset
        A variable for each modality, with dims (``band``, ``y``, ``x``) or (``y``, ``x``), UTM coordinates
        of the pixel centres at 10 m, the CRS in ``spatial_ref`` and CF attributes. Of several modalities
        with bands, each has a dimension ``band_<modality>`` of its own. Several dates are the first
        dimension, ``time``, of all but DEM. Where `time` is given, ``time`` is a coordinate, and so are
        ``sun_elevation`` and ``sun_azimuth`` in degrees.

        S2L2A (12 bands) and S2L1C (13) are digital numbers (reflectance times 10,000), uint16; RGB is
        uint8, white at reflectance 0.2; S1GRD (sigma nought, with the terrain's brightness) and S1RTC
        (gamma nought, mostly without) are VV and VH in dB with speckle, DEM is metres, both float32; LULC
        holds the codes of `terramind_xr.lulc_classes`, uint8; NDVI is
        (B08 − B04) / (B08 + B04) of the digital numbers, float32; ``cloud`` and ``shadow`` are bool.

    Raises
    ------
    OptionError
        A size or chunk below one pixel, a seed that is not an integer, a modality that the world does not
        have, a time that is no date, an offset other than 0 and 1000, or a share of clouds outside 0 to 1.

    Examples
    --------
    >>> ds = scene(100_000, seed=1, modalities=("S2L2A", "LULC"))
    >>> ds.S2L2A.shape
    (12, 100000, 100000)
    >>> int(ds.LULC[70_000, 500].compute()) in range(1, 10)
    True
    >>> cloudy = scene(64, modalities=("S1RTC", "S2L1C", "DEM"), offset=1000, clouds=0.3)
    >>> cloudy.S2L1C.dims, cloudy.S2L1C.attrs["radio_add_offset"], cloudy.cloud.dtype
    (('band_S2L1C', 'y', 'x'), -1000, dtype('bool'))
    >>> year = scene(64, modalities=("S2L2A", "NDVI", "DEM"), time=["2024-01-15", "2024-07-15"])
    >>> dict(year.sizes)
    {'time': 2, 'band': 12, 'y': 64, 'x': 64}
    >>> year.NDVI.dims, year.DEM.dims
    (('time', 'y', 'x'), ('y', 'x'))
    >>> year.sun_elevation.values.round()
    array([16., 56.])
    """
    import dask.array as da
    import rioxarray  # noqa: F401  (registers the accessor that writes the CRS)
    import xarray as xr

    names = _checked_modalities(modalities)
    height, width = _checked_size(size)
    steps = _checked_size(chunks, "chunks")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise OptionError(f"seed: found {seed!r}, expected an integer.")
    look = _checked_look(offset, clouds)
    dates = _checked_dates(time)
    looks = look if dates is None else _on(look, dates)
    dims = band_dims(names)
    variables = {}
    for name in _with_masks(names, look):
        source = _Source(int(seed), name, (height, width), look if layer(name).timeless else looks)
        series = ("time",) if isinstance(source.looks, tuple) else ()
        bands = (dims[name],) if name in dims else ()
        blocks = (*(1 for _ in series), *(-1 for _ in bands), *steps)
        lazy = da.from_array(source, chunks=blocks, meta=np.empty((0,) * source.ndim, source.dtype))
        variables[name] = ((*series, *bands, "y", "x"), lazy, _attributes(name, look))
    coordinates = _coordinates(dims, height, width) | ({} if dates is None else _times(dates))
    ds: xr.Dataset = xr.Dataset(variables, coords=coordinates, attrs=_provenance(int(seed)))
    ds = ds.rio.write_crs(_CRS).rio.write_transform()
    return ds


def _checked_modalities(names: Sequence[str]) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in LAYERS]
    if unknown or not names:
        found = ", ".join(map(repr, unknown)) or "none"
        raise OptionError(f"modalities: found {found}, expected some of {', '.join(LAYERS)}.")
    return tuple(dict.fromkeys(names))


def _checked_size(size: int | tuple[int, int], name: str = "size") -> tuple[int, int]:
    both = tuple(size) if isinstance(size, tuple | list) else (size, size)
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in both)
    if len(both) != 2 or not whole or min(both) < 1:
        raise OptionError(
            f"{name}: found {size!r}, expected a number of pixels of at least 1, or (height, width)."
        )
    return int(both[0]), int(both[1])


def _checked_look(offset: int, clouds: float | None) -> Look:
    if isinstance(offset, bool) or offset not in (0, 1000):
        raise OptionError(f"offset: found {offset!r}, expected 0 or 1000.")
    number = isinstance(clouds, int | float | np.number) and not isinstance(clouds, bool)
    if clouds is not None and not (number and 0 <= clouds <= 1):
        raise OptionError(f"clouds: found {clouds!r}, expected a share from 0 to 1, or None.")
    return Look(int(offset), None if clouds is None else float(clouds))


def _checked_dates(time: Any) -> Array | None:
    """Days of one date (0-D) or of several (1-D), datetime64[D]; None for None."""
    import pandas as pd

    if time is None:
        return None
    wrong = OptionError(f"time: found {time!r}, expected a date such as '2024-07-01', or several.")
    plain = getattr(time, "values", time)  # of xarray and pandas objects
    if np.asarray(plain).dtype.kind in "biufc":
        raise wrong
    try:
        read = pd.to_datetime(plain, utc=True)
    except (ValueError, TypeError) as error:
        raise wrong from error
    dates = np.asarray(read.tz_localize(None), "datetime64[D]")
    if dates.size == 0 or dates.ndim > 1 or np.isnat(dates).any():
        raise wrong
    return dates


def _on(look: Look, dates: Array) -> Look | tuple[Look, ...]:
    """The look on one date, or those on several."""
    days = dates.astype(np.int64)
    return tuple(replace(look, day=int(day)) for day in days) if days.ndim else replace(look, day=int(days))


def _with_masks(names: tuple[str, ...], look: Look) -> tuple[str, ...]:
    return names if look.clouds is None else (*names, *MASKS)


def _times(dates: Array) -> dict[str, Any]:
    dims = ("time",) * dates.ndim
    angles = np.array([sun(int(day)) for day in dates.astype(np.int64).ravel()])
    elevation, azimuth = angles.T.reshape(2, *dates.shape)
    return {
        "time": (dims, dates.astype("datetime64[ns]"), {"standard_name": "time", "axis": "T"}),
        "sun_elevation": (dims, elevation, {"standard_name": "solar_elevation_angle", "units": "degree"}),
        "sun_azimuth": (dims, azimuth, {"standard_name": "solar_azimuth_angle", "units": "degree"}),
    }


def _coordinates(dims: dict[str, str], height: int, width: int) -> dict[str, Any]:
    axes: dict[str, Any] = {}
    for name, word, start, step, length in (
        ("y", "northing", _NORTH, -RESOLUTION, height),
        ("x", "easting", _WEST, RESOLUTION, width),
    ):
        axes[name] = (
            name,
            start + step * (np.arange(length) + 0.5),
            {
                "standard_name": f"projection_{name}_coordinate",
                "long_name": word,
                "units": "m",
                "axis": name.upper(),
            },
        )
    for name, dim in dims.items():
        axes[dim] = (dim, np.array(layer(name).bands), {"long_name": f"{_sensor(name)} band"})
    return axes


def _sensor(name: str) -> str:
    return "Sentinel-1" if modalities[name].units == "dB" else "Sentinel-2"


def _attributes(name: str, look: Look) -> dict[str, Any]:
    attributes = dict(layer(name).attributes)
    if name not in modalities:
        return attributes
    modality = modalities[name]
    attributes |= modality.attributes
    if modality.is_optical:
        # said as products of baseline 04.00 and later say it, so that the offset is not guessed
        kind = "boa" if name == "S2L2A" else "radio"
        attributes |= {f"{kind}_add_offset": -look.offset, "processing_baseline": "05.09"}
    return attributes


def _provenance(seed: int) -> dict[str, Any]:
    return {
        "Conventions": "CF-1.11",
        "title": "Procedural world of terramind_xr: synthetic, no observation",
        "seed": seed,
    }

"""Scenes of the procedural world as labelled, lazy datasets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.modalities import RESOLUTION, band_dims, modalities
from terramind_xr.synthetic.render import LAYERS, Look, Window, layer, render

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

    Returns
    -------
    dict of numpy.ndarray
        For each modality an array (band, y, x) or (y, x), with the dtypes and units of `scene`; ``cloud``
        (y, x) bool where `clouds` is given.

    Raises
    ------
    OptionError
        A modality that the world does not have, a window without a pixel, or an option as for `scene`.

    Examples
    --------
    >>> window(0, 100, 200, 8, 16)["S2L2A"].shape
    (12, 8, 16)
    >>> sorted(window(0, 100, 200, 8, 16, ("DEM", "S1GRD"), clouds=0.5))
    ['DEM', 'S1GRD', 'cloud']
    """
    names = _checked_modalities(modalities)
    height, width = _checked_size((height, width))
    look = _checked_look(offset, clouds)
    return render(Window(seed, y, x, height, width, look), _with_cloud(names, look))


class _Source:
    """An array of a layer that is computed where it is read: what dask slices into chunks."""

    def __init__(self, seed: int, name: str, size: tuple[int, int], look: Look) -> None:
        bands = layer(name).bands
        self.seed, self.name, self.look = seed, name, look
        self.shape: tuple[int, ...] = (*((len(bands),) if bands else ()), *size)
        self.dtype: np.dtype[Any] = np.dtype(layer(name).dtype)
        self.ndim = len(self.shape)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        look = (self.look.offset, self.look.clouds)
        return ("terramind_xr.synthetic", 2, self.seed, self.name, self.shape, *look)

    def __getitem__(self, index: tuple[Any, ...]) -> Array:
        *leading, rows, columns = index
        y, height, down = _span(rows, self.shape[-2])
        x, width, across = _span(columns, self.shape[-1])
        part = render(Window(self.seed, y, x, height, width, self.look), (self.name,))[self.name]
        selected: Array = part[..., down, :][..., across][tuple(leading)]
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
    *,
    offset: int = 0,
    clouds: float | None = None,
) -> xr.Dataset:
    """Build a lazy scene of a procedural world, with its true land cover.

    Every pixel is a pure function of the seed and of its position: any crop and any chunking of a scene
    give the same numbers, and a larger scene contains the smaller one in its upper left corner.

    Parameters
    ----------
    size
        Side in pixels, or (height, width).
    seed
        Number of the world.
    modalities
        Of ``"S2L2A"``, ``"S2L1C"``, ``"RGB"``, ``"S1GRD"``, ``"S1RTC"``, ``"DEM"``, ``"LULC"``, ``"NDVI"``.
    chunks
        Side of a dask chunk in pixels, or (height, width); one task makes one chunk of one modality.
    offset
        0, or 1000: what products of processing baseline 04.00 and later add to the digital numbers of
        S2L2A and S2L1C. The metadata say it. RGB and NDVI are made from the numbers without it.
    clouds
        None: the world's own few clouds, which are a class of LULC. A share from 0 to 1: clouds over this
        share of the world, with shadows, and their true mask in the variable ``cloud``. LULC and NDVI then
        show the ground below. In a scene of a few hundred pixels the share is met roughly. Radar and DEM
        see no clouds in any case.

    Returns
    -------
    xarray.Dataset
        A variable for each modality, with dims (``band``, ``y``, ``x``) or (``y``, ``x``), UTM coordinates
        of the pixel centres at 10 m, the CRS in ``spatial_ref`` and CF attributes. Of several modalities
        with bands, each has a dimension ``band_<modality>`` of its own.

        S2L2A (12 bands) and S2L1C (13) are digital numbers (reflectance times 10,000), uint16; RGB is
        uint8, white at reflectance 0.2; S1GRD (sigma nought, with the terrain's brightness) and S1RTC
        (gamma nought, mostly without) are VV and VH in dB with speckle, DEM is metres, both float32; LULC
        holds the codes of `terramind_xr.lulc_classes`, uint8; NDVI is
        (B08 − B04) / (B08 + B04) of the digital numbers, float32; ``cloud`` is bool.

    Raises
    ------
    OptionError
        A size or chunk below one pixel, a seed that is not an integer, a modality that the world does not
        have, an offset other than 0 and 1000, or a share of clouds outside 0 to 1.

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
    dims = band_dims(names)
    variables = {}
    for name in _with_cloud(names, look):
        source = _Source(int(seed), name, (height, width), look)
        blocks = (*source.shape[:-2], *steps)
        lazy = da.from_array(source, chunks=blocks, meta=np.empty((0,) * source.ndim, source.dtype))
        leading = (dims[name],) if name in dims else ()
        variables[name] = ((*leading, "y", "x"), lazy, _attributes(name, look))
    ds: xr.Dataset = xr.Dataset(
        variables, coords=_coordinates(dims, height, width), attrs=_provenance(int(seed))
    )
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


def _with_cloud(names: Iterable[str], look: Look) -> tuple[str, ...]:
    return (*names, "cloud") if look.clouds is not None else tuple(names)


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

"""Scenes of the procedural world as labelled, lazy datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.modalities import RESOLUTION, lulc_classes, modalities
from terramind_xr.synthetic.fields import speckle, stream
from terramind_xr.synthetic.spectra import digital_numbers
from terramind_xr.synthetic.world import Surface, surface

if TYPE_CHECKING:
    import xarray as xr

    Array = NDArray[Any]

_CRS = "EPSG:32632"
_WEST, _NORTH = 300_000.0, 6_000_000.0  # outer corner of the first pixel, in metres


@dataclass(frozen=True)
class _World:
    """One window of one world: what a modality is made from."""

    seed: int
    y: int
    x: int
    surface: Surface


def _sentinel2(world: _World) -> Array:
    cover = world.surface
    rows = np.arange(world.y, world.y + cover.cover.shape[0])
    columns = np.arange(world.x, world.x + cover.cover.shape[1])
    noise = [
        speckle(stream(world.seed, f"sensor/{band}"), rows, columns)
        for band in modalities["S2L2A"].band_names
    ]
    return digital_numbers(cover.first, cover.second, cover.mix, cover.shade, cover.haze, noise)


def _land_cover(world: _World) -> Array:
    return world.surface.cover


def _vegetation_index(world: _World) -> Array:
    bands = modalities["S2L2A"].band_names
    numbers = _sentinel2(world)
    red, infrared = (numbers[bands.index(name)].astype(np.float32) for name in ("B04", "B08"))
    index: Array = (infrared - red) / (infrared + red)
    return index


_RENDER: dict[str, Callable[[_World], Array]] = {
    "S2L2A": _sentinel2,
    "LULC": _land_cover,
    "NDVI": _vegetation_index,
}
"""How each modality is made from the surface of a window: a new modality is one more entry."""

_DTYPE: dict[str, np.dtype[Any]] = {
    "S2L2A": np.dtype(np.uint16),
    "LULC": np.dtype(np.uint8),
    "NDVI": np.dtype(np.float32),
}


def window(
    seed: int, y: int, x: int, height: int, width: int, modalities: Sequence[str] = ("S2L2A",)
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
    modalities
        Of ``"S2L2A"``, ``"LULC"``, ``"NDVI"``.

    Returns
    -------
    dict of numpy.ndarray
        ``S2L2A`` (band, y, x) uint16 digital numbers without offset; ``LULC`` (y, x) uint8 codes;
        ``NDVI`` (y, x) float32.

    Raises
    ------
    OptionError
        A modality that the world does not have, or a window without a pixel.

    Examples
    --------
    >>> window(0, 100, 200, 8, 16)["S2L2A"].shape
    (12, 8, 16)
    """
    names = _checked_modalities(modalities)
    _checked_size((height, width))
    world = _World(seed, y, x, surface(seed, y, x, height, width))
    return {name: _RENDER[name](world) for name in names}


class _Source:
    """An array of a modality that is computed where it is read: what dask slices into chunks."""

    def __init__(self, seed: int, name: str, size: tuple[int, int]) -> None:
        leading = (len(modalities[name].bands),) if name == "S2L2A" else ()
        self.seed, self.name = seed, name
        self.shape: tuple[int, ...] = (*leading, *size)
        self.dtype: np.dtype[Any] = _DTYPE[name]
        self.ndim = len(self.shape)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return ("terramind_xr.synthetic", 1, self.seed, self.name, self.shape)

    def __getitem__(self, index: tuple[Any, ...]) -> Array:
        *leading, rows, columns = index
        y, height, down = _span(rows, self.shape[-2])
        x, width, across = _span(columns, self.shape[-1])
        part = window(self.seed, y, x, height, width, (self.name,))[self.name]
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
        Of ``"S2L2A"``, ``"LULC"``, ``"NDVI"``.
    chunks
        Side of a dask chunk in pixels, or (height, width); one task makes one chunk of one modality.

    Returns
    -------
    xarray.Dataset
        A variable for each modality, with dims (``band``, ``y``, ``x``) or (``y``, ``x``), UTM
        coordinates of the pixel centres at 10 m, the CRS in ``spatial_ref`` and CF attributes. S2L2A is in
        digital numbers (reflectance times 10,000) whose offset is already removed; LULC holds the codes of
        `terramind_xr.lulc_classes`; NDVI is (B08 − B04) / (B08 + B04) of the digital numbers.

    Raises
    ------
    OptionError
        A size or chunk below one pixel, a seed that is not an integer, or a modality that the world does
        not have.

    Examples
    --------
    >>> ds = scene(100_000, seed=1, modalities=("S2L2A", "LULC"))
    >>> ds.S2L2A.shape
    (12, 100000, 100000)
    >>> int(ds.LULC[70_000, 500].compute()) in range(1, 10)
    True
    """
    import dask.array as da
    import rioxarray  # noqa: F401  (registers the accessor that writes the CRS)
    import xarray as xr

    names = _checked_modalities(modalities)
    height, width = _checked_size(size)
    steps = _checked_size(chunks, "chunks")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise OptionError(f"seed: found {seed!r}, expected an integer.")
    variables = {}
    for name in names:
        source = _Source(int(seed), name, (height, width))
        blocks = (*source.shape[:-2], *steps)
        lazy = da.from_array(source, chunks=blocks, meta=np.empty((0,) * source.ndim, source.dtype))
        variables[name] = (("band", "y", "x")[-source.ndim :], lazy, _attributes(name))
    ds: xr.Dataset = xr.Dataset(
        variables, coords=_coordinates(names, height, width), attrs=_provenance(int(seed))
    )
    ds = ds.rio.write_crs(_CRS).rio.write_transform()
    return ds


def _checked_modalities(names: Sequence[str]) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in _RENDER]
    if unknown or not names:
        found = ", ".join(map(repr, unknown)) or "none"
        raise OptionError(f"modalities: found {found}, expected some of {', '.join(_RENDER)}.")
    return tuple(dict.fromkeys(names))


def _checked_size(size: int | tuple[int, int], name: str = "size") -> tuple[int, int]:
    both = tuple(size) if isinstance(size, tuple | list) else (size, size)
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in both)
    if len(both) != 2 or not whole or min(both) < 1:
        raise OptionError(
            f"{name}: found {size!r}, expected a number of pixels of at least 1, or (height, width)."
        )
    return int(both[0]), int(both[1])


def _coordinates(names: tuple[str, ...], height: int, width: int) -> dict[str, Any]:
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
    if "S2L2A" in names:
        axes["band"] = ("band", np.array(modalities["S2L2A"].band_names), {"long_name": "Sentinel-2 band"})
    return axes


def _attributes(name: str) -> dict[str, Any]:
    modality = modalities[name]
    attributes: dict[str, Any] = {
        "long_name": modality.title,
        "units": modality.units,
        "standard_name": modality.standard_name,
    }
    if name == "S2L2A":
        # said as products of baseline 04.00 and later say it, so that the offset is not guessed
        attributes |= {"boa_add_offset": 0, "processing_baseline": "05.09"}
    if name == "LULC":
        attributes["flag_values"] = np.array([entry.code for entry in lulc_classes], _DTYPE["LULC"])
        attributes["flag_meanings"] = " ".join(entry.name for entry in lulc_classes)
    return attributes


def _provenance(seed: int) -> dict[str, Any]:
    return {
        "Conventions": "CF-1.11",
        "title": "Procedural world of terramind_xr: synthetic, no observation",
        "seed": seed,
    }

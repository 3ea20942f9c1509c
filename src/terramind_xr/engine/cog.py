"""Results to a Cloud Optimized GeoTIFF, block by block; the target is replaced once the file is complete."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import dask.array as da
import numpy as np
from dask.array.core import slices_from_chunks
from numpy.typing import NDArray

from terramind_xr.engine.progress import Progress
from terramind_xr.engine.run import compute_in_window, is_in_this_process
from terramind_xr.errors import OptionError

Place = tuple[slice, ...]
"""Where a chunk lies: ([band,] y, x)."""

_TILE = 256  # of the file that blocks go to: the usual block of 768 pixels is whole tiles of it
_LARGEST_TILE = 16 * 2**20
"""Bytes of a tile of the result, all bands together, that a reader has to hold."""


@dataclass(frozen=True)
class Raster:
    """What a GeoTIFF says of its numbers.

    Parameters
    ----------
    shape
        Bands, rows and columns.
    dtype
        Of the numbers in the file.
    nodata
        Number of pixels without data; None without one.
    crs, transform
        Where it lies, as rasterio takes them; None where it is not known.
    scale, offset
        A number of the file times `scale` plus `offset` is the quantity.
    units, descriptions
        One for each band; None where there is none.
    colors
        Colour table: (red, green, blue) by code.
    categories
        Names of classes by code.
    tags
        Whatever else is told.
    resampling
        How overviews are made, by GDAL's name; None for no overviews.
    predicts
        Whether neighbours are alike, so that differences compress better than the numbers.
    """

    shape: tuple[int, int, int]
    dtype: str
    nodata: float | None
    crs: Any
    transform: Any
    scale: float = 1.0
    offset: float = 0.0
    units: tuple[str | None, ...] = ()
    descriptions: tuple[str | None, ...] = ()
    colors: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    resampling: str | None = "nearest"
    predicts: bool = False


def write_cog(
    values: da.Array | Iterable[tuple[Place, NDArray[Any]]],
    raster: Raster,
    path: Path,
    *,
    compress: str | None,
    progress: bool,
    area: float | None = None,
) -> None:
    """Write numbers ([band,] y, x), as they are in the file, to a Cloud Optimized GeoTIFF.

    Blocks go to an uncompressed file in a folder beside the target, from which GDAL makes the result. The
    folder is removed in the end; a killed process leaves it, and the target as it was.

    Parameters
    ----------
    values
        A lazy array, or pieces with their places.
    raster
        What the file says of them.
    path
        An absolute path.
    compress
        GDAL's name of a lossless compression; None for none.
    progress
        Whether to show how far it is.
    area
        Square kilometres of the raster, to tell how fast it goes.

    Raises
    ------
    OptionError
        It cannot be written there, or not whole.
    """
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        folder.mkdir()
    except OSError as error:
        raise OptionError(
            f"The file {str(path)!r} cannot be written: {error}. Give a path in a folder that exists and "
            "where you may write."
        ) from None
    try:
        _check_space(raster, folder, path)
        if isinstance(values, da.Array):
            with Progress("to_raster", values.npartitions, area=area, shown=progress) as bar:
                _compute_tiles(values, raster, folder / "blocks.tif", bar)
        else:
            with _tiles(raster, folder / "blocks.tif") as tiles:
                for place, chunk in values:
                    tiles.put(chunk, place)
        _check_whole(folder / "blocks.tif", raster)
        _optimise(folder / "blocks.tif", folder / "cog.tif", raster, compress)
        _replace(folder, path, raster)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _size(raster: Raster) -> int:
    """Bytes of all tiles of the uncompressed file, the last ones whole."""
    bands, rows, columns = raster.shape
    tiles = bands * -(-rows // _TILE) * -(-columns // _TILE)
    return tiles * _TILE * _TILE * np.dtype(raster.dtype).itemsize


def _check_space(raster: Raster, folder: Path, path: Path) -> None:
    needed, free = _size(raster), shutil.disk_usage(folder).free
    if needed > free:
        raise OptionError(
            f"The file {str(path)!r} needs {needed / 2**30:.1f} GiB beside it while it is written, all "
            f"blocks uncompressed, and {free / 2**30:.1f} GiB are free. Give a path on a larger disk."
        )


@contextmanager
def _fault_of_the_disk() -> Iterator[None]:
    """Turn what GDAL says of a file of ours into an error with a remedy."""
    try:
        yield
    except Exception as error:  # rasterio's own classes, or GDAL's
        raise OptionError(
            f"The raster could not be written whole ({error}). Look whether the disk is full, or give "
            "another path; nothing was left there."
        ) from error


class _Taker(Protocol):
    """Takes chunks, from several threads at a time."""

    def put(self, chunk: NDArray[Any], place: Place) -> None: ...


class _Tiles:
    """A raster open for writing, for several threads of this process."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.lock = threading.Lock()

    def put(self, chunk: NDArray[Any], place: Place) -> None:
        from rasterio.windows import Window

        *bands, rows, columns = place
        layers = chunk if bands else chunk[None]
        first = bands[0].start if bands else 0
        window = Window(columns.start, rows.start, layers.shape[2], layers.shape[1])
        indexes = list(range(first + 1, first + 1 + len(layers)))
        with self.lock, _fault_of_the_disk():
            if not self.file.closed:  # after another block failed
                self.file.write(layers, indexes=indexes, window=window)


class _Parts:
    """A folder with a file for each chunk: what other processes write, this one reads."""

    def __init__(self, folder: Path, target: Path) -> None:
        self.folder, self.target = folder, target

    def _path(self, place: Place) -> Path:
        return self.folder / f"{'_'.join(str(each.start) for each in place)}.npy"

    def put(self, chunk: NDArray[Any], place: Place) -> None:
        if not self.folder.is_dir():
            raise OptionError(
                f"A worker does not see the folder of {str(self.target)!r}. Give a path that all workers "
                "share; or write with to_zarr, and then the stored map with to_raster under "
                "dask.config.set(scheduler='threads')."
            )
        path = self._path(place)
        # A lost task is run again: what is there under the name is always whole.
        own = path.with_suffix(f".{uuid.uuid4().hex}")
        with _fault_of_the_disk():
            with open(own, "wb") as file:
                np.save(file, chunk)
            os.replace(own, path)

    def pop(self, place: Place) -> NDArray[Any]:
        path = self._path(place)
        chunk: NDArray[Any] = np.load(path)
        path.unlink()
        return chunk


def _compute_tiles(values: da.Array, raster: Raster, path: Path, progress: Progress) -> None:
    with _tiles(raster, path) as tiles:
        if is_in_this_process(values):
            compute_in_window([_taking(values, tiles)], progress)
        else:
            parts = _Parts(path.parent, path)
            compute_in_window([_taking(values, parts)], progress)
            for place in slices_from_chunks(values.chunks):
                tiles.put(parts.pop(place), place)


def _check_whole(path: Path, raster: Raster) -> None:
    # What GDAL cannot write when it closes a file, it does not tell.
    with _fault_of_the_disk():
        if path.stat().st_size < _size(raster):
            raise OSError("blocks are missing")


@contextmanager
def _tiles(raster: Raster, path: Path) -> Iterator[_Tiles]:
    import rasterio

    bands, rows, columns = raster.shape
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=rows,
        width=columns,
        dtype=raster.dtype,
        nodata=raster.nodata,
        crs=raster.crs,
        transform=raster.transform,
        tiled=True,
        blockxsize=_TILE,
        blockysize=_TILE,
        interleave="band",
        bigtiff="YES",
    )
    tiles = _Tiles(file)
    try:
        if (raster.scale, raster.offset) != (1.0, 0.0):
            file.scales, file.offsets = (raster.scale,) * bands, (raster.offset,) * bands
        if any(raster.units):
            file.units = tuple(each or "" for each in raster.units)
        for number, text in enumerate(raster.descriptions, 1):
            if text:
                file.set_band_description(number, text)
        if raster.colors:
            file.write_colormap(1, {code: (*color, 255) for code, color in raster.colors.items()})
        file.update_tags(**raster.tags)
        yield tiles
    finally:
        with tiles.lock:  # threads may still be at work when a block fails
            file.close()


def _taking(source: da.Array, taker: _Taker) -> da.Array:
    # `name`: two runs must not be taken for one.
    meta = np.empty((0,) * source.ndim, source.dtype)
    return source.map_blocks(_take, taker, name=f"terramind-raster-{uuid.uuid4().hex}", meta=meta)


def _take(chunk: NDArray[Any], taker: _Taker, block_info: Any = None) -> None:
    taker.put(chunk, tuple(slice(*borders) for borders in block_info[0]["array-location"]))


def _optimise(source: Path, target: Path, raster: Raster, compress: str | None) -> None:
    """Make a Cloud Optimized GeoTIFF of a raster."""
    import rasterio
    import rasterio.shutil

    options: dict[str, Any] = {
        "blocksize": _blocksize(raster),
        "compress": compress or "NONE",
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
    }
    if compress and raster.predicts:
        options["predictor"] = "YES"
    if raster.resampling is None:
        options["overviews"] = "NONE"
    else:
        options["overview_resampling"] = raster.resampling
    with _fault_of_the_disk():
        rasterio.shutil.copy(source, target, driver="COG", **options)
        with rasterio.open(target) as file:  # the last tile is what a full disk would lack
            height, width = file.block_shapes[0]
            last = (file.height - 1) // height, (file.width - 1) // width
            file.read(1, window=file.block_window(1, *last))


def _blocksize(raster: Raster) -> int:
    """Side of the tiles of the result, which hold all bands."""
    pixel = raster.shape[0] * np.dtype(raster.dtype).itemsize
    return next((side for side in (512, 256) if side * side * pixel <= _LARGEST_TILE), 128)


def _replace(folder: Path, path: Path, raster: Raster) -> None:
    """Put the finished file in its place, and what GDAL keeps beside it."""
    with open(folder / "cog.tif", "rb+") as file:
        os.fsync(file.fileno())
    for suffix in (".aux.xml", ".ovr", ".msk"):  # of what was there before
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(folder / "cog.tif", path)
    if raster.categories:
        # GeoTIFF has no place for names of classes: GDAL reads them from here.
        ElementTree.ElementTree(_categories(raster.categories)).write(folder / "names", encoding="utf-8")
        os.replace(folder / "names", path.with_name(path.name + ".aux.xml"))


def _categories(names: Mapping[int, str]) -> ElementTree.Element:
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    parent = ElementTree.SubElement(band, "CategoryNames")
    for code in range(max(names) + 1):
        ElementTree.SubElement(parent, "Category").text = names.get(code, "")
    return root

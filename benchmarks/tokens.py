"""Tokens as compression: bits a pixel and error of each modality, beside JPEG2000 and the mean of each tile.

    python benchmarks/tokens.py                          # 12 tiles, and a scene of 2240² pixels
    python benchmarks/tokens.py --tiles 4 --size 1098
    python benchmarks/tokens.py --markdown table.md

Tiles of 224 × 224 pixels, each from a held-out synthetic world; nothing is timed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from demo_baselines import mean_of_tile
from demo_numbers import BEST, DECODINGS, TOKENIZED, absolute_error
from demo_tables import NOT_IN_MODEL, Row, Table, Value
from demo_tiles import BATCH, Array, Tiles, column, cut, has_tokenizer, held_out
from rasterio.errors import NotGeoreferencedWarning

import terramind_xr
from terramind_xr.facts import PATCH, TILE, lulc_classes, modalities

TILES, SIZE = 12, 2240
USUAL = 25
"""GDAL's own default of QUALITY: per cent of the integers' size."""

RAW, MEAN = "raw", "mean of each tile"
TOKENS_PACKED, TOKENS, TOKENS_BEST = "tokens, packed", "tokens, uint16", f"tokens, uint16, {BEST}"
JP2, JP2_USUAL, LOSSLESS = "JPEG2000, rate of tokens", f"JPEG2000, quality {USUAL}", "JPEG2000, lossless"
DRIVER = "JP2OpenJPEG"
NO_JPEG2000 = f"skipped: no {DRIVER} in this GDAL"


@dataclass(frozen=True)
class Stored:
    """A way to store a modality.

    Parameters
    ----------
    modality, way
        What is stored, and how.
    bits
        For each pixel, all bands together; None where it could not be tried.
    error
        Mean absolute difference in physical units, over bands; of LULC the share of wrong pixels.
    remark
        Why there are no numbers.
    """

    modality: str
    way: str
    bits: float | None = None
    error: float | None = None
    remark: str = ""


def ways(tiles: Tiles, name: str, model: str = "demo") -> list[Stored]:
    """All ways to store a modality: as it is, as tokens, as JPEG2000, and as one number a band and tile."""
    values = tiles[name]
    raw = 8.0 * values.nbytes / pixels(values)
    tokens = by_tokens(tiles, name, model)
    rate = tokens[0].bits or math.log2(modalities[name].vocabulary_size) / PATCH**2
    return [Stored(name, RAW, raw, 0.0), *tokens, *by_jpeg2000(tiles, name, rate), by_mean(tiles, name)]


def pixels(values: Array) -> int:
    """Number of pixels of tiles (tile, [band,] y, x)."""
    return len(values) * TILE**2


def error(name: str, made: Array, truth: Array) -> float:
    """Mean absolute difference over tiles, bands and pixels; of LULC the share of wrong pixels."""
    return float((made != truth).mean() if name == "LULC" else absolute_error(made, truth).mean())


def by_tokens(tiles: Tiles, name: str, model: str) -> list[Stored]:
    """Tokens, as many bits as the vocabulary takes and as uint16, and what is made of them again."""
    if not has_tokenizer(model, name):
        return [Stored(name, TOKENS, remark=NOT_IN_MODEL)]
    scene = column(tiles, [name])
    tiling: dict[str, Any] = {"overlap": 0, "batch_size": BATCH}
    with terramind_xr.set_options(block=BATCH, model=model):
        tokens = terramind_xr.tokenize(scene, name, **tiling)
        made = {TOKENS: terramind_xr.reconstruct(scene, name, **tiling)}
        if name != "LULC":
            made[TOKENS_BEST] = terramind_xr.reconstruct(scene, name, **tiling, **DECODINGS[BEST])
    errors = {way: error(name, cut(np.asarray(values)), tiles[name]) for way, values in made.items()}
    packed = tokens.size * math.log2(tokens.attrs["vocabulary_size"]) / pixels(tiles[name])
    stored = 8 * tokens.nbytes / pixels(tiles[name])
    return [
        Stored(name, TOKENS_PACKED, packed, errors[TOKENS]),
        *(Stored(name, way, stored, each) for way, each in errors.items()),
    ]


def by_mean(tiles: Tiles, name: str) -> Stored:
    """One float32 for each band and tile; of LULC the code of the commonest class."""
    values = tiles[name]
    if name == "LULC":
        counts = [(values == cover.code).sum(axis=(1, 2)) for cover in lulc_classes]
        right = np.max(counts, axis=0).sum()
        return Stored(name, MEAN, 8 / TILE**2, 1 - float(right) / values.size)
    bits = 32 * len(modalities[name].bands) / TILE**2
    return Stored(name, MEAN, bits, error(name, mean_of_tile(tiles, name), values))


def has_jpeg2000() -> bool:
    """Whether GDAL was built with the driver."""
    with rasterio.Env() as gdal:
        return DRIVER in gdal.drivers()


def by_jpeg2000(tiles: Tiles, name: str, rate: float) -> list[Stored]:
    """JPEG2000 at two rates; of LULC without loss."""
    quality = 100 * rate / (16 * len(modalities[name].bands))
    options: dict[str, dict[str, Any]] = (
        {LOSSLESS: {"QUALITY": 100, "REVERSIBLE": "YES"}}
        if name == "LULC"
        else {JP2: {"QUALITY": f"{quality:.6f}"}, JP2_USUAL: {"QUALITY": USUAL}}
    )
    if not has_jpeg2000():
        return [Stored(name, way, remark=NO_JPEG2000) for way in options]
    whole = np.asarray(column(tiles, [name])[name])
    integers, step, low = as_integers(name, whole)
    results = []
    for way, creation in options.items():
        size, back = jpeg2000(integers.reshape(-1, *whole.shape[-2:]), **creation)
        made = back.reshape(whole.shape) * step + low
        results.append(Stored(name, way, 8 * size / pixels(tiles[name]), error(name, made, whole)))
    return results


def as_integers(name: str, values: Array) -> tuple[Array, float, float]:
    """The values as integers, with step and start: floats in 16 bits over the range that they can have."""
    if values.dtype.kind == "u":
        return values, 1, 0
    low, high = modalities[name].valid_range
    step = (high - low) / np.iinfo(np.uint16).max
    return np.rint((values.clip(low, high) - low) / step).astype(np.uint16), step, low


def jpeg2000(bands: Array, **options: Any) -> tuple[int, Array]:
    """Bytes of the file, and the bands (band, y, x) read from it.

    The file is one block: GDAL's usual ones of 1,024 pixels each get a rate of their own, which at the rate
    of tokens leaves some of them without anything.
    """
    count, height, width = bands.shape
    profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    blocks = {"BLOCKXSIZE": width, "BLOCKYSIZE": height}
    with warnings.catch_warnings(), rasterio.MemoryFile(ext=".jp2") as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(driver=DRIVER, **profile, **blocks, **options) as file:
            file.write(bands)
        size = len(memory.read())
        with memory.open() as file:
            return size, file.read()


def as_table(stored: Sequence[Stored], tiles: int) -> Table:
    """Bits, how many times fewer than the raw data has, and errors."""
    raw = {each.modality: each.bits for each in stored if each.way == RAW}
    rows = []
    for each in stored:
        values: tuple[Value, ...] = (None, None, None, each.remark)
        if each.bits is not None:
            units = modalities[each.modality].units.replace("1", "")
            whole = raw.get(each.modality)
            fewer = f"{whole / each.bits:,.{0 if whole > 100 * each.bits else 1}f}" if whole else None
            unit = "share wrong" if each.modality == "LULC" else units
            values = (f"{each.bits:.3g}", fewer, each.error, unit)
        rows.append(Row(f"{each.modality}, {each.way}", values))
    columns = ("modality, stored as", "bits a pixel", "times fewer", "error", "unit")
    return Table("Bits and errors", columns, tuple(rows), note(stored, tiles))


def note(stored: Sequence[Stored], tiles: int) -> str:
    """What must be known to read the table."""
    pairs = at_equal_rate(stored)
    ahead = [name for name, tokens, jpeg2000 in pairs if tokens < jpeg2000]
    return f"""\
{tiles} tiles of held-out synthetic worlds; bits of all bands together; errors are mean absolute ones, of
several bands the mean. Tokens are decoded in 10 steps with upstream's clamp unless said otherwise. "Packed"
is log2 of the vocabulary for each patch of {PATCH} × {PATCH} pixels. JPEG2000 is one file of all tiles,
headers counted, each band by itself; floats are scaled to 16 bits over their valid range. The mean is
one float32 for each band and tile; for LULC the commonest class, one byte.

At the rate of tokens, the better of both decodings is nearer to the pixels than JPEG2000
for {len(ahead)} of {len(pairs)} modalities ({", ".join(ahead) or "none"}).

What the demo shows: that rates are what arithmetic says, and that its tokens keep more than a mean. What it
cannot show: how good TerraMind's released tokenizers are. It has never seen a real landscape, and no number
here was taken on one; it is a miniature trained for minutes, and its vocabularies are smaller than the
released ones (15,360 codes; 4,375 for LULC)."""


def at_equal_rate(stored: Sequence[Stored]) -> list[tuple[str, float, float]]:
    """Modality, smallest error of its tokens, error of JPEG2000 at their rate; where there are both."""
    errors = {(each.modality, each.way): each.error for each in stored if each.error is not None}
    names = [name for name, way in errors if way == JP2 and (name, TOKENS) in errors]
    best = {name: min(errors[name, TOKENS], errors[name, TOKENS_BEST]) for name in names}
    return [(name, best[name], errors[name, JP2]) for name in names]


def storage(size: int = SIZE, model: str = "demo") -> Table:
    """A scene of Sentinel-2 and its tokens, each written to Zarr: arrays as opened, and files on disk."""
    columns = ("store", "shape", "bytes of the array", "bytes on disk")
    if not has_tokenizer(model, "S2L2A"):
        return Table("Storage of a scene", columns, (), f"S2L2A: {NOT_IN_MODEL}.")
    with tempfile.TemporaryDirectory() as folder, terramind_xr.set_options(model=model):
        paths = {name: Path(folder) / f"{name}.zarr" for name in ("pixels", "tokens")}
        scene = terramind_xr.synthetic.scene(size)["S2L2A"]
        pixels = scene.terramind.to_zarr(paths["pixels"], progress=False)
        tokens = pixels.terramind.tokenize("S2L2A").terramind.to_zarr(paths["tokens"], progress=False)
        arrays = {"pixels": pixels, "tokens": tokens}
        sizes = {name: (each.nbytes, on_disk(paths[name])) for name, each in arrays.items()}
        shapes = {name: " × ".join(map(str, each.shape)) for name, each in arrays.items()}
    ratios = [many / few for many, few in zip(sizes["pixels"], sizes["tokens"], strict=True)]
    rows = (
        *(Row(name, (f"{shapes[name]} {arrays[name].dtype}", *sizes[name])) for name in arrays),
        Row("pixels / tokens", (None, *ratios)),
    )
    side = 10_980
    granule = 12 * side**2 / math.ceil(side / PATCH) ** 2
    return Table(
        "Storage of a scene",
        columns,
        rows,
        f"12 bands of uint16 have {12 * PATCH**2:,} times the bytes of their tokens if patches are whole;\n"
        f"a granule of {side:,}² pixels {granule:,.0f} times, for its last patches reach beyond it.\n"
        "On disk: after Zarr's usual compressor, with coordinates and metadata.",
    )


def on_disk(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--tiles", type=int, default=TILES, help="held-out tiles (%(default)s)")
    parser.add_argument("--size", type=int, default=SIZE, help="side of the stored scene (%(default)s)")
    parser.add_argument("--model", default="demo", help="name or folder (%(default)s)")
    parser.add_argument("--markdown", type=Path, help="file for the tables as Markdown")
    arguments = parser.parse_args()
    if arguments.tiles < 1:
        sys.exit(f"--tiles {arguments.tiles}: expected at least 1.")
    tiles = held_out(arguments.tiles)
    stored = [each for name in TOKENIZED[::-1] for each in ways(tiles, name, arguments.model)]
    tables = as_table(stored, arguments.tiles), storage(arguments.size, arguments.model)
    print("\n\n".join(table.plain() for table in tables))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(table.markdown() for table in tables))


if __name__ == "__main__":
    try:
        main()
    except terramind_xr.TerramindError as error_:
        sys.exit(f"{type(error_).__name__}: {error_}")

"""Held-out tiles of the synthetic world, and a model's outputs on them through the public interface."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import terramind_xr
from terramind_xr.errors import WeightsError
from terramind_xr.facts import TILE, lulc_classes, modalities
from terramind_xr.model.recipe import find
from terramind_xr.model.scaling import standardize

NAMES = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")
FIT_SEED = 10_000
"""First world that the baselines are fitted on: held out as well, and no world of the scores."""
BATCH = 8

Array = NDArray[Any]
Tiles = Mapping[str, Array]
"""By modality (tile, [band,] y, x), in physical units."""


def held_out(count: int, first_seed: int = 0) -> Tiles:
    """One tile of each of `count` worlds that training has not seen, at a place and day of its own.

    Training worlds have seeds of 1,000,000 and more.
    """
    with ThreadPoolExecutor() as pool:
        tiles = list(pool.map(_tile, range(first_seed, first_seed + count)))
    return {name: np.stack([tile[name] for tile in tiles]) for name in NAMES}


@functools.lru_cache(maxsize=256)
def _tile(seed: int) -> Tiles:
    rng = np.random.default_rng([7, seed])
    y, x = (int(position) for position in rng.integers(0, 50_000, 2))
    day = np.datetime64("2024-01-01") + np.timedelta64(int(rng.integers(366)), "D")
    return terramind_xr.synthetic.window(seed, y, x, TILE, TILE, NAMES, time=day)


def predict(
    tiles: Tiles, inputs: Sequence[str], output: str, model: str = "demo", **options: Any
) -> NDArray[Any] | None:
    """What `terramind_xr.generate` makes of the inputs (tile, [band,] y, x); None where the model cannot.

    The tiles lie below each other in one scene without overlap, so that each is generated alone.
    """
    if not has_tokenizer(model, output):
        return None
    with terramind_xr.set_options(block=BATCH):
        made = terramind_xr.generate(
            column(tiles, inputs),
            output,
            inputs=list(inputs),
            model=model,
            overlap=0,
            batch_size=BATCH,
            **options,
        )
    return cut(np.asarray(made))


def cut(values: Array) -> Array:
    """Tiles (tile, [band,] y, x) of a column."""
    return np.moveaxis(values.reshape(*values.shape[:-2], -1, TILE, TILE), -3, 0)


def column(tiles: Tiles, names: Sequence[str]) -> xr.Dataset:
    """A scene of one column of tiles."""
    count = len(tiles[names[0]])
    scene = terramind_xr.synthetic.scene((count * TILE, TILE), modalities=tuple(names))
    stacked = {name: np.moveaxis(tiles[name], 0, -3) for name in names}
    return scene.copy(
        data={name: values.reshape(*values.shape[:-3], -1, TILE) for name, values in stacked.items()}
    )


def has_tokenizer(model: str, name: str) -> bool:
    """Whether the model can make this modality."""
    try:
        find(model, {name})
    except WeightsError:
        return False
    return True


def standardized(data: Tiles, name: str, part: slice) -> NDArray[np.float32]:
    """Pixels (tile, band, y, x) as the model reads them; LULC as one channel for each class."""
    values = data[name][part]
    if name == "LULC":
        return np.stack([values == cover.code for cover in lulc_classes], axis=1).astype(np.float32)
    values = values if values.ndim == 4 else values[:, None]
    moved = standardize(modalities[name], values.swapaxes(0, 1).astype(np.float32))
    return np.ascontiguousarray(moved.swapaxes(0, 1))


def places(count: int) -> NDArray[np.int64]:
    """Places of tiles that lie below each other."""
    return np.column_stack([TILE * np.arange(count), np.zeros(count, int)])


def joined(inputs: Sequence[str]) -> str:
    """Such as ``"S1GRD + DEM"``."""
    return " + ".join(inputs)

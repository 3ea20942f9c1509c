"""Training data of the demo model: tiles of many procedural worlds, stored once, and batches of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from terramind_xr.facts import TILE, modalities
from terramind_xr.synthetic import window

TRAINING_SEED = 1_000_000  # worlds of training; held-out worlds have small seeds
PER_SHARD = 125
STORED = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")
STEPS = {"S1GRD": 100.0, "S1RTC": 100.0, "DEM": 5.0, "NDVI": 10_000.0}
"""Of modalities that are stored as whole numbers of a part of their unit: how many to one."""

Array = NDArray[Any]
Batch = TypeVar("Batch")


def place(seed: int) -> tuple[int, int, np.datetime64]:
    """Position and date of the tile of one world, drawn by its seed."""
    rng = np.random.default_rng(seed)
    y, x = (int(position) for position in rng.integers(0, 100_000, 2))
    return y, x, np.datetime64("2024-01-01") + np.timedelta64(int(rng.integers(366)), "D")


def make_shard(path: Path, first_seed: int) -> None:
    """Write one folder of tiles, an array for each modality; a folder that exists is complete."""
    if path.exists():
        return
    tiles = []
    for seed in range(first_seed, first_seed + PER_SHARD):
        y, x, date = place(seed)
        tiles.append(window(seed, y, x, TILE, TILE, STORED, time=date))
    part = path.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in STORED:
        values = np.stack([tile[name] for tile in tiles])
        if name in STEPS:
            values = np.clip(np.rint(values * STEPS[name]), -32_768, 32_767).astype(np.int16)
        np.save(part / f"{name}.npy", values.reshape(len(values), -1, TILE, TILE))
    part.rename(path)


def make_worlds(work: Path, count: int, processes: int) -> None:
    """Store `count` tiles, each of a world of its own; shards that exist are kept."""
    work.mkdir(parents=True, exist_ok=True)
    paths = [work / f"tiles_{number:03d}" for number in range(count // PER_SHARD)]
    seeds = [TRAINING_SEED + number * PER_SHARD for number in range(len(paths))]
    with ProcessPoolExecutor(processes) as pool:
        for _ in track(pool.map(make_shard, paths, seeds), "worlds", total=len(paths)):
            pass


class Tiles:
    """The stored tiles, read where they are asked for."""

    def __init__(self, work: Path) -> None:
        self.shards = sorted(work.glob("tiles_???"))
        if not self.shards:
            raise SystemExit(f"{work} holds no tiles: run --step worlds first.")

    def __len__(self) -> int:
        return PER_SHARD * len(self.shards)

    @cached_property
    def _arrays(self) -> dict[str, list[Array]]:
        return {
            name: [np.load(shard / f"{name}.npy", mmap_mode="r") for shard in self.shards] for name in STORED
        }

    def raw(self, name: str, chosen: Array) -> Array:
        """Tiles of a modality in its own units: (tile, band, y, x), float32; codes of LULC (tile, y, x)."""
        shards = self._arrays[name]
        values = np.stack([shards[tile // PER_SHARD][tile % PER_SHARD] for tile in chosen])
        if name == "LULC":
            return values[:, 0]
        return values.astype(np.float32) * np.float32(1 / STEPS.get(name, 1.0))

    def standard(self, name: str, chosen: Array) -> Array:
        """The same in standardised units; codes of LULC as int64."""
        values = self.raw(name, chosen)
        return values.astype(np.int64) if name == "LULC" else standardised(name, values)


def standardised(name: str, values: Array) -> Array:
    """Values (tile, band, y, x) less the mean and over the standard deviation of the pre-training."""
    mean, std = (
        np.array(numbers, np.float32)[:, None, None]
        for numbers in (modalities[name].mean, modalities[name].std)
    )
    return ((values - mean) / std).astype(np.float32)


def disturbed(name: str, values: Array, rng: np.random.Generator) -> Array:
    """Optical numbers under other light, another air, other calibration, and sometimes the offset of 1000.

    The released training data of TerraMind is mixed in its offset, too (`modalities.S2L2A`).
    """
    if not modalities[name].is_optical and name != "RGB":
        return values
    shape = (len(values), values.shape[1], 1, 1)
    gain = np.exp(rng.normal(0, 0.10, (shape[0], 1, 1, 1)) + rng.normal(0, 0.03, shape))
    full = 1.0 if name == "RGB" else 40.0
    air = full * rng.normal(0, 2, (shape[0], 1, 1, 1)) * np.linspace(1, 0, shape[1])[None, :, None, None]
    values = values * gain.astype(np.float32) + air.astype(np.float32)
    if name == "RGB":
        return np.clip(values, 0, 255)
    values = np.maximum(values, 1)
    return values + 1000 * (rng.random((shape[0], 1, 1, 1)) < 0.2).astype(np.float32)


def ahead(draw: Any, start: int, stop: int) -> Iterator[Any]:
    """Yield ``draw(step)`` for each step, the next one drawn while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(draw, start)
        for step in range(start, stop):
            batch = waiting.result()
            if step + 1 < stop:
                waiting = pool.submit(draw, step + 1)
            yield batch


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

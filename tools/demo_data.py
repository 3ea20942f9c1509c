"""Training data of the demo model: stored surfaces of the procedural world, spectra drawn anew each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.progress import track

from terramind_xr.modalities import TILE, modalities
from terramind_xr.synthetic import window
from terramind_xr.synthetic.spectra import digital_numbers
from terramind_xr.synthetic.world import surface

SIDE = 512
SHARDS, PER_SHARD = 16, 100
TRAINING_SEED = 1_000_000  # worlds of training; held-out worlds have small seeds
SHADE, HAZE = 1.6, 1.0  # full scale of the stored bytes

S2_MEAN = np.array(modalities["S2L2A"].mean, np.float32)[:, None, None]
S2_STD = np.array(modalities["S2L2A"].std, np.float32)[:, None, None]


def to_bytes(field: np.ndarray, full: float) -> np.ndarray:
    return np.clip(np.rint(field * (255 / full)), 0, 255).astype(np.uint8)


def make_worlds(work: Path) -> None:
    """Store surfaces of the training worlds, one window for each world; finished shards are kept."""
    work.mkdir(parents=True, exist_ok=True)
    for shard in track(range(SHARDS), "worlds"):
        path = work / f"worlds_{shard:02d}.npy"
        if path.exists():
            continue
        out = np.empty((PER_SHARD, 6, SIDE, SIDE), np.uint8)
        for number in range(PER_SHARD):
            seed = TRAINING_SEED + shard * PER_SHARD + number
            y, x = np.random.default_rng(seed).integers(0, 100_000, 2)
            s = surface(seed, int(y), int(x), SIDE, SIDE)
            fields = (
                s.cover,
                s.first,
                s.second,
                to_bytes(s.mix, 1),
                to_bytes(s.shade, SHADE),
                to_bytes(s.haze, HAZE),
            )
            out[number] = np.stack(fields)
        part = path.with_suffix(".part.npy")
        np.save(part, out)
        part.rename(path)


class Tiles:
    """Random tiles: any position, any of eight orientations, light and haze and noise drawn anew."""

    def __init__(self, work: Path, seed: int) -> None:
        paths = sorted(work.glob("worlds_??.npy"))
        self.worlds = [np.load(path, mmap_mode="r") for path in paths]
        self.rng = np.random.default_rng(seed)
        # Drawing twelve fields of normal numbers takes as long as all the rest: they are drawn once.
        self.noise = self.rng.standard_normal((64, TILE, TILE), np.float32)

    def fields(self) -> np.ndarray:
        """(6, 224, 224) uint8: cover, first, second, mix, shade, haze."""
        rng = self.rng
        world = self.worlds[rng.integers(len(self.worlds))][rng.integers(PER_SHARD)]
        y, x = rng.integers(0, SIDE - TILE + 1, 2)
        tile = np.rot90(world[:, y : y + TILE, x : x + TILE], rng.integers(4), axes=(1, 2))
        return np.ascontiguousarray(tile[:, :, ::-1] if rng.integers(2) else tile)

    def optical(self, fields: np.ndarray) -> np.ndarray:
        """(12, 224, 224) uint16 digital numbers of stored fields under light and haze of their own."""
        rng = self.rng
        scale = np.float32(1 / 255)
        light = np.float32(np.exp(rng.normal(0, 0.12)))
        shade = fields[4] * (scale * np.float32(SHADE) * light)
        haze = np.clip(fields[5] * scale + np.float32(rng.normal(0, 0.12)), 0, 1)
        noise = [self.noise[field] for field in rng.integers(len(self.noise), size=12)]
        return digital_numbers(fields[1], fields[2], fields[3] * scale, shade, haze, noise)

    def batches(self, size: int, steps: int) -> Iterator[dict[str, np.ndarray]]:
        """Batches of S2L2A, LULC and NDVI, in standardised units and codes."""
        for _ in range(steps):
            fields = [self.fields() for _ in range(size)]
            numbers = np.stack([self.optical(tile) for tile in fields]).astype(np.float32)
            yield standardised(numbers, np.stack([tile[0] for tile in fields]))

    def covers(self, size: int, steps: int) -> Iterator[np.ndarray]:
        """Batches of LULC codes alone."""
        for _ in range(steps):
            yield np.stack([self.fields()[0] for _ in range(size)])


def standardised(numbers: np.ndarray, cover: np.ndarray) -> dict[str, np.ndarray]:
    ndvi = modalities["NDVI"]
    red, infrared = numbers[:, 3], numbers[:, 7]
    index = (infrared - red) / (infrared + red)
    return {
        "S2L2A": (numbers - S2_MEAN) / S2_STD,
        "LULC": cover.astype(np.int64),
        "NDVI": ((index - ndvi.mean[0]) / ndvi.std[0])[:, None].astype(np.float32),
    }


def held_out(count: int) -> dict[str, np.ndarray]:
    """Tiles of worlds that training has never seen, through the public generator."""
    numbers, cover = [], []
    for seed in range(count):
        y, x = np.random.default_rng([7, seed]).integers(0, 50_000, 2)
        tile = window(seed, int(y), int(x), TILE, TILE, ("S2L2A", "LULC"))
        numbers.append(tile["S2L2A"])
        cover.append(tile["LULC"])
    return standardised(np.stack(numbers).astype(np.float32), np.stack(cover))

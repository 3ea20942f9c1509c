"""Which tiles of a scene are for training, and which to judge by: whole blocks, apart from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from terramind_xr.errors import InputError, OptionError
from terramind_xr.model.sampling import is_whole

SPLITS = ("train", "val", "test")


class Tile(NamedTuple):
    """First pixel of a tile from the north-west corner, at a place along the extra dims of a scene."""

    scene: int
    place: tuple[int, ...]
    row: int
    column: int


Block = tuple[int, int, int]
"""A scene's number, and row and column of the block in it."""


def starts_in_blocks(size: int, tile: int, stride: int, block: int, gap: int) -> list[list[int]]:
    """First pixels of the tiles along an axis, by block.

    Parameters
    ----------
    size
        Pixels of the scene along the axis.
    tile, stride
        Side of a tile, and pixels from one to the next within a block.
    block
        Tiles to a block along the axis.
    gap
        Pixels between blocks that no tile covers.

    Examples
    --------
    >>> starts_in_blocks(size=1000, tile=224, stride=224, block=2, gap=32)
    [[0, 224], [480, 704]]
    """
    side = (block - 1) * stride + tile
    firsts = range(0, max(size - tile, -1) + 1, side + gap)
    return [
        [start for start in range(first, first + side - tile + 1, stride) if start + tile <= size]
        for first in firsts
    ]


def shared_out(
    labelled: Mapping[Block, int], splits: Sequence[float], seed: int
) -> dict[str, frozenset[Block]]:
    """Blocks of each split, such that the splits have about their shares of the labelled tiles.

    Parameters
    ----------
    labelled
        Labelled tiles of each block; those without are left out.
    splits
        Shares for training, validation and test.
    seed
        Of the order in which blocks are given out.
    """
    shares = dict(zip(SPLITS, checked_splits(splits), strict=True))
    wanted = [name for name in SPLITS if shares[name] > 0]
    blocks = sorted(block for block, count in labelled.items() if count)
    if len(blocks) < len(wanted):
        raise InputError(
            f"labels: found them in {len(blocks)} blocks, expected at least {len(wanted)}, one for each of "
            f"{', '.join(wanted)}. Take smaller blocks (block=), smaller tiles (tile=), or fewer splits: "
            "splits=(0.8, 0.2, 0)."
        )
    order = [blocks[index] for index in np.random.default_rng(seed).permutation(len(blocks))]
    given: dict[str, list[Block]] = {name: [] for name in SPLITS}
    counts = dict.fromkeys(wanted, 0)
    for block in order:
        # First one to each, then to whoever is furthest below its share.
        name = min(wanted, key=lambda each: (bool(given[each]), counts[each] / shares[each]))
        given[name].append(block)
        counts[name] += labelled[block]
    return {name: frozenset(blocks) for name, blocks in given.items()}


def checked_splits(splits: Sequence[float]) -> tuple[float, float, float]:
    """Three shares, of which the first is not 0."""
    good = (
        isinstance(splits, Sequence)
        and len(splits) == 3
        and all(isinstance(share, int | float) and share >= 0 for share in splits)
    )
    if not good or splits[0] == 0:
        raise OptionError(
            f"splits={splits!r} cannot be used: expected the shares of training, validation and test, such "
            "as (0.7, 0.15, 0.15)."
        )
    return splits[0], splits[1], splits[2]


def check_sides(tile: int, stride: int, block: int, gap: int) -> None:
    """Raise OptionError for sides that cannot be used."""
    rules = {
        "tile": (tile, is_whole(tile) and tile > 0 and tile % 16 == 0, "a multiple of 16 pixels"),
        "stride": (stride, is_whole(stride) and 0 < stride <= tile, "pixels from 1 to the tile's side"),
        "block": (block, is_whole(block) and block > 0, "a whole number of tiles >= 1"),
        "gap": (gap, is_whole(gap) and gap >= 0, "a whole number of pixels >= 0"),
    }
    for name, (value, right, expected) in rules.items():
        if not right:
            raise OptionError(f"{name}={value!r} cannot be used: expected {expected}.")

"""Tiles in batches, and in smaller ones where the memory of the device does not hold them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from terramind_xr.errors import DeviceMemoryError, TerramindWarning

Tile = TypeVar("Tile")
Result = TypeVar("Result")


def in_batches(
    tiles: Sequence[Tile], size: int, run: Callable[[Sequence[Tile]], Result]
) -> Iterator[tuple[Sequence[Tile], Result]]:
    """Batches of up to `size` tiles, each with what `run` gives for it.

    A batch for which `run` raises `DeviceMemoryError` is halved and tried again, down to one tile; what does
    fit is kept for the tiles that follow, and told by a warning. The next call begins with `size` again:
    which batches a block runs in must not depend on the blocks that this process has had before.
    """
    first, fitting = 0, size
    while first < len(tiles):
        batch = tiles[first : first + fitting]
        result = _tried(run, batch)
        if result is None:
            # The error is gone, which held the frames with what is on the device. Cycles may hold them, too:
            # those of a first import do.
            gc.collect()
            fitting = len(batch) // 2
            continue
        yield batch, result[0]
        first += len(batch)
    if fitting < size:
        _tell(size, fitting)


def _tried(run: Callable[[Sequence[Tile]], Result], batch: Sequence[Tile]) -> tuple[Result] | None:
    try:
        return (run(batch),)
    except DeviceMemoryError as error:
        if len(batch) > 1:
            return None
        raise DeviceMemoryError(f"A single tile is too much for the device. {error}") from error


def _tell(asked: int, fitting: int) -> None:
    # Slow to import. From a worker it reaches the client, and is shown once in each process.
    from distributed import warn

    warn(
        f"The memory of the device does not hold a batch of {asked} tiles: they were run in batches of "
        f"{fitting}. With batch_size={fitting} no try is wasted, and the attribute terramind_batch_size says "
        "what was run.",
        TerramindWarning,
    )

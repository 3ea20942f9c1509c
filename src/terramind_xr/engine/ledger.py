"""What an unfinished store knows of its run: whose it is, and which chunks are finished.

All lies in one folder of the store, which is gone when the store is finished:

- ``ledger.json``: format, identity, sizes of chunks, and a number of the run; written first, never changed
- ``done/<variable>/<place>.<digest>``: empty; written after the chunk, whose values have this digest

A chunk counts as finished when its values have the digest that such a name holds. So it does not matter
whether a store writes its objects whole or can leave half of one, and which chunks it leaves out because they
hold nothing but the fill value.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from terramind_xr.engine.identity import Identity, digest

FOLDER = ".terramind"
_FORMAT = 1
_MARK = re.compile(r"(?P<variable>.+)/(?P<place>c(?:\.\d+)*)\.(?P<digest>[0-9a-f]{32})")

Chunks = dict[str, list[int]]
"""Size of the chunks along each axis, by variable."""
Place = tuple[int, ...]


class DamagedLedgerError(ValueError):
    """A ledger that cannot be read."""


def buffer(text: str) -> Buffer:
    """Text as Zarr stores take it."""
    return default_buffer_prototype().buffer.from_bytes(text.encode())


@dataclass(frozen=True)
class Ledger:
    """The ledger of the store at a place."""

    target: StorePath

    @classmethod
    def of(cls, target: StorePath) -> Ledger | None:
        """Ledger of the store at a place; None where none can be kept.

        A store that cannot list or delete has none, nor has an Icechunk session: it takes the keys of Zarr
        alone, and what is not committed is gone with its process.
        """
        store = target.store
        is_able = store.supports_deletes and store.supports_listing and not hasattr(store, "session")
        return cls(target) if is_able else None

    @property
    def folder(self) -> StorePath:
        """Where it lies."""
        return self.target / FOLDER

    def read(self) -> tuple[Identity, Chunks, str] | None:
        """Identity, chunks and number of the run that the store belongs to; None without any.

        Raises
        ------
        DamagedLedgerError
            It is no ledger, or one of another release.
        """
        found = sync((self.folder / "ledger.json").get())
        if found is None:
            return None
        try:
            contents = json.loads(found.to_bytes())
            if contents["format"] == _FORMAT:
                return contents["identity"], contents["chunks"], contents.get("run", "")
        except (ValueError, KeyError, TypeError):
            raise DamagedLedgerError("it is damaged") from None
        raise DamagedLedgerError(f"it has format {contents['format']}, this release knows {_FORMAT}")

    def begin(self, identity: Identity, chunks: Chunks) -> tuple[Identity, Chunks, bool]:
        """Write it, unless there is one; what then stands there, and whether this call has written it."""
        run = uuid.uuid4().hex
        contents = {"format": _FORMAT, "identity": identity, "chunks": chunks, "run": run}
        text = buffer(json.dumps(contents, indent=1))
        place = self.folder / "ledger.json"
        try:
            self.read()
            sync(place.set_if_not_exists(text))
        except DamagedLedgerError:
            sync(place.set(text))
        found = self.read()
        if found is None:
            raise OSError(f"{place} cannot be read back")
        return found[0], found[1], found[2] == run

    def mark(self, variable: str, place: Place, values: NDArray[Any]) -> None:
        """Say that a chunk, which is in the store, is finished."""
        name = ".".join(["c", *map(str, place), digest(values)])
        # Another call that has the same run at work may have finished, and taken the folder away.
        with contextlib.suppress(FileNotFoundError):
            sync((self.folder / "done" / variable / name).set(buffer("\n")))

    def finished(self, arrays: dict[str, zarr.Array[Any]]) -> dict[str, set[Place]]:
        """Places of the chunks that are finished, by variable. Each is read, on dask's scheduler in force."""
        marks: dict[tuple[str, Place], list[str]] = {}
        for key in keys_in(self.folder / "done"):
            found = _MARK.fullmatch(key)
            if found and found["variable"] in arrays:
                place = tuple(map(int, found["place"].split(".")[1:]))
                marks.setdefault((found["variable"], place), []).append(found["digest"])
        look = dask.delayed(_holds, pure=False)
        tasks = [look(arrays[name], place, digests) for (name, place), digests in marks.items()]
        intact = dask.compute(*tasks)
        done: dict[str, set[Place]] = {name: set() for name in arrays}
        for (name, place), is_intact in zip(marks, intact, strict=True):
            if is_intact:
                done[name].add(place)
        return done

    def is_alone(self) -> bool:
        """Whether the store holds nothing outside of the folder."""
        prefix = f"{self.target.path}/" if self.target.path else ""

        async def found() -> bool:
            async for key in self.target.store.list_prefix(prefix):
                if not key.startswith(f"{prefix}{FOLDER}/"):
                    return False
            return True

        return bool(sync(found()))

    def leftovers(self) -> list[str]:
        """Keys of halves of objects, as zarr's local store leaves them where a process is killed."""
        return [key for key in keys_in(self.target) if key.endswith(".partial")]

    def remove(self, leftovers: Iterable[str]) -> None:
        """Leave nothing of it, nor of those keys. What cannot be removed does no harm."""
        for place in (self.target / key for key in leftovers):
            with contextlib.suppress(OSError):
                sync(place.delete())
        with contextlib.suppress(OSError):
            sync(self.folder.delete_dir())


def _holds(array: zarr.Array[Any], place: Place, digests: list[str]) -> bool:
    """Whether a chunk holds values of one of these digests."""
    region = tuple(slice(n * size, (n + 1) * size) for n, size in zip(place, array.chunks, strict=True))
    try:
        return digest(np.asarray(array[region])) in digests
    except Exception:  # half a chunk fails in as many ways as there are codecs
        return False


def keys_in(place: StorePath) -> list[str]:
    """Keys of all that lies below a place, counted from there."""
    prefix = f"{place.path}/" if place.path else ""

    async def listed() -> list[str]:
        return [key.removeprefix(prefix) async for key in place.store.list_prefix(prefix)]

    found: list[str] = sync(listed())
    return found


def is_empty(place: StorePath) -> bool:
    """Whether nothing lies below a place."""
    prefix = f"{place.path}/" if place.path else ""

    async def found() -> bool:
        return any([key.startswith(prefix) async for key in place.store.list()])

    # Icechunk takes a place without a group for empty, whatever lies below, and lists none such.
    return sync(place.is_empty()) and not (hasattr(place.store, "session") and sync(found()))

"""Files of weights: in the package, in a folder or on the Hugging Face hub, and known by their SHA-256."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from terramind_xr.errors import WeightsError

HUB = "ibm-esa-geospatial/TerraMind-1.0-"
"""How names of the repositories on the hub begin."""
VOCABULARY = "TerraMind_Tokenizer_Coords.json"
"""The vocabulary of Coordinates in a folder. On the hub it is called config.json, a name that other
repositories may use as well: in a folder it could not be told from theirs."""
_PATIENCE = 5.0
"""Seconds to wait for the hub's first answer, where HF_HUB_ETAG_TIMEOUT does not say."""
FETCH_HINT = """
Fetch the weights once where there is a network (`hf download REPOSITORY`), set HF_HOME to a cache that has
them, or give a folder that holds the files. model="demo" runs without any, on a miniature that is not for
science."""


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights, and where any process finds it again.

    Parameters
    ----------
    source
        ``"hub:organisation/name"``, ``"folder:/a/path"`` or ``"package"``.
    filename
        Within the source.
    revision
        Commit on the hub; empty elsewhere.
    digest
        SHA-256 of the file.
    size
        Bytes of it, for estimates of memory; 0 where that is not known.
    """

    # Not what the weights are: that is their digest.
    source: str = field(metadata={"identity": False})
    filename: str
    revision: str
    digest: str
    size: int = field(default=0, metadata={"identity": False}, compare=False)

    def path(self) -> Path:
        """Path in this process; on a hub source the file is fetched where it is not cached.

        Raises
        ------
        WeightsError
            If this process cannot see the file.
        """
        kind, _, where = self.source.partition(":")
        if kind == "hub":
            try:
                cached = _cached(where, self.filename, self.revision)
                return cached or _fetched(where, self.filename, self.revision)
            except FileNotFoundError as error:
                raise WeightsError(
                    f"{self.filename} cannot be found in this process: {error}.{FETCH_HINT}"
                ) from error
        path = (Path(where) if kind == "folder" else package_folder()) / self.filename
        if not path.is_file():
            raise WeightsError(
                f"{path} does not exist for the process that computes (on {platform.node()}). The path of a "
                "model's folder must be visible from every worker, under the same name: put the folder on a "
                "shared file system, or give a hub name such as 'terramind_v1_base'."
            )
        return path

    def verified_path(self) -> Path:
        """Path in this process, of a file whose content is what the call recorded.

        Raises
        ------
        WeightsError
            If this process cannot see the file, or its content is another.
        """
        path = self.path()
        try:
            digest = _content_sha256(path)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
        if digest != self.digest:
            remedy = (
                "The cached file is damaged: delete it and fetch it again."
                if self.source.startswith("hub:")
                else "It was replaced since, or this process sees another one: make the call again."
            )
            raise WeightsError(
                f"{path} holds other weights than the call recorded: SHA-256 {digest} here, {self.digest} "
                f"when the call was made. {remedy}"
            )
        return path


def package_folder() -> Path:
    """Folder of the demo model's files."""
    with importlib.resources.as_file(importlib.resources.files("terramind_xr") / "demo") as folder:
        return Path(folder)


def packaged(filename: str) -> WeightsFile:
    """One of the demo's files; FileNotFoundError where it has no such file."""
    path = package_folder() / filename
    if not path.is_file():
        raise FileNotFoundError("not in this installation of terramind_xr; install it anew")
    return WeightsFile("package", filename, "", _sha256(path), path.stat().st_size)


def in_folder(filename: str, folder: Path) -> WeightsFile:
    """A file of a folder; FileNotFoundError where it is not there."""
    path = folder / filename
    if not path.is_file():
        origin = f"; it is config.json of {HUB}Tokenizer-Coords" if filename == VOCABULARY else ""
        raise FileNotFoundError(f"not in {str(folder)!r}{origin}")
    return WeightsFile(f"folder:{folder}", filename, "", _sha256(path), path.stat().st_size)


class Hub:
    """Files of one size on the hub; when it cannot be reached for one file, the others are not tried."""

    def __init__(self, size: str, revision: str | None) -> None:
        self._size, self._revision = size, revision
        self._unreachable: _UnreachableError | None = None

    def locate(self, filename: str) -> WeightsFile:
        """A file by its name, fetched if need be; FileNotFoundError where that is impossible."""
        tokenizer = re.fullmatch(r"TerraMind_Tokenizer_(\w+)\.(?:pt|json)", filename)
        repository = f"{HUB}Tokenizer-{tokenizer[1]}" if tokenizer else f"{HUB}{self._size}"
        filename = "config.json" if filename == VOCABULARY else filename
        path = _cached(repository, filename, self._revision)
        if path is None:
            if self._unreachable:
                raise self._unreachable
            try:
                path = _fetched(repository, filename, self._revision)
            except _UnreachableError as error:
                self._unreachable = error
                raise
        # …/snapshots/<commit>/<file>, a link to …/blobs/<SHA-256> for large files.
        blob = path.resolve().name
        digest = blob if re.fullmatch("[0-9a-f]{64}", blob) else _sha256(path)
        return WeightsFile(f"hub:{repository}", filename, path.parent.name, digest, path.stat().st_size)


class _UnreachableError(FileNotFoundError):
    """The hub does not answer."""


def _cached(repository: str, filename: str, revision: str | None) -> Path | None:
    """Path of a file in the hub's cache; the environment's settings are honoured."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision or None)
    return Path(cached) if isinstance(cached, str) else None


def _fetched(repository: str, filename: str, revision: str | None) -> Path:
    """Path of a file that is fetched into the hub's cache.

    One short question goes ahead: `hf_hub_download` would ask a hub that does not answer for most of a
    minute.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    not_cached = "not in the cache of the Hugging Face hub, and"
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise _UnreachableError(f"{not_cached} HF_HUB_OFFLINE forbids to fetch it")
    patience = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _PATIENCE)
    url = huggingface_hub.hf_hub_url(repository, filename, revision=revision or None)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=patience)
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{repository}: {_first_line(error)}") from error
    except Exception as error:  # the classes of a lost connection differ between versions of the hub's client
        raise _UnreachableError(
            f"{not_cached} {repository} cannot be reached ({_first_line(error)})"
        ) from error
    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename, revision=revision or None))
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(f"{repository}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sha256(path: Path) -> str:
    status = path.stat()
    # The inode and the time of change tell a replaced file even where its size and date were copied.
    return _sha256_of(str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.lru_cache(maxsize=64)
def _sha256_of(path: str, *state: int) -> str:
    return _content_sha256(Path(path))


def _content_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

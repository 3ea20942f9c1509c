"""Which models there are, and where their weights lie: found at the call, without loading any.

A model travels as a `Recipe` (names, revisions, digests), never as weights.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from terramind_xr.errors import OptionError, WeightsError
from terramind_xr.modalities import modalities

SIZES = ("tiny", "small", "base", "large")
_HUB = "ibm-esa-geospatial/TerraMind-1.0-"
_TOKENIZERS = tuple(name for name, modality in modalities.items() if modality.codebook)
_NAME = re.compile(r"terramind_v1_(tiny|small|base|large)(?:@(?P<revision>[\w./-]+))?")
_FETCH_HINT = """
Fetch the weights once where there is a network (`hf download REPOSITORY`), set HF_HOME to a cache that has
them, or give a folder that holds the files. model="demo" runs without any, on a miniature that is not for
science."""
_FILE = re.compile(r"TerraMind_v1_(tiny|small|base|large)\.(?:pt|safetensors)")


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
    """

    source: str
    filename: str
    revision: str
    digest: str

    def path(self) -> Path:
        """Path in this process; on a hub source the file is fetched where it is not cached."""
        kind, _, where = self.source.partition(":")
        if kind == "hub":
            return _hub_path(where, self.filename, self.revision)
        if kind == "folder":
            return Path(where) / self.filename
        return package_folder() / self.filename


@dataclass(frozen=True)
class Recipe:
    """What a process needs to load a model: small, picklable, equal when the weights are equal.

    Parameters
    ----------
    name
        ``"terramind_v1_tiny"`` … ``"terramind_v1_large"`` or ``"demo"``.
    backbone
        Weights of the encoder and decoder.
    tokenizers
        Weights by modality, for the modalities that a call needs.
    """

    name: str
    backbone: WeightsFile
    tokenizers: tuple[tuple[str, WeightsFile], ...] = ()

    @property
    def digest(self) -> str:
        """One SHA-256 for all files together."""
        files = (self.backbone, *(file for _, file in self.tokenizers))
        return hashlib.sha256("".join(file.digest for file in files).encode()).hexdigest()


@dataclass(frozen=True)
class ModelInfo:
    """One model that can be named: what it is and where its weights come from."""

    name: str
    source: str
    note: str


def models() -> dict[str, ModelInfo]:
    """List the models that ``model=`` takes.

    Returns
    -------
    dict
        `ModelInfo` by name. A folder with the same files as on the hub can be given as well.

    Examples
    --------
    >>> import terramind_xr
    >>> list(terramind_xr.models())
    ['terramind_v1_tiny', 'terramind_v1_small', 'terramind_v1_base', 'terramind_v1_large', 'demo']
    """
    found = {
        f"terramind_v1_{size}": ModelInfo(
            f"terramind_v1_{size}",
            f"https://huggingface.co/{_HUB}{size}",
            "pre-trained by IBM and ESA, Apache-2.0",
        )
        for size in SIZES
    }
    demo = ModelInfo("demo", "in this package", "a miniature trained on a synthetic world: not for science")
    return {**found, "demo": demo}


def find(model: str | os.PathLike[str], tokenizers: Collection[str]) -> Recipe:
    """Find the weights of a model without loading any.

    Parameters
    ----------
    model
        A name from `models`, such a name with a hub revision (``"terramind_v1_base@main"``), or a folder
        that holds the files of the hub under their own names.
    tokenizers
        Modalities whose tokenizers are needed.

    Returns
    -------
    Recipe
        Names, revisions and digests of the files.

    Raises
    ------
    OptionError
        If there is no such model.
    WeightsError
        If files are missing and cannot be fetched; all of them are listed.
    """
    if model == "demo":
        return _collect("demo", _packaged, "backbone.safetensors", tokenizers)
    match = _NAME.fullmatch(str(model))
    if match:
        name, revision = f"terramind_v1_{match[1]}", match["revision"]
        locate = functools.partial(_on_hub, size=match[1], revision=revision)
        return _collect(name, locate, f"TerraMind_v1_{match[1]}.pt", tokenizers)
    folder = Path(model).expanduser()
    if str(model) and folder.is_dir():
        backbones = [path for path in sorted(folder.iterdir()) if _FILE.fullmatch(path.name)]
        if len(backbones) != 1:
            raise WeightsError(
                f"The folder {str(folder)!r} holds {len(backbones)} model files named like "
                f"'TerraMind_v1_base.pt' ({', '.join(path.name for path in backbones) or 'none'}); "
                "expected exactly one."
            )
        size = _FILE.fullmatch(backbones[0].name)
        assert size is not None, "selected by this very pattern"
        locate = functools.partial(_in_folder, folder=folder.resolve())
        return _collect(f"terramind_v1_{size[1]}", locate, backbones[0].name, tokenizers)
    raise OptionError(
        f"There is no model {str(model)!r}. Give one of {', '.join(models())}, or a folder that holds "
        "the files."
    )


def _collect(
    name: str, locate: Callable[[str], WeightsFile], backbone: str, tokenizers: Collection[str]
) -> Recipe:
    """Locate every file, and report all that are missing together."""
    pattern = "tokenizer_{}.safetensors" if name == "demo" else "TerraMind_Tokenizer_{}.pt"
    wanted = {"": backbone}
    for modality in sorted(tokenizers):
        if modality not in _TOKENIZERS:
            raise OptionError(f"{modality} has no tokenizer; those with one are {', '.join(_TOKENIZERS)}.")
        wanted[modality] = pattern.format(modality.lower() if name == "demo" else modality)
    found, missing = {}, []
    for key, filename in wanted.items():
        try:
            found[key] = locate(filename)
        except FileNotFoundError as error:
            missing.append(f"  {filename}: {error}")
    if missing:
        hint = "" if name == "demo" else _FETCH_HINT
        raise WeightsError(f"Weights of {name} are missing:\n" + "\n".join(missing) + hint)
    return Recipe(name, found.pop(""), tuple(found.items()))


def _packaged(filename: str) -> WeightsFile:
    path = package_folder() / filename
    if not path.is_file():
        raise FileNotFoundError("not in this installation of terramind_xr; install it anew")
    return WeightsFile("package", filename, "", _sha256(path))


def package_folder() -> Path:
    """Folder of the demo model's files."""
    with importlib.resources.as_file(importlib.resources.files("terramind_xr") / "demo") as folder:
        return Path(folder)


def _in_folder(filename: str, folder: Path) -> WeightsFile:
    path = folder / filename
    if not path.is_file():
        raise FileNotFoundError(f"not in {str(folder)!r}")
    return WeightsFile(f"folder:{folder}", filename, "", _sha256(path))


def _on_hub(filename: str, size: str, revision: str | None) -> WeightsFile:
    tokenizer = re.fullmatch(r"TerraMind_Tokenizer_(\w+)\.pt", filename)
    repository = f"{_HUB}Tokenizer-{tokenizer[1]}" if tokenizer else f"{_HUB}{size}"
    path = _hub_path(repository, filename, revision)
    # …/snapshots/<commit>/<file>, a link to …/blobs/<SHA-256> for large files.
    blob = path.resolve().name
    digest = blob if re.fullmatch("[0-9a-f]{64}", blob) else _sha256(path)
    return WeightsFile(f"hub:{repository}", filename, path.parent.name, digest)


def _hub_path(repository: str, filename: str, revision: str | None) -> Path:
    """Path of a file in the hub's cache, fetched if need be; the environment's settings are honoured."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    cached = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision or None)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename, revision=revision or None))
    except LocalEntryNotFoundError as error:
        why = f"not in the cache of the Hugging Face hub, and {repository} cannot be reached"
        raise FileNotFoundError(why) from error
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(f"{repository}: {str(error).splitlines()[0]}") from error


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256_of(path: str, size: int, modified: int) -> str:
    # Size and time are there for the cache: a file that was changed is read again.
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

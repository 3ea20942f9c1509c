"""Which models there are, and where their weights lie: found at the call, without loading any.

A model travels as a `Recipe` (names, revisions, digests), never as weights.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terramind_xr.errors import OptionError, WeightsError
from terramind_xr.facts import modalities
from terramind_xr.model.exported import Converted, Manifest
from terramind_xr.model.files import (
    FETCH_HINT,
    HUB,
    VOCABULARY,
    Hub,
    WeightsFile,
    in_folder,
    package_folder,
    packaged,
)

SIZES = ("tiny", "small", "base", "large")
_TOKENIZERS = tuple(name for name, modality in modalities.items() if modality.token_key)
_NAME = re.compile(r"terramind_v1_(tiny|small|base|large)(?:@(?P<revision>[\w./-]+))?")
RELEASED_SIZES = {
    "TerraMind_v1_tiny.pt": 165_000_000,
    "TerraMind_v1_small.pt": 410_000_000,
    "TerraMind_v1_base.pt": 1_331_000_000,
    "TerraMind_v1_large.pt": 3_538_000_000,
    **{f"TerraMind_Tokenizer_{name}.pt": 1_146_000_000 for name in ("S1GRD", "S1RTC", "DEM", "NDVI")},
    "TerraMind_Tokenizer_S2L2A.pt": 1_157_000_000,
    "TerraMind_Tokenizer_LULC.pt": 736_000_000,
}
"""Bytes of files in float32, by name: those of terratorch's classes with the embeddings of every modality
(``benchmarks/plan_memory.py --sizes``)."""
_FILE = re.compile(r"TerraMind_v1_(tiny|small|base|large)\.(?:pt|safetensors)")


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
    decoders
        Converted decoders by modality, of a model that `export` wrote.
    transformer
        The backbone's two halves by ``"encoder"`` and ``"decoder"``, where they were converted, too.
    """

    name: str
    backbone: WeightsFile
    tokenizers: tuple[tuple[str, WeightsFile], ...] = ()
    decoders: tuple[tuple[str, Converted], ...] = ()
    transformer: tuple[tuple[str, Converted], ...] = ()

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, by ``"backbone"`` and by modality: the same whatever else a call needs."""
        main = {"backbone": self.backbone.digest} if self.backbone.digest else {}
        converted = {
            f"{name}{kind}": file.digest
            for name, each in (
                *((f"backbone_{half}", each) for half, each in self.transformer),
                *((f"{modality}_decoder", each) for modality, each in self.decoders),
            )
            for kind, file in (("", each.constants), ("_graph", each.graph))
        }
        return main | {name: file.digest for name, file in self.tokenizers if file.digest} | converted


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
            f"https://huggingface.co/{HUB}{size}",
            "pre-trained by IBM and ESA, Apache-2.0",
        )
        for size in SIZES
    }
    demo = ModelInfo("demo", "in this package", "a miniature trained on a synthetic world: not for science")
    return {**found, "demo": demo}


def find(model: str | os.PathLike[str], tokenizers: Collection[str], *, backbone: bool = True) -> Recipe:
    """Find the weights of a model without loading any.

    Parameters
    ----------
    model
        A name from `models`, such a name with a hub revision (``"terramind_v1_base@main"``), or a folder
        that holds the files of the hub under their own names, or that `export` wrote.
    tokenizers
        Modalities whose tokenizers are needed.
    backbone
        Whether the encoder and decoder are needed, too.

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
    source = _resolve(model)
    wanted = {"": source.backbone} if backbone else {}
    for modality in sorted(tokenizers):
        if modality not in _TOKENIZERS:
            raise OptionError(f"{modality} has no tokenizer; those with one are {', '.join(_TOKENIZERS)}.")
        wanted[modality] = tokenizer_filename(source.name, modality)
    found, converted, missing = {}, {}, []
    for key, filename in wanted.items():
        try:
            found[key] = source.locate(filename)
            converted.update({(key, half): each for half, each in source.converted(key).items()})
        except FileNotFoundError as error:
            missing.append(f"  {filename}: {error}")
    if missing:
        raise WeightsError(f"Weights of {source.name} are missing:\n" + "\n".join(missing) + source.hint)
    main = found.pop("") if backbone else WeightsFile("undetermined", source.backbone, "", "")
    transformer = tuple((half, each) for (key, half), each in converted.items() if not key)
    decoders = tuple((key, each) for (key, _), each in converted.items() if key)
    return Recipe(source.name, main, tuple(found.items()), decoders, transformer)


def tokenizer_filename(model: str, modality: str) -> str:
    """Name of the file that holds a modality's tokenizer of a model, in any folder."""
    if modality == "Coordinates":
        return VOCABULARY
    demo = model == "demo"
    return f"tokenizer_{modality.lower()}.safetensors" if demo else f"TerraMind_Tokenizer_{modality}.pt"


def backbone_filename(model: str) -> str:
    """Name of the file that holds the encoder and decoder of a model, as the hub calls it."""
    return "backbone.safetensors" if model == "demo" else f"TerraMind_{model.removeprefix('terramind_')}.pt"


def codebook(model: str | os.PathLike[str] | Recipe, name: str) -> tuple[int, ...]:
    """Levels of the quantizer of a modality's tokenizer; the vocabulary is their product.

    Raises
    ------
    OptionError, WeightsError
        As `describe` does.
    """
    if _name_of(model) != "demo":
        return modalities[name].codebook
    return tuple(demo_config()["tokenizers"][name]["codebook"])


def describe(model: str | os.PathLike[str], tokenizers: Collection[str] = ()) -> Recipe:
    """Say which model a name means, without its files: no network, and nothing read.

    Parameters
    ----------
    model
        As for `find`; of a folder, the names of its files are read.
    tokenizers
        Modalities whose tokenizers are needed.

    Returns
    -------
    Recipe
        With files that have no digest, and that no process can load: for plans. Their sizes are those of
        a folder, else of the released ones.

    Raises
    ------
    OptionError
        If there is no such model.
    WeightsError
        If a folder does not hold exactly one model.
    """
    source = _resolve(model)

    def undetermined(filename: str) -> WeightsFile:
        path = source.folder / filename if source.folder else None
        size = path.stat().st_size if path and path.is_file() else RELEASED_SIZES.get(filename, 0)
        return WeightsFile("undetermined", filename, "", "", size)

    named = ((name, undetermined(tokenizer_filename(source.name, name))) for name in sorted(tokenizers))
    return Recipe(source.name, undetermined(source.backbone), tuple(named))


def readable(model: str | os.PathLike[str] | Recipe) -> frozenset[str]:
    """Modalities that a model takes as inputs, as pixels or as tokens; no weights are read.

    Parameters
    ----------
    model
        As for `find`, or what `find` returned. The demo is judged by its configuration, the released sizes
        by the table of modalities.

    Raises
    ------
    OptionError, WeightsError
        As `describe` does.
    """
    if _name_of(model) != "demo":
        return frozenset(name for name, each in modalities.items() if each.raw_key or each.token_key)
    inputs, tokenizers = demo_config()["backbone"]["inputs"], demo_config()["tokenizers"]
    return frozenset(
        name
        for name, each in modalities.items()
        if (each.raw_key in inputs if each.raw_key else each.token_key in inputs and name in tokenizers)
    )


def readable_tokens(model: str | os.PathLike[str] | Recipe) -> frozenset[str]:
    """Modalities whose tokens a model takes as they are; otherwise as `readable`."""
    if _name_of(model) != "demo":
        return frozenset(_TOKENIZERS)
    inputs = demo_config()["backbone"]["inputs"]
    return frozenset(name for name in _TOKENIZERS if modalities[name].token_key in inputs)


def writable(model: str | os.PathLike[str] | Recipe) -> frozenset[str]:
    """Modalities that a model generates; otherwise as `readable`."""
    if _name_of(model) != "demo":
        return frozenset(_TOKENIZERS)
    outputs, tokenizers = demo_config()["backbone"]["outputs"], demo_config()["tokenizers"]
    return frozenset(name for name in tokenizers if modalities[name].token_key in outputs)


def _name_of(model: str | os.PathLike[str] | Recipe) -> str:
    return model.name if isinstance(model, Recipe) else _resolve(model).name


@functools.cache
def demo_config() -> Mapping[str, Any]:
    """Sizes of the demo's networks, as its training script wrote them."""
    config: Mapping[str, Any] = json.loads((package_folder() / "config.json").read_text())
    return config


@dataclass(frozen=True)
class _Source:
    """What a name means: which model, the name of its main file, and how files of it are located.

    `folder` holds the files; None for those on the hub.
    """

    name: str
    backbone: str
    locate: Callable[[str], WeightsFile]
    folder: Path | None = None
    converted: Callable[[str], Mapping[str, Converted]] = lambda name: {}
    hint: str = FETCH_HINT


def _resolve(model: str | os.PathLike[str]) -> _Source:
    if model == "demo":
        return _Source("demo", backbone_filename("demo"), packaged, package_folder(), hint="")
    match = _NAME.fullmatch(str(model))
    if match:
        hub = Hub(match[1], match["revision"])
        name = f"terramind_v1_{match[1]}"
        return _Source(name, backbone_filename(name), hub.locate)
    folder = Path(model).expanduser()
    if str(model) and folder.is_dir():
        manifest = Manifest.read(folder)
        if manifest:
            where = folder.resolve()
            converted = functools.partial(manifest.converted, folder=where)
            main = backbone_filename(manifest.model)
            return _Source(manifest.model, main, manifest.locate(where), where, converted, hint="")
        backbones = [path.name for path in sorted(folder.iterdir()) if _FILE.fullmatch(path.name)]
        if len(backbones) != 1:
            raise WeightsError(
                f"The folder {str(folder)!r} holds {len(backbones)} model files named like "
                f"'TerraMind_v1_base.pt' ({', '.join(backbones) or 'none'}); expected exactly one."
            )
        size = _FILE.fullmatch(backbones[0])
        assert size is not None, "selected by this very pattern"
        locate = functools.partial(in_folder, folder=folder.resolve())
        return _Source(f"terramind_v1_{size[1]}", backbones[0], locate, folder)
    raise OptionError(
        f"There is no model {str(model)!r}. Give one of {', '.join(models())}, or a folder that holds "
        "the files."
    )

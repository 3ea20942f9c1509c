"""Folders that `export` writes: decoders converted once, beside the weights that they go with."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from terramind_xr.errors import WeightsError
from terramind_xr.model.files import WeightsFile, in_folder

ExportPrecision = Literal["int8", "bf16", "fp32"]
EXPORT_PRECISIONS: tuple[ExportPrecision, ...] = get_args(ExportPrecision)

MANIFEST = "manifest.json"
BACKBONE = "backbone"
HALVES = ("encoder", "decoder")
"""Of the backbone. Files are called after the half and what it is of: ``decoder_LULC``."""
_FORMAT = 1


@dataclass(frozen=True)
class Converted:
    """A converted network: what a process needs to compile it.

    Parameters
    ----------
    graph, constants
        Files of OpenVINO's format: the network as XML, and its numbers.
    precision
        ``"int8"`` (what is not quantised runs in float32), ``"bf16"`` or ``"fp32"``.
    """

    graph: WeightsFile
    constants: WeightsFile
    precision: ExportPrecision


@dataclass(frozen=True)
class Manifest:
    """What a folder of `export` says of itself.

    Parameters
    ----------
    model
        Name of the model that was converted.
    revision
        Its commit on the hub, or empty.
    precision
        Of what was converted.
    decoders
        Modalities whose decoders were converted.
    backbone
        Whether the backbone's encoder and decoder were converted, too.
    files
        SHA-256 by name of every other file of the folder.
    versions
        By package.
    calibration
        On what the scales of int8 were found.
    """

    model: str
    revision: str
    precision: ExportPrecision
    decoders: tuple[str, ...]
    files: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    backbone: bool = False

    def write(self, folder: Path) -> None:
        """Write it into its folder."""
        text = json.dumps({"terramind_xr_export": _FORMAT, **asdict(self)}, indent=2)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Manifest of a folder; None if `export` did not write the folder.

        Raises
        ------
        WeightsError
            If the manifest is damaged, or of another version of this package.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            version = said.pop("terramind_xr_export", None) if isinstance(said, dict) else None
            if version is None:  # a manifest of something else
                return None
            if version != _FORMAT:
                raise WeightsError(
                    f"{path} is of format {version!r}, expected {_FORMAT}. Export the model again with this "
                    "version of terramind_xr."
                )
            manifest = cls(**{**said, "decoders": tuple(said["decoders"])})
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path} cannot be read ({error}). Export the model again.") from error
        if manifest.precision not in EXPORT_PRECISIONS:
            raise WeightsError(
                f"{path} says precision {manifest.precision!r}, expected one of "
                f"{', '.join(EXPORT_PRECISIONS)}. Export the model again."
            )
        return manifest

    def locate(self, folder: Path) -> Callable[[str], WeightsFile]:
        """What finds a file of the folder by its name, and holds it to its digest."""
        return functools.partial(_locate, manifest=self, folder=folder)

    def converted(self, name: str, folder: Path) -> dict[str, Converted]:
        """What was converted of a modality, or (an empty name) of the backbone, by half.

        Raises
        ------
        FileNotFoundError, WeightsError
            If a file is missing, or is not what was exported.
        """
        halves: tuple[str, ...] = ("decoder",) if name in self.decoders else ()
        if not name and self.backbone:
            halves = HALVES
        return {half: self._converted(f"{half}_{name or BACKBONE}", folder) for half in halves}

    def _converted(self, stem: str, folder: Path) -> Converted:
        graph, constants = (_locate(f"{stem}.{end}", self, folder) for end in ("xml", "bin"))
        return Converted(graph, constants, self.precision)


def _locate(filename: str, manifest: Manifest, folder: Path) -> WeightsFile:
    if filename not in manifest.files:
        raise FileNotFoundError(
            f"not among what was exported to {str(folder)!r} (decoders of {', '.join(manifest.decoders)}); "
            "name its modality in the outputs of export"
        )
    file = in_folder(filename, folder)
    if file.digest != manifest.files[filename]:
        raise WeightsError(
            f"{folder / filename} is not what was exported: SHA-256 {file.digest}, expected "
            f"{manifest.files[filename]} by {MANIFEST}. Export the model again."
        )
    return file

"""Fine-tuned models: what a checkpoint was trained to read and to say, found at the call."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terramind_xr.errors import OptionError, WeightsError, warn
from terramind_xr.facts import PATCH, TILE, Modality, modalities
from terramind_xr.model.checkpoint import Contents, read_checkpoint
from terramind_xr.model.files import WeightsFile, in_folder
from terramind_xr.model.training import Training, agreed, config_beside, from_settings, read_config

_RELEASED = re.compile(r"terramind_v1_(tiny|small|base|large)")
_DIGITAL_NUMBERS = 10.0
"""Largest mean of a Sentinel-2 band that can only be reflectance."""


@dataclass(frozen=True)
class TrainedInput:
    """One modality as a model was trained on it.

    Parameters
    ----------
    name
        Modality.
    key
        Its name in the model.
    bands
        Positions of the bands that the model reads among those of the modality, in the model's order.
    mean, std
        What standardised each of them in the training, in the modality's units.
    """

    name: str
    key: str
    bands: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Finetuned:
    """What a process needs to load a fine-tuned model: small, picklable, equal when the model is.

    Parameters
    ----------
    name
        Backbone, as terratorch calls it.
    backbone
        The checkpoint's file.
    task
        ``"segmentation"`` or ``"regression"``.
    factory
        Terratorch's model factory.
    arguments
        What it builds the model from, as JSON.
    inputs
        In the order in which the model reads them.
    channels
        Classes, or variables of a regression.
    class_names, class_colors
        By code; empty for a regression, and colours where none are given.
    tile
        Side of a tile in pixels.
    """

    name: str
    backbone: WeightsFile
    task: str
    factory: str
    arguments: str
    inputs: tuple[TrainedInput, ...]
    channels: int
    class_names: tuple[str, ...] = ()
    class_colors: tuple[str, ...] = ()
    tile: int = TILE

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the checkpoint."""
        return {"checkpoint": self.backbone.digest}

    def told(self) -> dict[str, str]:
        """What it reads and how that is standardised, for attributes of results."""

        def listed(values: Sequence[float]) -> str:
            return " ".join(f"{value:g}" for value in values)

        return {
            "task": self.task,
            "inputs": " ".join(each.name for each in self.inputs),
            "bands": "; ".join(
                f"{each.name}: {' '.join(modalities[each.name].band_names[band] for band in each.bands)}"
                for each in self.inputs
            ),
            "means": "; ".join(f"{each.name}: {listed(each.mean)}" for each in self.inputs),
            "stds": "; ".join(f"{each.name}: {listed(each.std)}" for each in self.inputs),
        }


def find_finetuned(
    checkpoint: str | os.PathLike[str], config: str | os.PathLike[str] | Mapping[str, Any] | None = None
) -> Finetuned:
    """Find out what a checkpoint is, without building its model.

    Parameters
    ----------
    checkpoint
        Lightning checkpoint that ``terratorch fit`` wrote, or an exported state dict (.pt, .safetensors).
    config
        Configuration of the training, a path or what it holds. By default the ``config.yaml`` that
        Lightning wrote into the folder of the checkpoint or the one above.

    Raises
    ------
    OptionError
        If the configuration cannot be used, contradicts the checkpoint, or the model cannot be run.
    WeightsError
        If the file is missing, damaged, holds code, or is of another framework.
    """
    path = Path(checkpoint).expanduser().resolve()
    try:
        file = in_folder(path.name, path.parent)
    except FileNotFoundError as error:
        raise WeightsError(
            f"There is no checkpoint {str(checkpoint)!r}: expected the path of a file."
        ) from error
    contents = read_checkpoint(path)
    config = config_beside(path) if config is None else config
    told = None if config is None else read_config(config)
    training = agreed(from_settings(contents.settings, path.name), told, path.name)
    _refuse_what_cannot_run(training)
    inputs = _inputs(training, told.source if told else None)
    channels, names = _classes(training)
    _check_shapes(contents, inputs, channels, path.name)
    return Finetuned(
        name=training.arguments["backbone"],
        backbone=file,
        task=training.task,
        factory=training.factory,
        arguments=_as_json(training),
        inputs=inputs,
        channels=channels,
        class_names=names,
        class_colors=_colors(training, names),
        tile=_tile(training),
    )


def _refuse_what_cannot_run(training: Training) -> None:
    if training.task not in ("segmentation", "regression"):
        raise OptionError(
            f"{training.source} was trained for {training.task}, which is not available yet; expected a "
            "SemanticSegmentationTask or a PixelwiseRegressionTask of terratorch."
        )
    backbone = training.arguments.get("backbone")
    if not isinstance(backbone, str):
        raise OptionError(f"{training.source}: model_args names no backbone, e.g. 'terramind_v1_base'.")
    if backbone.endswith("_tim"):
        raise OptionError(
            f"{training.source}: {backbone} thinks in modalities, which is not available yet; expected "
            f"a backbone without it, such as {backbone.removesuffix('_tim')}."
        )


def _backbone_option(training: Training, name: str) -> Any:
    """An argument of the backbone, as terratorch's factory finds it."""
    nested = training.arguments.get("backbone_kwargs") or {}
    return nested.get(name) if nested else training.arguments.get(f"backbone_{name}")


def _inputs(training: Training, config: str | None) -> tuple[TrainedInput, ...]:
    keys = _backbone_option(training, "modalities")
    if not isinstance(keys, Sequence) or isinstance(keys, str) or not keys:
        raise OptionError(
            f"{training.source}: the backbone {training.arguments['backbone']} names no modalities "
            "(backbone_modalities); only models of TerraMind's modalities can be run."
        )
    names = {key: _modality(key, training.source) for key in keys}
    keys = _in_order_of_data(list(names), training)
    if not _has_statistics(training):
        if not _RELEASED.fullmatch(training.arguments["backbone"]):
            raise OptionError(
                f"{training.source}: the means and standard deviations of the training of "
                f"{training.arguments['backbone']} are not known. Give its configuration: config='….yaml'."
            )
        where = (
            f"{config} has none (data.init_args.means and stds)" if config else "there is no configuration"
        )
        warn(
            f"{training.source} does not say by which means its inputs were standardised, and {where}: those of "
            "TerraMind's pre-training are taken. If the training took others, give them: config='….yaml'."
        )
    return tuple(_input(key, names[key], training) for key in keys)


def _modality(key: Any, source: str) -> Modality:
    """Row of the table for a name of terratorch."""
    text = str(key)
    raw = {each.raw_key: each for each in modalities.values() if each.raw_key}
    found = raw.get(text) or modalities.get(re.sub("^S2RGB$", "RGB", text.upper().replace("SEN", "S")))
    if not isinstance(key, str) or found is None or found.raw_key is None:
        raise OptionError(
            f"{source}: its model reads {key!r}, which is not available yet; expected modalities of pixels: "
            f"{', '.join(each.name for each in raw.values())}."
        )
    return found


def _in_order_of_data(keys: list[str], training: Training) -> list[str]:
    """Keys in the order in which the training gave them: it counts where the model lays them side by side."""
    given = training.data.get("modalities")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return keys
    if set(given) != set(keys):
        raise OptionError(
            f"{training.source}: its model reads {', '.join(keys)}, but the data of the configuration are "
            f"{', '.join(map(str, given))}. Give the configuration that it was trained with."
        )
    return [str(key) for key in given]


def _has_statistics(training: Training) -> bool:
    return bool(training.data.get("means")) and bool(training.data.get("stds"))


def _input(key: str, modality: Modality, training: Training) -> TrainedInput:
    bands = _bands(key, modality, training)
    if not _has_statistics(training):
        mean, std = (tuple(every[band] for band in bands) for every in (modality.mean, modality.std))
        return TrainedInput(modality.name, key, bands, mean, std)
    scale = float((training.data.get("constant_scale") or {}).get(key, 1.0))
    mean, std = (
        tuple(value / scale for value in _numbers(name, key, len(bands), training))
        for name in ("means", "stds")
    )
    _refuse_other_units(key, modality, mean, training)
    if min(std) <= 0:
        raise OptionError(f"stds of {key}: {min(std):g} in the configuration; expected numbers above 0.")
    return TrainedInput(modality.name, key, bands, mean, std)


def _bands(key: str, modality: Modality, training: Training) -> tuple[int, ...]:
    """Positions of the bands that the model reads, in its order."""
    of_model = (_backbone_option(training, "bands") or {}).get(key)
    of_data = next(
        (
            listed[key]
            for listed in (training.data.get(name) or {} for name in ("output_bands", "dataset_bands"))
            if isinstance(listed, Mapping) and listed.get(key)
        ),
        None,
    )
    found = [_positions(bands, key, modality, training.source) for bands in (of_model, of_data) if bands]
    if len(found) == 2 and found[0] != found[1]:
        raise OptionError(
            f"{training.source}: its model reads the bands {of_model} of {key}, but the data of the configuration "
            f"have {of_data}. Give the configuration that it was trained with."
        )
    return found[0] if found else tuple(range(len(modality.bands)))


def _positions(bands: Sequence[Any], key: str, modality: Modality, source: str) -> tuple[int, ...]:
    where = {name: place for place, band in enumerate(modality.bands) for name in band.names}
    unknown = [band for band in bands if str(band).lower() not in where]
    if unknown:
        raise OptionError(
            f"{source}: its model reads {', '.join(map(str, unknown))} of {key}, which {modality.name} does not "
            f"have; its bands are {', '.join(band.terratorch for band in modality.bands)}."
        )
    return tuple(where[str(band).lower()] for band in bands)


def _numbers(name: str, key: str, count: int, training: Training) -> tuple[float, ...]:
    """Means or standard deviations of a modality, one a band."""
    values = training.data[name].get(key) if isinstance(training.data[name], Mapping) else None
    values = [values] * count if isinstance(values, int | float) else values
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise OptionError(
            f"data.init_args.{name} of the configuration has no list of numbers for {key} (found {values!r}). "
            f"Write them out: {name}: {{{key}: […]}}."
        )
    if len(values) != count or not all(
        isinstance(each, int | float) and math.isfinite(each) for each in values
    ):
        raise OptionError(
            f"data.init_args.{name} of the configuration has {len(values)} values for {key}, {list(values)!r}; "
            f"expected a number for each of the {count} bands that the model reads."
        )
    return tuple(map(float, values))


def _refuse_other_units(key: str, modality: Modality, mean: tuple[float, ...], training: Training) -> None:
    """Raise OptionError for means that cannot be of the units in which data reach the model."""
    found = ""
    if modality.is_optical and max(mean) < _DIGITAL_NUMBERS:
        found = "reflectance"
    if modality.name.startswith("S1") and min(mean) > 0:
        found = "linear power"
    if found:
        hint = f"constant_scale: {{{key}: 0.0001}}" if found == "reflectance" else "training in dB"
        raise OptionError(
            f"means of {key} in the configuration look like {found} ({', '.join(f'{each:g}' for each in mean)}); "
            f"the model gets {modality.units}. If the training scaled {modality.units}, say so by {hint}; a model "
            "that was trained on other units cannot be run."
        )


def _classes(training: Training) -> tuple[int, tuple[str, ...]]:
    """Number of channels of the output, and the names of classes."""
    arguments = training.arguments
    if training.task == "regression":
        return int(
            arguments.get("num_outputs") or (arguments.get("head_kwargs") or {}).get("num_outputs") or 1
        ), ()
    count = arguments.get("num_classes")
    if not isinstance(count, int) or count < 2:
        raise OptionError(
            f"{training.source}: model_args.num_classes is {count!r}; expected 2 classes or more."
        )
    of_data = training.data.get("num_classes")
    if of_data not in (None, count):
        raise OptionError(
            f"{training.source}: its model has {count} classes, but the data of the configuration {of_data}. Give "
            "the configuration that it was trained with."
        )
    names = tuple(re.sub(r"\W+", "_", name).strip("_") for name in training.class_names)
    if names and (len(names) != count or len(set(names)) != count):
        raise OptionError(
            f"{training.source}: {len(names)} class_names ({', '.join(training.class_names)}) for a model of "
            f"{count} classes; expected a name for each, none twice."
        )
    return count, names or tuple(f"class_{code}" for code in range(count))


def _colors(training: Training, names: tuple[str, ...]) -> tuple[str, ...]:
    """Colour of each class; none where the configuration has none."""
    given = {re.sub(r"\W+", "_", name).strip("_"): color for name, color in training.colors.items()}
    if not given:
        return ()
    wrong = [name for name in names if not re.fullmatch("#[0-9a-fA-F]{6}", given.get(name, ""))]
    if wrong:
        raise OptionError(
            f"class_colors of the configuration: {', '.join(wrong)} has no colour like '#419bdf'."
        )
    return tuple(given[name] for name in names)


def _tile(training: Training) -> int:
    size = _backbone_option(training, "img_size") or TILE
    if not isinstance(size, int) or size <= 0 or size % PATCH:
        raise OptionError(f"{training.source}: img_size is {size!r}; expected a multiple of {PATCH} pixels.")
    return size


def _check_shapes(contents: Contents, inputs: tuple[TrainedInput, ...], channels: int, filename: str) -> None:
    """Raise WeightsError where the weights read other bands or tell other classes than what is said of them."""
    for each in inputs:
        weight = contents.state.get(
            f"encoder.encoder_embeddings.{modalities[each.name].raw_key}.proj.weight",
        )
        if weight is not None and weight.shape[1] != len(each.bands) * PATCH**2:
            raise WeightsError(
                f"The weights in {filename} read {weight.shape[1] // PATCH**2} bands of {each.key}, but the model is "
                f"said to read {len(each.bands)}. Give the configuration that it was trained with."
            )
    heads = [key for key in contents.state if re.fullmatch(r"head\.(.+\.)?weight", key)]
    if heads and (found := contents.state[heads[-1]].shape[0]) != channels:
        raise WeightsError(
            f"The weights in {filename} tell {found} classes or variables, but the model is said to tell {channels}. "
            "Give the configuration that it was trained with."
        )


def _as_json(training: Training) -> str:
    try:
        return json.dumps(training.arguments, sort_keys=True)
    except TypeError as error:
        raise OptionError(
            f"{training.source}: model_args holds what is neither text nor number ({error}). Give a configuration "
            "of plain values."
        ) from error

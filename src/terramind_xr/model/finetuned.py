"""Fine-tuned models: what a checkpoint was trained to read and to say, found at the call."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terramind_xr.errors import OptionError, WeightsError
from terramind_xr.facts import PATCH, TILE, class_word, modalities
from terramind_xr.model.checkpoint import Contents, read_checkpoint
from terramind_xr.model.files import WeightsFile, in_folder
from terramind_xr.model.temporal import Dates, dates_of
from terramind_xr.model.thinking import Thinking, thinking_of
from terramind_xr.model.trained_inputs import TrainedInput, backbone_option, trained_inputs
from terramind_xr.model.training import TASKS, Training, agreed, config_beside, from_settings, read_config


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
        One of `TASKS`.
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
    label_codes
        What the codes 0, 1, … were in the labels of the training, where they were others; else empty.
    tile
        Side of a tile in pixels.
    thinking
        What it generates for itself before it answers (TiM); None for nothing.
    dates
        Dates that it reads at once; None where it reads one.
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
    label_codes: tuple[int, ...] = ()
    tile: int = TILE
    thinking: Thinking | None = None
    dates: Dates | None = None

    @property
    def is_by_tile(self) -> bool:
        """Whether it says one thing of each tile, and not of each pixel."""
        return self.task in ("classification", "multilabel_classification", "scalar_regression")

    @property
    def has_several_labels(self) -> bool:
        """Whether its classes do not exclude each other: each has a probability of its own."""
        return self.task == "multilabel_classification"

    @property
    def has_classes(self) -> bool:
        """Whether it tells probabilities of classes, and not variables of a regression."""
        return self.task in ("segmentation", "classification", "multilabel_classification")

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the checkpoint."""
        return {"checkpoint": self.backbone.digest}

    def told(self) -> dict[str, str]:
        """What it reads and how that is standardised, for attributes of results."""

        def listed(values: Sequence[float]) -> str:
            return " ".join(f"{value:g}" for value in values)

        more = {"tim_modalities": " ".join(self.thinking.outputs)} if self.thinking else {}
        if self.dates:
            more["temporal_pooling"] = self.dates.pooling
        return {
            "task": self.task,
            "inputs": " ".join(each.name for each in self.inputs),
            "bands": "; ".join(f"{each.name}: {' '.join(each.band_names)}" for each in self.inputs),
            "means": "; ".join(f"{each.name}: {listed(each.mean)}" for each in self.inputs),
            "stds": "; ".join(f"{each.name}: {listed(each.std)}" for each in self.inputs),
            **more,
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
    contents = read_checkpoint(path, mapped=True)
    config = config_beside(path) if config is None else config
    told = None if config is None else read_config(config)
    training = agreed(from_settings(contents.settings, path.name, contents.data), told, path.name)
    _refuse_what_cannot_run(training)
    thinking = thinking_of(training)
    inputs = trained_inputs(training, told.source if told else None)
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
        label_codes=_label_codes(training, channels),
        tile=_tile(training),
        thinking=thinking,
        dates=dates_of(training),
    )


def _refuse_what_cannot_run(training: Training) -> None:
    if not training.task:
        raise OptionError(
            f"{training.source} does not say what it was trained for, as `terratorch fit` leaves it. Give "
            "the configuration that it was trained with: segment(checkpoint, config='config.yaml')."
        )
    if training.task not in TASKS.values():
        raise OptionError(
            f"{training.source} was trained for {training.task}, which cannot be run; expected a task of "
            f"terratorch among {', '.join(TASKS)}."
        )
    backbone = training.arguments.get("backbone")
    if not isinstance(backbone, str):
        raise OptionError(f"{training.source}: model_args names no backbone, e.g. 'terramind_v1_base'.")


def _classes(training: Training) -> tuple[int, tuple[str, ...]]:
    """Number of channels of the output, and the names of classes."""
    arguments = training.arguments
    if "regression" in training.task:
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
            f"{training.source}: its model has {count} classes, but the data of the configuration {of_data}. "
            "Give the configuration that it was trained with."
        )
    names = tuple(map(class_word, training.class_names))
    if names and (len(names) != count or len(set(names)) != count):
        raise OptionError(
            f"{training.source}: {len(names)} class_names ({', '.join(training.class_names)}) for a model of "
            f"{count} classes; expected a name for each, none twice."
        )
    return count, names or tuple(f"class_{code}" for code in range(count))


def _label_codes(training: Training, count: int) -> tuple[int, ...]:
    """Codes of the labels in their order, in which our data module counts them from 0."""
    classes = training.data.get("classes") if training.by_table else None
    codes = tuple(sorted(map(int, classes))) if isinstance(classes, Mapping) else ()
    return codes if len(codes) == count and codes != tuple(range(count)) else ()


def _colors(training: Training, names: tuple[str, ...]) -> tuple[str, ...]:
    """Colour of each class; none where the configuration has none."""
    given = {class_word(name): color for name, color in training.colors.items()}
    if not given:
        return ()
    wrong = [name for name in names if not re.fullmatch("#[0-9a-fA-F]{6}", given.get(name, ""))]
    if wrong:
        raise OptionError(
            f"class_colors of the configuration: {', '.join(wrong)} has no colour like '#419bdf'."
        )
    return tuple(given[name] for name in names)


def _tile(training: Training) -> int:
    size = backbone_option(training, "img_size") or TILE
    if not isinstance(size, int) or size <= 0 or size % PATCH:
        raise OptionError(f"{training.source}: img_size is {size!r}; expected a multiple of {PATCH} pixels.")
    return size


def _check_shapes(contents: Contents, inputs: tuple[TrainedInput, ...], channels: int, filename: str) -> None:
    """Raise WeightsError where the weights read other bands or tell other classes than is said of them."""
    # Where several dates are read, the backbone is an encoder within one.
    inner = "encoder." if any(key.startswith("encoder.encoder.encoder") for key in contents.state) else ""
    for each in inputs:
        weight = contents.state.get(
            f"encoder.{inner}encoder_embeddings.{modalities[each.name].raw_key}.proj.weight",
        )
        if weight is not None and weight.shape[1] != len(each.bands) * PATCH**2:
            raise WeightsError(
                f"The weights in {filename} read {weight.shape[1] // PATCH**2} bands of {each.key}, but the "
                f"model is said to read {len(each.bands)}. Give the configuration that it was trained with."
            )
    heads = [key for key in contents.state if re.fullmatch(r"head\.(.+\.)?weight", key)]
    if heads and (found := contents.state[heads[-1]].shape[0]) != channels:
        raise WeightsError(
            f"The weights in {filename} tell {found} classes or variables, but the model is said to tell "
            f"{channels}. Give the configuration that it was trained with."
        )


def _as_json(training: Training) -> str:
    try:
        return json.dumps(training.arguments, sort_keys=True)
    except TypeError as error:
        raise OptionError(
            f"{training.source}: model_args holds what is neither text nor number ({error}). Give a "
            "configuration of plain values."
        ) from error

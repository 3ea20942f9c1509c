"""How a model was trained: told by its checkpoint, by its configuration, or by both, which must agree."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from terramind_xr.errors import OptionError

TASKS = {
    "SemanticSegmentationTask": "segmentation",
    "PixelwiseRegressionTask": "regression",
    "ClassificationTask": "classification",
    "MultiLabelClassificationTask": "multilabel_classification",
    "ScalarRegressionTask": "scalar_regression",
}
"""What can be run: terratorch's classes, and what we call them; several labels are a classification to it."""
BY_TABLE = "terramind_xr.modalities"
"""What `terramind_xr.finetune.XarrayDataModule` says in checkpoints of what standardised its samples."""

_BY_TABLE = re.compile(r"terramind_xr\.finetune\.(datamodule\.)?XarrayDataModule")
# The one data module of terratorch that reads digital numbers, and holds what standardises them itself.
_CROPS = re.compile(r"terratorch\.datamodules\.(\w+\.)?MultiTemporalCropClassificationDataModule")
# Where pre-trained weights came from; the checkpoint holds them now.
_ORIGIN = ("backbone_pretrained", "backbone_ckpt_path", "decoder_pretrained")


@dataclass(frozen=True)
class Training:
    """What a training was told.

    Parameters
    ----------
    source
        Name of the file that says so, for messages.
    task
        One of `TASKS`, or another task of terratorch.
    factory
        Name of terratorch's model factory; empty where nothing is said of the model.
    arguments
        What the factory builds the model from, ``model_args``.
    class_names
        In the order of their codes; empty where they are not named.
    data
        Arguments of the data module: bands, means, standard deviations, classes by code.
    colors
        Colours of the classes by name (hexadecimal RGB).
    by_table
        Whether the data module standardised by the modality table, as TerraMind's pre-training did.
    of_crops
        Whether it was terratorch's for multi-temporal crops, which has means of its own.
    """

    source: str
    task: str
    factory: str
    arguments: Mapping[str, Any]
    class_names: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    colors: Mapping[str, str] = field(default_factory=dict)
    by_table: bool = False
    of_crops: bool = False


def from_settings(settings: Mapping[str, Any], source: str, data: Mapping[str, Any]) -> Training | None:
    """Training as a checkpoint tells it; None where it does not.

    Parameters
    ----------
    settings
        Its ``hyper_parameters``.
    source
        Its name, for messages.
    data
        What our data module left in it, if it was trained on that.
    """
    if not settings.get("model_args") or not settings.get("model_factory"):
        return None
    of_data = _in_order(data.get("classes"))
    if len(set(of_data)) != settings["model_args"].get("num_classes"):
        of_data = []  # a model may have more classes than its labels
    return Training(
        source,
        _saved_task(settings),
        settings["model_factory"],
        _without_origin(settings["model_args"]),
        tuple(map(str, settings.get("class_names") or of_data)),
        data,
        by_table=bool(data),
    )


def from_config(config: Mapping[str, Any], source: str) -> Training:
    """Training as a configuration of ``terratorch fit`` tells it; of the data alone where it has no model.

    Raises
    ------
    OptionError
        If parts are missing, or it names a task that is not terratorch's or not installed.
    """
    if not config.get("model") and not config.get("data"):
        raise _no_config(config, source)
    model, data = (_arguments(config, name, source) for name in ("model", "data"))
    module = str((config.get("data") or {}).get("class_path"))
    by_table, of_crops = (bool(known.fullmatch(module)) for known in (_BY_TABLE, _CROPS))
    given = model.get("class_names") or data.get("class_names") or _in_order(data.get("classes"))
    names = tuple(map(str, given or ()))
    colors = config.get("class_colors") or {}
    if not isinstance(colors, Mapping):
        colors = dict(zip(names, colors, strict=False))
    colors = {str(name): str(color) for name, color in colors.items()}
    if not config.get("model"):
        return Training(source, "", "", {}, names, data, colors, by_table, of_crops)
    arguments, factory = model.get("model_args"), model.get("model_factory")
    if not isinstance(arguments, Mapping) or not factory:
        raise OptionError(
            f"{source} does not say how to build the model: expected model.init_args.model_args and "
            "model.init_args.model_factory, as in a configuration of `terratorch fit`."
        )
    task = _task(config["model"].get("class_path"), source)
    built = _without_origin(arguments)
    return Training(source, task, str(factory), built, names, data, colors, by_table, of_crops)


def read_config(config: str | os.PathLike[str] | Mapping[str, Any]) -> Training:
    """Read a configuration: the path of a YAML file, or what it holds.

    Raises
    ------
    OptionError
        If it cannot be read, or is no configuration of ``terratorch fit``.
    """
    if isinstance(config, Mapping):
        return from_config(config, "config")
    import yaml  # type: ignore[import-untyped]

    path = Path(config).expanduser()
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"config={str(config)!r} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise OptionError(
            f"config={str(config)!r} is no plain YAML, and was not loaded ({' '.join(str(error).split())})."
        ) from error
    if not isinstance(loaded, Mapping):
        raise OptionError(f"config={str(config)!r} holds no sections; expected model and data.")
    return from_config(loaded, path.name)


def config_beside(checkpoint: Path) -> Path | None:
    """``config.yaml`` that Lightning wrote into the log folder of a checkpoint; None where there is none."""
    folders = (checkpoint.parent, checkpoint.parent.parent)
    found = [folder / "config.yaml" for folder in folders if (folder / "config.yaml").is_file()]
    return found[0] if found else None


def agreed(saved: Training | None, told: Training | None, checkpoint: str) -> Training:
    """Put together what a checkpoint and a configuration say.

    Raises
    ------
    OptionError
        If neither says how the model is built, or both say different things.
    """
    if saved is None or told is None:
        training = saved or told
        if training is None or not training.factory:
            raise OptionError(
                f"{checkpoint} holds weights alone, and nothing says how its model is built. Give the "
                "configuration that it was trained with: segment(checkpoint, config='config.yaml')."
            )
        return training
    pairs: dict[str, tuple[Any, Any]] = {}
    if told.factory:
        pairs |= {
            "task": (saved.task or told.task, told.task),
            "model_factory": (saved.factory, told.factory),
        }
        for key in sorted({*saved.arguments, *told.arguments}):
            pairs[f"model_args.{key}"] = (saved.arguments.get(key), told.arguments.get(key))
    if saved.class_names and told.class_names:
        pairs["class_names"] = (list(saved.class_names), list(told.class_names))
    for key in ("means", "stds"):
        if saved.data.get(key) and told.data.get(key):
            pairs[f"data.{key}"] = (saved.data[key], told.data[key])
    differing = [
        f"{name} is {ours!r} in {checkpoint} and {theirs!r} in {told.source}"
        for name, (ours, theirs) in pairs.items()
        if _plain(ours) != _plain(theirs)
    ]
    if differing:
        raise OptionError(
            f"{told.source} is not the configuration of {checkpoint}: {'; '.join(differing)}. Give the one "
            "that it was trained with: config='….yaml'."
        )
    return replace(
        saved,
        task=saved.task or told.task,
        class_names=saved.class_names or told.class_names,
        data={**told.data, **saved.data},
        colors=told.colors,
        by_table=saved.by_table or told.by_table,
        of_crops=told.of_crops,
    )


def _arguments(config: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    """Arguments of the model's or the data's class."""
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise _no_config(config, source)
    arguments = section.get("init_args") or {}
    return arguments if isinstance(arguments, Mapping) else {}


def _in_order(classes: Any) -> list[Any]:
    """Names of classes by code in the order of codes, as `terramind_xr.finetune` counts them."""
    return [classes[code] for code in sorted(classes)] if isinstance(classes, Mapping) else []


def _no_config(config: Mapping[str, Any], source: str) -> OptionError:
    return OptionError(
        f"{source} is no configuration of `terratorch fit`: expected model and data, each with class_path "
        f"and init_args; found {', '.join(map(str, config)) or 'nothing'}."
    )


def _task(class_path: Any, source: str) -> str:
    module, _, name = str(class_path).rpartition(".")
    package = module.partition(".")[0]
    if package and importlib.util.find_spec(package) is None:
        raise OptionError(
            f"{source} names {class_path}, but the module {package!r} is not installed. Install it, or give "
            "the configuration of a task of terratorch itself."
        )
    if name not in TASKS or package not in ("", "terratorch"):
        raise OptionError(
            f"{source}: {class_path} is no task that can be run; those that can are "
            f"{', '.join(TASKS)} of terratorch."
        )
    return TASKS[name]


def _saved_task(settings: Mapping[str, Any]) -> str:
    """Task of a checkpoint, empty where it is left out; that of several labels is told by its loss."""
    task, loss = str(settings.get("task") or ""), settings.get("loss")
    losses = list(loss) if isinstance(loss, Mapping | list) else [loss]
    is_of_labels = task == "classification" and any(each in ("bce", "balanced_bce") for each in losses)
    return "multilabel_classification" if is_of_labels else task


def _without_origin(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key not in _ORIGIN}


def _plain(value: Any) -> Any:
    """The same value for what YAML and pickle write differently, such as lists and tuples."""
    return json.dumps(value, sort_keys=True, default=str)

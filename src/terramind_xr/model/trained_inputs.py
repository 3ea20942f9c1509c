"""What a fine-tuned model reads: modalities, bands and statistics of its training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from terramind_xr.errors import OptionError, warn
from terramind_xr.facts import Modality, modalities
from terramind_xr.model.quiet import import_terratorch
from terramind_xr.model.training import Training

_PRETRAINED = re.compile(r"(terramind_v1_(tiny|small|base|large)|terramind_xr_demo)(_tim)?")
_DIGITAL_NUMBERS, _REFLECTANCE = 100.0, 2.0
"""Of Sentinel-2: the largest mean of digital numbers is above the one, all of reflectance below the other."""


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

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in the model's order."""
        names = modalities[self.name].band_names
        return tuple(names[band] for band in self.bands)


def backbone_option(training: Training, name: str) -> Any:
    """An argument of the backbone, as terratorch's factory finds it."""
    nested = training.arguments.get("backbone_kwargs") or {}
    return nested.get(name) if nested else training.arguments.get(f"backbone_{name}")


def trained_inputs(training: Training, config: str | None) -> tuple[TrainedInput, ...]:
    """Inputs of a model in its order, and how they were standardised; a warning where nothing says so.

    Raises
    ------
    OptionError
        If they are not modalities of pixels, or what the configuration says of them cannot be.
    """
    keys = backbone_option(training, "modalities")
    if not isinstance(keys, Sequence) or isinstance(keys, str) or not keys:
        raise OptionError(
            f"{training.source}: the backbone {training.arguments['backbone']} names no modalities "
            "(backbone_modalities); only models of TerraMind's modalities can be run."
        )
    names = {key: _modality(key, training.source) for key in keys}
    if training.of_crops and not _has_statistics(training):
        training = _with_those_of_crops(training, keys)
    keys = _in_order_of_data(list(names), training)
    if not _has_statistics(training) and not training.by_table:
        if not _PRETRAINED.fullmatch(training.arguments["backbone"]):
            raise OptionError(
                f"{training.source}: the means and standard deviations of the training of "
                f"{training.arguments['backbone']} are not known. Give its configuration: config='….yaml'."
            )
        where = (
            f"{config} has none (data.init_args.means and stds)" if config else "there is no configuration"
        )
        warn(
            f"{training.source} does not say by which means its inputs were standardised, and {where}: those "
            "of TerraMind's pre-training are taken. If the training took others, give them: config='….yaml'."
        )
    return tuple(_input(key, names[key], training) for key in keys)


def _with_those_of_crops(training: Training, keys: Sequence[Any]) -> Training:
    """The training with bands, means and standard deviations of terratorch's data module for crops."""
    import_terratorch()
    from terratorch.datamodules import multi_temporal_crop_classification as crops

    bands = [str(band) for band in training.data.get("bands") or crops.MEANS]
    unknown = [band for band in bands if band not in crops.MEANS]
    if unknown or len(keys) != 1:
        raise OptionError(
            f"The data module for crops reads {', '.join(crops.MEANS)} of one modality, but the "
            f"configuration has {', '.join(bands)}, and the model reads {', '.join(map(str, keys))}. Give "
            "means and stds."
        )
    data = {
        "output_bands": {keys[0]: bands},
        "means": {keys[0]: [crops.MEANS[band] for band in bands]},
        "stds": {keys[0]: [crops.STDS[band] for band in bands]},
    }
    return replace(training, data={**training.data, **data})


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
    given = training.data.get("inputs" if training.by_table else "modalities")
    given = list(given) if isinstance(given, Mapping) else given
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
    scale = float(_of(training.data.get("constant_scale"), key, training) or 1.0)
    mean, std = (
        tuple(value / scale for value in _numbers(name, key, len(bands), training))
        for name in ("means", "stds")
    )
    if min(std) <= 0:
        raise OptionError(f"stds of {key}: {min(std):g} in the configuration; expected numbers above 0.")
    unit = _unit(key, modality, mean, std)
    mean, std = (tuple(value * unit for value in each) for each in (mean, std))
    return TrainedInput(modality.name, key, bands, mean, std)


def _of(said: Any, key: str, training: Training) -> Any:
    """What is said of a modality by its name, or without one where the model reads no other."""
    if isinstance(said, Mapping):
        return said.get(key)
    return said if len(backbone_option(training, "modalities")) == 1 else None


def _bands(key: str, modality: Modality, training: Training) -> tuple[int, ...]:
    """Positions of the bands that the model reads, in its order."""
    of_model = _of(backbone_option(training, "bands"), key, training)
    said = ("bands",) if training.by_table else ("output_bands", "dataset_bands")
    listed = (_of(training.data.get(name), key, training) for name in said)
    of_data = next((bands for bands in listed if bands), None)
    found = [_positions(bands, key, modality, training.source) for bands in (of_model, of_data) if bands]
    if len(found) == 2 and found[0] != found[1]:
        raise OptionError(
            f"{training.source}: its model reads the bands {of_model} of {key}, but the data of the "
            f"configuration have {of_data}. Give the configuration that it was trained with."
        )
    return found[0] if found else tuple(range(len(modality.bands)))


def _positions(bands: Sequence[Any], key: str, modality: Modality, source: str) -> tuple[int, ...]:
    where = {name: place for place, band in enumerate(modality.bands) for name in band.names}
    unknown = [band for band in bands if str(band).lower() not in where]
    if unknown:
        raise OptionError(
            f"{source}: its model reads {', '.join(map(str, unknown))} of {key}, which {modality.name} does "
            f"not have; its bands are {', '.join(band.terratorch for band in modality.bands)}."
        )
    return tuple(where[str(band).lower()] for band in bands)


def _numbers(name: str, key: str, count: int, training: Training) -> tuple[float, ...]:
    """Means or standard deviations of a modality, one a band."""
    values = _of(training.data[name], key, training)
    values = [values] * count if isinstance(values, int | float) else values
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise OptionError(
            f"data.init_args.{name} of the configuration has no list of numbers for {key} (found "
            f"{values!r}). Write them out: {name}: {{{key}: […]}}."
        )
    if len(values) != count or not all(
        isinstance(each, int | float) and math.isfinite(each) for each in values
    ):
        raise OptionError(
            f"data.init_args.{name} of the configuration has {len(values)} values for {key}, "
            f"{list(values)!r}; expected a number for each of the {count} bands that the model reads."
        )
    return tuple(map(float, values))


def _unit(key: str, modality: Modality, mean: tuple[float, ...], std: tuple[float, ...]) -> float:
    """What the training's numbers were in, in the modality's units; OptionError where they do not tell it."""
    listed = ", ".join(f"{each:g}" for each in mean)
    if modality.name.startswith("S1") and min(mean) > 0:
        raise OptionError(
            f"means of {key} in the configuration look like linear power ({listed}); the model gets "
            f"{modality.units}. Give those of a training in dB; a model that was trained on other units "
            "cannot be run."
        )
    if not modality.is_optical or (max(mean) >= _DIGITAL_NUMBERS and max(std) >= _REFLECTANCE):
        return 1.0
    if min(mean) > 0 and max(*mean, *std) < _REFLECTANCE:
        return 10_000.0  # reflectance; a digital number is a ten-thousandth of it
    raise OptionError(
        f"means of {key} in the configuration do not tell their units: found {listed}, with stds up to "
        f"{max(std):g}; expected digital numbers (some mean above {_DIGITAL_NUMBERS:g}), or reflectance (all "
        f"between 0 and {_REFLECTANCE:g}). If the training multiplied digital numbers by a factor, name it: "
        f"constant_scale: {{{key}: 0.01}}."
    )

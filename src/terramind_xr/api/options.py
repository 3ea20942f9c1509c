"""Options that several verbs share: checked, and with what `set_options` says where they are not given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from terramind_xr.data import lookup
from terramind_xr.errors import OptionError
from terramind_xr.facts import modalities
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import Recipe, find, readable, writable
from terramind_xr.model.sampling import is_whole
from terramind_xr.options import Precision, get_options
from terramind_xr.token_inputs import Inputs

ModelName = str | os.PathLike[str] | None


def chosen_model(model: ModelName) -> str | os.PathLike[str]:
    """Name or folder of the model, by default the option ``model``."""
    chosen = model if model is not None else get_options().model
    if not isinstance(chosen, str | os.PathLike):
        raise OptionError(f"model={chosen!r} cannot be used: expected a name from models(), or a folder.")
    return chosen


def execution(device: str | None, precision: Precision | None = "fp32") -> Execution:
    """Where and how precisely to run, by default as the options say."""
    options = get_options()
    chosen = options.device if device is None else device
    # torch.device is taken, too; by its name, as all else compares and records it.
    return Execution(None if chosen is None else str(chosen), precision or options.precision)


def check_batch_size(batch_size: int) -> None:
    """Raise OptionError for what is no number of tiles."""
    if not is_whole(batch_size) or batch_size < 1:
        raise OptionError(f"batch_size={batch_size!r} cannot be used: expected a whole number of tiles >= 1.")


def check_readable(
    model: str | os.PathLike[str], inputs: Sequence[str], reads: frozenset[str] | None = None, how: str = ""
) -> None:
    """Raise OptionError for inputs that the model cannot read; `reads` by default those in pixels."""
    reads = readable(model) if reads is None else reads
    unread = [name for name in inputs if name not in reads]
    if unread:
        left = [name for name in inputs if name in reads]
        listed = ", ".join(name for name in modalities if name in reads)
        remedy = f"Name the inputs: inputs={left}" if left else "Add one of them, or take another model"
        raise OptionError(
            f"{', '.join(unread)} cannot be an input of {model}{how}, which has embeddings of {listed}. "
            f"{remedy}."
        )


def check_probabilities(probabilities: bool, names: tuple[str, ...]) -> None:
    """Raise OptionError for probabilities of anything but land cover."""
    if probabilities and "LULC" not in names:
        raise OptionError(
            f"probabilities=True is for LULC; what is asked for is {', '.join(names)}. Leave it out."
        )


def without_coordinates(inputs: Inputs) -> tuple[Inputs, bool]:
    """Inputs that are read from the data, and whether Coordinates, which follow from its grid, are one too.

    Raises OptionError where a variable is named for them, or nothing else is.
    """
    names = (inputs,) if isinstance(inputs, str) else inputs
    if names is None or "Coordinates" not in names:
        return inputs, False
    if isinstance(names, Mapping):
        if names["Coordinates"] is not None:
            raise OptionError(
                f"inputs names {names['Coordinates']!r} for Coordinates, which follow from the CRS and are "
                "not read from a variable. Give them as 'Coordinates': None."
            )
        rest: Inputs = {name: request for name, request in names.items() if name != "Coordinates"}
    else:
        rest = [name for name in names if name != "Coordinates"]
    if not rest:
        raise OptionError(
            "Coordinates cannot be the only input: the model is to see pixels, too. Name one more: "
            "inputs=['S2L2A', 'Coordinates']."
        )
    return rest, True


def with_tokenizer(modality: str) -> str:
    """Name of a modality, if it has tokens."""
    name = lookup(modality).name
    if not modalities[name].codebook:
        having = ", ".join(each for each, facts in modalities.items() if facts.codebook)
        raise OptionError(f"{name} has no tokenizer; modalities with one are {having}.")
    return name


def tokenizer_recipe(model: str | os.PathLike[str], name: str) -> Recipe:
    """The tokenizer of a modality alone: no encoder and no decoder of the model is needed."""
    if name not in writable(model):
        raise OptionError(f"{model} has no tokenizer of {name}; it has {', '.join(sorted(writable(model)))}.")
    return find(model, {name}, backbone=False)

"""Fine-tuned models at work: class probabilities, or the variables of a regression, by pixel or by tile."""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import WeightsError
from terramind_xr.model.checkpoint import read_checkpoint
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.finetuned import Finetuned
from terramind_xr.model.quiet import import_terratorch, without_draws
from terramind_xr.model.registry import register
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.thinking import think_by_place, thinking_parts
from terramind_xr.model.weights import fill

_lock = threading.RLock()

# Auxiliary heads serve the training alone, and are not built. Tokenizers are for inputs in tokens.
_UNUSED = re.compile(r"aux_heads\.|(encoder\.){1,2}tokenizer\.")


def predict(
    model: Finetuned,
    pixels: Mapping[str, NDArray[np.float32]],
    places: NDArray[np.int64],
    sampling: Sampling | None,
    execution: Execution,
) -> NDArray[np.float32]:
    """Run a batch of tiles through a fine-tuned model, as its task in terratorch does.

    Parameters
    ----------
    model
        Which one.
    pixels
        Standardised inputs by modality, in the model's bands: (tile, band, y, x), or (tile, band, date, y, x)
        for a model of several dates.
    places
        First row and column of each tile from the scene's origin: (tile, 2).
    sampling
        How a model draws what it thinks in; None for a model that does not.
    execution
        Where to run.

    Returns
    -------
    numpy.ndarray
        (tile, channel, y, x), float32: probabilities of the classes, or values of a regression; y and x of
        size 1 where the model says one thing of a tile.
    """
    import torch

    with session(execution) as device:
        network = finetuned_network(model, device)
        if sampling is not None:
            think_by_place(network, places, sampling)
        given = {each.key: torch.from_numpy(pixels[each.name]).to(device) for each in model.inputs}
        output = network(given).output.float()
        if model.is_by_tile:
            output = output.reshape(len(output), model.channels, 1, 1)
        elif output.ndim == 3:  # terratorch drops the axis of a single variable
            output = output[:, None]
        if model.has_several_labels:
            output = output.sigmoid()
        elif model.has_classes:
            output = output.softmax(dim=1)
        result: NDArray[np.float32] = output.cpu().numpy()
    return result


def finetuned_network(model: Finetuned, device: str) -> Any:
    """Terratorch's model with its weights, loaded once in this process.

    Raises
    ------
    WeightsError
        If the file is damaged or was replaced, terratorch cannot build the model, or weights do not fit.
    """
    with _lock:
        return _load(model, device)


@functools.lru_cache(maxsize=2)
def _load(model: Finetuned, device: str) -> Any:
    import_terratorch()
    state = read_checkpoint(model.backbone.verified_path()).state
    with without_draws():
        network = _built(model)
    for part in thinking_parts(network):
        part.tokenizer.clear()  # is for inputs that are to become tokens
    wanted = {key: value for key, value in state.items() if not _UNUSED.match(key)}
    return fill(network, model.backbone, wanted).to(device)


def _built(model: Finetuned) -> Any:
    from terratorch.registry import MODEL_FACTORY_REGISTRY

    register()
    arguments = json.loads(model.arguments)
    if arguments.get("backbone_kwargs"):
        arguments["backbone_kwargs"]["pretrained"] = False
    else:
        arguments["backbone_pretrained"] = False
    try:
        task = "classification" if model.has_several_labels else model.task
        return MODEL_FACTORY_REGISTRY.build(model.factory).build_model(task, **arguments)
    except ImportError as error:
        raise WeightsError(
            f"The model of {model.backbone.filename} needs a module that is not installed: {error}. Install "
            "it in the environment that computes."
        ) from error
    except Exception as error:  # factories, decoders and necks raise whatever they like
        raise WeightsError(
            f"terratorch cannot build the model of {model.backbone.filename} ({type(error).__name__}: "
            f"{error}). If a module of your own registers a part of it, import that module first, on every "
            "worker."
        ) from error

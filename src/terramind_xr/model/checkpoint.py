"""Files that ``terratorch fit`` and ``torch.save`` wrote, read without running what they may hold."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terramind_xr.errors import WeightsError
from terramind_xr.model.training import BY_TABLE


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Parameters
    ----------
    state
        Weights of the model by terratorch's name, without the task's prefix ``model.``.
    settings
        ``hyper_parameters`` of a Lightning checkpoint; empty for a state dict.
    data
        What `terramind_xr.finetune.XarrayDataModule` left in it; empty where it was not trained on that.
    """

    state: Mapping[str, Any]
    settings: Mapping[str, Any]
    data: Mapping[str, Any]


def read_checkpoint(path: Path, *, mapped: bool = False) -> Contents:
    """Read a Lightning checkpoint, or a state dict exported from one.

    Parameters
    ----------
    path
        The file.
    mapped
        Whether weights may stay in the file until they are used, where its format allows it. For a look at
        the file alone: weights at work would change with it.

    Raises
    ------
    WeightsError
        If the file holds objects besides weights and plain values, is damaged, or is of another framework.
    """
    found = _unpickled(path, mapped)
    lightning = isinstance(found, dict) and isinstance(found.get("state_dict"), dict)
    state = found["state_dict"] if lightning else found
    settings = found.get("hyper_parameters") if lightning else None
    if not isinstance(state, dict) or not _are_weights(state):
        raise _foreign(path, f"its top level is {_told(found)}")
    # Beside the model's weights, a task stores those of its loss and metrics.
    of_task = {key.removeprefix("model."): each for key, each in state.items() if key.startswith("model.")}
    weights = of_task or state
    if not any(key.startswith("encoder.") for key in weights):
        raise _foreign(path, f"its weights are named {', '.join(list(weights)[:3])}, …")
    return Contents(weights, settings if isinstance(settings, dict) else {}, _of_data(found))


def _of_data(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """State of our data module, which Lightning keeps under the name of its class, be it a subclass."""
    states = [each for each in found.values() if isinstance(each, dict)]
    return next((each for each in states if each.get("standardized_by") == BY_TABLE), {})


def _are_weights(state: Mapping[Any, Any]) -> bool:
    import torch

    return bool(state) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )


def _unpickled(path: Path, mapped: bool) -> Any:
    import torch

    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load(path.read_bytes())
        mapped = mapped and zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            raise WeightsError(
                f"{path.name} holds objects besides weights and plain values, and loading them could run "
                "code from the file; it was not loaded. If you trust it, export its weights where it was "
                "trained, torch.save(task.state_dict(), 'weights.pt'), and give them with the configuration: "
                "segment('weights.pt', config='config.yaml')."
            ) from error
        raise _foreign(path, "torch cannot read it") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # each format and version has errors of its own for a damaged file
        raise WeightsError(
            f"{path.name} ({path.stat().st_size} bytes) cannot be read: it is damaged or truncated "
            f"({str(error).splitlines()[0]}). Copy it again from where it was trained."
        ) from error


def _is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, or torch's archive of one."""
    with open(path, "rb") as file:
        return zipfile.is_zipfile(path) or file.read(1) == pickle.PROTO


def _foreign(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{path.name} is no checkpoint of terratorch: {found}. Expected what `terratorch fit` wrote "
        "(*.ckpt), or the state dict of its task or model."
    )


def _told(found: Any) -> str:
    if isinstance(found, dict):
        return f"a dict of {', '.join(map(repr, list(found)[:4])) or 'nothing'}"
    return f"a {type(found).__name__}"

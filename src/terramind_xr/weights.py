"""Weights into terratorch's own classes: once in each process, strictly, leaving nothing global changed.

torch and terratorch are imported when the first weights are loaded.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import random as python_random
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from terramind_xr.errors import WeightsError
from terramind_xr.modalities import TILE
from terramind_xr.models import Recipe, WeightsFile, package_folder

_lock = threading.RLock()

# Width, encoder blocks, decoder blocks, attention heads.
_SIZES = {
    "terramind_v1_tiny": (192, 12, 4, 3),
    "terramind_v1_small": (384, 12, 6, 6),
    "terramind_v1_base": (768, 12, 12, 12),
    "terramind_v1_large": (1024, 24, 24, 16),
}


@contextlib.contextmanager
def untouched_globals() -> Iterator[None]:
    """Give back environment, warning filters and random states as they were.

    Importing terratorch sets environment variables and filters; building its models draws numbers.
    """
    import torch

    environment, filters = dict(os.environ), list(warnings.filters)
    states = python_random.getstate(), np.random.get_state()  # noqa: NPY002 (kept, not drawn from)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for key in set(os.environ) - set(environment):
            del os.environ[key]
        os.environ.update(environment)
        cast("list[Any]", warnings.filters)[:] = filters
        python_random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def build_backbone(name: str, encoded: tuple[str, ...], decoded: tuple[str, ...]) -> Any:
    """Terratorch's ``TerraMind`` of one size, without its weights.

    Sizes are those of the ``*_generate`` models in terratorch 1.2.11, ``terramind_register.py``; its own
    builders would build every tokenizer as well, or fail (``terramind_v1_tiny_encdec``).
    """
    import torch
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
    from terratorch.models.backbones.terramind.model.terramind import TerraMind
    from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm

    def embeddings(kind: str, keys: tuple[str, ...]) -> dict[str, Any]:
        return {key: MODALITY_INFO[key][kind](image_size=TILE, **MODALITY_INFO[key]) for key in keys}

    dim, encoder_depth, decoder_depth, heads = _SIZES[name]
    large = dim >= 768
    return TerraMind(
        encoder_embeddings=embeddings("encoder_embedding", encoded),
        decoder_embeddings=embeddings("decoder_embedding", decoded),
        modality_info=MODALITY_INFO,
        dim=dim,
        encoder_depth=encoder_depth,
        decoder_depth=decoder_depth,
        num_heads=heads,
        mlp_ratio=4,
        qkv_bias=not large,
        proj_bias=not large,
        mlp_bias=not large,
        norm_layer=functools.partial(LayerNorm, eps=1e-6, bias=False),
        act_layer=torch.nn.SiLU if large else torch.nn.GELU,
        gated_mlp=large,
    )


@functools.lru_cache(maxsize=2)
def _load_sampler(
    name: str, file: WeightsFile, encoded: tuple[str, ...], decoded: tuple[str, ...], device: str
) -> Any:
    with untouched_globals():
        from terratorch.models.backbones.terramind.model.generate import GenerationSampler
        from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

        if name == "demo":
            from terramind_xr import miniature

            model = miniature.build_backbone(demo_config())
            model = _fill(model, file, built=miniature.built(model))
        else:
            # A checkpoint holds the embeddings of every modality, also of those that are not asked for.
            kinds = ("encoder_embeddings", "decoder_embeddings")
            known = tuple(f"{kind}.{key}." for kind in kinds for key in MODALITY_INFO)
            model = _fill(build_backbone(name, encoded, decoded), file, optional=known)
        return GenerationSampler(model).to(device)


@functools.lru_cache(maxsize=8)
def _load_tokenizer(name: str, file: WeightsFile, modality: str, device: str) -> Any:
    with untouched_globals():
        if name == "demo":
            from terramind_xr import miniature

            model = miniature.build_tokenizer(demo_config(), modality)
            return _fill(model, file, built=miniature.built(model)).to(device)
        from terratorch.models.backbones.terramind.tokenizer import tokenizer_register

        build = getattr(tokenizer_register, f"terramind_v1_tokenizer_{modality.lower()}")
        return _fill(build(pretrained=False), file).to(device)


def sampler(recipe: Recipe, encoded: tuple[str, ...], decoded: tuple[str, ...], device: str) -> Any:
    """Terratorch's ``GenerationSampler`` over ``TerraMind`` with its weights, loaded once in this process.

    Parameters
    ----------
    recipe
        From `terramind_xr.models.find`.
    encoded, decoded
        Keys of terratorch's ``MODALITY_INFO`` that the encoder must read and the decoder must write.
    device
        torch device to run on.

    Raises
    ------
    WeightsError
        If the file is damaged, or weights are missing, unknown or of another shape.
    """
    with _lock:
        return _load_sampler(recipe.name, recipe.backbone, encoded, decoded, device)


def tokenizer(recipe: Recipe, modality: str, device: str) -> Any:
    """Terratorch's ``VQVAE`` or ``DiVAE`` of a modality with its weights, loaded once in this process.

    Raises
    ------
    WeightsError
        If the file is damaged, or weights are missing, unknown or of another shape.
    """
    with _lock:
        return _load_tokenizer(recipe.name, dict(recipe.tokenizers)[modality], modality, device)


@functools.cache
def demo_config() -> Mapping[str, Any]:
    """Sizes of the demo's networks, as its training script wrote them."""
    config: Mapping[str, Any] = json.loads((package_folder() / "config.json").read_text())
    return config


def _read(path: Path) -> dict[str, Any]:
    """State dict of a file, without running any code in it."""
    import torch

    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            state = safetensors.torch.load_file(path)
        else:
            # Mapped into memory: embeddings of modalities that are not asked for are never read.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.name} holds more than weights, and loading it could run code from it; it was not loaded. "
            "Export its state dict (torch.save(model.state_dict(), …)) and give that."
        ) from error
    except Exception as error:  # each library and version has errors of its own for a damaged file
        raise WeightsError(
            f"{path.name} ({path.stat().st_size} bytes) cannot be read: it is damaged or truncated "
            f"({str(error).splitlines()[0]}). Delete it and fetch it again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path.name} is not a state dict: expected a dict of tensors by name.")
    return state


def _fill(
    model: Any, file: WeightsFile, optional: tuple[str, ...] = (), built: Mapping[str, str] | None = None
) -> Any:
    """Put the weights of a file into a model.

    Keys that begin with `optional` may be superfluous; those of `built` are not in the file, but follow
    from the entries that they name.
    """
    state, expected = _read(file.path()), model.state_dict()
    for key, source in (built or {}).items():
        state[key] = state.get(source, expected[source])
    extra = sorted(key for key in state if key not in expected and not key.startswith(optional or ("\0",)))
    missing = sorted(key for key in expected if key not in state)
    shapes = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(expected[key].shape)} in the model"
        for key in sorted(expected)
        if key in state and state[key].shape != expected[key].shape
    ]
    faults = [
        f"{len(names)} {what}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise WeightsError(
            f"The weights in {file.filename} do not fit {type(model).__name__}; {'; '.join(faults)}."
        )
    wanted = {
        key: value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if key in expected
    }
    model.load_state_dict(wanted, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()

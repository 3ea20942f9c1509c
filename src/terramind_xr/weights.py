"""Weights into terratorch's own classes: once in each process, strictly.

torch and terratorch are imported when the first weights are loaded.
"""

from __future__ import annotations

import functools
import json
import pickle
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terramind_xr import miniature
from terramind_xr.errors import WeightsError
from terramind_xr.modalities import TILE
from terramind_xr.models import Recipe, WeightsFile, package_folder
from terramind_xr.quiet import import_terratorch, without_draws

_lock = threading.RLock()

# Width, encoder blocks, decoder blocks, attention heads.
_SIZES = {
    "terramind_v1_tiny": (192, 12, 4, 3),
    "terramind_v1_small": (384, 12, 6, 6),
    "terramind_v1_base": (768, 12, 12, 12),
    "terramind_v1_large": (1024, 24, 24, 16),
}


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
    import_terratorch()
    from terratorch.models.backbones.terramind.model.generate import GenerationSampler
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

    if name == "demo":
        with without_draws():
            model = miniature.build_backbone(demo_config())
        return GenerationSampler(_fill(model, file)).to(device)
    with without_draws():
        model = build_backbone(name, encoded, decoded)
    # A checkpoint holds the embeddings of every modality, also of those that are not asked for.
    kinds = ("encoder_embeddings", "decoder_embeddings")
    known = tuple(f"{kind}.{key}." for kind in kinds for key in MODALITY_INFO)
    return GenerationSampler(_fill(model, file, optional=known)).to(device)


@functools.lru_cache(maxsize=8)
def _load_tokenizer(name: str, file: WeightsFile, modality: str, device: str) -> Any:
    import_terratorch()
    with without_draws():
        if name == "demo":
            model = miniature.build_tokenizer(demo_config(), modality)
        else:
            from terratorch.models.backbones.terramind.tokenizer import tokenizer_register

            build = getattr(tokenizer_register, f"terramind_v1_tokenizer_{modality.lower()}")
            model = build(pretrained=False)
    return _fill(model, file).to(device)


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

            # Neither kind is mapped into memory: weights at work would change with the file.
            state = safetensors.torch.load(path.read_bytes())
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
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


def _fill(model: Any, file: WeightsFile, optional: tuple[str, ...] = ()) -> Any:
    """Put the weights of a file into a model; keys that begin with `optional` may be superfluous."""
    state, expected = _read(file.verified_path()), model.state_dict()
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

"""Weights into terratorch's own classes: once in each process, strictly.

torch and terratorch are imported when the first weights are loaded.
"""

from __future__ import annotations

import functools
import pickle
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terramind_xr.errors import TerramindWarning, WeightsError
from terramind_xr.facts import TILE, modalities
from terramind_xr.model import compiled, miniature
from terramind_xr.model.exported import Converted
from terramind_xr.model.files import WeightsFile
from terramind_xr.model.quiet import import_terratorch, without_draws
from terramind_xr.model.recipe import Recipe, demo_config

_lock = threading.RLock()

_DECODING = ("decoder", "post_quant_proj", "pipeline")
"""Parts of a tokenizer that only decode."""
_EMBEDDINGS = ("encoder_embeddings", "decoder_embeddings")

# Width, encoder blocks, decoder blocks, attention heads; by model.
BACKBONES = {
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

    dim, encoder_depth, decoder_depth, heads = BACKBONES[name]
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


def _embedded(state: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """Keys of the modalities of our table whose embeddings of a kind are in a state dict."""
    keys = [key for each in modalities.values() for key in (each.raw_key, each.token_key) if key]
    return tuple(key for key in keys if any(name.startswith(f"{kind}.{key}.") for name in state))


@functools.lru_cache(maxsize=2)
def _load_sampler(
    name: str, file: WeightsFile, device: str, transformer: tuple[tuple[str, Converted], ...] = ()
) -> Any:
    import_terratorch()
    from terratorch.models.backbones.terramind.model.generate import GenerationSampler
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

    state = _read(file.verified_path())
    with without_draws():
        if name == "demo":
            model = miniature.build_backbone(demo_config())
            state = _completed(model, state)
        else:
            model = build_backbone(name, *(_embedded(state, kind) for kind in _EMBEDDINGS))
    # Released files may hold modalities that only upstream's table knows, such as captions.
    known = tuple(f"{kind}.{key}." for kind in _EMBEDDINGS for key in MODALITY_INFO)
    _warn_of_unknown(state, model, file, known)
    fitting = {key: value for key, value in state.items() if key in model.state_dict()}
    sampler = GenerationSampler(fill(model, file, fitting)).to(device)
    if transformer:
        _run_converted(sampler.model, **dict(transformer))
    return sampler


def _run_converted(model: Any, encoder: Converted, decoder: Converted) -> None:
    """Have a backbone run its transformer as it was converted.

    What was converted has no mask among the decoder's own tokens: Coordinates, a text, are written by torch.
    """
    plain = model.forward_decoder

    def encode(x: Any, hidden: Any) -> Any:
        return compiled.network(encoder)(x, hidden)

    def decode(y: Any, context: Any, hidden: Any, own_hidden: Any) -> Any:
        if own_hidden is not None:
            return plain(y, context, hidden, own_hidden)
        return compiled.network(decoder)(y, context, hidden)

    model.forward_encoder, model.forward_decoder = encode, decode


def _warn_of_unknown(state: Mapping[str, Any], model: Any, file: WeightsFile, known: tuple[str, ...]) -> None:
    """Name what a backbone's file holds besides: upstream drops it, so it is no reason to stop."""
    expected = model.state_dict()
    unknown = sorted(key for key in state if key not in expected and not key.startswith(known))
    if unknown:
        warnings.warn(
            f"{file.filename} holds weights that {type(model).__name__} does not know; they are left out: "
            f"{', '.join(unknown)}.",
            TerramindWarning,
            stacklevel=2,
        )


@functools.lru_cache(maxsize=8)
def _load_tokenizer(name: str, file: WeightsFile, modality: str, device: str, decodes: bool) -> Any:
    import_terratorch()
    state = _read(file.verified_path())
    with without_draws():
        if name == "demo":
            model = miniature.build_tokenizer(demo_config(), modality)
            state = _completed(model, state)
        else:
            from terratorch.models.backbones.terramind.tokenizer import tokenizer_register

            build = getattr(tokenizer_register, f"terramind_v1_tokenizer_{modality.lower()}")
            model = build(pretrained=False)
    if not decodes:
        for part in _DECODING:
            setattr(model, part, None)
        state = {key: value for key, value in state.items() if key.partition(".")[0] not in _DECODING}
    return fill(model, file, state).to(device)


def _completed(model: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of the demo with the entries that its files leave out, as they follow from others."""
    expected = model.state_dict()
    built = miniature.built(model)
    return {**state, **{key: state.get(source, expected[source]) for key, source in built.items()}}


def sampler(recipe: Recipe, encoded: tuple[str, ...], decoded: tuple[str, ...], device: str) -> Any:
    """Terratorch's ``GenerationSampler`` over ``TerraMind`` with its weights, loaded once in this process.

    Parameters
    ----------
    recipe
        From `terramind_xr.model.recipe.find`.
    encoded, decoded
        Keys of terratorch's ``MODALITY_INFO`` that the encoder must read and the decoder must write. The
        model is the same whatever they are: it has all embeddings that the file holds.
    device
        torch device to run on.

    Raises
    ------
    WeightsError
        If the file is damaged or was replaced, weights are missing or of another shape, or there is no
        embedding for a key.
    """
    with _lock:
        loaded = _load_sampler(recipe.name, recipe.backbone, device, recipe.transformer)
    names = {key: name for name, each in modalities.items() for key in (each.raw_key, each.token_key)}
    lacking = [
        f"{verb} {names.get(key, key)} ({kind}.{key})"
        for verb, kind, keys in zip(("read", "generate"), _EMBEDDINGS, (encoded, decoded), strict=True)
        for key in keys
        if key not in getattr(loaded.model, kind)
    ]
    if lacking:
        raise WeightsError(
            f"The weights in {recipe.backbone.filename} have no embedding to {', nor to '.join(lacking)}. "
            "Leave that out of the inputs and outputs, or give weights that have it."
        )
    return loaded


def tokenizer(recipe: Recipe, modality: str, device: str) -> Any:
    """Terratorch's ``VQVAE`` or ``DiVAE`` of a modality with its weights, loaded once in this process.

    It comes without its decoder where the recipe has a converted one.

    Raises
    ------
    WeightsError
        If the file is damaged, or weights are missing, unknown or of another shape.
    """
    with _lock:
        file, decodes = dict(recipe.tokenizers)[modality], modality not in dict(recipe.decoders)
        return _load_tokenizer(recipe.name, file, modality, device, decodes)


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


def fill(model: Any, file: WeightsFile, state: Mapping[str, Any]) -> Any:
    """Put the weights of a file into a model: all of them, and no others."""
    expected = model.state_dict()
    extra = sorted(key for key in state if key not in expected)
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
    wanted = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    model.load_state_dict(wanted, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()

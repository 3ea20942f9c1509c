"""The demo's encoder as a backbone of terratorch, for configurations that run without a network.

torch and terratorch are imported when a backbone is registered or built.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from terramind_xr.errors import OptionError, WeightsError
from terramind_xr.facts import modalities as facts
from terramind_xr.model import miniature, weights
from terramind_xr.model.quiet import import_terratorch
from terramind_xr.model.recipe import demo_config, find

Modalities = Sequence[str | Mapping[str, Any]]

# Learned with a task, in no file of weights: what stands for an absent modality in merge_method="concat".
_LEARNED_LATER = "missing_mod_token"


def register() -> None:
    """Enter the demo's backbones in terratorch's registry, where configurations find them by name.

    The names are ``terramind_xr_demo`` (`terramind_xr_demo`) and ``terramind_xr_demo_tim``
    (`terramind_xr_demo_tim`). A second call changes nothing.

    Examples
    --------
    >>> register()
    >>> from terratorch.registry import BACKBONE_REGISTRY
    >>> model = BACKBONE_REGISTRY.build("terramind_xr_demo", pretrained=True, modalities=["S2L1C", "S1GRD"])
    >>> type(model).__name__, model.out_channels
    ('TerraMindViT', [128, 128, 128, 128, 128])
    """
    import_terratorch()
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    for backbone in (terramind_xr_demo, terramind_xr_demo_tim):
        TERRATORCH_BACKBONE_REGISTRY.register(backbone)


def terramind_xr_demo(
    modalities: Modalities = ("S2L2A",),
    pretrained: bool = False,
    bands: Mapping[str, Sequence[str]] | None = None,
    **settings: Any,
) -> Any:
    """Build the demo's encoder as terratorch's ``TerraMindViT``.

    Parameters
    ----------
    modalities
        Names of raw modalities, or of LULC and NDVI as tokens; ``{name: channels}`` adds a new modality,
        which is learned from scratch.
    pretrained
        Take the weights inside the package; else random ones.
    bands
        Of some modalities, the bands that the data have, in their order: by any name of
        `terramind_xr.modalities`. Their patch embeddings are picked from the weights.
    settings
        As for ``TerraMindViT``: ``merge_method``, ``modality_drop_rate``, ``drop_path_rate`` …

    Returns
    -------
    TerraMindViT
        It takes a dict of standardised tensors (batch, band, 224, 224) by modality, and returns the features
        of each of its 5 layers, (batch, patch, 128) where modalities are merged by their mean.

    Raises
    ------
    OptionError
        If the demo does not know a modality or a band.
    WeightsError
        If weights are missing.
    """
    import_terratorch()
    from terratorch.models.backbones.terramind.model.terramind_register import (
        PRETRAINED_BANDS,
        select_modality_patch_embed_weights,
    )
    from terratorch.models.backbones.terramind.model.terramind_vit import TerraMindViT

    model = TerraMindViT(modalities=list(modalities), **_sizes(), **settings)
    chosen = _known_bands(bands or {}, model.mod_name_mapping)
    whole = _core(pretrained)
    _adopt(model.encoder_embeddings, whole, _new(modalities))
    _fill(model, whole, pretrained, _new(modalities))
    if chosen:
        model = select_modality_patch_embed_weights(model, chosen, PRETRAINED_BANDS)
    return model


def terramind_xr_demo_tim(
    modalities: Sequence[str] = ("S2L2A",),
    pretrained: bool = False,
    bands: Mapping[str, Sequence[str]] | None = None,
    tim_modalities: Sequence[str] = ("LULC",),
    tim_chained_generations: bool = True,
    tim_temps: float = 0.0,
    **settings: Any,
) -> Any:
    """Build the demo as terratorch's ``TerraMindTiM``, which thinks in modalities that it generates first.

    Parameters
    ----------
    modalities
        As for `terramind_xr_demo`; new ones are not possible.
    pretrained
        Take the weights inside the package; else random ones.
    bands
        None: what is generated, is generated from all bands that the model was trained with.
    tim_modalities
        What is generated, in this order: of S2L2A, S1GRD, S1RTC, DEM, LULC, NDVI.
    tim_chained_generations
        Whether each generated modality is an input to the next.
    tim_temps
        Temperature of the inner tokens. At 0, the default, the likeliest ones: equal inputs then give equal
        features. Terratorch's own backbones draw them at 1, from a new seed each time.
    settings
        As for ``TerraMindTiM``: ``merge_method``, ``tim_top_p`` …

    Returns
    -------
    TerraMindTiM
        As `terramind_xr_demo`. The networks that generate are frozen, and so are the embeddings that they
        share with the encoder, as in terratorch's own.

    Raises
    ------
    OptionError
        If the demo does not know a modality, or bands are given.
    WeightsError
        If weights are missing.
    """
    import_terratorch()
    from terratorch.models.backbones.terramind.model.generate import GenerationSampler
    from terratorch.models.backbones.terramind.model.terramind_tim import TerraMindTiM

    if bands:
        raise OptionError(
            f"bands: found {dict(bands)!r}, expected None: what the model thinks in is generated from all "
            "bands that it was trained with. Give the data all bands, or take the backbone without _tim."
        )
    if new := _new(modalities):
        raise OptionError(
            f"modalities: found {', '.join(sorted(new))}, which is new to the model: nothing can be "
            "generated from it. Take the backbone without _tim."
        )
    model = TerraMindTiM(
        modalities=list(modalities),
        tim_modalities=list(tim_modalities),
        tim_chained_generations=tim_chained_generations,
        tim_temps=tim_temps,
        decoder_depth=demo_config()["backbone"]["decoder_depth"],
        **_sizes(),
        **settings,
    )
    whole, upstream = _core(pretrained), model.sampler.model
    _adopt(model.encoder_embeddings, whole)
    read = [key for key in model.encoder_embeddings if key in upstream.encoder_embeddings]
    written = [key for key in upstream.decoder_embeddings if key in whole.decoder_embeddings]
    size = {**demo_config()["backbone"], "inputs": read, "outputs": written}
    inner = miniature.build_backbone({**demo_config(), "backbone": size})
    if tim_chained_generations:  # then terratorch's encoder and generator share their embeddings
        model.encoder_embeddings = inner.encoder_embeddings
    model.sampler = GenerationSampler(inner.requires_grad_(False))
    _fill(model, whole, pretrained)
    return model


def _sizes() -> dict[str, Any]:
    """Widths and layers of the demo's encoder, as arguments of terratorch's classes."""
    import functools

    from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm

    size = {key: demo_config()["backbone"][key] for key in ("dim", "encoder_depth", "num_heads")}
    return {**size, "norm_layer": functools.partial(LayerNorm, eps=1e-6, bias=False)}


def _core(pretrained: bool) -> Any:
    """The demo's whole ``TerraMind``, to copy from: with the packaged weights, or with random ones."""
    if pretrained:
        return weights.sampler(find("demo", ()), (), (), "cpu").model
    return miniature.build_backbone(demo_config())


def _new(modalities: Modalities) -> set[str]:
    """Names of modalities that are given by a number of channels, and learned from scratch."""
    return {name for each in modalities if not isinstance(each, str) for name in each}


def _adopt(embeddings: Any, whole: Any, new: Collection[str] = ()) -> None:
    """Give a model the demo's embeddings: terratorch's are for the vocabularies of the large models."""
    unknown = [key for key in embeddings if key not in whole.encoder_embeddings and key not in new]
    if unknown:
        known = [
            name
            for name, each in facts.items()
            if whole.encoder_embeddings.keys() & {each.raw_key, each.token_key}
        ]
        raise OptionError(
            f"modalities: found {', '.join(unknown)} (in terratorch's words), which the demo does not know; "
            f"expected some of {', '.join(known)}."
        )
    for key in embeddings:
        if key not in new:
            embeddings[key] = copy.deepcopy(whole.encoder_embeddings[key]).requires_grad_(True)


def _known_bands(bands: Mapping[str, Sequence[str]], keys: Mapping[str, str]) -> dict[str, list[str]]:
    """Bands by their names in terratorch; else it would learn a misspelt band from scratch."""
    named = {each.raw_key: each for each in facts.values() if each.raw_key}
    chosen = {}
    for modality, names in bands.items():
        if keys.get(modality) not in named:
            raise OptionError(
                f"bands: found {modality!r}, expected one of the modalities with bands that are given: "
                f"{', '.join(name for name, key in keys.items() if key in named)}."
            )
        table = named[keys[modality]].bands
        said = [str(getattr(name, "value", name)) for name in names]  # terratorch may give members of an enum
        found = [next((band for band in table if name.lower() in band.names), None) for name in said]
        unknown = [repr(name) for name, band in zip(said, found, strict=True) if band is None]
        if unknown:
            raise OptionError(
                f"bands: found {', '.join(unknown)} in {modality}, expected names of its bands: "
                f"{', '.join(band.terratorch for band in table)}."
            )
        chosen[modality] = [band.terratorch for band in found if band is not None]
    return chosen


def _fill(model: Any, whole: Any, strict: bool, new: Collection[str] = ()) -> None:
    """Copy the weights of the whole demo into a model; without `strict`, what it lacks stays as it was built.

    New modalities are learned from scratch in any case.
    """
    import torch

    source, wanted = whole.state_dict(), model.state_dict()
    fresh = tuple(f"encoder_embeddings.{name}." for name in new)
    state, missing = {}, []
    for key, value in wanted.items():
        found = source.get(key.removeprefix("sampler.model."))
        if found is not None and found.shape == value.shape:
            state[key] = found
        elif key == _LEARNED_LATER:  # terratorch leaves it as the memory was
            state[key] = torch.zeros_like(value)
        elif key.startswith(fresh) or not strict:
            state[key] = value
        else:
            missing.append(key)
    if missing:
        raise WeightsError(
            f"The demo has no weights for {len(missing)} entries of {type(model).__name__}: "
            f"{', '.join(missing)}. Leave out the settings that add them."
        )
    model.load_state_dict(state, strict=True)

"""Thinking in modalities (TiM): what a fine-tuned model generates for itself, its tokens drawn by place.

Terratorch seeds torch's generator at every call and draws the seed from Python's, so that no two calls of its
own agree. Here its networks get their tokens from our sampler: nothing global is read or changed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.facts import PATCH, modalities
from terramind_xr.model.batch import Known, Target
from terramind_xr.model.drawing import draw_with
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.trained_inputs import backbone_option
from terramind_xr.model.training import Training

if TYPE_CHECKING:
    import torch

# In the order in which terratorch looks for them in a name.
_NAMES = {
    "sen2": "S2L2A",
    "sen1rtc": "S1RTC",
    "sen1": "S1GRD",
    "dem": "DEM",
    "lulc": "LULC",
    "ndvi": "NDVI",
}


@dataclass(frozen=True)
class Thinking:
    """What a model thinks in, and how its training drew that.

    Parameters
    ----------
    outputs
        Modalities that it generates, in this order.
    top_p, top_k
        As for `Sampling`.
    """

    outputs: tuple[str, ...]
    top_p: float
    top_k: int

    def sampling(self, seed: int, temperature: float) -> Sampling:
        """How tokens are drawn."""
        return Sampling(seed, temperature, self.top_p, self.top_k)


def thinking_of(training: Training) -> Thinking | None:
    """What a model thinks in; None where it does not.

    Raises
    ------
    OptionError
        If terratorch cannot train such a model, or it thinks in what is not an image.
    """
    backbone = training.arguments["backbone"]
    if not backbone.endswith("_tim"):
        return None
    bands, steps = (backbone_option(training, name) for name in ("bands", "tim_decoding_steps"))
    if bands is not None:
        raise OptionError(
            f"{training.source}: bands are selected for {backbone} ({bands!r}), which terratorch refuses: "
            "what the model thinks in is generated from all bands that it was pre-trained with. Train it on "
            f"all bands, or take {backbone.removesuffix('_tim')}."
        )
    if steps not in (None, 1):
        raise OptionError(
            f"{training.source}: tim_decoding_steps is {steps!r}, with which terratorch's {backbone} fails; "
            "expected 1."
        )
    keys = backbone_option(training, "tim_modalities") or ["LULC"]
    names = tuple(dict.fromkeys(_name(key, training.source) for key in keys))
    top_p, top_k = (backbone_option(training, name) for name in ("tim_top_p", "tim_top_k"))
    return Thinking(names, 0.8 if top_p is None else top_p, top_k or 0)


def _name(key: Any, source: str) -> str:
    """Modality that terratorch takes a name for."""
    text = str(key).lower().replace("s2", "sen2").replace("s1", "sen1")
    found = next((name for part, name in _NAMES.items() if part in text), None)
    if found is None:
        raise OptionError(
            f"{source}: its model thinks in {key!r}, which is not available yet; expected some of "
            f"{', '.join(_NAMES.values())}."
        )
    return found


def think_by_place(network: Any, places: NDArray[np.int64], sampling: Sampling) -> None:
    """Have a network draw what it thinks in the next run of a batch by where its tiles lie.

    Parameters
    ----------
    network
        Any model of terratorch; only its own parts that think are changed, not their class.
    places
        First row and column of each tile from the scene's origin: (tile, 2).
    sampling
        How tokens are drawn.
    """
    for part in thinking_parts(network):
        part.forward = functools.partial(_forward, part, places=places, sampling=sampling)


def thinking_parts(network: Any) -> Iterator[Any]:
    """Parts of a network that think in modalities."""
    from terratorch.models.backbones.terramind.model.terramind_tim import TerraMindTiM

    return (part for part in network.modules() if isinstance(part, TerraMindTiM))


def _forward(
    part: Any, given: Mapping[str, torch.Tensor], *, places: NDArray[np.int64], sampling: Sampling
) -> Any:
    """Features as ``TerraMindTiM.forward`` gives them.

    What follows on the tokens is what terratorch's backbone that does not think makes of further inputs.
    """
    from terratorch.models.backbones.terramind.model.terramind_vit import TerraMindViT

    thought = _thought(part, given, places, sampling)
    features = TerraMindViT.forward(part, {**given, **thought})
    if part.merge_method == "dict":  # then terratorch tells features of the inputs alone
        features = [{name: x for name, x in layer.items() if name not in thought} for layer in features]
    return features


def _thought(
    part: Any, given: Mapping[str, torch.Tensor], places: NDArray[np.int64], sampling: Sampling
) -> dict[str, torch.Tensor]:
    """Tokens (tile, patch) of all that a network thinks in, by its own names, each from those before it."""
    names = {each.token_key: each.name for each in modalities.values() if each.token_key}
    known = {part.mod_name_mapping[name]: _seen(pixels) for name, pixels in given.items()}
    first = next(iter(given.values()))
    grid = (len(first), first.shape[-2] // PATCH, first.shape[-1] // PATCH)
    # A model of several dates gives the dates of a tile one after the other: they share its noise.
    places = np.repeat(places, len(first) // len(places), axis=0)
    thought = {}
    for name in part.tim_modalities:
        key = part.mod_name_mapping[name]
        if key in known:
            continue
        target = Target.hidden(names[key], grid)
        drawn = draw_with(part.sampler, known, target, places, sampling, str(first.device))
        # Where generations are not chained, the generator has no embedding for it, and does not read it.
        known[key] = drawn.known()
        thought[name] = known[key].tensor
    return thought


def _seen(pixels: torch.Tensor) -> Known:
    """Pixels (tile, band, y, x) as what conditions: all of their patches are seen."""
    import torch

    patches = (pixels.shape[-2] // PATCH) * (pixels.shape[-1] // PATCH)
    return Known(pixels, torch.zeros((len(pixels), patches), dtype=torch.bool, device=pixels.device))

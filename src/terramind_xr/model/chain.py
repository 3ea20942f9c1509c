"""All stages in a row: modalities from those that are known, each conditioned on the ones before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terramind_xr.model import compiled, weights
from terramind_xr.model.batch import Batch, Target
from terramind_xr.model.coordinates import Text, decode_coordinates, draw_coordinates
from terramind_xr.model.decoding import decode, expected_codes, token_codes
from terramind_xr.model.drawing import Drawn, draw
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.tokens import encode, encoder_key, token_key

if TYPE_CHECKING:
    import torch


def generate(
    recipe: Recipe, batch: Batch, outputs: tuple[str, ...], sampling: Sampling, execution: Execution
) -> dict[str, NDArray[np.float32]]:
    """Generate modalities for a batch of tiles, each conditioned on the inputs and on earlier outputs.

    Parameters
    ----------
    recipe
        Which weights.
    batch
        Inputs, as pixels or as tokens.
    outputs
        Modalities to generate, in this order.
    sampling
        How tokens are drawn and decoded.
    execution
        Where to run.

    Returns
    -------
    dict
        By output (tile, channel, y, x), float32: class probabilities for LULC, else the modality's own
        units. Coordinates are longitude and latitude, NaN where none were found: (tile, 2, 1, 1).
    """
    with session(execution) as device:
        codes: dict[str, torch.Tensor] = {}
        pairs: dict[str, NDArray[np.float32]] = {}
        for name, drawn in _drawn(recipe, batch, outputs, sampling, device):
            if isinstance(drawn, Text):
                pairs[name] = decode_coordinates(recipe, drawn)[:, :, None, None]
            elif sampling.decoding == "expected":
                codes[name] = expected_codes(recipe, name, drawn.logits, device)
            else:
                codes[name] = token_codes(recipe, name, drawn.tokens, device)
        return {
            name: pairs[name]
            if name in pairs
            else decode(recipe, name, codes[name], batch.places, sampling, device)
            for name in outputs
        }


def load(recipe: Recipe, execution: Execution) -> None:
    """Load all networks of a recipe, which this process then keeps.

    Raises
    ------
    OptionError
        The device is not there, or OpenVINO is not.
    WeightsError
        Weights are missing, damaged, or those of another model.
    """
    with session(execution) as device:
        weights.sampler(recipe, (), (), device)
        for name, _ in recipe.tokenizers:
            if name != "Coordinates":  # is a text
                weights.tokenizer(recipe, name, device)
        for _, converted in (*recipe.transformer, *recipe.decoders):
            compiled.network(converted)


def generate_tokens(
    recipe: Recipe, batch: Batch, outputs: tuple[str, ...], sampling: Sampling, device: str
) -> dict[str, torch.Tensor]:
    """Tokens of each output (tile, row, column), rasters all, drawn one output after the other."""
    drawn = _drawn(recipe, batch, outputs, sampling, device)
    return {name: each.tokens for name, each in drawn if isinstance(each, Drawn)}


def _drawn(
    recipe: Recipe, batch: Batch, outputs: tuple[str, ...], sampling: Sampling, device: str
) -> Iterator[tuple[str, Drawn | Text]]:
    """Each output with what was drawn of it; one by one, as logits are large."""
    # Loaded before anything is computed, so that all that it lacks is named at once. The last output
    # conditions nothing, so that its encoder embedding is not needed (as upstream).
    located = () if batch.lonlat is None else ("Coordinates",)
    encoded = [*map(encoder_key, batch.pixels), *map(token_key, [*batch.tokens, *located, *outputs[:-1]])]
    weights.sampler(recipe, tuple(dict.fromkeys(encoded)), tuple(map(token_key, outputs)), device)
    known = encode(recipe, batch, device)
    for name in outputs:
        drawn: Drawn | Text
        if name == "Coordinates":
            drawn = draw_coordinates(recipe, known, batch.places, sampling, device)
            known[token_key(name)] = drawn.known(device)
        else:
            drawn = draw(recipe, known, Target.hidden(name, batch.grid), batch.places, sampling, device)
            known[token_key(name)] = drawn.known()
        yield name, drawn

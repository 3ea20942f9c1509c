"""Decoders of tokenizers to OpenVINO's format, quantised by NNCF: done once, by `export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.model import weights
from terramind_xr.model.batch import Batch
from terramind_xr.model.chain import generate_tokens
from terramind_xr.model.compiled import import_openvino
from terramind_xr.model.decoding import denoise, starting_noise, token_codes
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.exported import decoder_stem
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling

_CPU = Execution(device="cpu")
_DIFFUSION_TILES = 4
"""Tiles that a diffusion decoder is calibrated on: in each of the ten steps, which makes ten samples."""

Sample = tuple[NDArray[Any], ...]


def likeliest_tokens(recipe: Recipe, name: str, batch: Batch) -> NDArray[np.int64]:
    """Tokens (tile, row, column) of an output, as the model in fp32 generates them from a batch."""
    with session(_CPU) as device:
        return generate_tokens(recipe, batch, (name,), Sampling(), device)[name].cpu().numpy()


def decoder_inputs(
    recipe: Recipe, name: str, tokens: NDArray[np.int64], places: NDArray[np.int64]
) -> list[Sample]:
    """What a decoder is called with for each tile: its codes; or image, step and codes in each step.

    Parameters
    ----------
    recipe
        Which weights; the modality's tokenizer is among them.
    name
        Modality.
    tokens
        (tile, row, column).
    places
        First row and column of each tile: (tile, 2). The noise that diffusion begins with is theirs.
    """
    import torch

    sampling = Sampling()
    with session(_CPU) as device:
        if name == "LULC":
            codes = token_codes(recipe, name, torch.from_numpy(tokens), device).numpy()
            return [(codes[tile : tile + 1],) for tile in range(len(codes))]
        tokenizer, calls = weights.tokenizer(recipe, name, device), []

        def recording(image: torch.Tensor, step: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            calls.append((image.numpy(), step[None].numpy(), codes.numpy()))
            estimate: torch.Tensor = tokenizer.decoder(image, step, codes)
            return estimate

        for tile in range(min(_DIFFUSION_TILES, len(tokens))):
            one = slice(tile, tile + 1)
            codes = token_codes(recipe, name, torch.from_numpy(tokens[one]), device)
            noise = starting_noise(name, places[one], codes.shape[2:], sampling)
            denoise(tokenizer, codes, torch.from_numpy(noise), sampling, recording)
        return calls


def convert(recipe: Recipe, name: str, example: Sample) -> Any:
    """A modality's decoder as a model of OpenVINO in float32, for one tile at a time.

    `example` is one of its inputs; shapes are those of it.
    """
    openvino = import_openvino()
    import torch

    shapes = [openvino.PartialShape(list(array.shape)) for array in example]
    # Not in an inference session: tracing does not take its tensors.
    module = _module(weights.tokenizer(recipe, name, "cpu"), name)
    tensors = tuple(torch.from_numpy(array.copy()) for array in example)
    return openvino.convert_model(module, example_input=tensors, input=shapes)


def quantized(model: Any, name: str, samples: Sequence[Sample]) -> Any:
    """The model with products in int8, whose scales are fixed by what `samples` give.

    Softmax, normalisation and whatever else NNCF leaves out stay in float32.
    """
    import_openvino("nncf")
    import nncf

    transformer = {"model_type": nncf.ModelType.TRANSFORMER} if name == "LULC" else {}
    return nncf.quantize(
        model,
        nncf.Dataset([sample if len(sample) > 1 else sample[0] for sample in samples]),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,
        **transformer,
    )


def save(model: Any, name: str, folder: Path) -> None:
    """Write a model as two files, its numbers as they are."""
    openvino = import_openvino()
    openvino.save_model(model, folder / f"{decoder_stem(name)}.xml", compress_to_fp16=False)


def _module(tokenizer: Any, name: str) -> Any:
    """What is converted: one decoder as a module of its own."""
    import torch

    if name != "LULC":
        return tokenizer.decoder

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = tokenizer

        def forward(self, codes: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.tokenizer.decode_quant(codes)
            return logits

    return Decoder().eval()

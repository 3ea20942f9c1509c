"""Decoders of tokenizers and the backbone to OpenVINO's format, quantised by NNCF: done once, by `export`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.model import weights
from terramind_xr.model.batch import Batch
from terramind_xr.model.chain import generate_tokens
from terramind_xr.model.compiled import import_openvino
from terramind_xr.model.decoding import denoise, starting_noise, token_codes
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.exported import HALVES
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling

if TYPE_CHECKING:
    import torch

_CPU = Execution(device="cpu")

Sample = tuple[NDArray[Any], ...]


def likeliest_tokens(recipe: Recipe, name: str, batch: Batch) -> NDArray[np.int64]:
    """Tokens (tile, row, column) of an output, as the model in fp32 generates them from a batch."""
    with session(_CPU) as device:
        return generate_tokens(recipe, batch, (name,), Sampling(), device)[name].cpu().numpy()


def decoder_inputs(
    recipe: Recipe, name: str, tokens: NDArray[np.int64], places: NDArray[np.int64], steps: int = 10
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
    steps
        Of a diffusion decoder; each is one more sample.
    """
    import torch

    sampling = Sampling(diffusion_steps=steps)
    samples: list[Sample] = []
    with session(_CPU) as device:
        tokenizer = weights.tokenizer(recipe, name, device)

        def recording(image: torch.Tensor, step: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            samples.append((image.numpy(), step[None].numpy(), codes.numpy()))
            estimate: torch.Tensor = tokenizer.decoder(image, step, codes)
            return estimate

        for tile in range(len(tokens)):
            one = slice(tile, tile + 1)
            codes = token_codes(recipe, name, torch.from_numpy(tokens[one]), device)
            if name == "LULC":
                samples.append((codes.numpy(),))
                continue
            noise = starting_noise(name, places[one], codes.shape[2:], sampling, device)
            denoise(tokenizer, codes, noise, sampling, recording)
    return samples


def transformer_inputs(recipe: Recipe, name: str, batches: Sequence[Batch]) -> dict[str, list[Sample]]:
    """What the backbone's encoder and decoder are called with for an output of batches of one tile each."""
    samples: dict[str, list[Sample]] = {half: [] for half in HALVES}
    with session(_CPU) as device:
        model = weights.sampler(recipe, (), (), device).model
        with contextlib.ExitStack() as recorded:
            for half in HALVES:
                recorded.enter_context(_recorded(model, half, samples[half]))
            for batch in batches:
                generate_tokens(recipe, batch, (name,), Sampling(), device)
    return samples


@contextlib.contextmanager
def _recorded(model: Any, half: str, samples: list[Sample]) -> Iterator[None]:
    """Keep what the backbone's encoder or decoder is called with; the session keeps other threads out."""
    plain = getattr(model, f"forward_{half}")

    def forward(*inputs: torch.Tensor | None) -> Any:
        samples.append(tuple(each.numpy() for each in inputs if each is not None))
        return plain(*inputs)

    setattr(model, f"forward_{half}", forward)
    try:
        yield
    finally:
        delattr(model, f"forward_{half}")


def convert_transformer(recipe: Recipe, half: str, example: Sample) -> Any:
    """The backbone's encoder or decoder for one tile at a time, of any number of patches."""
    import torch

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = weights.sampler(recipe, (), (), "cpu").model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            more = (None,) if half == "decoder" else ()
            found: torch.Tensor = getattr(self.model, f"forward_{half}")(*inputs, *more)
            return found

    # (tile, patch, feature) of features, (tile, 1, patch) of what is hidden.
    shapes = [[1, -1, each.shape[2]] if each.dtype == np.float32 else [1, 1, -1] for each in example]
    return _converted(Half().eval(), example, shapes)


def convert(recipe: Recipe, name: str, example: Sample) -> Any:
    """A modality's decoder as a model of OpenVINO in float32, for one tile at a time.

    `example` is one of its inputs; shapes are those of it.
    """
    module = _module(weights.tokenizer(recipe, name, "cpu"), name)
    return _converted(module, example, [list(array.shape) for array in example])


def _converted(module: Any, example: Sample, shapes: Sequence[Sequence[int]]) -> Any:
    openvino = import_openvino()
    import torch

    # Not in an inference session: tracing does not take its tensors.
    tensors = tuple(torch.from_numpy(array.copy()) for array in example)
    return openvino.convert_model(
        module, example_input=tensors, input=[openvino.PartialShape(list(shape)) for shape in shapes]
    )


def quantized(model: Any, samples: Sequence[Sample], *, diffusion: bool = False) -> Any:
    """The model with products in int8, whose scales are fixed by what `samples` give.

    Softmax, normalisation and whatever else NNCF leaves out stay in float32; so do the first and the last
    convolution of a diffusion network, which would shift its images as a whole.
    """
    import_openvino("nncf")
    import nncf

    convolutions = [
        each.get_friendly_name() for each in model.get_ordered_ops() if each.get_type_name() == "Convolution"
    ]
    kept = [convolutions[0], convolutions[-1]] if diffusion else []
    with _quiet(logging.getLogger("nncf")):
        return nncf.quantize(
            model,
            nncf.Dataset([sample if len(sample) > 1 else sample[0] for sample in samples]),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,  # UNets have attention, too
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        )


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Only warnings of a logger."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def save(model: Any, stem: str, folder: Path) -> None:
    """Write a model as two files of one name, its numbers as they are."""
    openvino = import_openvino()
    openvino.save_model(model, folder / f"{stem}.xml", compress_to_fp16=False)


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

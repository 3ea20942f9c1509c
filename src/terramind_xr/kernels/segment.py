"""The kernel of `segment`: what a fine-tuned model says of each pixel or tile, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.engine import Field, Layer, Output
from terramind_xr.kernels.describe import likeliest
from terramind_xr.kernels.reading import KernelInput, Mask
from terramind_xr.model.execution import Execution
from terramind_xr.model.finetuned import Finetuned
from terramind_xr.model.footprint import Footprint
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.segmentation import predict

UNCERTAINTIES = ("entropy", "margin", "least_confidence")
THRESHOLD = 0.5
"""Probability above which a tile has a label, as terratorch's metrics count it."""
_LONG_NAMES = {
    "entropy": "entropy of the class probabilities, over that of equal ones",
    "margin": "1 minus the difference of the two largest class probabilities",
    "least_confidence": "1 minus the largest class probability",
}


@dataclass(frozen=True)
class SegmentKernel:
    """Run a fine-tuned model tile by tile; see `terramind_xr.segment`.

    Parameters
    ----------
    model
        Which one.
    inputs
        How its inputs are read, in its order, each with the model's bands.
    wanted
        What is made of its predictions: ``"classes"``, ``"labels"`` (those of several that are there),
        ``"probabilities"`` or ``"values"``, and uncertainties.
    execution
        Where the model runs.
    sampling
        How the model draws what it thinks in; None where it does not think.
    dates
        How many dates the model reads at once, each a region of its own; None where it reads one.
    """

    model: Finetuned
    inputs: tuple[KernelInput, ...]
    wanted: tuple[str, ...]
    execution: Execution
    sampling: Sampling | None = None
    dates: int | None = None

    @property
    def fields(self) -> tuple[Field, ...]:
        """Class probabilities, or the variables of a regression."""
        return (Field(self.model.channels, merge="tile" if self.model.is_by_tile else "blend"),)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """One for each thing wanted, all from the one field."""
        return tuple(_output(name, self.model) for name in self.wanted)

    @property
    def footprint(self) -> Footprint:
        """Memory beside the blocks."""
        read = len(self.inputs) * (self.dates or 1)
        return Footprint.of_finetuned(self.model.name, self.model.backbone, read)

    def load(self, regions: list[NDArray[Any]]) -> list[Layer]:
        """Inputs standardised as in the training, 0 (the band's mean) where not valid.

        The bands of several dates come one date after the other, valid where one of them is.
        """
        queue = iter(regions)
        layers = []
        for each, trained in zip(self.inputs, self.model.inputs, strict=True):
            scale = trained.mean, trained.std
            if not self.dates:
                layers.append(each.layer(queue, scale))
                continue
            dates = [each.layer(queue, scale) for _ in range(self.dates)]
            values = np.concatenate([date.whole() for date in dates])
            layers.append(Layer(values, np.any([date.valid for date in dates], axis=0)))
        return layers

    def run(
        self, values: list[NDArray[np.float32]], valid: list[Mask], places: NDArray[np.int64]
    ) -> list[NDArray[np.float32]]:
        """Predictions (tile, channel, y, x) of a batch; y and x of size 1 by tile."""
        if self.dates:
            # From date after date to (tile, band, date, y, x), as terratorch has it.
            tiles, _, *size = values[0].shape
            dated = (array.reshape(tiles, self.dates, -1, *size) for array in values)
            values = [np.ascontiguousarray(array.swapaxes(1, 2)) for array in dated]
        pixels = {each.name: array for each, array in zip(self.inputs, values, strict=True)}
        return [predict(self.model, pixels, places, self.sampling, self.execution)]

    def finish(self, index: int, merged: NDArray[np.float32], valid: Mask) -> NDArray[Any]:
        """Codes, or numbers; the value for no data, or NaN, where no input is valid."""
        name = self.wanted[index]
        if name == "classes":
            dtype, nodata = _codes(self.model)
            return np.where(valid, likeliest(merged), nodata).astype(dtype)
        if name == "labels":
            return np.where(valid, merged > THRESHOLD, 255).astype(np.uint8)
        if name in UNCERTAINTIES:
            return np.where(valid, uncertainty(name, merged), np.nan).astype(np.float32)
        result = np.where(valid, merged, np.nan).astype(np.float32)
        return result[0] if name == "values" and len(result) == 1 else result


def uncertainty(kind: str, probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """How unsure class probabilities (class, …) are, from 0 to 1, as sits defines it.

    Examples
    --------
    >>> import numpy as np
    >>> sure, even = [1.0, 0.0], [0.5, 0.5]
    >>> both = np.array([sure, even]).T
    >>> [uncertainty(kind, both).tolist() for kind in ("entropy", "margin", "least_confidence")]
    [[0.0, 1.0], [0.0, 1.0], [0.0, 0.5]]
    """
    if kind == "entropy":
        logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
        entropy: NDArray[np.floating] = np.abs(probabilities * logs).sum(axis=0) / np.log(len(probabilities))
        return entropy
    second, first = np.sort(probabilities, axis=0)[-2:]
    result: NDArray[np.floating] = 1 - (first - second) if kind == "margin" else 1 - first
    return result


def _codes(model: Finetuned) -> tuple[str, int]:
    """Type of codes, and its largest value, which stands for no data."""
    return ("uint8", 255) if model.channels <= 255 else ("uint16", 65535)


def _output(name: str, model: Finetuned) -> Output:
    map_of_classes = "classification" if model.is_by_tile else "segmentation"
    attrs: dict[str, Any]
    if name == "classes":
        dtype, nodata = _codes(model)
        attrs = {
            "long_name": "class",
            "flag_values": np.arange(model.channels, dtype=dtype),
            "flag_meanings": " ".join(model.class_names),
            "flag_colors": " ".join(model.class_colors) or None,
            "terramind_nodata": nodata,
            "terramind_label_codes": np.array(model.label_codes) if model.label_codes else None,
        }
        return Output(map_of_classes, 0, (), dtype, attrs=attrs, nodata=nodata)
    if name in UNCERTAINTIES:
        return Output(name, 0, (), "float32", attrs={"long_name": _LONG_NAMES[name], "units": "1"})
    coords = {"category": list(model.class_names)}
    if name == "labels":
        attrs = {
            "long_name": "whether each class is there",
            "flag_values": np.arange(2, dtype="uint8"),
            "flag_meanings": "absent present",
            "terramind_nodata": 255,
            "terramind_threshold": THRESHOLD,
        }
        return Output(map_of_classes, 0, (model.channels,), "uint8", ("category",), coords, attrs, nodata=255)
    if name == "probabilities":
        attrs = {"long_name": "probability of each class", "units": "1"}
        return Output(map_of_classes, 0, (model.channels,), "float32", ("category",), coords, attrs)
    attrs = {"long_name": "value of the regression"}
    if model.channels == 1:
        return Output("regression", 0, (), "float32", attrs=attrs)
    numbers = {"variable": [f"variable_{number}" for number in range(model.channels)]}
    return Output("regression", 0, (model.channels,), "float32", ("variable",), numbers, attrs)

"""Trivial kernels and a plain numpy oracle, for the laws of tiling and blending."""

from dataclasses import dataclass

import numpy as np

from terramind_xr.engine import Field, Layer, Output
from terramind_xr.engine.tiling import Tiling
from terramind_xr.noise import Stream


@dataclass(frozen=True)
class TrivialKernel:
    """NaN is no data; what a tile predicts depends on `kind`."""

    kind: str = "identity"
    bands: int = 1
    fill: float = -9.0

    @property
    def fields(self):
        return (Field(self.bands),)

    @property
    def outputs(self):
        return (Output("first", 0, (self.bands,), "float32"), Output("map", 0, (), "int16"))

    def load(self, regions):
        regions = [region.astype(np.float32) for region in regions]
        return [Layer(np.nan_to_num(region), ~np.isnan(region).any(axis=0)) for region in regions]

    def run(self, pixels, valid, places):
        first = pixels[0]
        if self.kind == "constant":
            predicted = np.full_like(first, 0.1)
        elif self.kind == "identity":
            predicted = first
        elif self.kind == "tile mean":  # differs from tile to tile, as a model's predictions do
            predicted = first + first.mean(axis=(1, 2, 3), keepdims=True) * 0.3
        elif self.kind == "noise":
            tile = first.shape[-1]
            stream = Stream(3, "test")
            predicted = np.stack(
                [stream.normal(y=y, x=x, height=tile, width=tile, bands=self.bands) for y, x in places]
            )
        else:
            raise ValueError(self.kind)
        return [predicted.astype(np.float32)]

    def finish(self, index, blended, valid):
        if index == 0:
            return np.where(valid, blended, self.fill).astype(np.float32)
        return np.where(valid, np.rint(blended[0] * 10), -1).astype(np.int16)


def oracle(kernel, arrays, *, overlap):
    """The whole scene at once: every tile, weighted, summed; its weights are computed anew."""
    height, width = arrays[0].shape[-2:]
    tiling = Tiling.of((height, width), overlap=overlap, block=1)
    padded = [
        np.pad(a, ((0, 0), (0, tiling.y.padded - height), (0, tiling.x.padded - width)), mode="reflect")
        for a in arrays
    ]
    layers = kernel.load(padded)
    pixels, valid = [layer.values for layer in layers], [layer.valid for layer in layers]
    any_valid = np.logical_or.reduce(valid)
    channels = kernel.fields[0].channels
    total = np.zeros((channels, tiling.y.padded, tiling.x.padded))
    for y in tiling.y.starts:
        for x in tiling.x.starts:
            at = (slice(y, y + 224), slice(x, x + 224))
            if not any_valid[at].any():
                continue
            predicted = kernel.run(
                [p[None, :, *at] for p in pixels], [v[None, *at] for v in valid], np.array([[y, x]])
            )[0][0]
            weight = np.outer(_window(tiling.y.starts, y, overlap), _window(tiling.x.starts, x, overlap))
            total[:, *at] += weight * predicted
    blended = total[:, :height, :width]
    return [kernel.finish(index, blended, any_valid[:height, :width]) for index in range(2)]


def _window(starts, start, overlap):
    """Normalised trapezoid, from its definition, pixel by pixel."""
    pixels = start + np.arange(224)
    heights = {s: np.clip(np.minimum(pixels - s + 1, s + 224 - pixels), 0, overlap + 1) for s in starts}
    return heights[start] / sum(heights.values())

"""What overlapping tiles cost and bring: one tiling for all, or one of the decoder's own for the tokens.

    python benchmarks/overlap.py                                         # 896² pixels, some minutes
    python benchmarks/overlap.py --size 1344 --worlds 0 1 2 --outputs LULC
    python benchmarks/overlap.py --diffusion-steps 10 --solver dpm++

Maps of synthetic scenes by the demo: S2L2A from Sentinel-1 and relief, the others from S2L2A. `generate`
runs encoder and decoder over the same tiles (rows without a seam of tokens). In the others, the tokens
of the scene are generated first with the overlap `tokens`, each patch by the tile with the nearest
centre, and that mosaic is then decoded by `detokenize` with the overlap `pixels`.

`encoder` and `decoder` are the pixels that they run over those of a scene that is much larger than a
tile. Agreement is with the truth for LULC, error the mean absolute difference for the others. Patch and
seam index are those of `terramind_xr.seam_index` at the borders of the decoder's tiles (1: they do not
show), `seam of tokens` at those of the encoder's. Errors follow one step of diffusion unless asked
otherwise.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

import terramind_xr
from terramind_xr.api.generate import Call
from terramind_xr.api.mapping import mapped
from terramind_xr.engine import Field, Layer, Output
from terramind_xr.facts import PATCH, TILE, modalities
from terramind_xr.kernels import GenerateKernel
from terramind_xr.kernels.reading import NODATA, Mask
from terramind_xr.model.chain import generate_tokens
from terramind_xr.model.execution import Execution, session
from terramind_xr.model.recipe import codebook
from terramind_xr.model.sampling import Sampling

MODEL, BATCH = "demo", 8
CPU = Execution("cpu")
INPUTS = {"S2L2A": ["S1GRD", "DEM"]}
OUTPUTS = ("LULC", "NDVI", "DEM", "S2L2A")
HEAD = (
    "world", "output", "tokens", "pixels", "shifts", "encoder", "decoder", "agreement", "error", "patch",
    "seam", "seam of tokens", "seconds",
)  # fmt: skip
Row = tuple[object, ...]


@dataclass(frozen=True)
class TokensKernel:
    """Tokens of one output as `generate` draws them, each patch's from the tile with the nearest centre."""

    inner: GenerateKernel
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """The one output."""
        return self.inner.targets[0]

    @property
    def fields(self) -> tuple[Field, ...]:
        """Tokens, as those of `tokenize`."""
        return (Field(1, cell=PATCH, merge="nearest"),)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All that `detokenize` reads."""
        levels = codebook(MODEL, self.name)
        attrs: dict[str, Any] = {
            "terramind_tokens": self.name,
            "codebook": " ".join(map(str, levels)),
            "terramind_rows": self.shape[0],
            "terramind_columns": self.shape[1],
        }
        return (Output(f"{self.name}_tokens", 0, (), "uint16", attrs=attrs, nodata=NODATA),)

    def load(self, regions: list[NDArray[Any]]) -> list[Layer]:
        """As `generate`."""
        return self.inner.load(regions)

    def run(
        self, values: list[NDArray[Any]], valid: list[Mask], places: NDArray[np.int64]
    ) -> list[NDArray[Any]]:
        """Tokens (tile, 1, row, column) of a batch."""
        batch = self.inner.batch(values, valid, places)
        with session(CPU) as device:
            drawn = generate_tokens(self.inner.recipe, batch, self.inner.targets, Sampling(), device)
        return [drawn[self.name].numpy()[:, None]]

    def finish(self, index: int, merged: NDArray[np.float64], valid: Mask) -> NDArray[Any]:
        """Tokens (y, x) of patches that hold a valid pixel."""
        return np.where(valid, merged[0], NODATA).astype(np.uint16)


def tokens_of(given: xr.Dataset, name: str, overlap: int) -> xr.DataArray:
    """The mosaic of tokens that `generate` would decode tile by tile."""
    call = Call.of(
        given, name, inputs=None, model=MODEL, offset="auto", mask=None, probabilities=False,
        sampling=Sampling(), execution=CPU, overlap=overlap, shifts=1, batch_size=BATCH,
    )  # fmt: skip
    kernel = TokensKernel(call.kernel, call.scene.grid.shape)
    return mapped(call.scene, kernel, call.tiling, batch_size=BATCH, made=call.made())[0]


def scores(made: xr.DataArray, truth: xr.DataArray) -> tuple[str, str]:
    """Agreement and error."""
    if made.name == "LULC":
        return f"{float(np.mean(made.values == truth.values)):.3f}", ""
    return "", f"{float(np.abs(made.values - truth.values.astype(np.float64)).mean()):.4g}"


def rows_of(name: str, scene: xr.Dataset, arguments: argparse.Namespace) -> Iterator[Row]:
    given = scene[INPUTS.get(name, ["S2L2A"])]

    def plan(overlap: int, shifts: int = 1) -> Any:
        return given.terramind.plan(name, model=MODEL, overlap=overlap, shifts=shifts)

    def pixels(overlap: int, shifts: int = 1) -> str:
        return f"{shifts * (TILE / (TILE - overlap)) ** 2:.2f}"

    def index(made: xr.DataArray, overlap: int, shifts: int = 1) -> Any:
        # Attributes say how it was decoded; tokens were made otherwise.
        return made.assign_attrs(terramind_overlap=overlap).terramind.seam_index(plan(overlap, shifts))

    options: dict[str, Any] = {
        "model": MODEL,
        "device": "cpu",
        "batch_size": BATCH,
        "solver": arguments.solver,
    }
    options |= {"diffusion_steps": arguments.diffusion_steps}
    truth = index(scene[name], 32)
    yield (name, "truth", *[""] * 6, f"{truth.patch:.1f}", f"{truth.seam:.2f}", "", "")
    for shifts in arguments.shifts:
        for overlap in arguments.overlaps:
            start = time.perf_counter()
            made = given.terramind.generate(name, overlap=overlap, shifts=shifts, **options)
            seconds = time.perf_counter() - start
            found, ratio = index(made, overlap, shifts), pixels(overlap, shifts)
            yield (name, overlap, overlap, shifts, ratio, ratio, *scores(made, scene[name]),
                   f"{found.patch:.1f}", f"{found.seam:.2f}", "", f"{seconds:.1f}")  # fmt: skip
    for first in arguments.token_overlaps:
        start = time.perf_counter()
        tokens = tokens_of(given, name, first)
        encoding = time.perf_counter() - start
        for overlap in arguments.overlaps:
            start = time.perf_counter()
            made = tokens.terramind.detokenize(overlap=overlap, **options)
            seconds = encoding + time.perf_counter() - start
            found, of_tokens = index(made, overlap), index(made, first)
            yield (name, first, overlap, 1, pixels(first), pixels(overlap), *scores(made, scene[name]),
                   f"{found.patch:.1f}", f"{found.seam:.2f}", f"{of_tokens.seam:.2f}",
                   f"{seconds:.1f}")  # fmt: skip


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=896, help="side of the scenes in pixels (%(default)s)")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0], help="seeds of the scenes (0)")
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=OUTPUTS)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 16, 32, 64])
    parser.add_argument("--token-overlaps", type=int, nargs="+", default=[0, 16])
    parser.add_argument("--shifts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--diffusion-steps", type=int, default=1, help="of all but LULC (%(default)s)")
    parser.add_argument("--solver", default="ddim", help="of the diffusion steps (%(default)s)")
    arguments = parser.parse_args()
    names = sorted({*arguments.outputs, "S2L2A", *INPUTS["S2L2A"]}, key=list(modalities).index)
    # Not timed: libraries and weights.
    small = terramind_xr.synthetic.scene(64, modalities=names).load()
    for name in arguments.outputs:
        small[INPUTS.get(name, ["S2L2A"])].terramind.generate(name, model=MODEL, diffusion_steps=1)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for world in arguments.worlds:
        scene = terramind_xr.synthetic.scene(arguments.size, seed=world, modalities=names).load()
        for name in arguments.outputs:
            for row in rows_of(name, scene, arguments):
                print(f"| {' | '.join(map(str, (world, *row)))} |", flush=True)
    print(
        f"\n{arguments.size}² pixels, model {MODEL}, {arguments.diffusion_steps} steps of "
        f"{arguments.solver}, {os.cpu_count()} CPUs ({platform.machine()}), {torch.get_num_threads()} "
        f"torch threads, torch {torch.__version__}, terramind_xr {terramind_xr.__version__}"
    )


if __name__ == "__main__":
    main()

"""How good the outputs are that are numbers, and what the tokenizers keep: errors beside baselines."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from demo_baselines import linear, mean_of_all, mean_of_tile
from demo_tables import NOT_IN_MODEL, Row, Table, Value
from demo_tiles import (
    BATCH,
    FIT_SEED,
    Array,
    Tiles,
    has_tokenizer,
    held_out,
    joined,
    places,
    predict,
    standardized,
)
from numpy.typing import NDArray

from terramind_xr.facts import modalities
from terramind_xr.model.decoding import decode_tokens
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling
from terramind_xr.model.tokens import encode_tokens

# The first inputs of each output are decoded in every way.
PAIRS = (
    ("NDVI", ("S2L2A",)),
    ("NDVI", ("S1GRD", "DEM")),
    ("DEM", ("S2L2A",)),
    ("DEM", ("S1GRD",)),
    ("S1GRD", ("S2L2A",)),
    ("S1GRD", ("S2L2A", "DEM")),
    ("S1RTC", ("S2L2A",)),
    ("S1RTC", ("S1GRD", "DEM")),
    ("S2L2A", ("RGB",)),
    ("S2L2A", ("S1GRD", "DEM")),
    ("S2L2A", ("S2L1C",)),
)
TOKENIZED = ("LULC", "NDVI", "DEM", "S1GRD", "S1RTC", "S2L2A")
DECODINGS: dict[str, dict[str, Any]] = {
    "10 steps": {},
    "1 step": {"diffusion_steps": 1},
    "10 steps, no clamp": {"clamp": None},
    "1 step, no clamp": {"clamp": None, "diffusion_steps": 1},
}
DEFAULT, BEST = "10 steps", "1 step, no clamp"
FIT_TILES = 32


@dataclass(frozen=True)
class PairErrors:
    """Mean absolute errors of one output from some inputs, by band, in physical units.

    Parameters
    ----------
    output, inputs
        Modalities.
    by_method
        Of the ways of decoding that were run, and of the baselines.
    """

    output: str
    inputs: tuple[str, ...]
    by_method: dict[str, NDArray[np.float64]]

    @property
    def label(self) -> str:
        """Such as ``"NDVI from S2L2A"``."""
        return f"{self.output} from {joined(self.inputs)}"


BASELINES = ("mean of all tiles", "true mean of each tile", "linear regression")


def absolute_error(values: Array, truth: Array) -> NDArray[np.float64]:
    """Mean over tiles and pixels, by band (one where there are no bands)."""
    bands = truth.shape[1] if truth.ndim == 4 else 1
    difference = np.abs(values.astype(np.float64) - truth)
    return np.asarray(np.moveaxis(difference.reshape(len(truth), bands, -1), 1, 0).reshape(bands, -1).mean(1))


@functools.lru_cache(maxsize=2)
def regression_errors(tiles: int = 32, model: str = "demo") -> tuple[PairErrors, ...]:
    """Errors of every pair of output and inputs, by every method."""
    data, fitted = held_out(tiles), held_out(FIT_TILES, FIT_SEED)
    results, seen = [], set()
    for output, inputs in PAIRS:
        ways = (DEFAULT, BEST) if output in seen else tuple(DECODINGS)
        seen.add(output)
        made = {way: predict(data, inputs, output, model, **DECODINGS[way]) for way in ways}
        made |= zip(
            BASELINES,
            (
                mean_of_all(fitted, data, output),
                mean_of_tile(data, output),
                linear(fitted, data, inputs, output),
            ),
            strict=True,
        )
        errors = {
            way: absolute_error(values, data[output]) for way, values in made.items() if values is not None
        }
        results.append(PairErrors(output, inputs, errors))
    return tuple(results)


def _cell(errors: PairErrors, method: str, band: int | None = None) -> Value:
    if method not in errors.by_method:
        return NOT_IN_MODEL
    by_band = errors.by_method[method]
    return float(by_band.mean() if band is None else by_band[band])


def regression(tiles: int = 32, model: str = "demo") -> Table:
    """Errors of the outputs that are numbers, from several inputs, beside baselines."""
    methods = (DEFAULT, BEST, *BASELINES)
    rows = []
    for errors in regression_errors(tiles, model):
        modality = modalities[errors.output]
        unit = "" if modality.units == "1" else modality.units
        splits = range(2) if len(modality.bands) == 2 else [None]
        for band in splits:
            name = "" if band is None else f", {modality.band_names[band]}"
            cells = (_cell(errors, method, band) for method in methods)
            rows.append(Row(errors.label + name, (unit, *cells)))
    note = (
        f"Mean absolute errors, {tiles} tiles; of S2L2A the mean of the bands. 10 steps are the default. The "
        "clamp is upstream's, at one standard deviation of the modality. The mean of all tiles and the "
        f"linear regression by pixel, from the same inputs, are fitted on {FIT_TILES} tiles of other worlds."
    )
    return Table("Other outputs", ("output", "unit", *methods), tuple(rows), note)


def decoding(tiles: int = 32, model: str = "demo") -> Table:
    """Errors by number of diffusion steps and clamp, each output from its first inputs."""
    firsts = {errors.output: errors for errors in reversed(regression_errors(tiles, model))}
    rows = [
        Row(errors.label, (modalities[errors.output].units, *(_cell(errors, way) for way in DECODINGS)))
        for errors in reversed(firsts.values())
    ]
    note = f"Mean absolute errors, {tiles} tiles. With the clamp of upstream unless said otherwise."
    return Table("Diffusion steps and clamp", ("output", "unit", *DECODINGS), tuple(rows), note)


def bands(tiles: int = 32, model: str = "demo") -> Table:
    """Errors of each band of S2L2A, from several inputs."""
    pairs = [errors for errors in regression_errors(tiles, model) if errors.output == "S2L2A"]
    rows = []
    for band, name in enumerate(modalities["S2L2A"].band_names):
        cells = [_cell(errors, way, band) for errors in pairs for way in (BEST, "linear regression")]
        rows.append(Row(name, (*cells, _cell(pairs[0], "true mean of each tile", band))))
    columns = [f"{how}{joined(errors.inputs)}" for errors in pairs for how in ("", "linear: ")]
    note = f"Mean absolute errors in DN, {tiles} tiles, in 1 step without clamp."
    return Table("Bands of S2L2A", ("band", *columns, "true mean of each tile"), tuple(rows), note)


def tokenizers(tiles: int = 32, model: str = "demo") -> Table:
    """What is left after tokens: each modality encoded and decoded again."""
    data = held_out(tiles)
    rows = []
    for name in TOKENIZED:
        ways = [DEFAULT] if name == "LULC" else [DEFAULT, BEST]
        for way in ways:
            label = name if name == "LULC" else f"{name}, {way}"
            if not has_tokenizer(model, name):
                rows.append(Row(label, (None, NOT_IN_MODEL, None, None, None)))
                continue
            made = reconstruct(data, name, model, Sampling(**DECODINGS[way]))
            if name == "LULC":
                share = float((made.argmax(axis=1) == data[name]).mean())
                rows.append(Row(label, (share, None, None, None, None)))
                continue
            truth = data[name] if data[name].ndim == 4 else data[name][:, None]
            error = absolute_error(made, truth)
            spread = truth.std(axis=(0, 2, 3), dtype=float)
            offset = np.abs((made - truth.astype(float)).mean(axis=(2, 3))).mean()
            unit = modalities[name].units
            scores = (None, float(error.mean()), float((error / spread).mean()), float(offset))
            rows.append(Row(label, (*scores, "" if unit == "1" else unit)))
    columns = ("modality", "accuracy", "error", "error / std", "error of the tile's mean", "unit")
    note = (
        f"Mean absolute errors, {tiles} tiles; std is that of all pixels of these tiles, by band. Of several "
        "bands the mean."
    )
    return Table("Tokenizers: encoded and decoded", columns, tuple(rows), note)


def reconstruct(data: Tiles, name: str, model: str, sampling: Sampling) -> NDArray[np.float32]:
    """Tiles (tile, channel, y, x) through their tokens; LULC as class probabilities."""
    recipe, count = find(model, {name}), len(data[name])
    results = []
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        tokens = encode_tokens(recipe, name, standardized(data, name, part), Execution())
        results.append(decode_tokens(recipe, name, tokens, places(count)[part], sampling, Execution()))
    return np.concatenate(results)

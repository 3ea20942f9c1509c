"""How good the land cover is: by input, by class."""

from __future__ import annotations

import numpy as np
from demo_tables import NOT_IN_MODEL, Row, Table, Value
from demo_tiles import BATCH, Array, Tiles, has_tokenizer, held_out, joined, places, predict, standardized
from numpy.typing import NDArray

from terramind_xr.facts import PATCH, TILE, lulc_classes
from terramind_xr.model import chain
from terramind_xr.model.batch import Batch
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import find
from terramind_xr.model.sampling import Sampling

INPUTS = (
    ("S2L2A",),
    ("S2L1C",),
    ("RGB",),
    ("S1GRD", "DEM"),
    ("S1RTC", "DEM"),
    ("S2L2A", "S1GRD", "DEM"),
)
CLASSES = [cover for cover in lulc_classes if cover.code]


def right(predicted: Array, truth: Array) -> NDArray[np.float64]:
    """Share of the pixels of each tile whose class is right."""
    return np.asarray((predicted == truth).mean(axis=(1, 2)))


def land_cover(tiles: int = 128, model: str = "demo") -> Table:
    """Accuracy of LULC from several inputs, greedy, drawn, and half hidden, beside the commonest class."""
    data = held_out(tiles)
    truth = data["LULC"]
    counts = np.stack([np.bincount(tile.ravel(), minlength=len(lulc_classes)) for tile in truth])
    made = {joined(inputs): predict(data, inputs, "LULC", model) for inputs in INPUTS}
    made["S2L2A, drawn (temperature 1, top_p 0.8)"] = predict(
        data, ("S2L2A",), "LULC", model, temperature=1.0, top_p=0.8
    )
    made["S2L2A, half of the patches hidden"] = half_hidden(data, model)
    rows = [
        Row(label, (NOT_IN_MODEL if codes is None else float(right(codes, truth).mean()),))
        for label, codes in made.items()
    ]
    rows += [
        Row("baseline: commonest class of all tiles", (counts.sum(axis=0).max() / counts.sum(),)),
        Row("baseline: true commonest class of each tile", (counts.max(axis=1).sum() / counts.sum(),)),
    ]
    note = f"Share of the pixels with the right class, {tiles} tiles."
    return Table("Land cover", ("LULC from", "accuracy"), tuple(rows), note)


def half_hidden(data: Tiles, model: str) -> Array | None:
    """LULC where half of the patches of S2L2A are hidden from the encoder.

    A mask would leave hidden places without data in the result, so that the layer below is called.
    """
    if not has_tokenizer(model, "LULC"):
        return None
    recipe = find(model, {"LULC"})
    count, side = len(data["S2L2A"]), TILE // PATCH
    visible = np.random.default_rng(0).permuted(
        np.arange(count * side**2).reshape(count, -1) % 2 == 0, axis=1
    )
    codes = []
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        batch = Batch(
            {"S2L2A": standardized(data, "S2L2A", part)},
            {"S2L2A": visible[part].reshape(-1, side, side)},
            places(count)[part],
        )
        made = chain.generate(recipe, batch, ("LULC",), Sampling(), Execution())
        codes.append(made["LULC"].argmax(axis=1))
    return np.concatenate(codes)


def classes(tiles: int = 128, model: str = "demo") -> Table:
    """Recall and intersection over union of each class, from S2L2A."""
    data = held_out(tiles)
    truth, made = data["LULC"], predict(data, ("S2L2A",), "LULC", model)
    rows = []
    for cover in CLASSES:
        here = truth == cover.code
        if made is None or not here.any():
            scores: tuple[Value, ...] = (None, None)
        else:
            there = made == cover.code
            both = float((here & there).sum())
            scores = (both / here.sum(), both / (here | there).sum())
        rows.append(Row(cover.name.replace("_", " "), (float(here.mean()), *scores)))
    note = "Share of all pixels; share of the class that is found; the same over the union of truth and map."
    return Table("Classes, from S2L2A", ("class", "share", "recall", "IoU"), tuple(rows), note)

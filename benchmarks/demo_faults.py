"""What faults of the input cost that no metadata shows: bands swapped, wrong scales."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from demo_cover import right
from demo_tables import NOT_IN_MODEL, Row, Table
from demo_tiles import Array, Tiles, held_out, predict
from numpy.typing import NDArray

import terramind_xr
from terramind_xr.facts import modalities


@dataclass(frozen=True)
class Fault:
    """Accuracy of LULC with a fault in the input, and what the fault costs, tile by tile.

    Parameters
    ----------
    label
        The fault.
    accuracy
        With the fault.
    loss, error
        Mean of the accuracy without the fault less that with it, and the standard error of this mean over
        the tiles.
    """

    label: str
    accuracy: float
    loss: float
    error: float

    @classmethod
    def of(cls, label: str, whole: NDArray[np.float64], faulty: NDArray[np.float64]) -> Fault:
        """From the accuracies of the same tiles without and with the fault."""
        loss = whole - faulty
        error = loss.std(ddof=1) / np.sqrt(len(loss))
        return cls(label, float(faulty.mean()), float(loss.mean()), float(error))

    @property
    def row(self) -> Row:
        """Line of a table."""
        return Row(self.label, (self.accuracy, self.loss, self.error))


def fault(
    label: str, data: Tiles, inputs: tuple[str, ...], changed: Array, model: str = "demo"
) -> Fault | None:
    """What it costs that the first input holds the changed numbers under the right names."""
    whole = predict(data, inputs, "LULC", model)
    faulty = predict({**data, inputs[0]: changed}, inputs, "LULC", model)
    if whole is None or faulty is None:
        return None
    return Fault.of(label, right(whole, data["LULC"]), right(faulty, data["LULC"]))


def swapped(values: Array, one: int, other: int) -> Array:
    """Two bands in each other's place (tile, band, y, x)."""
    order = list(range(values.shape[1]))
    order[one], order[other] = other, one
    return values[:, order]


@functools.lru_cache(maxsize=2)
def swap_faults(tiles: int = 48, model: str = "demo") -> tuple[Fault, ...]:
    """Each pair of the bands of S2L2A in each other's place, the dearest first."""
    data = held_out(tiles)
    inputs, names = ("S2L2A",), modalities["S2L2A"].band_names
    whole = predict(data, inputs, "LULC", model)
    if whole is None:
        return ()
    truth, found = data["LULC"], []
    for one, other in itertools.combinations(range(len(names)), 2):
        changed = {**data, "S2L2A": swapped(data["S2L2A"], one, other)}
        faulty = predict(changed, inputs, "LULC", model)
        assert faulty is not None, "the same call as for the whole"
        label = f"{names[one]} {names[other]}"
        found.append(Fault.of(label, right(whole, truth), right(faulty, truth)))
    return tuple(sorted(found, key=lambda each: each.accuracy))


def swap_matrix(tiles: int = 48, model: str = "demo") -> Table:
    """Accuracy by the two bands that are swapped."""
    by_pair = {each.label: each.accuracy for each in swap_faults(tiles, model)}
    names = modalities["S2L2A"].band_names
    rows = tuple(
        Row(other, tuple(by_pair.get(f"{one} {other}") for one in names[:-1])) for other in names[1:]
    )
    note = f"Accuracy of LULC from S2L2A with the bands of row and column swapped, {tiles} tiles."
    return Table("Swapped bands", ("band", *names[:-1]), rows, note)


def swap_losses(tiles: int = 48, model: str = "demo", shown: int = 12) -> Table:
    """The swaps that cost least, with the certainty that they cost anything."""
    found = swap_faults(tiles, model)
    columns = ("swap", "accuracy", "loss", "standard error")
    if not found:
        return Table("The mildest swaps", columns, (), NOT_IN_MODEL)
    lower = sum(each.loss > 0 for each in found)
    sure = sum(each.loss > 2 * each.error for each in found)
    mildest = found[-1]
    whole = mildest.accuracy + mildest.loss
    note = (
        f"{lower} of {len(found)} swaps lower the accuracy ({whole:.3f} unswapped), {sure} by more than two "
        f"standard errors; the least one, {mildest.label}, by {mildest.loss:.3f} ± {mildest.error:.3f}. "
        f"Standard errors are those of the paired differences over {tiles} tiles."
    )
    rows = tuple(each.row for each in reversed(found[-shown:]))
    return Table("The mildest swaps", columns, rows, note)


def other_faults(tiles: int = 48, model: str = "demo") -> Table:
    """Polarisations swapped, the offset left in, a wrong scale, the bands in reverse."""
    data = held_out(tiles)
    s2, s1 = data["S2L2A"], data["S1RTC"]
    cases = (
        ("S1RTC + DEM: VV and VH swapped", ("S1RTC", "DEM"), swapped(s1, 0, 1)),
        ("S2L2A: offset of 1000 left in", ("S2L2A",), s2 + np.uint16(1000)),
        ("S2L2A: offset of 1000 taken off where there is none", ("S2L2A",), s2.astype(np.float32) - 1000),
        ("S2L2A: reflectance from 0 to 1 as if DN", ("S2L2A",), s2 / np.float32(10_000)),
        ("S2L2A: bands in reverse order", ("S2L2A",), s2[:, ::-1]),
    )
    rows = []
    for label, inputs, changed in cases:
        with terramind_xr.set_options(check_values=False):  # which would refuse some of them
            found = fault(label, data, inputs, changed, model)
        rows.append(Row(label, (NOT_IN_MODEL, None, None)) if found is None else found.row)
    note = (
        f"Accuracy of LULC with the fault, what it costs, and the paired standard error over {tiles} tiles."
    )
    return Table("Other faults", ("fault", "accuracy", "loss", "standard error"), tuple(rows), note)

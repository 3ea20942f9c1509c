"""Models of several dates: how terratorch's wrapper around a backbone makes one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from terramind_xr.errors import OptionError
from terramind_xr.model.trained_inputs import backbone_option
from terramind_xr.model.training import Training

_POOLINGS = ("mean", "max", "diff", "concat")


@dataclass(frozen=True)
class Dates:
    """Dates that a model reads at once.

    Parameters
    ----------
    pooling
        How their features become one: ``"mean"``, ``"max"``, ``"diff"`` (the first minus the second) or
        ``"concat"``.
    count
        How many; None for any number.
    """

    pooling: str
    count: int | None

    @property
    def in_order(self) -> bool:
        """Whether the order of the dates counts."""
        return self.pooling in ("diff", "concat")


def dates_of(training: Training) -> Dates | None:
    """Dates that a model reads at once; None where it reads one.

    Raises
    ------
    OptionError
        If they become no one, or numbers of dates contradict each other.
    """
    if not backbone_option(training, "use_temporal"):
        return None
    pooling = backbone_option(training, "temporal_pooling") or "mean"
    if pooling not in _POOLINGS:
        raise OptionError(
            f"{training.source}: temporal_pooling is {pooling!r}, which makes no one map of several dates; "
            f"expected one of {', '.join(_POOLINGS)}."
        )
    subsets = backbone_option(training, "temporal_subset_lengths")
    counts: dict[str, Any] = {
        "temporal_n_timestamps": backbone_option(training, "temporal_n_timestamps"),
        "temporal_subset_lengths": sum(subsets) if subsets else None,
        "temporal_pooling='diff'": 2 if pooling == "diff" and not subsets else None,
    }
    said = {name: count for name, count in counts.items() if count is not None}
    if len(set(said.values())) > 1:
        raise OptionError(
            f"{training.source}: its model is said to read different numbers of dates: "
            f"{', '.join(f'{count} by {name}' for name, count in said.items())}."
        )
    if not said and pooling == "concat":
        raise OptionError(
            f"{training.source}: temporal_pooling='concat' needs the number of dates, temporal_n_timestamps."
        )
    return Dates(pooling, next(iter(said.values()), None))

"""How tokens are taken from logits: the likeliest ones, or drawn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.facts import PATCH
from terramind_xr.noise import Stream

if TYPE_CHECKING:
    import torch

Decoding = Literal["argmax", "expected"]
"""What is decoded: the likeliest or drawn tokens, or the code that the logits let expect."""

Solver = Literal["ddim", "dpm++", "unipc"]
"""How the steps of a diffusion decoder go: one by one, or with what the steps before have shown."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and decoded.

    Raises OptionError for values that cannot be used.

    Parameters
    ----------
    seed
        Of all random numbers.
    temperature
        0 takes the most probable token; above, tokens are drawn, the flatter the higher.
    top_p, top_k
        Draw only from the most probable tokens: the smallest set that holds `top_p` of the
        probability, the `top_k` first. 0 switches off.
    diffusion_steps
        Steps of the diffusion decoders.
    solver
        How they go: upstream's ``"ddim"``, or one of the second order.
    clamp
        ``"upstream"`` keeps each step's estimate within one standard deviation, as terratorch does; None
        does not.
    decoding
        ``"argmax"`` decodes the tokens; ``"expected"`` the mean of all codes, weighted by the probability of
        their tokens, with nothing drawn.
    """

    seed: int = 0
    temperature: float = 0.0
    top_p: float = 0.8
    top_k: int = 0
    diffusion_steps: int = 10
    solver: Solver = "ddim"
    clamp: Literal["upstream"] | None = "upstream"
    decoding: Decoding = "argmax"

    def __post_init__(self) -> None:
        rules = {
            "seed": (is_whole(self.seed) and -(2**63) <= self.seed < 2**63, "a whole number below 2**63"),
            # By an infinite one, what is no candidate would be no number, and be drawn.
            "temperature": (
                _is_number(self.temperature) and 0 <= self.temperature < float("inf"),
                "None or a finite number >= 0",
            ),
            "top_p": (_is_number(self.top_p) and 0 <= self.top_p <= 1, "a number from 0 to 1"),
            "top_k": (is_whole(self.top_k) and self.top_k >= 0, "a whole number >= 0"),
            "diffusion_steps": (
                is_whole(self.diffusion_steps) and 1 <= self.diffusion_steps <= 1000,
                "a whole number from 1 to 1000",
            ),
            "solver": (
                isinstance(self.solver, str) and self.solver in get_args(Solver),
                "'ddim', 'dpm++' or 'unipc'",
            ),
            "clamp": (self.clamp in ("upstream", None), "'upstream' or None"),
            "decoding": (
                isinstance(self.decoding, str) and self.decoding in get_args(Decoding),
                "'argmax' or 'expected'",
            ),
        }
        for name, (right, expected) in rules.items():
            if not right:
                raise OptionError(f"{name}={getattr(self, name)!r} cannot be used: expected {expected}.")
        if self.decoding == "expected" and self.temperature > 0:
            raise OptionError(
                f"temperature={self.temperature!r} cannot be used with decoding='expected', which averages "
                "over all tokens and draws none. Leave out temperature, or decoding to draw."
            )

    def told(self) -> dict[str, Any]:
        """Flat numbers and texts from which it can be made again."""
        return {
            "decoding": self.decoding,
            **self.told_tokens(),
            "diffusion_steps": self.diffusion_steps,
            "solver": self.solver,
            "clamp": self.clamp or "none",
        }

    def told_tokens(self) -> dict[str, Any]:
        """The same of the tokens alone, where nothing is decoded."""
        told = {"seed": int(self.seed), "temperature": float(self.temperature)}
        return told | ({"top_p": float(self.top_p), "top_k": self.top_k} if self.temperature > 0 else {})


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, numpy's included; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_whole(value) or isinstance(value, float | np.floating)


def sample_tokens(
    logits: torch.Tensor, places: NDArray[np.int64], stream: Stream, sampling: Sampling
) -> torch.Tensor:
    """Tokens (tile, row, column) from logits (tile, row, column, token): the likeliest, or by Gumbel-max.

    The noise of a token at a place does not depend on the tile, so that overlapping tiles tend to agree.
    Tiles whose places are no multiples of the patch have patches of their own, which draw from streams of
    their own: their noise is that of no patch that they overlap.
    """
    import torch

    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    tokens = torch.empty(logits.shape[:-1], dtype=torch.int64, device=logits.device)
    shifts = places % PATCH
    for dy, dx in np.unique(shifts, axis=0):
        tiles = np.flatnonzero((shifts == (dy, dx)).all(axis=1))
        own = dataclasses.replace(stream, name=f"{stream.name}/{dy}-{dx}") if dy or dx else stream
        tokens[tiles] = _draw(logits[tiles], places[tiles], own, sampling)
    return tokens


def _draw(
    logits: torch.Tensor, places: NDArray[np.int64], stream: Stream, sampling: Sampling
) -> torch.Tensor:
    """Tokens of the tiles of one pass over the scene, by Gumbel-max."""
    import torch

    candidates, order = nucleus(logits.flatten(0, -2), sampling.top_p, sampling.top_k)
    rows, cols = np.indices(logits.shape[1:3]).reshape(2, -1)
    y = (places[:, :1] // PATCH + rows).reshape(-1, 1)
    x = (places[:, 1:] // PATCH + cols).reshape(-1, 1)
    count = candidates.isfinite().sum(dim=-1)
    on_cpu = logits.device.type == "cpu"
    # On a processor a row of patches at a time: it fits a cache, and no noise is made for more candidates
    # than its own patches have. A GPU is fastest with all at once.
    step = logits.shape[2] if on_cpu else len(y)
    best = torch.empty_like(order[:, :1])
    for first in range(0, len(y), step):
        some = slice(first, first + step)
        items = order[some, : max(int(count[some].max()), 1)]
        noise = torch.as_tensor(stream.gumbel(y[some], x[some], items.numpy() if on_cpu else items))
        scores = candidates[some, : items.shape[1]].double() / sampling.temperature + noise
        best[some] = scores.argmax(dim=-1, keepdim=True)
    return order.gather(-1, best).reshape(logits.shape[:-1])


def nucleus(logits: torch.Tensor, top_p: float, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the candidates (place, rank), descending, -inf beyond the nucleus; and their token ids.

    Same set as terratorch's ``top_k_top_p_filtering``: `top_k` first, then the tokens up to and including
    the one with which the probability exceeds `top_p`. Both act before the temperature.
    """
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k:
        # Ties with the last one stay in, as upstream.
        ranked = ranked.masked_fill(ranked < ranked[:, min(top_k, ranked.shape[-1]) - 1, None], -float("inf"))
    if top_p:
        before = ranked.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)
        before[:, 0] = 0
        ranked = ranked.masked_fill(before > top_p, -float("inf"))
    widest = int(ranked.isfinite().sum(dim=-1).max())
    return ranked[:, :widest], order[:, :widest]

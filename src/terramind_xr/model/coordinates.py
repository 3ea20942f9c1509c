"""Coordinates of tiles as text: to tokens, drawn one after the other, and back.

Not verified: the vocabulary is a file on the hub, and only the mechanics are tested. The text and its
0.25° grid are those of terratorch 1.2.11, ``tokenizer/text/text_tokenizer.py``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import WeightsError
from terramind_xr.facts import modalities
from terramind_xr.model import backbone, weights
from terramind_xr.model.batch import Known
from terramind_xr.model.files import WeightsFile
from terramind_xr.model.recipe import Recipe
from terramind_xr.model.sampling import Sampling, sample_tokens
from terramind_xr.noise import Stream

if TYPE_CHECKING:
    import torch

LENGTH = 4
"""Tokens of a text at most, as the released embeddings have it: latitude, longitude, end, and one more."""
_PAD, _EOS, _START, _STOP = 0, 3, 5, 6
"""Tokens that terratorch knows by number: [PAD], [EOS], and around what is generated [S_1] and [S_2]."""
_NAMES = {"[PAD]": _PAD, "[EOS]": _EOS, "[S_1]": _START, "[S_2]": _STOP}
_TEXT = re.compile(r"lat=(-?\d+(?:\.\d+)?) lon=(-?\d+(?:\.\d+)?)")
_KEY = modalities["Coordinates"].token_key or ""


@dataclass(frozen=True)
class Text:
    """Tokens (tile, place in the text) of a batch, padded, and where they are no part of the text."""

    tokens: NDArray[np.int64]
    hidden: NDArray[np.bool_]

    @classmethod
    def of(cls, texts: list[list[int]]) -> Text:
        """Texts of different lengths as one array; one column at least."""
        width = max(1, *map(len, texts))
        padded = [[*text, *[_PAD] * (width - len(text))] for text in texts]
        hidden = [[place >= len(text) for place in range(width)] for text in texts]
        return cls(np.array(padded, np.int64), np.array(hidden))

    def known(self, device: str) -> Known:
        """As what conditions."""
        import torch

        return Known(torch.from_numpy(self.tokens).to(device), torch.from_numpy(self.hidden).to(device))


def written(lonlat: NDArray[np.float64]) -> list[str]:
    """Text of each longitude and latitude, on the grid of 0.25° as terratorch rounds (halves to even).

    Examples
    --------
    >>> written(np.array([[11.6, 48.1], [-0.1, -33.875]]))
    ['lat=48.00 lon=11.50 [EOS]', 'lat=-34.00 lon=-0.00 [EOS]']
    """
    snapped = (lonlat.astype(np.float32) * 4).round() / 4
    return [f"lat={lat:.2f} lon={lon:.2f} [EOS]" for lon, lat in snapped]


def read(text: str) -> tuple[float, float]:
    """Longitude and latitude of a text; NaN where it holds none, as terratorch has it.

    Examples
    --------
    >>> read("lat=48.00 lon=11.50"), read("lon=11.50 [EOS]")
    ((11.5, 48.0), (nan, nan))
    """
    match = _TEXT.fullmatch(text)
    return (float(match[2]), float(match[1])) if match else (np.nan, np.nan)


def encode_coordinates(recipe: Recipe, lonlat: NDArray[np.float64], device: str) -> Known:
    """What conditions, from the longitude and latitude of tiles (tile, 2).

    Raises
    ------
    WeightsError
        If the vocabulary is damaged, or lacks one of the texts.
    """
    vocabulary = _vocabulary(_file(recipe))
    return Text.of([_tokens(vocabulary, text) for text in written(lonlat)]).known(device)


def decode_coordinates(recipe: Recipe, drawn: Text) -> NDArray[np.float32]:
    """Longitude and latitude (tile, 2) of drawn texts; NaN where a text says none."""
    vocabulary = _vocabulary(_file(recipe))
    shown = [tokens[~hidden][:2].tolist() for tokens, hidden in zip(drawn.tokens, drawn.hidden, strict=True)]
    pairs = [read(vocabulary.decode(tokens, skip_special_tokens=False)) for tokens in shown]
    return np.array(pairs, np.float32).reshape(-1, 2)


def draw_coordinates(
    recipe: Recipe, known: Mapping[str, Known], places: NDArray[np.int64], sampling: Sampling, device: str
) -> Text:
    """Texts of tiles, token after token, each until its own end: no tile waits for the others of its batch.

    Parameters
    ----------
    recipe
        Which weights.
    known
        What conditions, by key of the encoder's embedding.
    places
        First row and column of each tile from the scene's origin: (tile, 2).
    sampling
        How tokens are drawn. Each step is a stream of its own; a text has no expected code.
    device
        Of the session.
    """
    import torch

    sentinels = {token for name, token in _vocabulary(_file(recipe)).get_vocab().items() if name[:3] == "[S_"}
    sampler = weights.sampler(recipe, tuple(known), (_KEY,), device)
    context, hidden, steps = _start(sampler, known, len(places), device)
    tokens = torch.full((len(places), 1), _START, dtype=torch.int64, device=device)
    for step in range(steps.shape[1]):
        logits = _next_logits(sampler, tokens, steps, context, hidden)
        stream = Stream(sampling.seed, "Coordinates/tokens", step=step)
        drawn = sample_tokens(logits[:, None, None], places, stream, sampling)
        tokens = torch.cat([tokens, drawn[:, :, 0]], dim=1)
        if (tokens == _STOP).any(dim=1).all():
            break
    return Text.of([_kept(row, sentinels) for row in tokens.cpu().tolist()])


def _start(
    sampler: Any, known: Mapping[str, Known], tiles: int, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the decoder reads: the encoder's context, what is hidden of it, and an embedding for each step."""
    import torch

    model = sampler.model
    # Made anew: the embeddings write into the dicts they are given.
    conditions = {key: {"tensor": each.tensor, "input_mask": each.hidden} for key, each in known.items()}
    context, hidden = backbone.context(sampler, conditions)
    # As upstream has an empty text: [S_1] is given, [S_1] … [S_2] is to be found.
    empty = torch.full((tiles, model.decoder_embeddings[_KEY].max_length), _PAD, device=device)
    empty[:, :2], empty[:, -1] = _START, _STOP
    given = torch.zeros_like(empty, dtype=torch.bool)
    given[:, 0] = True
    steps = model.decoder_embeddings[_KEY].forward_embed({"tensor": empty, "target_mask": given})["emb"]
    return context, hidden, steps[:, 1:]


def _next_logits(
    sampler: Any, tokens: torch.Tensor, steps: torch.Tensor, context: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Logits (tile, token) of what follows on tokens (tile, place in the text)."""
    import torch

    embedding, length = sampler.model.decoder_embeddings[_KEY], tokens.shape[1]
    later = torch.ones((length, length), dtype=torch.bool, device=tokens.device).triu(1)
    given = embedding.token_emb(tokens) + steps[:, :length]
    decoded = sampler.model.forward_decoder(given, context, hidden, later.expand(len(tokens), -1, -1))
    return backbone.logits(embedding, decoded[:, -1])


def _kept(tokens: list[int], sentinels: set[int]) -> list[int]:
    """Tokens that belong to [S_1]: up to [S_2], and not behind other sentinels, as upstream."""
    kept, current = [], _START
    for token in tokens:
        if token in sentinels:
            current = token
            if token == _STOP:
                break
        elif current == _START:
            kept.append(token)
    return kept


def _tokens(vocabulary: Any, text: str) -> list[int]:
    """Tokens of a text up to its end, all of them known."""
    unknown = vocabulary.token_to_id("[UNK]")
    # Rounding leaves zeros with a sign; a vocabulary may have them without only.
    for each in (text, text.replace("=-0.00", "=0.00")):
        tokens: list[int] = vocabulary.encode(each).ids
        if unknown not in tokens and _EOS in tokens and tokens.index(_EOS) < LENGTH:
            return tokens[: tokens.index(_EOS) + 1]
    raise WeightsError(
        f"The vocabulary of Coordinates makes the tokens {tokens} of {text!r}; expected at most {LENGTH} "
        f"known ones that end with [EOS] ({_EOS}). It is another vocabulary than the models were trained "
        "with: fetch it again, or leave Coordinates out of inputs."
    )


def _file(recipe: Recipe) -> WeightsFile:
    return dict(recipe.tokenizers)["Coordinates"]


@functools.lru_cache(maxsize=2)
def _vocabulary(file: WeightsFile) -> Any:
    """Vocabulary of a file, read once in this process, with the special tokens that terratorch counts on."""
    from tokenizers import Tokenizer

    path = file.verified_path()
    try:
        vocabulary = Tokenizer.from_file(str(path))
    except Exception as error:  # what the package raises is no class of its own
        raise WeightsError(
            f"{path.name} is no vocabulary ({str(error).splitlines()[0]}). Fetch it again: config.json of "
            "ibm-esa-geospatial/TerraMind-1.0-Tokenizer-Coords."
        ) from error
    found = {name: vocabulary.token_to_id(name) for name in _NAMES}
    if found != _NAMES:
        raise WeightsError(
            f"{path.name} has the special tokens {found}, expected {_NAMES}. Fetch it again: config.json of "
            "ibm-esa-geospatial/TerraMind-1.0-Tokenizer-Coords."
        )
    return vocabulary

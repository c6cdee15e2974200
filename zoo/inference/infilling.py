"""Predicting masked tokens of a text with a non-causal model. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.data.tokenizer import Ids, encode_prompt
from zoo.errors import UsageError
from zoo.inference.engine import Engine, NotFiniteError, Scorer
from zoo.inference.runtime import Source, open_source
from zoo.inference.sampling import softmax
from zoo.registry.registry import Registry

MASK = "_"


@dataclass(frozen=True)
class MaskedToken:
    """One masked token: the number of tokens before it, and the likeliest candidates with their
    probabilities, best first."""

    position: int
    candidates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Filled:
    """A text with each masked token replaced by its likeliest candidate."""

    text: str
    masked: tuple[MaskedToken, ...]


def fill(
    source: Source | str | Path,
    text: str,
    mask: str = MASK,
    top: int = 5,
    provider: str = "auto",
    registry: Registry | None = None,
) -> Filled:
    """Predicts one token for each `mask` character of `text`. All are predicted at once, each given
    the unmasked text on both sides.

    Raises UsageError for a causal model, or a text without a masked token.
    """
    if not isinstance(source, Source):
        source = open_source(source, provider, registry)
    if isinstance(source.engine, Engine):
        raise UsageError(
            "this model is causal and cannot fill masked tokens; continue the text with `zoo "
            "generate`, or train a non-causal cell, such as bidirectional."
        )
    assert isinstance(source.engine, Scorer)
    if source.engine.mask_token is None:
        raise UsageError(
            "this model was trained without a mask token and cannot fill masked tokens."
        )
    if top < 1:
        raise UsageError("top must be at least 1.")
    if len(mask) != 1 or mask not in text:
        raise UsageError(
            f"the text has no masked token; write {mask[:1] or MASK!r} for each token to fill in."
        )
    pieces = text.split(mask)
    if known := "".join(pieces):
        encode_prompt(source.tokenizer, known)  # warns, once, of what the model never saw
    ids: list[int] = []
    positions = []
    for index, piece in enumerate(pieces):
        if index:
            positions.append(len(ids))
            ids.append(source.engine.mask_token)
        ids.extend(source.tokenizer.encode(piece).tolist())
    with np.errstate(invalid="ignore"):  # infinite logits give NaN
        probabilities = fill_ids(source.engine, np.array(ids))
    if not np.isfinite(probabilities).all():
        raise NotFiniteError
    masked = []
    for position in positions:
        best = np.argsort(-probabilities[position], kind="stable")[:top]
        candidates = [
            (source.tokenizer.decode([t]), float(probabilities[position, t])) for t in best
        ]
        masked.append(MaskedToken(position, tuple(candidates)))
    filled = [piece + found.candidates[0][0] for piece, found in zip(pieces, masked, strict=False)]
    return Filled("".join([*filled, pieces[-1]]), tuple(masked))


def fill_ids(engine: Scorer, ids: Ids) -> npt.NDArray[np.float64]:
    """Probabilities [T, V] of the token at each position, from the whole of `ids`; the token after
    the vocabulary is the mask."""
    logits, _ = engine.logits(ids[:, None], engine.init_state(1))
    return softmax(logits[:, 0])

"""Filling gaps in a text, with a model that sees both sides of them. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.data.tokenizers import Ids, encode_prompt
from zoo.errors import UsageError
from zoo.inference.engine import Engine, Scorer
from zoo.inference.runtime import Source, open_source
from zoo.inference.sampling import softmax
from zoo.registry.registry import Registry

GAP = "_"


@dataclass(frozen=True)
class Gap:
    """One gap: the number of tokens before it, and the likeliest tokens with their probabilities,
    best first."""

    position: int
    candidates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Filled:
    """A text with every gap filled by its likeliest token."""

    text: str
    gaps: tuple[Gap, ...]


def fill(
    source: Source | str | Path,
    text: str,
    gap: str = GAP,
    top: int = 5,
    provider: str = "auto",
    registry: Registry | None = None,
) -> Filled:
    """Fills each `gap` character of `text` with one token. All gaps are filled at once, each by its
    own probabilities given the text around them.

    Raises UsageError for a model of a causal cell (which sees only the past), or a text without a
    gap.
    """
    if not isinstance(source, Source):
        source = open_source(source, provider, registry)
    if isinstance(source.engine, Engine):
        raise UsageError(
            "this model sees only the past and cannot fill gaps; continue the text with `zoo "
            "generate`, or train a cell that sees both sides."
        )
    assert isinstance(source.engine, Scorer)
    if source.engine.mask_token is None:
        raise UsageError("this model was trained without gaps and cannot fill them.")
    if top < 1:
        raise UsageError("top must be at least 1.")
    if len(gap) != 1 or gap not in text:
        raise UsageError(
            f"the text has no gap; write {gap[:1] or GAP!r} for each token to fill in."
        )
    pieces = text.split(gap)
    if known := "".join(pieces):
        encode_prompt(source.tokenizer, known)  # warns, once, of what the model never saw
    ids: list[int] = []
    positions = []
    for index, piece in enumerate(pieces):
        if index:
            positions.append(len(ids))
            ids.append(source.engine.mask_token)
        ids.extend(source.tokenizer.encode(piece).tolist())
    probabilities = fill_ids(source.engine, np.array(ids))
    gaps = []
    for position in positions:
        best = np.argsort(-probabilities[position], kind="stable")[:top]
        candidates = [
            (source.tokenizer.decode([t]), float(probabilities[position, t])) for t in best
        ]
        gaps.append(Gap(position, tuple(candidates)))
    filled = [piece + found.candidates[0][0] for piece, found in zip(pieces, gaps, strict=False)]
    return Filled("".join([*filled, pieces[-1]]), tuple(gaps))


def fill_ids(engine: Scorer, ids: Ids) -> npt.NDArray[np.float64]:
    """Probabilities [T, V] of the token at each place, from the whole of `ids`; the token after the
    vocabulary is a gap."""
    logits, _ = engine.logits(ids[:, None], engine.init_state(1))
    return softmax(logits[:, 0])

"""How well a model predicts a text, from whatever computes it. Needs no torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.config import FrozenModel
from zoo.data.corpora import load_corpus
from zoo.data.tokenizers import Ids
from zoo.errors import CorpusError, UsageError
from zoo.inference.engine import Engine, HasState, Logits, NotFiniteError, Scorer
from zoo.inference.runtime import Source, open_source
from zoo.inference.sampling import log_softmax
from zoo.registry.registry import Registry

PIECE = (
    256  # tokens that are scored at once: their logits fit into a core's cache with 1,000 tokens
)
MASKED_SHARE = 0.15
MASKED_WINDOW = 128


class Score(FrozenModel):
    """How surprising a text is to a model, on average, in natural units and bits."""

    tokens: int
    nats_per_token: float
    bits_per_token: float
    nats_per_char: float
    bits_per_char: float
    perplexity: float


def score(
    source: Source | str | Path,
    corpus: str,
    *,
    last: float = 1.0,
    provider: str = "auto",
    registry: Registry | None = None,
) -> Score:
    """How well a model predicts a corpus (a registered name, or the path of a text).

    The text is one stream, from the initial state on: every token but the first is predicted from
    all before it. `last` scores only that share of the text, at its end. A non-causal model
    predicts 15 % of the tokens, masked, in windows of 128. Raises UsageError for a graph that
    gives no probabilities, CorpusError for a text that is too short.
    """
    if not isinstance(source, Source):
        source = open_source(source, provider, registry, scores=True)
    if not 0 < last <= 1:
        raise UsageError(f"last must be above 0 and at most 1 (got {last}).")
    if not isinstance(source.engine, Scorer):
        raise UsageError(
            "a generate graph gives tokens and no probabilities; score the step graph, the "
            "sequence graph, or the run."
        )
    text = source.tokenizer.normalize(load_corpus(corpus, registry).text)
    ids = source.tokenizer.encode(text)
    ids = ids[len(ids) - round(len(ids) * last) :]
    if len(ids) < 2:
        raise CorpusError("the text has fewer than two tokens: there is nothing to predict.")
    if isinstance(source.engine, Engine):
        targets, nats = ids[1:], text_nats(source.engine, ids[:, None])[:, 0]
    else:
        if source.engine.mask_token is None:
            raise UsageError(
                "this model was trained without a mask token: it has nothing to predict."
            )
        targets, nats = masked_nats(source.engine, ids)
    if not np.isfinite(nats).all():
        raise NotFiniteError
    chars = max(1, len(source.tokenizer.decode(targets.tolist())))
    mean, by_char = float(nats.mean()), float(nats.sum()) / chars
    return Score(
        tokens=len(nats),
        nats_per_token=mean,
        bits_per_token=mean / math.log(2),
        nats_per_char=by_char,
        bits_per_char=by_char / math.log(2),
        perplexity=math.exp(min(mean, 700.0)),
    )


def text_nats(engine: Scorer, tokens: Ids) -> npt.NDArray[np.float64]:
    """-ln p of each token [T-1, B] of rows [T, B] but their first, given those before it."""
    state = engine.init_state(tokens.shape[1])
    found = []
    for start in range(0, len(tokens) - 1, PIECE):
        piece = tokens[start : start + PIECE + 1]
        logits, state = engine.logits(piece[:-1], state)
        found.append(_nats(logits, piece[1:]))
    return np.concatenate(found)


def masked_nats(engine: HasState, ids: Ids) -> tuple[Ids, npt.NDArray[np.float64]]:
    """The masked tokens of `ids`, and -ln p of each given the others. The same are masked
    every time. A model without a mask token is shown the tokens themselves."""
    assert isinstance(engine, Scorer)
    rng = np.random.default_rng(0)
    targets, found = [], []
    for start in range(0, len(ids), MASKED_WINDOW):
        window = ids[start : start + MASKED_WINDOW]
        draws = rng.random(len(window))
        masked = (draws < MASKED_SHARE) | (draws == draws.min())
        shown = window if engine.mask_token is None else window.copy()
        if engine.mask_token is not None:
            shown[masked] = engine.mask_token
        logits, _ = engine.logits(shown[:, None], engine.init_state(1))
        targets.append(window[masked])
        found.append(_nats(logits[:, 0][masked], window[masked]))
    return np.concatenate(targets), np.concatenate(found)


def _nats(logits: Logits, targets: Ids) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinite logits give NaN
        chosen = np.take_along_axis(log_softmax(logits), targets[..., None], -1)
    nats: npt.NDArray[np.float64] = -chosen[..., 0]
    return nats

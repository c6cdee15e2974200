"""How well a model predicts a text, from whatever computes it. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.data.corpora import load_corpus
from zoo.data.dataset import encode_corpus
from zoo.data.sources import Reading
from zoo.data.token_store import Tokens, forget_pages
from zoo.data.tokenizer import Ids
from zoo.errors import CorpusError, UsageError
from zoo.inference.engine import Engine, HasState, Logits, NotFiniteError, Scorer
from zoo.inference.runtime import Source, open_source
from zoo.inference.sampling import log_softmax
from zoo.registry.registry import Registry, load_registry
from zoo.validation import FrozenModel

PIECE = 256  # tokens scored at once: their logits fit into a core's cache with 1,000 tokens
COUNTED = 2**24  # tokens looked through at once
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

    @classmethod
    def of(cls, nats: float, tokens: int, characters: int) -> Score:
        """The score of a text whose tokens have -ln p of `nats` together."""
        mean, by_char = nats / max(1, tokens), nats / max(1, characters)
        return cls(
            tokens=tokens,
            nats_per_token=mean,
            bits_per_token=mean / math.log(2),
            nats_per_char=by_char,
            bits_per_char=by_char / math.log(2),
            perplexity=math.exp(min(mean, 700.0)),
        )


def score(
    source: Source | str | Path,
    corpus: str,
    *,
    last: float = 1.0,
    provider: str = "auto",
    registry: Registry | None = None,
    **reading: str,
) -> Score:
    """How well a model predicts a corpus (a registered name, or anything that `zoo train` reads;
    `reading` is its `glob`, `field` and `encoding`).

    The text is one stream, from the initial state on: every token but the first is predicted from
    all before it. `last` scores only that share of the text, at its end. A non-causal model
    predicts 15 % of the tokens, masked, in windows of 128. A model of documents begins
    each of them anew. Raises UsageError for a graph that
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
    registry = registry or load_registry()
    text = load_corpus(corpus, registry, Reading.checked(**reading))
    encoded = encode_corpus(text, source.tokenizer, registry)
    count = len(encoded.tokens)
    part = slice(count - round(count * last), count)
    ids = encoded.tokens[part]
    if len(ids) < 2:
        raise CorpusError("the text has fewer than two tokens: there is nothing to predict.")
    end = source.tokenizer.end_of_text
    if isinstance(source.engine, Engine):
        total = _total(text_nats(source.engine, ids[:, None], end))
        chars = encoded.characters_of(slice(part.start + 1, part.stop))
        chars -= len(source.tokenizer.decode(_first_tokens(ids, end)))
    else:
        if source.engine.mask_token is None:
            raise UsageError(
                "this model was trained without a mask token: it has nothing to predict."
            )
        total = _total(masked_nats(source.engine, ids))
        chars = len(source.tokenizer.decode(masked_tokens(ids)))
    if not math.isfinite(total.nats):
        raise NotFiniteError
    return Score.of(total.nats, total.tokens, chars)


class _Sum(NamedTuple):
    nats: float
    tokens: int


def _total(nats: Iterable[npt.NDArray[np.float64]]) -> _Sum:
    total, tokens = 0.0, 0
    for some in nats:
        total += float(some.sum())
        tokens += some.size
    return _Sum(total, tokens)


def _first_tokens(ids: Tokens, end: int | None) -> Iterator[int]:
    """The tokens that follow an end of a text, which are not predicted."""
    if end is None:
        return
    for start in range(0, len(ids) - 1, COUNTED):
        piece = ids[start : start + COUNTED + 1]
        yield from piece[1:][piece[:-1] == end].tolist()


def text_nats(
    engine: Scorer, tokens: Tokens, end: int | None = None
) -> Iterator[npt.NDArray[np.float64]]:
    """-ln p of each token of rows [T, B] but their first, given those before it: arrays [N, B] of
    which there are T-1 rows in all. If the only row has the token `end`, a new text begins after
    it, from the initial state, and its first token is not predicted either."""
    state = engine.init_state(tokens.shape[1])
    for start in range(0, len(tokens) - 1, PIECE):
        piece = tokens[start : start + PIECE + 1].astype(np.int64)
        ends = [] if end is None else np.flatnonzero(piece[:, 0] == end).tolist()
        begin = 0
        for stop in [*ends, len(piece) - 1]:
            if stop > begin:
                logits, state = engine.logits(piece[begin:stop], state)
                yield _nats(logits, piece[begin + 1 : stop + 1])
            if stop in ends:
                state, begin = engine.init_state(1), stop + 1
        forget_pages(tokens)


def masked_nats(engine: HasState, ids: Tokens) -> Iterator[npt.NDArray[np.float64]]:
    """-ln p of each masked token of `ids` given the others. A model without a mask token is shown
    the tokens themselves."""
    assert isinstance(engine, Scorer)
    for window, masked in _masked_windows(ids):
        shown = window if engine.mask_token is None else window.copy()
        if engine.mask_token is not None:
            shown[masked] = engine.mask_token
        logits, _ = engine.logits(shown[:, None], engine.init_state(1))
        yield _nats(logits[:, 0][masked], window[masked])


def masked_tokens(ids: Tokens) -> Iterator[int]:
    """The tokens that `masked_nats` masks."""
    for window, masked in _masked_windows(ids):
        yield from window[masked].tolist()


def _masked_windows(ids: Tokens) -> Iterator[tuple[Ids, npt.NDArray[np.bool_]]]:
    """The text in windows, and which tokens of each are masked: the same ones every time."""
    rng = np.random.default_rng(0)
    for start in range(0, len(ids), MASKED_WINDOW):
        window = ids[start : start + MASKED_WINDOW].astype(np.int64)
        draws = rng.random(len(window))
        yield window, (draws < MASKED_SHARE) | (draws == draws.min())


def _nats(logits: Logits, targets: Ids) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinite logits give NaN
        chosen = np.take_along_axis(log_softmax(logits), targets[..., None], -1)
    nats: npt.NDArray[np.float64] = -chosen[..., 0]
    return nats

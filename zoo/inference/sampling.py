"""Choosing the next token from logits: pure functions on arrays.

Everything is computed in float64 from float32 logits, so that two runtimes with equal logits choose
equal tokens. Exporters write the same operations into graphs, in the same order: for ONNX
`zoo_onnx.sampler`, and `zoo_ort.device_loop` on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.config import Sampling
from zoo.data.tokenizer import Ids

Floats: TypeAlias = npt.NDArray[np.floating]
Doubles: TypeAlias = npt.NDArray[np.float64]
Samplings: TypeAlias = Sampling | Sequence[Sampling]  # of all rows, or one for each


def choose(logits: Floats, uniform: Floats, sampling: Samplings) -> Ids:
    """Tokens [B] from logits [B, V] and numbers [B], uniform in [0, 1): one draw a row.

    A draw is the first token, in order of the vocabulary, at which the cumulative probability
    passes `uniform`. At temperature 0 `uniform` is not looked at, and the first of equally likely
    tokens is taken.
    """
    if not isinstance(sampling, Sampling):
        chosen = np.empty(len(logits), np.int64)
        for each, rows in rows_by_sampling(sampling, len(logits)).items():
            chosen[rows] = choose(logits[rows], uniform[rows], each)
        return chosen
    if sampling.greedy:
        best: Ids = logits.argmax(axis=-1)
        return best
    mass = np.cumsum(kept_weights(logits, sampling), axis=-1)
    draws = uniform[:, None].astype(np.float64)
    if filters(logits.shape[-1], sampling):
        draws = draws * mass[:, -1:]
    tokens: Ids = (mass > draws).argmax(axis=-1)
    return tokens


def rows_by_sampling(sampling: Samplings, count: int) -> dict[Sampling, list[int]]:
    """Which of `count` rows each of the samplings is for."""
    each = [sampling] * count if isinstance(sampling, Sampling) else sampling
    rows: dict[Sampling, list[int]] = {}
    for row, own in zip(range(count), each, strict=True):
        rows.setdefault(own, []).append(row)
    return rows


def softmax(logits: Floats) -> Doubles:
    """Probabilities [..., V] of logits [..., V], in float64."""
    shifted = _shifted(logits)
    weights: Doubles = np.exp(shifted)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def log_softmax(logits: Floats) -> Doubles:
    """The logarithms of `softmax`, finite where probabilities are too small for a float64."""
    shifted = _shifted(logits)
    total: Doubles = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted - total


def _shifted(logits: Floats) -> Doubles:
    """Logits whose largest is 0, so that their exponentials do not overflow."""
    exact = logits.astype(np.float64)
    shifted: Doubles = exact - exact.max(axis=-1, keepdims=True)
    return shifted


def kept_weights(logits: Floats, sampling: Sampling) -> Doubles:
    """Probabilities [B, V], with those of tokens that are not to be chosen zero (and the others as
    they were). `temperature` and `top_p` are taken as float32, as graphs take them.

    Tokens as likely as the last one kept are kept too, by top-k and by top-p.
    """
    scaled = logits.astype(np.float64) / np.float64(np.float32(sampling.temperature))
    weights = softmax(scaled)
    if not filters(logits.shape[-1], sampling):
        return weights
    falling = -np.sort(-weights, axis=-1)[:, : _top_k(logits, sampling)]
    weights = np.where(weights < falling[:, -1:], 0.0, weights)
    enough = np.cumsum(weights, axis=-1)[:, -1:] * np.float64(np.float32(sampling.top_p))
    before = np.cumsum(falling, axis=-1)[:, :-1]
    before = np.concatenate((np.zeros((len(falling), 1)), before), axis=-1)
    edge = np.where(before < enough, falling, 1.0).min(axis=-1, keepdims=True)
    return np.where(weights < edge, 0.0, weights)


def margin(logits: Floats, uniform: float, sampling: Sampling) -> float:
    """How far the choice from logits [V] is from another choice: the smallest of the draw's
    distance from a boundary between tokens, the cumulative probability's distance from `top_p`,
    and the gap between the k-th and the next logit (between the two best at temperature 0).

    A small margin means that rounding alone can change the token.
    """
    best = -np.sort(-logits.astype(np.float64))
    if sampling.greedy:
        return float(best[0] - best[1]) if len(best) > 1 else np.inf
    row = logits[None]
    mass = np.cumsum(kept_weights(row, sampling)[0])
    distances = [np.abs(mass / mass[-1] - uniform).min()]
    if 0 < sampling.top_k < len(best):
        distances.append(best[sampling.top_k - 1] - best[sampling.top_k])
    if sampling.top_p < 1:
        among = kept_weights(row, sampling.model_copy(update={"top_p": 1.0}))[0]
        cumulative = np.cumsum(-np.sort(-among)) / among.sum()
        distances.append(np.abs(cumulative - sampling.top_p).min())
    return float(min(distances))


def _top_k(logits: Floats, sampling: Sampling) -> int:
    """How many tokens top-k leaves."""
    vocab_size = logits.shape[-1]
    return sampling.top_k if 0 < sampling.top_k < vocab_size else vocab_size


def filters(vocab_size: int, sampling: Sampling) -> bool:
    """Whether top-k or top-p leaves some tokens out."""
    return 0 < sampling.top_k < vocab_size or bool(np.float32(sampling.top_p) < 1)

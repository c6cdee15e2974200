"""What the trainer says as it goes: figures, samples, the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Metrics:
    """How training stands: a line of `metrics.jsonl`.

    `epoch` and `step` (windows) count from 1; `tokens` and `seconds` from the start. Perplexities
    are exp of the mean cross-entropy in nats per token: over the windows since the line before,
    with the weights as they were then, and over the held-out part (None without one).
    `held_out_accuracy` is the share of tokens that get the highest logit. For a model that sees the
    future all of them are about the masked tokens. Bits per character compare tokenizers.
    """

    epoch: int
    step: int
    tokens: int
    seconds: float
    train_perplexity: float
    train_bits_per_token: float
    train_bits_per_char: float
    held_out_perplexity: float | None
    held_out_bits_per_token: float | None
    held_out_bits_per_char: float | None
    held_out_accuracy: float | None
    tokens_per_second: float
    learning_rate: float


@dataclass(frozen=True)
class Progress:
    """Several times a second: the share that is done, and figures since the last Report."""

    fraction: float
    epoch: int
    perplexity: float
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Report:
    """At the end of each epoch; of long epochs, every `report_every` windows instead."""

    metrics: Metrics


@dataclass(frozen=True)
class Sample:
    """What the model now says after the prompt; `text` begins with it. A model that sees the future
    shows the beginning of the text with every seventh token filled in."""

    epoch: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The end. `metrics` are those of the weights that were kept; `early` says that the budget was
    not spent, as the held-out figures had stopped getting better."""

    metrics: Metrics
    early: bool = False


@dataclass(frozen=True)
class Stopped:
    """It was asked to stop, and has, after a whole step."""


Event: TypeAlias = Progress | Report | Sample | Finished | Stopped

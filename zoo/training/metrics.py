"""The figures of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

# a training has one kind, on the held-out part where there is one
JUDGED = "held_out_bits_per_token", "held_out_error", "train_bits_per_token", "train_error"


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """How training stands: a line of `metrics.jsonl`.

    `epoch` and `step` (windows) count from 1; `tokens` and `seconds` from the start. Perplexities
    are exp of the mean cross-entropy in nats per token: over the windows since the line before,
    with the weights as they were then, and over the held-out part (None without one).
    `held_out_accuracy` is the share of tokens that get the highest logit. For a non-causal model
    all of them are of the masked tokens. Bits per character compare tokenizers.

    Of a task, a token is a position that is asked, the held-out part are batches of its own, and
    there are no bits per character. `held_out_accuracy` is the share of right sequences where the
    task asks for whole ones. A task that asks for numbers has errors, which are mean squares, in
    the place of perplexities, bits and accuracy.
    """

    epoch: int
    step: int
    tokens: int
    seconds: float
    train_perplexity: float | None = None
    train_bits_per_token: float | None = None
    train_bits_per_char: float | None = None
    held_out_perplexity: float | None = None
    held_out_bits_per_token: float | None = None
    held_out_bits_per_char: float | None = None
    held_out_accuracy: float | None = None
    tokens_per_second: float
    learning_rate: float
    train_error: float | None = None
    held_out_error: float | None = None

    @property
    def train_loss(self) -> float:
        """The loss in training: nats per token, or the error."""
        if self.train_error is not None:
            return self.train_error
        assert self.train_bits_per_token is not None
        return self.train_bits_per_token * math.log(2)

    @property
    def judged_in_training(self) -> bool:
        """Whether there is no held-out part to judge the weights on."""
        return self.held_out_bits_per_token is None and self.held_out_error is None

    @property
    def judged(self) -> float:
        """What says which weights are best, the lowest of them: bits per token, or the error, on
        the held-out part, or without one in training."""
        found = (getattr(self, name) for name in JUDGED)
        return float(next(value for value in found if value is not None))

"""The figures of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metrics:
    """How training stands: a line of `metrics.jsonl`.

    `epoch` and `step` (windows) count from 1; `tokens` and `seconds` from the start. Perplexities
    are exp of the mean cross-entropy in nats per token: over the windows since the line before,
    with the weights as they were then, and over the held-out part (None without one).
    `held_out_accuracy` is the share of tokens that get the highest logit. For a non-causal model
    all of them are of the masked tokens. Bits per character compare tokenizers.
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

    @property
    def judged_bits(self) -> float:
        """Bits per token that say which weights are best: on the held-out part, or without one in
        training."""
        bits = self.held_out_bits_per_token
        return self.train_bits_per_token if bits is None else bits

"""What a model is trained to do: which tokens it sees, and which it has to name.

A causal model predicts the next token. A model that sees the whole sequence would only copy that,
so it names tokens that were masked instead (Devlin et al. 2019, section 3.1, without the share that
is left in place or replaced).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from zoo.data.batches import Window
from zoo.inference.scoring import MASKED_SHARE
from zoo.models.language_model import LanguageModel


class Examples(NamedTuple):
    """Inputs [T, B] that the model reads, targets [T, B], and which of them count [T, B]; None
    where all do."""

    inputs: Tensor
    targets: Tensor
    counted: Tensor | None

    def of_rows(self, rows: slice) -> Examples:
        """Those of some rows of the batch."""
        counted = None if self.counted is None else self.counted[:, rows]
        return Examples(self.inputs[:, rows], self.targets[:, rows], counted)

    def select(self, logits_TBV: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, V] and targets [N] of the tokens that count."""
        if self.counted is None:  # a mask of all would cost a copy forwards and one backwards
            return logits_TBV.flatten(0, 1), self.targets.flatten()
        return logits_TBV[self.counted], self.targets[self.counted]


class Objective(Protocol):
    """`carries_state` says whether the state goes on from one window to the next."""

    carries_state: bool

    def examples(self, window: Window, generator: torch.Generator) -> Examples:
        """What the model reads and has to name in this window. `generator` is on the CPU."""


class NextToken:
    """Each token names the one after it."""

    carries_state = True

    def examples(self, window: Window, generator: torch.Generator) -> Examples:
        return Examples(window.inputs, window.targets, None)


class MaskedToken:
    """15 % of the tokens, drawn anew for each window and at least one, are replaced by the mask and
    are to be named from both sides."""

    carries_state = False

    def __init__(self, mask_token: int) -> None:
        self.mask_token = mask_token

    def examples(self, window: Window, generator: torch.Generator) -> Examples:
        draws = torch.rand(window.inputs.shape, generator=generator)
        masked = (draws < MASKED_SHARE) | (draws == draws.min())
        masked = masked.to(window.inputs.device)
        return Examples(window.inputs.masked_fill(masked, self.mask_token), window.inputs, masked)


def choose_objective(model: LanguageModel) -> Objective:
    """What a model of this kind is trained and judged by."""
    return NextToken() if model.causal else MaskedToken(model.mask_token)

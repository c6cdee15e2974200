"""What a model is trained to predict: its input tokens, and its targets.

A model of a task predicts what the task asks. Of a text, a causal model predicts the next token. A
non-causal model could copy that token, so it predicts masked tokens instead (Devlin et al. 2019,
section 3.1, without the share that is left in place or replaced).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import Interface
from zoo.data.batches import Window
from zoo.inference.scoring import MASKED_SHARE
from zoo.models.language_model import LanguageModel


class Examples(NamedTuple):
    """Inputs [T, B] that the model reads, targets [T, B], and which of them count [T, B]; None
    where all do. Inputs and targets may have one axis more, of features and of numbers."""

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
    """`carries_state` says whether each window starts from the state that the window before it
    ended with."""

    carries_state: bool

    def examples(self, window: Window, generator: torch.Generator) -> Examples:
        """The inputs and targets of this window. `generator` is on the CPU."""


class GivenTargets:
    """Each position that is asked predicts the target of the window: of a text, the next token."""

    carries_state = True

    def examples(self, window: Window, generator: torch.Generator) -> Examples:
        return Examples(window.inputs, window.targets, window.counted)


class MaskedToken:
    """15 % of the tokens, drawn anew for each window and at least one, are replaced by the mask and
    predicted from the others."""

    carries_state = False

    def __init__(self, mask_token: int) -> None:
        self.mask_token = mask_token

    def examples(self, window: Window, generator: torch.Generator) -> Examples:
        draws = torch.rand(window.inputs.shape, generator=generator)
        masked = (draws < MASKED_SHARE) | (draws == draws.min())
        masked = masked.to(window.inputs.device)
        return Examples(window.inputs.masked_fill(masked, self.mask_token), window.inputs, masked)


def loss_of(interface: Interface) -> Callable[..., Tensor]:
    """The loss of outputs [N, V] and targets: cross-entropy of classes [N], squared error of
    numbers [N, V]; the mean of all, or with `reduction="sum"` their sum."""
    return F.cross_entropy if interface.gives == "classes" else F.mse_loss


def choose_objective(model: LanguageModel) -> Objective:
    """The objective of a language model: next tokens if it is causal, masked tokens if not."""
    return GivenTargets() if model.causal else MaskedToken(model.mask_token)

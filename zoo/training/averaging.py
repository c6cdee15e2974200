"""A running average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of a model's parameters: after each update it keeps the share
    `decay` of what it was (Polyak and Juditsky 1992). The first updates count more, so that it does
    not begin from the initial weights: update n keeps at most (1 + n) / (10 + n)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._parameters = dict(model.named_parameters())
        self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Takes in the weights after update `number`, which counts from 0."""
        keep = min(self._decay, (1 + number) / (10 + number))
        own: list[Tensor] = list(self._parameters.values())
        torch._foreach_lerp_(list(self.weights.values()), own, 1 - keep)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over averages that were saved. KeyError, or RuntimeError, for others."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.weights[name])
            self.weights[name].copy_(own)

"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2), and a
linear schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

BETA1, BETA2 = 0.9, 0.99


class Lion(torch.optim.Optimizer):
    """Steps of one size in every coordinate: the sign of an average of the gradients."""

    def __init__(self, parameters: Any, learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["average"] = torch.zeros_like(parameter)
                average, gradient = state["average"], parameter.grad
                direction = (BETA1 * average + (1 - BETA1) * gradient).sign()
                parameter.sub_(rate * (direction + decay * parameter))
                average.mul_(BETA2).add_(gradient, alpha=1 - BETA2)


def lion(
    parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    return Lion(list(parameters.values()), learning_rate, weight_decay)


def linear(fraction: float) -> float:
    return 1 - fraction

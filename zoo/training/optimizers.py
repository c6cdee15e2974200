"""The zoo's own optimizers, as `zoo.registry.OptimizerSpec` asks for them: functions of the model's
parameters by name, the peak learning rate, and the weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def adamw(
    parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019). It decays matrices, and leaves biases and other vectors
    alone."""
    matrices = [parameter for parameter in parameters.values() if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters.values() if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # fused: one pass over the weights, where the plain one makes a dozen
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], learning_rate, fused=True
    )


def sgd(
    parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float
) -> Optimizer:
    """Stochastic gradient descent without momentum or weight decay, as in Dive into Deep Learning,
    section 9.5."""
    return torch.optim.SGD(list(parameters.values()), learning_rate)


def muon(
    parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float
) -> Optimizer:
    """Muon (Jordan et al. 2024) for the matrices of the recurrent layers, AdamW for everything
    else: embedding, output head, vectors, and tensors of three axes.

    Updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section 2.2), so
    that both take the same learning rate.
    """
    layers = {
        name: parameter
        for name, parameter in parameters.items()
        if name.startswith("stack.") and parameter.dim() == 2
    }
    others = {name: parameters[name] for name in parameters if name not in layers}
    parts = [adamw(others, learning_rate, weight_decay)]
    if layers:
        muon = torch.optim.Muon(
            list(layers.values()),
            learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        parts.insert(0, muon)
    return Joined(parts)


class Joined(Optimizer):
    """Several optimizers, each of its own parameters, as one. The parameters are numbered through
    in the order of the parts."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        # the very groups of the parts: a learning rate that is set here is theirs
        self.param_groups = [group for part in parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        first = 0
        for part in self._parts:
            own = part.state_dict()
            state |= {first + index: kept for index, kept in own["state"].items()}
            groups += [
                {**group, "params": [first + index for index in group["params"]]}
                for group in own["param_groups"]
            ]
            first += _count(part)
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        first, groups = 0, iter(state_dict["param_groups"])
        for part in self._parts:
            count = _count(part)
            part.load_state_dict(
                {
                    "state": {
                        index - first: kept
                        for index, kept in state_dict["state"].items()
                        if first <= index < first + count
                    },
                    "param_groups": [
                        {**group, "params": [index - first for index in group["params"]]}
                        for _, group in zip(part.param_groups, groups, strict=False)
                    ],
                }
            )
            first += count
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def _count(part: Optimizer) -> int:
    return sum(len(group["params"]) for group in part.param_groups)

"""How weights move: the optimizer, and the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.config import TrainConfig


def make_optimizer(parameters: Sequence[Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names. AdamW decays matrices, and leaves biases and other vectors
    alone (Loshchilov and Hutter 2019)."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.learning_rate)
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # fused: one pass over the weights, where the plain one makes a dozen
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], config.learning_rate, fused=True
    )


def learning_rate(config: TrainConfig, fraction: float) -> float:
    """The learning rate when the share `fraction` of the budget is spent: it rises linearly over
    the share `warmup`, and with the schedule "cosine" falls to 0 at the end along half a wave
    (Loshchilov and Hutter 2017, equation 5)."""
    rate = config.learning_rate
    if fraction < config.warmup:
        rate *= fraction / config.warmup
    if config.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * min(fraction, 1.0))) / 2
    return rate

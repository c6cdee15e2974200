"""How weights are updated: the optimizer and the learning rate that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from zoo.config import TrainConfig
from zoo.registry.registry import Registry


@dataclass(frozen=True)
class Optimization:
    """The optimizer's factory and the schedule of a training, found in the registry by `find`."""

    config: TrainConfig
    factory: Callable[[Mapping[str, nn.Parameter], float, float], Optimizer]
    schedule: Callable[[float], float]

    @classmethod
    def find(cls, config: TrainConfig, registry: Registry) -> Optimization:
        """UnknownNameError for an optimizer or a schedule that nothing is registered under."""
        return cls(
            config,
            registry.optimizers[config.optimizer].load_factory(),
            registry.schedules[config.schedule].load_factory(),
        )

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """The optimizer of all parameters that want a gradient."""
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return self.factory(parameters, self.config.learning_rate, self.config.weight_decay)

    def learning_rate(self, fraction: float) -> float:
        """The learning rate when the share `fraction` of training is done: it rises linearly over
        the share `warmup`, under the schedule's curve."""
        warmup = self.config.warmup
        rise = fraction / warmup if fraction < warmup else 1.0
        return self.config.learning_rate * rise * self.schedule(min(fraction, 1.0))

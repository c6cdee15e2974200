"""How weights are updated: the optimizer and the learning rate that the settings name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real

from torch import nn
from torch.optim import Optimizer

from zoo.config import TrainConfig
from zoo.errors import ContractError
from zoo.registry.registry import Registry


@dataclass(frozen=True)
class Optimization:
    """The optimizer's factory and the schedule of a training, found in the registry by `find`."""

    config: TrainConfig
    registry: Registry
    factory: Callable[[Mapping[str, nn.Parameter], float, float], Optimizer]
    schedule: Callable[[float], float]

    @classmethod
    def find(cls, config: TrainConfig, registry: Registry) -> Optimization:
        """UnknownNameError for an optimizer or a schedule that nothing is registered under,
        ContractError for one that takes other arguments than its spec says, and for a schedule
        that gives no learning rate."""
        optimizers, schedules = registry.optimizers, registry.schedules
        arguments = "parameters", "learning_rate", "weight_decay"
        factory = optimizers.load_function(config.optimizer, *arguments)
        schedule = schedules.load_function(config.schedule, "fraction")
        found = cls(config, registry, factory, schedule)
        for fraction in (0.0, 0.5, 1.0):
            found.learning_rate(fraction)
        return found

    @property
    def optimizer(self) -> str:
        """The optimizer as errors name it."""
        return self.registry.optimizers.describe(self.config.optimizer)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """The optimizer of all parameters that require a gradient. ContractError for a factory
        that gives none, or one whose `step` needs a closure."""
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        made = self.factory(parameters, self.config.learning_rate, self.config.weight_decay)
        if not isinstance(made, Optimizer):
            raise ContractError(
                f"{self.optimizer} gives {type(made).__name__}; it should give a "
                f"torch.optim.Optimizer."
            )
        try:
            inspect.signature(made.step).bind()
        except TypeError:
            raise ContractError(
                f"{self.optimizer}: the step of {type(made).__name__} needs a closure, and the "
                f"trainer calls it without one."
            ) from None
        return made

    def learning_rate(self, fraction: float) -> float:
        """The learning rate when the share `fraction` of training is done: it rises linearly over
        the share `warmup`, under the schedule's curve. ContractError for a schedule that gives no
        number from 0 to 1."""
        warmup = self.config.warmup
        rise = fraction / warmup if fraction < warmup else 1.0
        share = self.schedule(min(fraction, 1.0))
        if not (isinstance(share, Real) and 0 <= share <= 1):
            raise ContractError(
                f"{self.registry.schedules.describe(self.config.schedule)} gives {share!r} at "
                f"{min(fraction, 1.0):.3g} of training; it should give a number from 0 to 1."
            )
        return self.config.learning_rate * rise * float(share)

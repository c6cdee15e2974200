"""Dropout of state units where the recurrent weights read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.language_model import LanguageModel


class _Dropped(NamedTuple):
    """A matrix, what it is multiplied by now, of the same number of axes, and room for its own
    values meanwhile."""

    weight: nn.Parameter
    scale: Tensor
    own: Tensor


class RecurrentDropout:
    """Drops a share of the units of each layer's state, anew for each update: the recurrent weights
    of these units are zero in it, and the others larger in proportion. It is DropConnect (Wan et
    al. 2013), as Merity et al. (2018, section 2) use it on the recurrent weights, with whole rows
    of them instead of single entries: as in Gal and Ghahramani (2016) a unit is gone from all gates
    and for all steps. The cell computes as ever, so its fast paths serve.

    Between two updates the model has its own weights.
    """

    def __init__(self, model: LanguageModel, share: float, generator: torch.Generator) -> None:
        """`generator`, on the CPU, is the same in all processes: they drop the same units.
        UsageError for a model without recurrent weights."""
        self._share, self._generator = share, generator
        self._layers: list[list[_Dropped]] = []
        for weights in model.stack.recurrent_weights():
            self._layers.append([])
            for weight, axis in weights:
                shape = [1] * weight.dim()
                shape[axis] = weight.shape[axis]
                with torch.no_grad():
                    dropped = _Dropped(weight, weight.new_ones(shape), torch.empty_like(weight))
                self._layers[-1].append(dropped)
        if not any(self._layers):
            raise UsageError(
                f"cell {model.config.cell!r} has no recurrent weights to drop; leave out "
                f"--recurrent-dropout."
            )

    def draw(self) -> None:
        """Chooses the units that are dropped. The matrices of a layer drop the same."""
        for layer in self._layers:
            scales: dict[int, Tensor] = {}
            for dropped in layer:
                units = dropped.scale.numel()
                if units not in scales:
                    kept = torch.rand(units, generator=self._generator) >= self._share
                    scales[units] = kept / (1 - self._share)
                dropped.scale.copy_(scales[units].view(dropped.scale.shape))

    @torch.no_grad()
    def drop(self) -> None:
        """Gives the model the weights without the units that were drawn."""
        for dropped in self._all():
            dropped.own.copy_(dropped.weight)
            dropped.weight.mul_(dropped.scale)

    @torch.no_grad()
    def restore(self) -> None:
        """Gives the model its own weights again, and their gradients."""
        for dropped in self._all():
            dropped.weight.copy_(dropped.own)
            if dropped.weight.grad is not None:
                dropped.weight.grad.mul_(dropped.scale)

    @contextmanager
    def dropped(self) -> Iterator[None]:
        """A block, an update's forward and backward passes, in which units are dropped."""
        self.draw()
        self.drop()
        try:
            yield
        finally:
            self.restore()

    def _all(self) -> Iterator[_Dropped]:
        for layer in self._layers:
            yield from layer

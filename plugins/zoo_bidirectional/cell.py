"""Schuster and Paliwal (1997): two cells, one for each direction, with their outputs
concatenated."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell, UsageError
from zoo.nn import Adopted, adopt_layer, single_layer
from zoo.registry import Registry


class BidirectionalState(NamedTuple):
    """The wrapped cell's state, in each direction; the backward one is that at the start of the
    sequence."""

    forward: Any
    backward: Any


class Bidirectional(Cell):
    """Outputs [T, B, 2·H]: those of the forward cell, then those of the backward cell."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: Annotated[str, Field(description="The causal cell to wrap.")] = "gru",
        *,
        registry: Registry,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size)
        spec = registry.cells[cell]
        if not spec.causal:
            raise UsageError(f"'bidirectional' wraps causal cells only, and {cell!r} is not.")
        self.ahead: Cell = spec.build(input_size, hidden_size, registry=registry, **options)
        self.behind: Cell = spec.build(input_size, hidden_size, registry=registry, **options)

    @property
    def output_size(self) -> int:
        return self.ahead.output_size + self.behind.output_size

    def init_state(self, batch_size: int) -> BidirectionalState:
        return BidirectionalState(
            self.ahead.init_state(batch_size), self.behind.init_state(batch_size)
        )

    def state_bounds(self) -> dict[str, float]:
        sides = {"forward": self.ahead, "backward": self.behind}
        return {
            f"{side}.{name}": bound
            for side, cell in sides.items()
            for name, bound in cell.state_bounds().items()
        }

    def scan(self, z_T: Tensor, state: BidirectionalState) -> tuple[Tensor, BidirectionalState]:
        y_ahead, ahead = self.ahead(z_T, state.forward)
        y_behind, behind = self.behind(z_T.flip(0), state.backward)
        y = torch.cat((y_ahead, y_behind.flip(0)), -1)
        return y, BidirectionalState(ahead, behind)


def takes(hidden_size: int, cell: str, *, registry: Registry, **options: Any) -> bool:
    """Whether the wrapped cell supports the hidden size."""
    return hidden_size in registry.cells[cell].sizes_taken(options, registry)


def adopt(layer: nn.RNNBase, registry: Registry) -> Adopted | None:
    """A one-layer, bidirectional torch.nn module as this cell; None for any other module."""
    if not layer.bidirectional:
        return None
    cells = [adopt_layer(single_layer(layer, 0, way), registry) for way in (0, 1)]
    weights = {
        f"{side}.{name}": weight
        for side, cell in zip(("ahead", "behind"), cells, strict=True)
        for name, weight in cell.weights.items()
    }
    return Adopted("bidirectional", {"cell": cells[0].cell, **cells[0].options}, weights)

"""Importing models that were trained with torch.nn, without any code of the zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from zoo.config import OptionValue
from zoo.errors import UsageError
from zoo.registry.registry import Registry
from zoo.registry.specs import load_reference

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Adopted:
    """A torch.nn layer as a cell of the zoo: the cell's name, its options, and its state_dict."""

    cell: str
    options: dict[str, OptionValue]
    weights: dict[str, Tensor]


def adopt_layer(layer: nn.RNNBase, registry: Registry) -> Adopted:
    """Finds the registered cell that can import this one-layer module.

    A spec says so by its `adopt`, a function `(layer, registry) -> Adopted | None`. UsageError if
    none can.
    """
    for spec in registry.cells.values():
        if spec.adopt and (adopted := load_reference(spec.adopt)(layer, registry)) is not None:
            found: Adopted = adopted
            return found
    raise UsageError(f"no cell of the zoo computes what {type(layer).__name__} computes.")


def single_layer(rnn: nn.RNNBase, layer: int = 0, direction: int | None = None) -> nn.RNNBase:
    """One layer of a torch.nn stack as a module of its own, with copies of its weights: in all its
    directions, or only forwards (0) or backwards (1)."""
    width = rnn.hidden_size * (2 if rnn.bidirectional else 1) if layer else rnn.input_size
    arguments = {"nonlinearity": rnn.nonlinearity} if isinstance(rnn, nn.RNN) else {}
    make: Any = type(rnn)  # RNNBase's own signature begins with a mode
    single: nn.RNNBase = make(
        width,
        rnn.hidden_size,
        bias=rnn.bias,
        bidirectional=rnn.bidirectional and direction is None,
        **arguments,
    )
    suffix = "_reverse" if direction == 1 else ""
    single.load_state_dict(
        {
            name: getattr(rnn, name.replace("_l0", f"_l{layer}") + suffix)
            for name in single.state_dict()
        }
    )
    return single

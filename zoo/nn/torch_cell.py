"""Cells over torch.nn's own recurrent layers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.nn.adoption import Adopted
from zoo.nn.cell import Cell


class TorchCell(Cell):
    """A cell over one layer of a torch.nn.RNN, GRU or LSTM.

    Whole sequences run in the layer's own kernels. The layer is the cell's `rnn`, whose state_dict
    is torch.nn's, for loading and saving. What torch.nn lacks is the single step: a subclass
    writes `advance` over the same parameters, and names the layer (`layer_type`) and the NamedTuple
    of its state (`state_type`), whose fields are in torch.nn's order.
    """

    layer_type: ClassVar[type[nn.RNNBase]]
    state_type: ClassVar[Any]

    def __init__(self, input_size: int, hidden_size: int, **arguments: Any) -> None:
        super().__init__(input_size, hidden_size)
        make: Any = self.layer_type  # RNNBase's own signature begins with a mode
        self.rnn: nn.RNNBase = make(input_size, hidden_size, **arguments)

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """weight_ih [G·H, I], weight_hh [G·H, H], bias_ih and bias_hh [G·H], for G gates."""
        weight_ih, weight_hh, bias_ih, bias_hh = self.rnn.all_weights[0]
        return weight_ih, weight_hh, bias_ih, bias_hh

    def recurrent_weights(self) -> dict[str, int]:
        return {"rnn.weight_hh_l0": 1}

    def init_state(self, batch_size: int) -> Any:
        return self.state_type(
            *(self.zeros(batch_size, self.hidden_size) for _ in self.state_type._fields)
        )

    def project(self, x: Tensor) -> Tensor:
        weight_ih, _, bias_ih, _ = self.weights()
        return x @ weight_ih.T + bias_ih

    def forward(self, x_TBI: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        leaves = tuple(leaf.unsqueeze(0) for leaf in state)
        if x_TBI.is_cpu:  # not every CPU has these layers in the lower precision of autocast
            x_TBI = x_TBI.to(leaves[0].dtype)
        with torch.autocast("cpu", enabled=False):
            y_TBH, end = self.rnn(x_TBI, leaves if len(leaves) > 1 else leaves[0])
        ends = end if isinstance(end, tuple) else (end,)
        # under autocast torch.nn hands the state back in the lower precision
        kept = (leaf.squeeze(0).to(old.dtype) for leaf, old in zip(ends, state, strict=True))
        return y_TBH, self.state_type(*kept)

    @classmethod
    def adopt(cls, layer: nn.RNNBase, cell: str, **options: Any) -> Adopted | None:
        """A one-layer torch.nn module of this type, of one direction, as the registered `cell`;
        None for any other module. A layer without biases gets zeros."""
        if type(layer) is not cls.layer_type or layer.bidirectional:
            return None
        own = cls(layer.input_size, layer.hidden_size, **options).state_dict()
        given = layer.state_dict()
        weights = {
            name: given.get(name.removeprefix("rnn."), torch.zeros_like(wanted))
            for name, wanted in own.items()
        }
        return Adopted(cell, dict(options), weights)

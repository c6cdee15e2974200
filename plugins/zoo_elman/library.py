"""torch.nn.RNN as a cell: its own kernels for whole sequences, and a step over its parameters."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo.nn import Adopted, TorchCell
from zoo.registry import Registry


class RNNState(NamedTuple):
    h: Tensor  # [B, H]; within (-1, 1) for tanh, not negative for relu


class RNN(TorchCell):
    """The parameters are those of torch.nn.RNN, with its names, shapes and, without
    `recurrent_init`, initial values."""

    layer_type = nn.RNN
    state_type = RNNState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: Annotated[
            Literal["tanh", "relu"], Field(description="Activation function.")
        ] = "tanh",
        recurrent_init: Annotated[
            Literal["uniform", "orthogonal", "identity"],
            Field(
                description="Initial recurrent weights: uniform as in torch.nn.RNN, orthogonal "
                "(Saxe et al. 2014), or the identity (Le et al. 2015, with relu)."
            ),
        ] = "uniform",
    ) -> None:
        super().__init__(input_size, hidden_size, nonlinearity=nonlinearity)
        _, weight_hh, _, _ = self.weights()
        if recurrent_init == "orthogonal":
            nn.init.orthogonal_(weight_hh)
        elif recurrent_init == "identity":
            nn.init.eye_(weight_hh)
        self.activation = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0} if self.activation is torch.tanh else {}

    def project(self, x: Tensor) -> Tensor:
        weight_ih, _, bias_ih, bias_hh = self.weights()
        return x @ weight_ih.T + (bias_ih + bias_hh)

    def advance(self, z: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        _, weight_hh, _, _ = self.weights()
        h = self.activation(z + state.h @ weight_hh.T)
        return h, RNNState(h)


def adopt(layer: nn.RNNBase, registry: Registry) -> Adopted | None:
    """A trained one-layer torch.nn.RNN as the cell `rnn`."""
    if not isinstance(layer, nn.RNN):
        return None
    return RNN.adopt(layer, "rnn", nonlinearity=layer.nonlinearity)

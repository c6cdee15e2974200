"""torch.nn.RNN as a cell: its own kernels for whole sequences, and the step that they leave out."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell


class RNNState(NamedTuple):
    h: Tensor  # [B, H]; within (-1, 1) for tanh, not negative for relu


class RNN(Cell):
    """The parameters are those of torch.nn.RNN, with its names, shapes and initial values."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: Annotated[
            Literal["tanh", "relu"], Field(description="What bends the sum.")
        ] = "tanh",
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.rnn = nn.RNN(input_size, hidden_size, nonlinearity=nonlinearity)
        self.activation = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]

    def init_state(self, batch_size: int) -> RNNState:
        return RNNState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        weight_ih, _, bias_ih, bias_hh = self.rnn.all_weights[0]
        return x @ weight_ih.T + (bias_ih + bias_hh)

    def advance(self, z: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        _, weight_hh, _, _ = self.rnn.all_weights[0]
        h = self.activation(z + state.h @ weight_hh.T)
        return h, RNNState(h)

    def forward(self, x_TBI: Tensor, state: RNNState | None = None) -> tuple[Tensor, RNNState]:
        if state is None:
            state = self.init_state(x_TBI.shape[1])
        y_TBH, h_LBH = self.rnn(x_TBI, state.h.unsqueeze(0))
        return y_TBH, RNNState(h_LBH.squeeze(0))

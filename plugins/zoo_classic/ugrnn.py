"""The update gate RNN (Collins et al. 2016, arXiv:1611.09913, section 1.1).

    c_t = tanh(W_ch h_{t-1} + W_cx x_t + b_c)
    g_t = σ(W_gh h_{t-1} + W_gx x_t + b_g + b_fg)
    h_t = g_t ⊙ h_{t-1} + (1 - g_t) ⊙ c_t

b_fg is one number, the forget bias, which the paper searches for: above 0, the gate is initially
more open to the previous state.
"""

from math import sqrt
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from zoo import Cell
from zoo.nn import uniform


class UGRNNState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)


class UGRNN(Cell):
    """Weights side by side, in the order c, g: `W_x` [I, 2·H], `W_h` [H, 2·H], `b` [2·H]. b_fg is
    added to the initial `b`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        forget_bias: Annotated[
            float, Field(ge=-10, le=10, description="Added to the gate's initial bias.")
        ] = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        bound = 1 / sqrt(hidden_size)  # as torch.nn.GRU; the paper searches for its scales
        self.W_x = uniform(bound, input_size, 2 * hidden_size)
        self.W_h = uniform(bound, hidden_size, 2 * hidden_size)
        self.b = uniform(bound, 2 * hidden_size)
        with torch.no_grad():
            self.b[hidden_size:] += forget_bias

    def init_state(self, batch_size: int) -> UGRNNState:
        return UGRNNState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def recurrent_weights(self) -> dict[str, int]:
        return {"W_h": 0}

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W_x + self.b

    def advance(self, z: Tensor, state: UGRNNState) -> tuple[Tensor, UGRNNState]:
        c, g = (z + state.h @ self.W_h).chunk(2, -1)
        g = torch.sigmoid(g)
        h = (g * state.h + (1 - g) * torch.tanh(c)).to(state.h.dtype)
        return h, UGRNNState(h)

"""The light gated recurrent unit (Ravanelli et al. 2018, arXiv:1803.10225, section III): a GRU
without its reset gate, and with a ReLU.

    z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
    h̃_t = ReLU(W_h x_t + U_h h_{t-1} + b_h)
    h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ h̃_t

The paper normalises W_z x and W_h x over the batch, which gives them their biases. That is left out
here, so that batch rows are independent.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo import Cell
from zoo_classic.weights import glorot, orthogonal


class LiGRUState(NamedTuple):
    h: Tensor  # [B, H], not negative, unbounded


class LiGRU(Cell):
    """Weights side by side, in the order z, h: `W` [I, 2·H], `U` [H, 2·H], `b` [2·H]."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        # Glorot for input weights and orthogonal for recurrent weights (section IV)
        self.W = glorot(input_size, hidden_size, gates=2)
        self.U = orthogonal(hidden_size, gates=2)
        self.b = nn.Parameter(torch.zeros(2 * hidden_size))

    def init_state(self, batch_size: int) -> LiGRUState:
        return LiGRUState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b

    def advance(self, given: Tensor, state: LiGRUState) -> tuple[Tensor, LiGRUState]:
        z, candidate = (given + state.h @ self.U).chunk(2, -1)
        z = torch.sigmoid(z)
        h = (z * state.h + (1 - z) * torch.relu(candidate)).to(state.h.dtype)
        return h, LiGRUState(h)

"""The recurrence of Elman (1990), written from the equations.

    h_t = φ(x_t W_xh + h_{t-1} W_hh + b_h),   φ = tanh

Dive into Deep Learning, section 9.4, equation 9.4.5, with the initial values of section 9.5.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell


class RNNState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)


class RNNScratch(Cell):
    """Weights are stored as the equations multiply them: `W_xh` [I, H], `W_hh` [H, H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        std: Annotated[
            float, Field(gt=0, le=1, description="Standard deviation of the first weights.")
        ] = 0.01,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.W_xh = nn.Parameter(torch.randn(input_size, hidden_size) * std)
        self.W_hh = nn.Parameter(torch.randn(hidden_size, hidden_size) * std)
        self.b_h = nn.Parameter(torch.zeros(hidden_size))

    def init_state(self, batch_size: int) -> RNNState:
        return RNNState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W_xh + self.b_h

    def advance(self, z: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        h = torch.tanh(z + state.h @ self.W_hh)
        return h, RNNState(h)

"""The cell: its equations, and the same equations in code.

    h_t = (1 - a) h_{t-1} + a tanh(x_t W_x + h_{t-1} W_h + b)

Shapes: [T, B, I] inputs of a sequence, [B, I] of a step, [B, H] states.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from zoo import Cell


class LeakyState(NamedTuple):
    """Each field is a tensor that begins with the batch axis, and a state of the exported graph."""

    h: Tensor  # [B, H]


class Leaky(Cell):
    """An argument after the two sizes is an option of the cell: `--option leak=0.5`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        leak: Annotated[float, Field(gt=0, le=1, description="Share of the new in h.")] = 0.5,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.leak = leak
        self.W_x = nn.Parameter(torch.randn(input_size, hidden_size) / input_size**0.5)
        self.W_h = nn.Parameter(torch.randn(hidden_size, hidden_size) * 0.5 / hidden_size**0.5)
        self.b = nn.Parameter(torch.zeros(hidden_size))

    def init_state(self, batch_size: int) -> LeakyState:
        return LeakyState(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """What needs no state: in training it sees the whole sequence at once."""
        return x @ self.W_x + self.b

    def advance(self, z: Tensor, state: LeakyState) -> tuple[Tensor, LeakyState]:
        """One step, from `z` [B, H] and the state to the output and the next state."""
        h = (1 - self.leak) * state.h + self.leak * torch.tanh(z + state.h @ self.W_h)
        return h, LeakyState(h)

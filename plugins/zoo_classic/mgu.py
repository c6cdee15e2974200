"""The minimal gated unit (Zhou et al. 2016, arXiv:1603.09420, section 3): a GRU with one gate in
place of two.

    f_t = σ(W_f [h_{t-1}, x_t] + b_f)
    h̃_t = tanh(W_h [f_t ⊙ h_{t-1}, x_t] + b_h)
    h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t
"""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from zoo import Cell
from zoo.nn import uniform


class MGUState(NamedTuple):
    h: Tensor  # [B, H], within (-1, 1)


class MGUInput(NamedTuple):
    """The input's terms of the gate and the candidate: [..., H] each."""

    f: Tensor
    h: Tensor


class MGU(Cell):
    """Weights are stored as they are multiplied: `W_xf`, `W_xh` [I, H], `W_hf`, `W_hh` [H, H], and
    biases `b_f`, `b_h` [H]: the paper's W_f is W_hf and W_xf, stacked."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        bound = 1 / sqrt(hidden_size)  # as torch.nn.GRU; the paper does not specify it
        self.W_xf = uniform(bound, input_size, hidden_size)
        self.W_xh = uniform(bound, input_size, hidden_size)
        self.W_hf = uniform(bound, hidden_size, hidden_size)
        self.W_hh = uniform(bound, hidden_size, hidden_size)
        self.b_f = uniform(bound, hidden_size)
        self.b_h = uniform(bound, hidden_size)

    def init_state(self, batch_size: int) -> MGUState:
        return MGUState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0}

    def recurrent_weights(self) -> dict[str, int]:
        return {"W_hf": 0, "W_hh": 0}

    def project(self, x: Tensor) -> MGUInput:
        return MGUInput(x @ self.W_xf + self.b_f, x @ self.W_xh + self.b_h)

    def advance(self, z: MGUInput, state: MGUState) -> tuple[Tensor, MGUState]:
        f = torch.sigmoid(z.f + state.h @ self.W_hf)
        candidate = torch.tanh(z.h + (f * state.h) @ self.W_hh)
        h = ((1 - f) * state.h + f * candidate).to(state.h.dtype)
        return h, MGUState(h)

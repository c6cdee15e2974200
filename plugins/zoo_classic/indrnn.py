"""The independently recurrent neural network (Li et al. 2018, arXiv:1803.04831, equation 2).

    h_t = σ(W x_t + u ⊙ h_{t-1} + b)

Each unit depends on its own past only; the next layer mixes the units.
"""

from math import sqrt
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo.nn import uniform


class IndRNNState(NamedTuple):
    h: Tensor  # [B, H]; within (-1, 1) for tanh, not negative for relu


class IndRNN(Cell):
    """Input weights `W` [I, H], recurrent weights `u` [H] and a bias `b` [H].

    The paper clips each |u_n| to γ^(1/T) after every update, for sequences of T steps (section
    3.1). The sequence of a language model has no end, for which the limit of that bound is 1. Here
    the recurrence uses the clipped value, so that `u` needs no clipping after an update.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: Annotated[
            Literal["relu", "tanh"], Field(description="Activation function.")
        ] = "relu",
        bound: Annotated[
            float, Field(gt=0, le=2, description="Bound to which |u| is clipped.")
        ] = 1.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.bound = bound
        self.activation = {"relu": torch.relu, "tanh": torch.tanh}[nonlinearity]
        # the authors' Kaiming bound for input weights has a = 8 and batch normalisation after it;
        # without the latter, that of He et al. (2015) preserves the variance
        self.W = uniform(sqrt(6 / input_size), input_size, hidden_size)
        # between 0 and the bound, so that initial memories are of all lengths (section 3.2)
        self.u = nn.Parameter(torch.rand(hidden_size) * bound)
        self.b = nn.Parameter(torch.zeros(hidden_size))

    def init_state(self, batch_size: int) -> IndRNNState:
        return IndRNNState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        return {"h": 1.0} if self.activation is torch.tanh else {}

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b

    def advance(self, z: Tensor, state: IndRNNState) -> tuple[Tensor, IndRNNState]:
        u = self.u.clamp(-self.bound, self.bound)
        h = self.activation(z + u * state.h).to(state.h.dtype)
        return h, IndRNNState(h)

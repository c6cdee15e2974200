"""The undamped independent controlled oscillatory network (Rusch and Mishra 2021,
arXiv:2103.05487), one layer.

    y'' = -(σ(w ⊙ y + V u + b) + α y),   σ = tanh

a Hamiltonian system without coupling between the units, each with a learned time step. Its
symplectic Euler discretisation, with the logistic function σ̂, is

    z_n = z_{n-1} - Δt σ̂(c) ⊙ (σ(w ⊙ y_{n-1} + V u_n + b) + α y_{n-1})
    y_n = y_{n-1} + Δt σ̂(c) ⊙ z_n
"""

from math import sqrt
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell
from zoo.nn import uniform


class UnICORNNState(NamedTuple):
    y: Tensor  # [B, H], positions of the oscillators
    z: Tensor  # [B, H], their velocities


class UnICORNN(Cell):
    """Input weights `V` [I, H], and one number for each unit: recurrent weights `w`, time-step
    parameters `c`, and a bias `b`. The output is y."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dt: Annotated[
            float, Field(gt=0, le=2, description="The longest time step Δt of a unit.")
        ] = 1.0,
        alpha: Annotated[
            float, Field(ge=0, description="Stiffness α: strength of the force towards zero.")
        ] = 1.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.dt, self.alpha = dt, alpha
        # as in the authors' code: Kaiming's bound with a = 8 for V, U(0, 1), U(-0.1, 0.1)
        self.V = uniform(sqrt(6 / (65 * input_size)), input_size, hidden_size)
        self.w = nn.Parameter(torch.rand(hidden_size))
        self.c = uniform(0.1, hidden_size)
        self.b = nn.Parameter(torch.zeros(hidden_size))

    def init_state(self, batch_size: int) -> UnICORNNState:
        return UnICORNNState(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def project(self, u: Tensor) -> Tensor:
        return u @ self.V + self.b

    def advance(self, drive: Tensor, state: UnICORNNState) -> tuple[Tensor, UnICORNNState]:
        step = self.dt * torch.sigmoid(self.c)
        force = torch.tanh(self.w * state.y + drive) + self.alpha * state.y
        z = (state.z - step * force).to(state.z.dtype)
        y = (state.y + step * z).to(state.y.dtype)
        return y, UnICORNNState(y, z)

"""The coupled oscillatory recurrent network (Rusch and Mishra 2020, arXiv:2010.00951).

    y'' = σ(W y + 𝒲 y' + V u + b) - γ y - ε y',   σ = tanh

With the velocity z = y', its IMEX discretisation (equation 3 of the paper) is

    z_n = z_{n-1} + Δt (σ(W y_{n-1} + 𝒲 z_{n-1} + V u_n + b) - γ y_{n-1} - ε z_n̄)
    y_n = y_{n-1} + Δt z_n

where n̄ is n (the damping is taken at the new time) or n - 1.
"""

from math import sqrt
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from zoo import Cell
from zoo.nn import uniform


class CoRNNState(NamedTuple):
    y: Tensor  # [B, H], positions of the oscillators
    z: Tensor  # [B, H], their velocities


class CoRNN(Cell):
    """Weights are stored as they are multiplied: `V` [I, H], `W_y` and `W_z` [H, H] (the paper's W
    and 𝒲), and a bias `b` [H]. The output is y.

    The linear part of an explicit step has the determinant 1 - Δt ε: with the default options both
    its eigenvalues are (1 ± i)/2, an oscillation of 8 steps that halves in two."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dt: Annotated[float, Field(gt=0, le=1, description="Length Δt of a time step.")] = 1.0,
        gamma: Annotated[
            float, Field(ge=0, description="Stiffness γ: an oscillator's frequency, squared.")
        ] = 0.5,
        epsilon: Annotated[float, Field(ge=0, description="Damping ε.")] = 0.5,
        damping: Annotated[
            Literal["explicit", "implicit"],
            Field(description="Damp by the velocity before the step (explicit, as in the authors' "
                  "code) or after it."),
        ] = "explicit",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size)
        self.dt, self.gamma, self.epsilon = dt, gamma, epsilon
        self.implicit = damping == "implicit"
        # one torch.nn.Linear over x, z and y in the authors' code, with its initial values
        bound = 1 / sqrt(input_size + 2 * hidden_size)
        self.V = uniform(bound, input_size, hidden_size)
        self.W_y = uniform(bound, hidden_size, hidden_size)
        self.W_z = uniform(bound, hidden_size, hidden_size)
        self.b = uniform(bound, hidden_size)

    def init_state(self, batch_size: int) -> CoRNNState:
        return CoRNNState(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def project(self, u: Tensor) -> Tensor:
        return u @ self.V + self.b

    def advance(self, drive: Tensor, state: CoRNNState) -> tuple[Tensor, CoRNNState]:
        y, z = state
        force = torch.tanh(drive + y @ self.W_y + z @ self.W_z) - self.gamma * y
        if self.implicit:
            moved = (z + self.dt * force) / (1 + self.dt * self.epsilon)
        else:
            moved = z + self.dt * (force - self.epsilon * z)
        moved = moved.to(z.dtype)
        after = y + self.dt * moved
        return after, CoRNNState(after, moved)

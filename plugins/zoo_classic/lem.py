"""Long expressive memory (Rusch et al. 2021, arXiv:2110.04744, equation 3).

    Δt_n = Δt σ̂(W_1 y_{n-1} + V_1 u_n + b_1)
    Δt̄_n = Δt σ̂(W_2 y_{n-1} + V_2 u_n + b_2)
    z_n  = (1 - Δt_n) ⊙ z_{n-1} + Δt_n ⊙ σ(W_z y_{n-1} + V_z u_n + b_z)
    y_n  = (1 - Δt̄_n) ⊙ y_{n-1} + Δt̄_n ⊙ σ(W_y z_n + V_y u_n + b_y)

with the logistic function σ̂ and σ = tanh. The step of y uses the new z: an implicit-explicit step
of a two-scale differential equation.
"""

from math import sqrt
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from zoo import Cell
from zoo.nn import uniform


class LEMState(NamedTuple):
    y: Tensor  # [B, H], within (-1, 1)
    z: Tensor  # [B, H], within (-1, 1)


class LEMInput(NamedTuple):
    """The input's terms: of the two time steps and z together [..., 3·H], and of y [..., H]."""

    steps_and_z: Tensor
    y: Tensor


class LEM(Cell):
    """Weights side by side, in the order 1, 2, z: `V` [I, 3·H], `W` [H, 3·H], `b` [3·H]; those of y
    are `V_y` [I, H], `W_y` [H, H], `b_y` [H]. The output is y."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dt: Annotated[
            float, Field(gt=0, le=1, description="The longest step Δt; the gates shorten it.")
        ] = 1.0,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.dt = dt
        bound = 1 / sqrt(hidden_size)  # as in the authors' code, for every weight and bias
        self.V = uniform(bound, input_size, 3 * hidden_size)
        self.W = uniform(bound, hidden_size, 3 * hidden_size)
        self.b = uniform(bound, 3 * hidden_size)
        self.V_y = uniform(bound, input_size, hidden_size)
        self.W_y = uniform(bound, hidden_size, hidden_size)
        self.b_y = uniform(bound, hidden_size)

    def init_state(self, batch_size: int) -> LEMState:
        return LEMState(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def state_bounds(self) -> dict[str, float]:
        return {"y": 1.0, "z": 1.0}  # a mean of the state before and a tanh, for Δt up to 1

    def project(self, u: Tensor) -> LEMInput:
        return LEMInput(u @ self.V + self.b, u @ self.V_y + self.b_y)

    def advance(self, given: LEMInput, state: LEMState) -> tuple[Tensor, LEMState]:
        one, two, candidate = (given.steps_and_z + state.y @ self.W).chunk(3, -1)
        step_z, step_y = self.dt * torch.sigmoid(one), self.dt * torch.sigmoid(two)
        z = (1 - step_z) * state.z + step_z * torch.tanh(candidate)
        z = z.to(state.z.dtype)
        y = (1 - step_y) * state.y + step_y * torch.tanh(given.y + z @ self.W_y)
        y = y.to(state.y.dtype)
        return y, LEMState(y, z)

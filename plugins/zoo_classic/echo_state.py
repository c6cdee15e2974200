"""The echo state network (Jaeger 2001), with leaky units (Jaeger et al. 2007).

    x̃_n = tanh(W_in u_n + W x_{n-1} + b)
    x_n = (1 - a) x_{n-1} + a x̃_n

The reservoir is random and never trained: its hyperparameters are the spectral radius and the
sparsity of W. Only the readout of x is trained.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell


class EchoState(NamedTuple):
    x: Tensor  # [B, H], within (-1, 1)


class EchoStateNetwork(Cell):
    """`W_in` [I, H], `W` [H, H] and `b` [H] are parameters without a gradient: they are saved and
    exported like others, and keep their random initial values."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        spectral_radius: Annotated[
            float, Field(gt=0, description="Spectral radius of W: how long the state remembers.")
        ] = 0.9,
        sparsity: Annotated[
            float, Field(ge=0, lt=1, description="Fraction of W that is zero.")
        ] = 0.9,
        leak: Annotated[
            float, Field(gt=0, le=1, description="Leaking rate a: 1 replaces the state.")
        ] = 1.0,
        input_scale: Annotated[
            float, Field(gt=0, description="Bound of the input weights and biases.")
        ] = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size)
        self.leak = leak

        def drawn(*shape: int) -> Tensor:
            return torch.empty(*shape).uniform_(-1, 1)

        self.W_in = nn.Parameter(drawn(input_size, hidden_size) * input_scale, requires_grad=False)
        self.b = nn.Parameter(drawn(hidden_size) * input_scale, requires_grad=False)
        # every unit has equally many incoming connections, at least one: W then has a cycle,
        # without which its spectral radius would be 0 and could not be scaled
        count = max(1, round((1 - sparsity) * hidden_size))
        chosen = torch.rand(hidden_size, hidden_size).argsort(0) < count
        W = torch.where(chosen, drawn(hidden_size, hidden_size), 0.0)
        radius = torch.linalg.eigvals(W.double()).abs().max()
        self.W = nn.Parameter((W * (spectral_radius / radius)).to(W.dtype), requires_grad=False)

    def init_state(self, batch_size: int) -> EchoState:
        return EchoState(self.zeros(batch_size, self.hidden_size))

    def state_bounds(self) -> dict[str, float]:
        return {"x": 1.0}

    def project(self, u: Tensor) -> Tensor:
        return u @ self.W_in + self.b

    def advance(self, z: Tensor, state: EchoState) -> tuple[Tensor, EchoState]:
        excited = torch.tanh(z + state.x @ self.W)
        x = ((1 - self.leak) * state.x + self.leak * excited).to(state.x.dtype)
        return x, EchoState(x)

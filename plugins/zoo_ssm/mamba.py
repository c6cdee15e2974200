"""Mamba's mixer (Gu and Dao 2023, arXiv:2312.00752, section 3 and figure 3): a state space model
whose step size, input and output matrices depend on the input, after a short convolution and with a
gated output:

    x_t, z_t = W_in x_t                       two branches, D = expand · H features each
    u_t = SiLU(conv(x)_t)                     causal, depthwise
    Δ_t = softplus(W_Δ (W_r u_t) + b_Δ),  B_t = W_B u_t,  C_t = W_C u_t
    h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t ⊙ u_t) B_tᵀ,   A = -exp(A_log)
    y_t = W_out ((h_t C_t + D ⊙ u_t) ⊙ SiLU(z_t))
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import convolve, convolve_step, selective_scan, uniform


class MambaState(NamedTuple):
    window: Tensor  # [B, K - 1, D], the convolution's last inputs
    h: Tensor  # [B, D, N]


class MambaInput(NamedTuple):
    x: Tensor  # [..., D]
    gate: Tensor  # [..., D], before its SiLU


class Mamba(Cell):
    """With D = expand · H and N = state_size: `W_in` [I, 2·D] (x, then z), `W_conv` [K, D], `W_x`
    [D, R + 2·N] (the low-rank Δ, then B and C), `W_delta` [R, D], `A_log` [D, N], `W_out` [D, H].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        expand: Annotated[
            int, Field(ge=1, le=16, description="Inner features for each hidden unit.")
        ] = 2,
        state_size: Annotated[
            int, Field(ge=1, le=1024, description="N, the states of each inner feature.")
        ] = 16,
        conv: Annotated[int, Field(ge=2, le=64, description="Kernel size of the convolution.")] = 4,
        dt_rank: Annotated[
            int | None,
            Field(ge=1, le=65_536, description="Rank of Δ; by default hidden / 16, rounded up."),
        ] = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        inner = expand * hidden_size
        rank = dt_rank or -(-hidden_size // 16)
        self.parts = [rank, state_size, state_size]
        # Initial values as in the authors' mamba_ssm/modules/mamba_simple.py: the defaults of
        # nn.Linear and nn.Conv1d, Δ between 0.001 and 0.1, A of S4D-Real (arXiv:2206.11893).
        self.W_in = linear_weight(input_size, 2 * inner)
        self.W_conv = uniform(conv**-0.5, conv, inner)
        self.b_conv = uniform(conv**-0.5, inner)
        self.W_x = linear_weight(inner, rank + 2 * state_size)
        self.W_delta = uniform(rank**-0.5, rank, inner)
        self.b_delta = delta_bias(inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.W_out = linear_weight(inner, hidden_size)

    def init_state(self, batch_size: int) -> MambaState:
        width, inner = self.W_conv.shape
        return MambaState(
            self.zeros(batch_size, width - 1, inner), self.zeros(batch_size, *self.A_log.shape)
        )

    def project(self, x: Tensor) -> MambaInput:
        return MambaInput(*(x @ self.W_in).chunk(2, -1))

    def advance(self, z: MambaInput, state: MambaState) -> tuple[Tensor, MambaState]:
        x, window = convolve_step(z.x, state.window, self.W_conv, self.b_conv)
        u = F.silu(x)
        delta, B, C = self.select(u)
        decay, written = discretise(delta, u, self.A_log, B)
        h = (decay * state.h + written).to(state.h.dtype)
        return read(h, C) + self.D * u, MambaState(window, h)

    def readout(self, h: Tensor, z: MambaInput) -> Tensor:
        return (h * F.silu(z.gate)) @ self.W_out

    def scan(self, z_T: MambaInput, state: MambaState) -> tuple[Tensor, MambaState]:
        x_TBD, window = convolve(z_T.x, state.window, self.W_conv, self.b_conv)
        u_T = F.silu(x_TBD)
        delta_T, B_T, C_T = self.select(u_T)
        y_T, h = selective_scan(delta_T, u_T, -self.A_log.exp(), B_T, C_T, state.h)
        return y_T + self.D * u_T, MambaState(window, h)

    def select(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Δ [..., D], B and C [..., N]."""
        low_rank, B, C = torch.split(u @ self.W_x, self.parts, -1)
        return F.softplus(low_rank @ self.W_delta + self.b_delta), B, C


def discretise(delta: Tensor, u: Tensor, A_log: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The factor of the state and the term added to it, [..., D, N] each."""
    decay = (delta.unsqueeze(-1) * -A_log.exp()).exp()
    return decay, (delta * u).unsqueeze(-1) * B.unsqueeze(-2)


def read(h: Tensor, C: Tensor) -> Tensor:
    """h C, [..., D]."""
    return (h * C.unsqueeze(-2)).sum(-1)


def linear_weight(rows: int, columns: int) -> nn.Parameter:
    """[rows, columns], initialised as in torch.nn.Linear."""
    return uniform(rows**-0.5, rows, columns)


def delta_bias(size: int) -> nn.Parameter:
    """softplus⁻¹(Δ), for log Δ uniform between those of 0.001 and 0.1."""
    delta = torch.empty(size).uniform_(math.log(1e-3), math.log(1e-1)).exp()
    return nn.Parameter(delta + torch.log(-torch.expm1(-delta)))

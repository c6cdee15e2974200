"""Mamba-2's mixer (Dao and Gu 2024, arXiv:2405.21060, section 7.1 and figure 6): state space
duality. One projection of the input gives all parameters, and each head has a scalar decay:

    z_t, x_t, B_t, C_t, Δ_t = W_in x_t
    x_t, B_t, C_t = SiLU(conv(x, B, C)_t)     causal, depthwise
    Δ_t = softplus(Δ_t + b_Δ)                 one for each head
    h_t = exp(Δ_t A) h_{t-1} + B_t (Δ_t x_t)ᵀ,   A = -exp(A_log)
    y_t = W_out RMSNorm((h_tᵀ C_t + D x_t) ⊙ SiLU(z_t))

All heads share B and C (one group, as in multi-value attention).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import convolve, convolve_step, matrix_scan, matrix_step, uniform
from zoo_ssm.mamba import delta_bias, linear_weight

EPSILON = 1e-5  # of the norm, as in the authors' code


class Mamba2State(NamedTuple):
    window: Tensor  # [B, K - 1, heads · P + 2·N], the convolution's last inputs
    h: Tensor  # [B, heads, N, P]


class Mamba2Input(NamedTuple):
    gate: Tensor  # [..., heads · P], before its SiLU
    x: Tensor  # [..., heads · P + 2·N], with B and C
    delta: Tensor  # [..., heads]


class Recurrence(NamedTuple):
    """The arguments q, k, v and log w of `zoo.nn.matrix_scan`, and x: [..., heads, features]."""

    C: Tensor
    B: Tensor
    v: Tensor
    log_decay: Tensor
    x: Tensor


class Mamba2(Cell):
    """With heads of P features and N = state_size: `W_in` [I, 2·heads·P + 2·N + heads]
    (z, x, B, C, Δ), `W_conv` [K, heads·P + 2·N], `b_delta`, `A_log` and `D` [heads], `scale`
    [heads·P] of the norm, `W_out` [heads·P, H]."""

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
        head_size: Annotated[
            int,
            Field(
                ge=1,
                le=1024,
                description="Most features of a head. The inner features are divided equally among "
                "as few heads as that allows, P each.",
            ),
        ] = 64,
        conv: Annotated[int, Field(ge=2, le=64, description="Kernel size of the convolution.")] = 4,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.state_size = state_size
        self.heads = -(-expand * hidden_size // head_size)
        self.head_size = -(-expand * hidden_size // self.heads)  # rounded up
        inner = self.heads * self.head_size
        self.parts = [inner, inner + 2 * state_size, self.heads]
        self.parts_of_x = [inner, state_size, state_size]
        # Initial values as in the authors' mamba_ssm/modules/mamba2.py: the defaults of nn.Linear
        # and nn.Conv1d, Δ between 0.001 and 0.1, A between -16 and -1.
        self.W_in = linear_weight(input_size, sum(self.parts))
        self.W_conv = uniform(conv**-0.5, conv, inner + 2 * state_size)
        self.b_conv = uniform(conv**-0.5, inner + 2 * state_size)
        self.b_delta = delta_bias(self.heads)
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.scale = nn.Parameter(torch.ones(inner))
        self.W_out = linear_weight(inner, hidden_size)

    def init_state(self, batch_size: int) -> Mamba2State:
        width, features = self.W_conv.shape
        return Mamba2State(
            self.zeros(batch_size, width - 1, features),
            self.zeros(batch_size, self.heads, self.state_size, self.head_size),
        )

    def project(self, x: Tensor) -> Mamba2Input:
        gate, x, delta = torch.split(x @ self.W_in, self.parts, -1)
        return Mamba2Input(gate, x, F.softplus(delta + self.b_delta))

    def advance(self, z: Mamba2Input, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        x, window = convolve_step(z.x, state.window, self.W_conv, self.b_conv)
        terms = self.terms(x, z.delta)
        y, h = matrix_step(terms.C, terms.B, terms.v, terms.log_decay, state.h)
        return self.skip(y, terms.x), Mamba2State(window, h)

    def readout(self, h: Tensor, z: Mamba2Input) -> Tensor:
        gated = h * F.silu(z.gate)
        mean_square = (gated * gated).mean(-1, keepdim=True)
        return (gated * torch.rsqrt(mean_square + EPSILON) * self.scale) @ self.W_out

    def scan(self, z_T: Mamba2Input, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        x_TBF, window = convolve(z_T.x, state.window, self.W_conv, self.b_conv)
        terms = self.terms(x_TBF, z_T.delta)
        y_T, h = matrix_scan(terms.C, terms.B, terms.v, terms.log_decay, state.h)
        return self.skip(y_T, terms.x), Mamba2State(window, h)

    def terms(self, x: Tensor, delta: Tensor) -> Recurrence:
        """From the convolution's output, [..., heads · P + 2·N], and Δ [..., heads]."""
        x, B, C = torch.split(F.silu(x), self.parts_of_x, -1)
        x = x.reshape(*delta.shape, self.head_size)
        of_heads = (*delta.shape, self.state_size)
        return Recurrence(
            C.unsqueeze(-2).expand(of_heads),
            B.unsqueeze(-2).expand(of_heads),
            delta.unsqueeze(-1) * x,
            (delta * -self.A_log.exp()).unsqueeze(-1),
            x,
        )

    def skip(self, y: Tensor, x: Tensor) -> Tensor:
        """y + D x, [..., heads · P]."""
        return (y + self.D.unsqueeze(-1) * x).flatten(-2)

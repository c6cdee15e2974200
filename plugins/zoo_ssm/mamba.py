"""Mamba's mixer (Gu and Dao 2023, arXiv:2312.00752, section 3 and figure 3): a state space model
whose step size, input and output matrices depend on the input, after a short convolution and with a
gated output:

    x_t, z_t = W_in x_t                       two branches, D = expand · H features each
    u_t = SiLU(conv(x)_t)                     causal, depthwise
    Δ_t = softplus(W_Δ (W_r u_t) + b_Δ),  B_t = W_B u_t,  C_t = W_C u_t
    h_t = exp(Δ_t A) ⊙ h_{t-1} + (Δ_t ⊙ u_t) B_tᵀ,   A = -exp(A_log)
    y_t = W_out ((h_t C_t + D ⊙ u_t) ⊙ SiLU(z_t))

With `complex_state`, A = -exp(A_log) + i A_im, and h, B_t and C_t are complex, of N conjugate pairs
each: 2 Re(h_t C_t) takes the place of h_t C_t (section 3.6; the factor 2 is in the authors' code).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Cell
from zoo.nn import Complex, convolve, convolve_step, selective_scan, selective_step, uniform


class MambaState(NamedTuple):
    window: Tensor  # [B, K - 1, D], the convolution's last inputs
    h: Tensor | Complex  # [B, D, N]


class MambaInput(NamedTuple):
    x: Tensor  # [..., D]
    gate: Tensor  # [..., D], before its SiLU


class Mamba(Cell):
    """With D = expand · H and N = state_size: `W_in` [I, 2·D] (x, then z), `W_conv` [K, D], `W_x`
    [D, R + 2·N] (the low-rank Δ, then B and C), `W_delta` [R, D], `A_log` [D, N], `W_out` [D, H].
    With complex states `W_x` is [D, R + 4·N] (Re B, Im B, Re C, Im C), and there is `A_im` [D, N].
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
        complex_state: Annotated[
            bool, Field(description="Complex states, each two numbers, instead of real ones.")
        ] = False,
    ) -> None:
        super().__init__(input_size, hidden_size)
        inner = expand * hidden_size
        rank = dt_rank or -(-hidden_size // 16)
        self.parts = [rank] + [state_size] * (4 if complex_state else 2)
        # Initial values as in the authors' mamba_ssm/modules/mamba_simple.py: the defaults of
        # nn.Linear and nn.Conv1d, Δ between 0.001 and 0.1, A of S4D-Real (arXiv:2206.11893); with
        # complex states that of section 3.6, S4D-Lin, A_n = -1/2 + i n.
        self.W_in = linear_weight(input_size, 2 * inner)
        self.W_conv = uniform(conv**-0.5, conv, inner)
        self.b_conv = uniform(conv**-0.5, inner)
        self.W_x = linear_weight(inner, sum(self.parts))
        self.W_delta = uniform(rank**-0.5, rank, inner)
        self.b_delta = delta_bias(inner)
        n = torch.arange(float(state_size)).repeat(inner, 1)
        self.A_log = nn.Parameter(torch.full_like(n, 0.5).log() if complex_state else (n + 1).log())
        self.A_im = nn.Parameter(n) if complex_state else None
        self.D = nn.Parameter(torch.ones(inner))
        self.W_out = linear_weight(inner, hidden_size)

    def init_state(self, batch_size: int) -> MambaState:
        width, inner = self.W_conv.shape
        window = self.zeros(batch_size, width - 1, inner)
        size = batch_size, *self.A_log.shape
        if self.A_im is None:
            return MambaState(window, self.zeros(*size))
        return MambaState(window, Complex(self.zeros(*size), self.zeros(*size)))

    def project(self, x: Tensor) -> MambaInput:
        return MambaInput(*(x @ self.W_in).chunk(2, -1))

    def advance(self, z: MambaInput, state: MambaState) -> tuple[Tensor, MambaState]:
        return self._recur(convolve_step, selective_step, z, state)

    def readout(self, h: Tensor, z: MambaInput) -> Tensor:
        return (h * F.silu(z.gate)) @ self.W_out

    def scan(self, z_T: MambaInput, state: MambaState) -> tuple[Tensor, MambaState]:
        return self._recur(convolve, selective_scan, z_T, state)

    def _recur(
        self, convolution: Any, run: Any, z: MambaInput, state: MambaState
    ) -> tuple[Tensor, MambaState]:
        """One step, or all steps: `convolution` is `convolve_step` or `convolve`, and `run` is
        `selective_step` or `selective_scan`."""
        x, window = convolution(z.x, state.window, self.W_conv, self.b_conv)
        u = F.silu(x)
        low_rank, *B_and_C = torch.split(u @ self.W_x, self.parts, -1)
        delta = F.softplus(low_rank @ self.W_delta + self.b_delta)
        decay = -self.A_log.exp()
        if self.A_im is None:
            y, h = run(delta, u, decay, *B_and_C, state.h)
        else:
            A, B, C = Complex(decay, self.A_im), Complex(*B_and_C[:2]), Complex(*B_and_C[2:])
            y, h = run(delta, u, A, B, C, state.h)
            y = 2 * y
        return y + self.D * u, MambaState(window, h)


def linear_weight(rows: int, columns: int) -> nn.Parameter:
    """[rows, columns], initialised as in torch.nn.Linear."""
    return uniform(rows**-0.5, rows, columns)


def delta_bias(size: int) -> nn.Parameter:
    """softplus⁻¹(Δ), for log Δ uniform between those of 0.001 and 0.1."""
    delta = torch.empty(size).uniform_(math.log(1e-3), math.log(1e-1)).exp()
    return nn.Parameter(delta + torch.log(-torch.expm1(-delta)))

"""The simplified state-space layer S5 (Smith et al. 2022, arXiv:2208.04933).

One state for all channels, of P variables, as P/2 pairs of conjugate modes:

    Λ̄ = exp(ΛΔ),   B̄ = Λ⁻¹(Λ̄ - 1) B̃          (zero-order hold, a Δ for each mode)
    h_t = Λ̄ ⊙ h_{t-1} + B̄ x_t
    y_t = 2 Re(C̃ h_t) + D x_t
    out_t = g_t ⊙ σ(W g_t + b),   g_t = GELU(y_t)
"""

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import UsageError
from zoo.nn import Complex, LinearCell
from zoo_linear.diagonal import log_time_steps, multiply, zero_order_hold


class S5State(NamedTuple):
    h: Complex  # [B, P/2] each


class S5Inputs(NamedTuple):
    """The input's terms: in the state [..., P/2], and in the output directly [..., H]."""

    drive: Complex
    skip: Tensor


class S5(LinearCell):
    """J blocks of modes, initialised as HiPPO-N. `log_decay` (Λ = -exp(log_decay) + i · frequency),
    `frequency` and `log_dt` [P/2]; `B_*` [I, P/2], `C_*` [P/2, H] and `D` [I, H] are stored as they
    are multiplied from the right."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        blocks: Annotated[
            int | None,
            Field(
                ge=1,
                le=4096,
                description="Blocks of modes (J); by default one variable per hidden unit.",
            ),
        ] = None,
        pairs: Annotated[
            int, Field(ge=1, le=1024, description="Conjugate pairs of modes in a block (P/2J).")
        ] = 8,
        dt_min: Annotated[float, Field(gt=0, le=10, description="Smallest initial Δ.")] = 0.001,
        dt_max: Annotated[float, Field(gt=0, le=10, description="Largest initial Δ.")] = 0.1,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if dt_min > dt_max:
            raise UsageError(f"s5: dt_min {dt_min} is above dt_max {dt_max}.")
        size = 2 * pairs  # of a block
        blocks = blocks or -(-hidden_size // size)
        self.modes = blocks * pairs
        frequency, vectors = hippo_normal(size)
        self.log_decay = nn.Parameter(torch.full((self.modes,), math.log(0.5)))
        self.frequency = nn.Parameter(frequency.repeat(blocks).float())
        self.log_dt = nn.Parameter(log_time_steps(self.modes, dt_min, dt_max))
        # B and C of the real system, in the coordinates of its eigenvectors: B̃ = V*B, C̃ = CV
        B = torch.randn(blocks, size, input_size, dtype=torch.float64) / math.sqrt(input_size)
        C = torch.randn(hidden_size, blocks, size, dtype=torch.float64)
        B_modes = (vectors.mH @ B.to(vectors.dtype)).flatten(0, 1).mT  # [I, P/2]
        C_modes = (C.to(vectors.dtype) @ vectors).flatten(1).mT / math.sqrt(blocks * size)
        self.B_re = nn.Parameter(B_modes.real.float().contiguous())
        self.B_im = nn.Parameter(B_modes.imag.float().contiguous())
        self.C_re = nn.Parameter(C_modes.real.float().contiguous())
        self.C_im = nn.Parameter(C_modes.imag.float().contiguous())
        self.D = nn.Parameter(torch.randn(input_size, hidden_size) / math.sqrt(input_size))
        self.gate = nn.Linear(hidden_size, hidden_size)

    def init_state(self, batch_size: int) -> S5State:
        size = batch_size, self.modes
        return S5State(Complex(self.zeros(*size), self.zeros(*size)))

    def project(self, x: Tensor) -> S5Inputs:
        return S5Inputs(Complex(x @ self.B_re, x @ self.B_im), x @ self.D)

    def coefficients(self, z: S5Inputs) -> tuple[tuple[Complex], tuple[Complex]]:
        poles = Complex(-torch.exp(self.log_decay), self.frequency)
        decay, factor = zero_order_hold(poles, torch.exp(self.log_dt))
        return (decay,), (multiply(factor, z.drive),)

    def readout(self, h: S5State, z: S5Inputs) -> Tensor:
        y = 2 * (h.h.re @ self.C_re - h.h.im @ self.C_im) + z.skip
        g = F.gelu(y)
        return g * torch.sigmoid(self.gate(g))


def hippo_normal(size: int) -> tuple[Tensor, Tensor]:
    """The normal part of HiPPO-LegS, of an even `size`: the frequencies ω > 0 [size/2] of its
    eigenvalues -1/2 ± iω, and their eigenvectors [size, size/2], of unit length.

    HiPPO-LegS has -√(2n+1)√(2k+1) below the diagonal and -(n+1) on it. With p pᵀ added, p_n =
    √(n+1/2), there remains -1/2 on the diagonal and a skew-symmetric matrix S; -iS is Hermitian.
    """
    p = torch.sqrt(torch.arange(size, dtype=torch.float64) + 0.5)
    skew = torch.outer(p, p)
    skew = skew.triu(1) - skew.tril(-1)
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    return frequencies[size // 2 :], vectors[:, size // 2 :]

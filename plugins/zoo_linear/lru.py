"""The linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349, and the code in its appendix).

A state of N complex variables, each with a decay and a phase of its own:

    λ = exp(-exp(ν) + i exp(θ))
    h_t = λ ⊙ h_{t-1} + γ ⊙ (B x_t)
    y_t = Re(C h_t) + D x_t
    out_t = GLU(GELU(y_t))
"""

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import UsageError
from zoo.nn import Complex, LinearCell
from zoo_linear.diagonal import GatedMixing, exponential

MARGIN = 1e-6  # keeps |λ|² away from 0 and 1, where ν or log γ is infinite


class LRUState(NamedTuple):
    h: Complex  # [B, N] each


class LRUInputs(NamedTuple):
    """The input's terms: in the state [..., N], and in the output directly [..., H]."""

    drive: Complex
    skip: Tensor


class LRU(LinearCell):
    """N complex state variables. `nu`, `theta`, `log_gamma` [N]; `B_*` [I, N], `C_*` [N, H] and `D`
    [I, H] are stored as they are multiplied from the right."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        states: Annotated[
            int | None,
            Field(ge=1, le=65_536, description="Complex state variables; by default hidden."),
        ] = None,
        r_min: Annotated[float, Field(ge=0, lt=1, description="Smallest initial |λ|.")] = 0.0,
        r_max: Annotated[float, Field(gt=0, le=1, description="Largest initial |λ|.")] = 1.0,
        max_phase: Annotated[
            float, Field(gt=0, le=2 * math.pi, description="Largest initial phase.")
        ] = 6.28,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if r_min >= r_max:
            raise UsageError(f"lru: r_min {r_min} is not below r_max {r_max}.")
        self.states = states or hidden_size
        # Lemma 3.2: λ uniform on the ring between r_min and r_max, with phases up to max_phase
        square = r_min**2 + (r_max**2 - r_min**2) * torch.rand(self.states)
        square = square.clamp(MARGIN, 1 - MARGIN)
        self.nu = nn.Parameter(torch.log(-0.5 * torch.log(square)))
        phase = max_phase * torch.rand(self.states).clamp(min=MARGIN)
        self.theta = nn.Parameter(torch.log(phase))
        self.log_gamma = nn.Parameter(0.5 * torch.log1p(-square))
        # Glorot; half the variance in each part of B, as Re(C h) halves the state's
        into, out = math.sqrt(0.5 / input_size), math.sqrt(1 / self.states)
        self.B_re = nn.Parameter(torch.randn(input_size, self.states) * into)
        self.B_im = nn.Parameter(torch.randn(input_size, self.states) * into)
        self.C_re = nn.Parameter(torch.randn(self.states, hidden_size) * out)
        self.C_im = nn.Parameter(torch.randn(self.states, hidden_size) * out)
        self.D = nn.Parameter(torch.randn(input_size, hidden_size) / math.sqrt(input_size))
        self.mixing = GatedMixing(hidden_size)

    def init_state(self, batch_size: int) -> LRUState:
        size = batch_size, self.states
        return LRUState(Complex(self.zeros(*size), self.zeros(*size)))

    def project(self, x: Tensor) -> LRUInputs:
        gamma = torch.exp(self.log_gamma)
        drive = Complex((x @ self.B_re) * gamma, (x @ self.B_im) * gamma)
        return LRUInputs(drive, x @ self.D)

    def coefficients(self, z: LRUInputs) -> tuple[tuple[Complex], tuple[Complex]]:
        decay = exponential(Complex(-torch.exp(self.nu), torch.exp(self.theta)))
        return (decay,), (z.drive,)

    def readout(self, h: LRUState, z: LRUInputs) -> Tensor:
        y = h.h.re @ self.C_re - h.h.im @ self.C_im + z.skip
        mixed: Tensor = self.mixing(y)
        return mixed

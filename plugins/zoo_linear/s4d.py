"""The diagonal state space S4D (Gu et al. 2022, arXiv:2206.11893).

For each of the H channels of u_t = W x_t + b, with N/2 pairs of conjugate modes:

    A = -exp(α) + iω,   Ā = exp(ΔA),   B̄ = (Ā - 1)/A     (zero-order hold, B = 1)
    h_t = Ā ⊙ h_{t-1} + B̄ u_t
    y_t = 2 Re(C h_t) + D u_t
    out_t = GLU(GELU(y_t))
"""

import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo import Cell, UsageError
from zoo.nn import Complex, linear_scan
from zoo_linear.diagonal import (
    GatedMixing,
    exponential,
    log_time_steps,
    multiply,
    zero_order_hold,
)

PIECE = 16  # steps; a channel's kernel becomes a matrix of 16 by 16


class S4DState(NamedTuple):
    h: Complex  # [B, H, N/2] each


class S4D(Cell):
    """`encoder` maps the input to the H channels. `log_dt` and `D` [H]; `log_decay` (α),
    `frequency` (ω) and `C_*` [H, N/2]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        modes: Annotated[
            int, Field(ge=1, le=4096, description="Conjugate pairs of modes for a channel (N/2).")
        ] = 16,
        init: Annotated[
            Literal["lin", "inv"],
            Field(description="Initial frequencies: S4D-Lin or S4D-Inv."),
        ] = "lin",
        dt_min: Annotated[float, Field(gt=0, le=10, description="Smallest initial Δ.")] = 0.001,
        dt_max: Annotated[float, Field(gt=0, le=10, description="Largest initial Δ.")] = 0.1,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if dt_min > dt_max:
            raise UsageError(f"s4d: dt_min {dt_min} is above dt_max {dt_max}.")
        self.modes = modes
        shape = hidden_size, modes
        self.encoder = nn.Linear(input_size, hidden_size)
        self.log_dt = nn.Parameter(log_time_steps(hidden_size, dt_min, dt_max))
        self.log_decay = nn.Parameter(torch.full(shape, math.log(0.5)))
        n = torch.arange(modes, dtype=torch.float32)
        if init == "lin":
            frequency = math.pi * n
        else:  # with N = 2 · modes
            frequency = 2 * modes / math.pi * (2 * modes / (2 * n + 1) - 1)
        self.frequency = nn.Parameter(frequency.expand(shape).clone())
        self.C_re = nn.Parameter(torch.randn(shape) * math.sqrt(0.5))
        self.C_im = nn.Parameter(torch.randn(shape) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(hidden_size))
        self.mixing = GatedMixing(hidden_size)

    def init_state(self, batch_size: int) -> S4DState:
        size = batch_size, self.hidden_size, self.modes
        return S4DState(Complex(self.zeros(*size), self.zeros(*size)))

    def project(self, x: Tensor) -> Tensor:
        u: Tensor = self.encoder(x)
        return u

    def advance(self, z: Tensor, state: S4DState) -> tuple[Tensor, S4DState]:
        decay, drive = zero_order_hold(*self._continuous())
        kept, u = multiply(decay, state.h), z.unsqueeze(-1)
        h = Complex(
            (kept.re + drive.re * u).to(state.h.re.dtype),
            (kept.im + drive.im * u).to(state.h.im.dtype),
        )
        y = 2 * (self.C_re * h.re - self.C_im * h.im).sum(-1)
        return y, S4DState(h)

    def readout(self, h: Tensor, z: Tensor) -> Tensor:
        mixed: Tensor = self.mixing(h + self.D * z)
        return mixed

    def scan(self, z_T: Tensor, state: S4DState) -> tuple[Tensor, S4DState]:
        """The convolution with the kernel K_l = 2 Re(C Ā^l B̄), in pieces of PIECE steps side by
        side, each a product with the kernel's Toeplitz matrix. Unlike a scan, it stores states
        between pieces only."""
        with torch.autocast(z_T.device.type, enabled=False):
            return self._convolve(z_T.to(state.h.re.dtype), state.h)

    def _convolve(self, u_TBH: Tensor, h: Complex) -> tuple[Tensor, S4DState]:
        (T, B, H), S = u_TBH.shape, PIECE
        powers, toeplitz_HSS, from_state_HSN, into_state_HNS = self._matrices()
        # the first piece begins with steps before the sequence, so that the last ends with it
        pieces, early = (T + S - 1) // S, -T % S
        step = torch.arange(pieces * S, device=u_TBH.device).view(-1, S).T - early  # [S, P]
        u = u_TBH[step.clamp(min=0)] * (step >= 0)[..., None, None]
        # A transposition of two axes is the fastest one.
        u = u.flatten(0, 2).T.reshape(H, S, -1)  # [H, S, P · B]
        added = (into_state_HNS @ u).flatten(0, 1).T.reshape(pieces, B, H, -1)

        # the state before the sequence enters within the first piece
        entered = multiply(Complex(powers.re[S - early], powers.im[S - early]), h)
        added = torch.cat((added[:1] + torch.cat(entered, -1), added[1:]))
        nothing = Complex(torch.zeros_like(h.re), torch.zeros_like(h.im))
        decay = Complex(powers.re[-1], powers.im[-1])
        after = linear_scan(decay, Complex(*added.chunk(2, -1)), nothing)  # [P, B, H, N/2]
        before = torch.cat((torch.zeros_like(added[:1]), torch.cat(after, -1)[:-1]))
        before = before.reshape(pieces * B, -1).T.reshape(H, -1, pieces * B)
        y = toeplitz_HSS @ u + from_state_HSN @ before
        y = y.flatten(1).T.reshape(S, pieces, B, H)
        first = step[:, 0]
        seen = (from_state_HSN @ torch.cat(h, -1).permute(1, 2, 0)).permute(1, 2, 0)
        seen = seen[first.clamp(min=0)] * (first >= 0)[:, None, None]
        y = torch.cat((y[:, :1] + seen.unsqueeze(1), y[:, 1:]), 1).flatten(0, 1)
        at = torch.arange(T, device=y.device) + early
        end = Complex(after.re[-1].clone(), after.im[-1].clone())
        return y[at % S * pieces + at // S], S4DState(end)

    def _matrices(self) -> tuple[Complex, Tensor, Tensor, Tensor]:
        """Ā^l for l from 0 to S [S + 1, H, N/2], and of a piece the matrices from inputs to outputs
        [H, S, S], from the state before it to outputs [H, S, N], and from inputs to the state after
        it [H, N, S]. A state is one real vector of 2 · N/2 parts."""
        poles, dt = self._continuous()
        _, drive = zero_order_hold(poles, dt)
        times = torch.arange(PIECE + 1, device=dt.device).view(-1, 1, 1) * dt
        powers = exponential(Complex(times * poles.re, times * poles.im))
        driven = multiply(Complex(powers.re[:-1], powers.im[:-1]), drive)
        seen = multiply(Complex(powers.re[1:], powers.im[1:]), Complex(self.C_re, self.C_im))
        kernel_SH = 2 * (self.C_re * driven.re - self.C_im * driven.im).sum(-1)
        lag = torch.arange(PIECE, device=dt.device)
        lag = lag.view(-1, 1) - lag
        toeplitz = (kernel_SH[lag.clamp(min=0)] * (lag >= 0).unsqueeze(-1)).permute(2, 0, 1)
        from_state = 2 * torch.cat((seen.re, -seen.im), -1).transpose(0, 1)
        into_state = torch.cat((driven.re, driven.im), -1).flip(0).permute(1, 2, 0)
        return powers, toeplitz, from_state, into_state

    def _continuous(self) -> tuple[Complex, Tensor]:
        """A [H, N/2] and Δ [H, 1]."""
        return Complex(-torch.exp(self.log_decay), self.frequency), torch.exp(
            self.log_dt
        ).unsqueeze(-1)

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
from zoo.nn import Complex
from zoo_linear.diagonal import (
    GatedMixing,
    exponential,
    log_time_steps,
    multiply,
    zero_order_hold,
)

CHUNK = 64  # steps; a channel's kernel becomes a matrix of 64 by 64


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
        """The convolution with the kernel K_l = 2 Re(C Ā^l B̄), in chunks of CHUNK steps, each a
        product with the kernel's Toeplitz matrix. Unlike a scan, it stores no states [T, B, H,
        N/2]."""
        with torch.autocast(z_T.device.type, enabled=False):
            return self._convolve(z_T, state)

    def _convolve(self, u_TBH: Tensor, state: S4DState) -> tuple[Tensor, S4DState]:
        steps = min(len(u_TBH), CHUNK)
        poles, dt = self._continuous()
        _, drive = zero_order_hold(poles, dt)
        times = torch.arange(steps + 1, device=dt.device).view(-1, 1, 1) * dt
        powers = exponential(Complex(times * poles.re, times * poles.im))  # Ā^l [C+1, H, N/2]
        driven = multiply(Complex(powers.re[:-1], powers.im[:-1]), drive)
        seen = multiply(Complex(powers.re[1:], powers.im[1:]), Complex(self.C_re, self.C_im))
        kernel = 2 * (self.C_re * driven.re - self.C_im * driven.im).sum(-1)  # [C, H]
        lag = torch.arange(steps, device=dt.device)
        lag = lag.view(-1, 1) - lag
        toeplitz = (kernel[lag.clamp(min=0)] * (lag >= 0).unsqueeze(-1)).permute(2, 0, 1)
        # a state as one real vector of 2 · N/2 parts
        from_state = 2 * torch.cat((seen.re, -seen.im), -1).transpose(0, 1)  # [H, C, N]
        into_state = torch.cat((driven.re, driven.im), -1).flip(0).permute(1, 2, 0)  # [H, N, C]
        h = Complex(*(part.permute(1, 2, 0) for part in state.h))  # [H, N/2, B]
        found = []
        for u in torch.split(u_TBH.to(h.re.dtype).permute(2, 0, 1), steps, 1):  # [H, C, B]
            size = u.shape[1]
            found.append(
                toeplitz[:, :size, :size] @ u + from_state[:, :size] @ torch.cat((h.re, h.im), 1)
            )
            added = (into_state[..., steps - size :] @ u).chunk(2, 1)
            power = Complex(powers.re[size].unsqueeze(-1), powers.im[size].unsqueeze(-1))
            kept = multiply(power, h)
            h = Complex(kept.re + added[0], kept.im + added[1])
        y_TBH = torch.cat(found, 1).permute(1, 2, 0)
        end = Complex(*(part.permute(2, 0, 1).contiguous() for part in h))
        return y_TBH, S4DState(end)

    def _continuous(self) -> tuple[Complex, Tensor]:
        """A [H, N/2] and Δ [H, 1]."""
        return Complex(-torch.exp(self.log_decay), self.frequency), torch.exp(
            self.log_dt
        ).unsqueeze(-1)

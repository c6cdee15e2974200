"""Parts of the diagonal state-space cells: complex arithmetic in real tensors, the zero-order hold,
initial time steps, and the mixing of channels after the recurrence."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn import Complex


class GatedMixing(nn.Module):
    """GLU(GELU(y)) = (W_a g + b_a) ⊙ σ(W_b g + b_b) with g = GELU(y), the mixing of channels in
    S4's block; `hidden` features in and out."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 2 * hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        value, gate = self.linear(F.gelu(y)).chunk(2, -1)
        mixed: Tensor = value * torch.sigmoid(gate)
        return mixed


def multiply(one: Complex, other: Complex) -> Complex:
    """The elementwise product."""
    return Complex(
        one.re * other.re - one.im * other.im,
        one.re * other.im + one.im * other.re,
    )


def exponential(z: Complex) -> Complex:
    """e^z, elementwise."""
    size = torch.exp(z.re)
    return Complex(size * torch.cos(z.im), size * torch.sin(z.im))


def zero_order_hold(poles: Complex, delta: Tensor) -> tuple[Complex, Complex]:
    """Λ̄ = e^{ΔΛ} and the factor (Λ̄ - 1)/Λ of B in B̄: the exact solution of x' = Λx + Bu for u
    constant over a time Δ.

    e^{x+iy} - 1 is written as (e^x - 1) cos y - 2 sin²(y/2) + i e^x sin y, and e^x - 1 as
    tanh(x/2)(e^x + 1): with slow modes Λ̄ is so near 1 that the difference would have three digits
    in float32. (ONNX has no expm1.)
    """
    x, y = delta * poles.re, delta * poles.im
    size = torch.exp(x)
    decay = Complex(size * torch.cos(y), size * torch.sin(y))
    sine = torch.sin(y / 2)
    change = Complex(
        torch.tanh(x / 2) * (size + 1) * torch.cos(y) - 2 * sine * sine,
        decay.im,
    )
    norm = poles.re * poles.re + poles.im * poles.im
    inverse = Complex(poles.re / norm, -poles.im / norm)
    return decay, multiply(change, inverse)


def log_time_steps(count: int, smallest: float, largest: float) -> Tensor:
    """log Δ [count], uniform between the logarithms of the two."""
    low, high = math.log(smallest), math.log(largest)
    return low + (high - low) * torch.rand(count)

"""The elementwise part of a step of `LSTMRecurrence` on a GPU: one kernel forwards, one back."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    # exp may overflow to infinity, which gives 1
    return 1 - 2 / (tl.exp(2 * x) + 1)


@triton.jit  # type: ignore[untyped-decorator]
def _forward(z, c_before, h, c, bent, count, units, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = index < count
    gate = z + (index // units) * 4 * units + index % units
    g = _tanh(tl.load(gate, mask=here))
    i = _sigmoid(tl.load(gate + units, mask=here))
    f = _sigmoid(tl.load(gate + 2 * units, mask=here))
    o = _sigmoid(tl.load(gate + 3 * units, mask=here))
    new_c = f * tl.load(c_before + index, mask=here) + i * g
    new_bent = _tanh(new_c)
    tl.store(gate, g, mask=here)
    tl.store(gate + units, i, mask=here)
    tl.store(gate + 2 * units, f, mask=here)
    tl.store(gate + 3 * units, o, mask=here)
    tl.store(c + index, new_c, mask=here)
    tl.store(bent + index, new_bent, mask=here)
    tl.store(h + index, o * new_bent, mask=here)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    grad_h, grad_c, z, c_before, bent, gradient, grad_c_before, count, units, BLOCK: tl.constexpr
):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = index < count
    place = (index // units) * 4 * units + index % units
    g = tl.load(z + place, mask=here)
    i = tl.load(z + place + units, mask=here)
    f = tl.load(z + place + 2 * units, mask=here)
    o = tl.load(z + place + 3 * units, mask=here)
    by_h = tl.load(grad_h + index, mask=here)
    tanh_c = tl.load(bent + index, mask=here)
    by_c = tl.load(grad_c + index, mask=here) + by_h * o * (1 - tanh_c * tanh_c)
    before = tl.load(c_before + index, mask=here)
    into = gradient + place
    tl.store(into, by_c * i * (1 - g * g), mask=here)
    tl.store(into + units, by_c * g * i * (1 - i), mask=here)
    tl.store(into + 2 * units, by_c * before * f * (1 - f), mask=here)
    tl.store(into + 3 * units, by_h * tanh_c * o * (1 - o), mask=here)
    tl.store(grad_c_before + index, by_c * f, mask=here)


def forward(z_BK: Tensor, c_before: Tensor, h: Tensor, c: Tensor, bent: Tensor) -> None:
    """Turns the sums in z into gates, and writes the state and tanh(c)."""
    grid = (triton.cdiv(c.numel(), BLOCK),)
    _forward[grid](z_BK, c_before, h, c, bent, c.numel(), c.shape[-1], BLOCK=BLOCK)


def backward(
    grad_h: Tensor,
    grad_c: Tensor,
    z_BK: Tensor,
    c_before: Tensor,
    bent: Tensor,
    gradient_BK: Tensor,
) -> Tensor:
    """Writes the gradients of the sums, and returns that of c before the step."""
    grad_c_before = torch.empty_like(c_before)
    count, units = grad_c.numel(), grad_c.shape[-1]
    _backward[(triton.cdiv(count, BLOCK),)](
        grad_h, grad_c, z_BK, c_before, bent, gradient_BK, grad_c_before, count, units, BLOCK=BLOCK
    )
    return grad_c_before

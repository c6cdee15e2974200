"""The elementwise part of a step of `SLSTMRecurrence` on a GPU: one kernel forwards, one back."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _place(index, units, width):  # type: ignore[no-untyped-def]
    """Where the first gate of a unit is: heads of `width` units lie side by side."""
    row, unit = index // units, index % units
    return row * 4 * units + (unit // width) * 4 * width + unit % width


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    z, c, n, m, new_h, new_c, new_n, new_m, forgotten, count, units, width, BLOCK: tl.constexpr
):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = index < count
    gate = z + _place(index, units, width)
    log_i = tl.load(gate, mask=here)
    log_f = tl.load(gate + width, mask=here)
    cell_input = 1 - 2 / (tl.exp(2 * tl.load(gate + 2 * width, mask=here)) + 1)
    o = _sigmoid(tl.load(gate + 3 * width, mask=here))
    # log σ(a), whose exp does not overflow
    log_sigmoid = tl.minimum(log_f, 0.0) - tl.log(1 + tl.exp(-tl.abs(log_f)))
    remembered = tl.load(m + index, mask=here) + log_sigmoid
    scale = tl.maximum(remembered, log_i)
    f, i = tl.exp(remembered - scale), tl.exp(log_i - scale)
    c_now = f * tl.load(c + index, mask=here) + i * cell_input
    n_now = f * tl.load(n + index, mask=here) + i
    tl.store(gate, i, mask=here)
    tl.store(gate + width, f, mask=here)
    tl.store(gate + 2 * width, cell_input, mask=here)
    tl.store(gate + 3 * width, o, mask=here)
    tl.store(forgotten + index, _sigmoid(-log_f), mask=here)
    tl.store(new_c + index, c_now, mask=here)
    tl.store(new_n + index, n_now, mask=here)
    tl.store(new_m + index, scale, mask=here)
    tl.store(new_h + index, o * c_now / n_now, mask=here)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    grad_h, grad_c, grad_n, grad_m, z, c, n, new_c, new_n, forgotten, gradient,
    c_before, n_before, m_before, count, units, width, BLOCK: tl.constexpr
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = index < count
    place = _place(index, units, width)
    i = tl.load(z + place, mask=here)
    f = tl.load(z + place + width, mask=here)
    cell_input = tl.load(z + place + 2 * width, mask=here)
    o = tl.load(z + place + 3 * width, mask=here)
    n_now = tl.load(new_n + index, mask=here, other=1.0)
    quotient = tl.load(new_c + index, mask=here) / n_now
    by_h = tl.load(grad_h + index, mask=here)
    through = by_h * o / n_now
    by_c = tl.load(grad_c + index, mask=here) + through
    by_n = tl.load(grad_n + index, mask=here) - through * quotient
    kept = (by_c * tl.load(c + index, mask=here) + by_n * tl.load(n + index, mask=here)) * f
    added = (by_c * cell_input + by_n) * i
    by_scale = tl.load(grad_m + index, mask=here) - kept - added
    # m is the larger of two; where they are equal, half belongs to each
    share = tl.where(f == 1, 1.0, 0.0) - tl.where(i == 1, 1.0, 0.0)
    kept += by_scale * (share + 1) / 2
    added += by_scale * (1 - share) / 2
    into = gradient + place
    tl.store(into, added, mask=here)
    tl.store(into + width, kept * tl.load(forgotten + index, mask=here), mask=here)
    tl.store(into + 2 * width, by_c * i * (1 - cell_input * cell_input), mask=here)
    tl.store(into + 3 * width, by_h * quotient * o * (1 - o), mask=here)
    tl.store(c_before + index, by_c * f, mask=here)
    tl.store(n_before + index, by_n * f, mask=here)
    tl.store(m_before + index, kept, mask=here)


def forward(
    z_BK: Tensor,
    before: tuple[Tensor, ...],
    after: tuple[Tensor, ...],
    forgotten: Tensor,
    heads: int,
) -> None:
    """Turns the sums in z into gates, and writes the state and σ(-a_f)."""
    count, units = forgotten.numel(), forgotten.shape[-1]
    _forward[(triton.cdiv(count, BLOCK),)](
        z_BK, *before[1:], *after, forgotten, count, units, units // heads, BLOCK=BLOCK
    )


def backward(
    gradients: tuple[Tensor, ...],
    z_BK: Tensor,
    before: tuple[Tensor, ...],
    after: tuple[Tensor, ...],
    forgotten: Tensor,
    gradient_BK: Tensor,
    heads: int,
) -> tuple[Tensor, ...]:
    """Writes the gradients of the sums, and returns those of c, n and m before the step."""
    count, units = forgotten.numel(), forgotten.shape[-1]
    found = tuple(torch.empty_like(forgotten) for _ in range(3))
    _, c, n, _ = before
    _, new_c, new_n, _ = after
    _backward[(triton.cdiv(count, BLOCK),)](
        *gradients, z_BK, c, n, new_c, new_n, forgotten, gradient_BK, *found, count, units,
        units // heads, BLOCK=BLOCK,
    )  # fmt: skip
    return found

"""h_t = a_t ⊙ h_{t-1} + b_t over all times in one kernel on a GPU: each of its blocks reads some
channels piece by piece, scans a piece in registers, and carries the state to the next.

This module needs Triton, which PyTorch for CUDA brings along.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

STEPS, CHANNELS = 64, 32  # of a piece


@triton.jit
def _join(a, b, later_a, later_b):  # type: ignore[no-untyped-def]
    return a * later_a, later_a * b + later_b


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    a, b, start, out, steps, channels, a_stride,
    BACKWARDS: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    h = tl.load(start + channel, mask=inside, other=0.0)
    for first in range(0, steps, STEPS):
        turn = first + tl.arange(0, STEPS)
        here = (turn[:, None] < steps) & inside[None, :]
        time = (steps - 1 - turn if BACKWARDS else turn).to(tl.int64)[:, None]
        # what lies beyond the end leaves the state as it is
        decay = tl.load(a + time * a_stride + channel[None, :], mask=here, other=1.0)
        added = tl.load(b + time * channels + channel[None, :], mask=here, other=0.0)
        decay, added = tl.associative_scan((decay, added), 0, _join)
        found = added + decay * h[None, :]
        tl.store(out + time * channels + channel[None, :], found, mask=here)
        last = tl.arange(0, STEPS)[:, None] == STEPS - 1
        h = tl.sum(tl.where(last, found, 0.0), 0)


def scan(a_T: Tensor, b_T: Tensor, start: Tensor, *, backwards: bool) -> Tensor:
    """The scan of float32, from the first time to the last or, `backwards`, from the last to the
    first. `a_T` has as many axes as `b_T`, and may have ones."""
    steps, channels = len(b_T), start.numel()
    b_T, start = b_T.contiguous(), start.contiguous()
    a_T = a_T.expand(len(a_T), *b_T.shape[1:]).contiguous()
    out = torch.empty_like(b_T)
    if out.numel():
        _kernel[(triton.cdiv(channels, CHANNELS),)](
            a_T, b_T, start, out, steps, channels, channels if len(a_T) == steps else 0,
            BACKWARDS=backwards, STEPS=STEPS, CHANNELS=CHANNELS, num_warps=4,
        )  # fmt: skip
    return out

"""The short causal convolution over time that many recurrent cells put before their recurrence.

Each feature has K weights of its own, the last for the present input. The K - 1 inputs before are
state: a window [B, K - 1, D], of zeros at the beginning.
"""

from __future__ import annotations

import torch
from torch import Tensor


def convolve(
    x_TBD: Tensor, window_BKD: Tensor, weight_KD: Tensor, bias_D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A whole sequence: y_t = Σ_j weight_j ⊙ x_{t-K+1+j} + bias, and the next window, which keeps
    its dtype."""
    x = torch.cat((window_BKD.transpose(0, 1), x_TBD.to(window_BKD.dtype)))
    T = len(x_TBD)
    y = weight_KD[0] * x[:T]
    for time in range(1, len(weight_KD)):
        y = y + weight_KD[time] * x[time : time + T]
    return y if bias_D is None else y + bias_D, x[T:].transpose(0, 1).contiguous()


def convolve_step(
    x_BD: Tensor, window_BKD: Tensor, weight_KD: Tensor, bias_D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step of `convolve`: y [B, D] and the next window."""
    x = torch.cat((window_BKD, x_BD.to(window_BKD.dtype).unsqueeze(1)), 1)
    y = (weight_KD * x).sum(1)
    return y if bias_D is None else y + bias_D, x[:, 1:].contiguous()

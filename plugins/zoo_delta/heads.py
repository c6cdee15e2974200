"""What the cells of this package do to each head, and how their weights begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def drawn(rows: int, columns: int) -> nn.Parameter:
    """A weight [rows, columns], uniform with the variance of Glorot and Bengio (2010).

    The authors' code (flash-linear-attention) takes 2^-2.5 of that, behind a layer norm, where the
    inputs have a norm of √rows. Here they may be one-hot, of norm 1, and so small a weight would
    first have to grow.
    """
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, columns)))


def head_count(most: int, hidden_size: int) -> int:
    """As many heads as leave each at least eight features. With one or two, the norms within a head
    are mostly of numbers near zero, where they amplify every rounding."""
    return max(1, min(most, hidden_size // 8))


def by_head(x: Tensor, heads: int) -> Tensor:
    """[..., N D] as [..., N, D]."""
    return torch.unflatten(x, -1, (heads, x.shape[-1] // heads))


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def l2_normalise(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + epsilon)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float = 1e-5) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight

"""Operations within each head, and the initial weights of this package's cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def drawn(rows: int, columns: int) -> nn.Parameter:
    """A weight [rows, columns], uniform with the variance of Glorot and Bengio (2010).

    The authors' code (flash-linear-attention) scales this by 2^-2.5, for inputs from a layer norm,
    whose norm is √rows. Here inputs may be one-hot, of norm 1, and such small weights would train
    slowly.
    """
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, columns)))


def head_count(most: int, hidden_size: int) -> int:
    """As many heads as leave each at least eight features. With one or two, a norm within a head
    often divides by a number near zero, and amplifies rounding errors."""
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

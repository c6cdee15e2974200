"""Products with block-diagonal matrices: each head, or block, of features has its own weights."""

from __future__ import annotations

import torch
from torch import Tensor


def block_product(x: Tensor, weight_NKC: Tensor) -> Tensor:
    """x [..., N·K] times the block-diagonal matrix of N blocks [K, C]: [..., N·C].

    Written as x [..., N, 1, K] @ weight, it would be a product for each row, with a copy of the
    weights for each; here it is one for each block.
    """
    N, K, C = weight_NKC.shape
    rows = x.reshape(-1, N, K).transpose(0, 1)
    return torch.bmm(rows, weight_NKC).transpose(0, 1).reshape(*x.shape[:-1], N * C)

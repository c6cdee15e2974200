"""How exact matrix products are in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def product_precision(precision: str) -> Iterator[None]:
    """Within the block, forwards and backwards, a GPU also multiplies float32 matrices as the
    setting allows: with "bf16" those that are kept out of autocast, as the products of a recurrence
    are, have factors of TF32, which keeps three bits more than bfloat16."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    if precision == "bf16":
        settings.fp32_precision = "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before

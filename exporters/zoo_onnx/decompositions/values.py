"""What several decompositions need."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Number = int | float | bool
Value = Tensor | Number


def floating(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def as_tensor(value: Value, dtype: torch.dtype | None) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(dtype) if dtype is not None else value
    if dtype == torch.float64:
        return float64_constant(float(value))
    return torch.full((), value, dtype=dtype)


def float64_constant(value: float) -> Tensor:
    """Exactly, where torch.onnx would round it to float32: a whole number times powers of two."""
    fraction, exponent = math.frexp(value)
    if not math.isfinite(value):
        return torch.full((), value, dtype=torch.float64)
    found = torch.full((), int(fraction * 2**53), dtype=torch.int64).to(torch.float64)
    exponent -= 53
    while exponent:
        step = max(-100, min(100, exponent))
        found = found * torch.full((), 2.0**step, dtype=torch.float64)
        exponent -= step
    return found


def tensors(x: Value, y: Value) -> tuple[Tensor, Tensor]:
    """Both as tensors of their common type."""
    dtype = torch.result_type(x, y)
    return as_tensor(x, dtype), as_tensor(y, dtype)


def to_last(x: Tensor, dim: Sequence[int] | int | None) -> tuple[Tensor, list[int]]:
    """With these axes (all, for none) as the last one, and their sorted numbers."""
    if x.dim() == 0:
        return x.reshape(1), []
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        dim = range(x.dim())
    dims = sorted(d % x.dim() for d in ([dim] if isinstance(dim, int) else dim))
    rest = [d for d in range(x.dim()) if d not in dims]
    return x.permute(*rest, *dims).flatten(len(rest)), dims


def with_axes(x: Tensor, dims: Sequence[int]) -> Tensor:
    for d in dims:
        x = x.unsqueeze(d)
    return x

"""Sums, products and extremes along axes, order, and places."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo_onnx.decompositions.values import Value, as_tensor, to_last, with_axes

MAX_UNROLLED = 1024  # elements of an axis that is computed one by one

# --- extremes along axes, of int64: ONNX Runtime's are wrong, and the index of an extreme is right


def amax(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    return _extreme(x, dim, keepdim, torch.argmax)


def amin(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    return _extreme(x, dim, keepdim, torch.argmin)


def max(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _extreme_with_index(x, dim, keepdim, torch.argmax)


def min(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    return _extreme_with_index(x, dim, keepdim, torch.argmin)


def _extreme(x: Tensor, dim: Any, keepdim: bool, index: Callable[..., Tensor]) -> Tensor:
    flat, dims = to_last(x, dim)
    found = flat.gather(-1, index(flat, -1, keepdim=True)).squeeze(-1)
    return with_axes(found, dims) if keepdim else found


def _extreme_with_index(
    x: Tensor, dim: int | None, keepdim: bool, index: Callable[..., Tensor]
) -> Any:
    if dim is None:
        return _extreme(x, (), False, index)
    at = index(x, dim, keepdim=True)
    found = x.gather(dim, at), at
    return found if keepdim else (found[0].squeeze(dim), at.squeeze(dim))


# --- sums and products


def integer_sum(
    x: Tensor, dim: Sequence[int] | int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """By a product with ones: ONNX Runtime's sum of integers goes through float64."""
    flat, dims = to_last(x.to(torch.int64), dim)
    ones = torch.ones_like(flat.flatten(0, -2)[0] if flat.dim() > 1 else flat)
    found = (flat @ ones[:, None]).squeeze(-1) if flat.dim() > 1 else dot(flat, ones)
    found = with_axes(found, dims) if keepdim else found
    return found.to(dtype or torch.int64)


def prod(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Of integers: ONNX Runtime's goes through floats."""
    whole = dtype or torch.int64
    if dim is None:
        x, dim = x.flatten(), 0
    found = _cumulated(x.to(torch.int64), dim, torch.mul)[-1].to(whole)
    return found.unsqueeze(dim) if keepdim else found


def dot(x: Tensor, y: Tensor) -> Tensor:
    return (x[None] @ y[:, None]).flatten()[0]


def cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    kind = dtype or (x.dtype if x.is_floating_point() else torch.int64)
    return torch.stack(_cumulated(x.to(kind), dim, torch.mul), dim)


def cummax(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _extremes(x, dim, torch.ge)


def cummin(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _extremes(x, dim, torch.le)


def _extremes(
    x: Tensor, dim: int, beats: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    parts = _parts(x, dim)
    best, at = parts[0], torch.zeros_like(parts[0], dtype=torch.int64)
    values, indices = [best], [at]
    for number, part in enumerate(parts[1:], 1):
        chosen = beats(part, best)
        if x.is_floating_point():
            chosen = chosen | torch.isnan(part)
        best, at = torch.where(chosen, part, best), torch.where(chosen, number, at)
        values.append(best)
        indices.append(at)
    return torch.stack(values, dim), torch.stack(indices, dim)


def _cumulated(x: Tensor, dim: int, step: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for part in _parts(x, dim):
        found.append(step(found[-1], part) if found else part)
    return found


def _parts(x: Tensor, dim: int) -> Sequence[Tensor]:
    """The tensors along an axis, which must have a fixed size."""
    size = x.shape[dim]
    if not isinstance(size, int) or not 0 < size <= MAX_UNROLLED:
        raise ZooError(
            f"an operator that goes along an axis of {size} elements cannot be exported; it needs "
            f"a fixed size of at most {MAX_UNROLLED}."
        )
    return x.unbind(dim)


# --- order


def sort(
    x: Tensor, dim: int = -1, descending: bool = False, *, stable: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Stable, as ONNX's TopK is."""
    ordered = x.to(torch.int32) if x.dtype == torch.bool else x
    values, indices = torch.topk(ordered, x.shape[dim], dim, largest=descending, sorted=True)
    return values.to(x.dtype), indices


def argsort(x: Tensor, dim: int = -1, descending: bool = False) -> Tensor:
    return sort(x, dim, descending)[1]


def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, indices = sort(x, dim)
    found = values.narrow(dim, k - 1, 1), indices.narrow(dim, k - 1, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of two in the middle, as torch has it."""
    return kthvalue(x, (x.shape[dim] - 1) // 2 + 1, dim, keepdim)


def searchsorted(
    sequence: Tensor,
    values: Value,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """The number of elements that are less, or not larger."""
    values = as_tensor(values, None)
    if sorter is not None:
        sequence = sequence.gather(-1, sorter)
    if sequence.dim() > 1:
        sequence = sequence.unsqueeze(-2)
    larger = values.unsqueeze(-1)
    before = sequence <= larger if right or side == "right" else sequence < larger
    found = before.to(torch.int32).sum(-1)
    return found.to(torch.int32 if out_int32 else torch.int64)


def isin(
    elements: Tensor, tests: Tensor, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    found = (elements.unsqueeze(-1) == tests.flatten()).any(-1)
    return ~found if invert else found


# --- places


def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """By its indices: torch.onnx multiplies with a mask, which spreads NaN."""
    moved = x.movedim((dim1, dim2), (-2, -1))
    rows, columns = moved.shape[-2:]
    down, right = (0, offset) if offset >= 0 else (-offset, 0)
    numbers = torch.arange(builtins.min(rows - down, columns - right), device=x.device)
    return moved.flatten(-2).index_select(-1, (numbers + down) * columns + numbers + right)


def scatter_mean(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    own = x if include_self else x.scatter(dim, index, 0)
    first = torch.ones_like(x)
    first = first if include_self else first.scatter(dim, index, 0)
    count = first.scatter_add(dim, index, torch.ones_like(source))
    total = own.scatter_add(dim, index, source)
    return torch.where(count == 0, x, total / torch.where(count == 0, 1, count))

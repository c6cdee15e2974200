"""Operators of torch for which torch.onnx has no translation, or one that computes something else
than torch: each as a function of others that are translated right.

A decomposition takes the operator's arguments and gives its result, so that it can be compared with
the operator itself. In the equations of a decomposition stand only operators that are not in the
table.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError

Number = int | float | bool
Value = Tensor | Number

MAX_UNROLLED = 1024  # elements of an axis that is computed one by one

# --- exponentials and logarithms, without cancellation or overflow


def elu(x: Tensor, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Tensor:
    return torch.where(x > 0, x * scale, expm1(x * input_scale) * (alpha * scale))


def cosh(x: Tensor) -> Tensor:
    return (torch.exp(x) + torch.exp(-x)) / 2


def expm1(x: Tensor) -> Tensor:
    x = _floating(x)
    half = torch.tanh(x / 2)
    return torch.where(x.abs() < 0.5, 2 * half / (1 - half), torch.exp(x) - 1)


def log1p(x: Tensor) -> Tensor:
    """Kahan: the rounding of 1 + x is the same in its logarithm and in (1 + x) - 1."""
    x = _floating(x)
    sum_ = 1 + x
    exact = torch.log(sum_) * x / (sum_ - 1)
    return torch.where((sum_ == 1) | (sum_ == math.inf), x, exact)


def log10(x: Tensor) -> Tensor:
    return torch.log(_floating(x)) * (1 / math.log(10))


def log_sigmoid(x: Tensor) -> Tensor:
    return torch.where(x < 0, x, 0) - log1p(torch.exp(-x.abs()))


def softplus(x: Tensor, beta: Number = 1, threshold: Number = 20) -> Tensor:
    scaled = x * beta
    soft = (torch.where(scaled > 0, scaled, 0) + log1p(torch.exp(-scaled.abs()))) / beta
    return torch.where(scaled > threshold, x, soft)


def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    return _log_of_sum(x, y, torch.exp, 1.0)


def logaddexp2(x: Tensor, y: Tensor) -> Tensor:
    return _log_of_sum(x, y, torch.exp2, math.log(2))


def _log_of_sum(x: Tensor, y: Tensor, power: Callable[[Tensor], Tensor], base: float) -> Tensor:
    large = torch.where((x > y) | torch.isnan(x), x, y)
    found = large + log1p(power(-(x - y).abs())) / base
    return torch.where((x == y) & torch.isinf(x), x, found)


def xlogy(x: Value, y: Value) -> Tensor:
    x, y = _tensors(x, y)
    return torch.where((x == 0) & ~torch.isnan(y), 0, x * torch.log(y))


# --- signs and angles


def signbit(x: Tensor) -> Tensor:
    """Of -0 as well, by its reciprocal."""
    if not x.is_floating_point():
        return x < 0
    return (x < 0) | ((x == 0) & (1 / x < 0))


def copysign(x: Value, y: Value) -> Tensor:
    x, y = _tensors(x, y)
    size = _floating(x).abs()
    return torch.where(signbit(y), -size, size)


def sign(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


def heaviside(x: Tensor, values: Tensor) -> Tensor:
    return torch.where(x == 0, values, (x > 0).to(values.dtype))


def hypot(x: Tensor, y: Tensor) -> Tensor:
    """Scaled by the larger, so that squares do not overflow."""
    large, small = _ordered(x.abs(), y.abs())
    ratio = torch.where(large == 0, 0, small / large)
    length = large * torch.sqrt(1 + ratio * ratio)
    return torch.where(torch.isinf(x) | torch.isinf(y), math.inf, length)


def atan2(y: Tensor, x: Tensor) -> Tensor:
    y, x = _floating(y), _floating(x)
    large, small = _ordered(y.abs(), x.abs())
    ratio = torch.where(large == 0, 0, small / large)
    ratio = torch.where(torch.isinf(small) & torch.isinf(large), 1, ratio)
    angle = torch.atan(ratio)
    angle = torch.where(y.abs() > x.abs(), math.pi / 2 - angle, angle)
    return copysign(torch.where(signbit(x), math.pi - angle, angle), y)


def _ordered(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The larger and the smaller, elementwise; NaN where either is."""
    chosen = (x > y) | torch.isnan(x)
    return torch.where(chosen, x, y), torch.where(chosen & ~torch.isnan(x), y, x)


# --- rounded division


def divide(x: Value, y: Value, *, rounding_mode: str | None = None) -> Tensor:
    x, y = _tensors(x, y)
    if rounding_mode is None:
        return torch.true_divide(x, y)
    if torch.result_type(x, y).is_floating_point:
        return _floor_divide(x, y) if rounding_mode == "floor" else torch.trunc(x / y)
    floor = torch.floor_divide(x, y)
    if rounding_mode == "floor":
        return floor
    return torch.where((floor < 0) & (floor * y != x), floor + 1, floor)


def _floor_divide(x: Tensor, y: Tensor) -> Tensor:
    """As Python divides: from the exact remainder, so that the quotient is no whole number too
    large."""
    rest = torch.fmod(x, y)
    quotient = (x - rest) / y
    quotient = torch.where((rest != 0) & ((y < 0) != (rest < 0)), quotient - 1, quotient)
    whole = torch.floor(quotient)
    whole = torch.where(quotient - whole > 0.5, whole + 1, whole)
    whole = torch.where(quotient == 0, copysign(torch.zeros_like(quotient), x / y), whole)
    return torch.where(y == 0, x / y, whole)


def fmod(x: Value, y: Value) -> Tensor:
    """Of integers: ONNX Runtime computes it in floats."""
    x, y = _tensors(x, y)
    return x - divide(x, y, rounding_mode="trunc") * y


def remainder(x: Value, y: Value) -> Tensor:
    """Of floats, from the exact remainder of the division that rounds to zero."""
    x, y = _tensors(x, y)
    rest = torch.fmod(x, y)
    return torch.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest)


# --- extremes


def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x < y, x, y)


def maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x > y, x, y)


def fmax(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isnan(x) | (y > x), y, x)


def fmin(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isnan(x) | (y < x), y, x)


def clamp(x: Tensor, min: Value | None = None, max: Value | None = None) -> Tensor:
    dtype = x.dtype
    for bound in (min, max):
        if bound is not None:
            dtype = torch.promote_types(dtype, torch.result_type(x, bound))
    x = x.to(dtype)
    if min is not None:
        low = _as_tensor(min, dtype)
        x = torch.where((x < low) | (low != low), low, x)
    if max is not None:
        high = _as_tensor(max, dtype)
        x = torch.where((x > high) | (high != high), high, x)
    return x


def clamp_min(x: Tensor, min: Value) -> Tensor:
    return clamp(x, min=min)


def clamp_max(x: Tensor, max: Value) -> Tensor:
    return clamp(x, max=max)


def nan_to_num(
    x: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    if not x.is_floating_point():
        return x.clone()
    limits = torch.finfo(x.dtype)
    given = 0.0 if nan is None else nan
    high = limits.max if posinf is None else posinf
    low = limits.min if neginf is None else neginf
    x = torch.where(torch.isnan(x), _as_tensor(given, x.dtype), x)
    x = torch.where(x == math.inf, _as_tensor(high, x.dtype), x)
    return torch.where(x == -math.inf, _as_tensor(low, x.dtype), x)


def isclose(
    x: Tensor, y: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    close = x == y
    if equal_nan and x.is_floating_point():
        close = close | (torch.isnan(x) & torch.isnan(y))
    difference = (x - y).abs()
    finite = torch.isfinite(difference) if difference.is_floating_point() else close | True
    return close | (finite & (difference <= atol + (rtol * y).abs()))


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
    flat, dims = _to_last(x, dim)
    found = flat.gather(-1, index(flat, -1, keepdim=True)).squeeze(-1)
    return _with_axes(found, dims) if keepdim else found


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
    flat, dims = _to_last(x.to(torch.int64), dim)
    ones = torch.ones_like(flat.flatten(0, -2)[0] if flat.dim() > 1 else flat)
    found = (flat @ ones[:, None]).squeeze(-1) if flat.dim() > 1 else dot(flat, ones)
    found = _with_axes(found, dims) if keepdim else found
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
    values = _as_tensor(values, None)
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


# --- bytes


def shift_of_bytes(shift: Callable[[Tensor, Tensor], Tensor], x: Value, by: Value) -> Tensor:
    """torch.onnx shifts unsigned bytes as signed ones."""
    x, by = _tensors(x, by)
    return shift(x.to(torch.int64), by.to(torch.int64)).to(torch.result_type(x, by))


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0)


def square(x: Tensor) -> Tensor:
    return power(x, 2)


def neg(x: Tensor) -> Tensor:
    return (-x.to(torch.int64)).to(x.dtype)


def power(x: Value, y: Value) -> Tensor:
    """Short integers wrap around."""
    x, y = _tensors(x, y)
    dtype = torch.result_type(x, y)
    if dtype.is_floating_point:
        return torch.pow(x, y)
    return torch.pow(x.to(torch.int64), y.to(torch.int64)).to(dtype)


def add(x: Value, y: Value, *, alpha: Number = 1) -> Tensor:
    """Of bools, and of float64 with a number."""
    x, y = _tensors(x, y)
    return x | y if x.dtype == torch.bool else torch.add(x, y, alpha=alpha)


# --- weighted sums whose factors torch.onnx holds in float32


def lerp(x: Tensor, y: Tensor, weight: Value) -> Tensor:
    weight = _as_tensor(weight, x.dtype)
    near = x + weight * (y - x)
    return torch.where(weight.abs() < 0.5, near, y - (y - x) * (1 - weight))


def addcmul(x: Tensor, y: Tensor, z: Tensor, *, value: Number = 1) -> Tensor:
    return x + value * y * z


def addcdiv(x: Tensor, y: Tensor, z: Tensor, *, value: Number = 1) -> Tensor:
    return x + value * (y / z)


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


# --- distances


def cdist(x: Tensor, y: Tensor, p: float = 2, compute_mode: int | None = None) -> Tensor:
    gaps = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if p == math.inf:
        return gaps.amax(-1)
    if p == 0:
        return (gaps != 0).to(gaps.dtype).sum(-1)
    if p == 1:
        return gaps.sum(-1)
    return gaps.square().sum(-1).sqrt() if p == 2 else gaps.pow(p).sum(-1).pow(1 / p)


# --- what several need


def _floating(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _as_tensor(value: Value, dtype: torch.dtype | None) -> Tensor:
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
        step = builtins.max(-100, builtins.min(100, exponent))
        found = found * torch.full((), 2.0**step, dtype=torch.float64)
        exponent -= step
    return found


def _tensors(x: Value, y: Value) -> tuple[Tensor, Tensor]:
    """Both as tensors of their common type."""
    dtype = torch.result_type(x, y)
    return _as_tensor(x, dtype), _as_tensor(y, dtype)


def _to_last(x: Tensor, dim: Sequence[int] | int | None) -> tuple[Tensor, list[int]]:
    """With these axes (all, for none) as the last one, and their sorted numbers."""
    if x.dim() == 0:
        return x.reshape(1), []
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        dim = range(x.dim())
    dims = sorted(d % x.dim() for d in ([dim] if isinstance(dim, int) else dim))
    rest = [d for d in range(x.dim()) if d not in dims]
    return x.permute(*rest, *dims).flatten(len(rest)), dims


def _with_axes(x: Tensor, dims: Sequence[int]) -> Tensor:
    for d in dims:
        x = x.unsqueeze(d)
    return x

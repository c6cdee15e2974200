"""Rounded division, extremes, and integers that wrap around: ONNX Runtime computes several of them
through floats, or compares int64 by its lower bits."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo_onnx.decompositions.floats import copysign
from zoo_onnx.decompositions.values import Number, Value, as_tensor, tensors

# --- rounded division


def divide(x: Value, y: Value, *, rounding_mode: str | None = None) -> Tensor:
    x, y = tensors(x, y)
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
    x, y = tensors(x, y)
    return x - divide(x, y, rounding_mode="trunc") * y


def remainder(x: Value, y: Value) -> Tensor:
    """Of floats, from the exact remainder of the division that rounds to zero."""
    x, y = tensors(x, y)
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
        low = as_tensor(min, dtype)
        below = (x < low) | (low != low) if isinstance(min, Tensor) else x < low
        x = torch.where(below, low, x)
    if max is not None:
        high = as_tensor(max, dtype)
        above = (x > high) | (high != high) if isinstance(max, Tensor) else x > high
        x = torch.where(above, high, x)
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
    x = torch.where(torch.isnan(x), as_tensor(given, x.dtype), x)
    x = torch.where(x == math.inf, as_tensor(high, x.dtype), x)
    return torch.where(x == -math.inf, as_tensor(low, x.dtype), x)


def isclose(
    x: Tensor, y: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    close = x == y
    if equal_nan and x.is_floating_point():
        close = close | (torch.isnan(x) & torch.isnan(y))
    difference = (x - y).abs()
    finite = torch.isfinite(difference) if difference.is_floating_point() else close | True
    return close | (finite & (difference <= atol + (rtol * y).abs()))


# --- bytes


def shift_of_bytes(shift: Callable[[Tensor, Tensor], Tensor], x: Value, by: Value) -> Tensor:
    """torch.onnx shifts unsigned bytes as signed ones."""
    x, by = tensors(x, by)
    return shift(x.to(torch.int64), by.to(torch.int64)).to(torch.result_type(x, by))


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0)


def square(x: Tensor) -> Tensor:
    return power(x, 2)


def neg(x: Tensor) -> Tensor:
    return (-x.to(torch.int64)).to(x.dtype)


def power(x: Value, y: Value) -> Tensor:
    """Short integers wrap around."""
    x, y = tensors(x, y)
    dtype = torch.result_type(x, y)
    if dtype.is_floating_point:
        return torch.pow(x, y)
    return torch.pow(x.to(torch.int64), y.to(torch.int64)).to(dtype)


def add(x: Value, y: Value, *, alpha: Number = 1) -> Tensor:
    """Of bools, and of float64 with a number."""
    x, y = tensors(x, y)
    return x | y if x.dtype == torch.bool else torch.add(x, y, alpha=alpha)

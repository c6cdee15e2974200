"""Functions of floats whose translation cancels, overflows, or rounds to float32."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo_onnx.decompositions.values import Number, Value, as_tensor, floating, tensors

# --- exponentials and logarithms, without cancellation or overflow


def elu(x: Tensor, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1) -> Tensor:
    return torch.where(x > 0, x * scale, expm1(x * input_scale) * (alpha * scale))


def cosh(x: Tensor) -> Tensor:
    return (torch.exp(x) + torch.exp(-x)) / 2


def expm1(x: Tensor) -> Tensor:
    x = floating(x)
    half = torch.tanh(x / 2)
    return torch.where(x.abs() < 0.5, 2 * half / (1 - half), torch.exp(x) - 1)


def log1p(x: Tensor) -> Tensor:
    """Kahan: the rounding of 1 + x is the same in its logarithm and in (1 + x) - 1."""
    x = floating(x)
    sum_ = 1 + x
    exact = torch.log(sum_) * x / (sum_ - 1)
    return torch.where((sum_ == 1) | (sum_ == math.inf), x, exact)


def log10(x: Tensor) -> Tensor:
    return torch.log(floating(x)) * (1 / math.log(10))


def log_sigmoid(x: Tensor) -> Tensor:
    return torch.where(x < 0, x, 0) - log1p(torch.exp(-x.abs()))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """As opset 19 can say it. ONNX Runtime fuses the first form into one operator; in the second,
    (1 + tanh z) / 2 is the sigmoid of 2z, which takes fewer operators and does not cancel."""
    if approximate == "none":
        return (x * 0.5) * (torch.erf(x / math.sqrt(2)) + 1)
    slope = 2 * math.sqrt(2 / math.pi)
    return x * torch.sigmoid(x * (x * x * (0.044715 * slope) + slope))


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
    x, y = tensors(x, y)
    return torch.where((x == 0) & ~torch.isnan(y), 0, x * torch.log(y))


# --- signs and angles


def signbit(x: Tensor) -> Tensor:
    """Of -0 as well, by its reciprocal."""
    if not x.is_floating_point():
        return x < 0
    return (x < 0) | ((x == 0) & (1 / x < 0))


def copysign(x: Value, y: Value) -> Tensor:
    x, y = tensors(x, y)
    size = floating(x).abs()
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
    y, x = floating(y), floating(x)
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


# --- weighted sums whose factors torch.onnx holds in float32


def lerp(x: Tensor, y: Tensor, weight: Value) -> Tensor:
    weight = as_tensor(weight, x.dtype)
    near = x + weight * (y - x)
    return torch.where(weight.abs() < 0.5, near, y - (y - x) * (1 - weight))


def addcmul(x: Tensor, y: Tensor, z: Tensor, *, value: Number = 1) -> Tensor:
    return x + value * y * z


def addcdiv(x: Tensor, y: Tensor, z: Tensor, *, value: Number = 1) -> Tensor:
    return x + value * (y / z)


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

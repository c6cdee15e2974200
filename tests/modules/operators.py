"""Single operators for the fuzz of the exporter of modules: functions of one to three tensors, with
the dtypes and the magnitudes that make sense for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[..., Any]  # of tensors, to a tensor or a tuple of them

f16, f32, f64 = torch.float16, torch.float32, torch.float64
i8, i16, i32, i64 = torch.int8, torch.int16, torch.int32, torch.int64
u8, boolean = torch.uint8, torch.bool
FLOAT = (f32,)
FLOATS = (f32, f16, f64)
INTEGERS = (i64, i32, i16, i8, u8)
MOST = (i64, i32, i8, u8)
SIGNED = (i64, i32, i16, i8)
WIDE = (i64, i32)
EVERY = (*FLOATS, *INTEGERS, boolean)
BITS = {i64: 62, i32: 31, i16: 15, i8: 7, u8: 8}  # the sizes of values stay below 2**BITS
ROW = (4, 6)
# Counters start just below the largest value, so that they wrap around; that of int64 has values
# that no float holds.
START = {i64: 2**62 + 1, i32: 2**31 - 20, i16: 2**15 - 20, i8: 100, u8: 230}


@dataclass(frozen=True)
class Values:
    """The values of one input: see `draw` for the kinds. `shape` has no batch axis; `dtype` is by
    default that of the variant of the operator."""

    kind: str
    shape: tuple[int, ...] = ROW
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Operator:
    """`function` of tensors with these dtypes and kinds of values, to one tensor or several.

    `alike` says that every result is as inexact as the least exact one: sums, of which one may be
    right by chance, and functions whose formulas round at the size of their inputs or of 1.
    """

    name: str
    function: Function
    inputs: tuple[tuple[torch.dtype, str, tuple[int, ...]], ...]
    alike: bool = False

    def draw(self, rng: np.random.Generator, rows: int) -> list[Tensor]:
        """Values of each input, [rows, …]."""
        return [draw(rng, dtype, kind, (rows, *shape)) for dtype, kind, shape in self.inputs]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        results = self.function(*inputs)
        return tuple(results) if isinstance(results, tuple | list) else (results,)

    def in_floats(self, dtype: torch.dtype, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The results with this dtype instead of every float's own."""
        return self(*(value.to(dtype) if value.is_floating_point() else value for value in inputs))


class Operators(nn.Module):
    """A step that computes operators of its inputs, and carries for each a state with the dtype of
    its first result: a leaky float, a counter, or a boolean that flips."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__()
        self.operators = operators
        self.dtypes = [
            operator(*operator.draw(np.random.default_rng(0), 2))[0].dtype for operator in operators
        ]

    def forward(self, *streams: Any) -> tuple[dict[str, tuple[Tensor, ...]], list[Tensor]]:
        *inputs, state = streams
        remaining, results = iter(inputs), {}
        for operator in self.operators:
            own = [next(remaining) for _ in operator.inputs]
            results[operator.name] = operator(*own)
        return results, [self._after(leaf) for leaf in state]

    def _after(self, state: Tensor) -> Tensor:
        if state.dtype == boolean:
            return ~state
        return 0.75 * state + 0.5 if state.dtype.is_floating_point else state + 1

    def initial(self, rows: int) -> list[Tensor]:
        return [torch.full((rows, 3), START.get(dtype, 0), dtype=dtype) for dtype in self.dtypes]

    def draw(self, rng: np.random.Generator, rows: int) -> list[Tensor]:
        return [value for operator in self.operators for value in operator.draw(rng, rows)]


def draw(rng: np.random.Generator, dtype: torch.dtype, kind: str, shape: tuple[int, ...]) -> Tensor:
    """Random values of one of these kinds. Integers below n: "below n".

    Floats: "unit" (normal), "small" (1e-6), "large" (1e6, in float16 1e3), "halves" (k + 0.5, for
    small k), "whole", "zeros" (of both signs), "special" (infinities and NaN); "finite" is any of
    these but the last, "any" any; "moderate" any but "large" and "special"; "distinct" has values
    that differ by 1/2 or more; "positive" has sizes from 1e-6 to 1e6; "ratio" is between -1 and 1,
    both included, "fraction" from 0.01 to 1, "above one" from 1 to 1e6, "to a hundred" multiples of
    1/4; "infinite" is a third -inf, else "unit".

    Integers: "wide" (or "finite" or "any") has sizes of all magnitudes below 2**BITS, "short" below
    10; "divisor" is "wide" without 0, "count" from 0 to 9, "shift" from 0 to the bits of the type,
    excluded. Booleans: "half" or "mostly" true.
    """
    words = kind.split()
    if words[0] == "below":
        value = rng.integers(0, int(words[1]), shape)
    elif dtype == boolean:
        value = rng.random(shape) < (0.9 if kind == "mostly" else 0.5)
    elif dtype.is_floating_point:
        value = _floats(rng, dtype, kind, shape)
    else:
        value = _integers(rng, dtype, kind, shape)
    return torch.from_numpy(np.asarray(value)).to(dtype)


FINITE = ("unit", "small", "large", "halves", "whole", "zeros")
MIXED = {
    "finite": FINITE,
    "any": (*FINITE, "special"),
    "moderate": ("unit", "small", "halves", "whole", "zeros"),
}


def _floats(rng: np.random.Generator, dtype: torch.dtype, kind: str, shape: tuple[int, ...]) -> Any:
    if kinds := MIXED.get(kind):
        parts = [_floats(rng, dtype, part, shape) for part in kinds]
        return np.choose(rng.integers(0, len(parts), shape), parts)
    large = 1e3 if dtype == f16 else 1e6
    match kind:
        case "unit":
            return rng.normal(size=shape)
        case "small":
            return rng.normal(size=shape) * 1e-6
        case "large":
            return rng.normal(size=shape) * large
        case "halves":
            return rng.integers(-6, 6, shape) + 0.5
        case "whole":
            return rng.integers(-5, 6, shape).astype(np.float64)
        case "zeros":
            return rng.choice([0.0, -0.0], shape)
        case "special":
            return rng.choice([np.inf, -np.inf, np.nan], shape)
        case "infinite":
            return np.where(rng.random(shape) < 0.3, -np.inf, rng.normal(size=shape))
        case "distinct":
            order = rng.random(shape).argsort(-1) - shape[-1] // 2
            return order + rng.uniform(-0.25, 0.25, shape)
        case "positive":
            return np.exp(rng.uniform(np.log(1e-4 if dtype == f16 else 1e-6), np.log(large), shape))
        case "ratio":
            return np.where(rng.random(shape) < 0.1, rng.choice([-1.0, 1.0], shape),
                            rng.uniform(-1, 1, shape))  # fmt: skip
        case "fraction":
            return rng.uniform(0.01, 1, shape)
        case "above one":
            return np.exp(rng.uniform(0, np.log(large), shape))
        case "to a hundred":  # exact halves and other fractions that every integer type holds
            return np.round(rng.uniform(0, 100, shape) * 4) / 4
    raise ValueError(kind)


def _integers(
    rng: np.random.Generator, dtype: torch.dtype, kind: str, shape: tuple[int, ...]
) -> Any:
    bits = BITS[dtype]
    sign = 1 if dtype == u8 else rng.choice([-1, 1], shape)
    wide = rng.integers(0, 2**bits, shape) >> rng.integers(0, bits, shape)
    match kind:
        case "wide" | "finite" | "any":
            return wide * sign
        case "divisor":
            return np.maximum(wide, 1) * sign
        case "short":
            return rng.integers(0, 10, shape) * sign
        case "count":
            return rng.integers(0, 10, shape)
        case "shift":
            return rng.integers(0, bits, shape)
    raise ValueError(kind)


@cache  # a call before the trace makes it a constant of the traced graph
def weights(*shape: int) -> Tensor:
    """Constants between -1 and 1 that float16 holds exactly."""
    count = int(np.prod(shape))
    return ((torch.arange(count) * 37 % 101 - 50) / 64).reshape(shape)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


TABLE: list[Operator] = []


def add(
    name: str,
    function: Function,
    *values: str | Values,
    dtypes: Sequence[torch.dtype] = FLOAT,
    alike: bool = False,
) -> None:
    """Adds a variant of the operator for each dtype."""
    entries = [Values(value) if isinstance(value, str) else value for value in values]
    for dtype in dtypes:
        inputs = tuple((entry.dtype or dtype, entry.kind, entry.shape) for entry in entries)
        TABLE.append(Operator(f"{name}-{_short(dtype)}", function, inputs, alike))


def index(limit: int, *shape: int, dtype: torch.dtype = i64) -> Values:
    return Values(f"below {limit}", shape, dtype)


def unit(*shape: int) -> Values:
    return Values("unit", shape)


# fmt: off
# --- Elementwise functions of one float

add("sin", torch.sin, "any", dtypes=FLOATS)
add("cos", torch.cos, "any", dtypes=FLOATS)
add("tan", torch.tan, "any")
add("asin", torch.asin, "ratio", dtypes=(f32, f16))
add("acos", torch.acos, "ratio")
add("atan", torch.atan, "any", dtypes=FLOATS)
add("sinh", torch.sinh, "any")
add("cosh", torch.cosh, "any", dtypes=FLOATS)
add("tanh", torch.tanh, "any", dtypes=FLOATS)
add("asinh", torch.asinh, "any")
add("acosh", torch.acosh, "above one")
add("atanh", torch.atanh, "ratio")
add("exp", torch.exp, "any", dtypes=FLOATS)
add("exp2", torch.exp2, "any")
add("expm1", torch.expm1, "any", dtypes=FLOATS)
add("log", torch.log, "any", dtypes=FLOATS)
add("log2", torch.log2, "any")
add("log10", torch.log10, "any", dtypes=FLOATS)
add("log1p", torch.log1p, "any", dtypes=FLOATS)
add("erf", torch.erf, "any", dtypes=FLOATS)
add("erfc", torch.erfc, "any", alike=True)
add("erfinv", torch.erfinv, "ratio")
add("lgamma", torch.lgamma, "positive")
add("digamma", torch.digamma, "positive")
add("i0", torch.special.i0, "moderate")
add("sinc", torch.sinc, "finite")
add("sqrt", torch.sqrt, "any", dtypes=FLOATS)
add("rsqrt", torch.rsqrt, "any", dtypes=FLOATS)
add("reciprocal", torch.reciprocal, "any", dtypes=FLOATS)
add("square", torch.square, "any", dtypes=(f32, f64))
add("cube", lambda x: x**3, "any")
add("inverse_square", lambda x: x**-2, "any", dtypes=FLOATS)
add("cube_root", lambda x: x.abs() ** (1 / 3), "any", dtypes=(f32, f64))
add("power_half", lambda x: x**0.5, "any")
add("power_base", lambda x: 2**x, "any", dtypes=FLOATS)
add("float_power", lambda x: torch.float_power(x, 2), "moderate")
add("round", torch.round, "any", dtypes=FLOATS)
add("round_decimals", lambda x: torch.round(x, decimals=2), "moderate")
add("round_to_tens", lambda x: torch.round(x, decimals=-1), "finite")
add("floor", torch.floor, "any", dtypes=FLOATS)
add("ceil", torch.ceil, "any", dtypes=FLOATS)
add("trunc", torch.trunc, "any", dtypes=FLOATS)
add("frac", torch.frac, "finite", dtypes=FLOATS)
add("sign", torch.sign, "any", dtypes=FLOATS)
add("signbit", torch.signbit, "finite")
add("abs", torch.abs, "any", dtypes=FLOATS)
add("neg", torch.neg, "any", dtypes=(f32, f16))
add("clamp", lambda x: x.clamp(-1, 2.5), "any", dtypes=FLOATS)
add("clamp_min", lambda x: x.clamp(min=0.5), "any", dtypes=(f32, f64))
add("clamp_max", lambda x: x.clamp(max=0.5), "any")
add("clamp_tensors", torch.clamp, "any", "finite", "finite")
add("nan_to_num", torch.nan_to_num, "any", dtypes=FLOATS)
add("nan_to_num_given", lambda x: torch.nan_to_num(x, 1.0, 2.0, -3.0), "any")
add("isnan", torch.isnan, "any", dtypes=(f32, f16))
add("isinf", torch.isinf, "any", dtypes=(f32, f16))
add("isfinite", torch.isfinite, "any")
add("isposinf", torch.isposinf, "any")
add("isneginf", torch.isneginf, "any")
add("logit", torch.logit, "fraction")
add("logit_eps", lambda x: torch.logit(x, 0.1), "fraction")
add("sigmoid", torch.sigmoid, "any", dtypes=FLOATS, alike=True)
add("logsigmoid", F.logsigmoid, "any")
add("softplus", F.softplus, "any", dtypes=FLOATS)
add("softplus_beta", lambda x: F.softplus(x, 2, 5), "any")
add("gelu", F.gelu, "finite", dtypes=FLOATS, alike=True)
add("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), "moderate", alike=True)
add("silu", F.silu, "moderate", dtypes=FLOATS, alike=True)
add("mish", F.mish, "finite")
add("elu", F.elu, "any", dtypes=FLOATS, alike=True)
add("elu_alpha", lambda x: F.elu(x, 0.5), "any", alike=True)
add("celu", lambda x: F.celu(x, 2.0), "any", alike=True)
add("selu", F.selu, "any", alike=True)
add("hardswish", F.hardswish, "finite", dtypes=FLOATS)
add("hardsigmoid", F.hardsigmoid, "any")
add("hardtanh", lambda x: F.hardtanh(x, -0.5, 2.0), "any")
add("relu", F.relu, "any", dtypes=(f32, f16))
add("relu6", F.relu6, "any")
add("leaky_relu", lambda x: F.leaky_relu(x, 0.1), "any")
add("prelu", lambda x: F.prelu(x, weights(4).to(x)), "any")
add("softsign", F.softsign, "finite")
add("tanhshrink", F.tanhshrink, "moderate", alike=True)
add("softshrink", F.softshrink, "any")
add("hardshrink", F.hardshrink, "any")
add("threshold", lambda x: F.threshold(x, 0.5, -7.0), "any", dtypes=(f32, f16))
add("deg2rad", torch.deg2rad, "any")
add("rad2deg", torch.rad2deg, "any")
add("to_radians_and_back", lambda x: x * 0.1 / 0.1, "finite")

# --- Elementwise functions of two or three floats

add("add", torch.add, "any", "any", dtypes=FLOATS)
add("add_alpha", lambda x, y: torch.add(x, y, alpha=0.3), "any", "any")
add("sub", torch.sub, "any", "any", dtypes=FLOATS)
add("rsub", lambda x: 1 - x, "any")
add("mul", torch.mul, "any", "any", dtypes=FLOATS)
add("mul_broadcast", torch.mul, "any", Values("any", (1, 6)))
add("div", torch.div, "any", "any", dtypes=FLOATS)
add("div_trunc", lambda x, y: torch.div(x, y, rounding_mode="trunc"), "finite", "finite",
    dtypes=FLOATS)
add("div_floor", lambda x, y: torch.div(x, y, rounding_mode="floor"), "finite", "finite",
    dtypes=FLOATS)
add("floor_divide", lambda x: x // 0.3, "finite")
add("fmod", torch.fmod, "finite", "finite", dtypes=FLOATS)
add("fmod_by_infinity", torch.fmod, "any", "any")
add("fmod_number", lambda x: torch.fmod(x, 0.7), "moderate")
add("remainder", torch.remainder, "finite", "finite", dtypes=FLOATS)
add("remainder_by_infinity", torch.remainder, "any", "any")
add("remainder_number", lambda x: x % 0.7, "moderate")
add("remainder_negative", lambda x: x % -2, "moderate")
add("atan2", torch.atan2, "any", "any", dtypes=FLOATS)
add("hypot", torch.hypot, "any", "any", dtypes=FLOATS)
add("copysign", torch.copysign, "finite", "finite", dtypes=FLOATS)
add("power", torch.pow, "positive", "moderate", dtypes=FLOATS)
add("power_of_any", torch.pow, "any", "any")
add("logaddexp", torch.logaddexp, "any", "any", dtypes=FLOATS, alike=True)
add("logaddexp2", torch.logaddexp2, "finite", "finite", alike=True)
add("xlogy", torch.xlogy, "any", "any")
add("heaviside", torch.heaviside, "any", "finite")
add("ldexp", torch.ldexp, "finite", Values("short", dtype=i64))
add("nextafter", torch.nextafter, "finite", "finite")
add("maximum", torch.maximum, "any", "any", dtypes=(f32, f16))
add("minimum", torch.minimum, "any", "any", dtypes=(f32, f64))
add("fmax", torch.fmax, "any", "any")
add("fmin", torch.fmin, "any", "any")
add("lerp", lambda x, y: torch.lerp(x, y, 0.3), "moderate", "moderate", dtypes=FLOATS, alike=True)
add("lerp_tensor", torch.lerp, "unit", "unit", "unit", alike=True)
add("addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.3), "moderate", "moderate",
    "moderate", dtypes=FLOATS, alike=True)
add("addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=2), "finite", "finite", "positive")
add("equal", torch.eq, "any", "any", dtypes=(f32, f16))
add("not_equal", torch.ne, "any", "any")
add("less", torch.lt, "any", "any", dtypes=(f32, f16))
add("less_equal", torch.le, "any", "any")
add("greater", torch.gt, "any", "any")
add("greater_equal", lambda x: x >= 0.5, "any")
add("isclose", torch.isclose, "any", "any")
add("where", lambda x, y: torch.where(x > 0, x, y), "any", "any", dtypes=FLOATS)
add("where_number", lambda x: torch.where(x > 0, x, 0.1), "any")
add("float_and_integer", torch.add, "unit", Values("wide", dtype=i64))
add("integer_times_number", lambda x: x * 0.1, "wide", dtypes=(i64, i32, u8))
add("float32_and_float64", torch.mul, "unit", Values("unit", dtype=f64))
add("float16_and_float32", torch.add, "unit", Values("unit", dtype=f16))
add("smooth_l1", lambda x, y: F.smooth_l1_loss(x, y, reduction="none"), "finite", "finite")
add("huber", lambda x, y: F.huber_loss(x, y, reduction="none"), "finite", "finite")
add("squared_error", lambda x, y: F.mse_loss(x, y, reduction="none"), "finite", "finite")
add("binary_cross_entropy", lambda x, y: F.binary_cross_entropy(x, y, reduction="none"), "fraction",
    "fraction", alike=True)
add("binary_cross_entropy_of_logits",
    lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"), "finite", "fraction")
add("kl_div", lambda x, y: F.kl_div(x, y, reduction="none"), "moderate", "fraction", alike=True)

# --- Reductions and scans of floats

add("sum", lambda x: x.sum(-1), "finite", dtypes=FLOATS, alike=True)
add("sum_keepdim", lambda x: x.sum((1, 2), keepdim=True), "unit", alike=True)
add("sum_special", lambda x: x.sum(-1), "any", alike=True)
add("nansum", lambda x: x.nansum(-1), "any", alike=True)
add("mean", lambda x: x.mean(-1), "finite", dtypes=FLOATS, alike=True)
add("nanmean", lambda x: x.nanmean(-1), "any", alike=True)
add("var", lambda x: x.var(-1), "finite", dtypes=FLOATS, alike=True)
add("var_biased", lambda x: x.var(-1, unbiased=False), "unit", alike=True)
add("var_of_offset", lambda x: (x + 1000).var(-1), "unit", alike=True)
add("std", lambda x: x.std(-1), "finite", dtypes=FLOATS, alike=True)
add("std_correction", lambda x: x.std(-1, correction=2), "unit", alike=True)
add("var_mean", lambda x: torch.var_mean(x, -1), "unit", alike=True)
add("prod", lambda x: x.prod(-1), "finite", dtypes=FLOATS, alike=True)
add("amax", lambda x: x.amax(-1), "any", dtypes=FLOATS)
add("amin", lambda x: x.amin((1, 2)), "any", dtypes=(f32, f64))
add("aminmax", lambda x: torch.aminmax(x, dim=-1), "any")
add("max", lambda x: x.max(-1), "distinct", dtypes=(f32, f64))
add("max_with_nan", lambda x: x.max(-1), "any")
add("max_of_ties", lambda x: x.max(-1), "halves")
add("min", lambda x: x.min(1), "distinct")
add("argmax", lambda x: x.argmax(-1), "finite", dtypes=FLOATS)
add("argmax_of_ties", lambda x: x.argmax(-1), "halves")
add("argmax_with_nan", lambda x: x.argmax(-1), "any")
add("argmin", lambda x: x.argmin(-1), "finite", dtypes=(f32, f16))
add("argmin_with_nan", lambda x: x.argmin(-1), "any")
add("argmax_of_all", lambda x: x.flatten(1).argmax(1, keepdim=True), "finite")
add("logsumexp", lambda x: x.logsumexp(-1), "finite", dtypes=FLOATS, alike=True)
add("logsumexp_infinite", lambda x: x.logsumexp(-1), Values("infinite", (4, 2)), alike=True)
add("logcumsumexp", lambda x: x.logcumsumexp(-1), "unit", alike=True)
add("cumsum", lambda x: x.cumsum(-1), "finite", dtypes=FLOATS, alike=True)
add("cumsum_special", lambda x: x.cumsum(-1), "any", alike=True)
add("cumprod", lambda x: x.cumprod(-1), "unit", dtypes=FLOATS, alike=True)
add("cummax", lambda x: x.cummax(-1), "distinct")
add("cummin", lambda x: x.cummin(-1), "distinct")
add("any", lambda x: x.any(-1), "small", dtypes=(f32, f16))
add("any_of_zeros_and_nan", lambda x: x.any(-1), Values("any", (4, 2)))
add("all", lambda x: x.all(-1), Values("any", (4, 2)), dtypes=(f32, f16))
add("norm", lambda x: torch.linalg.vector_norm(x, dim=-1), "finite", dtypes=FLOATS, alike=True)
add("norm_1", lambda x: x.norm(1, -1), "finite", alike=True)
add("norm_infinity", lambda x: x.norm(float("inf"), -1), "finite")
add("norm_0", lambda x: torch.linalg.vector_norm(x, 0, -1), "finite")
add("norm_3", lambda x: x.norm(3, -1), "moderate", alike=True)
add("norm_of_matrix", lambda x: torch.linalg.matrix_norm(x), "unit", alike=True)
add("count_nonzero", lambda x: torch.count_nonzero(x, -1), "any")
add("median", lambda x: x.median(-1), Values("distinct", (4, 5)))
add("nanmedian", lambda x: x.nanmedian(-1).values, Values("any", (4, 5)))
add("quantile", lambda x: x.quantile(0.3, -1), "distinct")
add("kthvalue", lambda x: x.kthvalue(2, -1), "distinct")
add("sort", lambda x: torch.sort(x, dim=-1, stable=True), "finite", dtypes=FLOATS)
add("sort_descending", lambda x: torch.sort(x, dim=-1, descending=True, stable=True), "halves")
add("sort_with_nan", lambda x: torch.sort(x, dim=-1, stable=True).values, "any")
add("argsort", lambda x: x.argsort(-1), "distinct")
add("topk", lambda x: x.topk(3, -1), "distinct", dtypes=(f32, f16))
add("topk_smallest", lambda x: x.topk(3, 1, largest=False).values, "finite")
add("topk_with_nan", lambda x: x.topk(3, -1).values, "any")
add("diff", lambda x: x.diff(dim=-1), "finite", dtypes=(f32, i64))
add("trapezoid", lambda x: torch.trapezoid(x, dim=-1), "unit", alike=True)

# --- Integer arithmetic

add("add", torch.add, "wide", "wide", dtypes=INTEGERS)
add("add_number", lambda x: x + 100, "wide", dtypes=(i64, i32, u8))
add("add_large_number", lambda x: x + (2**53 + 1), "wide", dtypes=(i64,))
add("sub", torch.sub, "wide", "wide", dtypes=(i64, i32, u8))
add("rsub", lambda x: 7 - x, "wide", dtypes=(i64, i8, u8))
add("add_alpha", lambda x, y: torch.add(x, y, alpha=3), "wide", "wide", dtypes=(i64, i32, u8))
add("mul", torch.mul, "wide", "wide", dtypes=INTEGERS)
add("mul_number", lambda x: x * 37, "wide", dtypes=(i64, i32, u8))
add("square", torch.square, "wide", dtypes=(i64, i32, i8))
add("floor_divide", torch.floor_divide, "wide", "divisor", dtypes=INTEGERS)
add("floor_divide_number", lambda x: x // 7, "wide", dtypes=(i64, i32, u8))
add("floor_divide_negative", lambda x: x // -7, "wide", dtypes=SIGNED)
add("div_trunc", lambda x, y: torch.div(x, y, rounding_mode="trunc"), "wide", "divisor",
    dtypes=MOST)
add("div_trunc_number", lambda x: torch.div(x, -3, rounding_mode="trunc"), "wide", dtypes=WIDE)
add("div", torch.div, "wide", "divisor", dtypes=INTEGERS)
add("remainder", torch.remainder, "wide", "divisor", dtypes=MOST)
add("remainder_number", lambda x: x % 7, "wide", dtypes=(i64, i32, u8))
add("remainder_negative", lambda x: x % -7, "wide", dtypes=WIDE)
add("fmod", torch.fmod, "wide", "divisor", dtypes=MOST)
add("fmod_number", lambda x: torch.fmod(x, 7), "wide", dtypes=WIDE)
add("abs", torch.abs, "wide", dtypes=INTEGERS)
add("neg", torch.neg, "wide", dtypes=MOST)
add("sign", torch.sign, "wide", dtypes=(i64, i8))
add("relu", F.relu, "wide", dtypes=(i64, i32, i8))
add("clamp", lambda x: x.clamp(3, 100), "wide", dtypes=INTEGERS)
add("clamp_large", lambda x: x.clamp(-(2**53) - 1, 2**60 + 1), "wide", dtypes=(i64,))
add("clamp_tensors", torch.clamp, "wide", "wide", "wide", dtypes=WIDE)
add("minimum", torch.minimum, "wide", "wide", dtypes=INTEGERS)
add("maximum", torch.maximum, "wide", "wide", dtypes=MOST)
add("power_2", lambda x: x**2, "wide", dtypes=INTEGERS)
add("power_3", lambda x: x**3, "wide", dtypes=(i64, i32, i8))
add("power", torch.pow, "short", "count", dtypes=MOST)
add("power_base", lambda x: 3**x, "count", dtypes=WIDE)
add("gcd", torch.gcd, "wide", "wide", dtypes=(i64, i32))
add("and", torch.bitwise_and, "wide", "wide", dtypes=(i64, u8, boolean))
add("or", torch.bitwise_or, "wide", "wide", dtypes=(i64, u8, boolean))
add("xor", torch.bitwise_xor, "wide", "wide", dtypes=(i64, u8, boolean))
add("not", torch.bitwise_not, "wide", dtypes=(i64, u8, boolean))
add("and_number", lambda x: x & 0x55, "wide", dtypes=WIDE)
add("shift_left", torch.bitwise_left_shift, "wide", "shift", dtypes=MOST)
add("shift_right", torch.bitwise_right_shift, "wide", "shift", dtypes=INTEGERS)
add("shift_right_number", lambda x: x >> 2, "wide", dtypes=MOST)
add("shift_left_number", lambda x: x << 2, "wide", dtypes=WIDE)
add("equal", torch.eq, "short", "short", dtypes=(i64, u8))
add("equal_large", lambda x, y: x + 2**60 == y + 2**60, "short", "short", dtypes=(i64,))
add("not_equal", torch.ne, "short", "short", dtypes=(i64, u8))
add("less", torch.lt, "wide", "wide", dtypes=(i64, i32, u8))
add("less_large", lambda x, y: x + 2**60 < y + 2**60, "short", "short", dtypes=(i64,))
add("less_number", lambda x: x + 2**53 < 2**53 + 1, "short", dtypes=(i64,))
add("greater_equal", torch.ge, "wide", "wide", dtypes=(i64, u8))
add("less_than_fraction", lambda x: x < 2.5, "short", dtypes=(i64, u8))
add("less_than_float", torch.lt, "wide", Values("large", dtype=f32), dtypes=WIDE)
add("where", lambda x, y: torch.where(x > y, x, y), "wide", "wide", dtypes=INTEGERS)
add("integers_of_two_types", torch.add, "wide", Values("wide", dtype=i8), dtypes=WIDE)
add("bytes_of_two_signs", torch.mul, "wide", Values("wide", dtype=u8), dtypes=(i8,))
add("sum", lambda x: x.sum(-1), "wide", dtypes=INTEGERS)
add("sum_in_same_type", lambda x: x.sum(-1, dtype=x.dtype), "wide", dtypes=(i32, i8, u8))
add("mean_of_integers", lambda x: x.float().mean(-1), "short", dtypes=WIDE)
add("prod", lambda x: x.prod(-1), "wide", dtypes=MOST)
add("cumsum", lambda x: x.cumsum(-1), "wide", dtypes=(i64, i32, u8))
add("cumprod", lambda x: x.cumprod(-1), "short", dtypes=WIDE)
add("cummax", lambda x: x.cummax(-1).values, "wide", dtypes=(i64,))
add("amax", lambda x: x.amax(-1), "wide", dtypes=MOST)
add("amin", lambda x: x.amin(-1), "wide", dtypes=MOST)
add("argmax", lambda x: x.argmax(-1), "wide", dtypes=INTEGERS)
add("max_large", lambda x: (x + 2**60).amax(-1), "short", dtypes=(i64,))
add("argmax_large", lambda x: (x + 2**60).argmax(-1), "short", dtypes=(i64,))
add("sort", lambda x: torch.sort(x, dim=-1, stable=True), "wide", dtypes=(i64, u8))
add("topk", lambda x: x.topk(3, -1).values, "wide", dtypes=WIDE)
add("any", lambda x: x.any(-1), Values("short", (4, 2)), dtypes=WIDE)
add("all", lambda x: x.all(-1), "short", dtypes=WIDE)
add("count_nonzero", lambda x: torch.count_nonzero(x, -1), "short", dtypes=WIDE)
add("matmul", torch.matmul, "wide", Values("wide", (6, 3)), dtypes=(i64, i32, u8))
add("dot", lambda x, y: (x * y).sum(-1), "wide", "wide", dtypes=WIDE)
add("large_to_float32_and_back", lambda x: x.to(f32).to(i64), "wide", dtypes=(i64,))
add("large_to_float64_and_back", lambda x: x.to(f64).to(i64), "wide", dtypes=(i64,))
add("wrap_to_uint8_and_back", lambda x: x.to(u8).to(i64), "wide", dtypes=WIDE)
add("wrap_to_int16_and_back", lambda x: x.to(i16).to(i64), "wide", dtypes=WIDE)
add("wrap_in_uint8", lambda x: (x.to(u8) * 3 + 200).to(i32), "wide", dtypes=WIDE)
add("sqrt", torch.sqrt, "count", dtypes=(i64, u8))
add("true_divide_number", lambda x: x / 3, "wide", dtypes=WIDE)

# --- Casts

for source in EVERY:
    for target in EVERY:
        if source != target:
            kind = "any" if target.is_floating_point or target == boolean else "to a hundred"
            add(f"to_{_short(target)}", lambda x, target=target: x.to(target),
                kind if source.is_floating_point else "wide", dtypes=(source,))
add("to_float16_and_back", lambda x: x.to(f16).to(f32), "any")
add("to_float32_and_back", lambda x: x.to(f32).to(f64), "any", dtypes=(f64,))
add("floor_in_float16", lambda x: x.to(f16).floor().to(f32), "any")
add("square_in_float16", lambda x: x.to(f16).square().to(f32), "any")
add("negative_to_integer", lambda x: x.to(i64), "moderate", dtypes=FLOATS)
add("negative_to_int8", lambda x: x.to(i8), "moderate", dtypes=FLOATS)

# --- Booleans

add("logical_and", torch.logical_and, "half", "half", dtypes=(boolean,))
add("logical_or", torch.logical_or, "half", "half", dtypes=(boolean,))
add("logical_xor", torch.logical_xor, "half", "half", dtypes=(boolean,))
add("logical_not", torch.logical_not, "half", dtypes=(boolean,))
add("logical_and", torch.logical_and, "any", "any")
add("logical_and", torch.logical_and, "short", "short", dtypes=WIDE)
add("logical_not", torch.logical_not, "any", dtypes=(f32, f64))
add("equal", torch.eq, "half", "half", dtypes=(boolean,))
add("less", torch.lt, "half", "half", dtypes=(boolean,))
add("add", torch.add, "half", "half", dtypes=(boolean,))
add("mul", torch.mul, "half", "half", dtypes=(boolean,))
add("add_number", lambda x: x + 1, "half", dtypes=(boolean,))
add("sum", lambda x: x.sum(-1), "half", dtypes=(boolean,))
add("cumsum", lambda x: x.cumsum(-1), "half", dtypes=(boolean,))
add("any", lambda x: x.any(-1), Values("half", (4, 2)), dtypes=(boolean,))
add("all", lambda x: x.all(-1), "mostly", dtypes=(boolean,))
add("amax", lambda x: x.amax(-1), Values("half", (4, 2)), dtypes=(boolean,))
add("where", lambda x, y: torch.where(x, y, ~y), "half", "half", dtypes=(boolean,))
add("where_scalars", lambda x: torch.where(x, 1.5, -2.0), "half", dtypes=(boolean,))
add("cat", lambda x, y: torch.cat((x, y), -1), "half", "half", dtypes=(boolean,))
add("flip", lambda x: x.flip(-1), "half", dtypes=(boolean,))
add("sort", lambda x: torch.sort(x, dim=-1, stable=True), "half", dtypes=(boolean,))

# --- Indexing and rearranging

MOVED = (f32, i64, boolean)
add("gather", lambda x, i: x.gather(-1, i), "wide", index(6, 4, 3), dtypes=(i64,))
add("gather", lambda x, i: x.gather(-1, i), "any", index(6, 4, 3), dtypes=FLOATS)
add("take_along_dim", lambda x, i: torch.take_along_dim(x, i, 1), "any", index(4, 4, 6))
add("scatter", lambda x, y: x.scatter(-1, torch.arange(4, 1, -1).expand(y.shape), y), "any",
    Values("any", (4, 3)), dtypes=(f32, f16))
add("scatter_number", lambda x, i: x.scatter(-1, i, 0.5), "any", index(6, 4, 1))
add("scatter_add", lambda x, i, y: x.scatter_add(-1, i, y), "finite", index(6, 4, 5),
    Values("finite", (4, 5)), dtypes=FLOATS, alike=True)
add("scatter_add", lambda x, i, y: x.scatter_add(-1, i, y), "wide", index(6, 4, 5),
    Values("wide", (4, 5)), dtypes=WIDE)
add("scatter_amax", lambda x, i, y: x.scatter_reduce(-1, i, y, "amax"), "any", index(6, 4, 5),
    Values("any", (4, 5)))
add("scatter_mean", lambda x, i, y: x.scatter_reduce(-1, i, y, "mean"), "unit", index(6, 4, 5),
    Values("unit", (4, 5)), alike=True)
add("scatter_prod", lambda x, i, y: x.scatter_reduce(-1, i, y, "prod", include_self=False), "unit",
    index(6, 4, 5), Values("unit", (4, 5)), alike=True)
add("index_select", lambda x: x.index_select(-1, torch.tensor([5, 0, 0])), "any", dtypes=(f32, f16))
add("index_with_list", lambda x: x[:, [-1, 0, 2]], "any", dtypes=(f32, i64))
add("index_with_tensor", lambda x, i: x[torch.arange(x.shape[0]), i - 4], "any", index(8))
add("index_with_mask", lambda x: torch.where(x > 0, x, 0), "any")
add("index_put", lambda x, i: x.index_put((torch.arange(x.shape[0]), i), weights(6).to(x)), "any",
    index(4))
add("index_add", lambda x: x.index_add(1, torch.tensor([0, 0, 3]), x[:, :3]), "unit", alike=True)
add("index_copy", lambda x: x.index_copy(-1, torch.tensor([1, 4]), x[..., :2]), "any")
add("index_fill", lambda x: x.index_fill(-1, torch.tensor([1, 4]), 7.0), "any")
add("select", lambda x: x.select(-1, -2), "any")
add("slice", lambda x: x[:, -3:, 1:-1:2], "any", dtypes=MOVED)
add("slice_assign", lambda x: torch.slice_scatter(x, x[..., :2], -1, 2, 4), "any",
    dtypes=(f32, i64))
add("narrow", lambda x: x.narrow(-1, 1, 3), "any")
add("masked_fill", lambda x, m: x.masked_fill(m, -1e9), "any", Values("half", dtype=boolean))
add("masked_fill_infinity", lambda x, m: x.masked_fill(m, float("-inf")), "any",
    Values("half", dtype=boolean), dtypes=(f32, f64))
add("masked_fill", lambda x, m: x.masked_fill(m, 2), "wide", Values("half", dtype=boolean),
    dtypes=INTEGERS)
add("masked_scatter", lambda x, m: x.masked_scatter(m, x.flip(-1)), "unit",
    Values("half", dtype=boolean))
add("roll", lambda x: x.roll(2, -1), "any", dtypes=(f32, f16))
add("roll", lambda x: x.roll(-5, -1), "wide", dtypes=(i64, i32, u8))
add("roll_flat", lambda x: x.flatten(1).roll((3, -1), (1, 1)), "any")
add("flip", lambda x: x.flip((1, 2)), "any", dtypes=(f32, f64))
add("flip", lambda x: x.flip(-1), "wide", dtypes=(i64, i8))
add("rot90", lambda x: x.rot90(1, (1, 2)), "any")
add("pad_constant", lambda x: F.pad(x, (1, 2), value=0.5), "any", dtypes=(f32, f64))
add("pad_constant", lambda x: F.pad(x, (1, 2), value=3), "wide", dtypes=(i64, i32, i8, u8))
add("pad_constant", lambda x: F.pad(x, (1, 2), value=True), "half", dtypes=(boolean,))
add("pad_negative", lambda x: F.pad(x, (-1, 2, 1, -2)), "any")
add("pad_reflect", lambda x: F.pad(x, (3, 2), mode="reflect"), "any", dtypes=(f32, f16, i64))
add("pad_replicate", lambda x: F.pad(x, (3, 2), mode="replicate"), "any")
add("pad_circular", lambda x: F.pad(x, (3, 2), mode="circular"), "any")
add("cat", lambda x, y: torch.cat((x, y), -1), "any", "any", dtypes=(f32, f16))
add("cat", lambda x, y: torch.cat((x, y), 1), "wide", "wide", dtypes=(i64, i32, i8, u8))
add("cat_of_two_types", lambda x, y: torch.cat((x, y), -1), "any", Values("short", dtype=i64))
add("stack", lambda x, y: torch.stack((x, y), -1), "any", "any")
add("tile", lambda x: x.tile(1, 2, 3), "any", dtypes=(f32, f16))
add("repeat", lambda x: x.repeat(1, 2, 3), "wide", dtypes=(i64, i8))
add("expand", lambda x: x[:, :, None].expand(-1, -1, 3, -1), "any", dtypes=MOVED)
add("repeat_interleave", lambda x: x.repeat_interleave(3, -1), "any", dtypes=(f32, i64))
add("one_hot", lambda i: F.one_hot(i, 6), index(6, 4), dtypes=(i64,))
add("triu", lambda x: x.triu(1), "any", dtypes=(f32, f64))
add("tril", lambda x: x.tril(-1), "wide", dtypes=(i64, i32, u8))
add("tril", lambda x: x.tril(), "any", dtypes=(f32, f16))
add("tril", lambda x: x.tril(), "half", dtypes=(boolean,))
add("diagonal", lambda x: x.diagonal(1, 1, 2), "any")
add("diag_embed", torch.diag_embed, "any")
add("unfold", lambda x: x.unfold(-1, 3, 2), "any")
add("searchsorted", lambda x: torch.searchsorted(torch.arange(-3.0, 4).to(x), x), "halves",
    dtypes=FLOATS)
add("searchsorted_rows", lambda x, y: torch.searchsorted(x.sort(-1).values, y, right=True), "unit",
    "unit")
add("bucketize", lambda x: torch.bucketize(x, torch.arange(-3.0, 4).to(x)), "finite")
add("bucketize_right", lambda x: torch.bucketize(x, torch.arange(-3, 4), right=True), "short",
    dtypes=WIDE)
add("isin", lambda x: torch.isin(x, torch.tensor([1, 2, -3])), "short", dtypes=WIDE)
add("split", lambda x: x.split((1, 2, 3), -1), "any", dtypes=(f32, i64, i8))
add("chunk", lambda x: x.chunk(4, -1), "any")
add("unbind", lambda x: x.unbind(1), "any")
add("transpose", lambda x: x.transpose(1, 2), "any", dtypes=MOVED)
add("permute", lambda x: x.permute(0, 2, 1).flatten(1), "wide", dtypes=(i64, u8))
add("reshape", lambda x: x.reshape(x.shape[0], 3, -1), "any", dtypes=(f32, f64))
add("reshape_by_len", lambda x: x.reshape(len(x), 3, -1), "any")
add("squeeze", lambda x: x.squeeze(1).unsqueeze(-1), Values("any", (1, 6)))
add("channel_shuffle", lambda x: F.channel_shuffle(x, 2), Values("any", (4, 3, 3)))
add("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), Values("any", (8, 2, 3)))
add("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), Values("any", (2, 4, 6)))
add("embedding", lambda i: F.embedding(i, weights(6, 3)), index(6, 4), dtypes=WIDE)
add("embedding_with_padding", lambda i: F.embedding(i, weights(6, 3), padding_idx=0), index(6, 4),
    dtypes=(i64,))
add("embedding_bag", lambda i: F.embedding_bag(i, weights(6, 3), mode="mean"), index(6, 4),
    dtypes=(i64,), alike=True)

# --- Matrices

matrix, other = Values("unit", (4, 6)), Values("unit", (6, 3))
square = Values("unit", (4, 4))
add("matmul", torch.matmul, matrix, other, dtypes=FLOATS, alike=True)
add("matmul_large", torch.matmul, Values("finite"), Values("finite", (6, 3)), alike=True)
add("bmm", torch.bmm, matrix, other, dtypes=FLOATS, alike=True)
add("mv", lambda x, y: (x @ y[..., None])[..., 0], matrix, unit(6), alike=True)
add("linear", lambda x: F.linear(x, weights(5, 6).to(x), weights(5).to(x)), "unit", dtypes=FLOATS,
    alike=True)
add("addmm", lambda x: torch.addmm(weights(3).to(x), x, weights(6, 3).to(x), beta=2, alpha=0.5),
    unit(6), alike=True)
add("einsum", lambda x, y: torch.einsum("bij,bjk->bik", x, y), matrix, other, alike=True)
add("einsum_outer", lambda x, y: torch.einsum("bi,bj->bij", x, y), unit(4), unit(5), dtypes=FLOATS)
add("einsum_trace", lambda x: torch.einsum("bii->b", x), square, alike=True)
add("einsum_three", lambda x, y, z: torch.einsum("bi,bij,bj->b", x, y, z), unit(4), matrix, unit(6),
    alike=True)
add("einsum_integers", lambda x, y: torch.einsum("bij,bjk->bik", x, y), Values("wide", (4, 6)),
    Values("wide", (6, 3)), dtypes=WIDE)
add("baddbmm", lambda x, y, z: torch.baddbmm(x, y, z, beta=0.5, alpha=2), unit(4, 3), matrix, other,
    dtypes=(f32, f64), alike=True)
add("outer", lambda x, y: x[:, :, None] * y[:, None], unit(4), unit(5))
add("cross", lambda x, y: torch.linalg.cross(x, y), Values("unit", (4, 3)),
    Values("unit", (4, 3)), dtypes=FLOATS, alike=True)
add("vecdot", lambda x, y: torch.linalg.vecdot(x, y), matrix, matrix, alike=True)
add("tensordot", lambda x: torch.tensordot(x, weights(4, 6, 2).to(x), 2), matrix, alike=True)
add("bilinear", lambda x, y: F.bilinear(x, y, weights(2, 4, 5).to(x)), unit(4), unit(5), alike=True)
add("matrix_power", lambda x: torch.linalg.matrix_power(x, 3), square, alike=True)
add("det", torch.linalg.det, square, alike=True)
add("inverse", lambda x: torch.linalg.inv(x + 5 * torch.eye(4).to(x)), square, alike=True)
add("kron", lambda x: torch.kron(x, weights(1, 2, 2).to(x)), Values("unit", (3, 2)))
add("cdist", torch.cdist, Values("unit", (4, 6)), Values("unit", (3, 6)), dtypes=(f32, f64),
    alike=True)
add("cdist_1", lambda x, y: torch.cdist(x, y, p=1), "unit", Values("unit", (3, 6)), alike=True)
add("pairwise_distance", F.pairwise_distance, unit(6), unit(6), alike=True)
add("cosine_similarity", lambda x, y: F.cosine_similarity(x, y, -1), matrix, matrix, dtypes=FLOATS,
    alike=True)
add("cosine_similarity_small", lambda x, y: F.cosine_similarity(x, y, -1), "small", "small",
    alike=True)
add("attention", F.scaled_dot_product_attention, *[Values("unit", (2, 4, 6))] * 3,
    dtypes=(f32, f16), alike=True)
add("attention_causal", lambda x, y, z: F.scaled_dot_product_attention(x, y, z, is_causal=True),
    *[Values("unit", (2, 4, 6))] * 3, alike=True)

# --- Normalisations

add("softmax", lambda x: x.softmax(-1), "finite", dtypes=FLOATS, alike=True)
add("softmax_masked", lambda x: x.softmax(-1), "infinite", alike=True)
add("softmax_with_nan", lambda x: x.softmax(-1), "any", alike=True)
add("log_softmax", lambda x: x.log_softmax(-1), "finite", dtypes=FLOATS, alike=True)
add("softmin", lambda x: F.softmin(x, 1), "unit", alike=True)
add("layer_norm", lambda x: F.layer_norm(x, (6,), weights(6).to(x), weights(6).to(x)), "unit",
    dtypes=FLOATS, alike=True)
add("layer_norm_small", lambda x: F.layer_norm(x, (6,), eps=1e-12), "small", alike=True)
add("layer_norm_large", lambda x: F.layer_norm(x, (4, 6)), "large", alike=True)
add("group_norm", lambda x: F.group_norm(x, 2, weights(4).to(x), weights(4).to(x)), "unit",
    dtypes=FLOATS, alike=True)
add("instance_norm", lambda x: F.instance_norm(x), "unit", dtypes=(f32, f16), alike=True)
add("batch_norm", lambda x: F.batch_norm(x, weights(4).to(x), weights(4).to(x).abs() + 1), "unit",
    alike=True)
add("rms_norm", lambda x: F.rms_norm(x, (6,), weights(6).to(x)), "unit", dtypes=FLOATS, alike=True)
add("rms_norm_small", lambda x: F.rms_norm(x, (6,)), "small", alike=True)
add("normalize", lambda x: F.normalize(x, dim=-1), "finite", dtypes=FLOATS, alike=True)
add("normalize_zeros", lambda x: F.normalize(x, dim=-1), Values("zeros", (4, 6)))
add("local_response_norm", lambda x: F.local_response_norm(x, 3), Values("unit", (4, 6)),
    alike=True)
add("renorm", lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1), "unit", alike=True)
add("glu", lambda x: F.glu(x, -1), "moderate", dtypes=FLOATS, alike=True)

# --- Pooling, convolutions, resizing

sequence, picture = Values("unit", (4, 12)), Values("unit", (4, 6, 6))
special_sequence = Values("any", (4, 12))
add("max_pool1d", lambda x: F.max_pool1d(x, 3, 2, 1), sequence, dtypes=FLOATS)
add("max_pool1d_with_nan", lambda x: F.max_pool1d(x, 3, 2, 1), special_sequence)
add("max_pool1d_ceil", lambda x: F.max_pool1d(x, 3, 2, 1, ceil_mode=True),
    Values("finite", (4, 11)))
add("max_pool1d_dilated", lambda x: F.max_pool1d(x, 2, 1, 0, 3), sequence)
add("max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1), picture, dtypes=(f32, f16))
add("max_pool1d_indices", lambda x: F.max_pool1d(x, 2, return_indices=True),
    Values("distinct", (4, 12)))
add("avg_pool1d", lambda x: F.avg_pool1d(x, 3, 2, 1), sequence, dtypes=FLOATS, alike=True)
add("avg_pool1d_without_padding", lambda x: F.avg_pool1d(x, 3, 2, 1, count_include_pad=False),
    sequence, alike=True)
add("avg_pool1d_ceil", lambda x: F.avg_pool1d(x, 3, 2, 1, ceil_mode=True), sequence, alike=True)
add("avg_pool2d", lambda x: F.avg_pool2d(x, (2, 3)), picture, alike=True)
add("avg_pool2d_divisor", lambda x: F.avg_pool2d(x, 2, divisor_override=3), picture, alike=True)
add("adaptive_avg_pool1d", lambda x: F.adaptive_avg_pool1d(x, 3), sequence, alike=True)
add("adaptive_avg_pool1d_uneven", lambda x: F.adaptive_avg_pool1d(x, 5), sequence, alike=True)
add("adaptive_max_pool1d", lambda x: F.adaptive_max_pool1d(x, 4), sequence)
add("lp_pool1d", lambda x: F.lp_pool1d(x, 2.0, 3), sequence, alike=True)
add("conv1d", lambda x: F.conv1d(x, weights(3, 4, 3).to(x), weights(3).to(x), padding=1), sequence,
    dtypes=FLOATS, alike=True)
add("conv1d_strided", lambda x: F.conv1d(x, weights(3, 4, 2).to(x), None, 2, 1, 3), sequence,
    alike=True)
add("conv1d_depthwise", lambda x: F.conv1d(x, weights(4, 1, 3).to(x), groups=4), sequence,
    alike=True)
add("conv1d_same", lambda x: F.conv1d(x, weights(3, 4, 4).to(x), padding="same"), sequence,
    alike=True)
add("conv1d_of_integers", lambda x: F.conv1d(x, weights(3, 4, 3).mul(64).to(x)),
    Values("short", (4, 12)), dtypes=(i64,))
add("conv2d", lambda x: F.conv2d(x, weights(2, 4, 3, 3).to(x), weights(2).to(x), 2, 1), picture,
    dtypes=FLOATS, alike=True)
add("conv2d_grouped", lambda x: F.conv2d(x, weights(6, 2, 3, 2).to(x), groups=2), picture,
    alike=True)
add("conv3d", lambda x: F.conv3d(x, weights(2, 1, 2, 2, 2).to(x)), Values("unit", (1, 4, 4, 4)),
    alike=True)
add("conv_transpose1d", lambda x: F.conv_transpose1d(x, weights(4, 2, 3).to(x), None, 2, 1, 1),
    sequence, dtypes=FLOATS, alike=True)
add("conv_transpose1d_grouped",
    lambda x: F.conv_transpose1d(x, weights(4, 2, 3).to(x), None, 2, 0, 0, 2), sequence, alike=True)
add("conv_transpose2d", lambda x: F.conv_transpose2d(x, weights(4, 2, 3, 3).to(x), None, 2),
    picture, alike=True)


def resized(mode: str, **options: Any) -> Function:
    return lambda x: F.interpolate(x, mode=mode, **options)


add("interpolate_nearest", resized("nearest", scale_factor=2), sequence, dtypes=FLOATS)
add("interpolate_nearest_size", resized("nearest", size=7), sequence)
add("interpolate_nearest_exact", resized("nearest-exact", size=7), sequence)
add("interpolate_linear", resized("linear", scale_factor=2), sequence, dtypes=FLOATS, alike=True)
add("interpolate_linear_corners", resized("linear", size=7, align_corners=True), sequence,
    alike=True)
add("interpolate_linear_down", resized("linear", scale_factor=0.4), sequence, alike=True)
add("interpolate_recomputed", resized("linear", scale_factor=0.4, recompute_scale_factor=True),
    sequence, alike=True)
add("interpolate_bilinear", resized("bilinear", size=(9, 4)), picture, alike=True)
add("interpolate_bilinear_antialias", resized("bilinear", size=(3, 4), antialias=True), picture,
    alike=True)
add("interpolate_bicubic", resized("bicubic", scale_factor=2), picture, alike=True)
add("interpolate_area", resized("area", size=5), sequence, alike=True)
add("grid_sample", lambda x, grid: F.grid_sample(x, grid, align_corners=False), picture,
    Values("ratio", (3, 3, 2)), alike=True)
add("im2col", lambda x: F.unfold(x, 2, stride=2), picture)
add("col2im", lambda x: F.fold(x, (4, 4), 2), Values("unit", (8, 9)), alike=True)
add("stft", lambda x: torch.view_as_real(torch.fft.rfft(x)), Values("unit", (8,)), alike=True)

# fmt: on
OPERATORS = {operator.name: operator for operator in TABLE}
assert len(OPERATORS) == len(TABLE)

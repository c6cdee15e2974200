"""Operators of torch for which torch.onnx has no translation, or one that computes something else
than torch: each as a function of others that are translated right.

A decomposition takes the operator's arguments and gives its result, so that it can be compared with
the operator itself. Here stands which operators are decomposed, and for which arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from zoo_onnx.decompositions import along_axes, arithmetic, floats, linear_algebra
from zoo_onnx.decompositions.values import float64_constant


def _is_integer(x: Any, *_: Any, **__: Any) -> bool:
    return isinstance(x, Tensor) and not x.is_floating_point() and not x.is_complex()


def _are_integers(x: Any, y: Any, *_: Any, **__: Any) -> bool:
    dtype = torch.result_type(x, y)
    return not (dtype.is_floating_point or dtype.is_complex)


def _is_int64(x: Any, *_: Any, **__: Any) -> bool:
    return bool(x.dtype == torch.int64)


def _sums_integers(x: Any, *_: Any, dtype: Any = None, **__: Any) -> bool:
    """Those whose sum may be beyond what float64 holds, or of a type that wraps around."""
    return (
        (x.dtype == torch.int64 or dtype is not None)
        and _is_integer(x)
        and (dtype is None or not dtype.is_floating_point)
    )


def _is_float64(x: Any, *_: Any, **__: Any) -> bool:
    return bool(x.dtype == torch.float64)


def _with_tensor(operator: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """With the numbers as float64: torch.onnx holds them in float32."""
    numbers = (float, int)
    given = [float64_constant(x) if isinstance(x, numbers) else x for x in arguments]
    return operator(*given, **keywords)


def _float64_and_number(*arguments: Any, **_: Any) -> bool:
    tensors = [x for x in arguments if isinstance(x, Tensor) and x.dtype == torch.float64]
    numbers = [x for x in arguments if isinstance(x, float | int) and not isinstance(x, bool)]
    return bool(tensors) and bool(numbers)


def _has_other_bounds(x: Any, *bounds: Any, **named: Any) -> bool:
    """ONNX Runtime compares int64 wrongly, takes an infinite float for the largest where one bound
    is missing, and no bounds of another type."""
    given = [bound for bound in (*bounds, *named.values()) if bound is not None]
    if x.dtype in (torch.int64, torch.float64) or len(given) < 2:
        return True
    return any(x.is_floating_point() and isinstance(bound, int) for bound in given)


def _dtype_in(x: Any, y: Any, dtypes: tuple[torch.dtype, ...]) -> bool:
    return torch.result_type(x, y) in dtypes


def _are_short(x: Any, y: Any) -> bool:
    return _dtype_in(x, y, (torch.uint8, torch.int8, torch.int16))


def _are_bools(x: Any, y: Any, **_: Any) -> bool:
    return _dtype_in(x, y, (torch.bool,))


def _always(*_: Any, **__: Any) -> bool:
    return True


aten = torch.ops.aten
SCALARS = frozenset(
    ("int", "float", "bool", "str", "any", "complex", "int_float", "float_int", "Scalar_Scalar")
)
Rule = tuple[Callable[..., Any], Callable[..., bool]]
# By the packet of overloads: the decomposition, and for which arguments it is needed.
RULES: dict[Any, Rule] = {
    aten.expm1: (floats.expm1, _always),
    aten.log1p: (floats.log1p, _always),
    aten.log10: (floats.log10, _always),
    aten.log_sigmoid: (floats.log_sigmoid, _always),
    aten.gelu: (floats.gelu, _always),
    aten.softplus: (floats.softplus, _is_float64),
    aten.logaddexp: (floats.logaddexp, _always),
    aten.logaddexp2: (floats.logaddexp2, _always),
    aten.xlogy: (floats.xlogy, _always),
    aten.signbit: (floats.signbit, _always),
    aten.copysign: (floats.copysign, _always),
    aten.sign: (floats.sign, _always),
    aten.heaviside: (floats.heaviside, _always),
    aten.hypot: (floats.hypot, _always),
    aten.atan2: (floats.atan2, _always),
    aten.div: (arithmetic.divide, lambda *a, **k: bool(k) or _float64_and_number(*a)),
    aten.fmod: (arithmetic.fmod, _are_integers),
    aten.remainder: (arithmetic.remainder, lambda x, y: not _are_integers(x, y)),
    aten.minimum: (arithmetic.minimum, _is_int64),
    aten.maximum: (arithmetic.maximum, _is_int64),
    aten.fmax: (arithmetic.fmax, _always),
    aten.fmin: (arithmetic.fmin, _always),
    aten.clamp: (arithmetic.clamp, _has_other_bounds),
    aten.nan_to_num: (arithmetic.nan_to_num, _is_float64),
    aten.isclose: (arithmetic.isclose, _always),
    aten.sum: (along_axes.integer_sum, _sums_integers),
    aten.prod: (along_axes.prod, _is_integer),
    aten.dot: (along_axes.dot, _is_integer),
    aten.cumprod: (along_axes.cumprod, _always),
    aten.cummax: (along_axes.cummax, _always),
    aten.cummin: (along_axes.cummin, _always),
    aten.sort: (along_axes.sort, _always),
    aten.kthvalue: (along_axes.kthvalue, _always),
    aten.median: (along_axes.median, lambda x, *dim, **more: bool(dim or more)),
    aten.searchsorted: (along_axes.searchsorted, _always),
    aten.isin: (along_axes.isin, _always),
    aten.__rshift__: (partial(arithmetic.shift_of_bytes, torch.bitwise_right_shift), _are_short),
    aten.__lshift__: (partial(arithmetic.shift_of_bytes, torch.bitwise_left_shift), _are_short),
    aten.bitwise_right_shift: (
        partial(arithmetic.shift_of_bytes, torch.bitwise_right_shift),
        _are_short,
    ),
    aten.bitwise_left_shift: (
        partial(arithmetic.shift_of_bytes, torch.bitwise_left_shift),
        _are_short,
    ),
    aten.neg: (arithmetic.neg, lambda x: x.dtype == torch.uint8),
    aten.pow: (arithmetic.power, lambda x, y: _are_short(x, y) or _float64_and_number(x, y)),
    aten.square: (arithmetic.square, lambda x: _are_short(x, x)),
    aten.relu: (arithmetic.relu, _is_integer),
    aten.add: (arithmetic.add, lambda x, y, **_: _are_bools(x, y) or _float64_and_number(x, y)),
    aten.amax: (along_axes.amax, _is_int64),
    aten.amin: (along_axes.amin, _is_int64),
    aten.max: (along_axes.max, _is_int64),
    aten.min: (along_axes.min, _is_int64),
    aten.elu: (floats.elu, _is_float64),
    aten.cosh: (floats.cosh, _is_float64),
    aten.diagonal: (along_axes.diagonal, _always),
    aten.scatter_reduce: (along_axes.scatter_mean, lambda *a, **k: "mean" in (*a, *k.values())),
    aten.clamp_min: (arithmetic.clamp_min, _has_other_bounds),
    aten.clamp_max: (arithmetic.clamp_max, _has_other_bounds),
    aten.lerp: (floats.lerp, _is_float64),
    aten.addcmul: (floats.addcmul, _is_float64),
    aten.addcdiv: (floats.addcdiv, _is_float64),
    aten.cdist: (floats.cdist, _always),
    aten.linalg_inv_ex: (linear_algebra.inverse, _always),
    aten._linalg_solve_ex: (linear_algebra.solve_ex, _always),
    aten.linalg_cholesky_ex: (linear_algebra.cholesky, _always),
    aten.cholesky_solve: (linear_algebra.cholesky_solve, _always),
    aten.linalg_solve_triangular: (linear_algebra.solve_triangular, _always),
}

# With numbers beside float64.
for _name in ("mul", "sub", "rsub", "where", "lt", "le", "gt", "ge", "eq", "ne"):
    RULES[getattr(aten, _name)] = (
        partial(_with_tensor, getattr(torch, _name)),
        _float64_and_number,
    )

# Other names, which torch keeps in a trace.
ALIASES: dict[Any, Callable[..., Any]] = {
    aten.special_expm1: torch.expm1,
    aten.special_log1p: torch.log1p,
    aten.special_xlogy: torch.xlogy,
    aten.arctan2: torch.atan2,
    aten.clip: torch.clamp,
    aten.divide: torch.div,
    aten.argsort: along_axes.argsort,
    aten.hstack: lambda parts: torch.cat(parts, 0 if parts[0].dim() == 1 else 1),
    aten.msort: lambda x: torch.sort(x, 0)[0],
    aten.linalg_inv: lambda a: aten.linalg_inv_ex(a)[0],
    aten.inverse: lambda a: aten.linalg_inv_ex(a)[0],
    aten.linalg_solve: lambda a, b, left=True: aten._linalg_solve_ex(a, b, left=left)[0],
    aten.linalg_cholesky: lambda a, upper=False: aten.linalg_cholesky_ex(a, upper=upper)[0],
    aten.cholesky: lambda a, upper=False: aten.linalg_cholesky_ex(a, upper=upper)[0],
}


def decompose(program: ExportedProgram) -> ExportedProgram:
    """The program without the operators that have a rule; itself where it has none."""
    names = {packet.__name__ for packet in (*RULES, *ALIASES)}
    used = {
        getattr(node.target, "_opname", "").rstrip("_")
        for part in program.graph_module.modules()
        if isinstance(part, torch.fx.GraphModule)
        for node in part.graph.nodes
    }
    if not used & {name.rstrip("_") for name in names}:
        return program
    decomposed: ExportedProgram = program.run_decompositions(table())
    return decomposed


def table() -> dict[Any, Callable[..., Any]]:
    """The decomposition of each operator of ATen that has one, by its overload. It gives
    NotImplemented for arguments for which it is not needed."""
    found: dict[Any, Callable[..., Any]] = {}
    for packet, rule in RULES.items():
        found |= dict.fromkeys(_overloads(packet), partial(_apply, *rule))
    for packet, function in ALIASES.items():
        found |= dict.fromkeys(_overloads(packet), function)
    return found


def _overloads(packet: Any) -> list[Any]:
    """Those on tensors that give new ones."""
    found = [getattr(packet, name) for name in packet.overloads() if name not in SCALARS]
    return [op for op in found if not op._schema.is_mutable]


def _apply(
    function: Callable[..., Any], applies: Callable[..., bool], *arguments: Any, **keywords: Any
) -> Any:
    if not applies(*arguments, **keywords):
        return NotImplemented
    return function(*arguments, **keywords)

"""A fuzz of single operators: each is exported right, or refused with a ZooError."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo_onnx import export_step
from zoo_onnx.given import array_of
from zoo_ort import open_module

from .modules.operators import OPERATORS, Operator, Operators

EXAMPLES, STEPS, BATCH_SIZES = 8, 50, (1, 4, 7)
Array = npt.NDArray[np.generic]

NAMES = list(OPERATORS)
GROUP = 12  # operators of one file: most of an export's time is the same for any number
QUICK = (
    "tanh-float32",
    "round-float16",
    "exp-float64",
    "to_float32-float16",
    "to_bool-float32",
    "wrap_to_uint8_and_back-int64",
    "floor_divide-int32",
    "mul-uint8",
    "sum-int64",
    "xor-bool",
    "cumsum-float32",
    "gather-float32",
    "layer_norm-float32",
)

# fmt: off
REFUSED = {
    # ONNX has no operator for it, and it is not written out
    "erfinv-float32", "lgamma-float32", "digamma-float32", "i0-float32", "nextafter-float32",
    "nanmedian-float32", "gcd-int64", "gcd-int32",
    # ONNX, or ONNX Runtime, does not have it in that type
    "atan-float64", "atan2-float64", "erf-float64", "gelu-float64", "hardswish-float64",
    "group_norm-float64", "avg_pool1d-float64", "conv1d-float64", "conv2d-float64",
    "conv_transpose1d-float64", "interpolate_nearest-float64", "conv1d_of_integers-int64",
    "matmul-uint8", "scatter_add-float16",
    # the trace has a fixed batch size
    "take_along_dim-float32", "kron-float32",
    # ONNX Runtime leaves values in float32 that PyTorch rounds to float16, where they overflow
    "prod-float16", "floor_in_float16-float32", "square_in_float16-float32",
    # NaN or infinities differ
    "power_half-float32", "amax-float32", "amax-float16", "amax-float64", "amin-float32",
    "amin-float64", "aminmax-float32", "max_with_nan-float32", "argmax_with_nan-float32",
    "argmin_with_nan-float32", "sort_with_nan-float32", "topk_with_nan-float32",
    "scatter_amax-float32", "max_pool1d_with_nan-float32",
    # the formula overflows, or the translation is wrong
    "binary_cross_entropy_of_logits-float32", "avg_pool2d_divisor-float32",
    # its rows depend on each other
    "masked_scatter-float32",
}
# fmt: on
LARGEST_SHARE = 0.05

# Relative differences of two right implementations of a function: some 30 roundings of float32, two
# of float16. ONNX holds some constants of operators in float32 whatever their inputs, such as the
# epsilon of a normalisation; that of float64 allows for those, but for no factor held in float32.
RELATIVE = {torch.float32: 4e-6, torch.float16: 2e-3, torch.float64: 4e-10}
SMALLEST = {torch.float32: 1.2e-38, torch.float16: 1.2e-7, torch.float64: 1e-300}
DOUBLE = 1e-6  # of the rounding of float32


RIGHT = [name for name in NAMES if name not in REFUSED and name not in QUICK]
# what torch says once in a process, of an operator's cost, is told to whichever test comes first
pytestmark = pytest.mark.filterwarnings("ignore:.*Triggered internally:UserWarning")

FILES = -(-len(RIGHT) // GROUP)
GROUPS = ["|".join(RIGHT[start::FILES]) for start in range(FILES)]


def test_quick_operators() -> None:
    require_right(QUICK)


@pytest.mark.slow
@pytest.mark.rotates("names", GROUPS)
@pytest.mark.parametrize("names", GROUPS)
def test_operators_are_exported_right(names: str) -> None:
    require_right(names.split("|"))


@pytest.mark.slow
@pytest.mark.rotates("name", sorted(REFUSED))
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_operator_is_exported_right_or_refused(name: str) -> None:
    refusal = ""
    try:
        require_right([name])
    except ZooError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) <= 2
    assert Path("operators.onnx").exists() == (not refusal)


def require_right(names: Sequence[str]) -> None:
    """A file of these operators is right on inputs that it was not exported with."""
    operators = [OPERATORS[name] for name in names]
    module = Operators(operators)
    examples = module.draw(np.random.default_rng(1), EXAMPLES)
    info = export_step(module, examples, module.initial(EXAMPLES), "operators.onnx")
    stepper = open_module("operators.onnx", "cpu", trust="operators")
    for rows in BATCH_SIZES:
        rng, state = np.random.default_rng([2, rows]), module.initial(rows)
        for step in range(STEPS):
            streams = module.draw(rng, rows)
            with torch.no_grad():
                results, after = module(*streams, state)
                allowed = [
                    tolerance
                    for operator, own in zip(operators, parted(operators, streams), strict=True)
                    for tolerance in tolerances(operator, own)
                ]
            given = [array_of(value, 0) for value in streams]
            inputs = dict(zip((entry.name for entry in info.inputs), given, strict=True))
            leaves = tuple(leaf.numpy() for leaf in state)
            found, carried = stepper.step(inputs, leaves)
            where = f"at batch size {rows}, step {step}"
            outputs = [output for result in results.values() for output in result]
            for output, entry, tolerance in zip(outputs, info.outputs, allowed, strict=True):
                require_equal(output, found[entry.name], tolerance, f"{entry.name} {where}")
            for leaf, own in zip(after, carried, strict=True):
                size = np.abs(leaf.numpy().astype(np.float64))
                require_equal(leaf, own, size * RELATIVE.get(leaf.dtype, 0), f"state {where}")
            state = after


def parted(operators: Sequence[Operator], streams: list[Tensor]) -> list[list[Tensor]]:
    remaining = iter(streams)
    return [[next(remaining) for _ in operator.inputs] for operator in operators]


def test_few_operators_are_refused() -> None:
    assert set(NAMES) >= REFUSED
    assert len(REFUSED) <= LARGEST_SHARE * len(NAMES)


def tolerances(operator: Operator, streams: list[Tensor]) -> list[npt.NDArray[np.float64]]:
    """How far each result may be from PyTorch's: see RELATIVE, and twice the rounding of PyTorch's
    own result, which is its difference from that in float64 (eight times the largest where results
    are `alike`, and at least the last bits of 1)."""
    own, exact = operator(*streams), operator.in_floats(torch.float64, *streams)
    single = operator.in_floats(torch.float32, *streams)
    allowed = []
    for result, reference, low in zip(own, exact, single, strict=True):
        value, wanted = result.double().numpy(), reference.double().numpy()
        if not result.is_floating_point():
            allowed.append(np.zeros(value.shape))
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            double = result.dtype == torch.float64
            rounding = np.abs((low.double().numpy() if double else value) - wanted)
        rounding = np.where(np.isfinite(rounding), rounding, 0) * (DOUBLE if double else 1)
        if operator.alike:
            around_one = float(torch.finfo(result.dtype).eps)
            rounding = np.full(value.shape, max(4 * rounding.max(), around_one))
        size = np.where(np.isfinite(value), np.abs(value), 0)
        rounding = np.minimum(rounding, 1 + size)  # nan_to_num gives each type its own largest
        allowed.append(RELATIVE[result.dtype] * size + 2 * rounding + SMALLEST[result.dtype])
    return allowed


def require_equal(
    wanted: Tensor, found: Array, tolerance: npt.NDArray[np.float64], what: str
) -> None:
    value = wanted.numpy()
    assert (found.shape, found.dtype) == (value.shape, value.dtype), what
    if value.dtype.kind != "f":
        different = found != value
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.abs(found.astype(np.float64) - value.astype(np.float64)) <= tolerance
        special = ~np.isfinite(value)
        same = (found == value) | (np.isnan(found) & np.isnan(value))
        different = ~np.where(special, same, near)
    if different.any():
        first = tuple(np.argwhere(different)[0])
        raise AssertionError(
            f"{what}: {found[first]!r} instead of {value[first]!r}, at {different.sum()} of "
            f"{different.size} places"
        )

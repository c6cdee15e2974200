"""A fuzz of single operators: each is exported right, or refused with a ZooError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from zoo.errors import ZooError, one_line
from zoo_onnx import export_step
from zoo_ort import open_module

from .modules.operators import OPERATORS, OneOperator, Operator

EXAMPLES, STEPS, BATCH_SIZES = 8, 50, (1, 4, 7)
Array = npt.NDArray[np.generic]

NAMES = list(OPERATORS)
FAST = (
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
SLOW = [name for name in NAMES if name not in FAST]
SLOW_MARKS = (pytest.mark.slow, pytest.mark.rotates("name", SLOW))
CASES = [*FAST, *(pytest.param(name, marks=SLOW_MARKS) for name in SLOW)]

# fmt: off
REFUSED = {
    # torch.onnx has no translation of it, or none that runs
    "erfinv-float32", "lgamma-float32", "digamma-float32", "i0-float32", "clamp-float32",
    "hypot-float32", "hypot-float16", "hypot-float64", "copysign-float32", "copysign-float16",
    "copysign-float64", "nextafter-float32", "fmax-float32", "fmin-float32", "cumprod-float32",
    "cumprod-float16", "cumprod-float64", "cummax-float32", "cummin-float32", "median-float32",
    "nanmedian-float32", "kthvalue-float32", "sort-float32", "sort-float16", "sort-float64",
    "sort_descending-float32", "sort_with_nan-float32", "gcd-int64", "gcd-int32", "cumprod-int64",
    "cumprod-int32", "cummax-int64", "sort-int64", "sort-uint8", "sort-bool",
    "searchsorted-float32", "searchsorted-float16", "searchsorted-float64",
    "searchsorted_rows-float32", "isin-int64", "isin-int32", "inverse-float32", "cdist-float32",
    "cdist-float64", "cdist_1-float32",
    # an operator of the translation does not have the type, by ONNX' rules
    "square-int8", "neg-uint8", "power_2-int16", "power_2-int8", "power_2-uint8", "power_3-int8",
    "power-int8", "power-uint8", "sum_in_same_type-int8", "sum_in_same_type-uint8", "matmul-uint8",
    "add-bool", "conv1d_of_integers-int64",
    # ONNX Runtime has no kernel for the type
    "atan-float64", "cosh-float64", "erf-float64", "softplus-float64", "gelu-float64",
    "elu-float64", "hardswish-float64", "atan2-float64", "relu-int64", "clamp-int16",
    "minimum-int16", "shift_right-int16", "where-int16", "argmax-int16", "where-bool",
    "masked_fill-int16", "tril-uint8", "group_norm-float64", "avg_pool1d-float64", "conv1d-float64",
    "conv2d-float64", "conv_transpose1d-float64", "interpolate_nearest-float64",
    "scatter_add-float16",
    # the trace has a fixed batch size
    "take_along_dim-float32", "reshape_by_len-float32", "kron-float32",
    # ONNX Runtime leaves values in float32 that PyTorch rounds to float16, where they overflow
    "prod-float16", "cross-float16", "floor_in_float16-float32", "square_in_float16-float32",
    # integers pass through floats, or are compared by their lower 32 bits
    "div_trunc-int64", "div_trunc-int32", "div_trunc_number-int64", "div_trunc_number-int32",
    "fmod-int64", "fmod_number-int64", "sum-int64", "sum_in_same_type-int32", "prod-int64",
    "prod-int32", "dot-int64", "sign-int64", "clamp-int64", "clamp_tensors-int64", "minimum-int64",
    "maximum-int64", "amax-int64", "amin-int64",
    # unsigned bytes are shifted as signed ones
    "shift_left-uint8", "shift_right-uint8", "shift_right_number-uint8",
    # NaN, infinities or -0 differ
    "power_half-float32", "sign-float32", "sign-float64", "signbit-float32", "clamp_min-float32",
    "clamp_max-float32", "nan_to_num-float64", "remainder_by_infinity-float32", "atan2-float32",
    "atan2-float16", "xlogy-float32", "heaviside-float32", "isclose-float32", "amax-float32",
    "amax-float16", "amax-float64", "amin-float32", "amin-float64", "aminmax-float32",
    "max_with_nan-float32", "argmax_with_nan-float32", "argmin_with_nan-float32",
    "topk_with_nan-float32", "scatter_amax-float32", "diagonal-float32",
    "max_pool1d_with_nan-float32",
    # the formula overflows
    "logsigmoid-float32", "logaddexp-float32", "logaddexp-float16", "logaddexp-float64",
    "logaddexp2-float32", "binary_cross_entropy_of_logits-float32",
    # the formula cancels: exp(x) - 1, log(1 + x), 1 - erf(x), x - y * floor(x / y)
    "expm1-float32", "expm1-float64", "log1p-float32", "log1p-float64", "erfc-float32",
    "elu-float32", "elu_alpha-float32", "celu-float32", "selu-float32", "remainder-float32",
    "remainder-float16", "remainder-float64", "remainder_number-float32", "div_floor-float32",
    # a factor is held in float32
    "log10-float64", "lerp-float64", "addcmul-float64",
    # the translation is wrong
    "scatter_mean-float32", "avg_pool2d_divisor-float32",
    # zoo_ort does not take the operator, or this form of it
    "shift_left-int64", "shift_left-int32", "shift_left-int8", "shift_right-int64",
    "shift_right-int32", "shift_right-int8", "shift_right_number-int64", "shift_right_number-int32",
    "shift_right_number-int8", "shift_left_number-int64", "shift_left_number-int32",
    "pixel_shuffle-float32", "embedding_bag-int64", "det-float32", "local_response_norm-float32",
    "max_pool1d-float32", "max_pool1d-float16", "max_pool1d-float64", "max_pool1d_ceil-float32",
    "max_pool1d_dilated-float32", "max_pool2d-float32", "max_pool2d-float16",
    "max_pool1d_indices-float32", "avg_pool1d-float32", "avg_pool1d-float16",
    "avg_pool1d_without_padding-float32", "avg_pool1d_ceil-float32", "avg_pool2d-float32",
    "adaptive_avg_pool1d-float32", "adaptive_max_pool1d-float32", "lp_pool1d-float32",
    "conv_transpose1d-float32", "conv_transpose1d-float16", "conv_transpose1d_grouped-float32",
    "conv_transpose2d-float32", "interpolate_nearest-float32", "interpolate_nearest-float16",
    "interpolate_nearest_size-float32", "interpolate_bilinear-float32",
    "interpolate_bilinear_antialias-float32", "interpolate_bicubic-float32", "grid_sample-float32",
    "col2im-float32",
    # its rows depend on each other
    "masked_scatter-float32",
    # rounding beside an exact 0
    "stft-float32",
}
# fmt: on
LARGEST_SHARE = 0.25

# Relative differences of two right implementations of a function: some 30 roundings of float32, two
# of float16. ONNX holds some constants of operators in float32 whatever their inputs, such as the
# epsilon of a normalisation; that of float64 allows for those, but for no factor held in float32.
RELATIVE = {torch.float32: 4e-6, torch.float16: 2e-3, torch.float64: 4e-10}
SMALLEST = {torch.float32: 1.2e-38, torch.float16: 1.2e-7, torch.float64: 1e-300}
DOUBLE = 1e-6  # of the rounding of float32


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_exported_right_or_refused(
    name: str, record_property: pytest.RecordProperty
) -> None:
    operator = OPERATORS[name]
    module = OneOperator(operator)
    examples = operator.draw(np.random.default_rng(1), EXAMPLES)
    refusal = ""
    try:
        info = export_step(module, examples, module.initial(EXAMPLES), "operator.onnx")
    except ZooError as error:
        refusal = one_line(error)
    if refusal:
        record_property("refused", refusal)
        assert not Path("operator.onnx").exists()
        assert name in REFUSED, refusal
        return
    stepper = open_module("operator.onnx", "cpu", trust="operators")
    for rows in BATCH_SIZES:
        rng, state = np.random.default_rng([2, rows]), module.initial(rows)
        for step in range(STEPS):
            streams = operator.draw(rng, rows)
            with torch.no_grad():
                outputs, after = module(*streams, state)
                allowed = tolerances(operator, streams)
            inputs = dict(zip((entry.name for entry in info.inputs), streams, strict=True))
            found, (carried,) = stepper.step(inputs, (state.numpy(),))
            where = f"at batch size {rows}, step {step}"
            for output, entry, tolerance in zip(outputs, info.outputs, allowed, strict=True):
                require_equal(output, found[entry.name], tolerance, f"{entry.name} {where}")
            size = after.numpy().astype(np.float64)
            carrying = np.abs(size) * RELATIVE.get(module.dtype, 0)
            require_equal(after, carried, carrying, f"state {where}")
            state = after


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

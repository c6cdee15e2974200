"""Products of few rows on a GPU, as a step of a recurrence has them, in one kernel with what goes
before and after. The libraries' kernels are made for many rows: with 32 of them they leave most of
a GPU idle, and a sum or a tanh costs another kernel.

This module needs Triton, which PyTorch for CUDA brings along.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    addend, left, right, out, rows, width, columns,
    addend_stride, left_stride, out_stride,
    TANH: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    here = (row[:, None] < rows) & (column[None, :] < columns)
    total = tl.load(addend + row[:, None] * addend_stride + column[None, :], mask=here, other=0.0)
    for first in range(0, width, WIDTH):
        k = first + tl.arange(0, WIDTH)
        one = tl.load(
            left + row[:, None] * left_stride + k[None, :],
            mask=(row[:, None] < rows) & (k[None, :] < width), other=0.0,
        )  # fmt: skip
        other = tl.load(
            right + k[:, None] * columns + column[None, :],
            mask=(k[:, None] < width) & (column[None, :] < columns), other=0.0,
        )  # fmt: skip
        total = tl.dot(one, other, total, input_precision=PRECISION)
    if TANH:
        # 1 - 2 / (exp(2 x) + 1), whose exp may overflow to infinity, and then gives 1
        total = 1 - 2 / (tl.exp(2 * total) + 1)
    tl.store(out + row[:, None] * out_stride + column[None, :], total, mask=here)


def plus_product(
    addend_BN: Tensor, left_BK: Tensor, right_KN: Tensor, out_BN: Tensor, *, tanh: bool = False
) -> None:
    """Writes addend + left @ right, or its tanh. Float32; factors are as exact as float32, by three
    products of TF32 parts, unless products may be TF32."""
    rows, width = left_BK.shape
    columns = right_KN.shape[1]
    fast = torch.backends.cuda.matmul.fp32_precision == "tf32"
    wide = columns > 1024
    grid = triton.cdiv(columns, 32 if wide else 16), triton.cdiv(rows, 16)
    _kernel[grid](
        addend_BN, left_BK, right_KN, out_BN, rows, width, columns,
        addend_BN.stride(0), left_BK.stride(0), out_BN.stride(0),
        TANH=tanh, PRECISION="tf32" if fast else "tf32x3",
        ROWS=16, WIDTH=128, COLUMNS=32 if wide else 16, num_warps=4, num_stages=3,
    )  # fmt: skip

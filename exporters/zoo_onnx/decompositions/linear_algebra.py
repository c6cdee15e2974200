"""Small systems of linear equations, as a Kalman filter solves them, in operators that ONNX has:
Gauss-Jordan elimination with partial pivoting and Cholesky's factors, one column after another."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ZooError

MAX_ROWS = 32  # each gives some ten nodes of the graph


def solve(a: Tensor, b: Tensor) -> Tensor:
    """The X [..., n, m] with A X = B, for A [..., n, n]."""
    size = _size(a)
    numbers = torch.arange(size, device=a.device)
    rows = torch.cat((a, b), -1)
    for k in range(size):
        pivot = (rows[..., k:, k].abs().argmax(-1) + k)[..., None]
        order = torch.where(numbers == k, pivot, torch.where(numbers == pivot, k, numbers))
        rows = rows.gather(-2, order[..., None].expand(rows.shape))
        row = rows[..., k : k + 1, :]
        row = row / row[..., k : k + 1]
        others = rows - rows[..., k : k + 1] * row
        rows = torch.where(numbers[:, None] == k, row, others)
    return rows[..., size:]


def inverse(a: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    one = torch.eye(_size(a), dtype=a.dtype, device=a.device)
    return solve(a, one.expand(a.shape)), _no_error(a)


def solve_ex(
    a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As torch's operator: without its factors, which torch.linalg.solve does not give."""
    is_vector = b.dim() == a.dim() - 1
    right = b.unsqueeze(-1) if is_vector else b
    found = solve(a, right) if left else solve(a.mT, right.mT).mT
    found = found.squeeze(-1) if is_vector else found
    return found, a, _no_error(a)[..., None], _no_error(a)


def cholesky(
    a: Tensor, *, upper: bool = False, check_errors: bool = False
) -> tuple[Tensor, Tensor]:
    size = _size(a)
    numbers = torch.arange(size, device=a.device)
    columns = []
    for k in range(size):
        column = a[..., k] / a[..., k, k].sqrt()[..., None]
        column = torch.where(numbers < k, 0, column)
        columns.append(column)
        a = a - column[..., None] * column[..., None, :]
    factor = torch.stack(columns, -1)
    return (factor.mT if upper else factor), _no_error(a)


def cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    lower = factor.mT if upper else factor
    return solve(lower.mT, solve(lower, b))


def solve_triangular(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    a = a.triu() if upper else a.tril()
    if unitriangular:
        numbers = torch.arange(_size(a), device=a.device)
        a = torch.where(numbers == numbers[:, None], 1, a)
    return solve(a, b) if left else solve(a.mT, b.mT).mT


def _size(a: Tensor) -> int:
    size = a.shape[-1]
    if not isinstance(size, int) or not 0 < size <= MAX_ROWS:
        raise ZooError(
            f"a matrix of {size} rows is inverted or solved for; an exported step does that for at "
            f"most {MAX_ROWS}."
        )
    return size


def _no_error(a: Tensor) -> Tensor:
    return torch.zeros_like(a[..., 0, 0], dtype=torch.int32)

"""Each decomposition is the operator itself, computed by torch from others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.errors import ZooError
from zoo_onnx.decompositions import table
from zoo_onnx.decompositions.values import float64_constant

from .modules.operators import OPERATORS
from .test_module_operators import require_equal, tolerances

TABLE = table()
SEEDS, ROWS = 3, 5
# torch.topk is not stable, as ONNX's is: tests/test_module_operators.py compares the order of ties.
UNSTABLE = ("sort-", "sort_descending-")


class Decomposing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs decompositions in place of operators, and counts them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        if function in TABLE:
            result = TABLE[function](*arguments, **keywords)
            if result is not NotImplemented:
                self.count += 1
                return result
        return function(*arguments, **keywords)


@pytest.mark.filterwarnings("ignore:Using padding")
def test_decompositions_are_their_operators() -> None:
    decomposed = 0
    for name, operator in OPERATORS.items():
        if name.startswith(UNSTABLE):
            continue
        for seed in range(SEEDS):
            inputs = operator.draw(np.random.default_rng(seed), ROWS)
            with torch.no_grad(), Decomposing() as mode:
                found = operator(*inputs)
            if not mode.count:
                break
            decomposed += 1
            wanted, allowed = operator(*inputs), tolerances(operator, inputs)
            for value, result, tolerance in zip(wanted, found, allowed, strict=True):
                require_equal(value, result.numpy(), tolerance, name)
    assert decomposed >= 100 * SEEDS


def matrices(rows: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(6, rows, rows, dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_linear_equations(rows: int) -> None:
    """Also where the first pivot is 0."""
    a, b = matrices(rows), matrices(rows)[..., :2]
    if rows > 1:
        a[0, 0, 0] = 0
    positive = a @ a.mT + torch.eye(rows)
    lower = torch.linalg.cholesky(positive)

    def computed() -> list[Tensor]:
        return [
            torch.linalg.inv(a),
            torch.linalg.solve(a, b),
            torch.linalg.solve(a, b.mT, left=False),
            torch.linalg.solve(a, b[..., 0]),
            torch.linalg.cholesky(positive),
            torch.linalg.cholesky(positive, upper=True),
            torch.cholesky_solve(b, lower),
            torch.linalg.solve_triangular(lower, b, upper=False),
            torch.linalg.solve_triangular(lower.mT, b, upper=True),
            torch.linalg.solve_triangular(lower, b, upper=False, unitriangular=True),
        ]

    wanted = computed()
    with torch.no_grad(), Decomposing() as mode:
        found = computed()
    assert mode.count >= len(found)
    for result, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


def test_too_many_rows() -> None:
    with pytest.raises(ZooError, match="a matrix of 33 rows"), Decomposing():
        torch.linalg.inv(torch.eye(33))


@pytest.mark.parametrize(
    "value", [0.0, 0.1, -60e9, 1 / 3, 1.7976931348623157e308, 5e-324, float("inf"), 2.0**-1000]
)
def test_numbers_in_float64_are_exact(value: float) -> None:
    assert float64_constant(value).item() == value

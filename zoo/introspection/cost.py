"""What a cell costs, measured on the cell itself: parameters, bytes of state, arithmetic.

Nothing of it is declared. A cell is built at several sizes, and the polynomial in `input` and
`hidden` that its counts lie on is found from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from zoo.nn.state import flatten
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry

# Multiples of 64, which heads, groups and low ranks divide, or the next hidden sizes that the cell
# takes; the last two only test what was found.
SIZES = ((64, 64), (128, 64), (192, 64), (64, 128), (64, 192), (128, 128), (192, 256), (256, 192))
TESTS = 2
MONOMIALS: dict[str, Callable[[int, int], int]] = {
    "input²": lambda i, h: i * i,
    "input·hidden": lambda i, h: i * h,
    "hidden²": lambda i, h: h * h,
    "input": lambda i, h: i,
    "hidden": lambda i, h: h,
    "": lambda i, h: 1,
}
LARGEST_DENOMINATOR = 64


@dataclass(frozen=True)
class Cost:
    """Of one layer. `parameters` are numbers, of which `trained` learn; `state_bytes` are those of
    one stream's state; `operations` those of one step of one stream, a multiplication and an
    addition counting as two, and each element that another operation gives as one."""

    parameters: int
    trained: int
    state_bytes: int
    operations: int


def cost_at(
    spec: CellSpec, input_size: int, hidden_size: int, registry: Registry | None = None
) -> Cost:
    """The cost of the cell with its default options. Of a non-causal cell, the operations
    are those over a sequence of one step."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        cell = spec.build(input_size, hidden_size, registry=registry).eval()
        state = cell.init_state(1)
        with _Operations() as operations, FlopCounterMode(display=False) as products:
            if spec.causal:
                cell.step(torch.zeros(1, input_size), state)
            else:
                cell(torch.zeros(1, 1, input_size), state)
    parameters = list(cell.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        state_bytes=sum(leaf.numel() * leaf.element_size() for leaf in flatten(state)),
        operations=operations.count + products.get_total_flops(),
    )


def cost_formulas(spec: CellSpec, registry: Registry | None = None) -> dict[str, str]:
    """Each figure of `Cost` as text, "3·input·hidden + 3·hidden² + 6·hidden"; empty where the
    counts at multiples of 64 lie on no such polynomial."""
    taken = spec.sizes_taken({}, registry)
    sizes = [(inputs, taken.at_least(hidden)) for inputs, hidden in SIZES]
    costs = [cost_at(spec, *pair, registry=registry) for pair in sizes]
    return {
        name: polynomial([getattr(cost, name) for cost in costs], sizes)
        for name in ("parameters", "trained", "state_bytes", "operations")
    }


def polynomial(counts: list[int], at: Sequence[tuple[int, int]] = SIZES) -> str:
    """The polynomial on which the counts `at` these sizes lie, as text; empty if there is none, or
    if the sizes are too few to tell."""
    terms = np.array([[term(*sizes) for term in MONOMIALS.values()] for sizes in at], float)
    known = len(at) - TESTS
    try:
        solved = np.linalg.solve(terms[:known], np.array(counts[:known], float))
    except np.linalg.LinAlgError:
        return ""
    factors = [Fraction(value).limit_denominator(LARGEST_DENOMINATOR) for value in solved]
    for sizes, count in zip(at, counts, strict=True):
        found = sum(
            factor * term(*sizes) for factor, term in zip(factors, MONOMIALS.values(), strict=True)
        )
        if found != count:
            return ""
    parts = [_term(factor, name) for factor, name in zip(factors, MONOMIALS, strict=True) if factor]
    return " + ".join(parts).replace("+ -", "- ") or "0"


def _term(factor: Fraction, name: str) -> str:
    if not name:
        return f"{factor.numerator:,}" if factor.denominator == 1 else str(factor)
    if factor.denominator > 1:
        name = f"{name}/{factor.denominator}"
    if abs(factor.numerator) == 1:
        return name if factor > 0 else f"-{name}"
    return f"{factor.numerator}·{name}"


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the elements that elementwise operations and reductions give."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        tags = func.tags
        if isinstance(found, Tensor) and (
            torch.Tag.pointwise in tags or torch.Tag.reduction in tags
        ):
            read = args[0] if torch.Tag.reduction in tags else found
            self.count += read.numel() if isinstance(read, Tensor) else found.numel()
        return found

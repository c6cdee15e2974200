"""What the laws are applied to, what they measure, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.config import OptionValue
from zoo.models.language_model import Stack
from zoo.nn.state import flatten, named_leaves
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry, load_registry
from zoo.registry.sizes import HiddenSizes

SMALL = 3  # hidden units where a law takes a product over all weights
EXACT = 1e-9  # for float64: far above rounding, far below anything that a wrong equation gives


class LawBroken(AssertionError):
    """A cell does not keep a law; the message says what was found."""


class Measured(NamedTuple):
    """A law's figure, and what else is worth showing. Laws that compare bits or forms have none."""

    figure: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Subject:
    """A cell to test: by itself, or as `layers` stacked layers, with inputs of
    `input_size` and `hidden_size` hidden units, or the next more that the cell takes."""

    spec: CellSpec
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    layers: int = 1
    input_size: int = 5
    hidden_size: int = 8
    registry: Registry = field(default_factory=load_registry, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_size", self._sizes().at_least(self.hidden_size))

    def _sizes(self) -> HiddenSizes:
        return self.spec.sizes_taken(self.options, self.registry)

    def build(
        self, seed: int = 0, dtype: torch.dtype = torch.float64, small: bool = False
    ) -> Stack:
        """The same stack for the same seed; `small` for what takes a product over all weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            stack = Stack(
                self.spec,
                2 if small else self.input_size,
                self._sizes().at_least(SMALL) if small else self.hidden_size,
                self.layers,
                dict(self.options),
                registry=self.registry,
            )
        return stack.to(dtype).eval()

    def inputs(
        self, steps: int, batch_size: int, seed: int = 1, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Random inputs [T, B, I], the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(steps, batch_size, self.input_size, generator=generator, dtype=dtype)

    def reached_state(self, stack: Stack, batch_size: int, seed: int = 2) -> Any:
        """A state that the stack itself reaches from its initial state, another in each row: an
        arbitrary tensor need not be a state."""
        dtype = next(stack.parameters()).dtype
        with torch.no_grad():
            return stack(self.inputs(9, batch_size, seed, dtype))[1]


def step_through(stack: Stack, x_TBI: Tensor, state: Any) -> tuple[Tensor, Any]:
    outputs = []
    for x in x_TBI:
        y, state = stack.step(x, state)
        outputs.append(y)
    return torch.stack(outputs), state


def all_tensors(result: tuple[Tensor, Any]) -> tuple[Tensor, ...]:
    return (result[0], *flatten(result[1]))


def distance(wanted: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> float:
    """The largest difference, relative to the values' size where that exceeds 1."""
    largest = 0.0
    for one, other in zip(wanted, found, strict=True):
        if one.shape != other.shape:
            return math.inf
        a, b = one.detach().double(), other.detach().double()
        differs = a != b  # equal infinities do not
        if not differs.any():
            continue
        scale = a[torch.isfinite(a)].abs().amax() if torch.isfinite(a).any() else a.new_ones(())
        gap = ((a - b)[differs].abs().max() / scale.clamp(min=1)).item()
        largest = max(largest, gap) if math.isfinite(gap) else math.inf
    return largest


def require_close(
    what: str, wanted: tuple[Tensor, ...], found: tuple[Tensor, ...], allowed: float = EXACT
) -> float:
    gap = distance(wanted, found)
    require(gap <= allowed, f"{what}: differs by {gap:.2g}")
    return gap


def form_of(state: Any) -> list[tuple[str, tuple[int, ...], str]]:
    return [
        (name, tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."))
        for name, leaf in named_leaves(state)
    ]


def require_own_tensors(state: Any, way: str) -> None:
    pointers = [leaf.data_ptr() for leaf in flatten(state) if leaf.numel()]
    require(len(set(pointers)) == len(pointers), f"two leaves of {way}'s state are one tensor")


def require(condition: bool, found: str) -> None:
    if not condition:
        raise LawBroken(found)

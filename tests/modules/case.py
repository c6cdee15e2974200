"""A case: a recurrent module as engineers build it, and whether its step can be exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

ROWS = 8

Draw = Callable[[np.random.Generator, int], tuple[Tensor, ...]]


class Made(NamedTuple):
    """A module with everything that `export_step` needs."""

    module: nn.Module
    inputs: tuple[Tensor, ...]  # examples, 8 rows
    state: Any  # before the first step, 8 equal rows
    fresh: Draw  # other realistic inputs, from a random generator and a batch size
    settings: dict[str, Any]  # keyword arguments of export_step
    double: bool = True  # False: 1,000 steps by itself amplify rounding, so compare single steps


@dataclass(frozen=True)
class Case:
    make: Callable[[], Made]
    refused: str = ""  # a regular expression for the error; empty: the step can be exported

    @property
    def name(self) -> str:
        return self.make.__name__


def made(
    module: nn.Module, fresh: Draw, state: Any, *, double: bool = True, **settings: Any
) -> Made:
    """A case whose example inputs have the distribution of the fresh ones."""
    examples = fresh(np.random.default_rng(0), ROWS)
    return Made(module, examples, state, fresh, settings, double)


def normal(*shapes: tuple[int, ...], mean: float = 0.0, spread: float = 1.0) -> Draw:
    """Draws one float32 tensor [B, *shape] for each shape."""
    return lambda rng, batch: tuple(
        torch.from_numpy(np.float32(rng.normal(mean, spread, (batch, *shape)))) for shape in shapes
    )


def uniform(*shapes: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Draw:
    return lambda rng, batch: tuple(
        torch.from_numpy(np.float32(rng.uniform(low, high, (batch, *shape)))) for shape in shapes
    )


def integers(
    *shapes: tuple[int, ...], low: int = 0, high: int, dtype: torch.dtype = torch.int64
) -> Draw:
    """Draws integers of low ≤ value < high."""
    return lambda rng, batch: tuple(
        torch.from_numpy(rng.integers(low, high, (batch, *shape))).to(dtype) for shape in shapes
    )


def flags(*shapes: tuple[int, ...], share: float = 0.5) -> Draw:
    """Draws bools, this share of them true."""
    return lambda rng, batch: tuple(
        torch.from_numpy(rng.random((batch, *shape)) < share) for shape in shapes
    )


def joined(*draws: Draw) -> Draw:
    """Draws the inputs of each, in this order."""
    return lambda rng, batch: tuple(value for draw in draws for value in draw(rng, batch))


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(ROWS, *shape, dtype=dtype)


def repeated(row: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """A state leaf [8, …] with this row."""
    row = torch.as_tensor(row, dtype=dtype)
    return row.expand(ROWS, *row.shape).clone()

"""What a step of a model must do, counted on the step itself: products, weights, state."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.benchmarking.roofline import Work
from zoo.config import ModelConfig
from zoo.errors import UnknownNameError
from zoo.models.language_model import LanguageModel, OneHot
from zoo.nn.cell import Cell
from zoo.nn.state import flatten
from zoo.registry.registry import Registry

Shape: TypeAlias = tuple[int, int]
RIGHT_FACTOR = {"aten::mm": 1, "aten::bmm": 1, "aten::addmm": 2, "aten::baddbmm": 2}


def find_work(config: ModelConfig, vocab_size: int, registry: Registry) -> Work | None:
    """The work of one token.

    Looking up the rows of a one-hot input is left out: exported files do look them up. None where
    the cell is not installed, since running an exported file does not need it, and for a model
    without matrix products.
    """
    try:
        with torch.device("meta"):
            model = LanguageModel(config, vocab_size, registry).eval()
    except UnknownNameError:
        return None
    one, two = (_step_products(model, batch) for batch in (1, 2))
    if not one.multiply_adds:
        return None
    with torch.device("meta"):
        state = model.init_state(1)
    return Work(
        multiply_adds=sum(one.multiply_adds.values()),
        # what does not grow with the rows
        weights=2 * sum(one.right_factors.values()) - sum(two.right_factors.values()),
        state_bytes=sum(leaf.nbytes for leaf in flatten(state)),
        shape=max(one.multiply_adds, key=math.prod),
    )


def _step_products(model: LanguageModel, batch: int) -> _Products:
    with torch.no_grad(), torch.device("meta"):
        tokens = torch.zeros(batch, dtype=torch.int64)
        if model.causal:
            found = _products(model.step, tokens, model.init_state(batch))
        else:
            found = _products(model, tokens[None])
        if isinstance(model.encoder, OneHot):
            looked_up = _looked_up(model.stack.cells[0], model.encoder(tokens))
            found.multiply_adds -= looked_up.multiply_adds
            found.right_factors -= looked_up.right_factors
    return found


def _looked_up(module: nn.Module, x: Tensor) -> _Products:
    """The products of `project`: the cell's, or those of the cells that it is made of."""
    if isinstance(module, Cell) and (found := _products(module.project, x)).multiply_adds:
        return found
    found = _Products()
    for child in module.children():
        inner = _looked_up(child, x)
        found.multiply_adds += inner.multiply_adds
        found.right_factors += inner.right_factors
    return found


def _products(function: Callable[..., Any], *arguments: Any) -> _Products:
    found = _Products()
    with found:
        function(*arguments)
    return found


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every matrix product, whatever it was written as: the multiply-adds, and how many
    numbers the right factors have, by their shape [K, N]."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds: Counter[Shape] = Counter()
        self.right_factors: Counter[Shape] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        if (index := RIGHT_FACTOR.get(function.name())) is not None:
            right = arguments[index]
            size, columns = right.shape[-2:]
            self.multiply_adds[size, columns] += result.numel() * size
            self.right_factors[size, columns] += right.numel()
        return result

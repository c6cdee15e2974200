"""Functions that a tracer may replace: an exporter has its own form of a recurrence over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def replaceable(function: FunctionT) -> FunctionT:
    """The same function, which a `torch.overrides.TorchFunctionMode` sees as one call, as it sees
    those of torch."""

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        tensors = tuple(_tensors((arguments, tuple(keywords.values()))))
        if has_torch_function(tensors):
            return handle_torch_function(call, tensors, *arguments, **keywords)
        return function(*arguments, **keywords)

    return call  # type: ignore[return-value]


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)

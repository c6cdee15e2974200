"""Reading documents that a token separates: each begins from the initial state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.nn.state import reset_rows

Forward = Callable[[Tensor, Any], tuple[Tensor, Any]]


def read_documents(
    forward: Forward, tokens_TB: Tensor, state: Any, initial: Any, end: int | None
) -> tuple[Tensor, Any]:
    """`forward(tokens, state)`, in parts: wherever rows have read the token `end`, their state is
    that of `initial` from then on. Without `end`, in one."""
    ends = None if end is None else (tokens_TB == end).cpu()
    if ends is None or not ends.any():
        return forward(tokens_TB, state)
    logits = []
    begin, steps = 0, len(tokens_TB)
    for time in sorted({*ends.any(1).nonzero()[:, 0].tolist(), steps - 1}):
        part, state = forward(tokens_TB[begin : time + 1], state)
        logits.append(part)
        if rows := ends[time].nonzero()[:, 0].tolist():
            state = reset_rows(state, rows, initial)
        begin = time + 1
    return torch.cat(logits), state

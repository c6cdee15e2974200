"""Initial weights."""

from __future__ import annotations

import torch
from torch import nn


def uniform(bound: float, *shape: int) -> nn.Parameter:
    """A parameter of this shape, drawn evenly from (-bound, bound)."""
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

"""Glorot and orthogonal initialisation."""

from math import sqrt

import torch
from torch import nn

from zoo.nn import uniform


def glorot(rows: int, columns: int, *, gates: int = 1, gain: float = 1.0) -> nn.Parameter:
    """Weights [rows, gates · columns] of that many matrices side by side, each as Glorot and Bengio
    (2010) have it: U(-a, a), a = gain √(6 / (rows + columns))."""
    return uniform(gain * sqrt(6 / (rows + columns)), rows, gates * columns)


def orthogonal(size: int, *, gates: int = 1) -> nn.Parameter:
    """Orthogonal matrices [size, size] side by side."""
    blocks = [nn.init.orthogonal_(torch.empty(size, size)) for _ in range(gates)]
    return nn.Parameter(torch.cat(blocks, 1))

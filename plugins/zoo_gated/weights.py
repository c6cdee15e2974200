"""The weights of a gate in the cells written from equations."""

import torch
from torch import nn


def gate_weights(
    input_size: int, hidden_size: int, std: float
) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    """Input weights [I, H] and recurrent weights [H, H], drawn from N(0, std²), and a bias [H] of
    zeros, as in Dive into Deep Learning (sections 10.1 and 10.2)."""
    return (
        nn.Parameter(torch.randn(input_size, hidden_size) * std),
        nn.Parameter(torch.randn(hidden_size, hidden_size) * std),
        nn.Parameter(torch.zeros(hidden_size)),
    )

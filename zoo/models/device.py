"""Which device PyTorch computes on."""

from __future__ import annotations

import torch

from zoo.config import PROVIDERS
from zoo.errors import ProviderError, one_line, require_choice


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where it works and else the CPU; "cuda" where it does not work is a
    ProviderError that says why."""
    require_choice("device", name, PROVIDERS)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error).rstrip(".")
        raise ProviderError(f"CUDA does not run in PyTorch here: {reason}; use the CPU.") from None
    return torch.device("cuda")

"""Loss and speed of training between two lines of metrics."""

from __future__ import annotations

import torch
from torch import Tensor


class Meter:
    """Loss and speed since the time `began` (in seconds of training)."""

    def __init__(self, began: float, device: torch.device) -> None:
        # read only when asked for: nothing waits for a GPU
        self.nats = torch.zeros((), dtype=torch.float64, device=device)
        self.windows = self.tokens = 0
        self.began = began

    def add(self, loss: Tensor, tokens: int) -> None:
        """The mean loss of a window, and its number of tokens (the same for all windows)."""
        self.nats += loss.detach()
        self.windows += 1
        self.tokens += tokens

    def nats_per_token(self) -> Tensor:
        return self.nats / self.windows

    def tokens_per_second(self, now: float) -> float:
        return self.tokens / max(now - self.began, 1e-9)

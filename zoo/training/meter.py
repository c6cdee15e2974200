"""Loss and speed of training between two lines of metrics."""

from __future__ import annotations

import torch
from torch import Tensor


class Meter:
    """Loss and speed since the time `began` (in seconds of training)."""

    def __init__(self, began: float, device: torch.device) -> None:
        # read only when asked for: nothing waits for a GPU; always this tensor, which is recorded
        self.nats = torch.zeros((), dtype=torch.float64, device=device)
        self.restart(began)

    def restart(self, began: float) -> None:
        """Begins anew."""
        self.nats.zero_()
        self.windows = self.tokens = 0
        self.began = began

    def add(self, loss: Tensor) -> None:
        """Adds the mean loss of a window, which `count` counts."""
        self.nats += loss.detach()

    def count(self, windows: int, tokens: int) -> None:
        """Counts windows, and their tokens together (the same for all windows)."""
        self.windows += windows
        self.tokens += tokens

    def nats_per_token(self) -> Tensor:
        return self.nats / self.windows

    def tokens_per_second(self, now: float) -> float:
        return self.tokens / max(now - self.began, 1e-9)

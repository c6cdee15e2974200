"""Tasks that an automaton of few states does."""

from __future__ import annotations

import numpy as np

from zoo.tasks import Batch, Task


class Parity(Task):
    tokens = classes = 2

    def __init__(self, longest: int = 40) -> None:
        self.training = {"length": (3, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 2 * longest, 128)}

    def batch(self, rng: np.random.Generator, rows: int, length: int = 40) -> Batch:
        bits = rng.integers(0, 2, (length, rows))
        return Batch(bits, bits.cumsum(0) % 2)

"""The limits of a machine and what they allow a model: the arithmetic of a roofline.

A step cannot take less time than its bytes take to come from memory, nor less than its matrix
products take. The smaller of the two speeds is the limit (Williams, Waterman and Patterson,
"Roofline: an insightful visual performance model for multicore architectures", 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
MEMORY, ARITHMETIC = "memory", "arithmetic"


@dataclass(frozen=True)
class Target:
    """Where to compute: "cpu", with so many threads, or "cuda" (`threads` is None)."""

    provider: str
    threads: int | None

    def synchronize(self) -> None:
        """Waits until all that was begun there is done."""
        if self.provider == "cuda" and torch.cuda.is_available():
            torch.cuda.synchronize()

    def __str__(self) -> str:
        return self.provider if self.threads is None else f"{self.provider} × {self.threads}"


@dataclass(frozen=True)
class Work:
    """What a model must do at least. `multiply_adds` are those of a token, in matrix products;
    `weights` the numbers that these products read in each step, however many rows there are;
    `state_bytes` those of one row's state, which a step reads and writes; `shape` is that of the
    right factor [K, N] of the largest product."""

    multiply_adds: int
    weights: int
    state_bytes: int
    shape: tuple[int, int]

    def weight_bytes(self, precision: str) -> int:
        """Those of all weights that the products read, each number at its size."""
        return self.weights * WEIGHT_BYTES[precision]

    def bytes_per_token(self, precision: str, batch: int, steps: int = 1) -> float:
        """What memory must give and take for a token: its share of the weights, which all rows use,
        and its row's state. Reading `steps` tokens at a time, a model needs both once for all."""
        return (self.weight_bytes(precision) / batch + 2 * self.state_bytes) / steps

    def operations_per_byte(self, precision: str, batch: int, steps: int = 1) -> float:
        """A multiplication and an addition are two operations."""
        return 2 * self.multiply_adds / self.bytes_per_token(precision, batch, steps)


@dataclass(frozen=True)
class Limits:
    """What a target can do with weights of a precision: the bytes per second at which it reads as
    many as the weights are, again and again; and the multiply-adds per second of the fastest matrix
    product of the model's width."""

    target: Target
    precision: str
    weight_bytes: int
    bytes_per_second: float
    multiply_adds_per_second: float

    def tokens_per_second(self, work: Work, batch: int, steps: int = 1) -> tuple[float, str]:
        """The most that memory and products allow, of all rows together, and which of them sets
        it."""
        memory = self.bytes_per_second / work.bytes_per_token(self.precision, batch, steps)
        arithmetic = self.multiply_adds_per_second / work.multiply_adds
        return min((memory, MEMORY), (arithmetic, ARITHMETIC))

    def operations_per_second(self, operations_per_byte: float) -> float:
        """The height of the roof."""
        return min(self.bytes_per_second * operations_per_byte, 2 * self.multiply_adds_per_second)

"""State tracking: tasks that an automaton of few states does at any length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zoo.tasks import Batch, Task

MODULUS = 5
PLUS, MINUS, TIMES = 5, 6, 7  # after the digits
Array = npt.NDArray[np.int64]
Size = Annotated[int, Field(ge=3, le=2**20)]


def lengths(longest: int) -> dict[str, dict[str, int]]:
    """Tests at the longest length of training and beyond."""
    return {f"length {n}": {"length": n} for n in (longest, 2 * longest, 3 * longest)}


def at_the_end(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The last position alone."""
    counted = np.zeros(shape, bool)
    counted[-1] = True
    return counted


class Parity(Task):
    """Bits in, whether the number of ones so far is odd out."""

    tokens = classes = 2

    def __init__(self, longest: Size = 40, end: bool = False) -> None:
        self.training = {"length": (3, longest)}
        self.tests = lengths(longest)
        self._end = end

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        bits = rng.integers(0, 2, (length, rows))
        counted = at_the_end(bits.shape) if self._end else None
        return Batch(bits, bits.cumsum(0) % 2, counted)

    def answer(self, inputs: Array) -> Array:
        found = np.empty_like(inputs)
        for row in range(inputs.shape[1]):
            for time in range(len(inputs)):
                found[time, row] = inputs[: time + 1, row].tolist().count(1) % 2
        return found


class ModularArithmetic(Task):
    """Numbers and +, −, × in, the value so far modulo 5 out: products go before sums. A sequence of
    length n is one of n numbers and n - 1 signs."""

    tokens, classes = 8, MODULUS

    def __init__(self, longest: Size = 20, end: bool = False) -> None:
        self.training = {"length": (2, longest)}
        self.tests = lengths(longest)
        self._end = end

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        steps = 2 * length - 1
        inputs = rng.integers(PLUS, TIMES + 1, (steps, rows))
        inputs[::2] = rng.integers(0, MODULUS, (length, rows))
        sums, product = np.zeros(rows, np.int64), inputs[0].copy()
        targets = np.zeros_like(inputs)
        targets[0] = product
        for time in range(2, steps, 2):
            sign, number = inputs[time - 1], inputs[time]
            times = sign == TIMES
            sums = np.where(times, sums, (sums + product) % MODULUS)
            signed = np.where(sign == MINUS, -number, number)
            product = np.where(times, product * number, signed) % MODULUS
            targets[time] = (sums + product) % MODULUS
        counted = np.zeros(inputs.shape, bool)
        counted[::2] = True
        return Batch(inputs, targets, at_the_end(inputs.shape) if self._end else counted)

    def answer(self, inputs: Array) -> Array:
        found = np.zeros_like(inputs)
        for row in range(inputs.shape[1]):
            text = "".join("01234+-*"[token] for token in inputs[:, row])
            for time in range(0, len(text), 2):
                found[time, row] = eval(text[: time + 1]) % MODULUS
        return found


class Words(Task):
    """Elements of a group of permutations in, their product so far out."""

    def __init__(self, longest: int, points: int, even: bool = False) -> None:
        self.elements = [p for p in permutations(range(points)) if not even or _is_even(p)]
        number = {element: index for index, element in enumerate(self.elements)}
        self.table = np.array(
            [
                [number[tuple(first[point] for point in second)] for second in self.elements]
                for first in self.elements
            ]
        )
        self.tokens = self.classes = len(self.elements)
        self.training = {"length": (3, longest)}
        self.tests = lengths(longest)

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        inputs = rng.integers(0, self.tokens, (length, rows))
        targets = inputs.copy()
        for time in range(1, length):
            targets[time] = self.table[targets[time - 1], inputs[time]]
        return Batch(inputs, targets)

    def answer(self, inputs: Array) -> Array:
        found = np.empty_like(inputs)
        for row in range(inputs.shape[1]):
            points = list(range(len(self.elements[0])))
            for time, token in enumerate(inputs[:, row]):
                points = [points[place] for place in self.elements[token]]
                found[time, row] = self.elements.index(tuple(points))
        return found


def words_s3(longest: Size = 40) -> Words:
    return Words(longest, 3)


def words_a5(longest: Size = 20) -> Words:
    return Words(longest, 5, even=True)


def words_s5(longest: Size = 20) -> Words:
    return Words(longest, 5)


def _is_even(permutation: Sequence[int]) -> bool:
    pairs = ((i, j) for j in range(len(permutation)) for i in range(j))
    return sum(permutation[i] > permutation[j] for i, j in pairs) % 2 == 0

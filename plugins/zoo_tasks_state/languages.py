"""Counting and stacks: tasks that need more than a fixed number of states."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zoo.tasks import Batch, Task
from zoo_tasks_state.automata import MINUS, MODULUS, PLUS, TIMES

OPEN, CLOSE = 8, 9  # brackets of an expression
A, B, C, END = range(4)
KINDS = 2  # of brackets: tokens 0 and 1 open, 2 and 3 close
Array = npt.NDArray[np.int64]


class Brackets(Task):
    """An expression in brackets in, at each closing one the value of what it closes modulo 5 out.
    Each pair of brackets holds one operation."""

    tokens, classes = 10, MODULUS

    def __init__(
        self, operations: Annotated[int, Field(ge=1, le=200)] = 8, end: bool = False
    ) -> None:
        self.training = {"operations": (1, operations)}
        self.tests = {f"{n} operations": {"operations": n} for n in (operations, 2 * operations)}
        self._end = end

    def batch(self, rng: np.random.Generator, rows: int, operations: int) -> Batch:
        shape = 4 * operations + 1, rows
        inputs, targets = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row in range(rows):
            place = _Writer(inputs[:, row], targets[:, row], rng)
            place.write(operations)
        counted = inputs == CLOSE
        if self._end:
            counted[:-1] = False
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Array) -> Array:
        found = np.zeros_like(inputs)
        for row in range(inputs.shape[1]):
            text = "".join("01234+-*()"[token] for token in inputs[:, row])
            opened: list[int] = []
            for time, character in enumerate(text):
                if character == "(":
                    opened.append(time)
                elif character == ")":
                    found[time, row] = eval(text[opened.pop() : time + 1]) % MODULUS
        return found


class _Writer:
    """Writes one expression, and the values at its closing brackets."""

    def __init__(self, inputs: Array, targets: Array, rng: np.random.Generator) -> None:
        self._inputs, self._targets, self._rng, self._time = inputs, targets, rng, 0

    def write(self, operations: int) -> int:
        """An expression with so many operations; its value."""
        if not operations:
            return self._put(int(self._rng.integers(MODULUS)))
        self._put(OPEN)
        before = int(self._rng.integers(operations))
        left = self.write(before)
        sign = self._put(int(self._rng.integers(PLUS, TIMES + 1)))
        right = self.write(operations - 1 - before)
        values = {PLUS: left + right, MINUS: left - right, TIMES: left * right}
        self._put(CLOSE)
        self._targets[self._time - 1] = value = values[sign] % MODULUS
        return value

    def _put(self, token: int) -> int:
        self._inputs[self._time] = token
        self._time += 1
        return token


class Dyck(Task):
    """Brackets of two kinds in, never deeper than `depth`; at each closing one, the kind of the one
    that is open after it (0 and 1), or that none is (2), out."""

    tokens, classes = 2 * KINDS, KINDS + 1

    def __init__(
        self,
        longest: Annotated[int, Field(ge=4, le=2**20)] = 40,
        depth: Annotated[int, Field(ge=1, le=1000)] = 4,
    ) -> None:
        self.training = {"length": (4, longest), "depth": depth}
        self.tests = {
            f"length {length}, depth {deep}": {"length": length, "depth": deep}
            for length, deep in ((longest, depth), (2 * longest, depth), (longest, 2 * depth))
        }

    def batch(self, rng: np.random.Generator, rows: int, length: int, depth: int) -> Batch:
        stack = np.zeros((depth + 1, rows), np.int64)
        stack[0] = KINDS
        deep, places = np.zeros(rows, np.int64), np.arange(rows)
        inputs, targets = np.zeros((length, rows), np.int64), np.zeros((length, rows), np.int64)
        for time in range(length):
            opens = (rng.random(rows) < 0.5) & (deep < depth) | (deep == 0)
            kinds = rng.integers(0, KINDS, rows)
            top = stack[deep, places]
            inputs[time] = np.where(opens, kinds, KINDS + top)
            deep = deep + np.where(opens, 1, -1)
            stack[deep[opens], places[opens]] = kinds[opens]
            targets[time] = stack[deep, places]
        return Batch(inputs, targets, inputs >= KINDS)

    def answer(self, inputs: Array) -> Array:
        found = np.zeros_like(inputs)
        for row in range(inputs.shape[1]):
            stack = [KINDS]
            for time, token in enumerate(inputs[:, row].tolist()):
                if token < KINDS:
                    stack.append(token)
                else:
                    assert stack.pop() == token - KINDS
                found[time, row] = stack[-1]
        return found


class Counting(Task):
    """aⁿ bⁿ cⁿ and an end in, from the first b on the next symbol out. A sequence is right if all
    of it is."""

    tokens, classes = 4, 4
    whole = True

    def __init__(self, most: Annotated[int, Field(ge=1, le=2**18)] = 20) -> None:
        self.training = {"least": 1, "most": most}
        self.tests = {
            f"n {low} to {high}": {"least": low, "most": high}
            for low, high in ((1, most), (most + 1, 2 * most), (2 * most + 1, 4 * most))
        }

    def batch(self, rng: np.random.Generator, rows: int, least: int, most: int) -> Batch:
        n = rng.integers(least, most + 1, rows)
        symbols = np.minimum(np.arange(3 * most + 1)[:, None] // n, END)
        inputs, targets = symbols[:-1], symbols[1:]
        return Batch(inputs, targets, (inputs == B) | (inputs == C))

    def answer(self, inputs: Array) -> Array:
        found = np.full_like(inputs, END)
        for row in range(inputs.shape[1]):
            tokens = inputs[:, row].tolist()
            n = tokens.count(A)
            written = [A] * n + [B] * n + [C] * n + [END] * (len(tokens) + 1 - 3 * n)
            found[:, row] = written[1 : len(tokens) + 1]
        return found

"""Remembering what stood at a place: copying, selective copying, adding, matching, compression."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zoo import UsageError
from zoo.tasks import Batch, Task

SYMBOLS = 8
BLANK, GO = SYMBOLS, SYMBOLS + 1
Array = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Size = Annotated[int, Field(ge=1, le=2**20)]


class Copying(Task):
    """Symbols, then blanks, then a sign in; after it the symbols out, in their order."""

    tokens, classes = SYMBOLS + 2, SYMBOLS

    def __init__(self, blanks: Size = 100, symbols: Size = 10) -> None:
        self._symbols = symbols
        self.training = {"blanks": (1, blanks)}
        self.tests = {f"{n} blanks": {"blanks": n} for n in (blanks, 2 * blanks)}

    def batch(self, rng: np.random.Generator, rows: int, blanks: int) -> Batch:
        count = self._symbols
        symbols = rng.integers(0, SYMBOLS, (count, rows))
        inputs = np.full((2 * count + blanks, rows), BLANK)
        inputs[:count] = symbols
        inputs[count + blanks - 1] = GO
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, bool)
        targets[-count:], counted[-count:] = symbols, True
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Array) -> Array:
        return _from_the_go(inputs, first=1)


class SelectiveCopying(Task):
    """Symbols among blanks, at places of their own in each sequence, then signs in; at the signs
    the symbols out, in their order."""

    tokens, classes = SYMBOLS + 2, SYMBOLS

    def __init__(self, longest: Size = 64, symbols: Size = 8) -> None:
        if symbols > longest:
            raise UsageError("selective copying has room for at most `longest` symbols.")
        self._symbols = symbols
        self.training = {"length": (symbols, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 2 * longest, 4 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        count = self._symbols
        symbols = rng.integers(0, SYMBOLS, (count, rows))
        places = np.sort(rng.random((length, rows)).argsort(0)[:count], axis=0)
        inputs = np.full((length + count, rows), BLANK)
        np.put_along_axis(inputs, places, symbols, 0)
        inputs[length:] = GO
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, bool)
        targets[length:], counted[length:] = symbols, True
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Array) -> Array:
        return _from_the_go(inputs, first=0)


def _from_the_go(inputs: Array, first: int) -> Array:
    """The symbols of each row again, from the step `first` after the first sign on."""
    found = np.zeros_like(inputs)
    for row in range(inputs.shape[1]):
        tokens = inputs[:, row].tolist()
        symbols = [token for token in tokens if token < SYMBOLS]
        begin = tokens.index(GO) + first
        found[begin : begin + len(symbols), row] = symbols
    return found


class Adding(Task):
    """Random numbers in, two of them marked, one in each half; at the end their sum out."""

    features, numbers = 2, 1

    def __init__(self, longest: Annotated[int, Field(ge=4, le=2**20)] = 50) -> None:
        self.training = {"length": (4, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 2 * longest, 4 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        inputs = np.zeros((length, rows, 2), np.float32)
        inputs[..., 0] = rng.random((length, rows))
        places, half = np.arange(rows), length // 2
        first, second = rng.integers(0, half, rows), rng.integers(half, length, rows)
        inputs[first, places, 1] = inputs[second, places, 1] = 1
        targets = np.zeros((length, rows, 1), np.float32)
        targets[-1, :, 0] = inputs[first, places, 0] + inputs[second, places, 0]
        counted = np.zeros((length, rows), bool)
        counted[-1] = True
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Floats) -> Floats:
        found = np.zeros((*inputs.shape[:2], 1), np.float32)
        for row in range(inputs.shape[1]):
            found[-1, row, 0] = sum(float(value) for value, mark in inputs[:, row] if mark)
        return found


class DelayedMatch(Task):
    """A noisy sample in, then noise alone, then a second sample; whether it is the same one out."""

    KINDS, SHOWN, NOISE = 8, 2, 0.1  # of samples; steps of each; standard deviation
    features, classes = KINDS + 1, 2

    def __init__(self, longest: Size = 40) -> None:
        self.training = {"delay": (1, longest)}
        self.tests = {f"delay {n}": {"delay": n} for n in (longest, 2 * longest, 4 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, delay: int) -> Batch:
        shown, length = self.SHOWN, 2 * self.SHOWN + delay
        inputs = rng.normal(0, self.NOISE, (length, rows, self.features)).astype(np.float32)
        first = rng.integers(0, self.KINDS, rows)
        same = rng.integers(0, 2, rows)
        second = np.where(same, first, (first + rng.integers(1, self.KINDS, rows)) % self.KINDS)
        inputs[:shown, np.arange(rows), first] += 1
        inputs[-shown:, np.arange(rows), second] += 1
        inputs[-shown:, :, -1] += 1  # the sign that the second one is shown
        targets, counted = np.zeros((length, rows), np.int64), np.zeros((length, rows), bool)
        targets[-1], counted[-1] = same, True
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Floats) -> Array:
        found = np.zeros(inputs.shape[:2], np.int64)
        for row in range(inputs.shape[1]):
            samples = [
                inputs[part, row, :-1].sum(0).argmax()
                for part in (slice(0, self.SHOWN), slice(-self.SHOWN, None))
            ]
            found[-1, row] = samples[0] == samples[1]
        return found


class Compression(Task):
    """Symbols and a sign in, then places in some order; at each place the symbol that stood there
    out."""

    def __init__(
        self, longest: Annotated[int, Field(ge=4, le=2**16)] = 16, symbols: Size = 16
    ) -> None:
        self._symbols = symbols
        self.tokens, self.classes = symbols + 1 + longest, symbols
        self.training = {"length": (2, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest // 2, longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        symbols = rng.integers(0, self._symbols, (length, rows))
        places = rng.random((length, rows)).argsort(0)
        sign = np.full((1, rows), self._symbols)
        inputs = np.concatenate([symbols, sign, self._symbols + 1 + places])
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, bool)
        targets[length + 1 :] = np.take_along_axis(symbols, places, 0)
        counted[length + 1 :] = True
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Array) -> Array:
        found = np.zeros_like(inputs)
        for row in range(inputs.shape[1]):
            for time, token in enumerate(inputs[:, row].tolist()):
                if token > self._symbols:
                    found[time, row] = inputs[token - self._symbols - 1, row]
        return found

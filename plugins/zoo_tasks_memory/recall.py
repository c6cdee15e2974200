"""Remembering by key: induction heads and associative recall."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zoo import UsageError
from zoo.tasks import Batch, Task

NOTHING = 0  # the token between the pairs and the questions
POWER = 0.01  # of the distances between a pair and its question
Array = npt.NDArray[np.int64]
Size = Annotated[int, Field(ge=1, le=2**20)]
Length = Annotated[int, Field(ge=8, le=2**20)]
Symbols = Annotated[int, Field(ge=4, le=256)]
Motif = Annotated[int, Field(ge=1, le=8)]
Noise = Annotated[int, Field(ge=0, le=90)]


class Induction(Task):
    """Random tokens in, one sign among them and again at the end; there the token out that followed
    the sign at first."""

    def __init__(self, longest: Length = 64, symbols: Size = 15) -> None:
        self._sign = symbols
        self.tokens, self.classes = symbols + 1, symbols
        self.training = {"length": (4, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 2 * longest, 4 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        inputs = rng.integers(0, self._sign, (length, rows))
        places, row = rng.integers(0, length - 2, rows), np.arange(rows)
        inputs[places, row] = inputs[-1] = self._sign
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, bool)
        targets[-1], counted[-1] = inputs[places + 1, row], True
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Array) -> Array:
        found = np.zeros_like(inputs)
        for row in range(inputs.shape[1]):
            tokens = inputs[:, row].tolist()
            found[-1, row] = tokens[tokens.index(self._sign) + 1]
        return found


class MultiQueryRecall(Task):
    """Pairs of a key and a value in, then the keys again among other tokens; at each key its value
    out. A question follows its pair sooner rather than later, by a power law."""

    def __init__(self, pairs: Size = 8, vocab: Annotated[int, Field(ge=8, le=2**20)] = 64) -> None:
        if 2 * pairs >= vocab // 2:
            raise UsageError(
                f"with vocab={vocab} there are keys for at most {(vocab // 2 - 1) // 2} pairs, and "
                f"for twice as many in the tests."
            )
        self.tokens = self.classes = vocab
        self.training = {"pairs": (min(2, pairs), pairs)}
        self.tests = {f"{n} pairs": {"pairs": n} for n in (pairs, 2 * pairs, pairs // 2 or 1)}

    def batch(self, rng: np.random.Generator, rows: int, pairs: int) -> Batch:
        half = self.tokens // 2
        keys = 1 + rng.random((half - 1, rows)).argsort(0)[:pairs]
        values = half + rng.random((self.tokens - half, rows)).argsort(0)[:pairs]
        length = 8 * pairs
        inputs = np.full((length, rows), NOTHING)
        inputs[: 2 * pairs : 2], inputs[1 : 2 * pairs : 2] = keys, values
        slots = (length - 2 * pairs) // 2
        weights = np.arange(1, slots + 1) ** (POWER - 1)
        # the largest of such keys are drawn without replacement, with these weights
        order = (rng.random((slots, rows)) ** (1 / weights[:, None])).argsort(0)[::-1][:pairs]
        places = 2 * pairs + 2 * order
        np.put_along_axis(inputs, places, keys, 0)
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, bool)
        np.put_along_axis(targets, places, values, 0)
        np.put_along_axis(counted, places, True, 0)
        return Batch(inputs, targets, counted)

    def answer(self, inputs: Array) -> Array:
        found, half = np.zeros_like(inputs), self.tokens // 2
        for row in range(inputs.shape[1]):
            known: dict[int, int] = {}
            before = NOTHING
            for time, token in enumerate(inputs[:, row].tolist()):
                found[time, row] = known.get(token, 0)
                if token >= half:
                    known[before] = token
                before = token
        return found


class InContextRecall(Task):
    """Keys and values in turn in, a key always with the same value; at each key, or its last token,
    that was there before, its value out, token by token.

    Keys and values have from one to `motif` tokens; a share of `noise` percent of the pairs is
    tokens that are neither, one for each two of a plain pair.
    """

    def __init__(
        self, longest: Length = 64, symbols: Symbols = 16, motif: Motif = 1, noise: Noise = 0
    ) -> None:
        self._half, self._motif, self._noise = symbols // 2, motif, noise
        self.tokens = symbols + (symbols if noise else 0)
        self.classes = symbols
        self.training = {"length": (longest // 2, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 2 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        inputs = np.zeros((length, rows), np.int64)
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, bool)
        for row in range(rows):
            written = self._written(rng)
            for time in range(length):
                token, target = next(written)
                inputs[time, row] = token
                if target is not None:
                    targets[time, row], counted[time, row] = target, True
        return Batch(inputs, targets, counted)

    def _written(self, rng: np.random.Generator) -> Iterator[tuple[int, int | None]]:
        """The tokens of a sequence without end, each with what is asked at it."""
        half, symbols = self._half, 2 * self._half
        keys = self._keys(rng)
        known: dict[tuple[int, ...], list[int]] = {}
        while True:
            if rng.random() < self._noise / 100:
                for token in rng.integers(symbols, self.tokens, 2):
                    yield int(token), None
                continue
            key = keys[int(rng.integers(len(keys)))]
            seen = key in known
            if not seen:
                known[key] = rng.integers(half, symbols, rng.integers(1, self._motif + 1)).tolist()
            *before, last = key
            value = known[key]
            for token in before:
                yield token, None
            yield last, value[0] if seen else None
            for token, after in zip(value, [*value[1:], None], strict=True):
                yield token, after if seen else None

    def _keys(self, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """As many keys as there are tokens for them; none begins with another."""
        if self._motif == 1:
            return [(token,) for token in range(self._half)]
        keys: list[tuple[int, ...]] = []
        while len(keys) < self._half:
            new = tuple(rng.integers(0, self._half, rng.integers(1, self._motif + 1)).tolist())
            if all(new[: len(key)] != key[: len(new)] for key in keys):
                keys.append(new)
        return keys

    def answer(self, inputs: Array) -> Array:
        found, half = np.zeros_like(inputs), self._half
        for row in range(inputs.shape[1]):
            known: dict[tuple[int, ...], list[int]] = {}
            key: tuple[int, ...] = ()
            written: list[int] = []
            for time, token in enumerate(inputs[:, row].tolist()):
                if token >= 2 * half:
                    continue
                if token < half:
                    if written:
                        known.setdefault(key, written)
                        key, written = (), []
                    key = (*key, token)
                else:
                    written.append(token)
                value = known.get(key, [])
                found[time, row] = value[len(written)] if len(written) < len(value) else 0
        return found


def fuzzy_recall(longest: Length = 64, symbols: Symbols = 16, motif: Motif = 3) -> InContextRecall:
    return InContextRecall(longest, symbols, motif)


def noisy_recall(longest: Length = 64, symbols: Symbols = 16, noise: Noise = 20) -> InContextRecall:
    return InContextRecall(longest, symbols, 1, noise)

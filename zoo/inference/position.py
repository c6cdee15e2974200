"""A position in a text that a model reads and writes: its state, the token that it has not read
yet, and its random numbers. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from zoo.config import Sampling
from zoo.data.tokenizer import Ids, Tokenizer
from zoo.errors import UsageError
from zoo.inference.engine import Engine, Uniform


class Stops:
    """When to stop writing: at the end of the text, at a token of `stop`, or as soon as the text
    holds a string of it, or `stop` itself where that is a string. The token that stops is the last
    of the text.

    UsageError for an empty string, and for what is neither token nor string.
    """

    def __init__(self, stop: str | Sequence[SupportsIndex | str], tokenizer: Tokenizer) -> None:
        items = [stop] if isinstance(stop, str) else list(stop)
        self._strings = [item for item in items if isinstance(item, str)]
        try:
            self._tokens = {index(item) for item in items if not isinstance(item, str)}
        except TypeError:
            raise UsageError("stop has to hold strings and numbers of tokens.") from None
        if tokenizer.end_of_text is not None:
            self._tokens.add(tokenizer.end_of_text)
        if "" in self._strings:
            raise UsageError("a stop string is empty; give at least one character.")
        self._tokenizer = tokenizer
        # a token of UTF-8 is at least a quarter of a character
        self._tail = 4 * max(map(len, self._strings), default=0) + 4

    def hit(self, written: Sequence[int]) -> bool:
        """Whether the last of the written tokens is one to stop at."""
        if written[-1] in self._tokens:
            return True
        if not self._strings:
            return False
        tail = self._tokenizer.decode(written[-self._tail :])
        return any(string in tail for string in self._strings)

    def take(self, written: list[int], tokens: Ids) -> bool:
        """Appends tokens to those that were written, up to the one to stop at; whether there was
        one."""
        if not (self._strings or self._tokens):
            written.extend(tokens.tolist())
            return False
        for token in tokens.tolist():
            written.append(token)
            if self.hit(written):
                return True
        return False


@dataclass
class _Chunk:
    """Look-ahead tokens, and how many of them were consumed. `before` is the state that the
    engine started from, `random` the position of the random numbers then."""

    before: Any
    last: Ids
    uniform: Uniform
    sampling: Sampling
    random: Mapping[str, Any]
    tokens: Ids
    after: Any
    taken: int = 0


class Position:
    """One row's position in a text. `last` is its last token, None before the first.

    A chunk of look-ahead tokens is written where that is faster for the engine; the position is
    always that of the last token that was consumed. After the token `end` another text begins, from
    the initial state.
    """

    def __init__(self, engine: Engine, seed: int = 0, end: int | None = None) -> None:
        self.engine = engine
        self._end = end
        self._rng = np.random.default_rng(seed)
        self._state = engine.init_state(1)
        self._last: int | None = None
        self._chunk: _Chunk | None = None

    def feed(self, tokens: Ids) -> None:
        """Reads tokens, at least one."""
        self._settle()
        if self._last is not None and self._last == self._end:
            self._state, self._last = self.engine.init_state(1), None
        before = [] if self._last is None else [self._last]
        ids = np.array([*before, *tokens.tolist()])
        self._state = self.engine.read(ids[:-1, None], self._state)
        self._last = int(ids[-1])

    def write(self, length: int, sampling: Sampling, stops: Stops | None = None) -> Iterator[int]:
        """Up to `length` tokens that continue what was fed, one by one.

        The draws are `numpy.random.default_rng(seed).random(dtype=float32)`, one for each token,
        whatever the temperature.
        """
        written: list[int] = []
        while len(written) < length:
            chunk = self._write_ahead(length - len(written), sampling)
            while chunk is self._chunk and chunk.taken < len(chunk.tokens):
                written.append(int(chunk.tokens[chunk.taken, 0]))
                chunk.taken += 1
                yield written[-1]
                if stops is not None and stops.hit(written):
                    return

    def snapshot(self) -> tuple[Any, int | None, Mapping[str, Any]]:
        """State, last token, and the position of the random numbers."""
        self._settle()
        return self._state, self._last, self._rng.bit_generator.state

    def restore(self, state: Any, last: int | None, random: Mapping[str, Any]) -> None:
        """Goes to where a snapshot was taken. Raises ValueError, TypeError or KeyError for a
        `random` that is none; nothing has changed then."""
        rng = np.random.default_rng()
        rng.bit_generator.state = random
        self._chunk = None
        self._state, self._last, self._rng = state, last, rng

    def _write_ahead(self, wanted: int, sampling: Sampling) -> _Chunk:
        self._settle()
        assert self._last is not None, "nothing was fed"
        if self._last == self._end:
            raise UsageError("the text has ended; feed some to begin another.")
        random = self._rng.bit_generator.state
        size = min(wanted, self.engine.chunk)
        uniform = self._rng.random((size, 1), dtype=np.float32)
        last = np.array([self._last])
        tokens, after = self.engine.write(last, self._state, uniform, sampling)
        self._chunk = _Chunk(self._state, last, uniform, sampling, random, tokens, after)
        return self._chunk

    def _settle(self) -> None:
        """Discards the look-ahead tokens that were not consumed."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        if chunk.taken:
            self._last = int(chunk.tokens[chunk.taken - 1, 0])
        if chunk.taken == len(chunk.tokens):
            self._state = chunk.after
            return
        self._rng.bit_generator.state = chunk.random
        if chunk.taken:
            uniform = self._rng.random((chunk.taken, 1), dtype=np.float32)
            _, self._state = self.engine.write(chunk.last, chunk.before, uniform, chunk.sampling)

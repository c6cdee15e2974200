"""What a scheduler works on: one row of a batch each, from reading its prompt to its last token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.config import Sampling
from zoo.data.tokenizer import Ids
from zoo.inference.position import Stops
from zoo.inference.snapshot import Snapshot

LENGTH, STOP, CANCELLED = "length", "stop", "cancelled"


class Likely(NamedTuple):
    """Of one position: the natural logarithm of its token's probability, and the most likely tokens
    with theirs. None for a token that nothing comes before."""

    logprob: float | None
    top: tuple[tuple[int, float], ...]


@dataclass
class Progress:
    """What a chunk added to a job: tokens that were written, or `read` tokens of the prompt, with
    what was asked for about each. `finish` is set in the last: why the job ended, or the error that
    ended it. `leaves` are a state's values after each token ([N, units]), if they are watched."""

    tokens: list[int] = field(default_factory=list)
    read: int = 0
    likely: list[Likely] = field(default_factory=list)
    leaves: npt.NDArray[Any] | None = None
    finish: str | Exception | None = None


@dataclass(eq=False)
class Job:
    """A prompt to read after `start`, and up to `length` tokens to write after that.

    `tell` gets each Progress, on the scheduler's thread. `end` is the position where it ended, if
    `keeps` asks for it: that after the last token that was told of. `logprobs` is how many likely
    tokens to tell with each token, `None` for none; `echoes` asks for those of the prompt too.
    """

    start: Snapshot
    prompt: Ids
    length: int
    sampling: Sampling
    tell: Callable[[Job, Progress], None]
    stops: Stops | None = None
    keeps: bool = False
    logprobs: int | None = None
    echoes: bool = False
    watches: bool = False

    end: Snapshot | None = None
    cancelled: bool = False
    written: list[int] = field(default_factory=list)
    read: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng()
        self.random.bit_generator.state = self.start.random
        self.last = self.start.last
        before = [] if self.last is None else [self.last]
        # the last token of all is read by the step that writes the next
        whole: list[int] = [*before, *self.prompt.tolist()]
        self.reading, self.newest = whole[:-1], whole[-1]

    @property
    def left(self) -> int:
        """Tokens that it has to read before it writes."""
        return len(self.reading) - self.read

    def draw(self, count: int) -> npt.NDArray[np.float32]:
        return self.random.random(count, dtype=np.float32)

    def rewind(self, random: Mapping[str, Any], count: int) -> None:
        """Sets the random numbers to where they were, and `count` further."""
        self.random.bit_generator.state = random
        if count:
            self.draw(count)

    def accept(self, tokens: Ids) -> tuple[list[int], str | None]:
        """The tokens up to the one to stop at, and why it ended, if it did."""
        before = len(self.written)
        tokens = tokens[: self.length - before]
        if self.stops is None:
            self.written += tokens.tolist()
        elif self.stops.take(self.written, tokens):
            return self.written[before:], STOP
        return self.written[before:], LENGTH if len(self.written) == self.length else None

"""Comparing the texts that two engines generate, each from its own state. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zoo.config import Sampling
from zoo.data.tokenizer import Ids
from zoo.inference.engine import Engine, Stepper
from zoo.inference.sampling import choose, margin

ROUNDING_TIE = 1e-5


@dataclass(frozen=True)
class Difference:
    """A token that the two chose differently: its index (from 0) in the generated tokens, and how
    far the reference's choice was from another. See `zoo.inference.sampling.margin`."""

    token: int
    margin: float

    @property
    def is_tie(self) -> bool:
        """Whether rounding alone explains it."""
        return self.margin <= ROUNDING_TIE


def compare_texts(
    reference: Stepper,
    candidate: Engine,
    prompt: Ids,
    length: int,
    sampling: Sampling,
    seed: int = 0,
) -> Iterator[Difference]:
    """The differences between the tokens that both generate, each from its own state. After a
    difference both continue from the reference's token."""
    rng = np.random.default_rng(seed)
    state = reference.init_state(1)
    for token in prompt[:-1]:
        _, state = reference.step(np.array([token]), state)
    other = candidate.read(prompt[:-1, None], candidate.init_state(1))
    last, done = prompt[-1:], 0
    while done < length:
        uniform = rng.random((min(candidate.chunk, length - done), 1), dtype=np.float32)
        while len(uniform):
            written, after = candidate.write(last, other, uniform, sampling)
            first, agreed = last, 0
            for row, found in zip(uniform, written, strict=True):
                logits, state = reference.step(last, state)
                last = choose(logits, row, sampling)
                agreed += 1
                if last[0] != found[0]:
                    token = done + agreed - 1
                    yield Difference(token, margin(logits[0], float(row[0]), sampling))
                    _, after = candidate.write(first, other, uniform[:agreed], sampling)
                    break
            other, uniform, done = after, uniform[agreed:], done + agreed

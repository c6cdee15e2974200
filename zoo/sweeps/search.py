"""Which learning rates a sweep tries, and which runs it needs."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from zoo.sweeps.events import RunStarted
from zoo.sweeps.table import Row

LARGEST_FACTOR = 32.0  # of the learning rates in a search; the smallest is its inverse


@dataclass(frozen=True)
class Batch:
    """Runs that depend on nothing but what was before them; `searched` are tries of a rate."""

    runs: Sequence[RunStarted]
    searched: bool = False


Plan: TypeAlias = Generator[Batch, Sequence[Row], None]


def plan(runs: Sequence[RunStarted], factor: float | None) -> Plan:
    """The batches of runs of a cell, whose seeds are these; it is sent the rows of each. The rate
    is so many times the usual one; None for the best that the first seed finds."""
    if factor is None:
        search = best_factor()
        tried = next(search)
        while True:
            (row,) = yield Batch([runs[0].at(tried)], searched=True)
            try:
                tried = search.send(row.judged)
            except StopIteration as ended:
                factor = ended.value
                break
    assert factor is not None
    yield Batch([run.at(factor) for run in runs])


def best_factor() -> Generator[float, float, float]:
    """Yields factors of the usual learning rate, is sent how well each did, the less the better,
    and returns the best: by factors of two up or down for as long as that helps."""
    found: dict[float, float] = {}
    best = found[1.0] = yield 1.0
    for step in (2.0, 0.5) if best < math.inf else (0.5,):  # what diverged wants less
        factor = step
        while 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
            found[factor] = yield factor
            if found[factor] >= best < math.inf:
                break
            best, factor = found[factor], factor * step
        if best < found[1.0]:
            break
    return min(found, key=found.__getitem__)

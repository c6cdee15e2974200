"""Which runs a sweep makes of each cell, and the search for the cell's learning rate."""

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
    """Runs that do not depend on each other; `search` says whether they try a learning rate."""

    runs: Sequence[RunStarted]
    search: bool = False


Plan: TypeAlias = Generator[Batch, Sequence[Row], None]


def plan_runs(runs: Sequence[RunStarted], factor: float | None) -> Plan:
    """The runs of a cell, one for each seed, in batches; it is sent the rows of each batch. Their
    learning rate is `factor` times the usual one; with None, the best that the first seed finds."""
    if factor is None:
        factor = yield from _search_factor(runs[0])
    yield Batch([run.at(factor) for run in runs])


def _search_factor(run: RunStarted) -> Generator[Batch, Sequence[Row], float]:
    """The best factor of the usual learning rate, by factors of two up or down for as long as that
    helps."""
    found: dict[float, float] = {}

    def judged_at(factor: float) -> Generator[Batch, Sequence[Row], float]:
        (row,) = yield Batch([run.at(factor)], search=True)
        found[factor] = row.judged
        return row.judged

    best = yield from judged_at(1.0)
    for step in (2.0, 0.5) if best < math.inf else (0.5,):  # what diverged wants less
        factor = step
        while 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
            judged = yield from judged_at(factor)
            if judged >= best < math.inf:
                break
            best, factor = judged, factor * step
        if best < found[1.0]:
            break
    return min(found, key=found.__getitem__)

"""A task of its own: keep the last bit that was written."""

from collections.abc import Iterable

import numpy as np
from zoo import hookimpl
from zoo.registry import TaskCard, TaskSpec, Trial
from zoo.tasks import Batch, Task

READ = 2  # the token that asks; 0 and 1 write


class Latch(Task):
    tokens, classes = 3, 2

    def __init__(self, longest: int = 20) -> None:
        self.training = {"length": (2, longest)}
        self.tests = {f"length {n}": {"length": n} for n in (longest, 4 * longest)}

    def batch(self, rng: np.random.Generator, rows: int, length: int) -> Batch:
        inputs = rng.integers(0, 3, (length, rows))
        inputs[0] = rng.integers(0, 2, rows)
        inputs[-1] = READ
        targets = inputs.copy()
        for time in range(1, length):
            targets[time] = np.where(inputs[time] == READ, targets[time - 1], inputs[time])
        return Batch(inputs, targets, inputs == READ)


@hookimpl
def zoo_tasks() -> Iterable[TaskSpec]:
    card = TaskCard(
        title="Latch", authors="Your name", year=2026, paper="Where it is described",
        definition="Reads bits and questions; at each question, asks for the last bit.",
        measures="Whether a cell can keep one bit.",
    )  # fmt: skip
    trial = Trial(200)
    return [TaskSpec("latch", "latch:Latch", card, full={"longest": 512}, trial=trial)]

"""Tasks by name, and the batches that training, validation and tests get of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ContractError, UsageError
from zoo.registry.registry import Registry, load_registry
from zoo.registry.task_spec import TaskSpec
from zoo.tasks.task import Batch, Task, draw, drawn

PREFIX, FULL_SIZE = "task:", "full"
# the first of the numbers that seed a batch: no two parts have the same sequences
TRAINING, VALIDATION, TEST = 0, 1, 2
VALIDATION_ROWS, VALIDATION_BATCHES = 64, 8
TEST_ROWS, TEST_BATCHES = 128, 4


@dataclass(frozen=True)
class NamedTask:
    """A task with the name and the options that it was found by."""

    name: str
    spec: TaskSpec
    options: Mapping[str, Any]
    task: Task

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the batches, as far as it can be told: the name, the options and
        the first validation batch."""
        first = next(self.validation())
        whole = hashlib.sha256(json.dumps([self.spec.name, dict(self.options)]).encode())
        for array in (first.inputs, first.targets, first.asked):
            whole.update(f"{array.shape} {array.dtype} ".encode() + array.tobytes())
        return whole.hexdigest()

    def training(self, base: int, index: int, rows: int) -> Batch:
        """The batch of that index of an epoch; `base` is another number in each epoch."""
        return draw(self.task, "training", np.random.default_rng([TRAINING, base, index]), rows)

    def validation(self) -> Iterator[Batch]:
        """The batches that a model is validated on, drawn as those of training are: the same ones
        every time."""
        for index in range(VALIDATION_BATCHES):
            rng = np.random.default_rng([VALIDATION, index])
            yield draw(self.task, "validation", rng, VALIDATION_ROWS)

    def test(self, name: str) -> Iterator[Batch]:
        """The batches of a test: the same ones every time."""
        tests = self.task.tests
        if name not in tests:
            raise UsageError(f"{self.name} has no test {name!r}; it has: {', '.join(tests)}.")
        for index in range(TEST_BATCHES):
            rng = np.random.default_rng([TEST, list(tests).index(name), index])
            yield drawn(self.task, "test", rng, TEST_ROWS, tests[name])


def is_task(corpus: object) -> bool:
    """Whether the name of a corpus is that of a task."""
    return isinstance(corpus, str) and corpus.startswith(PREFIX)


def find_task(name: str, registry: Registry | None = None) -> NamedTask:
    """The task called "task:NAME", in the size of the paper for "task:NAME:full", and with other
    options for "task:NAME:option=value,option=value". The prefix may be left out. UnknownNameError
    for a name that there is not, UsageError for options that it does not have or a package that is
    missing."""
    registry = registry or load_registry()
    first, _, rest = name.removeprefix(PREFIX).partition(":")
    spec = registry.tasks[first]
    options: dict[str, Any] = {}
    for piece in filter(None, rest.split(",")):
        key, equals, value = piece.partition("=")
        if piece == FULL_SIZE:
            options |= spec.full
        elif equals:
            options[key.replace("-", "_")] = value
        else:
            raise UsageError(
                f"{name!r}: after the name come {FULL_SIZE!r} or options, as in "
                f"task:{first}:option=value."
            )
    task = spec.build(**options)
    if not isinstance(task, Task) or not task.tests:
        raise ContractError(
            f"{registry.tasks.describe(first)}: {spec.factory} gave {task!r}; it should give a "
            f"zoo.tasks.Task with tests."
        )
    return NamedTask(PREFIX + name.removeprefix(PREFIX), spec, options, task)

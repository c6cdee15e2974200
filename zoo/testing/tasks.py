"""What every task must keep."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zoo.registry.registry import Registry, load_registry
from zoo.tasks.baselines import measure_baselines
from zoo.tasks.named import NamedTask, find_task
from zoo.tasks.task import Batch, Task
from zoo.testing.subject import LawBroken

BATCHES, ROWS = 5, 16
CLOSE = 1e-5  # of numbers in float32
LEAK = 0.95  # accuracy that needs a memory


def check_task(name: str, registry: Registry | None = None) -> None:
    """Draws batches of a task in all its parts, and raises LawBroken where they are not the same
    again, where a task of stored data trains on what it is tested on, where the task's own `answer`
    is another, or where the most frequent answer, or that at the same place, is right nearly
    always. Whatever building and drawing raises is raised too."""
    named = find_task(name, registry or load_registry())
    again = find_task(name, registry or load_registry())
    trained_on: set[bytes] = set()
    for index in range(BATCHES):
        batch = named.training(7, index, ROWS)
        trained_on |= _sequences(batch)
        _require(
            _same(batch, again.training(7, index, ROWS)), "a batch is another when drawn again"
        )
        _check_answer(named, batch)
    _require(
        not _same(named.training(7, 0, ROWS), named.training(8, 0, ROWS)),
        "two epochs have the same batch",
    )
    stored = type(named.task).batch_of is not Task.batch_of
    for batch, repeated in zip(_held_out(named), _held_out(again), strict=True):
        _require(_same(batch, repeated), "a batch to be tested on is another when drawn again")
        apart = not stored or trained_on.isdisjoint(_sequences(batch))
        _require(apart, "a sequence is in training and among those to be tested on")
        _check_answer(named, batch)
    if named.task.classes:
        for baseline in measure_baselines(named):
            for figure in (baseline.constant, baseline.position):
                found = f"{baseline.test} is got without a memory: {figure}"
                _require(figure is None or figure < LEAK, found)


def _check_answer(named: NamedTask, batch: Batch) -> None:
    answer = named.task.answer(batch.inputs)
    if answer is None:
        return
    wanted, found = answer[batch.asked], batch.targets[batch.asked]
    _require(bool(np.allclose(wanted, found, rtol=0, atol=CLOSE)), "the answer is another")


def _held_out(named: NamedTask) -> Iterator[Batch]:
    """The batches of validation and of all tests."""
    yield from named.validation()
    for test in named.task.tests:
        yield from named.test(test)


def _sequences(batch: Batch) -> set[bytes]:
    return {sequence.tobytes() for sequence in batch.inputs.swapaxes(0, 1)}


def _same(one: Batch, other: Batch) -> bool:
    pairs = zip((*one[:2], one.asked), (*other[:2], other.asked), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LawBroken(otherwise)

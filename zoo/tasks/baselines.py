"""What can be got without a memory: baselines that tell a leak, or a task that is too easy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo.tasks.named import NamedTask
from zoo.tasks.task import Array, Batch

BATCHES, ROWS = 40, 64  # of training that a baseline learns from
ENOUGH = 4096  # answers that it is tested on, if a test has as many


class Baseline(NamedTuple):
    """What is got on a test without reading the sequence: the share of the asked positions that are
    right, or of whole sequences where the task counts these; or the mean squared error.

    `constant` gives the most frequent class, or the mean, whatever is read; `position` the most
    frequent class at each position; `local` by the last two inputs: for classes a table of their
    pairs, with features in tenths, for numbers a linear function. `position` is None for numbers,
    and where a sequence is longer than any of training; `local` where no pair is known.
    """

    test: str
    constant: float
    position: float | None
    local: float | None


def measure_baselines(named: NamedTask) -> list[Baseline]:
    """The baselines on each test, learnt from batches of training."""
    batches = [named.training(0, index, ROWS) for index in range(BATCHES)]
    if named.task.interface.gives == "numbers":
        return [_errors(named, name, batches) for name in named.task.tests]
    return [_accuracies(named, name, batches) for name in named.task.tests]


def _accuracies(named: NamedTask, name: str, batches: list[Batch]) -> Baseline:
    classes = named.task.classes
    longest = max(len(batch.targets) for batch in batches)
    frequent, by_position = np.zeros(classes), np.zeros((longest, classes))
    pairs: dict[tuple[int, ...], Array] = {}
    for batch in batches:
        for time, row in zip(*np.nonzero(batch.asked), strict=True):
            target = batch.targets[time, row]
            frequent[target] += 1
            by_position[time, target] += 1
            pairs.setdefault(_pair(batch, time, row), np.zeros(classes))[target] += 1
    right, count, answers = np.zeros(3), 0, 0
    all_places, known = True, False
    for batch in named.test(name):
        if answers >= ENOUGH:
            break
        found = np.ones((3, *batch.asked.shape), bool)
        for time, row in zip(*np.nonzero(batch.asked), strict=True):
            target, pair = batch.targets[time, row], _pair(batch, time, row)
            at_place = time < longest and by_position[time].any()
            all_places, known = all_places and at_place, known or pair in pairs
            found[:, time, row] = (
                frequent.argmax() == target,
                at_place and by_position[time].argmax() == target,
                pair in pairs and pairs[pair].argmax() == target,
            )
        answers += int(batch.asked.sum())
        counted = found.all(1) if named.task.whole else found[:, batch.asked]
        right, count = right + counted.sum(1), count + counted.shape[1]
    constant, position, local = (right / count).tolist()
    return Baseline(name, constant, position if all_places else None, local if known else None)


def _pair(batch: Batch, time: int, row: int) -> tuple[int, ...]:
    """The last two inputs, features in tenths."""
    found = batch.inputs[max(0, time - 1) : time + 1, row]
    if found.ndim == 2:
        found = np.round(10 * found)
    return tuple(found.ravel().astype(int).tolist())


def _errors(named: NamedTask, name: str, batches: list[Batch]) -> Baseline:
    x, y = _regressed(named, batches)
    x_test, y_test = _regressed(named, list(named.test(name)))
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    constant = float(((y_test - y.mean(0)) ** 2).mean())
    return Baseline(name, constant, None, float(((y_test - x_test @ weights) ** 2).mean()))


def _regressed(named: NamedTask, batches: list[Batch]) -> tuple[Array, Array]:
    """The last two inputs and a one, and the target, of each asked position."""
    parts = []
    for batch in batches:
        tokens = named.task.tokens
        inputs = np.eye(tokens)[batch.inputs] if tokens else batch.inputs.astype(float)
        before = np.concatenate([np.zeros_like(inputs[:1]), inputs[:-1]])
        x = np.concatenate([before, inputs, np.ones((*inputs.shape[:2], 1))], -1)
        parts.append((x[batch.asked], batch.targets[batch.asked]))
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    return x, y

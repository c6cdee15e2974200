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
    right, or the mean squared error.

    `constant` gives the most frequent class, or the mean, whatever is read; `position` the same at
    each position; `local` by the last two inputs: a table of pairs of tokens, or a linear function
    of their features. None where a sequence is longer than any of training, or no pair is known.
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
    whole, by_position = np.zeros(classes), np.zeros((longest, classes))
    pairs: dict[tuple[int, ...], Array] = {}
    for batch in batches:
        for time, row in zip(*np.nonzero(batch.asked), strict=True):
            target = batch.targets[time, row]
            whole[target] += 1
            by_position[time, target] += 1
            pairs.setdefault(_pair(batch, time, row), np.zeros(classes))[target] += 1
    right = np.zeros(3)
    asked, places, known = 0, 0, 0
    for batch in named.test(name):
        if asked >= ENOUGH:
            break
        for time, row in zip(*np.nonzero(batch.asked), strict=True):
            target, pair = batch.targets[time, row], _pair(batch, time, row)
            asked += 1
            right[0] += whole.argmax() == target
            if time < longest and by_position[time].any():
                places += 1
                right[1] += by_position[time].argmax() == target
            if pair in pairs:
                known += 1
                right[2] += pairs[pair].argmax() == target
    return Baseline(
        name,
        right[0] / asked,
        right[1] / places if places == asked else None,
        right[2] / asked if known else None,
    )


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

"""What a lower precision costs on a task. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.inference.engine import HasState
from zoo.inference.task_scoring import score_batches
from zoo.tasks.named import NamedTask
from zoo.tasks.task import Batch


def task_cost(named: NamedTask, engine: HasState, reference: HasState) -> float:
    """How much worse the engine is than the reference, on the test where it is worst: the loss of
    accuracy, or the increase of the error as a share of the targets' mean square."""
    costs = []
    for name in named.task.tests:
        batches = list(named.test(name))
        found, wanted = (score_batches(e, named, name, batches) for e in (engine, reference))
        costs.append((found.cost - wanted.cost) / _scale(named, batches))
    return max(costs)


def _scale(named: NamedTask, batches: Sequence[Batch]) -> float:
    if named.task.classes:
        return 1.0
    asked = np.concatenate([batch.targets[batch.asked] for batch in batches])
    return float((asked.astype(np.float64) ** 2).mean()) or 1.0

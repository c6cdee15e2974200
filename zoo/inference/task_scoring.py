"""How well a model does a task, from whatever computes it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from zoo.errors import UsageError
from zoo.inference.engine import HasState, NotFiniteError, Scorer, interface_of
from zoo.inference.runtime import Source, open_source
from zoo.registry.registry import Registry, load_registry
from zoo.tasks.named import NamedTask, find_task
from zoo.tasks.task import Batch
from zoo.validation import FrozenModel


class SettingScore(FrozenModel):
    """What a model gets on one test of a task: the share of asked positions that are right, or of
    whole sequences where the task says so; or the mean squared error."""

    name: str
    accuracy: float | None = None
    error: float | None = None

    @property
    def cost(self) -> float:
        """What is to be low: the share that is wrong, or the error."""
        if self.error is not None:
            return self.error
        assert self.accuracy is not None
        return 1 - self.accuracy


class TaskScore(FrozenModel):
    """What a model gets on each test of a task."""

    task: str
    settings: tuple[SettingScore, ...]


def score_task(
    source: Source | str | Path,
    task: str,
    *,
    provider: str = "auto",
    registry: Registry | None = None,
) -> TaskScore:
    """What a model gets on the tests of a task ("task:parity", or "parity"): on 512 sequences of
    each, which are the same ones every time and are not drawn from the numbers that training has.
    Raises UsageError for a task that the model cannot read or answer, and for a graph that gives no
    outputs."""
    registry = registry or load_registry()
    named = find_task(task, registry)
    if not isinstance(source, Source):
        source = open_source(source, provider, registry, scores=True)
    return TaskScore(
        task=named.name,
        settings=tuple(
            score_batches(source.engine, named, name, named.test(name)) for name in named.task.tests
        ),
    )


def score_batches(
    engine: HasState, named: NamedTask, name: str, batches: Iterable[Batch]
) -> SettingScore:
    """What the engine gets on these batches, which have the name of a test. UsageError where it
    cannot do the task, NotFiniteError where its outputs are not finite."""
    wanted, found = named.task.interface, interface_of(engine)
    if wanted != found or not isinstance(engine, Scorer):
        raise UsageError(
            f"{named.name} is {wanted.inputs} {wanted.reads} in and {wanted.outputs} "
            f"{wanted.gives} out, and this model has {found.inputs} {found.reads} and "
            f"{found.outputs} {found.gives}; train one with `zoo train {named.name}`."
        )
    total, count = 0.0, 0
    for batch in batches:
        outputs, _ = engine.logits(batch.inputs, engine.init_state(batch.inputs.shape[1]))
        if not np.isfinite(outputs[batch.asked]).all():
            raise NotFiniteError
        if wanted.gives == "numbers":
            wrong = (outputs.astype(np.float64) - batch.targets)[batch.asked] ** 2
            total, count = total + float(wrong.sum()), count + wrong.size
            continue
        right = outputs.argmax(-1) == batch.targets
        right = (right | ~batch.asked).all(0) if named.task.whole else right[batch.asked]
        total, count = total + int(right.sum()), count + right.size
    if wanted.gives == "numbers":
        return SettingScore(name=name, error=total / count)
    return SettingScore(name=name, accuracy=total / count)

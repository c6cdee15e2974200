"""The runs of a sweep in processes of their own, on this machine or on a Ray cluster.

Ray sends a run to where a CPU is free, and sends it again when its process or machine is lost. What
was trained until then stands in the run's folder, from which the next process goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import CorpusError, ProviderError, ZooError, one_line
from zoo.inference.ray_cluster import connected, import_ray
from zoo.registry.registry import Registry, load_registry
from zoo.sweeps.events import RunStarted, SweepEvent, TrialFinished
from zoo.sweeps.search import Batch, Plan
from zoo.sweeps.table import Row
from zoo.sweeps.trials import Trials, failed

RETRIES = 3  # of a run, when its process or machine is lost


def train_in_parallel(
    trials: Trials,
    plans: Sequence[Plan],
    registry: Registry,
    address: str,
    workers: int | None = None,
) -> Iterator[SweepEvent]:
    """The runs of all plans, at most so many at once (as many as the cluster has CPUs): a
    RunStarted when one is sent, and its Row, or TrialFinished, when it has ended. Each has one
    thread.

    `address` is that of `zoo.inference.ray_cluster.connected`. The sweep's folder, and files that
    the settings name, must have the same paths on all machines, and lead to the same files. Raises
    ZooError where the cluster is lost.
    """
    with connected(address, cpus=workers) as ray:
        errors = import_ray("ray.exceptions")
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_train)
        states = [_State(plan, next(plan)) for plan in plans]
        waiting = [(state, number) for state in states for number in range(len(state.batch.runs))]
        running: dict[Any, tuple[_State, int]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < count:
                    state, number = waiting.pop(0)
                    run = state.batch.runs[number]
                    yield run
                    running[remote.remote(trials, run, os.getcwd())] = state, number
                (done,), _ = ray.wait([*running], num_returns=1)
                state, number = running.pop(done)
                run, batch = state.batch.runs[number], state.batch
                row = _result(ray, errors, done, run, registry)
                yield TrialFinished(row) if batch.searched else row
                waiting[:0] = [(state, each) for each in state.take(number, row)]
        except errors.RayTaskError:
            raise  # of what it did, not of where
        except errors.RayError as error:
            raise ZooError(
                f"the cluster was lost ({one_line(error)}); the same command continues the sweep."
            ) from error
        finally:
            for each in running:
                ray.cancel(each, force=True)


@dataclass
class _State:
    """A plan that is being worked on: its batch, and the rows of it that there are."""

    plan: Plan
    batch: Batch
    rows: dict[int, Row] = field(default_factory=dict)

    def take(self, number: int, row: Row) -> range:
        """Takes the row of a run of the batch. Returns the numbers of the next batch's runs, if
        there is one now."""
        self.rows[number] = row
        if len(self.rows) < len(self.batch.runs):
            return range(0)
        rows, self.rows = [self.rows[each] for each in sorted(self.rows)], {}
        try:
            self.batch = self.plan.send(rows)
        except StopIteration:
            return range(0)
        return range(len(self.batch.runs))


def _result(ray: Any, errors: Any, done: Any, run: RunStarted, registry: Registry) -> Row:
    """The row of a run that has ended, or whose processes were lost again and again."""
    try:
        answer: Row | ZooError = ray.get(done)
    except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
        reason = f"its process was lost {RETRIES + 1} times: {one_line(error)}"
        return failed(run, registry.cells[run.cell], reason)
    if isinstance(answer, ZooError):
        raise answer
    return answer


def _train(trials: Trials, run: RunStarted, folder: str) -> Row | ZooError:
    """In a process of the cluster: trains a run. An error that concerns all runs is returned: not
    every error of ours can be pickled, but these can."""
    import torch

    torch.set_num_threads(1)
    if Path(folder).is_dir():
        os.chdir(folder)
    events = trials.row(run, load_registry())
    try:
        while True:
            next(events)
    except StopIteration as ended:
        row: Row = ended.value
        return row
    except (CorpusError, ProviderError) as error:
        return ZooError(str(error))

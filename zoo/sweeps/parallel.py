"""The runs of a sweep in several processes, on this machine or on a Ray cluster.

Ray sends a run to where a CPU is free, and again where its process or machine is lost. Until then
the run was saved in its folder, from which the next process resumes it.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.errors import CorpusError, ProviderError, UnknownNameError, ZooError, one_line
from zoo.inference.ray_cluster import connected, import_ray, require_answer
from zoo.registry.registry import Registry, load_registry
from zoo.sweeps.events import RunStarted, SweepEvent, TrialFinished
from zoo.sweeps.runs import Runs, failed_row
from zoo.sweeps.search import Batch, Plan
from zoo.sweeps.table import Row

RETRIES = 3  # of a run, when its process or machine is lost
LISTENING = 2.0  # seconds between two looks whether the cluster is still there
LOCK = ".lock"  # how the names of the files end by which a process claims a run
SAVING = 30.0  # seconds that interrupted runs have to save


def train_in_parallel(
    runs: Runs,
    plans: Sequence[Plan],
    registry: Registry,
    address: str,
    workers: int | None = None,
    gpus: int = 0,
) -> Iterator[SweepEvent]:
    """The runs of all plans, at most `workers` at once, or as many as the cluster has CPUs; with
    `gpus`, of which each run has so many, as it has GPUs. A RunStarted when a run is sent, and its
    Row, or TrialFinished, when it has ended. Each has one thread.

    `address` is that of `zoo.inference.ray_cluster.connected`. The sweep's folder, and files that
    the settings name, must have the same paths on all machines, and lead to the same files. Raises
    ZooError where the cluster is lost, or a machine lacks a folder or a plugin.
    """
    with connected(address, cpus=workers) as ray:
        errors = import_ray("ray.exceptions")
        unit = "GPU" if gpus else "CPU"
        head = ray.get_runtime_context().gcs_address
        available = int(ray.cluster_resources().get(unit, 0))
        if not available:
            raise ZooError(
                f"the Ray cluster at {address!r} has no {unit} to train on; add a machine that has "
                f"one, or choose another --device."
            )
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_train)
        waiting = deque[tuple[_Progress, RunStarted]]()
        for plan in plans:
            progress = _Progress(plan, next(plan))
            waiting.extend((progress, run) for run in progress.batch.runs)
        sent: dict[Any, tuple[_Progress, RunStarted]] = {}
        try:
            while waiting or sent:
                while waiting and len(sent) < (workers or available):
                    progress, run = waiting.popleft()
                    yield run
                    there = replace(run, folder=run.folder.absolute())
                    sent[remote.remote(runs, there, os.getcwd())] = progress, run
                while not (done := ray.wait([*sent], timeout=LISTENING)[0]):
                    require_answer(head)  # else Ray ends this process, after a minute
                progress, run = sent.pop(done[0])
                row = _result(ray, errors, done[0], run, registry)
                yield TrialFinished(row) if progress.batch.search else row
                # first, as the search of a rate takes the most steps
                waiting.extendleft((progress, run) for run in reversed(progress.take(run, row)))
        except errors.RayTaskError:
            raise  # of what it did, not of where
        except (errors.RayError, OSError) as error:
            sent.clear()
            raise ZooError(
                f"the cluster was lost ({one_line(error)}); the same command continues the sweep."
            ) from error
        finally:
            if sent:
                for each in sent:
                    ray.cancel(each)  # as Ctrl-C does: it saves
                ray.wait([*sent], num_returns=len(sent), timeout=SAVING)


@dataclass
class _Progress:
    """A plan that is being worked on: its batch, and the rows of it that there are."""

    plan: Plan
    batch: Batch
    rows: dict[RunStarted, Row] = field(default_factory=dict)

    def take(self, run: RunStarted, row: Row) -> Sequence[RunStarted]:
        """Takes the row of a run. Returns the runs of the next batch, if there is one now."""
        self.rows[run] = row
        if len(self.rows) < len(self.batch.runs):
            return []
        rows, self.rows = [self.rows[each] for each in self.batch.runs], {}
        try:
            self.batch = self.plan.send(rows)
        except StopIteration:
            return []
        return self.batch.runs


def _result(ray: Any, errors: Any, done: Any, run: RunStarted, registry: Registry) -> Row:
    """The row of a run that has ended, or whose processes were lost again and again."""
    try:
        answer: Row | ZooError = ray.get(done)
    except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
        reason = f"its process was lost {RETRIES + 1} times: {one_line(error)}"
        return failed_row(run, registry.cells[run.cell], reason)
    if isinstance(answer, ZooError):
        raise answer
    return answer


def _train(runs: Runs, run: RunStarted, folder: str) -> Row | ZooError:
    """In a process of the cluster: trains a run. An error that concerns all runs is returned: not
    every error of ours can be pickled, but these can."""
    import torch
    from filelock import FileLock

    torch.set_num_threads(1)
    here = f"on {socket.gethostname()}"
    with suppress(FileNotFoundError):  # files may be named by whole paths
        os.chdir(folder)
    if not run.folder.parent.is_dir():
        return ZooError(
            f"{run.folder.parent} is not there {here}; put the sweep where all machines find it."
        )
    # where a machine loses only its connection, its process may go on beside the one that Ray sends
    lock = FileLock(run.folder.with_name(f".{run.folder.name}{LOCK}"))
    try:
        with lock:
            events = runs.row(run, load_registry())
            while True:
                next(events)
    except StopIteration as ended:
        row: Row = ended.value
        return row
    except UnknownNameError as error:
        return ZooError(f"{here}, {error} Install its plugin there.")
    except (CorpusError, ProviderError) as error:
        return ZooError(f"{here}, {error}")

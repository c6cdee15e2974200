"""The trials of one cell on one task: trainings at several learning rates, and the best one's
tests."""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from zoo.config import ModelConfig, RunConfig
from zoo.errors import DivergedError, one_line
from zoo.inference.task_scoring import score_task
from zoo.models.parameter_budget import count_parameters, count_state_bytes, largest_hidden
from zoo.ranking.entrants import Entrant, choose_entrants
from zoo.ranking.ranks import LEARNT, Outcome, RankRow, Try, judge
from zoo.registry.attribution import describe_error
from zoo.registry.registry import Registry, load_registry
from zoo.runs.metadata import CONFIG, Record, read_metrics, read_record
from zoo.tasks.baselines import Baseline
from zoo.tasks.named import PREFIX, NamedTask, find_task
from zoo.training.defaults import choose_for_task
from zoo.training.events import Report
from zoo.training.experiment import resume_events, train_events
from zoo.training.task_data import EPOCH

ROWS = 64  # sequences of a batch
LAYERS = 2
FACTORS = (1.0, 4.0, 0.25)  # of the cell's usual learning rate, in the order of trying
NEAR = (2.0, 0.5)  # of the best of these: tried after them, if that one has learnt something
FAIR = 1 / 3  # of its batches a training gets before it is compared with the best
ENOUGH = 0.99  # of what can be learnt, in validation: no other rate is tried then
SOLVED_BITS = 0.002  # for each answer: nothing is left to learn
MEASURES = {"parameters": count_parameters, "state_bytes": count_state_bytes}


@dataclass(frozen=True)
class Size:
    """What is equal in all models: at most so many "parameters", or "state_bytes" of one stream."""

    of: str = "parameters"
    most: int = 50_000

    def __str__(self) -> str:
        return f"{self.of}={self.most}"


@dataclass(frozen=True)
class Job:
    """A cell (with options behind its name), a task and a seed, and the folder of its runs. It can
    be sent to another process."""

    cell: str
    task: str
    batches: int
    baselines: Sequence[Baseline]
    seed: int
    size: Size
    folder: Path

    def row(self, registry: Registry) -> RankRow:
        """Trains at each rate, until one leaves nothing to learn, and tests the best. Trainings
        that ended before are read, and one that was interrupted is resumed. What goes wrong is the
        row's."""
        (entrant,) = choose_entrants([self.cell], registry)
        return _Trials(self, entrant, find_task(self.task, registry), registry).row()

    def failed(self, evidence: str) -> RankRow:
        """A row without figures."""
        return RankRow(
            task=self.task, cell=self.cell, seed=self.seed, size=str(self.size), layers=LAYERS,
            batches=self.batches, tries=(), verdict="failed", evidence=evidence,
            command=self.command,
        )  # fmt: skip

    @property
    def command(self) -> str:
        """What makes the row again."""
        flag = f"--{self.size.of.replace('_', '-')}"
        name = self.task.removeprefix(PREFIX).partition(":")[0]
        words = ["zoo", "rank", self.cell, "--tasks", name, flag, str(self.size.most)]
        if self.seed:
            words += ["--seed", str(self.seed)]
        return shlex.join(words)


def begin_worker() -> None:
    """Prepares a process that trains. It ends when the one that started it does, killed or not:
    nobody waits for what it trains. Ctrl-C is for that one alone, which asks this one to end; and
    models are so small that a GPU has nothing to give."""
    if hasattr(os, "setsid"):  # Windows has no sessions
        os.setsid()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def train_alone(job: Job) -> RankRow:
    """`Job.row` in a process of its own, with one thread. A process that is asked to end saves the
    training, and takes no other job."""
    torch.set_num_threads(1)
    try:
        return job.row(load_registry())
    except KeyboardInterrupt:
        os._exit(1)


@dataclass(frozen=True)
class _Trials:
    job: Job
    entrant: Entrant
    named: NamedTask
    registry: Registry

    def row(self) -> RankRow:
        job = self.job
        tried, failed = self._tries()
        tests: tuple[Outcome, ...] = ()
        figures: dict[str, Any] = {}
        tries = tuple(sorted((*tried, *failed), key=lambda each: each.factor))
        try:
            if tried:
                best = tried[_best(tried)]
                tests, figures = self._tested(best), self._figures(best)
                for record in tried.values():
                    if record is not best:
                        shutil.rmtree(record.path)
            verdict, evidence = judge(tries, tests)
        except Exception as error:  # in the tests: a loss of training says nothing of these
            verdict, evidence = "failed", describe_error(error, self.registry)
        last = [record.metrics[-1] for record in tried.values()]
        return RankRow(
            task=job.task,
            cell=job.cell,
            seed=job.seed,
            size=str(job.size),
            layers=LAYERS,
            batches=job.batches,
            year=self.entrant.spec.card.year,
            tries=tries,
            sequences=sum(ROWS * line["step"] for line in last),
            seconds=round(sum(line["seconds"] for line in last), 1),
            tests=tests,
            verdict=verdict,
            evidence=evidence,
            command=job.command,
            **figures,
        )

    def _tries(self) -> tuple[dict[Try, Record], list[Try]]:
        """The trainings that have figures, with their records, and those that failed."""
        tried: dict[Try, Record] = {}
        failed = []
        for factors in (FACTORS, NEAR):
            around = 1.0
            if factors is NEAR:
                if not tried or self._learnt(tried[_best(tried)]) < LEARNT:
                    break
                around = _best(tried).factor
            for factor in factors:
                best = tried[_best(tried)] if tried else None
                if best is not None and self._learnt(best) >= ENOUGH:
                    break
                found, record = self._try(around * factor, best)
                if record is None:
                    failed.append(found)
                else:
                    tried[found] = record
        return tried, failed

    def _learnt(self, record: Record) -> float:
        """The share of what is left above what is got without a memory, in validation."""
        error, right = record.best("held_out_error"), record.highest("held_out_accuracy")
        base = _best_without(self.job.baselines[0], high=error is None)
        return Outcome(name="", accuracy=right, error=error, without_memory=base).learnt

    def _try(self, factor: float, best: Record | None) -> tuple[Try, Record | None]:
        """A training at that many times the usual rate, as long as it is not behind `best`."""
        folder = self.job.folder.with_name(f"{self.job.folder.name}-rate-x{factor:g}")
        rate = self.entrant.spec.learning_rate * factor
        rival = best if best is not None and self._learnt(best) >= LEARNT else None
        try:
            self._train(folder, rate, rival)
            record = read_record(folder)
        except DivergedError as error:
            return Try(
                factor=factor, learning_rate=rate, error=one_line(error), diverged=True
            ), None
        except Exception as error:
            told = describe_error(error, self.registry)
            return Try(factor=factor, learning_rate=rate, error=told), None
        losses = [_loss(line) for line in record.metrics]
        found = Try(
            factor=factor,
            learning_rate=rate,
            batches=record.metrics[-1]["step"],
            lowest=min(losses),
            last=losses[-1],
        )
        return found, record

    def _train(self, folder: Path, rate: float, rival: Record | None) -> None:
        job, registry = self.job, self.registry
        if not (folder / CONFIG).is_file():
            events = train_events(
                job.task, batch_size=ROWS, epochs=job.batches // EPOCH, learning_rate=rate,
                target_loss=self._solved_loss(), seed=job.seed, out=folder, registry=registry,
                **self._model(),
            )  # fmt: skip
        elif read_record(folder).finished or self._is_behind(folder, rival):
            return
        else:
            events = resume_events(folder, registry)
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if isinstance(event, Report) and self._is_behind(folder, rival):
                    break

    def _solved_loss(self) -> float:
        """Where a training ends: an error is as small as what is got without a memory is large."""
        if self.named.task.interface.gives == "classes":
            return SOLVED_BITS
        return (1 - ENOUGH) * _best_without(self.job.baselines[0], high=False)

    def _is_behind(self, folder: Path, rival: Record | None) -> bool:
        """Whether a training that had a fair share of its batches stands worse than the rival stood
        there."""
        metrics = read_metrics(folder)
        if rival is None or not metrics or metrics[-1]["step"] < FAIR * self.job.batches:
            return False
        until = [_loss(line) for line in rival.metrics if line["step"] <= metrics[-1]["step"]]
        return min(map(_loss, metrics)) > min(until)

    def _model(self) -> dict[str, Any]:
        """The settings of the model. An embedding is as large as a task's usual one."""
        spec, interface, size = self.entrant.spec, self.named.task.interface, self.job.size
        own: dict[str, Any] = {
            "cell": spec.name, "options": dict(self.entrant.options), "layers": LAYERS
        }  # fmt: skip
        usual = choose_for_task(RunConfig.build(own), interface, self.registry)
        own["embedding"] = usual["embedding"]
        hidden = largest_hidden(
            size.most, ModelConfig(**own), spec, interface, self.registry, MEASURES[size.of]
        )
        return {**own, "hidden": hidden}

    def _tested(self, record: Record) -> tuple[Outcome, ...]:
        scores = score_task(record.path, self.job.task, registry=self.registry).settings
        return tuple(
            Outcome(
                name=score.name,
                accuracy=score.accuracy,
                error=score.error,
                without_memory=_best_without(baseline, high=score.error is None),
            )
            for score, baseline in zip(scores, self.job.baselines, strict=True)
        )

    def _figures(self, record: Record) -> dict[str, Any]:
        model, interface = record.config.model, self.named.task.interface
        return {
            "hidden": model.hidden,
            "parameters": count_parameters(model, interface, self.registry),
            "state_bytes": count_state_bytes(model, interface, self.registry),
            "learning_rate": record.config.training.learning_rate,
            "curve": tuple((line["step"], _shown(line)) for line in record.metrics),
        }


def _best(tried: Iterable[Try]) -> Try:
    return min(tried, key=_loss_of)


def _loss_of(each: Try) -> float:
    return math.inf if each.lowest is None else each.lowest


def _loss(line: dict[str, float]) -> float:
    found = line.get("held_out_error")
    return line["held_out_bits_per_token"] if found is None else found


def _shown(line: dict[str, float]) -> float:
    """What a curve shows: the share that is right, or the error."""
    found = line.get("held_out_accuracy")
    return float(f"{line['held_out_error'] if found is None else found:.5g}")


def _best_without(baseline: Baseline, high: bool) -> float:
    """The best that is got without a memory: the highest share, or the lowest error."""
    known = [value for value in baseline[1:] if value is not None]
    return float(f"{max(known) if high else min(known):.5g}")

"""Cells trained on tasks, each on its own, and compared: `rank`, and the same row by row."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from fnmatch import fnmatchcase
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from zoo.errors import UnknownNameError, UsageError
from zoo.files import new_folder
from zoo.inference.cpu import usable_cores
from zoo.ranking.entrants import choose_entrants
from zoo.ranking.picture import draw_ranks
from zoo.ranking.ranks import Key, RankRow, read_ranks, write_ranks, write_table
from zoo.ranking.trials import LAYERS, Job, Size, begin_worker, train_alone
from zoo.registry.registry import Registry, load_registry
from zoo.registry.task_spec import TaskSpec, Trial
from zoo.tasks.baselines import measure_baselines
from zoo.tasks.named import PREFIX, NamedTask, find_task

RANKS, TABLE, RUNS = "rank.jsonl", "rank.csv", "runs"
FOLDER = Path("runs", "rank")
SAVING = 30.0  # seconds that a training has to save when it is asked to end


def rank(
    cells: str | Sequence[str],
    *,
    tasks: str | Sequence[str] | None = None,
    seeds: int = 1,
    seed: int = 0,
    parameters: int | None = None,
    state_bytes: int | None = None,
    workers: int | None = None,
    again: bool = False,
    out: str | Path = FOLDER,
    registry: Registry | None = None,
) -> list[RankRow]:
    """Trains each of the `cells` on each of the `tasks` by the rules of the published comparison,
    and returns a row for each cell, task and seed.

    `cells` are names and patterns, with options behind a name ("gru,deltanet:heads=2"). `tasks` are
    names and patterns of tasks that have a trial (see `zoo.registry.Trial`); without them, the
    quick ones. Each cell has two layers and the largest hidden size with which its model has at
    most 50,000 `parameters`, or, where `state_bytes` is given instead, at most so many bytes of
    state. It is trained at its usual learning rate, at four times and at a quarter of it, and, if
    one of these has learnt something, at twice and half the best, on equally many sequences each; a
    rate that is behind the best after a third of these is given up, and after one that has learnt
    0.99 of what can be learnt no other is tried. The lowest loss in validation says which is
    tested.

    So many `workers` train at once, each a process with one thread; without the argument one for
    each core, and with 0, or a `registry` of your own, all is done in this process. The folder
    `out` has the rows in `rank.jsonl` and `rank.csv`, a picture, and the best run of each row. What
    is there already is not trained again, unless `again` says so, as after a change of the cell;
    and what was stopped goes on. A row whose training failed says why, and is tried again the next
    time. Raises UsageError for invalid arguments, UnknownNameError for cells and tasks that there
    are not.
    """
    events = rank_events(
        cells, tasks=tasks, seeds=seeds, seed=seed, parameters=parameters, state_bytes=state_bytes,
        workers=workers, again=again, out=out, registry=registry,
    )  # fmt: skip
    return [event for event in events if isinstance(event, RankRow)]


def rank_events(
    cells: str | Sequence[str],
    *,
    tasks: str | Sequence[str] | None = None,
    seeds: int = 1,
    seed: int = 0,
    parameters: int | None = None,
    state_bytes: int | None = None,
    workers: int | None = None,
    again: bool = False,
    out: str | Path = FOLDER,
    registry: Registry | None = None,
) -> Iterator[RankRow | int]:
    """`rank`, event by event: how many rows there will be, then each when it is there."""
    if registry is not None and workers:
        raise UsageError("a registry of your own is not in other processes; leave out workers.")
    workers = 0 if registry is not None else workers
    registry = registry or load_registry()
    if parameters is not None and state_bytes is not None:
        raise UsageError("parameters and state_bytes exclude each other; give one.")
    sizes = [each for each in (parameters, state_bytes) if each is not None]
    if min([seeds, *sizes]) < 1 or min(seed, workers or 0) < 0:
        raise UsageError("seeds and sizes must be at least 1, the seed and workers at least 0.")
    size = Size() if parameters is None else Size("parameters", parameters)
    if state_bytes is not None:
        size = Size("state_bytes", state_bytes)
    entrants, chosen = choose_entrants(cells, registry), choose_tasks(tasks, registry)
    folder = Path(out)
    kept = {} if again else {row.key: row for row in read_ranks(folder / RANKS)}
    yield len(entrants) * len(chosen) * seeds
    jobs = []
    for named, batches in chosen:
        baselines = measure_baselines(named)
        for entrant, each in product(entrants, range(seed, seed + seeds)):
            place = f"{entrant.name}-seed{each}-{size}-batches={batches}"
            path = folder / RUNS / _folder_name(named.name.removeprefix(PREFIX))
            path /= _folder_name(place)
            job = Job(entrant.name, named.name, batches, baselines, each, size, path.absolute())
            row = kept.get((job.task, job.cell, job.seed, str(size)))
            same = row is not None and (row.batches, row.layers) == (batches, LAYERS)
            if row is not None and same and row.verdict != "failed":
                yield row
                continue
            jobs.append(job)
            for run in path.parent.glob(f"{path.name}-rate-x*") if again else ():
                shutil.rmtree(run)
    count = min(len(jobs), usable_cores() if workers is None else workers)
    trained = _in_processes(jobs, count) if count else (job.row(registry) for job in jobs)
    with new_folder(folder):
        for row in trained:
            _write({row.key: row}, folder, row.size)
            yield row
        if not jobs:  # whoever wrote them may have been stopped before the picture
            _write({}, folder, str(size))


def picture_of(size: str) -> str:
    """The name of the picture of the rows of a size."""
    return "rank.png" if size == str(Size()) else f"rank-{size}.png"


def _folder_name(name: str) -> str:
    """The name with what a file system may take for something else as dashes."""
    safe = name.replace(":", "-")
    if re.fullmatch(r"[\w.=,-]+", safe):
        return safe
    told_apart = hashlib.sha256(name.encode()).hexdigest()[:8]
    return re.sub(r"[^\w.=,-]+", "-", safe) + f"-{told_apart}"


def choose_tasks(
    tasks: str | Sequence[str] | None, registry: Registry
) -> list[tuple[NamedTask, int]]:
    """The tasks that are meant, in their order, and the batches of a training on each."""
    names = {
        _name_of(spec.name, spec.trial): spec
        for spec in registry.tasks.values()
        if spec.trial is not None
    }
    chosen = [name for name, spec in names.items() if spec.trial is not None and spec.trial.quick]
    if tasks is not None:
        patterns = [
            each.strip().removeprefix(PREFIX)
            for each in (tasks.split(",") if isinstance(tasks, str) else tasks)
        ]
        for pattern in patterns:
            name, colon, _ = pattern.partition(":")
            if colon and pattern not in names and any(s.name == name for s in names.values()):
                raise UsageError(
                    f"a ranking has its own size of {name!r}, so that rows compare; leave out what "
                    f"comes after the name."
                )
            if not any(_means(pattern, name, spec) for name, spec in names.items()):
                known = [spec.name for spec in names.values()]
                raise UnknownNameError("task with a trial", pattern, known, "`zoo tasks`")
        chosen = [
            name for name, spec in names.items() if any(_means(p, name, spec) for p in patterns)
        ]
    return [
        (find_task(name, registry), trial.batches)
        for name in chosen
        if (trial := names[name].trial) is not None
    ]


def _name_of(name: str, trial: Trial) -> str:
    options = ",".join(f"{key}={value}" for key, value in trial.options.items())
    return f"{name}:{options}" if options else name


def _means(pattern: str, name: str, spec: TaskSpec) -> bool:
    return pattern == name or fnmatchcase(spec.name, pattern)


def _in_processes(jobs: Sequence[Job], workers: int) -> Generator[RankRow, None, None]:
    """The rows of the jobs as they come. Where a process is lost, the jobs that it may have had are
    begun again one by one; the one that loses it again has a row that says so."""
    waiting, suspects = list(jobs), 0
    while waiting:
        part = waiting[:suspects] or waiting
        try:
            for job, row in _in_pool(part, 1 if suspects else workers):
                waiting.remove(job)
                suspects = max(0, suspects - 1)
                yield row
        except BrokenProcessPool:
            if suspects:
                job = waiting.pop(0)
                suspects -= 1
                yield job.failed("its process was lost twice; it may want more memory than is here")
            else:
                suspects = min(workers, len(waiting))


def _in_pool(jobs: Sequence[Job], workers: int) -> Generator[tuple[Job, RankRow], None, None]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=begin_worker)
    try:
        sent = {pool.submit(train_alone, job): job for job in jobs}
        waiting = set(sent)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield sent[future], future.result()
    finally:
        processes = list((pool._processes or {}).values())
        for process in processes:
            process.terminate()  # a training is saved then
        until = time.monotonic() + SAVING
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
        pool.shutdown(cancel_futures=True)


def _write(new: Mapping[Key, RankRow], folder: Path, size: str) -> None:
    """Puts the rows among those of the folder, to which another ranking may have added some; and
    draws those of the size."""
    kept = {each.key: each for each in read_ranks(folder / RANKS)} | {**new}
    rows = [kept[key] for key in sorted(kept)]
    write_ranks(rows, folder / RANKS)
    write_table(rows, folder / TABLE)
    draw_ranks([each for each in rows if each.size == size], folder / picture_of(size))

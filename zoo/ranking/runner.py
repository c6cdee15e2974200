"""Cells trained on tasks, each on its own, and compared: `rank`, and the same row by row."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from fnmatch import fnmatchcase
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from zoo.errors import UnknownNameError, UsageError, ZooError
from zoo.files import new_folder
from zoo.ranking.entrants import choose_entrants
from zoo.ranking.picture import draw_ranks
from zoo.ranking.ranks import RankRow, read_ranks, write_ranks, write_table
from zoo.ranking.trials import LAYERS, Job, Size, end_with_parent, train_alone
from zoo.registry.registry import Registry, load_registry
from zoo.tasks.baselines import measure_baselines
from zoo.tasks.named import PREFIX, NamedTask, find_task

RANKS, TABLE, PICTURE, RUNS = "rank.jsonl", "rank.csv", "rank.png", "runs"
FOLDER = Path("runs", "rank")


def rank(
    cells: str | Sequence[str],
    *,
    tasks: str | Sequence[str] | None = None,
    seeds: int = 1,
    seed: int = 0,
    parameters: int | None = None,
    state_bytes: int | None = None,
    workers: int | None = None,
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
    is there already is not trained again, and what was stopped goes on. A row whose training failed
    says why, and is tried again the next time. Raises UsageError for invalid arguments,
    UnknownNameError for cells and tasks that there are not.
    """
    events = rank_events(
        cells, tasks=tasks, seeds=seeds, seed=seed, parameters=parameters, state_bytes=state_bytes,
        workers=workers, out=out, registry=registry,
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
    out: str | Path = FOLDER,
    registry: Registry | None = None,
) -> Iterator[RankRow | int]:
    """`rank`, event by event: how many rows there will be, then each when it is there."""
    own = registry is not None
    registry = registry or load_registry()
    if parameters is not None and state_bytes is not None:
        raise UsageError("parameters and state_bytes exclude each other; give one.")
    if min(seeds, parameters or 1, state_bytes or 1) < 1 or min(seed, workers or 0) < 0:
        raise UsageError("seeds and sizes must be at least 1, the seed and workers at least 0.")
    size = Size() if parameters is None else Size("parameters", parameters)
    if state_bytes is not None:
        size = Size("state_bytes", state_bytes)
    entrants, chosen = choose_entrants(cells, registry), choose_tasks(tasks, registry)
    folder = Path(out)
    kept = {row.key: row for row in read_ranks(folder / RANKS)}
    yield len(entrants) * len(chosen) * seeds
    jobs = []
    for named, batches in chosen:
        baselines = measure_baselines(named)
        for entrant, each in product(entrants, range(seed, seed + seeds)):
            place = f"{entrant.name}-seed{each}-{size}-batches={batches}".replace(":", "-")
            path = folder / RUNS / named.name.removeprefix(PREFIX).replace(":", "-") / place
            job = Job(entrant.name, named.name, batches, baselines, each, size, path.absolute())
            row = kept.get((job.task, job.cell, job.seed, str(size)))
            same = row is not None and (row.batches, row.layers) == (batches, LAYERS)
            if row is not None and same and row.verdict != "failed":
                yield row
            else:
                jobs.append(job)
    workers = 0 if own and workers is None else workers
    count = min(len(jobs), os.cpu_count() or 1 if workers is None else workers)
    trained = _in_processes(jobs, count) if count else (job.row(registry) for job in jobs)
    with new_folder(folder):
        for row in trained:
            kept[row.key] = row
            _keep([kept[key] for key in sorted(kept)], folder)
            yield row


def choose_tasks(
    tasks: str | Sequence[str] | None, registry: Registry
) -> list[tuple[NamedTask, int]]:
    """The tasks that are meant, in their order, and the batches of a training on each."""
    specs = [spec for spec in registry.tasks.values() if spec.trial is not None]
    if tasks is not None:
        patterns = [
            each.strip().removeprefix(PREFIX)
            for each in (tasks.split(",") if isinstance(tasks, str) else tasks)
        ]
        for pattern in patterns:
            if not any(fnmatchcase(spec.name, pattern) for spec in specs):
                known = [spec.name for spec in specs]
                raise UnknownNameError("task with a trial", pattern, known, "`zoo tasks`")
        specs = [spec for spec in specs if any(fnmatchcase(spec.name, p) for p in patterns)]
    else:
        specs = [spec for spec in specs if spec.trial is not None and spec.trial.quick]
    found = []
    for spec in specs:
        assert spec.trial is not None
        options = ",".join(f"{key}={value}" for key, value in spec.trial.options.items())
        name = f"{spec.name}:{options}" if options else spec.name
        found.append((find_task(name, registry), spec.trial.batches))
    return found


def _in_processes(jobs: Sequence[Job], workers: int) -> Generator[RankRow, None, None]:
    """The rows of the jobs as they come."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)
    try:
        waiting: set[Future[RankRow]] = {pool.submit(train_alone, job) for job in jobs}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise ZooError("a process was lost; the same command goes on.") from error
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _keep(rows: Sequence[RankRow], folder: Path) -> None:
    write_ranks(rows, folder / RANKS)
    write_table(rows, folder / TABLE)
    draw_ranks(rows, folder / PICTURE)

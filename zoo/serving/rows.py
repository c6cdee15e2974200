"""Jobs that are worked on together: the rows of one batch, with their state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zoo.inference.engine import HasState, join_rows, select_rows
from zoo.inference.snapshot import Snapshot
from zoo.serving.jobs import Job, Progress


class Rows:
    """Job number i has row i of `state`. `told` is what the jobs are to be told next."""

    def __init__(self, engine: HasState, told: list[tuple[Job, Progress]]) -> None:
        self._engine, self._told = engine, told
        self.jobs: list[Job] = []
        self.state: Any = None

    def __len__(self) -> int:
        return len(self.jobs)

    def add(self, jobs: Sequence[Job], state: Any) -> None:
        """More jobs, with the state of their rows."""
        self.state = join_rows(self._engine, [self.state, state]) if self.jobs else state
        self.jobs = [*self.jobs, *jobs]

    def clear(self) -> None:
        """Forgets all jobs; they are told nothing."""
        self.jobs, self.state = [], None

    def row(self, index: int, state: Any = None) -> Any:
        """The state of one row; or its row of another state of these jobs."""
        return select_rows(self._engine, self.state if state is None else state, [index])

    def keep(self, goes_on: Callable[[int], bool]) -> tuple[list[Job], Any]:
        """Takes out the rows that do not go on, by their number; those jobs and their state."""
        kept = [index for index in range(len(self.jobs)) if goes_on(index)]
        left = [index for index in range(len(self.jobs)) if not goes_on(index)]
        if not left:
            return [], None
        jobs, state = [self.jobs[i] for i in left], select_rows(self._engine, self.state, left)
        self.jobs = [self.jobs[index] for index in kept]
        self.state = select_rows(self._engine, self.state, kept) if kept else None
        return jobs, state

    def drop(self, wrong: dict[Job, str | Exception]) -> None:
        """Ends these jobs where they stand."""
        for index, job in enumerate(self.jobs):
            if job in wrong:
                self.end(job, self.row(index), wrong[job])
        self.keep(lambda index: self.jobs[index] not in wrong)

    def end(
        self, job: Job, state: Any, finish: str | Exception, progress: Progress | None = None
    ) -> None:
        """Tells a job that it ended, with its last progress; `state` is None where it is lost."""
        if job.keeps and state is not None:
            job.end = Snapshot(state, job.last, job.random.bit_generator.state)
        progress = progress or Progress()
        progress.finish = finish
        self._told.append((job, progress))

    def find_failing(
        self, error: Exception, run: Callable[[int, Any], object]
    ) -> dict[Job, str | Exception]:
        """The jobs for which `run(index, state)` fails on the row alone, with their errors; all, if
        they fail only together (for want of memory, say)."""
        failed: dict[Job, str | Exception] = {}
        for index, job in enumerate(self.jobs):
            try:
                run(index, self.row(index))
            except Exception as own:
                failed[job] = own
        return failed or dict.fromkeys(self.jobs, error)

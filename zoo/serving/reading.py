"""Reading prompts, in slices, so that a long one delays nobody by more than a slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.data.tokenizer import Ids
from zoo.inference.engine import Engine, NotFiniteError, Scorer, join_rows
from zoo.inference.prompts import LARGEST_PIECE, next_run, pieces
from zoo.inference.sampling import log_softmax
from zoo.serving.jobs import LENGTH, Job, Likely, Progress
from zoo.serving.rows import Rows


class Reader:
    """Prompts that are read together; those whose tokens are scored as well, one by one."""

    def __init__(
        self, engine: Engine, scorer: Scorer | None, told: list[tuple[Job, Progress]]
    ) -> None:
        self._engine, self._scorer, self._told = engine, scorer, told
        self._unscored, self._scored = Rows(engine, told), Rows(engine, told)
        self._all = (self._unscored, self._scored)
        self.tokens = 0

    def __len__(self) -> int:
        return sum(map(len, self._all))

    @property
    def jobs(self) -> list[Job]:
        return [job for rows in self._all for job in rows.jobs]

    def add(self, jobs: Sequence[Job]) -> None:
        """More jobs, at the beginning of their prompts."""
        for rows in self._all:
            if some := [job for job in jobs if job.echoes == (rows is self._scored)]:
                rows.add(some, join_rows(self._engine, [job.start.state for job in some]))

    def clear(self) -> None:
        """Forgets all jobs; they are told nothing."""
        for rows in self._all:
            rows.clear()

    def drop(self, wrong: dict[Job, str | Exception]) -> None:
        """Ends these jobs; what they read does not count."""
        for rows in self._all:
            for job in [job for job in rows.jobs if job in wrong]:
                self._told.append((job, Progress(finish=wrong[job])))
            rows.keep(lambda index, rows=rows: rows.jobs[index] not in wrong)  # type: ignore[misc]

    def read(self) -> list[tuple[list[Job], Any]]:
        """Reads one slice of long prompts, one of what is shorter, and one of those that are
        scored. Jobs that are to write now, and their states."""
        self._read_together(lambda left: left >= LARGEST_PIECE)
        self._read_together(lambda left: left < LARGEST_PIECE)
        writing = []
        for ready in (self._take_read(self._unscored), self._score_first()):
            for index, job in enumerate(ready.jobs):
                job.last = job.newest
                if not job.length:
                    ready.end(job, ready.row(index), LENGTH)
            ready.keep(lambda index, ready=ready: ready.jobs[index].length > 0)  # type: ignore[misc]
            if ready.jobs:
                writing.append((ready.jobs, ready.state))
        return writing

    def _read_together(self, chosen: Callable[[int], bool]) -> None:
        """Reads the next piece of the longest of the prompts that have so many tokens left, and of
        all others with such a piece."""
        jobs = [job for job in self._unscored.jobs if job.left and chosen(job.left)]
        if not jobs:
            return
        jobs.sort(key=lambda job: job.left, reverse=True)
        found, size = next_run([job.left for job in jobs], self._engine.vocab_size)
        some = {jobs[index] for index in found}
        rows = Rows(self._engine, self._told)
        rows.add(*self._unscored.keep(lambda index: self._unscored.jobs[index] not in some))
        tokens = np.array([job.reading[job.read : job.read + size] for job in rows.jobs]).T
        try:
            rows.state = self._engine.read(tokens, rows.state)
        except Exception as error:  # whatever the engine raises, the others go on
            wrong = rows.find_failing(
                error, lambda i, state: self._engine.read(tokens[:, [i]], state)
            )
            self._told.extend((job, Progress(finish=wrong[job])) for job in wrong)
            rows.keep(lambda index: rows.jobs[index] not in wrong)
        else:
            self.tokens += tokens.size
            for job in rows.jobs:
                job.read += size
        if rows.jobs:
            self._unscored.add(rows.jobs, rows.state)

    def _take_read(self, rows: Rows) -> Rows:
        """Takes out the jobs whose prompts are read."""
        ready = Rows(self._engine, self._told)
        jobs, state = rows.keep(lambda index: rows.jobs[index].left > 0)
        if jobs:
            ready.add(jobs, state)
        return ready

    def _score_first(self) -> Rows:
        """Reads a slice of the first prompt whose tokens are scored; those that are read."""
        rows = self._scored
        done = self._take_read(rows)
        if done.jobs or not rows.jobs:
            return done
        job = rows.jobs[0]
        size = next(pieces(job.left, self._engine.vocab_size))
        tokens = np.array(job.reading[job.read : job.read + size], np.int64)[:, None]
        following = [*job.reading, job.newest][job.read + 1 : job.read + 1 + len(tokens)]
        (first, *_), state = rows.keep(lambda index: index > 0)
        try:
            likely, state = self.score(tokens, state, following, job.logprobs or 0)
        except Exception as error:  # whatever the engine raises, the others go on
            self._told.append((first, Progress(finish=error)))
            return done
        self.tokens += len(tokens)
        job.read += len(tokens)
        self._told.append((job, Progress(read=len(tokens), likely=likely)))
        rows.add([job], state)
        return self._take_read(rows)

    def score(
        self, tokens: Ids, state: Any, following: Sequence[int], count: int
    ) -> tuple[list[Likely], Any]:
        """What is likely after each of the tokens [T, 1], which `following` follow, and the state
        after them."""
        assert self._scorer is not None
        arrays = self._engine.state_to_arrays(state)
        logits, after = self._scorer.logits(tokens, self._scorer.state_from_arrays(arrays))
        if not np.isfinite(logits).all():
            raise NotFiniteError
        found = log_softmax(logits[:, 0])
        best = np.argsort(-found, axis=-1, kind="stable")[:, :count]
        likely = [
            Likely(float(row[token]), tuple((int(i), float(row[i])) for i in order))
            for row, order, token in zip(found, best, following, strict=True)
        ]
        return likely, self._engine.state_from_arrays(self._scorer.state_to_arrays(after))

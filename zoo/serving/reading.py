"""Reading prompts, in slices, so that a long one delays nobody by more than a slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.tokenizer import Ids
from zoo.inference.engine import Engine, NotFiniteError, Scorer, join_rows
from zoo.inference.sampling import log_softmax
from zoo.serving.jobs import LENGTH, Job, Likely, Progress
from zoo.serving.rows import Rows

READ_AT_ONCE = 256  # tokens of a prompt; the sequence graph takes as many in a run
LONG = 16  # tokens of a long prompt: of as many, engines make one run where they can
READ_ELEMENTS = 2**22  # of the logits that reading computes: 16 MB of float32


class Reader:
    """Prompts that are read together; those whose tokens are scored as well, one by one."""

    def __init__(
        self, engine: Engine, scorer: Scorer | None, told: list[tuple[Job, Progress]]
    ) -> None:
        self._engine, self._scorer, self._told = engine, scorer, told
        # short prompts would cut the slices of long ones, which are read in fewer runs
        self._short, self._long = Rows(engine, told), Rows(engine, told)
        self._scored = Rows(engine, told)
        self._all = (self._short, self._long, self._scored)
        self.tokens = 0

    def __len__(self) -> int:
        return sum(map(len, self._all))

    @property
    def jobs(self) -> list[Job]:
        return [job for rows in self._all for job in rows.jobs]

    def add(self, jobs: Sequence[Job]) -> None:
        """More jobs, at the beginning of their prompts."""
        for rows in self._all:
            if some := [job for job in jobs if self._rows_of(job) is rows]:
                rows.add(some, join_rows(self._engine, [job.start.state for job in some]))

    def _rows_of(self, job: Job) -> Rows:
        if job.echoes:
            return self._scored
        return self._long if len(job.reading) >= LONG else self._short

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
        """Reads one slice. Jobs that are to write now, and their states."""
        ready = [
            *self._read_together(self._short),
            *self._read_together(self._long),
            *self._score_first(),
        ]
        writing = []
        for rows in ready:
            for index, job in enumerate(rows.jobs):
                job.last = job.newest
                if not job.length:
                    rows.end(job, rows.row(index), LENGTH)
            rows.keep(lambda index, rows=rows: rows.jobs[index].length > 0)  # type: ignore[misc]
            if rows.jobs:
                writing.append((rows.jobs, rows.state))
        return writing

    def _read_together(self, rows: Rows) -> list[Rows]:
        """As many tokens of each prompt as the shortest of them still has."""
        done = self._take_read(rows)
        if not rows.jobs:
            return done
        size = min(len(job.reading) - job.read for job in rows.jobs)
        limit = READ_ELEMENTS // (len(rows) * self._engine.vocab_size)
        size = max(1, min(size, READ_AT_ONCE, limit))
        parts = [job.reading[job.read : job.read + size] for job in rows.jobs]
        tokens = np.array(parts, np.int64).T
        try:
            rows.state = self._engine.read(tokens, rows.state)
        except Exception as error:  # whatever the engine raises, the others go on
            self.drop(
                rows.find_failing(error, lambda i, state: self._engine.read(tokens[:, [i]], state))
            )
            return done
        self.tokens += tokens.size
        for job in rows.jobs:
            job.read += size
        return [*done, *self._take_read(rows)]

    def _take_read(self, rows: Rows) -> list[Rows]:
        """Takes out the jobs whose prompts are read."""
        jobs, state = rows.keep(lambda index: rows.jobs[index].read < len(rows.jobs[index].reading))
        if not jobs:
            return []
        ready = Rows(self._engine, self._told)
        ready.add(jobs, state)
        return [ready]

    def _score_first(self) -> list[Rows]:
        """Reads a slice of the first prompt whose tokens are scored."""
        rows = self._scored
        if not rows.jobs:
            return []
        done = self._take_read(rows)
        if done or not rows.jobs:
            return done
        job = rows.jobs[0]
        size = max(1, min(READ_AT_ONCE, READ_ELEMENTS // self._engine.vocab_size))
        tokens = np.array(job.reading[job.read : job.read + size], np.int64)[:, None]
        following = [*job.reading, job.newest][job.read + 1 : job.read + 1 + len(tokens)]
        (first, *_), state = rows.keep(lambda index: index > 0)
        try:
            likely, state = self.score(tokens, state, following, job.logprobs or 0)
        except Exception as error:  # whatever the engine raises, the others go on
            self._told.append((first, Progress(finish=error)))
            return []
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

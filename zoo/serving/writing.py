"""Writing texts, a chunk of all rows at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.tokenizer import Ids
from zoo.inference.engine import Engine
from zoo.serving.jobs import Job, Progress
from zoo.serving.reading import Reader
from zoo.serving.rows import Rows

CHUNK_SECONDS = 0.025  # that a chunk is to take: a row that joins waits for one
MOST_STEPS = 32  # of a chunk
SHOWN_UNITS = 64  # of a state that is watched
WEIGHT = 0.3  # of the last chunk in the time of a step


class Writer:
    """Rows that write. The chunk's length adapts to the time that a step takes."""

    def __init__(self, engine: Engine, reader: Reader, told: list[tuple[Job, Progress]]) -> None:
        self._engine, self._reader, self._told = engine, reader, told
        self.rows = Rows(engine, told)
        self._step_seconds = 1e-3
        self.tokens = self.chunks = 0

    def __len__(self) -> int:
        return len(self.rows)

    def write(self) -> None:
        """One chunk of every row."""
        jobs = self.rows.jobs
        left = max(job.length - len(job.written) for job in jobs)
        size = max(1, min(left, MOST_STEPS, int(CHUNK_SECONDS / self._step_seconds)))
        before = [job.random.bit_generator.state for job in jobs]
        uniform = np.stack([job.draw(size) for job in jobs], axis=1)
        last = np.array([job.last for job in jobs])
        began = time.perf_counter()
        try:
            tokens, after = self._engine.write(
                last, self.rows.state, uniform, [job.sampling for job in jobs]
            )
        except Exception as error:  # whatever the engine raises, the others go on
            for job, random in zip(jobs, before, strict=True):
                job.rewind(random, 0)
            self.rows.drop(
                self.rows.find_failing(
                    error,
                    lambda i, state: self._engine.write(
                        last[[i]], state, uniform[:, [i]], [jobs[i].sampling]
                    ),
                )
            )
            return
        seconds = (time.perf_counter() - began) / size
        self._step_seconds += WEIGHT * (seconds - self._step_seconds)
        self.chunks += 1
        self._hand_out(tokens, after, last, uniform, before)

    def _hand_out(
        self, tokens: Ids, after: Any, last: Ids, uniform: Any, before: Sequence[Any]
    ) -> None:
        """Gives the tokens to their jobs, and lets those that ended go."""
        ended = set()
        for index, job in enumerate(self.rows.jobs):
            taken, reason = job.accept(tokens[:, index])
            job.last = taken[-1]
            self.tokens += len(taken)
            progress = Progress(tokens=taken)
            draws = uniform[: len(taken), [index]]
            try:
                self._look(job, index, int(last[index]), draws, progress)
                if reason is None:
                    self._told.append((job, progress))
                    continue
                state = None
                if job.keeps:
                    state = self.rows.row(index, after)
                    if len(taken) < len(tokens):  # the state of the token it stopped at
                        job.rewind(before[index], len(taken))
                        start = self.rows.row(index)
                        _, state = self._engine.write(last[[index]], start, draws, [job.sampling])
                self.rows.end(job, state, reason, progress)
            except Exception as error:  # as above
                self.rows.end(job, None, error)
            ended.add(index)
        self.rows.state = after
        self.rows.keep(lambda index: index not in ended)

    def _look(self, job: Job, index: int, last: int, draws: Any, progress: Progress) -> None:
        """Adds what the job asks to be told about its new tokens."""
        if job.logprobs is not None:
            read = np.array([last, *progress.tokens[:-1]])[:, None]
            start = self.rows.row(index)
            progress.likely, _ = self._reader.score(read, start, progress.tokens, job.logprobs)
        if job.watches:
            progress.leaves = self._watched(job, np.array([last]), draws, self.rows.row(index))

    def _watched(self, job: Job, last: Ids, draws: Any, state: Any) -> Any:
        """Some units of the state's first leaf after each token, which is written again for it."""
        found = []
        for draw in draws:
            written, state = self._engine.write(last, state, draw[None], [job.sampling])
            last = written[-1]
            leaf = next(iter(self._engine.state_to_arrays(state).values())).ravel()
            found.append(leaf[:: max(1, -(-leaf.size // SHOWN_UNITS))].astype(np.float32))
        return np.stack(found)

"""Continuous batching: one thread for each model, which reads prompts and writes texts, many rows
at a time. Rows join and leave between chunks.

A text does not depend on the others: each row has its own random numbers and settings, and rows of
a batch do not mix (export proves it).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.tokenizer import Ids
from zoo.errors import ZooError
from zoo.inference.engine import Engine, Scorer, join_rows, select_rows
from zoo.inference.sampling import log_softmax
from zoo.inference.snapshot import Snapshot
from zoo.serving.jobs import CANCELLED, Job, Likely, Progress

CHUNK_SECONDS = 0.015  # that a chunk is to take: a row that joins waits for one
READ_SECONDS = 0.015  # of reading between two chunks; a slice that was begun is finished
MOST_STEPS = 32  # of a chunk
READ_AT_ONCE = 256  # tokens of a prompt; the sequence graph takes as many in a run
READ_ELEMENTS = 2**22  # of the logits that reading computes: 16 MB of float32
SHOWN_UNITS = 64  # of a state that is watched
LOUDEST = 0.3  # weight of the last chunk in the time of a step


class QueueFullError(ZooError):
    """No place for another text, and none to wait in."""


class Scheduler:
    """Works on jobs until it is closed.

    `rows` is how many are worked on at a time, `queue` how many more may wait. `scorer` gives the
    probabilities of tokens, for jobs that ask for them.
    """

    def __init__(self, engine: Engine, scorer: Scorer | None, rows: int, queue: int) -> None:
        self._engine, self._scorer = engine, scorer
        self._places, self._queue = rows, queue
        self._waiting: deque[Job] = deque()
        self._reading: list[tuple[Job, Any]] = []
        self._rows: list[Job] = []
        self._state: Any = None  # of the rows that write
        self._wake = threading.Condition()
        self._closed = False
        self._told: list[tuple[Job, Progress]] = []
        self._step_seconds = 1e-3
        self.tokens_written = self.tokens_read = self.chunks = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Rows that read or write."""
        return len(self._reading) + len(self._rows)

    @property
    def waiting(self) -> int:
        """Rows that wait for a place."""
        return len(self._waiting)

    @property
    def scores(self) -> bool:
        """Whether there are probabilities of tokens."""
        return self._scorer is not None

    def submit(self, *jobs: Job) -> None:
        """All of the jobs, or QueueFullError."""
        with self._wake:
            if self._closed:
                raise QueueFullError("the server stops.")
            free = max(0, self._places - self.running)
            if len(self._waiting) + len(jobs) > self._queue + free:
                raise QueueFullError("too many texts wait; try again in a second.")
            self._waiting += jobs
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        """The job ends before the next chunk; it is still told so."""
        job.cancelled = True
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Cancels what is left, and returns when the thread has ended."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._take_jobs():
            self._drop_cancelled()
            until = time.perf_counter() + READ_SECONDS
            while self._reading:
                self._read()
                if self._rows and time.perf_counter() > until:
                    break
            if self._rows:
                self._write()
            self._tell()

    def _take_jobs(self) -> bool:
        """Waits for jobs and gives them their places; whether to go on."""
        with self._wake:
            while not (self._waiting or self.running or self._closed):
                self._wake.wait()
            if self._closed:
                for job in (*self._waiting, *(job for job, _ in self._reading), *self._rows):
                    self._told.append((job, Progress(finish=CANCELLED)))
                self._waiting.clear()
            else:
                while self._waiting and self.running < self._places:
                    job = self._waiting.popleft()
                    self._reading.append((job, job.start.state))
        if self._closed:
            self._tell()
        return not self._closed

    def _drop_cancelled(self) -> None:
        for job in [job for job, _ in self._reading if job.cancelled]:
            self._told.append((job, Progress(finish=CANCELLED)))
        self._reading = [(job, state) for job, state in self._reading if not job.cancelled]
        for index, job in enumerate(self._rows):
            if job.cancelled:
                self._end(job, self._row(self._state, index), CANCELLED)
        self._keep([index for index, job in enumerate(self._rows) if not job.cancelled])

    def _keep(self, indices: Sequence[int]) -> None:
        """Only these rows go on writing."""
        if len(indices) == len(self._rows):
            return
        self._rows = [self._rows[index] for index in indices]
        self._state = select_rows(self._engine, self._state, indices) if indices else None

    def _tell(self) -> None:
        told, self._told = self._told, []
        for job, progress in told:
            job.tell(job, progress)

    # reading

    def _read(self) -> None:
        """One slice of the prompts: as many tokens of each as the shortest still has, together."""
        group = [each for each in self._reading if len(each[0].reading) > each[0].read]
        plain = [each for each in group if not each[0].echoes]
        chosen = plain or group[:1]
        if chosen:
            size = min(len(job.reading) - job.read for job, _ in chosen)
            limit = READ_ELEMENTS // (len(chosen) * self._engine.vocab_size)
            size = max(1, min(size, READ_AT_ONCE, limit))
            self._read_slice(chosen, size)
        self._begin_writing()

    def _read_slice(self, group: list[tuple[Job, Any]], size: int) -> None:
        parts = [job.reading[job.read : job.read + size] for job, _ in group]
        tokens = np.array(parts, np.int64).T
        try:
            if group[0][0].echoes:
                ((job, state),) = group
                likely, state = self._score(job, tokens, state)
                found = [state]
                self._told.append((job, Progress(read=size, likely=likely)))
            else:
                joined = join_rows(self._engine, [state for _, state in group])
                after = self._engine.read(tokens, joined)
                found = [select_rows(self._engine, after, [row]) for row in range(len(group))]
        except Exception as error:  # whatever the engine raises, this thread goes on
            if len(group) > 1:
                for each in group:
                    self._read_slice([each], size)
            else:
                self._fail(group[0][0], error)
            return
        self.tokens_read += tokens.size
        states = {id(job): state for (job, _), state in zip(group, found, strict=True)}
        for job, _ in group:
            job.read += size
        self._reading = [(job, states.get(id(job), state)) for job, state in self._reading]

    def _fail(self, job: Job, error: Exception) -> None:
        self._told.append((job, Progress(finish=error)))
        self._reading = [each for each in self._reading if each[0] is not job]
        self._keep([index for index, other in enumerate(self._rows) if other is not job])

    def _score(self, job: Job, tokens: Ids, state: Any) -> tuple[list[Likely], Any]:
        """What is likely after each of the tokens [T, 1], as the job asks, and the state after
        them. The tokens that follow are those of its prompt."""
        assert self._scorer is not None
        arrays = self._engine.state_to_arrays(state)
        logits, after = self._scorer.logits(tokens, self._scorer.state_from_arrays(arrays))
        following = [*job.reading, job.newest][job.read + 1 : job.read + 1 + len(tokens)]
        likely = _likely(logits[:, 0], following, job.logprobs or 0)
        return likely, self._engine.state_from_arrays(self._scorer.state_to_arrays(after))

    def _begin_writing(self) -> None:
        """Jobs whose prompt is read write from now on."""
        ready = [each for each in self._reading if each[0].read == len(each[0].reading)]
        self._reading = [each for each in self._reading if each[0].read < len(each[0].reading)]
        for job, state in ready:
            job.last = job.newest
            if not job.length:
                self._end(job, state, "length")
        ready = [each for each in ready if each[0].length]
        if ready:
            old = [self._state] if self._rows else []
            self._state = join_rows(self._engine, [*old, *(state for _, state in ready)])
            self._rows += [job for job, _ in ready]

    def _end(self, job: Job, state: Any, reason: str, progress: Progress | None = None) -> None:
        if job.keeps:
            job.end = Snapshot(state, job.last, job.random.bit_generator.state)
        progress = progress or Progress()
        progress.finish = reason
        self._told.append((job, progress))

    # writing

    def _write(self) -> None:
        """One chunk of every row."""
        left = max(job.length - len(job.written) for job in self._rows)
        size = max(1, min(left, MOST_STEPS, int(CHUNK_SECONDS / self._step_seconds)))
        before = [job.random.bit_generator.state for job in self._rows]
        uniform = np.stack([job.draw(size) for job in self._rows], axis=1)
        last = np.array([job.last for job in self._rows])
        began = time.perf_counter()
        try:
            tokens, after = self._engine.write(
                last, self._state, uniform, [job.sampling for job in self._rows]
            )
        except Exception as error:  # whatever the engine raises, this thread goes on
            for job, random in zip(self._rows, before, strict=True):
                job.rewind(random, 0)
            self._drop_failing(error, last, uniform)
            return
        seconds = (time.perf_counter() - began) / size
        self._step_seconds += LOUDEST * (seconds - self._step_seconds)
        self.chunks += 1
        self._take(tokens, after, last, uniform, before)

    def _drop_failing(self, error: Exception, last: Ids, uniform: Any) -> None:
        """Tries each row by itself: those that fail end with their error, the others go on."""
        rows = list(self._rows)
        failed = []
        for index, job in enumerate(rows):
            alone = self._row(self._state, index)
            try:
                self._engine.write(last[[index]], alone, uniform[:, [index]], [job.sampling])
            except Exception as reason:
                failed.append((job, reason))
        if not failed:  # together they fail, and alone they do not: memory, say
            failed = [(job, error) for job in rows]
        for job, own in failed:
            self._fail(job, own)

    def _take(
        self, tokens: Ids, after: Any, last: Ids, uniform: Any, before: Sequence[Any]
    ) -> None:
        """Hands the tokens to their jobs, and lets those that ended go."""
        going_on = []
        for index, job in enumerate(self._rows):
            taken, reason = job.accept(tokens[:, index].tolist())
            job.last = taken[-1]
            self.tokens_written += len(taken)
            progress = Progress(tokens=taken)
            start = self._row(self._state, index) if self._looks(job, reason) else None
            if job.logprobs is not None:
                progress.likely = self._likely_written(job, int(last[index]), taken, start)
            if job.watches:
                progress.leaves = self._watched(
                    job, last[[index]], uniform[: len(taken), [index]], start
                )
            if reason is None:
                going_on.append(index)
                self._told.append((job, progress))
                continue
            state = None
            if job.keeps:
                state = self._row(after, index)
                if len(taken) < len(tokens):
                    job.rewind(before[index], len(taken))
                    draws = uniform[: len(taken), [index]]
                    _, state = self._engine.write(last[[index]], start, draws, [job.sampling])
            self._end(job, state, reason, progress)
        self._state = after
        self._keep(going_on)

    def _row(self, state: Any, index: int) -> Any:
        return select_rows(self._engine, state, [index])

    @staticmethod
    def _looks(job: Job, reason: str | None) -> bool:
        """Whether the state before the chunk is needed once more."""
        return job.logprobs is not None or job.watches or (reason is not None and job.keeps)

    def _likely_written(
        self, job: Job, last: int, taken: Sequence[int], state: Any
    ) -> list[Likely]:
        assert self._scorer is not None
        tokens = np.array([last, *taken[:-1]])[:, None]
        arrays = self._engine.state_to_arrays(state)
        logits, _ = self._scorer.logits(tokens, self._scorer.state_from_arrays(arrays))
        return _likely(logits[:, 0], taken, job.logprobs or 0)

    def _watched(self, job: Job, last: Ids, uniform: Any, state: Any) -> Any:
        """Some units of the state's first leaf after each token, which is written again for it."""
        rows = []
        for draw in uniform:
            written, state = self._engine.write(last, state, draw[None], [job.sampling])
            last = written[-1]
            leaf = next(iter(self._engine.state_to_arrays(state).values())).ravel()
            rows.append(leaf[:: max(1, -(-leaf.size // SHOWN_UNITS))].astype(np.float32))
        return np.stack(rows)


def _likely(logits: Any, tokens: Sequence[int], count: int) -> list[Likely]:
    """For each position of logits [T, V] what its token had, and the `count` most likely ones."""
    found = log_softmax(logits)
    best = np.argsort(-found, axis=-1, kind="stable")[:, :count]
    return [
        Likely(float(row[token]), tuple((int(i), float(row[i])) for i in order))
        for row, order, token in zip(found, best, tokens, strict=True)
    ]

"""Continuous batching: one thread for each model, which reads prompts and writes texts, many rows
at a time. Rows join and leave between chunks.

A text does not depend on the others: each row has its own random numbers and settings, and rows of
a batch do not mix (export proves it).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque

from zoo.errors import ZooError
from zoo.inference.engine import Engine, Scorer
from zoo.serving.jobs import CANCELLED, Job, Progress
from zoo.serving.reading import Reader
from zoo.serving.writing import Writer

_log = logging.getLogger(__name__)

# Python lets a thread run for this long while another waits. The scheduler waits after each run of
# the model, and connections keep the other thread busy.
SWITCH_SECONDS = 0.0005
READ_SECONDS = 0.015  # of reading between two chunks; a slice that was begun is finished


class QueueFullError(ZooError):
    """No place for another text, and none to wait in."""


class StoppedError(ZooError):
    """The scheduler is closed."""


class Scheduler:
    """Works on jobs until it is closed.

    `rows` is how many are worked on at a time, `queue` how many more may wait. `scorer` gives the
    probabilities of tokens, for jobs that ask for them.
    """

    def __init__(self, engine: Engine, scorer: Scorer | None, rows: int, queue: int) -> None:
        self._places, self._queue = rows, queue
        self.scores = scorer is not None  # whether there are probabilities of tokens
        self._told: list[tuple[Job, Progress]] = []
        self._reader = Reader(engine, scorer, self._told)
        self._writer = Writer(engine, self._reader, self._told)
        self._waiting: deque[Job] = deque()
        self._open: set[Job] = set()  # those with places that have not been told that they ended
        self._wake = threading.Condition()
        self._closed = False
        sys.setswitchinterval(SWITCH_SECONDS)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Rows that read or write."""
        return len(self._reader) + len(self._writer)

    @property
    def waiting(self) -> int:
        """Rows that wait for a place."""
        return len(self._waiting)

    @property
    def tokens_read(self) -> int:
        return self._reader.tokens

    @property
    def tokens_written(self) -> int:
        return self._writer.tokens

    @property
    def chunks(self) -> int:
        """Runs that wrote tokens."""
        return self._writer.chunks

    def submit(self, *jobs: Job) -> None:
        """All of the jobs; or none, with QueueFullError or StoppedError."""
        with self._wake:
            if self._closed:
                raise StoppedError("the server stops; try again.")
            free = max(0, self._places - self.running)
            if len(self._waiting) + len(jobs) > self._queue + free:
                raise QueueFullError("too many texts wait; try again in a second.")
            self._waiting += jobs
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        """The job ends before the next chunk; it is still told so."""
        job.cancelled = True

    def close(self) -> None:
        """Cancels what is left, and returns when the thread has ended."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _work(self) -> None:
        going_on = True
        while going_on:
            try:
                going_on = self._give_places()
                if going_on:
                    self._read_and_write()
            except Exception as error:  # want of memory, say: those in work end, others go on
                self._fail_all(error)

    def _read_and_write(self) -> None:
        until = time.perf_counter() + READ_SECONDS
        while self._reader and time.perf_counter() < until:
            for jobs, state in self._reader.read():
                self._writer.rows.add(jobs, state)
        if self._writer:
            self._writer.write()
        self._tell()

    def _fail_all(self, error: Exception) -> None:
        """Ends all that have places with this error, whatever became of their rows."""
        self._reader.clear()
        self._writer.rows.clear()
        ended = {job for job, progress in self._told if progress.finish is not None}
        self._told.extend((job, Progress(finish=error)) for job in self._open - ended)
        self._tell()

    def _give_places(self) -> bool:
        """Waits for jobs, gives them their places, and ends those that were cancelled; whether to
        go on."""
        with self._wake:
            while not (self._waiting or self.running or self._closed):
                self._wake.wait()
            waiting = [job for job in self._waiting if not job.cancelled]
            dropped = [job for job in self._waiting if job.cancelled]
            self._waiting = deque(waiting)
            if not self._closed:
                free = self._places - self.running
                joining = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
                self._open.update(joining)
                self._reader.add(joining)
            else:
                dropped += self._waiting
                self._waiting.clear()
        for job in dropped:
            self._told.append((job, Progress(finish=CANCELLED)))
        gone = {job: CANCELLED for job in (*self._reader.jobs, *self._writer.rows.jobs)
                if job.cancelled or self._closed}  # fmt: skip
        if gone:
            self._reader.drop(dict(gone))
            self._writer.rows.drop(dict(gone))
        self._tell()
        return not self._closed

    def _tell(self) -> None:
        told = list(self._told)
        self._told.clear()
        for job, progress in told:
            if progress.finish is not None:
                self._open.discard(job)
            try:
                job.tell(job, progress)
            except Exception as error:  # who asked is gone; the others are told
                _log.error("a text's progress could not be told: %r", error)

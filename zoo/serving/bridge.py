"""Between schedulers, which are threads, and requests, which are coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from threading import Lock
from typing import TypeAlias

from zoo.serving.jobs import Job, Progress
from zoo.serving.scheduler import Scheduler

Told: TypeAlias = tuple[Job, Progress]


class Bridge:
    """Hands what schedulers tell to queues of one event loop: what a chunk tells to its rows wakes
    the loop once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._lock = loop, Lock()
        self._told: list[tuple[asyncio.Queue[Told], Job, Progress]] = []

    def teller(self, queue: asyncio.Queue[Told]) -> Callable[[Job, Progress], None]:
        """What a job is to call with its progress."""

        def tell(job: Job, progress: Progress) -> None:
            with self._lock:
                self._told.append((queue, job, progress))
                first = len(self._told) == 1
            if first:
                self._loop.call_soon_threadsafe(self._hand_over)

        return tell

    def _hand_over(self) -> None:
        with self._lock:
            told, self._told = self._told, []
        for queue, job, progress in told:
            queue.put_nowait((job, progress))


class Running:
    """Jobs of one request that a scheduler works on."""

    def __init__(self, scheduler: Scheduler, jobs: Sequence[Job], queue: asyncio.Queue[Told]):
        self._scheduler, self._queue = scheduler, queue
        self._open = set(jobs)
        scheduler.submit(*jobs)

    async def progress(self) -> AsyncIterator[Told]:
        """What is told of the jobs, until all have ended."""
        while self._open:
            job, progress = await self._queue.get()
            if progress.finish is not None:
                self._open.discard(job)
            yield job, progress

    def cancel(self) -> None:
        """Ends the jobs that have not ended."""
        for job in self._open:
            self._scheduler.cancel(job)

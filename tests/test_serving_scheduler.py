"""The scheduler of `zoo serve`, over an engine whose tokens are known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from zoo.config import Sampling
from zoo.inference.engine import NotFiniteError, StepLoop
from zoo.inference.snapshot import Snapshot
from zoo.serving.jobs import CANCELLED, LENGTH, Job, Progress
from zoo.serving.scheduler import QueueFullError, Scheduler, StoppedError

from .servers import until


class Counter(StepLoop):
    """Writes the token after the last one. Its state is the sum of the tokens read; it is broken
    for sums of more than `most`, and fails where `fails` says so."""

    vocab_size = 10

    def __init__(self, most: float = np.inf) -> None:
        self.most = most
        self.fails: Callable[[], None] = lambda: None

    def init_state(self, batch_size: int) -> Any:
        return np.zeros((batch_size, 1), np.float32)

    def state_to_arrays(self, state: Any) -> dict[str, Any]:
        return {"sum": state}

    def state_from_arrays(self, arrays: dict[str, Any]) -> Any:
        self.fails()
        return arrays["sum"]

    def step(self, tokens: Any, state: Any) -> tuple[Any, Any]:
        logits = np.eye(10, dtype=np.float32)[(tokens + 1) % 10] * 100
        state = state + tokens[:, None].astype(np.float32)
        return np.where(state > self.most, np.nan, logits), state


class Told:
    """What a job was told."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.finish: list[Any] = []
        self.ended = threading.Event()

    def __call__(self, job: Job, progress: Progress) -> None:
        self.tokens += progress.tokens
        if progress.finish is not None:
            self.finish.append(progress.finish)
            self.ended.set()


def job(engine: Counter, prompt: list[int], length: int, told: Any, **more: Any) -> Job:
    start = Snapshot(engine.init_state(1), None, np.random.default_rng(0).bit_generator.state)
    return Job(start, np.array(prompt), length, Sampling(temperature=0), told, **more)


@pytest.fixture
def engine() -> Counter:
    return Counter()


@pytest.fixture
def scheduler(engine: Counter) -> Iterator[Scheduler]:
    made = Scheduler(engine, engine, 8, 0)
    yield made
    made.close()
    assert not made._thread.is_alive()


def test_a_row_that_overflows_fails_alone(engine: Counter, scheduler: Scheduler) -> None:
    engine.most = 5000.0
    told = [Told() for _ in range(3)]
    jobs = [
        job(engine, [0], 500, told[0], keeps=True),
        job(engine, [9] * 500, 5000, told[1], keeps=True),  # overflows after some tokens
        job(engine, [9] * 600, 500, told[2], keeps=True),  # while it is read
    ]
    scheduler.submit(*jobs)
    for each in told:
        assert each.ended.wait(60)
    assert told[0].finish == [LENGTH]
    assert told[0].tokens == [(i + 1) % 10 for i in range(500)]
    for each in told[1:]:
        (error,) = each.finish
        assert isinstance(error, NotFiniteError)
    # the position is that after the last token that was told of
    assert told[2].tokens == []
    count = len(told[1].tokens)
    assert told[1].tokens == [i % 10 for i in range(count)]
    assert count > 0
    end = jobs[1].end
    assert end is not None
    assert (end.last, end.state.item()) == (told[1].tokens[-1], 4500 + sum(told[1].tokens[:-1]))


@pytest.mark.parametrize("more", [{}, {"logprobs": 2}, {"logprobs": 2, "echoes": True}])
def test_a_failure_anywhere_does_not_end_the_scheduler(
    engine: Counter, scheduler: Scheduler, more: dict[str, Any]
) -> None:
    """Whatever fails, and wherever: all who wait are told something, and others are served."""
    for number in range(25):
        calls = iter(range(10**9))

        def fails(number: int = number, calls: Iterator[int] = calls) -> None:
            if next(calls) == number:
                raise MemoryError

        told = [Told() for _ in range(3)]
        jobs = [job(engine, [i] * (1 + i), 3 + i, told[i], **more) for i in range(3)]
        engine.fails = fails
        scheduler.submit(*jobs)
        for each in told:
            assert each.ended.wait(60)
            assert len(each.finish) == 1
            assert each.finish[0] == LENGTH or isinstance(each.finish[0], MemoryError)
        engine.fails = lambda: None
    last = Told()
    scheduler.submit(job(engine, [1], 3, last))
    assert last.ended.wait(60)
    assert (last.tokens, last.finish) == ([2, 3, 4], [LENGTH])


def test_one_who_cannot_be_told_keeps_nothing_from_others(
    engine: Counter, scheduler: Scheduler
) -> None:
    def gone(job: Job, progress: Progress) -> None:
        raise RuntimeError("Event loop is closed")

    told = Told()
    scheduler.submit(job(engine, [1], 3, gone), job(engine, [4], 3, told))
    assert told.ended.wait(60)
    assert told.tokens == [5, 6, 7]


def test_reading_does_not_keep_others_waiting(engine: Counter, scheduler: Scheduler) -> None:
    """A prompt that takes long is left when it is cancelled, and others overtake it."""
    long, short = Told(), Told()
    reading = job(engine, [1] * 3_000_000, 1, long)
    scheduler.submit(reading)
    scheduler.submit(job(engine, [1], 3, short))
    assert short.ended.wait(60)
    assert not long.ended.is_set()
    scheduler.cancel(reading)
    assert long.ended.wait(60)
    assert (short.tokens, long.finish) == ([2, 3, 4], [CANCELLED])


def test_jobs_that_write_nothing_end(engine: Counter, scheduler: Scheduler) -> None:
    told = Told()
    empty = job(engine, [1, 2, 3], 0, told, keeps=True)
    scheduler.submit(empty)
    assert told.ended.wait(60)
    assert (told.tokens, told.finish) == ([], [LENGTH])
    assert empty.end is not None
    assert (empty.end.state.item(), empty.end.last) == (3, 3)


def test_a_closed_scheduler_tells_all(engine: Counter) -> None:
    scheduler = Scheduler(engine, engine, 1, 1)
    told = [Told(), Told()]
    jobs = [job(engine, [1], 10**7, each, keeps=True) for each in told]
    scheduler.submit(jobs[0])
    until(lambda: bool(told[0].tokens))
    scheduler.submit(jobs[1])
    with pytest.raises(QueueFullError):
        scheduler.submit(job(engine, [1], 1, Told()))
    scheduler.close()
    assert [each.finish for each in told] == [[CANCELLED], [CANCELLED]]
    assert jobs[1].end is None
    assert jobs[0].end is not None
    assert jobs[0].end.last == told[0].tokens[-1]
    with pytest.raises(StoppedError):
        scheduler.submit(job(engine, [1], 1, Told()))

"""In which pieces prompts are read: whoever reads beside it, a prompt is read in the same."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from zoo.config import Sampling
from zoo.inference.engine import StepLoop
from zoo.inference.prompts import MOST_LOGITS, next_run, pieces, read_prompts
from zoo.inference.snapshot import Snapshot
from zoo.serving.jobs import Job, Progress
from zoo.serving.scheduler import Scheduler


class Rounding(StepLoop):
    """An engine whose state tells in which pieces it was read, as that of a graph that computes
    many tokens at once does in its last digits."""

    vocab_size = 10

    def __init__(self) -> None:
        self.largest_run = 0

    def init_state(self, batch_size: int) -> Any:
        return np.zeros((batch_size, 1), np.int64)

    def state_to_arrays(self, state: Any) -> dict[str, Any]:
        return {"read": state}

    def state_from_arrays(self, arrays: dict[str, Any]) -> Any:
        return arrays["read"]

    def read(self, tokens: Any, state: Any) -> Any:
        start = 0
        for size in pieces(len(tokens), self.vocab_size):
            piece = tokens[start : start + size]
            state = (state * 31 + piece.sum(0)[:, None] * 7 + size) % 1_000_003
            start += size
            self.largest_run = max(self.largest_run, piece.size)
        return state

    def step(self, tokens: Any, state: Any) -> tuple[Any, Any]:
        return np.zeros((len(tokens), self.vocab_size), np.float32), state


@pytest.mark.parametrize(
    ("length", "sizes"),
    [(0, []), (1, [1]), (45, [32, 8, 4, 1]), (256, [256]), (600, [256, 256, 64, 16, 8])],
)
def test_pieces(length: int, sizes: list[int]) -> None:
    assert list(pieces(length, 30)) == sizes


def test_pieces_of_a_large_vocabulary_are_short() -> None:
    assert list(pieces(100, MOST_LOGITS // 33)) == [32, 32, 32, 4]
    assert list(pieces(3, 2 * MOST_LOGITS)) == [1, 1, 1]


@given(st.lists(st.integers(0, 1000), min_size=1).filter(any), st.integers(1, 10**6))
def test_rows_of_a_run_have_their_next_piece_in_common(left: list[int], vocab_size: int) -> None:
    rows, size = next_run(left, vocab_size)
    assert all(next(pieces(left[row], vocab_size)) == size for row in rows)
    assert len(rows) == 1 or len(rows) * size * vocab_size <= MOST_LOGITS
    assert all(first < second for first, second in pairwise(rows))


def prompts_of(lengths: list[int]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 10, length) for length in lengths]


LENGTHS = [45, 1, 600, 2, 44, 257, 300, 16, 45, 17, 3]


def test_a_batch_is_read_as_each_alone() -> None:
    engine, prompts = Rounding(), prompts_of(LENGTHS)
    state, last = read_prompts(engine, prompts)
    assert engine.largest_run == 3 * 256, "nothing is read together"
    for row, prompt in enumerate(prompts):
        assert state[row] == engine.read(prompt[:-1, None], engine.init_state(1))[0]
        assert last[row] == prompt[-1]


def test_a_server_reads_as_each_alone() -> None:
    engine, prompts = Rounding(), prompts_of(LENGTHS)
    scheduler, ended = Scheduler(engine, None, 8, 8), threading.Event()
    told = set()

    def tell(job: Job, progress: Progress) -> None:
        if progress.finish is not None:
            told.add(job)
            if len(told) == len(prompts):
                ended.set()

    random = np.random.default_rng(0).bit_generator.state
    jobs = [
        Job(Snapshot(engine.init_state(1), None, random), each, 0, Sampling(), tell, keeps=True)
        for each in prompts
    ]
    scheduler.submit(*jobs)
    assert ended.wait(60)
    scheduler.close()
    assert engine.largest_run > 256, "nothing is read together"
    for job, prompt in zip(jobs, prompts, strict=True):
        assert job.end is not None
        assert job.end.state == engine.read(prompt[:-1, None], engine.init_state(1))[0]

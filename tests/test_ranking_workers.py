"""Rankings in several processes: what is interrupted, killed, or kills its process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from zoo.cli import run
from zoo.ranking import RankRow, read_ranks
from zoo.ranking.runner import _in_processes
from zoo.ranking.trials import Job, Size

TWO = ["rank", "gru,lru", "--tasks", "delayed-match", "--parameters", "1k", "--workers", "2",
       "--out", "k"]  # fmt: skip


@contextmanager
def ranking() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A command with two workers that have trained for an epoch, and these."""
    with subprocess.Popen(
        [sys.executable, "-m", "zoo", *TWO], stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 120
        while len([*Path("k").glob("runs/*/*/metrics.jsonl")]) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        yield (
            process,
            [
                each
                for each in psutil.Process(process.pid).children(recursive=True)
                if "spawn_main" in " ".join(each.cmdline())
            ],
        )


@pytest.mark.slow
def test_a_ranking_that_is_interrupted_saves_and_leaves_nobody() -> None:
    with ranking() as (process, workers):
        assert len(workers) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
    assert len([*Path("k").glob("runs/*/*/training.safetensors")]) == 2
    assert run(TWO) == 0
    assert len(read_ranks(Path("k/rank.jsonl"))) == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_row() -> None:
    with ranking() as (process, workers):
        workers[0].kill()
        assert process.wait(240) == 0
    assert [row.verdict for row in read_ranks(Path("k/rank.jsonl"))].count("failed") == 0


def test_a_job_that_kills_its_process_has_a_row_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [
        Job(name, "task:t", 100, (), 0, Size(), Path(name)) for name in ("a", "bad", "c", "d", "e")
    ]

    def pool(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, RankRow]]:
        """As many as there are workers begin; all are lost if the bad one is among them."""
        for start in range(0, len(jobs), workers):
            part = jobs[start : start + workers]
            if any(job.cell == "bad" for job in part):
                raise BrokenProcessPool
            yield from ((job, job.failed("as it was told")) for job in part)

    monkeypatch.setattr("zoo.ranking.runner._in_pool", pool)
    rows = {row.cell: row for row in _in_processes(jobs, 2)}
    lost = [name for name, row in rows.items() if "process was lost" in row.evidence]
    assert lost == ["bad"]
    assert len(rows) == 5

"""Training in two processes, against training in one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import zoo
from zoo.training.distributed import Processes

SIZES = [
    "--hidden",
    "12",
    "--steps",
    "10",
    "--batch-size",
    "6",
    "--epochs",
    "2",
    "--clip",
    "0.5",
    "--dropout",
    "0",
]  # each process draws other dropout masks


def torchrun(count: int, *arguments: str) -> Sequence[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    # a local address with a free port
    return [*launcher, "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "zoo",
            "train", *arguments]  # fmt: skip


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def run(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        torchrun(count, *arguments), capture_output=True, text=True, env=ENVIRONMENT, timeout=240
    )


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "bidirectional"])
def test_two_processes_train_the_same_weights_as_one(cell: str, text_file: Path) -> None:
    """The same batches, with their rows divided, give the same weights and metrics up to the order
    of sums. For the bidirectional cell, the halves of a batch have different numbers of masked
    tokens."""
    arguments = [str(text_file), *SIZES, "--cell", cell, "--seed", "3"]
    zoo.train(str(text_file), out="one", cell=cell, hidden=12, steps=10, batch_size=6, epochs=2,
              clip=0.5, seed=3, dropout=0.0)  # fmt: skip
    result = run(2, *arguments, "--out", "two")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("hidden units") == 1  # only one of them prints
    one, two = zoo.load("one"), zoo.load("two")
    for name, wanted in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], wanted, rtol=0, atol=2e-5)
    assert one.config == two.config
    for ours, theirs in zip(one.metrics(), two.metrics(), strict=True):
        assert theirs["step"] == ours["step"]
        for figure in ("train_perplexity", "held_out_perplexity", "held_out_accuracy"):
            assert theirs[figure] == pytest.approx(ours[figure], rel=1e-4, abs=1e-3)
    assert Path("one/samples.txt").read_text() == Path("two/samples.txt").read_text()


@pytest.mark.slow
def test_after_a_killed_process_the_run_can_be_resumed(text_file: Path) -> None:
    sizes = ["--hidden", "12", "--steps", "10", "--batch-size", "6", "--minutes", "0.5"]
    process = subprocess.Popen(
        torchrun(2, str(text_file), *sizes, "--out", "run"),
        stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not Path("run/metrics.jsonl").exists() or not Path("run/metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {_environment(child)["RANK"]: int(child) for child in children if _is_rank(child)}
    os.kill(ranks["1"], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "--resume --out run" in err
    step = zoo.load("run").metrics()[-1]["step"]
    again = run(2, "--resume", "--out", "run")
    assert again.returncode == 0, again.stderr
    assert zoo.load("run").metrics()[-1]["step"] > step


def _environment(process: str) -> dict[str, str]:
    entries = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _is_rank(process: str) -> bool:
    return "RANK" in _environment(process)


@pytest.mark.slow
def test_a_batch_size_that_cannot_be_divided_is_an_error(text_file: Path) -> None:
    result = run(2, str(text_file), *SIZES, "--batch-size", "5", "--out", "run")
    assert result.returncode != 0
    assert "5 rows cannot be divided among 2 processes; give a --batch-size that can" in (
        result.stderr
    )
    assert not Path("run").exists()


@pytest.mark.parametrize(("rows", "count"), [(32, 4), (15, 2), (1, 3), (7, 7)])
def test_every_row_belongs_to_one_process(rows: int, count: int) -> None:
    found: list[int] = []
    for rank in range(count):
        process = Processes()
        process.rank, process.count = rank, count
        found += list(range(rows))[process.rows(rows)]
    assert found == list(range(rows))

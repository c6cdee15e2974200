"""Sweeps in several processes: the table of one process, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import UsageError
from zoo.sweeps.table import TABLE, read_rows

from .conftest import SENTENCE

Rows = list[dict[str, Any]]
Wanted = Callable[..., Rows]

SMALL = ["--seeds", "2", "--hidden", "8", "--batch-size", "4"]
TUNED = ["--cells", "rnn,gru", *SMALL, "--epochs", "1", "--steps", "8", "--max-tokens", "2000",
         "--tune-rate"]  # fmt: skip
LONG = ["--cells", "rnn,gru", *SMALL, "--epochs", "30", "--steps", "8", "--max-tokens", "2000"]
TIMES = {"seconds", "tokens_per_second"}
PATIENCE = 120  # seconds until something is under way
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else it is kept in the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
}
STARTED: list[subprocess.Popen[str]] = []
on_a_cluster = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
]


def rows_in(folder: Path) -> Rows:
    """The table without times."""
    return [row.model_dump(exclude=TIMES) for row in read_rows(folder / TABLE)]


def sweep(*arguments: str) -> subprocess.Popen[str]:
    """Starts the command."""
    command = [sys.executable, "-m", "zoo", "sweep", *arguments]
    STARTED.append(
        subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    )
    return STARTED[-1]


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """No command outlives its test."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """What the command says on standard error until it ends."""
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return err


def wait_for(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def processes_below(pid: int, name: str = "") -> list[psutil.Process]:
    """The running processes that `pid` started, and those started by them, that have this name."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if name in " ".join(process.cmdline()):
                    found.append(process)
    return found


def trainers(pid: int) -> list[psutil.Process]:
    return processes_below(pid, "ray::_train")


def under_way(folder: str) -> bool:
    """Whether a run of the sweep has trained for an epoch, and none has ended."""
    begun = any(path.stat().st_size for path in Path(folder).glob("*/metrics.jsonl"))
    return begun and not Path(folder, TABLE).exists()


def all_ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not alive


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Wanted:
    """The table of one process with one thread."""
    tables: dict[str, Rows] = {}

    def find(*arguments: str) -> Rows:
        key = repr(arguments)
        if key not in tables:
            folder = tmp_path_factory.mktemp("alone") / "s"
            finish(sweep(*arguments, "--out", str(folder)))
            tables[key] = rows_in(folder)
        return tables[key]

    return find


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text(SENTENCE * 120, "utf-8")
    return str(path)


@contextmanager
def cluster(*arguments: str, **environment: str) -> Iterator[tuple[str, psutil.Process]]:
    """A cluster of this machine: its address, and the process that began all of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="zoo-ray-")  # a short path: sockets are in it
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}",
        "--include-dashboard=false", "--object-store-memory=80000000", *arguments,
    ]  # fmt: skip
    with Path(folder, "said").open("wb") as said:
        head = subprocess.Popen(command, env={**ENVIRONMENT, **environment}, stdout=said,
                                stderr=said)  # fmt: skip
    try:
        wait_for(lambda: b"--block" in Path(folder, "said").read_bytes())
        yield f"127.0.0.1:{port}", psutil.Process(head.pid)
    finally:
        started = processes_below(head.pid)
        head.terminate()
        head.wait(timeout=60)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


class TestOnACluster:
    pytestmark = on_a_cluster

    def test_two_workers_give_the_table_of_one_process(self, text: str, wanted: Wanted) -> None:
        err = finish(sweep(text, *TUNED, "--workers", "2", "--out", "s"))
        assert rows_in(Path("s")) == wanted(text, *TUNED)
        for run in ("rnn, seed 0 (3 of 4), rate × 2", "gru, seed 1 (2 of 4), rate ×"):
            assert re.search(rf"^{re.escape(run)}[\d ]*: sent to a worker$", err, re.MULTILINE)
        # the best run of each search is that of the first seed
        assert err.count(": val ") == len([*Path("s").glob("*/config.json")]) + 2
        before = Path("s", TABLE).read_bytes()
        finish(sweep(text, *TUNED, "--out", "s"))  # in one process: all runs have ended
        assert Path("s", TABLE).read_bytes() == before

    def test_a_task(self, wanted: Wanted) -> None:
        arguments = ["task:parity", "--cells", "rnn,gru", "--seeds", "2", "--hidden", "8",
                     "--batch-size", "64", "--epochs", "1"]  # fmt: skip
        finish(sweep(*arguments, "--workers", "2", "--out", "s"))
        assert rows_in(Path("s")) == wanted(*arguments)

    def test_a_killed_worker(self, text: str, wanted: Wanted) -> None:
        process = sweep(text, *LONG, "--workers", "2", "--out", "s", "--json")
        wait_for(lambda: under_way("s"))
        for each in trainers(process.pid):
            each.kill()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert [row["error"] for row in json.loads(out)] == [""] * 4
        assert rows_in(Path("s")) == wanted(text, *LONG)

    def test_a_run_whose_worker_is_always_killed_does_not_stop_the_others(
        self, text: str, wanted: Wanted
    ) -> None:
        process = sweep(text, *LONG, "--workers", "1", "--out", "s")
        metrics = Path("s/gru-seed0/metrics.jsonl")
        for _ in range(4):
            wait_for(lambda: metrics.exists() and trainers(process.pid))
            for each in trainers(process.pid):
                each.kill()
            metrics.unlink()
        err = finish(process, code=1)
        assert "gru, seed 0 (1 of 4): failed: its process was lost 4 times" in err
        assert [row["run"] for row in rows_in(Path("s")) if row["error"]] == ["gru-seed0"]
        finish(sweep(text, *LONG, "--out", "s"))
        assert rows_in(Path("s")) == wanted(text, *LONG)

    def test_a_killed_driver(self, text: str, wanted: Wanted) -> None:
        process = sweep(text, *LONG, "--workers", "2", "--out", "s")
        wait_for(lambda: under_way("s"))
        started = processes_below(process.pid)
        process.kill()
        process.communicate(timeout=60)
        finish(sweep(text, *LONG, "--workers", "2", "--out", "s"))
        assert rows_in(Path("s")) == wanted(text, *LONG)
        assert all_ended(started)

    def test_ctrl_c_saves_the_runs(self, text: str, wanted: Wanted) -> None:
        process = sweep(text, *LONG, "--workers", "2", "--out", "s")
        wait_for(lambda: under_way("s"))
        process.send_signal(signal.SIGINT)
        err = finish(process, code=130)
        assert err.rstrip().endswith("\ninterrupted; the same command continues it")
        saved = [json.loads(path.read_text())["step"] for path in Path("s").glob("*/progress.json")]
        assert max(saved) > 0
        finish(sweep(text, *LONG, "--out", "s"))  # in one process
        assert rows_in(Path("s")) == wanted(text, *LONG)

    def test_a_killed_head(self, text: str, wanted: Wanted) -> None:
        arguments = [text, *LONG, "--out", "s", "--ray"]
        with cluster("--num-cpus=2") as (address, head):
            process = sweep(*arguments, address)
            wait_for(lambda: under_way("s"))
            for each in [head, *processes_below(head.pid)]:
                each.kill()
            err = finish(process, code=1)
        assert "the same command continues the sweep" in err.splitlines()[-1]
        with cluster("--num-cpus=2") as (address, _):
            finish(sweep(*arguments, address))
        assert rows_in(Path("s")) == wanted(text, *LONG)

    def test_what_the_machines_of_a_cluster_lack_is_said(self, text: str) -> None:
        without = {"ZOO_DISABLE_PLUGINS": "gated,tasks-state"}
        with cluster("--num-cpus=1", **without) as (address, _):
            err = finish(sweep(text, *TUNED, "--out", "s", "--ray", address), code=1)
            assert "cell 'gru' is not in the zoo" in err.splitlines()[-1]
            assert "Install its plugin there." in err.splitlines()[-1]
            task = ["task:parity", "--cells", "rnn", *SMALL]
            err = finish(sweep(*task, "--out", "s", "--ray", address), code=1)
            assert "task 'parity' is not in the zoo" in err.splitlines()[-1]
            assert not Path("s").exists()
        with cluster("--num-cpus=0") as (address, _):
            err = finish(sweep(text, *TUNED, "--out", "s", "--ray", address), code=1)
            assert f"the Ray cluster at '{address}' has no CPU to train on" in err.splitlines()[-1]


def test_workers_are_at_least_one(text_file: Path) -> None:
    with pytest.raises(UsageError, match="workers must be at least 1"):
        zoo.sweep(str(text_file), cells="rnn", workers=0)


def test_without_ray_the_extra_is_named(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert zoo_command(["sweep", str(text_file), *TUNED, "--workers", "2", "--out", "s"]) == 2
    assert "pip install 'recurrent-zoo[ray]'" in capsys.readouterr().err
    assert not Path("s").exists()

"""Sweeps in several processes: the table of one, whatever is killed meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import UsageError
from zoo.sweeps.events import RunStarted, TrialFinished
from zoo.sweeps.runner import sweep_events
from zoo.sweeps.table import TABLE, Row, read_rows

SETTINGS: dict[str, Any] = {
    "cells": "rnn,gru", "seeds": 2, "hidden": 8, "steps": 8, "batch_size": 4, "epochs": 2,
    "max_tokens": 3000, "tune_rate": True,
}  # fmt: skip
COMMAND = [
    "--cells", "rnn,gru", "--seeds", "2", "--hidden", "8", "--steps", "8", "--batch-size", "4",
    "--epochs", "2", "--max-tokens", "3000", "--tune-rate",
]  # fmt: skip
TIMES = {"seconds", "tokens_per_second"}
PATIENCE = 120  # seconds until something is under way
MARKS = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),
]


def on_ray(test: Callable[..., None]) -> Callable[..., None]:
    for mark in MARKS:
        test = mark(test)
    return test


def rows_of(folder: str | Path) -> list[dict[str, Any]]:
    """The table without times."""
    return [row.model_dump(exclude=TIMES) for row in read_rows(Path(folder) / TABLE)]


def one_thread(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zoo", *arguments]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def wanted(text_file: Path) -> list[dict[str, Any]]:
    """The table of one process with one thread."""
    command = one_thread("sweep", str(text_file), *COMMAND, "--out", "alone")
    subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
    return rows_of("alone")


def trainers(of: int | None = None) -> list[psutil.Process]:
    """Processes that train a run for Ray, of a driver or of anyone."""
    found = psutil.Process(of).children(recursive=True) if of else psutil.process_iter()
    named = []
    for process in found:
        try:
            if "ray::_train" in " ".join(process.cmdline()):
                named.append(process)
        except psutil.Error:
            continue
    return named


def wait_for(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


@on_ray
def test_two_workers_give_the_table_of_one_process(
    text_file: Path, wanted: list[dict[str, Any]]
) -> None:
    events = [*sweep_events(str(text_file), out="two", workers=2, **SETTINGS)]
    assert rows_of("two") == wanted
    assert len([event for event in events if isinstance(event, Row)]) == 4
    assert [event for event in events if isinstance(event, TrialFinished)]
    started = [event.folder.name for event in events if isinstance(event, RunStarted)]
    assert {"rnn-seed0", "gru-seed0", "rnn-seed1", "gru-seed1"} <= {*started}
    rows = zoo.sweep(str(text_file), out="two", workers=2, **SETTINGS)  # all have ended
    assert [(row.cell, row.seed) for row in rows] == [
        ("gru", 0), ("gru", 1), ("rnn", 0), ("rnn", 1),
    ]  # fmt: skip


@on_ray
def test_killed_workers_and_a_killed_driver(text_file: Path, wanted: list[dict[str, Any]]) -> None:
    """Three kills: of a worker, of the driver, of a worker again."""
    command = one_thread("sweep", str(text_file), *COMMAND, "--workers", "2", "--out", "killed")
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
    wait_for(lambda: trainers(process.pid))[0].kill()
    wait_for(lambda: trainers(process.pid))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: not trainers())
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
    wait_for(lambda: trainers(process.pid) or process.poll() is not None)
    for each in trainers(process.pid)[:1]:
        each.kill()
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert rows_of("killed") == wanted


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Begins a cluster of two CPUs, and gives its address; the cluster before it has ended."""
    ray = shutil.which("ray") or str(Path(sys.executable).with_name("ray"))

    def begin() -> str:
        port = 20_000 + os.getpid() % 20_000
        subprocess.run(
            [
                ray, "start", "--head", f"--port={port}", "--num-cpus=2",
                "--node-ip-address=127.0.0.1", "--include-dashboard=false",
                "--object-store-memory=100000000", "--disable-usage-stats",
            ],
            check=True, env=ENVIRONMENT, capture_output=True,
        )  # fmt: skip
        return f"127.0.0.1:{port}"

    yield begin
    subprocess.run([ray, "stop", "--force"], check=False, capture_output=True)


@on_ray
def test_a_cluster_whose_head_is_killed(
    text_file: Path, wanted: list[dict[str, Any]], head: Callable[[], str]
) -> None:
    """The command ends in a line, and goes on with a new cluster."""
    address = head()
    command = one_thread("sweep", str(text_file), *COMMAND, "--ray", address, "--out", "headless")
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(trainers)
    for each in psutil.process_iter():
        try:
            if each.name() in ("gcs_server", "raylet"):
                each.kill()
        except psutil.Error:
            continue
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "the same command continues the sweep" in err.splitlines()[-1]
    wait_for(lambda: not trainers())
    again = [*command[:-3], head(), *command[-2:]]
    subprocess.run(again, check=True, env=ENVIRONMENT, capture_output=True)
    assert rows_of("headless") == wanted


def test_workers_are_at_least_one(text_file: Path) -> None:
    with pytest.raises(UsageError, match="workers must be at least 1"):
        zoo.sweep(str(text_file), workers=0, **SETTINGS)


def test_without_ray_the_extra_is_named(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert zoo_command(["sweep", str(text_file), *COMMAND, "--workers", "2", "--out", "no"]) == 2
    assert "pip install 'recurrent-zoo[ray]'" in capsys.readouterr().err
    assert not Path("no").exists()

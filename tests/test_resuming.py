"""Training that is interrupted and resumed ends bit for bit as without the interruption."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import zoo
from zoo.cli import run as zoo_run
from zoo.errors import RunError, ZooError
from zoo.runs.metadata import read_record
from zoo.runs.plot import compared_lines
from zoo.training import checkpointing as resuming
from zoo.training.checkpointing import resume_command
from zoo.training.events import Finished, Opened, Report, Started
from zoo.training.experiment import resume_events

CASES = {
    "adamw, carried state, dropout": {"cell": "lstm", "layers": 2, "dropout": 0.3},
    "sgd, shuffled windows": {"cell": "gru", "batches": "random", "optimizer": "sgd"},
    "masked tokens": {"cell": "bidirectional", "dropout": 0.1},
    "fused recurrence": {"cell": "rnn-scratch", "clip": 0.1},
}
SIZES = {"hidden": 12, "steps": 10, "batch_size": 4, "epochs": 3, "report_every": 25}


def weights(path: Path | str) -> dict[str, torch.Tensor]:
    return zoo.load(path).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lines(path: str) -> list[dict[str, object]]:
    timed = ("seconds", "tokens_per_second")
    return [
        {key: value for key, value in line.items() if key not in timed}
        for line in zoo.load(path).metrics()
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_an_uninterrupted_one(case: str, text_file: Path) -> None:
    """Interrupted repeatedly after any number of events, with the state of a new process."""
    settings = {**SIZES, **CASES[case], "max_tokens": 3000}
    zoo.train(str(text_file), out="whole", **settings)
    events = zoo.train_events(str(text_file), out="parts", **settings)
    stops = 0
    while True:
        ended = False
        for count, event in enumerate(events):
            # stopped at its last sample it is also complete
            ended = isinstance(event, Finished) or (
                isinstance(event, Started) and event.resumed is not None and event.resumed.finished
            )
            if count == 3 + stops % 4 or ended:
                break
        events.close()
        stops += 1
        if ended:
            break
        torch.manual_seed(1234 + stops)  # whatever the process did in between
        events = resume_events("parts")
    assert stops > 3
    assert same(weights("whole"), weights("parts"))
    assert lines("whole") == lines("parts")
    assert Path("whole/samples.txt").read_text() == Path("parts/samples.txt").read_text()
    finished = list(resume_events("parts"))
    assert [type(event) for event in finished] == [Opened, Started]
    assert finished[1].resumed.finished


PROGRAM = """
import sys, torch
torch.set_num_threads(1)
import zoo.training.experiment
zoo.training.experiment.SECONDS_BETWEEN_SAVES = 0.0
from zoo.training.experiment import resume_events, train_events
arguments = sys.argv[1:]
if arguments[0] == "resume":
    events = resume_events(arguments[1])
else:
    events = train_events(arguments[2], out=arguments[1], cell="gru", hidden=16, steps=10,
                          batch_size=4, epochs=4, report_every=5, dropout=0.1)
for event in events:
    print(type(event).__name__, flush=True)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
    )


def train_uninterrupted(text: Path) -> None:
    process = start("train", "whole", str(text))
    process.communicate(timeout=120)
    assert process.returncode == 0


def kill_repeatedly(text: Path, kills: int, pause: Callable[[int], float | None]) -> int:
    """Kills a run that saves at every event, `kills` times, and resumes it after each: `pause`
    seconds after its start, or, for None, in the middle of a save. Returns the number of kills that
    left an incomplete file."""
    process, torn = start("train", "killed", str(text)), 0
    for kill in range(kills):
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "Started\n":
            assert line
        seconds = pause(kill)
        if seconds is not None:
            time.sleep(seconds)
        while seconds is None and not unfinished() and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        torn += bool(unfinished())
        zoo.load("killed")
        process = start("resume", "killed")
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert not unfinished()
    return torn


def unfinished() -> list[str]:
    return [name for name in os.listdir("killed") if name.startswith(".")]


@pytest.mark.slow
def test_a_run_killed_at_any_moment_can_be_resumed(text_file: Path) -> None:
    train_uninterrupted(text_file)
    torn = kill_repeatedly(text_file, 4, lambda kill: 0.03 * kill if kill % 2 else None)
    assert torn >= 1
    assert same(weights("whole"), weights("killed"))
    assert lines("whole") == lines("killed")


def test_ctrl_c_saves_and_prints_how_to_resume(text_file: Path) -> None:
    sizes = ["--hidden", "16", "--steps", "10", "--batch-size", "4", "--epochs", "400"]
    command = [sys.executable, "-m", "zoo", "train", str(text_file), *sizes, "--out", "r"]
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        while "epoch" not in (line := process.stderr.readline()):
            assert line
        time.sleep(1)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.rstrip().endswith("interrupted; resume with: zoo train --resume --out r")
        step = json.loads(Path("r/progress.json").read_text())["step"]
        assert step > 0
        command = [sys.executable, "-m", "zoo", "train", "--resume", "--out", "r"]


def test_resume_refuses_invalid_requests(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo_run(["train", "--resume"]) == 2
    assert "give it as --out" in capsys.readouterr().err
    assert zoo_run(["train", "--resume", "--out", "nowhere"]) == 1
    assert "nowhere is not a run folder" in capsys.readouterr().err
    assert zoo_run(["train", "--resume", "--out", "r", "--hidden", "3"]) == 2
    assert "--resume takes every setting from the run" in capsys.readouterr().err
    zoo.train(str(text_file), out="r", **{**SIZES, "epochs": 1})
    assert zoo_run(["train", "--resume", "--out", "r"]) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    saved = Path("r/training.safetensors").read_bytes()
    for content, message in (
        (saved[:1000], "is damaged"),
        (saved.replace(b"step", b"stop"), "is damaged"),
        (saved.replace(rb"train_perplexity\"", rb"train_perplexitx\""), "is damaged"),
        (re.sub(rb'(samples.txt\\":)\d', rb"\1-", saved), "is damaged"),
    ):
        assert content != saved
        Path("r/training.safetensors").write_bytes(content)
        with pytest.raises(RunError, match=message):
            list(resume_events("r"))
    Path("r/training.safetensors").write_bytes(saved)
    text_file.write_text(text_file.read_text().replace("fox", "cat"))
    with pytest.raises(ZooError, match="trained on another text"):
        list(resume_events("r"))
    Path("r/training.safetensors").unlink()
    with pytest.raises(RunError, match="cannot be resumed: it has no training"):
        list(resume_events("r"))


def test_resuming_truncates_only_files_of_the_run(text_file: Path) -> None:
    """A third-party folder may name other files. Of a file that a power failure truncated, the
    whole lines stay."""
    events = zoo.train_events(str(text_file), out="r", **{**SIZES, "epochs": 3})
    assert len([next(e for e in events if isinstance(e, Report)) for _ in range(3)]) == 3
    events.close()
    Path("precious").write_text("years of work")
    saved = Path("r/training.safetensors").read_bytes()
    Path("r/training.safetensors").write_bytes(saved.replace(b"samples.txt", b"../precious"))
    with pytest.raises(RunError, match="sizes: they are not those of metrics"):
        list(resume_events("r"))
    assert Path("precious").read_text() == "years of work"
    Path("r/training.safetensors").write_bytes(saved)
    Path("r/metrics.jsonl").write_bytes(Path("r/metrics.jsonl").read_bytes()[:-100])
    list(resume_events("r"))
    steps = [line["step"] for line in zoo.load("r").metrics()]
    every = SIZES["report_every"]
    assert steps[:2] == [every, 2 * every]
    assert steps[2] > 3 * every


def test_a_full_disk_keeps_the_previous_save(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every write fails in the middle: it leaves no file. Training goes on to its end, and the
    error names the file."""
    events = zoo.train_events(str(text_file), out="r", **SIZES)
    for event in events:
        if isinstance(event, Report):
            break
    events.close()
    before = {path.name: path.read_bytes() for path in Path("r").iterdir()}
    monkeypatch.setattr("zoo.training.experiment.SECONDS_BETWEEN_SAVES", 0.0)
    fsync = os.fsync

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert zoo_run(["train", "--resume", "--out", "r"]) == 1
    err = capsys.readouterr().err
    assert err.count("r/training.safetensors cannot be written: No space left on device; no o") == 2
    assert err.rstrip().endswith("is lost; resume with: zoo train --resume --out r")
    monkeypatch.setattr(os, "fsync", fsync)
    kept = {path.name: path.read_bytes() for path in Path("r").iterdir()}
    for name in ("training.safetensors", "model.safetensors", "config.json", "progress.json"):
        assert kept[name] == before[name]
    assert not [name for name in kept if name.startswith(".")]
    zoo.train(str(text_file), out="whole", **SIZES)
    assert zoo_run(["train", "--resume", "--out", "r"]) == 0
    assert same(weights("whole"), weights("r"))


def test_a_second_interrupt_stops_at_once(request: pytest.FixtureRequest) -> None:
    # background jobs of a shell inherit that interrupts are ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with resuming.interruptible() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.rotates("third", range(3))
@pytest.mark.parametrize("third", range(3))
@pytest.mark.timeout(900)
def test_a_run_killed_a_hundred_times_can_be_resumed(third: int, text_file: Path) -> None:
    """Half of them at random moments, half in the middle of a save: at least three in ten leave an
    incomplete file."""
    random.seed(third)
    train_uninterrupted(text_file)
    torn = 0
    batches = range(third, 10, 3)
    for batch in batches:
        torn += kill_repeatedly(
            text_file, 10, lambda kill: random.uniform(0, 0.3) if kill % 2 else None
        )
        assert same(weights("whole"), weights("killed")), batch
        assert lines("whole") == lines("killed")
        shutil.rmtree("killed")
    assert torn >= 3 * len(batches)


TINY_DISK = """
mount -t tmpfs -o size={size} tmpfs {folder} || exit 77
{prepare}
exec {python} -m zoo train {text} --cell rnn --hidden 64 --steps 10 --batch-size 4 --epochs 2 \\
    --out {out}
"""


def train_on_tiny_disk(text: Path, size: str, folder: str, out: str, prepare: str) -> str:
    """Trains with `folder` as a private file system of that size; returns its output."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    Path(folder).mkdir()
    script = TINY_DISK.format(
        size=size, folder=folder, prepare=prepare, python=sys.executable, text=text, out=out
    )
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("needs a file system of its own")
    return f"{process.returncode}: {process.stderr}"


def test_a_disk_that_fills_up(text_file: Path) -> None:
    """The weights fit, but the optimizer's state in the next save does not: the run goes on in the
    current folder, which is on another disk."""
    said = train_on_tiny_disk(text_file, "160k", "disk", "disk/run", "")
    assert said.startswith("0: ")
    assert (
        "zoo: warning: disk/run/training.safetensors cannot be written: No space left on device; "
        "the run goes on in run-2.\n" in said
    )
    assert "the run is in run-2; next: zoo export run-2" in said
    opened, started = resume_events("run-2")
    assert isinstance(opened, Opened)
    assert isinstance(started, Started)
    assert started.resumed.finished


def test_a_read_only_file_system_is_an_error(text_file: Path) -> None:
    prepare = "mount -o remount,ro disk"
    said = train_on_tiny_disk(text_file, "1m", "disk", "disk/run", prepare)
    assert said.startswith("1: ")
    assert "disk/run cannot be written: Read-only file system; choose another --out." in said
    assert "Traceback" not in said


def test_a_full_temporary_folder_does_not_matter(text_file: Path) -> None:
    prepare = "dd if=/dev/zero of=tmp/full 2>/dev/null; export TMPDIR=$PWD/tmp"
    assert train_on_tiny_disk(text_file, "64k", "tmp", "run", prepare).startswith("0: ")
    assert zoo.load("run").metrics()


def test_runs_are_listed_and_plotted(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in ("rnn", "gru"):
        zoo.train(str(text_file), out=f"runs/{cell}", cell=cell, **SIZES)
    Path("runs/notes.txt").write_text("no run")
    capsys.readouterr()
    assert zoo_run(["runs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["cell"] for row in rows] == ["gru", "rnn"]
    for row in rows:
        metrics = zoo.load(row["run"]).metrics()
        assert row["finished"] is True
        assert row["tokens"] == metrics[-1]["tokens"]
        best = min(line["held_out_bits_per_char"] for line in metrics)
        assert row["held_out_bits_per_char"] == best
    assert zoo_run(["runs"]) == 0
    assert "runs/rnn" in capsys.readouterr().out
    assert zoo_run(["compare", "runs/rnn", "runs/gru", "--out", "both.png"]) == 0
    assert capsys.readouterr().out == "both.png\n"
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")
    assert zoo_run(["runs", "nowhere"]) == 2
    assert zoo_run(["compare", "nowhere"]) == 1


def test_runs_of_tasks_are_listed_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"hidden": 8, "batch_size": 4, "epochs": 1}
    for name, task in (("a", "task:parity"), ("b", "task:parity"), ("c", "task:adding")):
        zoo.train(task, cell="rnn", out=f"runs/{name}", **small)
    capsys.readouterr()
    assert zoo_run(["runs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    last = [zoo.load(row["run"]).metrics()[-1] for row in rows]
    assert [row["held_out_accuracy"] for row in rows] == [m["held_out_accuracy"] for m in last]
    assert [row["held_out_error"] for row in rows] == [m["held_out_error"] for m in last]
    assert zoo_run(["compare", "runs/a", "runs/b"]) == 0
    assert zoo_run(["compare", "runs/c"]) == 0
    assert zoo_run(["compare", "runs/a", "runs/c"]) == 2
    assert "no figure in common" in capsys.readouterr().err


def test_runs_are_compared_by_bits_per_character(text_file: Path) -> None:
    """Of the training text if there is no validation text, also for tokens of several
    characters."""
    sizes = {"tokenizer": "bpe", "vocab": 270, "hidden": 8, "epochs": 2, "held_out": 0}
    run = zoo.train(str(text_file), cell="rnn", out="r", batch_size=4, steps=8, **sizes)
    text = text_file.read_text("utf-8")
    chars_per_token = len(text) / len(run.tokenizer.encode(text))
    assert chars_per_token > 1.5
    lines, bits = compared_lines(read_record(Path("r")))
    per_token = [line["train_bits_per_token"] for line in lines]
    assert bits == pytest.approx([found / chars_per_token for found in per_token], rel=1e-6)
    held_out = zoo.train(str(text_file), cell="rnn", out="h", batch_size=4, steps=8, epochs=1)
    _, bits = compared_lines(read_record(Path("h")))
    assert bits == [line["held_out_bits_per_char"] for line in held_out.metrics()]


def test_the_printed_resume_command_is_quoted_for_a_shell() -> None:
    words = shlex.split(resume_command(Path("my runs/it's")))
    assert words == ["zoo", "train", "--resume", "--out", "my runs/it's"]

"""Training whose run folder is lost, or can no longer be written, goes on in another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.errors import ZooWarning
from zoo.registry import LoggerSpec
from zoo.training import Event, Moved, Report
from zoo.training.experiment import resume_events

SIZES: dict[str, Any] = {
    "cell": "gru", "hidden": 8, "steps": 10, "batch_size": 4, "max_tokens": 3000, "epochs": 3,
    "report_every": 10,
}  # fmt: skip
DAMAGED_AT = 5  # lines of metrics


def results(path: Path) -> Any:
    """All that is to be the same in whatever folder it is."""
    run = zoo.load(path)
    timed = ("seconds", "tokens_per_second")
    lines = [[pair for pair in line.items() if pair[0] not in timed] for line in run.metrics()]
    weights = {name: leaf.numpy().tobytes() for name, leaf in run.model.state_dict().items()}
    return weights, lines, (path / "samples.txt").read_text()


def is_finished(path: Path) -> bool:
    *_, started = resume_events(path)
    return bool(started.resumed.finished)  # type: ignore[union-attr]


def delete() -> None:
    shutil.rmtree("sub/r")


def move() -> None:
    os.rename("sub/r", "sub/elsewhere")


def replace_by_a_file() -> None:
    shutil.rmtree("sub/r")
    Path("sub/r").write_text("a file")


def replace_by_another() -> None:
    """As a second training with --overwrite does."""
    os.rename("sub/r", "sub/.r.aside")
    shutil.copytree("sub/.r.aside", "sub/r")


def delete_with_its_parent() -> None:
    shutil.rmtree("sub")


damage: Callable[[], None] = delete


def damages(events: Iterator[Event]) -> Iterator[Event]:
    """A logger by which something happens to the folder in the middle of training."""
    reports = 0
    for event in events:
        reports += isinstance(event, Report)
        if reports == DAMAGED_AT and isinstance(event, Report):
            damage()
        yield event


class Plugin:
    @zoo.hookimpl
    def zoo_loggers(self) -> list[LoggerSpec]:
        return [LoggerSpec("damages", f"{__name__}:damages")]


@pytest.mark.parametrize("between_saves", [0.0, 30.0])
@pytest.mark.parametrize(
    ("happens", "folder"),
    [
        (delete, "sub/r-2"),
        (move, "sub/r-2"),
        (replace_by_a_file, "sub/r-2"),
        (replace_by_another, "sub/r-2"),
        (delete_with_its_parent, "r-2"),
    ],
)
def test_a_lost_folder(
    happens: Callable[[], None], folder: str, between_saves: float, text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is noticed at the next line of metrics, and nothing is lost."""
    monkeypatch.setattr("zoo.training.experiment.SECONDS_BETWEEN_SAVES", between_saves)
    monkeypatch.setitem(globals(), "damage", happens)
    zoo.train(str(text_file), out="whole", **SIZES)
    with pytest.warns(ZooWarning) as caught:
        run = zoo.train(
            str(text_file), out="sub/r", log=["damages"], registry=zoo.load_registry(Plugin()),
            **SIZES,
        )  # fmt: skip
    assert [str(warning.message) for warning in caught] == [
        f"sub/r is gone, or another folder is in its place; the run goes on in {folder}."
    ]
    assert run.path == Path(folder)
    assert results(run.path) == results(Path("whole"))
    assert (run.path / "perplexity.png").exists()
    assert is_finished(run.path)
    if happens is move:
        assert json.loads(Path("sub/elsewhere/progress.json").read_text())["step"] <= 50
        zoo.resume("sub/elsewhere")  # it can be resumed too
        assert results(Path("sub/elsewhere")) == results(Path("whole"))
    if happens is replace_by_another:
        assert (Path("sub/r/metrics.jsonl").read_text()).count("\n") == DAMAGED_AT


def test_a_run_that_moved_is_stopped_and_resumed(text_file: Path) -> None:
    zoo.train(str(text_file), out="whole", **SIZES)
    events = zoo.train_events(str(text_file), out="r", **SIZES)
    assert [next(events) for _ in range(5)]
    shutil.rmtree("r")
    with pytest.warns(ZooWarning, match="r is gone, .*; the run goes on in r-2"):
        events.close()  # type: ignore[attr-defined]
    events = resume_events("r-2")
    assert next(event for event in events if isinstance(event, Report))
    shutil.rmtree("r-2")
    Path("r-3").mkdir()
    with pytest.warns(ZooWarning, match="r-2 is gone"):
        (moved,) = (event for event in events if isinstance(event, Moved))
    assert moved.run.path == Path("r-2-2")
    assert results(moved.run.path) == results(Path("whole"))


def test_the_run_that_was_overwritten_comes_back(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = zoo.train(str(text_file), out="r", **{**SIZES, "epochs": 1, "seed": 5})
    events = zoo.train_events(str(text_file), out="r", overwrite=True, **SIZES)
    next(event for event in events if isinstance(event, Report))
    shutil.rmtree("r")
    with pytest.warns(ZooWarning, match="the run goes on in r-2"):
        list(events)
    assert zoo.load("r").config.training == old.config.training
    assert is_finished(Path("r-2"))
    assert sorted(path.name for path in Path().iterdir() if path.is_dir()) == ["r", "r-2"]


def test_ctrl_c_tells_the_new_folder(text_file: Path) -> None:
    command = [sys.executable, "-m", "zoo", "train", str(text_file), "--out", "r"]
    sizes = ["--hidden", "16", "--steps", "10", "--batch-size", "4", "--epochs", "400"]
    process = subprocess.Popen([*command, *sizes], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "epoch" not in (line := process.stderr.readline()):
        assert line
    time.sleep(1)
    shutil.rmtree("r")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (warning,) = (line for line in err.splitlines() if "warning" in line)
    assert warning.startswith("zoo: warning: r is gone")
    assert warning.endswith("; the run goes on in r-2.")
    assert err.rstrip().endswith("interrupted; resume with: zoo train --resume --out r-2")
    assert zoo.load("r-2").metrics()


# In a process of its own: what it may do is limited.
PROGRAM = """
import os, resource, sys, warnings
import torch
torch.set_num_threads(1)
import zoo
import zoo.training.experiment
from zoo.training import Report, Started, Moved
zoo.training.experiment.SECONDS_BETWEEN_SAVES = 0.0
warnings.showwarning = lambda message, *_: print("warning:", message)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def train(text, out, events=None, **actions):
    "Trains, and does `at_5` at the fifth line of metrics."
    reports = 0
    for event in events or zoo.train_events(text, out=out, **SIZES):
        if isinstance(event, Started | Moved):
            path = event.run.path
        elif isinstance(event, Report):
            reports += 1
            actions.get(f"at_{reports}", lambda: None)()
    print("finished in", path)
"""


def program(text: Path, body: str, prefix: tuple[str, ...] = (), **variables: str) -> str:
    """What the program prints, and the last line of its error."""
    code = f"{PROGRAM}\nSIZES = {SIZES}\ntext = {str(text)!r}\n{body}"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        env={**os.environ, **variables},
    )  # fmt: skip
    return done.stdout + "".join(done.stderr.splitlines(keepends=True)[-1:])


def without_privileges() -> tuple[str, ...]:
    """What runs a command that may not write where permission bits forbid it, as root may."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    dropped = "-dac_override,-dac_read_search,-fowner"
    return "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"


@pytest.mark.parametrize(
    ("forbidden", "folder"),
    [
        (["sub/r"], "sub/r-2"),
        (["sub/r", "sub"], "r-2"),
        (["sub/r", "sub", "."], "{tmp}/r-2"),
    ],
)
def test_a_folder_that_is_made_read_only(
    forbidden: list[str], folder: str, text_file: Path
) -> None:
    zoo.train(str(text_file), out="whole", **SIZES)
    Path("temporary").mkdir()
    body = f"train(text, 'sub/r', at_5=lambda: [os.chmod(path, 0o555) for path in {forbidden}])"
    temporary = str(Path("temporary").absolute())
    said = program(text_file, body, without_privileges(), TMPDIR=temporary)
    for path in forbidden:
        Path(path).chmod(0o755)
    folder = folder.format(tmp=temporary)
    assert said.splitlines() == [
        f"warning: sub/r/training.safetensors cannot be written: Permission denied; the run goes "
        f"on in {folder}.",
        f"finished in {folder}",
    ]
    assert results(Path(folder)) == results(Path("whole"))
    assert is_finished(Path(folder))


FULL = "r/{} cannot be written: File too large; no other folder can be written either."


def test_a_disk_that_is_full_for_a_while(text_file: Path) -> None:
    """Neither a line of metrics nor a save can be written; then they can again."""
    zoo.train(str(text_file), out="whole", **SIZES)
    said = program(text_file, "train(text, 'r', at_5=lambda: limit(500), at_9=lambda: limit(-1))")
    warning, end = said.splitlines()
    told = [FULL.format(name) for name in ("metrics.jsonl", "training.safetensors")]
    assert warning.startswith(tuple(f"warning: {fault} Training goes on, and" for fault in told))
    assert end == "finished in r"
    assert results(Path("r")) == results(Path("whole"))
    assert sorted(path.name for path in Path().iterdir() if path.is_dir()) == ["r", "whole"]


def test_a_disk_that_stays_full(text_file: Path) -> None:
    """The last save stays, and can be resumed."""
    zoo.train(str(text_file), out="whole", **SIZES)
    said = program(text_file, "train(text, 'r', at_5=lambda: limit(500))")
    assert said.splitlines()[1:] == [
        f"zoo.errors.RunError: {FULL.format('metrics.jsonl')} What was trained after the last save "
        f"is lost; resume with: zoo train --resume --out r"
    ]
    assert not [path for path in Path("r").iterdir() if path.name.startswith(".")]
    step = json.loads(Path("r/progress.json").read_text())["step"]
    assert step == 10 * DAMAGED_AT
    zoo.resume("r")
    assert results(Path("r")) == results(Path("whole"))

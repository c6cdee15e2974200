"""Training that can be stopped and resumed: what is saved, and how it is stopped."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from zoo.config import FrozenModel, first_problem
from zoo.data.dataset import Dataset
from zoo.errors import RunError
from zoo.files import temporary_prefix, write_atomically
from zoo.runs.metadata import METRICS, PROGRESS
from zoo.runs.run import FILES, SAMPLES, Run
from zoo.training.metrics import Metrics
from zoo.training.snapshot import Snapshot, TrainingPosition
from zoo.training.trainer import Trainer

TRAINING = "training.safetensors"
FORMAT: Literal[2] = 2
APPENDED = METRICS, SAMPLES  # what training appends to
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Saved(FrozenModel):
    """What stands beside the tensors of `training.safetensors`: enough, with them, to resume.

    `optimizer` is JSON (see `zoo.training.optimizer_state`); `metrics` is the last line of them and
    `best` that of the best weights; `text` is the SHA-256 of the tokens that are trained on;
    `sizes` are those of the files in APPENDED, in bytes.
    """

    format: Literal[2] = FORMAT
    position: TrainingPosition
    optimizer: str
    metrics: Metrics | None
    best: Metrics | None
    text: str
    sizes: dict[str, Annotated[int, Field(ge=0)]]


def save_training(trainer: Trainer, run: Run, data: Dataset) -> None:
    """Saves where the training stands. All processes come here at the same event, and the first
    writes."""
    snapshot = trainer.snapshot()
    if trainer.processes.first:
        write_training(snapshot, trainer, run, data)


def write_training(snapshot: Snapshot, trainer: Trainer, run: Run, data: Dataset) -> None:
    """Writes everything that the rest of the training depends on: one file, whole or not at all.
    The weights that are kept, and `progress.json`, are then written for those who read only
    them."""
    saved = Saved(
        position=snapshot.position,
        optimizer=json.dumps(snapshot.optimizer),
        metrics=snapshot.last,
        best=snapshot.best,
        text=data.fingerprint,
        sizes={
            name: (run.path / name).stat().st_size if (run.path / name).exists() else 0
            for name in APPENDED
        },
    )
    content = save(
        {name: tensor.contiguous().clone() for name, tensor in snapshot.tensors.items()},
        {"zoo": saved.model_dump_json()},
    )
    write_atomically(run.path / TRAINING, content)
    run.save(trainer.kept_weights())
    progress = saved.position.model_dump(exclude={"epoch_random"})
    write_atomically(run.path / PROGRESS, json.dumps(progress, indent=2).encode())


def restore_training(trainer: Trainer, run: Run, data: Dataset) -> TrainingPosition:
    """Takes the saved training over, and cuts off what was appended to the run's files after it.
    RunError for a folder without one, or one that is damaged or of another text."""
    path = run.path / TRAINING
    try:
        with safe_open(path, "pt") as file:
            saved = _read_saved(path, (file.metadata() or {}).get("zoo", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        optimizer = json.loads(saved.optimizer)
    except FileNotFoundError:
        raise RunError(f"{run.path} cannot be resumed: it has no {TRAINING}.") from None
    except ValidationError as error:
        raise RunError(f"{path} is damaged: {first_problem(error)}") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if saved.text != data.fingerprint:
        raise RunError(
            f"{run.path} was trained on another text than {run.config.data.corpus} is now."
        )
    trainer.restore(Snapshot(tensors, optimizer, saved.position, saved.metrics, saved.best))
    if trainer.processes.first:
        _remove_unfinished(run.path)
        for name in APPENDED:  # and no other that the file may name
            _cut_off(run.path / name, saved.sizes.get(name, 0))
    return saved.position


def _read_saved(path: Path, text: str) -> Saved:
    """ValidationError for a text that is damaged, RunError for one of another format."""
    try:
        content: Any = json.loads(text)
    except json.JSONDecodeError:
        content = None
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise RunError(
            f"{path} was saved by another version of the zoo, and cannot be resumed; the run can "
            f"still be used and exported."
        )
    return Saved.model_validate_json(text)


def _cut_off(path: Path, size: int) -> None:
    """Shortens the file to `size` bytes; one that lost more than that to a power cut stays."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def _remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed in the middle of a save had written of it."""
    for name in (TRAINING, PROGRESS, *FILES):
        for path in folder.glob(f"{temporary_prefix(name)}*"):
            path.unlink()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C, or a request to terminate, sets the event; the second
    interrupts at once. Only the main thread can be interrupted."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def request(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    before = {number: signal.signal(number, request) for number in STOPPING}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_command(path: Path, loggers: Sequence[str] = ()) -> str:
    """The command that resumes the run at `path`, with these loggers."""
    words = ["zoo", "train", "--resume", "--out", str(path)]
    return shlex.join([*words, *(word for name in loggers for word in ("--log", name))])

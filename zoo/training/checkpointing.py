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

from pydantic import Field, ValidationError, field_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from zoo.errors import RunError, one_line
from zoo.files import temporary_prefix, write_atomically
from zoo.runs.metadata import METRICS, PROGRESS
from zoo.runs.run import FILES, SAMPLES, Run
from zoo.training.appended import APPENDED, kept_metrics, kept_samples
from zoo.training.data import TrainingData
from zoo.training.metrics import Metrics
from zoo.training.snapshot import Snapshot, SnapshotError, TrainingPosition
from zoo.training.trainer import Trainer
from zoo.validation import FrozenModel, first_problem

TRAINING = "training.safetensors"
FORMAT: Literal[3] = 3
STILL_USED = "the run cannot be resumed, but it can still be used and exported"
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Saved(FrozenModel):
    """What stands beside the tensors of `training.safetensors`: enough, with them, to resume.

    `optimizer` is JSON (see `zoo.training.optimizer_state`); `metrics` is the last line of them and
    `best` that of the best weights; `text` is the SHA-256 of the tokens that are trained on;
    `sizes` are those of the files in APPENDED, in bytes.
    """

    format: Literal[3] = FORMAT
    position: TrainingPosition
    optimizer: str
    metrics: Metrics | None
    best: Metrics | None
    text: str
    sizes: dict[str, Annotated[int, Field(ge=0)]]

    @field_validator("sizes")
    @classmethod
    def _of_all(cls, sizes: dict[str, int]) -> dict[str, int]:
        if sizes.keys() != set(APPENDED):
            raise ValueError(f"they are not those of {' and '.join(APPENDED)}")
        return sizes


def write_training(snapshot: Snapshot, trainer: Trainer, run: Run, data: TrainingData) -> None:
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


def restore_training(
    trainer: Trainer, run: Run, data: TrainingData, *, prolong: bool = False
) -> TrainingPosition:
    """Takes the saved training over, perhaps to prolong it, and cuts off what was appended to the
    run's files after it. RunError, before any file is changed, for a folder without one, or one
    that is damaged or of another text."""
    path = run.path / TRAINING
    saved, snapshot = _read(path)
    if saved.text != data.fingerprint:
        raise RunError(
            f"{run.path} was trained on another text than {run.config.data.corpus_name} is now."
        )
    epoch, config = saved.position.epoch, run.config
    if epoch > (config.training.epochs or epoch) and not config.prolonged:
        raise _unfit(path, f"its position is epoch {epoch} of {config.training.epochs}")
    kept = {
        METRICS: kept_metrics(run.path, saved.sizes[METRICS], saved.metrics, trainer.outline),
        SAMPLES: kept_samples(run.path, saved.sizes[SAMPLES]),
    }
    try:
        trainer.restore(snapshot)
    except SnapshotError as error:
        raise _unfit(path, str(error)) from None
    position = trainer.prolong() if prolong else saved.position
    if trainer.processes.first:
        try:
            _remove_unfinished(run.path)
            for name, size in kept.items():
                _cut_off(run.path / name, size)
        except OSError as error:
            raise RunError(f"{run.path} cannot be written: {error.strerror}.") from None
    return position


def _unfit(path: Path, what: str) -> RunError:
    return RunError(f"{path} is damaged, or does not fit its config.json: {what}; {STILL_USED}.")


def _read(path: Path) -> tuple[Saved, Snapshot]:
    try:
        with safe_open(path, "pt") as file:
            saved = _read_saved(path, (file.metadata() or {}).get("zoo", ""))
            # copies, which do not need the file any more
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        optimizer = json.loads(saved.optimizer)
    except FileNotFoundError:
        raise RunError(f"{path.parent} cannot be resumed: it has no {TRAINING}.") from None
    except ValidationError as error:
        raise RunError(f"{path} is damaged: {first_problem(error)[:250]}; {STILL_USED}.") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {one_line(error, 200)}; {STILL_USED}.") from None
    return saved, Snapshot(tensors, optimizer, saved.position, saved.metrics, saved.best)


def _read_saved(path: Path, text: str) -> Saved:
    """ValidationError for a text that is damaged, RunError for one of another format."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise RunError(f"{path} was saved by another version of the zoo; {STILL_USED}.")
    return Saved.model_validate_json(text)


def _cut_off(path: Path, size: int) -> None:
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

"""Recording a training in its run folder, or in another when that is lost."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

from zoo.errors import RunError, ZooWarning
from zoo.files import filled_at_once, new_folder, write_atomically
from zoo.runs.metadata import METRICS
from zoo.runs.run import SAMPLES, Run, free_folder
from zoo.training.appended import APPENDED, AppendedFile
from zoo.training.checkpointing import TRAINING, resume_command, write_training
from zoo.training.data import TrainingData
from zoo.training.events import Event, Moved, Report, Sample
from zoo.training.snapshot import Snapshot
from zoo.training.trainer import Trainer


class Recorder:
    """Writes a run as it is trained: its metrics and samples as they come, and all that resuming
    needs by `save`. `run` is the run in the folder that it has now. Of several processes only the
    first writes."""

    def __init__(self, trainer: Trainer, run: Run, data: TrainingData) -> None:
        self.run, self._trainer, self._data = run, trainer, data
        self.first = trainer.processes.first
        self._home = run.path if run.path.name not in ("", "..") else run.path.resolve()
        self._files: dict[str, AppendedFile] = {}
        self._failing = False

    def __enter__(self) -> Self:
        if self.first:
            self._files = {name: AppendedFile(self.run.path / name) for name in APPENDED}
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, event: Event) -> None:
        """Appends what the event says. Where that fails, the next save does it."""
        if not self.first:
            return
        if isinstance(event, Report):
            self._files[METRICS].append(json.dumps(asdict(event.metrics)) + "\n")
        elif isinstance(event, Sample):
            self._files[SAMPLES].append(f"epoch {event.epoch}\n{event.text}\n\n")

    @property
    def lost(self) -> bool:
        """Whether the folder is gone, or another has taken its place."""
        return self.first and not any(file.there for file in self._files.values())

    @property
    def newly_lost(self) -> bool:
        """Whether that is so, and no save has told it."""
        return not self._failing and self.lost

    def save(self) -> Moved | None:
        """Saves where the training stands: in the run's folder, or in a new one, with a warning,
        where that is lost or cannot be written. RunError if nothing can; what was saved before
        stays. All processes come here at the same event."""
        snapshot = self._trainer.snapshot()
        if not self.first:
            return None
        try:
            if self.lost:
                raise RunError(f"{self.run.path} is gone, or another folder is in its place.")
            for file in self._files.values():
                file.complete()
            write_training(snapshot, self._trainer, self.run, self._data)
        except OSError as error:
            return self._move(snapshot, f"{self.run.path} cannot be written: {error.strerror}")
        except RunError as error:
            return self._move(snapshot, str(error).removesuffix("."))
        self._failing = False
        return None

    def save_or_go_on(self) -> Moved | None:
        """As `save`, but a warning takes the place of the error: the next save tries again."""
        try:
            return self.save()
        except RunError as error:
            if not self._failing:
                told = f"{error} Training goes on, and tries again at each save."
                warnings.warn(told, ZooWarning, stacklevel=2)
            self._failing = True
            return None

    def save_end(self) -> Moved | None:
        """As `save`; the error says what is left."""
        try:
            return self.save()
        except RunError as error:
            path = self.run.path
            left = f"; resume with: {resume_command(path)}" if (path / TRAINING).is_file() else "."
            told = f"{error} What was trained after the last save is lost{left}"
            raise RunError(told) from None

    def _move(self, snapshot: Snapshot, why: str) -> Moved:
        for path in _other_folders(self._home):
            with suppress(OSError, RunError):
                self._write_into(path, snapshot)
                break
        else:
            raise RunError(f"{why}; no other folder can be written either.")
        warnings.warn(f"{why}; the run goes on in {path}.", ZooWarning, stacklevel=3)
        self._failing = False
        return Moved(self.run)

    def _write_into(self, path: Path, snapshot: Snapshot) -> None:
        with new_folder(path), filled_at_once(path) as staging:
            for name, file in self._files.items():
                write_atomically(staging / name, file.content())
            write_training(snapshot, self._trainer, replace(self.run, path=staging), self._data)
        for name, file in self._files.items():
            file.follow(path / name)
        self.run = replace(self.run, path=path)


def _other_folders(home: Path) -> Iterator[Path]:
    """Where a run goes that cannot stay in the folder `home`: beside it, into the current folder,
    or into that for temporary files."""
    finders: tuple[Callable[[], str], ...] = (
        lambda: str(home.parent),
        lambda: os.curdir,
        tempfile.gettempdir,
    )
    for find in finders:
        with suppress(OSError):
            parent = Path(find())
            if parent.is_dir():
                yield free_folder(home.name, parent, first=2)

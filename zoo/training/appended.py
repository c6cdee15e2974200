"""The files of a run that training appends to: `metrics.jsonl` and `samples.txt`."""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from zoo.errors import RunError, one_line
from zoo.files import write_atomically
from zoo.runs.metadata import METRICS
from zoo.runs.run import SAMPLES
from zoo.training.metrics import Metrics
from zoo.training.snapshot import SnapshotError
from zoo.training.snapshot_check import Outline, check_figures
from zoo.validation import FrozenModel, first_problem

APPENDED = METRICS, SAMPLES


class AppendedFile:
    """A file that only grows. All of it is in memory too, compressed (a line of metrics takes some
    hundred bytes), so that it can be written again where the file is lost."""

    def __init__(self, path: Path) -> None:
        """RunError where it cannot be appended to."""
        self._path = path
        self._compressor, self._compressed, self._size = zlib.compressobj(), bytearray(), 0
        try:
            self._file = path.open("ab", buffering=0)
            self._remember(path.read_bytes())
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}.") from None

    def append(self, text: str) -> None:
        content = text.encode()
        self._remember(content)
        with suppress(OSError):  # the next save sees that it is not whole
            self._file.write(content)

    def _remember(self, content: bytes) -> None:
        self._compressed += self._compressor.compress(content)
        self._size += len(content)

    def content(self) -> bytes:
        return zlib.decompress(self._compressed + self._compressor.copy().flush())

    @property
    def there(self) -> bool:
        """Whether its path still leads to this file."""
        with suppress(OSError):
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        return False

    def complete(self) -> None:
        """Writes the file again if anything of it is missing. RunError where it cannot be."""
        if not self.there or os.fstat(self._file.fileno()).st_size != self._size:
            write_atomically(self._path, self.content())
            self.follow(self._path)

    def follow(self, path: Path) -> None:
        """Appends to `path` from now on, which has all of its content."""
        file = path.open("ab", buffering=0)
        self.close()
        self._path, self._file = path, file

    def close(self) -> None:
        with suppress(OSError):  # of a disk that is gone
            self._file.close()


class _Line(FrozenModel):
    metrics: Metrics


def kept_metrics(folder: Path, size: int, last: Metrics | None, outline: Outline) -> int:
    """How many bytes of `metrics.jsonl` stay when a training is resumed from a save at which it had
    `size`, and `last` as the last of the metrics. RunError for a file that is damaged."""
    path = folder / METRICS
    kept, lost = _kept(path, size, b"\n")
    before = 0
    for number, line in enumerate(kept.splitlines(), 1):
        try:
            metrics = _Line.model_validate({"metrics": json.loads(line)}).metrics
            check_figures(metrics, outline)
        except ValidationError as error:
            raise _damaged(path, f"line {number}: {first_problem(error)[:250]}") from None
        except (ValueError, RecursionError, SnapshotError) as error:
            raise _damaged(path, f"line {number}: {one_line(error, 150)}") from None
        if metrics.step <= before:
            raise _damaged(path, f"line {number} is not of a later step than the one before it")
        before = metrics.step
    saved = last.step if last is not None else 0
    if before > saved or (0 < before < saved and not lost):
        raise _damaged(path, f"its last line is of step {before}, and that of the save of {saved}")
    return len(kept)


def kept_samples(folder: Path, size: int) -> int:
    """The same of `samples.txt`."""
    kept, _ = _kept(folder / SAMPLES, size, b"\n\n")
    return len(kept)


def _kept(path: Path, size: int, end: bytes) -> tuple[bytes, bool]:
    """The first `size` bytes of a file whose entries have this end; or its whole entries, and True,
    where a power cut or its owner took more than that."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", True
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from None
    if len(content) < size:
        return content[: content.rfind(end) + len(end)] if end in content else b"", True
    if size and content[size - len(end) : size] != end:
        raise _damaged(path, f"no entry ends where the last save found its end, at byte {size}")
    return content[:size], False


def _damaged(path: Path, what: str) -> RunError:
    return RunError(f"{path} is damaged: {what}; move it away to continue without it.")

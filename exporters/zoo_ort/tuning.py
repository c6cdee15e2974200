"""Choosing threads and graph by measuring: no rule holds on every machine.

Where a model's weights fit into one core's cache a second thread only costs; where they do not it
brings its own cache. The speeds are kept in a file beside the exported one. Where nothing can be
kept there, the choice is by a rule.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort
from pydantic import Field, TypeAdapter, ValidationError

from zoo.config import FrozenModel
from zoo.inference.cpu import usable_cores

TIMINGS = "timings.json"
MAX_TIMINGS = 1000
ONE_CORES_CACHE = 2**21  # bytes; second-level caches are from half a megabyte to two
Speed = Callable[[Path, int], float]


class Timing(FrozenModel):
    """Tokens per second of a file, by its size and time of change, with that many threads."""

    file: str
    bytes: int
    changed: int
    threads: int = Field(ge=1, le=4096)
    machine: str
    tokens_per_second: float = Field(gt=0)


_TIMINGS = TypeAdapter(list[Timing])


def choose_threads(path: Path, speed: Speed) -> int:
    """One thread for a file that fits into a core's cache; else what was measured to be faster."""
    candidates = _candidates(path)
    if len(candidates) == 1:
        return candidates[0]
    speeds = _measure([path], speed)
    if speeds is None:
        return candidates[-1]
    return max(speeds, key=speeds.__getitem__)[1]


def choose_file(paths: Sequence[Path], speed: Speed) -> Path:
    """The file that generates fastest; the first, where nothing can be measured."""
    if len(paths) == 1:
        return paths[0]
    speeds = _measure(paths, speed)
    return paths[0] if speeds is None else max(speeds, key=speeds.__getitem__)[0]


def _candidates(path: Path) -> list[int]:
    """The numbers of threads that are worth a try."""
    fits = path.stat().st_size <= ONE_CORES_CACHE
    return [1] if fits else sorted({1, usable_cores()})


def _measure(paths: Sequence[Path], speed: Speed) -> dict[tuple[Path, int], float] | None:
    """Speeds by file and threads, measured now or before; None where they cannot be kept."""
    book = paths[0].with_name(TIMINGS)
    known = _read(book)
    found, new = {}, []
    for path in paths:
        for threads in _candidates(path):
            status = path.stat()
            key = Timing(
                file=path.name,
                bytes=status.st_size,
                changed=status.st_mtime_ns,
                threads=threads,
                machine=f"{platform.node()} {platform.machine()} ONNX Runtime {ort.__version__}",
                tokens_per_second=1,
            )
            timing = known.get(_identity(key))
            if timing is None:
                if not os.access(book.parent, os.W_OK):
                    return None
                rate = speed(path, threads)
                timing = key.model_copy(update={"tokens_per_second": rate})
                new.append(timing)
            found[path, threads] = timing.tokens_per_second
    if new:
        merged = {**known, **{_identity(timing): timing for timing in new}}
        _write(book, list(merged.values())[-MAX_TIMINGS:])
    return found


def _identity(timing: Timing) -> tuple[object, ...]:
    fields = timing.model_dump(exclude={"tokens_per_second"})
    return tuple(fields.values())


def _read(book: Path) -> dict[tuple[object, ...], Timing]:
    """What was measured before; a file that is damaged or not ours is as good as none."""
    with suppress(OSError, ValidationError):
        return {_identity(timing): timing for timing in _TIMINGS.validate_json(book.read_bytes())}
    return {}


def _write(book: Path, timings: list[Timing]) -> None:
    """Speeds can be measured again: a disk that is full is no reason to fail."""
    with suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=book.parent, prefix=f".{book.name}.")
        with os.fdopen(handle, "w") as file:
            json.dump([timing.model_dump() for timing in timings], file, indent=1)
        os.chmod(temporary, 0o644)
        os.replace(temporary, book)

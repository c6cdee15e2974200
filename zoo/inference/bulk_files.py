"""Bulk generation from a file into a file, which goes on where it was stopped. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from zoo.config import DEFAULT_BATCH_SIZE
from zoo.errors import RunError, UsageError
from zoo.files import write_atomically
from zoo.inference.bulk import (
    ERROR,
    LINE,
    LONGEST_LINE,
    TOKENS,
    Result,
    checked_settings,
    continue_records,
)
from zoo.inference.bulk_ray import ray_lines
from zoo.inference.ray_cluster import connected
from zoo.inference.runtime import Artifact, Source, Threads, open_source
from zoo.inference.urls import shown_source
from zoo.registry.registry import Registry

SETTINGS = ".settings.json"  # after the name of the output
PIECE_BYTES = 2**20


@dataclass(frozen=True)
class BulkSummary:
    """What was written: `lines`, `errors` of them without a text, and `tokens` in `seconds`.
    `earlier` lines were there before. `runs_on` names what computed."""

    lines: int
    errors: int
    tokens: int
    seconds: float
    earlier: int
    runs_on: str


def generate_file(
    source: str | Path,
    prompts: str | Path,
    out: str | Path,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    provider: str = "auto",
    runtime: str | None = None,
    threads: Threads = None,
    registry: Registry | None = None,
    ray: str | None = None,
    **settings: Any,
) -> BulkSummary:
    """Writes a result for each line of the JSON lines `prompts` to `out`, as soon as it is there:
    see `zoo.inference.bulk.generate_lines`, whose settings are taken.

    Called again with the same model, prompts and settings, it goes on after the results that `out`
    holds; a last line that was cut is written anew. Batch size, provider and threads may differ.
    Beside `out` a file of its name and ".settings.json" says what it is of. Raises UsageError where
    `out` holds something else, RunError for files that cannot be read or written.

    With `ray`, the address of a cluster, its actors compute, and results are written in the order
    of the lines: see `zoo.inference.bulk_ray.ray_lines`.
    """
    defaults = checked_settings(**settings)
    if batch_size < 1:
        raise UsageError(f"batch size must be at least 1 (got {batch_size}).")
    prompts, out = Path(prompts), Path(out)
    with _errors_about(prompts, "read"):
        if out.exists() and out.samefile(prompts):
            raise UsageError(f"{out} holds the prompts; choose another file for the results.")
        digest, count = _digest_and_lines(prompts)
    opened = open_source(source, provider, registry, runtime=runtime, threads=threads)
    opened.writer()
    made_of = {
        "source": shown_source(source),
        "model": _model_of(opened),
        "prompts": digest,
        **json.loads(json.dumps(defaults)),
    }
    with nullcontext() if ray is None else connected(ray):  # before anything is written
        with _errors_about(out, "written"):
            done = _begin(out, made_of, count)
        lines = errors = tokens = 0
        began = time.perf_counter()
        with _errors_about(prompts, "read"), prompts.open("rb") as file:
            records = ((number, line) for number, line in _lines(file) if number not in done)
            work = partial(continue_records, defaults=defaults, batch_size=batch_size)
            if ray is None:
                results = work(opened, records)
            else:
                results = ray_lines(
                    source, records, ray, work, provider=provider, runtime=runtime, threads=threads
                )
            with out.open("ab") as written:
                for result in results:
                    with _errors_about(out, "written"):
                        written.write(_as_line(result))
                        written.flush()
                    lines, tokens = lines + 1, tokens + result.get(TOKENS, 0)
                    errors += ERROR in result
        seconds = time.perf_counter() - began
    return BulkSummary(lines, errors, tokens, seconds, len(done), opened.runs_on)


class _Done:
    """Which lines have a result. As lines are taken in their order, few are missing before the last
    that has one, and only those are kept."""

    def __init__(self) -> None:
        self._last = 0
        self._missing: set[int] = set()

    def __len__(self) -> int:
        return self._last - len(self._missing)

    def __contains__(self, number: int) -> bool:
        return number <= self._last and number not in self._missing

    def add(self, number: int) -> None:
        self._missing.update(range(self._last + 1, number))
        self._missing.discard(number)
        self._last = max(self._last, number)


def _begin(out: Path, made_of: Mapping[str, Any], count: int) -> _Done:
    """The lines whose results `out` holds; it ends after a whole line then. A file that is empty or
    missing is begun."""
    settings = out.with_name(out.name + SETTINGS)
    if not out.exists() or not out.stat().st_size:
        if not out.parent.is_dir():
            raise UsageError(f"the folder {out.parent} does not exist; make it first.")
        write_atomically(settings, json.dumps(made_of, indent=2).encode())
        return _Done()
    try:
        before = json.loads(settings.read_bytes())
    except (FileNotFoundError, ValueError):
        before = None
    if not isinstance(before, dict):
        raise UsageError(
            f"{out} exists, and was not begun here ({settings.name} is missing or damaged); choose "
            f"another file."
        )
    if others := [name for name in made_of if before.get(name) != made_of[name]]:
        raise UsageError(
            f"{out} was begun with another {' and '.join(others)}; give the same, or choose "
            f"another file."
        )
    return _read_done(out, count)


def _read_done(out: Path, count: int) -> _Done:
    done, whole = _Done(), 0
    with out.open("r+b") as file:
        for position, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                number = json.loads(line)[LINE]
            except (ValueError, TypeError, KeyError, RecursionError):
                number = None
            if type(number) is not int or not 1 <= number <= count or number in done:
                raise UsageError(
                    f"{out}, line {position:,}, is no result of these prompts, or a second one; "
                    f"choose another file."
                )
            done.add(number)
            whole += len(line)
        file.truncate(whole)
    return done


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file; of one that is too long, its beginning, which is too long as
    well."""
    number = 0
    while line := file.readline(LONGEST_LINE + 2):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and rest:
            rest = file.readline(PIECE_BYTES)
        yield number, line.removesuffix(b"\n")


def _digest_and_lines(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file, and the number of its lines."""
    found, count, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            found.update(piece)
            count += piece.count(b"\n")
            last = piece[-1:]
    return found.hexdigest(), count + (last != b"\n")


def _model_of(opened: Source) -> str:
    """What changes when another model is at a source."""
    graph = f"{opened.info.graph} " if isinstance(opened, Artifact) else ""
    return graph + opened.fingerprint


def _as_line(result: Result) -> bytes:
    # half of a character, which JSON can spell, stays spelled
    return json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


@contextmanager
def _errors_about(path: Path, done: str) -> Iterator[None]:
    """Within the block an OSError is a RunError that says that `path` cannot be read or written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise RunError(f"{path} cannot be {done}: {reason}.") from None

"""What run folders say of themselves, read without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.config import RunConfig
from zoo.errors import RunError
from zoo.validation import read_settings

CONFIG, METRICS, PROGRESS = "config.json", "metrics.jsonl", "progress.json"


@dataclass(frozen=True)
class Record:
    """A run's settings, its metrics, and whether its training has come to its end (None for a model
    that was not trained here)."""

    path: Path
    config: RunConfig
    metrics: list[dict[str, Any]]
    finished: bool | None

    def best(self, figure: str) -> float | None:
        """The lowest that a figure of the metrics has been; None where it was never measured."""
        values = [line[figure] for line in self.metrics if line.get(figure) is not None]
        return min(values, default=None)

    def highest(self, figure: str) -> float | None:
        """The highest that a figure of the metrics has been."""
        values = [line[figure] for line in self.metrics if line.get(figure) is not None]
        return max(values, default=None)


def read_record(folder: Path) -> Record:
    """The record of one run. RunError for a folder that is none, or is damaged."""
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder} is not a run folder: it has no {CONFIG}.")
    finished = None
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        finished = json.loads((folder / PROGRESS).read_bytes()).get("finished")
    config = read_settings(RunConfig, folder / CONFIG)
    known = finished if isinstance(finished, bool) else None
    return Record(folder, config, read_metrics(folder), known)


def find_records(folder: Path) -> Iterator[Record]:
    """The records of the runs in a folder, by name; what is no run is passed over."""
    for path in sorted(folder.iterdir()):
        with suppress(RunError):
            yield read_record(path)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`. A last line that was cut off in writing is left out."""
    metrics = folder / METRICS
    if not metrics.is_file():
        return []
    whole_lines = metrics.read_text("utf-8", errors="replace").rpartition("\n")[0]
    try:
        lines = [json.loads(line) for line in whole_lines.splitlines()]
        sound = all(_is_figure(value) for line in lines for value in line.values())
    except (ValueError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise RunError(f"{metrics} is damaged; move it away to continue without it.")
    return lines


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)

"""The events of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from zoo.sweeps.table import Row
from zoo.training.events import Event


@dataclass(frozen=True)
class RunStarted:
    """A run starts, is resumed, or has already ended. It is for row `number` of `total`;
    its learning rate is `factor` times the one that the cell gets where none is looked for."""

    number: int
    total: int
    cell: str
    seed: int
    folder: Path
    factor: float = 1.0

    def at(self, factor: float) -> RunStarted:
        """The same with another factor, and a folder named after it."""
        if factor == 1.0:
            return self
        folder = self.folder.with_name(f"{self.folder.name}-rate-x{factor:g}")
        return replace(self, factor=factor, folder=folder)


@dataclass(frozen=True)
class TrialFinished:
    """The result of a run of the learning-rate search."""

    row: Row


@dataclass(frozen=True)
class MeasuringFailed:
    """A run has been trained, and what it costs (`measure`) could not be measured."""

    folder: Path
    reason: str


SweepEvent: TypeAlias = RunStarted | Event | TrialFinished | MeasuringFailed | Row

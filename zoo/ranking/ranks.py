"""What came of a cell's trials on a task: a row, its verdict, and the files of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError

from zoo.errors import RunError
from zoo.files import write_atomically
from zoo.validation import FrozenModel, first_problem

SOLVED = 0.95  # of the accuracy, or of the error without a memory
LEARNT = 0.1  # of what is left above the baseline: with less, a cell did not train
UNSTABLE = 1.5  # times the lowest loss, at the end of a training

Key: TypeAlias = tuple[str, str, int, str]
Verdict = Literal["solved", "partly", "did not train", "unstable", "failed"]


class Outcome(FrozenModel):
    """What the best of a cell's trainings gets on one test: the share that is right, or the mean
    squared error; and the best that is got without a memory (see `zoo.tasks.measure_baselines`)."""

    name: str
    accuracy: float | None = None
    error: float | None = None
    without_memory: float | None = None

    @property
    def score(self) -> float:
        """From 0 to 1: the accuracy, or the share of the error without memory that is gone."""
        if self.accuracy is not None:
            return self.accuracy
        if self.error is None or not self.without_memory:
            return 0.0
        return max(0.0, 1 - self.error / self.without_memory)

    @property
    def shown(self) -> str:
        """The share that is right, or the error, in a word or two."""
        return f"error {self.error:.2g}" if self.accuracy is None else f"{self.accuracy:.3f}"

    @property
    def learnt(self) -> float:
        """The share of what is left above the baseline."""
        if self.accuracy is None:
            return self.score
        base = self.without_memory or 0.0
        return (self.accuracy - base) / (1 - base) if base < 1 else 0.0


class Try(FrozenModel):
    """A training at one learning rate, `factor` times the cell's usual one: on how many batches,
    and the lowest and the last loss in validation, in bits for each answer or as a mean squared
    error; or what went wrong, and whether it was the loss, which was no longer finite."""

    factor: float
    learning_rate: float | None = None
    batches: int | None = None
    lowest: float | None = None
    last: float | None = None
    error: str = ""
    diverged: bool = False

    def is_unstable(self, scale: float = 1.0) -> bool:
        """Whether the loss rose again far above its lowest. `scale` is the loss of somebody who
        learns nothing: bits are of the size of 1, errors of any."""
        if self.lowest is None or self.last is None:
            return self.diverged
        return self.last > UNSTABLE * self.lowest + 0.1 * scale


class RankRow(FrozenModel):
    """A cell, a task and a seed: a line of `rank.jsonl`.

    `cell` has its options behind its name, as "deltanet:heads=2". `size` is what is equal in all
    models that are compared: a number of parameters, or of bytes of state. Each of `tries` was a
    training on so many `batches`, less where the loss was low enough before, or above that of
    another rate; `sequences` and `seconds` are those of all that did not diverge. What follows is
    of the one with the lowest loss in validation: `curve` has its validation by the batches of
    training, as shares that are right or mean squared errors. `verdict` says what came of it, and
    `evidence` why. `command` makes the row again.
    """

    task: str
    cell: str
    seed: int
    size: str
    layers: int
    batches: int
    hidden: int | None = None
    parameters: int | None = None
    state_bytes: int | None = None
    year: int | None = None
    tries: tuple[Try, ...]
    sequences: int = 0
    seconds: float = 0.0
    learning_rate: float | None = None
    tests: tuple[Outcome, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    verdict: Verdict
    evidence: str = ""
    command: str

    @property
    def key(self) -> Key:
        """What makes it another row."""
        return self.task, self.cell, self.seed, self.size

    @property
    def score(self) -> float | None:
        """That of the first test, which is as training is; None where nothing was trained."""
        return self.tests[0].score if self.tests else None

    @property
    def beyond(self) -> float | None:
        """That of the second test: longer, or with more to keep."""
        return self.tests[1].score if len(self.tests) > 1 else None


def judge(tries: Sequence[Try], tests: Sequence[Outcome]) -> tuple[Verdict, str]:
    """The verdict on a cell, and its evidence in a sentence."""
    first = tests[0] if tests else Outcome(name="")
    if first.score >= SOLVED:
        return "solved", ""
    scale = 1.0 if first.error is None else first.without_memory or 0.0
    if all(each.is_unstable(scale) for each in tries):
        return "unstable", f"its loss rose again at every rate: {'; '.join(map(_told, tries))}"
    if not tests:
        return "failed", next(each.error for each in tries if each.error and not each.diverged)
    if first.learnt < LEARNT:
        value = first.accuracy if first.accuracy is not None else first.error
        rates = ", ".join(f"{each.learning_rate:.2g}" for each in tries)
        return "did not train", (
            f"{value:.3g} at the best of the rates {rates}; without a memory "
            f"{first.without_memory:.3g}"
        )
    return "partly", ""


def _told(each: Try) -> str:
    if each.lowest is None:
        return f"{each.learning_rate:.2g}, no longer finite"
    return f"{each.learning_rate:.2g}, {each.lowest:.2g} to {each.last:.2g}"


def read_ranks(path: Path) -> list[RankRow]:
    """The rows of a `rank.jsonl`; none where it is missing. RunError if it is damaged."""
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        try:
            rows.append(RankRow.model_validate_json(line))
        except ValidationError as error:
            raise RunError(f"{path} is damaged, line {number}: {first_problem(error)}") from None
    return rows


def write_ranks(rows: Iterable[RankRow], path: Path) -> None:
    """Writes a `rank.jsonl`."""
    content = "".join(f"{row.model_dump_json(exclude_defaults=True)}\n" for row in rows)
    write_atomically(path, content.encode())


def write_table(rows: Iterable[RankRow], path: Path) -> None:
    """Writes the rows as a CSV table: a line for each test."""
    content = io.StringIO()
    names = ("task", "cell", "seed", "size", "hidden", "parameters", "state_bytes", "batches",
             "sequences", "seconds", "learning_rate", "test", "accuracy", "error",
             "without_memory", "verdict", "evidence", "command")  # fmt: skip
    writer = csv.DictWriter(content, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shared = {name: getattr(row, name, None) for name in names}
        for each in row.tests or (Outcome(name=""),):
            writer.writerow({**shared, **each.model_dump(exclude={"name"}), "test": each.name})
    write_atomically(path, content.getvalue().encode())

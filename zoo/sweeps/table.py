"""The table of a sweep: a row for each run."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from zoo.benchmarking.run_costs import Measured
from zoo.errors import RunError
from zoo.files import write_atomically
from zoo.validation import FrozenModel, first_problem

TABLE = "sweep.csv"
MEASURED = tuple(Measured.__annotations__)


class Row(FrozenModel):
    """A cell and a seed of a sweep: a line of `sweep.csv`.

    `learning_rate` is the highest of the run, `rate_factor` times the cell's usual one; where rates
    were searched, the best. `tokens` and `seconds` are those of the training, seconds with the
    measuring on the held-out part; `tokens_per_second`, without, is the median of the lines of
    metrics. The bits per character are the lowest of the held-out part, and the last of the
    training; for a cell that is not `causal` they are of the masked tokens, and compare only with
    those of other non-causal cells. `state_bytes` are those of one stream. What is measured
    afterwards (see `zoo.benchmarking.run_costs.Measured`) is there for a cell's first run, where it
    was asked for. Of a task there is the highest accuracy or the lowest error in validation, and no
    bits per character. `year` is that of the paper, `run` the run's folder within that of the
    sweep. Of a run that failed, `error` says how, and there are no figures.
    """

    cell: str
    seed: int
    causal: bool
    hidden: int | None = None
    layers: int | None = None
    parameters: int | None = None
    learning_rate: float | None = None
    rate_factor: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    held_out_bits_per_char: float | None = None
    train_bits_per_char: float | None = None
    training_tokens_per_second: float | None = None
    generate_tokens_per_second: float | None = None
    generate_int8_tokens_per_second: float | None = None
    state_bytes: int | None = None
    file_bytes: int | None = None
    file_int8_bytes: int | None = None
    year: int | None = None
    held_out_bits_per_token: float | None = None
    held_out_accuracy: float | None = None
    held_out_error: float | None = None
    run: str
    error: str = ""

    @property
    def judged(self) -> float:
        """What is to be low: bits of the held-out part, by character or else by token, or the
        error there; infinite where there is none."""
        found = (self.held_out_bits_per_char, self.held_out_bits_per_token, self.held_out_error)
        return next((value for value in found if value is not None), math.inf)


class Figure(NamedTuple):
    """A column that tells how good a cell is, in words, and how its numbers are written."""

    column: str
    label: str
    form: str
    high: bool = False

    def of(self, row: Row) -> str | None:
        """The number of a row as text."""
        value = getattr(row, self.column)
        return None if value is None else self.form.format(value)


FIGURES = (
    Figure("held_out_bits_per_char", "bits per character, held-out text", "{:.3f}"),
    Figure("train_bits_per_char", "bits per character, training", "{:.3f}"),
    Figure("held_out_accuracy", "accuracy in validation", "{:.1%}", high=True),
    Figure("held_out_error", "mean squared error in validation", "{:.3g}"),
)


def figure_of(rows: Iterable[Row]) -> Figure:
    """The column that tells how good cells are: the first that some row has."""
    known = list(rows)
    return next(
        (f for f in FIGURES if any(getattr(row, f.column) is not None for row in known)), FIGURES[0]
    )


def is_measured(row: Row) -> bool:
    """Whether all that `--measure` measures is there."""
    return all(getattr(row, name) is not None for name in MEASURED)


def read_rows(path: Path) -> list[Row]:
    """The rows of a `sweep.csv`; none where it is missing. RunError if it is damaged."""
    if not path.is_file():
        return []
    lines = csv.DictReader(io.StringIO(path.read_text("utf-8", errors="replace")))
    try:
        return [
            Row.model_validate({key: value for key, value in line.items() if value})
            for line in lines
        ]
    except (ValidationError, csv.Error) as error:
        said = first_problem(error) if isinstance(error, ValidationError) else error
        raise RunError(f"{path} is damaged: {said}") from None


def read_rate_factors(path: Path) -> dict[str, float]:
    """How many times its usual learning rate each cell had in a sweep, given by its folder or its
    table. RunError for one that does not tell."""
    table = path / TABLE if path.is_dir() else path
    factors = {row.cell: row.rate_factor for row in read_rows(table) if row.rate_factor is not None}
    if not factors:
        raise RunError(
            f"{path} tells no learning rates; give the folder of a sweep or its {TABLE}."
        )
    return factors


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Writes a `sweep.csv`; a figure that is None is an empty field."""
    content = io.StringIO()
    writer = csv.DictWriter(content, list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    write_atomically(path, content.getvalue().encode())

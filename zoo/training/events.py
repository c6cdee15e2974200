"""What the trainer yields: progress, metrics, samples, the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from zoo.runs.run import Run
from zoo.training.data import Described
from zoo.training.metrics import Metrics
from zoo.training.snapshot import TrainingPosition

NOT_DESCRIBED = Described("", "")


@dataclass(frozen=True)
class Opened:
    """The first of a training: its settings are right, and its text is about to be read, which
    takes long for a large one that was not read before."""

    corpus: str


@dataclass(frozen=True)
class Started:
    """What is about to be trained, and where its files go; `resumed` is where it continues, None
    for a new run. `data` says in words what it is trained on. A task has no end: its
    `train_tokens` are 0."""

    run: Run
    device: str
    train_tokens: int
    held_out_tokens: int
    resumed: TrainingPosition | None = None
    data: Described = NOT_DESCRIBED


@dataclass(frozen=True)
class Progress:
    """Several times a second: the share that is done, and figures since the last Report. A task
    that asks for numbers has an error (mean squared) in the place of a perplexity."""

    fraction: float
    epoch: int
    perplexity: float | None
    tokens_per_second: float
    seconds_left: float
    error: float | None = None


@dataclass(frozen=True)
class Report:
    """At the end of each epoch; of long epochs, every `report_every` windows instead."""

    metrics: Metrics


@dataclass(frozen=True)
class Sample:
    """What the model generates after the prompt; `text` begins with it. A non-causal model shows
    the beginning of the text with every seventh token masked and predicted."""

    epoch: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The end. `metrics` are those of the weights that were kept; `early` says that training
    ended by early stopping, before its budget."""

    metrics: Metrics
    early: bool = False


@dataclass(frozen=True)
class Moved:
    """The folder of the run was lost or can no longer be written, and the run goes on in another.
    Of several processes the first has this event."""

    run: Run


@dataclass(frozen=True)
class Stopped:
    """Training was stopped on request, after a whole step."""


@dataclass(frozen=True)
class Ended:
    """The last: everything is saved. How many seconds each phase took: "reading" the text, which
    includes encoding it, "starting", "training", "evaluating" and "saving"."""

    phases: Mapping[str, float]


Event: TypeAlias = (
    Opened | Started | Progress | Report | Sample | Moved | Finished | Stopped | Ended
)

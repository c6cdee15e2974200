"""What the trainer yields: progress, metrics, samples, the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from zoo.runs.run import Run
from zoo.training.metrics import Metrics
from zoo.training.snapshot import TrainingPosition


@dataclass(frozen=True)
class Started:
    """What is about to be trained, and where its files go; `resumed` is where it continues, None
    for a new run."""

    run: Run
    device: str
    train_tokens: int
    held_out_tokens: int
    resumed: TrainingPosition | None = None


@dataclass(frozen=True)
class Progress:
    """Several times a second: the share that is done, and figures since the last Report."""

    fraction: float
    epoch: int
    perplexity: float
    tokens_per_second: float
    seconds_left: float


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
class Stopped:
    """Training was stopped on request, after a whole step."""


Event: TypeAlias = Started | Progress | Report | Sample | Finished | Stopped

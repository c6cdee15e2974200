"""What a model can be trained on: the protocol of texts and tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from zoo.config import Interface, RunConfig, TrainConfig
from zoo.data.batches import Window
from zoo.data.tokenizer import Tokenizer
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.training.distributed import Processes
from zoo.training.evaluation import Scores
from zoo.training.objectives import Objective


class Described(NamedTuple):
    """The data in words: what it is, and what one window of a training is."""

    what: str
    windows: str


class TrainingData(Protocol):
    """What a model is trained and validated on.

    `name` is the beginning of a run's folder. `tokenizer` is None where there is no text, and
    `end_of_text` its token at the end of a document, if it has one. `fingerprint` changes with the
    data. `train_tokens` and `held_out_tokens` say how much there is; 0 of what has no end, or is
    not there. `seconds` is how long reading took.
    """

    @property
    def name(self) -> str: ...

    @property
    def interface(self) -> Interface: ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    @property
    def end_of_text(self) -> int | None: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def train_tokens(self) -> int: ...

    @property
    def held_out_tokens(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def figures(self) -> frozenset[str]:
        """The names of the metrics that `measure` gives."""

    def settle(self, config: RunConfig) -> RunConfig:
        """The settings with everything that the data decides written out. UsageError for one that
        has no effect on it."""

    def choose(
        self,
        config: RunConfig,
        device: torch.device,
        processes: Processes,
        registry: Registry,
        parameters: int | None = None,
    ) -> dict[str, Any]:
        """A value for every setting that can be left open, given those that were not.
        `parameters` is the size of the model, where another than the config's is meant."""

    def objective(self, model: LanguageModel) -> Objective:
        """What the model is trained to predict."""

    def windows(self, config: TrainConfig) -> tuple[int, int]:
        """How many windows an epoch has at least, and at most. CorpusError where there is none."""

    def window_tokens(self, config: TrainConfig) -> tuple[int, float]:
        """How many tokens a window has at least, and at most."""

    def epoch(self, config: TrainConfig, rng: np.random.Generator, first: int) -> Iterator[Window]:
        """The windows of an epoch but the `first`; the same for a generator in the same state."""

    def evaluate(
        self,
        model: LanguageModel,
        config: TrainConfig,
        processes: Processes,
        steps: int | None,
        seconds: float,
    ) -> Scores | None:
        """How good the model is on what is held out, None without any: on at most so many steps of
        each row, and in about so many seconds."""

    def measure(self, loss: float, scores: Scores | None) -> dict[str, float | None]:
        """The figures of a training that depend on its loss, by their names in Metrics."""

    def sample(self, model: LanguageModel, prompt: str) -> str | None:
        """What the model says after the prompt; None where there is nothing to show."""

    def describe(self, config: RunConfig) -> Described:
        """The data in words, for people."""

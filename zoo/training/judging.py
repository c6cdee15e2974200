"""How good the weights of a training are at each report, and which of them a user gets."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from zoo.config import TrainConfig
from zoo.errors import DivergedError
from zoo.models.language_model import LanguageModel
from zoo.training.averaging import Average
from zoo.training.clock import Clock
from zoo.training.data import TrainingData
from zoo.training.distributed import Processes
from zoo.training.evaluation import Scores
from zoo.training.metrics import Metrics
from zoo.training.snapshot import TrainingPosition


class Judge:
    """Evaluates the weights that are judged, a model's own or their running average, and keeps the
    best of them if the settings say so. `last` are the latest metrics, `best` those of the best
    weights."""

    def __init__(
        self,
        model: LanguageModel,
        data: TrainingData,
        config: TrainConfig,
        processes: Processes,
        clock: Clock,
    ) -> None:
        self._model, self._data, self._config = model, data, config
        self._processes, self._clock = processes, clock
        self.average = None if config.ema is None else Average(model, config.ema)
        self.last: Metrics | None = None
        self.best: Metrics | None = None
        self.best_weights: dict[str, Tensor] = {}

    def evaluate(self, steps: int | None) -> Scores | None:
        """On what is held out, at most so many steps of each row; None without it."""
        began = time.monotonic()
        with self._judged_weights():
            scores = self._data.evaluate(
                self._model,
                self._config,
                self._processes,
                steps,
                self._clock.longest_evaluation(first=steps is None),
            )
        self._clock.evaluated(time.monotonic() - began)
        return scores

    def judge(
        self,
        position: TrainingPosition,
        nats_per_token: float,
        scores: Scores | None,
        tokens_per_second: float,
        learning_rate: float,
    ) -> bool:
        """Puts the figures of a report together; whether they are the best so far, whose weights
        are then kept. DivergedError where the loss is no longer finite."""
        if not math.isfinite(nats_per_token + (scores.nats_per_token if scores else 0.0)):
            raise DivergedError(
                f"the loss is no longer finite at step {position.step}; lower "
                f"--learning-rate or --clip."
            )
        self.last = Metrics(
            epoch=position.epoch,
            step=position.step,
            tokens=position.tokens,
            seconds=position.seconds,
            tokens_per_second=tokens_per_second,
            learning_rate=learning_rate,
            **self._data.measure(nats_per_token, scores),
        )
        if self.best is not None and self.last.judged >= self.best.judged:
            return False
        self.best = self.last
        if self._config.keep == "best":
            weights = self._judged_dict()
            self.best_weights = {name: leaf.detach().clone() for name, leaf in weights.items()}
        return True

    def kept_metrics(self) -> Metrics:
        """Those of `kept_weights`."""
        metrics = self.best if self._config.keep == "best" else self.last
        assert metrics is not None
        return metrics

    def kept_weights(self) -> dict[str, Tensor]:
        """The weights that a user gets: the best, or the last, as the settings say."""
        return self.best_weights or self._judged_dict()

    def sample(self, prompt: str, *, kept: bool) -> str | None:
        """What the weights write that are judged; if they are in the model already, those that are
        `kept`. None where there is nothing to show."""
        with nullcontext() if kept else self._judged_weights():
            return self._data.sample(self._model, prompt)

    def restore(
        self,
        last: Metrics | None,
        best: Metrics | None,
        best_weights: Mapping[str, Tensor],
        average: Mapping[str, Tensor],
    ) -> None:
        """Takes over what was saved."""
        device = next(self._model.parameters()).device
        self.last, self.best = last, best
        self.best_weights = {name: leaf.to(device) for name, leaf in best_weights.items()}
        if self.average is not None:
            self.average.load(average)

    def _judged_weights(self) -> AbstractContextManager[None]:
        """A block in which the model has the weights that are judged."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _judged_dict(self) -> dict[str, Tensor]:
        average = {} if self.average is None else self.average.weights
        return {**self._model.state_dict(), **average}

"""A task as what a model is trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from zoo.config import DataConfig, Interface, RunConfig, TrainConfig
from zoo.data.batches import Window
from zoo.data.tokenizer import Tokenizer
from zoo.errors import UsageError
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.tasks.named import VALIDATION_BATCHES, VALIDATION_ROWS, NamedTask
from zoo.tasks.task import Batch
from zoo.training.data import Described
from zoo.training.defaults import choose_for_task
from zoo.training.distributed import Processes
from zoo.training.evaluation import Scores, evaluate_batches, perplexity
from zoo.training.objectives import GivenTargets, Objective

EPOCH = 100  # batches
BASES = 2**62  # of which each epoch draws one
NUMBERS = "train_error", "held_out_error"
CLASSES = (
    "train_perplexity",
    "train_bits_per_token",
    "held_out_perplexity",
    "held_out_bits_per_token",
    "held_out_accuracy",
)
OF_TEXTS = (*DataConfig.model_fields.keys() - {"corpus"}, "prompt", "sample_every")


@dataclass(frozen=True)
class TaskData:
    """See `zoo.training.data.TrainingData`."""

    named: NamedTask
    tokenizer: Tokenizer | None = None
    end_of_text: int | None = None
    train_tokens: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.named.spec.name

    @property
    def interface(self) -> Interface:
        return self.named.task.interface

    @cached_property
    def fingerprint(self) -> str:
        return self.named.fingerprint

    @cached_property
    def held_out_tokens(self) -> int:
        return sum(int(batch.asked.sum()) for batch in self.named.validation())

    @cached_property
    def validation(self) -> list[Window]:
        """What is held out, drawn once."""
        return [_window(batch) for batch in self.named.validation()]

    @property
    def asks_numbers(self) -> bool:
        return self.interface.gives == "numbers"

    @property
    def figures(self) -> frozenset[str]:
        return frozenset(NUMBERS if self.asks_numbers else CLASSES)

    def settle(self, config: RunConfig) -> RunConfig:
        for name in OF_TEXTS:
            given = config.data if name in DataConfig.model_fields else config.training
            if name in given.model_fields_set:
                raise UsageError(
                    f"--{name.replace('_', '-')} has no effect on a task; leave it out."
                )
        if config.training.compile or config.training.cuda_graph:
            raise UsageError(
                "--compile and --cuda-graph need windows of one length, which a task does not have."
            )
        model = config.model.model_copy(update={"mask_token": False})
        training = config.training.model_copy(update={"prompt": ""})
        changes = {"model": model, "training": training, "interface": self.interface}
        return config.model_copy(update=changes)

    def choose(
        self,
        config: RunConfig,
        device: torch.device,
        processes: Processes,
        registry: Registry,
        parameters: int | None = None,
    ) -> dict[str, Any]:
        return choose_for_task(config, self.interface, registry)

    def objective(self, model: LanguageModel) -> Objective:
        return GivenTargets()

    def windows(self, config: TrainConfig) -> tuple[int, int]:
        return EPOCH, EPOCH

    def window_tokens(self, config: TrainConfig) -> tuple[int, float]:
        return config.batch_size, math.inf

    def epoch(self, config: TrainConfig, rng: np.random.Generator, first: int) -> Iterator[Window]:
        base = int(rng.integers(BASES))
        for index in range(first, EPOCH):
            yield _window(self.named.training(base, index, config.batch_size))

    def evaluate(
        self,
        model: LanguageModel,
        config: TrainConfig,
        processes: Processes,
        steps: int | None,
        seconds: float,
    ) -> Scores | None:
        return evaluate_batches(model, self.validation, processes, whole=self.named.task.whole)

    def measure(self, loss: float, scores: Scores | None) -> dict[str, float | None]:
        assert scores is not None
        if self.asks_numbers:
            return {"train_error": loss, "held_out_error": scores.nats_per_token}
        return {
            "train_perplexity": perplexity(loss),
            "train_bits_per_token": loss / math.log(2),
            "held_out_perplexity": perplexity(scores.nats_per_token),
            "held_out_bits_per_token": scores.nats_per_token / math.log(2),
            "held_out_accuracy": scores.accuracy,
        }

    def sample(self, model: LanguageModel, prompt: str) -> str | None:
        return None

    def describe(self, config: RunConfig) -> Described:
        interface, rows = self.interface, config.training.batch_size
        lengths = ", ".join(
            f"{name} {value if isinstance(value, int) else f'{value[0]} to {value[1]}'}"
            for name, value in self.named.task.training.items()
        )
        return Described(
            f"{self.named.name}: {interface.inputs} {interface.reads} in, {interface.outputs} "
            f"{interface.gives} out, {VALIDATION_BATCHES * VALIDATION_ROWS} sequences for "
            f"validation",
            f"{EPOCH} batches of {rows} new sequences in each epoch ({lengths})",
        )


def _window(batch: Batch) -> Window:
    counted = None if batch.counted is None else torch.from_numpy(batch.counted)
    inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    return Window(inputs, targets, fresh=True, counted=counted)

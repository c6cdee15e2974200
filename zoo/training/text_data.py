"""A text as what a model is trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zoo.config import DEFAULT_VOCAB, Interface, RunConfig, TrainConfig
from zoo.data.batches import BATCHES, Window, most_windows, windows_per_epoch
from zoo.data.dataset import Dataset
from zoo.data.sources import STANDARD_INPUT
from zoo.data.tokenizer import Tokenizer
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.training.data import Described
from zoo.training.defaults import choose_for_text
from zoo.training.distributed import Processes
from zoo.training.evaluation import Scores, evaluate, perplexity, sample
from zoo.training.objectives import Objective, choose_objective

TRAINING = "train_perplexity", "train_bits_per_token", "train_bits_per_char"
HELD_OUT = (
    "held_out_perplexity",
    "held_out_bits_per_token",
    "held_out_bits_per_char",
    "held_out_accuracy",
)


@dataclass(frozen=True)
class TextData:
    """See `zoo.training.data.TrainingData`."""

    dataset: Dataset

    @property
    def name(self) -> str:
        return self.dataset.corpus.name

    @property
    def tokenizer(self) -> Tokenizer:
        return self.dataset.tokenizer

    @property
    def interface(self) -> Interface:
        return Interface.of_text(self.tokenizer.vocab_size)

    @property
    def end_of_text(self) -> int | None:
        return self.tokenizer.end_of_text

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    @property
    def train_tokens(self) -> int:
        return len(self.dataset.train)

    @property
    def held_out_tokens(self) -> int:
        return len(self.dataset.held_out)

    @property
    def seconds(self) -> float:
        return self.dataset.seconds

    @property
    def figures(self) -> frozenset[str]:
        return frozenset((*TRAINING, *(HELD_OUT if self.held_out_tokens else ())))

    def settle(self, config: RunConfig) -> RunConfig:
        training_ = config.training.model_copy(
            update={"prompt": config.training.prompt or self.dataset.corpus.prompt}
        )
        vocab = config.data.vocab or (DEFAULT_VOCAB if self.tokenizer.learned else None)
        data_ = config.data.model_copy(update={"tokenizer": self.tokenizer.kind, "vocab": vocab})
        return config.model_copy(update={"training": training_, "data": data_})

    def choose(
        self,
        config: RunConfig,
        device: torch.device,
        processes: Processes,
        registry: Registry,
        parameters: int | None = None,
    ) -> dict[str, Any]:
        return choose_for_text(config, self.dataset, device, processes, registry, parameters)

    def objective(self, model: LanguageModel) -> Objective:
        return choose_objective(model)

    def windows(self, config: TrainConfig) -> tuple[int, int]:
        sizes = self.train_tokens, config.batch_size, config.steps
        return windows_per_epoch(*sizes), most_windows(*sizes)

    def window_tokens(self, config: TrainConfig) -> tuple[int, float]:
        size = config.batch_size * config.steps
        return size, size

    def epoch(self, config: TrainConfig, rng: np.random.Generator, first: int) -> Iterator[Window]:
        cut = BATCHES[config.batches]
        return cut(self.dataset.train, config.batch_size, config.steps, rng, first)

    def evaluate(
        self,
        model: LanguageModel,
        config: TrainConfig,
        processes: Processes,
        steps: int | None,
        seconds: float,
    ) -> Scores | None:
        if not self.held_out_tokens:
            return None
        end = self.end_of_text if self.objective(model).carries_state else None
        return evaluate(
            model,
            self.dataset.held_out,
            config.evaluation_tokens,
            processes,
            end=end,
            steps=steps,
            seconds=seconds,
        )

    def measure(self, loss: float, scores: Scores | None) -> dict[str, float | None]:
        bits = loss / math.log(2)
        found: dict[str, float | None] = {
            "train_perplexity": perplexity(loss),
            "train_bits_per_token": bits,
            "train_bits_per_char": bits / self.dataset.train_chars_per_token,
        }
        if scores is not None:
            bits = scores.nats_per_token / math.log(2)
            found["held_out_perplexity"] = perplexity(scores.nats_per_token)
            found["held_out_bits_per_token"] = bits
            found["held_out_bits_per_char"] = bits / self.dataset.held_out_chars_per_token
            found["held_out_accuracy"] = scores.accuracy
        return found

    def sample(self, model: LanguageModel, prompt: str) -> str | None:
        return sample(model, self.dataset, prompt)

    def describe(self, config: RunConfig) -> Described:
        corpus = config.data.corpus_name
        if corpus == STANDARD_INPUT:
            corpus = "standard input"
        held_out = f"{self.held_out_tokens:,}" if self.held_out_tokens else "none"
        training = config.training
        return Described(
            f"{corpus}: {self.train_tokens:,} tokens to train on, {held_out} for validation, "
            f"tokenizer {config.data.tokenizer}, vocabulary {self.tokenizer.vocab_size:,}",
            f"{training.batches} windows of {training.steps} steps × {training.batch_size} rows",
        )

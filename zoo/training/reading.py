"""From the name of what a model is trained on to its data."""

from __future__ import annotations

from collections.abc import Callable

from zoo.config import DataConfig
from zoo.data.corpora import Corpus
from zoo.data.dataset import read_dataset
from zoo.data.tokenizer import Tokenizer
from zoo.errors import UsageError
from zoo.registry.registry import Registry
from zoo.tasks.named import find_task, is_task
from zoo.training.data import TrainingData
from zoo.training.task_data import TaskData
from zoo.training.text_data import TextData


def read_data(
    config: DataConfig,
    registry: Registry,
    known: Tokenizer | Callable[[Corpus], Tokenizer] | None = None,
) -> TrainingData:
    """The task that the name of the corpus begins to say ("task:NAME"), or else the text (see
    `zoo.data.read_dataset`). UsageError for a task among several texts."""
    if not any(map(is_task, config.corpora)):
        return TextData(read_dataset(config, registry, known))
    if len(config.corpora) > 1:
        raise UsageError("a task is trained on alone; give one name.")
    return TaskData(find_task(config.corpora[0], registry))

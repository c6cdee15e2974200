"""Word models for the recurrent zoo: everything around the cell, brought by one plugin."""

from __future__ import annotations

from collections.abc import Iterable

import zoo
from zoo.registry import LoggerSpec, OptimizerSpec, RecipeSpec, ScheduleSpec, TokenizerSpec


@zoo.hookimpl
def zoo_tokenizers() -> Iterable[TokenizerSpec]:
    return [TokenizerSpec("words", "words.tokenizer:WordTokenizer", "words and what is between")]


@zoo.hookimpl
def zoo_optimizers() -> Iterable[OptimizerSpec]:
    return [OptimizerSpec("lion", "words.optimizer:lion", "the sign of a moving average")]


@zoo.hookimpl
def zoo_schedules() -> Iterable[ScheduleSpec]:
    return [ScheduleSpec("linear", "words.optimizer:linear", "a line down to 0")]


@zoo.hookimpl
def zoo_loggers() -> Iterable[LoggerSpec]:
    return [LoggerSpec("csv", "words.logger:write_csv", "figures.csv in the run folder")]


@zoo.hookimpl
def zoo_recipes() -> Iterable[RecipeSpec]:
    return [RecipeSpec("small-words", "words.recipes")]

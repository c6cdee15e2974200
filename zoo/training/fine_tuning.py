"""Training on from another run: its weights in a new model, which may have more characters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.config import DataConfig, ModelConfig, RunConfig
from zoo.data.corpora import load_corpus
from zoo.data.dataset import reading_of, unknown_characters
from zoo.data.tokenizer import Tokenizer
from zoo.errors import UsageError, ZooWarning
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.runs.run import Run

OPEN = {"dropout"}  # settings of the model that a run does not fix


class Base(NamedTuple):
    """The run to begin with, and whether its vocabulary may grow."""

    run: Run
    extend: bool

    def settle(self, config: RunConfig) -> RunConfig:
        """The settings with the model of the run. UsageError where they ask for another."""
        given = [*(config.model.model_fields_set - OPEN)]
        given += [name for name in ("tokenizer", "vocab") if name in config.data.model_fields_set]
        if config.recipe is not None or given:
            wrong = "--recipe" if config.recipe is not None else f"--{sorted(given)[0]}"
            raise UsageError(
                f"--from takes the model and the tokenizer from the run; leave out "
                f"{wrong.replace('_', '-').replace('--options', '--option')}."
            )
        same = {
            name: getattr(self.run.config.model, name)
            for name in ModelConfig.model_fields
            if name not in OPEN
        }
        mine = {name: getattr(config.model, name) for name in OPEN & config.model.model_fields_set}
        documents = self.run.tokenizer.documents
        if config.data.documents and not documents:
            raise UsageError("--documents: the run's tokenizer has no token for their end.")
        return config.model_copy(
            update={
                "model": ModelConfig(**same, **mine),
                "data": config.data.model_copy(update={"documents": documents}),
                "training": config.training.model_copy(update={"from_run": str(self.run.path)}),
            }
        )

    def tokenizer_for(self, config: DataConfig, registry: Registry) -> Tokenizer:
        """The run's tokenizer, extended if that is wanted; otherwise a ZooWarning names what it
        does not know."""
        known = self.run.tokenizer
        corpus = load_corpus(config.corpus, registry, reading_of(config))
        new = unknown_characters(corpus, known)
        if not new:
            return known
        if self.extend:
            return known.extended(new)
        shown = new if len(new) <= 10 else new[:10] + "…"
        warnings.warn(
            f"{len(new)} characters of {config.corpus_name} are not in the vocabulary of the run, "
            f"and become <unk>: {shown!r}; --extend-vocabulary gives them tokens",
            ZooWarning,
            stacklevel=2,
        )
        return known


def take_weights(
    model: LanguageModel, weights: Mapping[str, Tensor], before: Tokenizer, after: Tokenizer
) -> None:
    """Gives the model the weights of one whose tokenizer was `before`. Where its own has more
    characters, the weights of their inputs and outputs stay as they were initialized. UsageError
    for a cell whose weights do not tell its inputs apart."""
    entries = {
        before.vocab_size: _positions(before, after, masked=False),
        before.vocab_size + 1: _positions(before, after, masked=True),
    }
    with torch.no_grad():
        for name, own in model.state_dict().items():
            given = weights[name]
            if own.shape == given.shape:
                own.copy_(given)
                continue
            changed = [axis for axis in range(own.dim()) if own.shape[axis] != given.shape[axis]]
            if len(changed) != 1 or given.shape[changed[0]] not in entries:
                raise UsageError(
                    f"the vocabulary cannot be extended: {name} of cell {model.config.cell!r} has "
                    f"shape {[*given.shape]}, in which the tokens are not told apart; train the "
                    f"first run with --embedding."
                )
            where = entries[given.shape[changed[0]]].to(own.device)
            own.index_copy_(changed[0], where, given.to(own.device, own.dtype))


def _positions(before: Tokenizer, after: Tokenizer, masked: bool) -> Tensor:
    """Where the entries of a vocabulary are in the longer one: the end of a text and the mask come
    last in both."""
    special = int(before.documents) + masked
    count = before.vocab_size + masked
    longer = after.vocab_size + masked
    first = list(range(count - special))
    return torch.tensor([*first, *range(longer - special, longer)])


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Keeps the parameters whose names are like one of the patterns as they are. UsageError for a
    pattern like none of them, and where nothing is left to train."""
    names = dict(model.named_parameters())
    for pattern in patterns:
        like = [name for name in names if fnmatchcase(name, pattern)]
        if not like:
            some = ", ".join(list(names)[:6])
            raise UsageError(f"--freeze {pattern!r} is like no parameter; they are {some}, …")
        for name in like:
            names[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in names.values()):
        raise UsageError("--freeze leaves nothing to train.")

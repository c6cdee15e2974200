"""Training on from another run: its weights in a new model, which may have more characters."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.config import ModelConfig, RunConfig
from zoo.data.corpora import Corpus
from zoo.data.dataset import unknown_characters
from zoo.data.tokenizer import Tokenizer
from zoo.errors import UsageError, ZooWarning
from zoo.models.language_model import LanguageModel
from zoo.runs.run import Run

CHECKED = 256  # tokens
LONGEST_SHOWN = 100  # characters of a pattern
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
                "data": config.data.model_copy(
                    update={"documents": documents, "vocab": self.run.config.data.vocab}
                ),
                "training": config.training.model_copy(update={"from_run": str(self.run.path)}),
            }
        )

    def tokenizer_for(self, corpus: Corpus) -> Tokenizer:
        """The run's tokenizer, extended if that is wanted; otherwise a ZooWarning names what it
        does not know."""
        known = self.run.tokenizer
        new = unknown_characters(corpus, known)
        if not new:
            return known
        if self.extend:
            return known.extended(new)
        shown = new if len(new) <= 10 else new[:10] + "…"
        count, are, become = f"{len(new)} characters", "are", "become"
        if len(new) == 1:
            count, are, become = "1 character", "is", "becomes"
        warnings.warn(
            f"{count} of {corpus.name} {are} not in the vocabulary of the run, "
            f"and {become} <unk>: {shown!r}; --extend-vocabulary gives them tokens",
            ZooWarning,
            stacklevel=2,
        )
        return known


def take_weights(
    model: LanguageModel, base: LanguageModel, before: Tokenizer, after: Tokenizer
) -> None:
    """Gives the model the weights of `base`, whose tokenizer was `before`. Where its own has more
    characters, the weights of their inputs and outputs stay as they were initialized. UsageError
    for a cell that then computes something else for the characters it knows."""
    weights = {name: leaf.to(_device(model)) for name, leaf in base.state_dict().items()}
    masked = base.vocab_size + 1
    entries = {
        before.vocab_size: _positions(before, after, masked=False),
        masked: _positions(before, after, masked=True),
    }
    own_weights = model.state_dict()
    alike = own_weights.keys() == weights.keys()
    for name, own in own_weights.items() if alike else ():
        given = weights[name]
        if own.shape == given.shape:
            own.copy_(given)
            continue
        changed = [axis for axis in range(own.dim()) if own.shape[axis] != given.shape[axis]]
        alike = alike and len(changed) == 1 and given.shape[changed[0]] in entries
        if alike:
            where = entries[given.shape[changed[0]]].to(own.device)
            own.index_copy_(changed[0], where, given.to(own.dtype))
    if not alike or not _agree(
        model,
        base,
        entries[masked if base.config.mask_token else before.vocab_size],
        entries[before.vocab_size],
    ):
        raise UsageError(
            f"the vocabulary cannot be extended: cell {model.config.cell!r} does not tell its "
            f"one-hot inputs apart; train the first run with --embedding."
        )


def _agree(model: LanguageModel, base: LanguageModel, inputs: Tensor, outputs: Tensor) -> bool:
    """Whether both give the old entries the same logits, on a text of them."""
    count = min(len(inputs), CHECKED)
    tokens = torch.arange(len(inputs) - count, len(inputs))[:, None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        wanted = base.eval()(tokens.to(_device(base)))[0].cpu()
        found = model(inputs[tokens].to(_device(model)))[0].cpu()[..., outputs]
    model.train(was_training)
    return torch.allclose(found, wanted, rtol=1e-3, atol=1e-3)


def _device(model: LanguageModel) -> torch.device:
    return next(model.parameters()).device


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
            some = ", ".join(list(names)[:6]) + (", …" if len(names) > 6 else "")
            raise UsageError(
                f"--freeze {pattern[:LONGEST_SHOWN]!r} is like no parameter; they are {some}."
            )
        for name in like:
            names[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in names.values()):
        raise UsageError("--freeze leaves nothing to train.")

"""The hidden size with which a model has a given number of parameters."""

from __future__ import annotations

from bisect import bisect_right

import torch

from zoo.config import ModelConfig
from zoo.errors import UsageError
from zoo.models.language_model import LanguageModel
from zoo.registry.registry import Registry
from zoo.registry.specs import CellSpec

MOST_HIDDEN, ROUND = 65_536, 64


def largest_hidden(
    parameters: int, config: ModelConfig, spec: CellSpec, vocab_size: int, registry: Registry
) -> int:
    """The largest hidden size with which the model that `config` describes, with this cell, has at
    most so many parameters. Sizes that the cell refuses (by UsageError or ValueError) are passed
    over. UsageError if there is none."""
    counts, refused = {0: 0}, dict[int, Exception]()

    def taken(size: int) -> int:
        """The largest size up to `size` that the cell takes; 0 if it takes none."""
        while size not in counts:
            if size not in refused:
                try:
                    model = _with_cell(config, spec, size)
                    counts[size] = count_parameters(model, vocab_size, registry)
                    break
                except (UsageError, ValueError) as error:
                    refused[size] = error
            size -= 1
        return size

    above = 1
    while counts[taken(above)] <= parameters and above < MOST_HIDDEN:
        above *= 2

    def largest_of(sizes: range) -> int:
        found = bisect_right(sizes, parameters, key=lambda size: counts[taken(size)])
        return sizes[found - 1] if found else 0

    # where heads divide the hidden size, a larger one may have fewer parameters: counts surely grow
    # along multiples of 64, and after the last of these the sizes are looked at one by one
    begin = largest_of(range(ROUND, above + 1, ROUND))
    near = map(taken, (largest_of(range(1, above + 1)), *range(begin, begin + ROUND)))
    size = max(size for size in near if counts[size] <= parameters)
    if size == 0 and len(counts) == 1:
        raise refused[above]
    if size == 0:
        least = min(counts.keys() - {0})
        raise UsageError(
            f"with hidden={least}, its least, {spec.name} has {counts[least]:,} parameters, and "
            f"not {parameters:,}."
        )
    return size


def _with_cell(config: ModelConfig, spec: CellSpec, hidden: int) -> ModelConfig:
    changes = {"cell": spec.name, "hidden": hidden, "mask_token": not spec.causal}
    return ModelConfig.checked(**{**config.model_dump(), **changes})


def count_parameters(config: ModelConfig, vocab_size: int, registry: Registry) -> int:
    """The number of parameters of the model that `config` describes; nothing is allocated."""
    with torch.device("meta"):
        return LanguageModel(config, vocab_size, registry).parameter_count()

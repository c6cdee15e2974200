"""The hidden size with which a model has a given number of parameters, or of bytes of state."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import torch

from zoo.config import MAX_HIDDEN, Interface, ModelConfig
from zoo.errors import UsageError
from zoo.models.language_model import LanguageModel
from zoo.nn.state import flatten
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry

ROUND = 64


def count_parameters(config: ModelConfig, interface: int | Interface, registry: Registry) -> int:
    """The number of parameters of the model that `config` describes; nothing is allocated."""
    with torch.device("meta"):
        return LanguageModel(config, interface, registry).parameter_count()


def count_state_bytes(config: ModelConfig, interface: int | Interface, registry: Registry) -> int:
    """The bytes of state of one row of the model that `config` describes; nothing is allocated."""
    with torch.device("meta"):
        state = LanguageModel(config, interface, registry).init_state(1)
    return sum(leaf.numel() * leaf.element_size() for leaf in flatten(state))


def largest_hidden(
    most: int,
    config: ModelConfig,
    spec: CellSpec,
    interface: int | Interface,
    registry: Registry,
    measure: Callable[..., int] = count_parameters,
) -> int:
    """The largest hidden size that the cell takes and with which the model that `config` describes,
    with this cell, has at most `most` parameters, or what else `measure` counts. UsageError if
    there is none."""
    sizes = spec.sizes_taken(config.options, registry)
    counts = {0: 0}

    def count(size: int) -> int:
        """What is counted with the largest size up to `size` that the cell takes; 0 without one."""
        size = sizes.at_most(size)
        if size not in counts:
            counts[size] = measure(_with_cell(config, spec, size), interface, registry)
        return counts[size]

    above = 1
    while count(above) <= most and above < MAX_HIDDEN:
        above *= 2

    def largest_of(candidates: range) -> int:
        found = bisect_right(candidates, most, key=count)
        return candidates[found - 1] if found else 0

    # where heads divide the hidden size, a larger one may have fewer parameters: counts surely grow
    # along multiples of 64, and after the last of these the sizes are looked at one by one
    begin = largest_of(range(ROUND, above + 1, ROUND))
    near = (largest_of(range(1, above + 1)), *range(begin, begin + ROUND))
    size = max(sizes.at_most(size) for size in near if count(size) <= most)
    if size == 0:
        least = sizes.at_least(1)
        raise UsageError(
            f"with hidden={least}, its least, {spec.name} has {count(least):,} "
            f"{_counted(measure)}, and not {most:,}."
        )
    return size


def _counted(measure: Callable[..., int]) -> str:
    return "parameters" if measure is count_parameters else "bytes of state"


def _with_cell(config: ModelConfig, spec: CellSpec, hidden: int) -> ModelConfig:
    changes = {"cell": spec.name, "hidden": hidden, "mask_token": not spec.causal}
    return ModelConfig.checked(**{**config.model_dump(), **changes})

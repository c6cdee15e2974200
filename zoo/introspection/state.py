"""The state of a cell as a person reads it: each leaf with its shape and its meaning.

Names and shapes are those of the state that the cell itself begins with, at several sizes; only the
meaning comes from the card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from zoo.errors import UsageError
from zoo.introspection.cost import SIZES, polynomial
from zoo.nn.state import flatten, named_leaves
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry


@dataclass(frozen=True)
class StateLeaf:
    """A leaf of a cell's state. `shape` is text such as "[batch, hidden]"."""

    name: str
    shape: str
    meaning: str


def describe_state(spec: CellSpec, registry: Registry | None = None) -> list[StateLeaf]:
    """The leaves of the cell's state, with its default options, in their order.

    A size is given in terms of `input` and `hidden`, as it is where they are multiples of 64; "?"
    where it lies on no polynomial there. UsageError where the card does not describe these leaves.
    """
    taken = spec.sizes_taken({}, registry)
    sizes = [(inputs, taken.at_least(hidden)) for inputs, hidden in SIZES]
    with torch.random.fork_rng(devices=[]):
        states = [spec.build(*pair, registry=registry).init_state(1) for pair in sizes]
    meanings = match_meanings(spec, states[0])
    leaves = zip(*(flatten(state) for state in states), strict=True)  # each at all sizes
    return [
        StateLeaf(name, _shape_text([leaf.shape[1:] for leaf in own], sizes), meaning)
        for (name, meaning), own in zip(meanings.items(), leaves, strict=True)
    ]


def match_meanings(spec: CellSpec, state: Any) -> dict[str, str]:
    """What the card says of each leaf of a state of the cell, by the leaf's name. UsageError unless
    each leaf has a meaning, each meaning a leaf, and both stand in the same order."""
    names = [name.partition(".")[2] for name, _ in named_leaves((state,))]  # without the layer's
    fields = {field.name: field.meaning for field in spec.card.state}
    found = {
        name: next((field for field in fields if f"{name}.".startswith(f"{field}.")), None)
        for name in names
    }
    if list(dict.fromkeys(found.values())) != [field.name for field in spec.card.state]:
        raise UsageError(
            f"cell {spec.name!r} has the state {', '.join(names) or 'of no leaf'}, and its card "
            f"describes {', '.join(field.name for field in spec.card.state) or 'nothing'}; give "
            f"the card a StateField for each leaf, in this order."
        )
    if silent := [field for field, meaning in fields.items() if not meaning]:
        raise UsageError(
            f"cell {spec.name!r}: the card does not say what {', '.join(silent)} means; give each "
            f"StateField a meaning."
        )
    return {name: fields[field] for name, field in found.items() if field is not None}


def _shape_text(shapes: list[torch.Size], sizes: list[tuple[int, int]]) -> str:
    counts = zip(*shapes, strict=True)  # of each axis at all sizes
    return f"[{', '.join(['batch', *(polynomial(list(own), sizes) or '?' for own in counts)])}]"

"""The state of any optimizer, as tensors and JSON: it is saved without pickle.

A tensor of `state_dict()` becomes a named tensor; everything else (numbers, texts, None, and the
dicts, lists and tuples that hold them) becomes JSON, in which each tensor stands by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

PREFIX = "optimizer"


def pack(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """The tensors of an optimizer's `state_dict()` by name ("optimizer.state.0.exp_avg"), and the
    rest of it as JSON. TypeError, with the path of the value, for one that is neither."""
    tensors: dict[str, Tensor] = {}
    return tensors, _packed(state, PREFIX, tensors)


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The `state_dict` that `pack` was given. KeyError, TypeError or ValueError for a tree that
    `pack` did not make."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(value, tensors) for key, value in content}
    values = [unpack(value, tensors) for value in content]
    return tuple(values) if kind == "tuple" else values


def _packed(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = path
        while name in tensors:  # keys may hold dots
            name += "_"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise TypeError(f"{path} has the key {key!r}")
        items = [[key, _packed(item, f"{path}.{key}", tensors)] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_packed(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path} is {type(value).__name__}")

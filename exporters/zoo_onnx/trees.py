"""States and outputs of any form as lists of named tensors: tuples, lists, dicts, NamedTuples,
dataclasses, whatever else is registered with torch's pytree, and these within each other."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from zoo.errors import UsageError


@dataclass(frozen=True)
class Form:
    """How a value is made of its children, by their `keys`; a tensor has none (`make` is None)."""

    kind: str
    keys: tuple[str, ...] = ()
    children: tuple[Form, ...] = ()
    make: Callable[[Sequence[Any]], Any] | None = None

    @property
    def leaves(self) -> int:
        return 1 if self.make is None else sum(child.leaves for child in self.children)

    def same_as(self, other: Form) -> bool:
        """Whether values of both forms have the same leaves under the same names."""
        if self.keys != other.keys or (self.make is None) != (other.make is None):
            return False
        return all(map(Form.same_as, self.children, other.children))

    def __str__(self) -> str:
        if self.make is None:
            return "a tensor"
        parts = [f"{key}: {child}" for key, child in zip(self.keys, self.children, strict=True)]
        return f"{self.kind}({', '.join(parts)})"


TENSOR = Form("tensor")


def flatten(value: Any, what: str) -> tuple[list[Tensor], Form]:
    """The tensors of a state or of outputs, and their form. `what` names the value in errors:
    UsageError for anything in it that is no tensor."""
    leaves: list[Tensor] = []
    return leaves, _flatten(value, what, "", leaves)


def unflatten(form: Form, leaves: Sequence[Any]) -> Any:
    """The value of that form with these leaves."""
    remaining = iter(leaves)
    value = _unflatten(form, remaining)
    if next(remaining, None) is not None:
        raise ValueError("there are more leaves than the form has")
    return value


def in_order(value: Any, form: Form) -> Any:
    """The value, its dicts in the order of the form: a dict's order says nothing."""
    parts = children(value)
    if parts is None or form.make is None or isinstance(value, Tensor):
        return value
    keys, contents, make = parts
    if isinstance(value, dict) and set(map(str, keys)) == set(form.keys):
        given = {str(key): content for key, content in value.items()}
        return {
            key: in_order(given[key], part)
            for key, part in zip(form.keys, form.children, strict=True)
        }
    if len(contents) != len(form.children):
        return value
    return make([in_order(x, part) for x, part in zip(contents, form.children, strict=True)])


def names(form: Form, alone: str) -> list[str]:
    """A name for each leaf, from keys and fields joined by dots; `alone` for a bare tensor. Signs
    that a name cannot have become "_", and equal names get numbers."""
    found: list[str] = []
    for path in _paths(form, ()):
        name = ".".join(re.sub(r"\W", "_", key) or "_" for key in path) or alone
        count = 2
        distinct = name
        while distinct in found:
            distinct, count = f"{name}_{count}", count + 1
        found.append(distinct)
    return found


def _flatten(value: Any, what: str, path: str, leaves: list[Tensor]) -> Form:
    if isinstance(value, Tensor):
        leaves.append(value)
        return TENSOR
    parts = children(value)
    if parts is None:
        raise UsageError(_refusal(value, what, path))
    keys, contents, make = parts
    forms = [
        _flatten(child, what, f"{path}[{key!r}]", leaves)
        for key, child in zip(keys, contents, strict=True)
    ]
    return Form(type(value).__name__, tuple(map(str, keys)), tuple(forms), make)


Parts = tuple[Sequence[Any], Sequence[Any], Callable[[Sequence[Any]], Any]]


def children(value: Any) -> Parts | None:
    """Keys and children of a container, and how it is made of others; None for no container."""
    kind = type(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._fields, value, lambda parts: kind(*parts)
    if kind in (tuple, list):
        return range(len(value)), value, kind
    own = kind.__module__ in ("builtins", "collections") or kind not in pytree.SUPPORTED_NODES
    if isinstance(value, dict) and own:
        keys = list(value)
        return keys, list(value.values()), lambda parts: _like(value, keys, parts)
    if kind in pytree.SUPPORTED_NODES:
        node = pytree.SUPPORTED_NODES[kind]
        contents, context = node.flatten_fn(value)
        return range(len(contents)), contents, lambda parts: node.unflatten_fn(list(parts), context)
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        contents = [getattr(value, field) for field in fields]

        def make(parts: Sequence[Any]) -> Any:
            made = copy.copy(value)
            for field, part in zip(fields, parts, strict=True):
                object.__setattr__(made, field, part)  # it may be frozen
            return made

        return fields, contents, make
    return None


def _like(value: Mapping[Any, Any], keys: Sequence[Any], parts: Sequence[Any]) -> Any:
    made = copy.copy(value)
    made.update(zip(keys, parts, strict=True))  # type: ignore[attr-defined]
    return made


def _refusal(value: Any, what: str, path: str) -> str:
    where = f"{what} holds" if path else f"{what} is"
    place = f" at {path}" if path else ""
    if value is None:
        return f"{where} None{place}; use a tensor in its place, [batch, …], of zeros for example."
    if isinstance(value, bool | int | float | complex):
        return (
            f"{where} the Python number {value!r}{place}; use a tensor [batch] in its place, so "
            f"that the file can carry it."
        )
    return (
        f"{where} {type(value).__name__}{place}; use tensors, in tuples, lists, dicts, NamedTuples "
        f"or dataclasses."
    )


def _unflatten(form: Form, remaining: Iterator[Any]) -> Any:
    if form.make is None:
        return next(remaining)
    return form.make([_unflatten(child, remaining) for child in form.children])


def _paths(form: Form, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if form.make is None:
        yield path
    for key, child in zip(form.keys, form.children, strict=True):
        yield from _paths(child, (*path, key))

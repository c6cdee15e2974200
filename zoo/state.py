"""Recurrent state as explicit data.

A state is a tree: a tensor, or a tuple of trees. A cell's state is a NamedTuple, whose field names
become the names of its leaves; a model's state is the plain tuple of its cells' states. Everything
here follows the tree and knows no cell. Every leaf is batch-first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Tree: TypeAlias = "Tensor | tuple[Any, ...]"
TreeT = TypeVar("TreeT")


def map_leaves(function: Callable[..., Any], tree: TreeT, *others: TreeT) -> TreeT:
    """The tree of `function(leaf, *leaves at the same place in others)`."""
    if not isinstance(tree, tuple):
        return function(tree, *others)  # type: ignore[no-any-return]
    branches = (map_leaves(function, *parts) for parts in zip(tree, *others, strict=True))
    return rebuild(tree, branches)  # type: ignore[no-any-return]


def rebuild(like: Any, branches: Any) -> Any:
    """A tuple of the same type as `like` with other contents."""
    return like._make(branches) if hasattr(like, "_make") else tuple(branches)


def flatten(tree: Tree) -> list[Tensor]:
    """The leaves, in the order of the fields."""
    if not isinstance(tree, tuple):
        return [tree]
    return [leaf for branch in tree for leaf in flatten(branch)]


def unflatten(like: TreeT, leaves: Sequence[Any]) -> TreeT:
    """The tree shaped as `like` whose leaves are `leaves`, in the order of `flatten`."""
    remaining = iter(leaves)
    tree = map_leaves(lambda _: next(remaining), like)
    if next(remaining, None) is not None:
        raise ValueError("more leaves than the tree has places")
    return tree


def named_leaves(tree: Tree, prefix: str = "layer") -> Iterator[tuple[str, Tensor]]:
    """Each leaf of a model's state with its name: "layer0.h", "layer0.c", "layer1.h", …"""
    for index, branch in enumerate(tree):
        yield from _named(branch, f"{prefix}{index}")


def _named(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(tree, tuple):
        yield name, tree
        return
    fields = getattr(tree, "_fields", range(len(tree)))
    for field, branch in zip(fields, tree, strict=True):
        yield from _named(branch, f"{name}.{field}")


def detach(tree: TreeT) -> TreeT:
    """The same values, cut off from the graph that computed them."""
    return map_leaves(lambda leaf: leaf.detach(), tree)


def unbind(tree: TreeT) -> Iterator[TreeT]:
    """A tree of sequences [T, …] as its T slices, each a tree of the same shape."""
    slices = [leaf.unbind(0) for leaf in flatten(tree)]  # type: ignore[arg-type]
    for leaves in zip(*slices, strict=True):
        yield unflatten(tree, leaves)

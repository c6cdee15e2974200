"""Recurrent state as explicit data.

A state is a tree: a tensor, or a tuple of trees. A cell's state is a NamedTuple, whose field names
become the names of its leaves; a model's state is the plain tuple of its cells' states. Everything
here follows the tree and knows no cell. Every leaf is batch-first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor

Tree: TypeAlias = "Tensor | tuple[Any, ...]"
TreeT = TypeVar("TreeT")


def map_leaves(function: Callable[..., Any], tree: TreeT, *others: TreeT) -> TreeT:
    """The tree of `function(leaf, *leaves at the same position in others)`."""
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
        raise ValueError("more leaves than the tree holds")
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


def select_rows(state: TreeT, rows: Sequence[int]) -> TreeT:
    """The state of these rows of the batch, in this order; a row may come twice."""
    return map_leaves(lambda leaf: leaf[list(rows)], state)


def reset_rows(state: TreeT, rows: Sequence[int], initial: TreeT) -> TreeT:
    """The state with these rows taken from `initial`, a state of the same batch size: as when a
    stream ends and another takes its place."""

    def reset(leaf: Tensor, fresh: Tensor) -> Tensor:
        leaf = leaf.clone()
        leaf[list(rows)] = fresh[list(rows)]
        return leaf

    return map_leaves(reset, state, initial)


def to_safetensors(state: Tree) -> bytes:
    """A model's state, its leaves by their names."""
    from safetensors.torch import save

    return save({name: leaf.detach().contiguous() for name, leaf in named_leaves(state)})


def from_safetensors(like: TreeT, content: bytes) -> TreeT:
    """The state that `to_safetensors` wrote, for a model whose states are shaped as `like` (of any
    batch size). ZooError for content that is damaged or of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        leaves = load(content)
    except SafetensorError as error:
        raise ZooError(f"the saved state is damaged: {error}") from None
    wanted = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in named_leaves(like)}  # type: ignore[arg-type]
    rows = {tuple(leaf.shape[:1]) for leaf in leaves.values()}
    found = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in leaves.items()}
    if found != wanted or len(rows) > 1 or () in rows:
        raise ZooError(
            f"the saved state is of another model: it has {sorted(leaves)}, and this model's has "
            f"{sorted(wanted)}, or other shapes."
        )
    return unflatten(like, [leaves[name] for name in wanted])

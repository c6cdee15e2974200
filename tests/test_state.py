"""States as trees of tensors: names, flattening, and iteration over time."""

from typing import NamedTuple

import pytest
import torch

from zoo.nn.state import detach, flatten, map_leaves, named_leaves, unbind, unflatten


class Inner(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


class Both(NamedTuple):
    forward: Inner
    backward: Inner


def leaf(value: float) -> torch.Tensor:
    return torch.full((2, 3), value)


STATE = (Inner(leaf(1), leaf(2)), Both(Inner(leaf(3), leaf(4)), Inner(leaf(5), leaf(6))))


def test_leaves_are_named_by_layer_and_field() -> None:
    assert [(name, tensor[0, 0].item()) for name, tensor in named_leaves(STATE)] == [
        ("layer0.h", 1),
        ("layer0.c", 2),
        ("layer1.forward.h", 3),
        ("layer1.forward.c", 4),
        ("layer1.backward.h", 5),
        ("layer1.backward.c", 6),
    ]


def test_unflatten_inverts_flatten_and_keeps_the_types() -> None:
    again = unflatten(STATE, flatten(STATE))
    assert isinstance(again[0], Inner)
    assert isinstance(again[1].backward, Inner)
    assert all(a is b for a, b in zip(flatten(STATE), flatten(again), strict=True))


def test_unflatten_refuses_extra_leaves() -> None:
    with pytest.raises(ValueError, match="more leaves"):
        unflatten(STATE, [*flatten(STATE), leaf(7)])


def test_map_leaves_takes_several_trees() -> None:
    doubled = map_leaves(torch.add, STATE, STATE)
    assert [t[0, 0].item() for t in flatten(doubled)] == [2, 4, 6, 8, 10, 12]


def test_detach_cuts_the_graph_and_keeps_the_values() -> None:
    weight = torch.ones(2, 3, requires_grad=True)
    state = (Inner(weight * 2, weight * 3),)
    cut = detach(state)
    assert not any(t.requires_grad for t in flatten(cut))
    assert flatten(cut)[1][0, 0].item() == 3
    assert state[0].h.requires_grad


def test_unbind_iterates_over_the_first_axis_of_every_leaf() -> None:
    sequence = Inner(torch.arange(6).view(3, 2), torch.arange(6, 12).view(3, 2))
    steps = list(unbind(sequence))
    assert [step.h.tolist() for step in steps] == [[0, 1], [2, 3], [4, 5]]
    assert steps[2].c.tolist() == [10, 11]

"""Truncated backpropagation through a recurrence as one operation of autograd.

Autograd records every step by itself and adds up the weights' gradients step by step. Here the
steps run without a record, backwards with derivatives that the cell writes down, and each weight's
gradient is one product over all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

States = tuple[Tensor, ...]


class Recurrence:
    """One step of a recurrence and its derivative, written by hand. `states` is the number of
    leaves of the state; h, the first of them, is also the output. `kept` is what a step keeps for
    the way back beside the states: the width of each tensor, in hidden sizes.

    Subclasses are never instantiated. They write into the tensors that they are handed, which are
    slices of ones for all steps: small tensors made at every step would cost as much as the
    arithmetic.
    """

    states: ClassVar[int] = 1
    kept: ClassVar[tuple[int, ...]] = ()

    @staticmethod
    def forward(
        z_BK: Tensor,
        before: States,
        weights: tuple[Tensor, ...],
        after: States,
        kept: tuple[Tensor, ...],
    ) -> None:
        """Writes the state `after` the step, and what is `kept` of it."""
        raise NotImplementedError

    @staticmethod
    def backward(
        gradients: States,
        outside_BH: Tensor,
        before: States,
        after: States,
        kept: tuple[Tensor, ...],
        transposed: tuple[Tensor, ...],
        gradient_BK: Tensor,
    ) -> States:
        """Writes the gradient of z, and returns those of the state before the step, from those of
        the state after it; to h's it adds `outside_BH`, what h receives as an output. `transposed`
        are the weights, transposed."""
        raise NotImplementedError

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, kept_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        """The gradient of each weight from h before each step, what was kept, and z's gradients."""
        raise NotImplementedError


def run_fused(
    recurrence: type[Recurrence], z_TBK: Tensor, state: States, weights: tuple[Tensor, ...]
) -> tuple[Tensor, States]:
    """Outputs h [T, B, H] and the last state of `recurrence` over z, with its own backward pass.
    The state keeps its dtype, under autocast too."""
    z_TBK = z_TBK.to(state[0].dtype)
    with torch.autocast(z_TBK.device.type, enabled=False):
        h_TBH, *last = _Fused.apply(recurrence, z_TBK, *state, *weights)  # type: ignore[no-untyped-call]
    return h_TBH, (h_TBH[-1], *last)


def product_over_steps(left_TBI: Tensor, right_TBJ: Tensor) -> Tensor:
    """Σ_t left_tᵀ right_t, [I, J]."""
    return left_TBI.flatten(0, 1).T @ right_TBJ.flatten(0, 1)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, recurrence: type[Recurrence], z_TBK: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        count = recurrence.states
        state, weights = tensors[:count], tensors[count:]
        T, B, H = len(z_TBK), *state[0].shape
        states_T = [leaf.new_empty(T + 1, *leaf.shape) for leaf in state]
        for leaf_T, leaf in zip(states_T, state, strict=True):
            leaf_T[0] = leaf
        kept_T = [z_TBK.new_empty(T, B, width * H) for width in recurrence.kept]
        states, kept = _by_step(states_T, T + 1), _by_step(kept_T, T)
        for t, z in enumerate(z_TBK.unbind(0)):
            recurrence.forward(z, states[t], weights, states[t + 1], kept[t])
        ctx.recurrence, ctx.width = recurrence, z_TBK.shape[-1]
        ctx.save_for_backward(*states_T, *kept_T, *weights)
        return (states_T[0][1:], *(leaf.clone() for leaf in states[T][1:]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_TBH: Tensor, *last: Tensor) -> tuple[Any, ...]:
        recurrence: type[Recurrence] = ctx.recurrence
        count, kinds = recurrence.states, len(recurrence.kept)
        tensors = ctx.saved_tensors
        states_T, kept_T = tensors[:count], tensors[count : count + kinds]
        weights = tensors[count + kinds :]
        transposed = tuple(weight.T.contiguous() for weight in weights)
        T = len(gradient_TBH)
        states, kept = _by_step(states_T, T + 1), _by_step(kept_T, T)
        gradient_TBK = gradient_TBH.new_empty(*gradient_TBH.shape[:2], ctx.width)
        outside = [torch.zeros_like(gradient_TBH[0]), *gradient_TBH.unbind(0)]
        gradients: States = (outside[T], *last)
        for t in reversed(range(T)):
            gradients = recurrence.backward(
                gradients, outside[t], states[t], states[t + 1], kept[t], transposed,
                gradient_TBK[t],
            )  # fmt: skip
        by_weight = recurrence.weight_gradients(states_T[0][:-1], kept_T, gradient_TBK)
        return (None, gradient_TBK, *gradients, *by_weight)


def _by_step(leaves_T: Sequence[Tensor], steps: int) -> list[tuple[Tensor, ...]]:
    """The leaves of each step."""
    if not leaves_T:
        return [()] * steps
    return list(zip(*(leaf.unbind(0) for leaf in leaves_T), strict=True))


def sigmoid_gradient(gradient: Tensor, y: Tensor, into: Tensor) -> None:
    """Writes the gradient at the input of y = σ(x): ẏ y (1 - y)."""
    torch.ops.aten.sigmoid_backward.grad_input(gradient, y, grad_input=into)


def tanh_gradient(gradient: Tensor, y: Tensor, into: Tensor) -> None:
    """Writes the gradient at the input of y = tanh(x): ẏ (1 - y²)."""
    torch.ops.aten.tanh_backward.grad_input(gradient, y, grad_input=into)

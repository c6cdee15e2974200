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
    leaves of the state; h, the first of them, is also the output. What a step keeps for the way
    back beside the states, it leaves in z; what does not fit there goes into more tensors, whose
    widths, in hidden sizes, are `kept`.

    Subclasses are never instantiated. They write into the tensors that they are handed, which are
    slices of ones for all steps: small tensors made at every step, and copies of z to add products
    to, would cost as much as the arithmetic.
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
        """Writes the state `after` the step, and into z and `kept` what the way back needs."""
        raise NotImplementedError

    @staticmethod
    def backward(
        gradients: States,
        outside_BH: Tensor,
        before: States,
        after: States,
        z_BK: Tensor,
        kept: tuple[Tensor, ...],
        transposed: tuple[Tensor, ...],
        gradient_BK: Tensor,
    ) -> States:
        """Writes the gradient of z, and returns those of the state before the step, from those of
        the state after it; to h's it adds `outside_BH`, what h receives as an output. `z_BK` is
        what `forward` left in it, `transposed` are the weights, transposed."""
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
    z is overwritten: it has to be a tensor that nobody else needs, as that of a product is. The
    state keeps its dtype, under autocast too."""
    z_TBK = z_TBK.to(state[0].dtype)
    with torch.autocast(z_TBK.device.type, enabled=False):
        _, h_TBH, *last = _Fused.apply(recurrence, z_TBK, *state, *weights)  # type: ignore[no-untyped-call]
    return h_TBH, (h_TBH[-1], *last)


def product_over_steps(left_TBI: Tensor, right_TBJ: Tensor) -> Tensor:
    """Σ_t left_tᵀ right_t, [I, J]."""
    return left_TBI.flatten(0, 1).T @ right_TBJ.flatten(0, 1)


def plus_product(
    addend_BN: Tensor, left_BK: Tensor, right_KN: Tensor, out: Tensor | None = None
) -> Tensor:
    """addend + left @ right, which may be written over the addend (`out`).

    A product of few rows, as a step has them, leaves part of a CPU idle in MKL; its columns in two
    halves, as two products side by side, do not.
    """
    if not left_BK.is_cpu or right_KN.shape[1] % 2:
        return torch.addmm(addend_BN, left_BK, right_KN, out=out)
    columns = torch.unflatten(right_KN, 1, (2, -1)).transpose(0, 1)
    halves = torch.bmm(left_BK.expand(2, *left_BK.shape), columns).transpose(0, 1)
    if out is None:
        return (torch.unflatten(addend_BN, 1, (2, -1)) + halves).flatten(1)
    addend = torch.unflatten(addend_BN, 1, (2, -1))
    torch.add(addend, halves, out=torch.unflatten(out, 1, (2, -1)))
    return out


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
        ctx.recurrence = recurrence
        ctx.mark_dirty(z_TBK)
        ctx.save_for_backward(z_TBK, *states_T, *kept_T, *weights)
        return (z_TBK, states_T[0][1:], *(leaf.clone() for leaf in states[T][1:]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, gradient_TBH: Tensor, *last: Tensor) -> tuple[Any, ...]:
        recurrence: type[Recurrence] = ctx.recurrence
        count, kinds = recurrence.states, len(recurrence.kept)
        z_TBK, *tensors = ctx.saved_tensors
        states_T, kept_T = tensors[:count], tensors[count : count + kinds]
        weights = tensors[count + kinds :]
        transposed = tuple(weight.T.contiguous() for weight in weights)
        T = len(gradient_TBH)
        states, kept = _by_step(states_T, T + 1), _by_step(kept_T, T)
        z = z_TBK.unbind(0)
        gradient_TBK = torch.empty_like(z_TBK)
        outside = [torch.zeros_like(gradient_TBH[0]), *gradient_TBH.unbind(0)]
        gradients: States = (outside[T], *last)
        for t in reversed(range(T)):
            gradients = recurrence.backward(
                gradients, outside[t], states[t], states[t + 1], z[t], kept[t], transposed,
                gradient_TBK[t],
            )  # fmt: skip
        by_weight = recurrence.weight_gradients(states_T[0][:-1], tuple(kept_T), gradient_TBK)
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

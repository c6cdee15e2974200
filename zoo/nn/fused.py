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
from torch.nn import functional as F

States = tuple[Tensor, ...]


class Recurrence:
    """One step of a recurrence and its derivative, written by hand. `states` is the number of
    leaves of the state; h, the first of them, is also the output. What the backward pass needs of a
    step beside the states stays in z; what does not fit there is written to further tensors, whose
    widths, in hidden sizes, are `kept`. Weights [K, P·C] come with their columns cut in P parts,
    [P, K, C], which is how `product` and `plus_product` take them.

    A state may have heads, [B, N, D]: z, h and their gradients then come as [B, N, …] too, and
    weights of each head, [N, K, C], as they are, for `plus_block_product`.

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
        """Writes the state `after` the step, and into z and `kept` what the backward pass needs."""
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
        what `forward` left in it, `transposed` are the weights, or their blocks, transposed, cut
        as they are."""
        raise NotImplementedError

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, kept_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        """The gradient of each weight from h before each step, what was kept, and z's gradients."""
        raise NotImplementedError


def run_fused(
    recurrence: type[Recurrence],
    x_TBI: Tensor,
    projection: tuple[Tensor, Tensor],
    state: States,
    weights: tuple[Tensor, ...],
) -> tuple[Tensor, States]:
    """Outputs h [T, B, H] and the last state of `recurrence` over z = x W + b, where `projection`
    is (W, b), with its own backward pass. The state keeps its dtype, under autocast too."""
    h_TBH, *last = _Fused.apply(recurrence, x_TBI, *projection, *state, *weights)  # type: ignore[no-untyped-call]
    return h_TBH, (h_TBH[-1], *last)


def product_over_steps(left_TBI: Tensor, right_TBJ: Tensor) -> Tensor:
    """Σ_t left_tᵀ right_t, [I, J]."""
    return left_TBI.flatten(0, 1).T @ right_TBJ.flatten(0, 1)


def block_product_over_steps(left_TBNI: Tensor, right_TBNJ: Tensor) -> Tensor:
    """Σ_t left_tᵀ right_t of each head, [N, I, J]."""
    left, right = (x.flatten(0, 1).transpose(0, 1) for x in (left_TBNI, right_TBNJ))
    return left.mT @ right


def product(left_BK: Tensor, right_PKC: Tensor) -> Tensor:
    """left @ right, [B, P·C], where `right` [K, P·C] has its columns cut in P parts."""
    if len(right_PKC) == 1:
        return left_BK @ right_PKC[0]
    return _by_parts(left_BK, right_PKC).flatten(1)


def plus_product(
    addend_BN: Tensor, left_BK: Tensor, right_PKC: Tensor, out: Tensor | None = None
) -> Tensor:
    """addend + left @ right, which may be written over the addend (`out`)."""
    if len(right_PKC) == 1:
        return torch.addmm(addend_BN, left_BK, right_PKC[0], out=out)
    if out is None:
        out = torch.empty_like(addend_BN)
    parts, _, width = right_PKC.shape
    cut = (-1, parts, width)
    torch.add(addend_BN.view(cut), _by_parts(left_BK, right_PKC), out=out.view(cut))
    return out


def plus_block_product(
    addend_BNC: Tensor, left_BNK: Tensor, right_NKC: Tensor, out: Tensor | None = None
) -> Tensor:
    """addend + left @ right of each head, which may be written over the addend (`out`)."""
    out = torch.empty_like(addend_BNC) if out is None else out
    addend, left, found = (x.transpose(0, 1) for x in (addend_BNC, left_BNK, out))
    torch.baddbmm(addend, left, right_NKC, out=found)
    return out


def _by_parts(left_BK: Tensor, right_PKC: Tensor) -> Tensor:
    products = torch.bmm(left_BK.expand(len(right_PKC), *left_BK.shape), right_PKC)
    return products.transpose(0, 1)


def _in_columns(weight_KN: Tensor) -> Tensor:
    """The columns of a weight in P parts. A product of few rows, as a step has them, leaves part of
    a CPU idle in MKL; its columns in two halves, as two products side by side, do not. Those of
    heads are products side by side already."""
    if weight_KN.ndim == 3:
        return weight_KN
    parts = 2 if weight_KN.is_cpu and weight_KN.shape[1] % 2 == 0 else 1
    return weight_KN.view(len(weight_KN), parts, -1).transpose(0, 1)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, recurrence: type[Recurrence], x_TBI: Tensor, W: Tensor, b: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        count = recurrence.states
        state, weights = rest[:count], rest[count:]
        exact, device = state[0].dtype, x_TBI.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        T, B = x_TBI.shape[:2]
        # autocast would round the bias too, which is no factor of a product
        z_TBK = F.linear(x_TBI, W.T, b) if low is None else (x_TBI @ W).to(exact).add_(b)
        states_T = [leaf.new_empty(T + 1, *leaf.shape) for leaf in state]
        for leaf_T, leaf in zip(states_T, state, strict=True):
            leaf_T[0] = leaf
        _, *heads, H = state[0].shape
        z_TBK = z_TBK.view(T, B, *heads, -1)
        kept_T = [z_TBK.new_empty(T, B, *heads, width * H) for width in recurrence.kept]
        states, kept = _by_step(states_T, T + 1), _by_step(kept_T, T)
        columns = tuple(_in_columns(weight) for weight in weights)
        with torch.autocast(device, enabled=False):
            for t, z in enumerate(z_TBK.unbind(0)):
                recurrence.forward(z, states[t], columns, states[t + 1], kept[t])
        ctx.recurrence, ctx.low = recurrence, low
        ctx.save_for_backward(x_TBI, W, z_TBK, *states_T, *kept_T, *weights)
        return (states_T[0][1:], *(leaf.clone() for leaf in states[T][1:]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outside_TBH: Tensor, *last: Tensor) -> tuple[Any, ...]:
        recurrence: type[Recurrence] = ctx.recurrence
        count, kinds = recurrence.states, len(recurrence.kept)
        x_TBI, W, z_TBK, *tensors = ctx.saved_tensors
        states_T, kept_T = tensors[:count], tensors[count : count + kinds]
        weights = tensors[count + kinds :]
        transposed = tuple(_in_columns(weight.mT.contiguous()) for weight in weights)
        T, device = len(z_TBK), z_TBK.device.type
        states, kept = _by_step(states_T, T + 1), _by_step(kept_T, T)
        z = z_TBK.unbind(0)
        gradient_TBK = torch.empty_like(z_TBK)
        by_z = gradient_TBK.unbind(0)
        outside = [torch.zeros_like(states[0][0]), *outside_TBH.unbind(0)]
        gradients: States = (outside[T], *last)
        for t in reversed(range(T)):
            gradients = recurrence.backward(
                gradients, outside[t], states[t], states[t + 1], z[t], kept[t], transposed, by_z[t]
            )
        by_weight = recurrence.weight_gradients(states_T[0][:-1], tuple(kept_T), gradient_TBK)
        # the products outside the recurrence are as exact as autocast wants them, as forwards
        gradient_TBK = gradient_TBK.flatten(2)
        with torch.autocast(device, ctx.low, enabled=ctx.low is not None):
            by_x = (gradient_TBK @ W.T).to(x_TBI.dtype) if ctx.needs_input_grad[1] else None
            by_W = product_over_steps(x_TBI, gradient_TBK).to(W.dtype)
        return (None, by_x, by_W, gradient_TBK.sum((0, 1)), *gradients, *by_weight)


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

"""Truncated backpropagation through a recurrence as one operation of autograd.

Autograd records every step by itself and adds up the weights' gradients step by step. Here the
steps run without a record, backwards with derivatives that the cell writes down, and each weight's
gradient is one product over all steps.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

States = tuple[Tensor, ...]


class Recurrence:
    """One step of a recurrence and its derivative, written by hand. `states` is the number of
    leaves of the state; h, the first of them, is also the output.

    Subclasses are never instantiated: what a step needs later it hands on as tensors.
    """

    states: ClassVar[int] = 1

    @staticmethod
    def forward(
        z_BK: Tensor, state: States, weights: tuple[Tensor, ...]
    ) -> tuple[States, tuple[Tensor, ...]]:
        """The next state, and what `prepare` needs of this step."""
        raise NotImplementedError

    @staticmethod
    def prepare(saved_T: tuple[Tensor, ...], before_T: States) -> tuple[Tensor, ...]:
        """What `backward` needs of each step, [T, …] each, computed for all steps at once from what
        was saved and from the states before each step."""
        raise NotImplementedError

    @staticmethod
    def backward(
        gradients: States, prepared: tuple[Tensor, ...], transposed: tuple[Tensor, ...]
    ) -> tuple[Tensor, States]:
        """The gradient of z [B, K] and those of the states before the step, from those of the
        states after it; `transposed` are the weights, transposed."""
        raise NotImplementedError

    @staticmethod
    def weight_gradients(
        before_TBH: Tensor, prepared_T: tuple[Tensor, ...], gradient_TBK: Tensor
    ) -> tuple[Tensor, ...]:
        """The gradient of each weight from h before each step, what was prepared, and z's
        gradients."""
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
        states, saved = [state], []
        for z in z_TBK.unbind(0):
            state, kept = recurrence.forward(z, state, weights)
            states.append(state)
            saved.append(kept)
        sequences = [torch.stack(leaves) for leaves in zip(*states[1:], strict=True)]
        ctx.recurrence, ctx.kinds = recurrence, len(saved[0])
        kept_T = [torch.stack(steps) for steps in zip(*saved, strict=True)]
        ctx.save_for_backward(*sequences, *kept_T, *tensors)
        return (sequences[0], *(leaf.clone() for leaf in state[1:]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_TBH: Tensor, *last: Tensor) -> tuple[Any, ...]:
        recurrence: type[Recurrence] = ctx.recurrence
        count, kinds = recurrence.states, ctx.kinds
        tensors = ctx.saved_tensors
        sequences, kept_T = tensors[:count], tensors[count : count + kinds]
        first, weights = tensors[count + kinds :][:count], tensors[2 * count + kinds :]
        before_T = tuple(
            torch.cat((leaf.unsqueeze(0), sequence[:-1]))
            for leaf, sequence in zip(first, sequences, strict=True)
        )
        prepared_T = recurrence.prepare(kept_T, before_T)
        transposed = tuple(weight.T.contiguous() for weight in weights)
        steps = list(zip(*(leaf.unbind(0) for leaf in prepared_T), strict=True))
        gradients: States = (torch.zeros_like(first[0]), *last)
        found = []
        for gradient, prepared in zip(reversed(gradient_TBH.unbind(0)), reversed(steps)):  # noqa: B905
            gradients = (gradients[0] + gradient, *gradients[1:])
            gradient_z, gradients = recurrence.backward(gradients, prepared, transposed)
            found.append(gradient_z)
        gradient_TBK = torch.stack(found[::-1])
        by_weight = recurrence.weight_gradients(before_T[0], prepared_T, gradient_TBK)
        return (None, gradient_TBK, *gradients, *by_weight)

"""A module over sequences from a module of one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import handle_torch_function, has_torch_function

from zoo_onnx import trees
from zoo_onnx.scans import Scans


class OverTime(nn.Module):
    """Runs a step, `step(*inputs, state)` to its outputs and the next state, over the time axis of
    its inputs [B, T, …]: `zoo_onnx.export_sequence` makes one loop of it, for any T. Outputs are
    [B, T, …], and come with the state after the last step. Tensors are batch-first; `batch_axis` is
    that of the state.
    """

    def __init__(self, step: nn.Module, batch_axis: int = 0) -> None:
        super().__init__()
        self.step, self.batch_axis = step, batch_axis

    def forward(self, *inputs_and_state: Any) -> tuple[Any, Any]:
        *inputs, state = inputs_and_state
        return over_time(inputs, state, self)  # type: ignore[no-any-return]


def over_time(inputs: Sequence[Tensor], state: Any, module: OverTime) -> Any:
    """The loop of `OverTime`, which a tracer may replace."""
    if has_torch_function(inputs):
        return handle_torch_function(over_time, inputs, inputs, state, module)
    found = []
    for step_inputs in zip(*(x.unbind(1) for x in inputs), strict=True):
        output, state = module.step(*step_inputs, state)
        leaves, form = trees.flatten(output, "the output")
        found.append(leaves)
    stacked = [torch.stack(steps, 1) for steps in zip(*found, strict=True)]
    return trees.unflatten(form, stacked), state


def emitted(scans: Scans, inputs: Sequence[Tensor], state: Any, module: OverTime) -> Any:
    """The same loop as a recurrence of a trace."""
    tensors = {**dict(module.step.named_parameters()), **dict(module.step.named_buffers())}
    leaves, form = trees.flatten(state, "the state")
    output, _ = module.step(*(x[:, 0] for x in inputs), state)  # for its form
    _, out_form = trees.flatten(output, "the output")
    end, outputs = scans.emit(
        _Step(module.step, list(tensors), form),
        leaves,
        [x.transpose(0, 1) for x in inputs],
        list(tensors.values()),
        [module.batch_axis] * len(leaves),
    )
    found = [y.transpose(0, 1) for y in outputs]
    return trees.unflatten(out_form, found), trees.unflatten(form, end)


class _Step(nn.Module):
    """A step as the body of a recurrence, with its weights as arguments."""

    def __init__(self, step: nn.Module, names: list[str], form: trees.Form) -> None:
        super().__init__()
        self._step = (step,)  # whose weights are arguments
        self.names, self.form = names, form

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        states, count = self.form.leaves, len(self.names)
        state = trees.unflatten(self.form, [leaf.clone() for leaf in values[:states]])
        inputs = values[states : len(values) - count]
        weights = dict(zip(self.names, values[len(values) - count :], strict=True))
        output, after = functional_call(self._step[0], weights, (*inputs, state))
        ends, _ = trees.flatten(trees.in_order(after, self.form), "the next state")
        outputs, _ = trees.flatten(output, "the output")
        return tuple(value.clone() for value in (*ends, *outputs))

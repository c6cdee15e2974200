"""Recurrent layers of torch written out in a trace by the equations in torch's documentation, since
their kernels cannot be exported for a batch of any size; and what cannot be traced found where it
stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from zoo.errors import ZooError
from zoo_onnx.explanations import calling_line, one_size
from zoo_onnx.over_time import emitted, over_time
from zoo_onnx.scans import Scans

States = tuple[Tensor, ...]
Weights = Sequence[Tensor]
Step = Callable[[Tensor, States, Weights], States]


class WrittenOut(TorchFunctionMode):
    """Within it, torch.nn.RNN, GRU and LSTM compute step by step: a fixed number of steps each by
    itself, and steps over time as a recurrence of `scans`.

    Raises ZooError at a line that computes with NumPy, or makes the size of an open axis a number.
    """

    def __init__(self, scans: Scans | None = None) -> None:
        super().__init__()
        self.scans = scans

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        name, keywords = getattr(function, "__name__", ""), keywords or {}
        if function is over_time and self.scans is not None:
            return emitted(self.scans, *arguments)
        if name in STEPS and not keywords and isinstance(arguments[3], bool):
            return _layers(self.scans, STEPS[name], *arguments)
        if name in ("numpy", "__array__"):
            place = calling_line() or "the step"
            raise ZooError(
                f"{place} computes with NumPy, which cannot be traced; use torch's operators."
            )
        result = function(*arguments, **keywords)
        fixed = any(_is_fixed(value) for value in arguments if isinstance(value, Tensor))
        if fixed and (line := calling_line()):  # torch calls functions too, as for its logs
            raise ZooError(f"the step cannot be traced: {one_size(line)}")
        return result


def _is_fixed(tensor: Tensor) -> bool:
    """Whether a symbol among its sizes has become a number."""
    environments = [size.node.shape_env for size in tensor.shape if hasattr(size, "node")]
    found = (value for environment in environments for value in environment.replacements.values())
    return any(value.is_number for value in found)


def _layers(
    scans: Scans | None,
    step: Step,
    x: Tensor,
    state: Any,
    weights: Weights,
    bias: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """What torch._VF.lstm, gru, rnn_tanh and rnn_relu compute for unpacked sequences."""
    states = state if isinstance(state, tuple | list) else (state,)
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    ends: list[States] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            w_ih, w_hh, b_ih, *others = _with_biases(
                weights[index * each : (index + 1) * each], bias
            )
            gates = F.linear(x, w_ih, b_ih)
            gates = gates.flip(0) if direction else gates
            before = tuple(leaf[index] for leaf in states)
            found, end = _one_layer(scans, step, gates, before, (w_hh, *others))
            outputs.append(found.flip(0) if direction else found)
            ends.append(end)
        x = torch.cat(outputs, -1)
        if training and dropout and layer < layers - 1:
            x = F.dropout(x, dropout)
    y = x.transpose(0, 1) if batch_first else x
    return y, *(torch.stack(leaves) for leaves in zip(*ends, strict=True))


def _one_layer(
    scans: Scans | None, step: Step, gates_T: Tensor, state: States, weights: Weights
) -> tuple[Tensor, States]:
    """The outputs and the last state of a layer, whose inputs have been multiplied."""
    if scans is not None and not isinstance(gates_T.shape[0], int):
        end, (found,) = scans.emit(_Layer(step, len(state)), state, [gates_T], weights)
        return found, tuple(end)
    outputs = []
    for gates in gates_T.unbind(0):
        state = step(gates, state, weights)
        outputs.append(state[0])
    return torch.stack(outputs), state


class _Layer(nn.Module):
    """A step of a layer as the body of a recurrence."""

    def __init__(self, step: Step, states: int) -> None:
        super().__init__()
        self.step, self.states = step, states

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        state, (gates, *weights) = values[: self.states], values[self.states :]
        after = self.step(gates, state, weights)
        return (*(leaf.clone() for leaf in after), after[0].clone())


def _with_biases(weights: Weights, bias: bool) -> Weights:
    """W_ih, W_hh, b_ih, b_hh, and what an LSTM with a projection has beside."""
    if bias:
        return weights
    zeros = weights[0].new_zeros(weights[0].shape[0])
    return [*weights[:2], zeros, zeros, *weights[2:]]


def _rnn(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(gates: Tensor, state: States, weights: Weights) -> States:
        return (activation(gates + F.linear(state[0], *weights)),)

    return step


def _gru(gates: Tensor, state: States, weights: Weights) -> States:
    (h,) = state
    r_x, z_x, n_x = gates.chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, *weights).chunk(3, -1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (n + z * (h - n),)


def _lstm(gates: Tensor, state: States, weights: Weights) -> States:
    h, c = state
    w_hh, b_hh, *projection = weights
    i, f, g, o = (gates + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (F.linear(h, *projection) if projection else h), c


STEPS: dict[str, Step] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _rnn(torch.tanh),
    "rnn_relu": _rnn(torch.relu),
}

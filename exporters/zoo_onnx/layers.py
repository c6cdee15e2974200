"""Functions of torch written out in a trace, by the equations in torch's documentation: recurrent
layers, whose kernels cannot be exported for a batch of any size, and what torch.onnx has no
translation for, or a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

States = tuple[Tensor, ...]
Weights = Sequence[Tensor]
Step = Callable[[Tensor, States, Weights], States]


class WrittenOut(TorchFunctionMode):
    """Within it, torch.nn.RNN, GRU and LSTM compute step by step, with a fixed number of steps, and
    other functions as below."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        name, keywords = getattr(function, "__name__", ""), keywords or {}
        if name in STEPS and not keywords and isinstance(arguments[3], bool):
            return _layers(STEPS[name], *arguments)
        if name in FUNCTIONS and FUNCTIONS[name][0](*arguments, **keywords):
            return FUNCTIONS[name][1](*arguments, **keywords)
        return function(*arguments, **keywords)


def _layers(
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
            own = _with_biases(weights[index * each : (index + 1) * each], bias)
            before = tuple(leaf[index] for leaf in states)
            steps = x.unbind(0)
            found = []
            for x_t in reversed(steps) if direction else steps:
                before = step(x_t, before, own)
                found.append(before[0])
            outputs.append(torch.stack(found[::-1] if direction else found))
            ends.append(before)
        x = torch.cat(outputs, -1)
        if training and dropout and layer < layers - 1:
            x = F.dropout(x, dropout)
    y = x.transpose(0, 1) if batch_first else x
    return y, *(torch.stack(leaves) for leaves in zip(*ends, strict=True))


def _with_biases(weights: Weights, bias: bool) -> Weights:
    """W_ih, W_hh, b_ih, b_hh, and what an LSTM with a projection has beside."""
    if bias:
        return weights
    zeros = weights[0].new_zeros(weights[0].shape[0])
    return [*weights[:2], zeros, zeros, *weights[2:]]


def _rnn(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(x: Tensor, state: States, weights: Weights) -> States:
        w_ih, w_hh, b_ih, b_hh = weights
        return (activation(F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)),)

    return step


def _gru(x: Tensor, state: States, weights: Weights) -> States:
    (h,) = state
    w_ih, w_hh, b_ih, b_hh = weights
    r_x, z_x, n_x = F.linear(x, w_ih, b_ih).chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, w_hh, b_hh).chunk(3, -1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (n + z * (h - n),)


def _lstm(x: Tensor, state: States, weights: Weights) -> States:
    h, c = state
    w_ih, w_hh, b_ih, b_hh, *projection = weights
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (F.linear(h, projection[0]) if projection else h), c


STEPS: dict[str, Step] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _rnn(torch.tanh),
    "rnn_relu": _rnn(torch.relu),
}


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Scaled by the larger, so that squares do not overflow."""
    large, small = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    ratio = torch.where(large == 0, torch.zeros_like(small), small / large)
    length = large * torch.sqrt(1 + ratio * ratio)
    return torch.where(large.isinf(), large, length)


def _median(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    """The lower of two in the middle, as torch has it."""
    values, indices = torch.sort(x, dim)
    middle = (x.shape[dim] - 1) // 2
    found = values.narrow(dim, middle, 1), indices.narrow(dim, middle, 1)
    if not keepdim:
        found = found[0].squeeze(dim), found[1].squeeze(dim)
    return torch.return_types.median(found)


def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """With bounds of x's own type: ONNX takes no others."""
    return torch.clamp(x, *(None if b is None else float(b) for b in (min, max)))


FUNCTIONS: dict[str, tuple[Callable[..., bool], Callable[..., Any]]] = {
    "hypot": (lambda x, y: isinstance(x, Tensor) and isinstance(y, Tensor), _hypot),
    "median": (lambda x, *dim, **more: bool(dim or more), _median),
    "clamp": (
        lambda x, *bounds, **more: (
            x.is_floating_point()
            and any(isinstance(bound, int) for bound in (*bounds, *more.values()))
        ),
        _clamp,
    ),
}
FUNCTIONS["clip"] = FUNCTIONS["clamp"]

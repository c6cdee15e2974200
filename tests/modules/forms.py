"""The forms that state and outputs take, and steps that change them in place."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .case import Case, Made, flags, integers, joined, made, normal, uniform, zeros

Pair = tuple[Tensor, Tensor]


class DictState(nn.Module):
    """A GRU and a mean with a dict as state; it returns the entries in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 6)

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.cell(x, state["h"])
        mean = 0.9 * state["mean"] + 0.1 * x
        return h[:, :3] - mean, {"mean": mean, "h": h}


def make_dict_in_another_order() -> Made:
    torch.manual_seed(0)
    return made(DictState(), normal((3,)), {"h": zeros(6), "mean": zeros(3)})


def make_ordered_dict() -> Made:
    torch.manual_seed(0)

    class Ordered(DictState):
        """As above, with an OrderedDict."""

        def forward(self, x: Tensor, state: OrderedDict[str, Tensor]) -> Any:
            y, state = super().forward(x, state)
            return y, OrderedDict(h=state["h"], mean=state["mean"])

    return made(Ordered(), normal((3,)), OrderedDict(h=zeros(6), mean=zeros(3)))


class NestedDict(nn.Module):
    """An encoder and a decoder with an LSTM state each, in nested dicts with odd names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTMCell(3, 6), nn.LSTMCell(6, 3)

    def forward(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        layers = state["layers"]
        h, c = self.encoder(x, layers["encoder.0"]["hc"])
        y, d = self.decoder(h, layers["decoder 0"]["hc"])
        after = {"encoder.0": {"hc": (h, c)}, "decoder 0": {"hc": (y, d)}}
        return y, {"layers": after, "previous/output": 0.5 * state["previous/output"] + y}


def make_nested_dict_with_odd_names() -> Made:
    torch.manual_seed(0)
    layers = {
        "encoder.0": {"hc": (zeros(6), zeros(6))},
        "decoder 0": {"hc": (zeros(3), zeros(3))},
    }
    return made(NestedDict(), normal((3,)), {"layers": layers, "previous/output": zeros(3)})


class ListState(nn.Module):
    """Three leaky layers with a list as state."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        after = []
        for layer, h in zip(self.layers, state, strict=True):
            x = 0.5 * h + 0.5 * torch.tanh(layer(x))
            after.append(x)
        return x, after


def make_list_as_state() -> Made:
    torch.manual_seed(0)
    return made(ListState(), normal((4,)), [zeros(4), zeros(4), zeros(4)])


@dataclass
class Momentum:
    position: Tensor
    speed: Tensor
    trace: list[Tensor] = field(default_factory=list)


class DataclassState(nn.Module):
    """A point with momentum; the dataclass holds a list of past positions."""

    def forward(self, force: Tensor, state: Momentum) -> tuple[Tensor, Momentum]:
        speed = 0.9 * state.speed + 0.1 * force - 0.05 * state.position
        position = state.position + speed
        return position - state.trace[0], Momentum(position, speed, [*state.trace[1:], position])


def make_dataclass_with_a_list() -> Made:
    state = Momentum(zeros(2), zeros(2), [zeros(2), zeros(2)])
    return made(DataclassState(), normal((2,)), state)


class MutatedDataclass(nn.Module):
    """Assigns the fields of the dataclass that it was given, and returns the same object."""

    def forward(self, force: Tensor, state: Momentum) -> tuple[Tensor, Momentum]:
        state.speed = 0.9 * state.speed + 0.1 * force - 0.05 * state.position
        state.position = state.position + state.speed
        return state.position, state


def make_dataclass_changed_in_place() -> Made:
    return made(MutatedDataclass(), normal((2,)), Momentum(zeros(2), zeros(2)))


class Gaussian(NamedTuple):
    mean: Tensor
    variance: Tensor


class NamedTupleInDict(nn.Module):
    """Two estimates, each a NamedTuple in a dict, fused by their variances."""

    def forward(self, a: Tensor, b: Tensor, state: dict[str, Gaussian]) -> Any:
        after = {}
        for name, x in (("a", a), ("b", b)):
            prior = state[name]
            gain = (prior.variance + 0.1) / (prior.variance + 1.1)
            mean = prior.mean + gain * (x - prior.mean)
            after[name] = Gaussian(mean, (1 - gain) * (prior.variance + 0.1))
        weight = after["b"].variance / (after["a"].variance + after["b"].variance)
        return weight * after["a"].mean + (1 - weight) * after["b"].mean, after


def make_named_tuple_in_dict() -> Made:
    state = {"a": Gaussian(zeros(2), torch.ones(8, 2)), "b": Gaussian(zeros(2), torch.ones(8, 2))}
    return made(NamedTupleInDict(), normal((2,), (2,)), state, input_names=["a", "b"])


class TensorState(nn.Module):
    """One tensor as state, which is also the output."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = torch.tanh(0.9 * h + x)
        return h, h


def make_single_tensor() -> Made:
    return made(TensorState(), normal((3,)), zeros(3))


class InputAsOutput(nn.Module):
    """A delay: the output is the old state and the new state is the input, as they are."""

    def forward(self, x: Tensor, last: Tensor) -> Pair:
        return last, x


def make_unchanged_tensors() -> Made:
    return made(InputAsOutput(), normal((3,)), zeros(3))


class Settings(NamedTuple):
    gain: Tensor  # never changed
    spare: Tensor  # never read
    h: Tensor


class UntouchedLeaves(nn.Module):
    """Passes one leaf of the state on as it is and replaces another without reading it."""

    def forward(self, x: Tensor, state: Settings) -> tuple[Tensor, Settings]:
        h = 0.5 * state.h + state.gain * x
        return h, Settings(state.gain, torch.zeros_like(state.spare), h)


def make_leaves_that_are_not_touched() -> Made:
    state = Settings(torch.full((8, 3), 2.0), zeros(2), zeros(3))
    return made(UntouchedLeaves(), normal((3,)), state)


class DictOutputs(nn.Module):
    """Outputs in a dict, with tuples and a list inside."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.heads = nn.LSTMCell(4, 8), nn.ModuleList(nn.Linear(8, 2) for _ in range(2))

    def forward(self, x: Tensor, state: Pair) -> tuple[dict[str, Any], Pair]:
        h, c = self.cell(x, state)
        heads = [head(h) for head in self.heads]
        return {"heads": heads, "norms": (h.norm(dim=-1), c.norm(dim=-1)), "h": h}, (h, c)


def make_nested_outputs() -> Made:
    torch.manual_seed(0)
    return made(DictOutputs(), normal((4,)), (zeros(8), zeros(8)))


class ListOutputs(nn.Module):
    """A bank of leaky integrators, whose outputs are a list."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[list[Tensor], Tensor]:
        state = state + (x[:, None] - state) / torch.tensor([2.0, 8.0, 32.0])[:, None]
        return list(state.unbind(1)), state


def make_list_as_outputs() -> Made:
    names = ["fast", "medium", "slow"]
    return made(ListOutputs(), normal((2,)), zeros(3, 2), output_names=names)


@dataclass(frozen=True)
class Detection:
    score: Tensor
    label: Tensor
    boxes: dict[str, Tensor]


class DataclassOutputs(nn.Module):
    """A tracker whose outputs are a frozen dataclass with a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 8), nn.Linear(8, 3 + 4)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Detection, Tensor]:
        h = self.cell(x, h)
        logits, box = self.head(h).split((3, 4), -1)
        score, label = logits.softmax(-1).max(-1)
        center, size = box.chunk(2, -1)
        return Detection(score, label, {"low": center - size.exp(), "high": center + size.exp()}), h


def make_dataclass_as_outputs() -> Made:
    torch.manual_seed(0)
    return made(DataclassOutputs(), normal((5,)), zeros(8))


class Mixed(nn.Module):
    """A torch.nn.GRU with state [layers, B, hidden], and a batch-first window and counter."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 10, num_layers=2), nn.Linear(10, 1)

    def forward(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        window = torch.cat((state["window"][:, 1:], x[:, None]), 1)
        y, h = self.rnn(window.flatten(1)[None], state["rnn"][0])
        return self.head(y[0]), {"rnn": [h], "window": window, "count": state["count"] + 1}


def make_batch_axis_in_a_dict() -> Made:
    torch.manual_seed(0)
    state = {
        "rnn": [torch.zeros(2, 8, 10)],
        "window": zeros(3, 2),
        "count": zeros(dtype=torch.int64),
    }
    axes = {"rnn": [1], "window": 0, "count": 0}
    return made(Mixed(), normal((2,)), state, batch_axis=axes)


class ColumnState(nn.Module):
    """Keeps its state as columns [H, B], and a delay as [T, B, I]."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 6) * 0.3)

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        h, delay = state
        h = torch.tanh(self.w @ h + delay[0].T)
        return h.T, (h, torch.cat((delay[1:], x[None])))


def make_batch_axis_in_a_tuple() -> Made:
    torch.manual_seed(0)
    state = (torch.zeros(6, 8), torch.zeros(3, 8, 6))
    return made(ColumnState(), normal((6,)), state, batch_axis=(1, 1))


class LastAxis(nn.Module):
    """One leaf with the batch as its last axis."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.8 * h + 0.2 * x.permute(1, 2, 0)
        return h.sum(0).T, h


def make_batch_axis_at_the_end() -> Made:
    return made(LastAxis(), normal((2, 3)), torch.zeros(2, 3, 8), batch_axis=2)


class AddInPlace(nn.Module):
    """Multiplies and adds in place, and returns the tensor that it was given."""

    def forward(self, x: Tensor, total: Tensor) -> Pair:
        total.mul_(0.9).add_(x, alpha=0.1)
        return total * 2, total


def make_state_added_in_place() -> Made:
    return made(AddInPlace(), normal((3,)), zeros(3))


class CopyInPlace(nn.Module):
    """Copies the next state into the tensors of the last, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 6)

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        before = state["h"].clone()
        h, c = self.cell(x, (state["h"], state["c"]))
        state["h"].copy_(h)
        state["c"].copy_(c)
        return h - before, state


def make_state_copied_in_place() -> Made:
    torch.manual_seed(0)
    return made(CopyInPlace(), normal((3,)), {"h": zeros(6), "c": zeros(6)})


class IndexInPlace(nn.Module):
    """Shifts a buffer by assignment to its columns, and scales one of them."""

    def forward(self, x: Tensor, buffer: Tensor) -> Pair:
        buffer[:, :-1] = buffer[:, 1:].clone()
        buffer[:, -1] = x
        buffer[:, 0] *= 0.5
        return buffer.mean(1), buffer


def make_state_assigned_by_index() -> Made:
    return made(IndexInPlace(), normal((2,)), zeros(4, 2))


class PointerInPlace(nn.Module):
    """Writes to a ring at each row's own position, by assignment with index tensors."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Pair]:
        ring, position = state
        ring[torch.arange(x.shape[0]), position] = x
        position += 1
        position %= 5
        return ring.sum(1), (ring, position)


def make_ring_assigned_at_positions() -> Made:
    state = (zeros(5, 2), zeros(dtype=torch.int64))
    return made(PointerInPlace(), normal((2,)), state)


class EntriesInPlace(nn.Module):
    """Replaces the entries of the dict that it was given, and keeps a queue by pop and append."""

    def forward(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        oldest = state["queue"].pop(0)
        state["queue"].append(x)
        state["sum"] = state["sum"] + x - oldest
        return state["sum"] / 3, state


def make_containers_changed_in_place() -> Made:
    state = {"queue": [zeros(2), zeros(2), zeros(2)], "sum": zeros(2)}
    return made(EntriesInPlace(), normal((2,)), state)


class NormaliseInPlace(nn.Module):
    """Standardises its input in place before a GRU reads it, and clips a second."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 8)

    def forward(self, x: Tensor, y: Tensor, h: Tensor) -> Pair:
        x -= x.mean(1, keepdim=True)
        x /= x.std(1, keepdim=True) + 1e-3
        y.clamp_(-1, 1)
        h = self.cell(torch.cat((x, y), 1), h)
        return h, h


def make_inputs_changed_in_place() -> Made:
    torch.manual_seed(0)
    return made(NormaliseInPlace(), normal((3,), (2,), mean=2), zeros(8))


class LearnedStart(nn.Module):
    """A GRU that learns its first state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.start = nn.GRUCell(3, 6), nn.Parameter(torch.randn(1, 6))

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = self.cell(x, h)
        return h, h


def make_learned_initial_state() -> Made:
    torch.manual_seed(0)
    module = LearnedStart()
    return made(module, normal((3,)), module.start.expand(8, -1))


def make_parameter_as_initial_state() -> Made:
    torch.manual_seed(0)
    return made(LearnedStart(), normal((3,)), nn.Parameter(zeros(6)))


class Narrow(NamedTuple):
    seen: Tensor  # bool
    level: Tensor  # int8
    total: Tensor  # int16
    code: Tensor  # uint8


class NarrowLeaves(nn.Module):
    """State leaves of bool, int8, int16 and uint8, with clamps and wrap-around."""

    def forward(self, level: Tensor, on: Tensor, state: Narrow) -> tuple[Tensor, Narrow]:
        seen = state.seen | on
        step = torch.sign(level - state.level.float()).to(torch.int8)
        after = (state.level + step).clamp(-100, 100)
        total = torch.where(on, state.total + 3, state.total // 2)
        code = state.code * 2 + on
        return torch.where(seen, after.float(), 0.0), Narrow(seen, after, total, code)


def make_narrow_leaves() -> Made:
    state = Narrow(
        zeros(2, dtype=torch.bool),
        zeros(2, dtype=torch.int8),
        zeros(2, dtype=torch.int16),
        zeros(2, dtype=torch.uint8),
    )
    fresh = joined(normal((2,), spread=20), flags((2,), share=0.6))
    return made(NarrowLeaves(), fresh, state)


class NarrowInputs(nn.Module):
    """Inputs of int8, int16, int32 and uint8, gathered to a float32 mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([0.5, 0.01, 1e-4, 0.25]))

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, mean: Tensor) -> Pair:
        x = torch.stack([value.to(mean.dtype) for value in (a, b, c, d)], -1) * self.scale
        mean = mean + (x - mean) / 16
        return x - mean, mean


def make_narrow_inputs() -> Made:
    fresh = joined(
        integers((), low=-128, high=128, dtype=torch.int8),
        integers((), low=-3000, high=3000, dtype=torch.int16),
        integers((), low=-100_000, high=100_000, dtype=torch.int32),
        integers((), high=256, dtype=torch.uint8),
    )
    return made(NarrowInputs(), fresh, zeros(4))


class Variadic(nn.Module):
    """Takes its inputs as *arguments, the state last."""

    def forward(self, *arguments: Tensor) -> Pair:
        *inputs, h = arguments
        h = 0.9 * h + sum(inputs) / len(inputs)
        return h, h


def make_variadic_arguments() -> Made:
    return made(Variadic(), normal((3,), (3,), (3,)), zeros(3))


class DefaultArguments(nn.Module):
    """Has optional arguments after the state, which one step does not give."""

    def forward(self, x: Tensor, h: Tensor, scale: float = 0.5, mask: Tensor | None = None) -> Pair:
        h = torch.tanh(h * scale + x)
        if mask is not None:
            h = h * mask
        return h, h


def make_optional_arguments_after_the_state() -> Made:
    return made(DefaultArguments(), normal((3,)), zeros(3))


class Views(nn.Module):
    """Returns views of one tensor: chunks, a transpose and an expanded column."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Any, Pair]:
        joined_state = torch.tanh(torch.cat(state, -1).roll(1, -1) * 0.9 + x)
        a, b = joined_state.chunk(2, -1)
        grid = joined_state.view(-1, 2, 3).transpose(1, 2)
        return (grid, a[:, :1].expand(-1, 4)), (a, b)


def make_views_as_results() -> Made:
    return made(Views(), normal((6,)), (zeros(3), zeros(3)))


class ConstantOutput(nn.Module):
    """One output is the same for all inputs and another repeats an input."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        h = 0.5 * h + x
        return {"h": h, "ones": torch.ones_like(h), "x": x}, h


def make_constant_output() -> Made:
    return made(ConstantOutput(), uniform((3,)), zeros(3))


class Spring(nn.Module):
    """A damped spring, whose outputs are a tuple of one."""

    def forward(self, force: Tensor, state: Pair) -> tuple[tuple[Tensor], Pair]:
        x, v = state
        x, v = x + 0.1 * v, v + 0.1 * (force - x - 0.5 * v)
        return (x,), (x, v)


def make_tuple_of_one_output() -> Made:
    state = (torch.full((8,), 0.5), zeros())
    return made(Spring(), normal(()), state)


CASES = [
    Case(make_dict_in_another_order),
    Case(make_ordered_dict),
    Case(make_nested_dict_with_odd_names),
    Case(make_list_as_state),
    Case(make_dataclass_with_a_list),
    Case(make_dataclass_changed_in_place),
    Case(make_named_tuple_in_dict),
    Case(make_single_tensor),
    Case(make_unchanged_tensors),
    Case(make_leaves_that_are_not_touched),
    Case(make_nested_outputs),
    Case(make_list_as_outputs),
    Case(make_dataclass_as_outputs),
    Case(make_batch_axis_in_a_dict),
    Case(make_batch_axis_in_a_tuple),
    Case(make_batch_axis_at_the_end),
    Case(make_state_added_in_place),
    Case(make_state_copied_in_place),
    Case(make_state_assigned_by_index),
    Case(make_ring_assigned_at_positions),
    Case(make_containers_changed_in_place),
    Case(make_inputs_changed_in_place),
    Case(make_learned_initial_state),
    Case(make_parameter_as_initial_state),
    Case(make_narrow_leaves),
    Case(make_narrow_inputs),
    Case(make_variadic_arguments),
    Case(make_optional_arguments_after_the_state),
    Case(make_views_as_results),
    Case(make_constant_output),
    Case(make_tuple_of_one_output),
]

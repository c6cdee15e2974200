"""Steps that must be refused, with an error that says why."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Case, Made, made, normal, zeros

Pair = tuple[Tensor, Tensor]


def simple(module: nn.Module, state: Any = None, **settings: Any) -> Made:
    """With one input [B, 3] and, unless another is given, a state [B, 3]."""
    return made(module, normal((3,)), zeros(3) if state is None else state, **settings)


class HiddenCount(nn.Module):
    """Warms its filter up by a count of its own steps."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor, mean: Tensor) -> Pair:
        self.count += 1
        mean = mean + (x - mean) / min(self.count, 20)
        return mean, mean


def make_hidden_count() -> Made:
    return simple(HiddenCount())


class HiddenMean(nn.Module):
    """Subtracts a running mean, which it updates in a buffer at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        self.running_mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        h = 0.5 * h + x
        return h - self.running_mean, h


def make_hidden_running_mean() -> Made:
    return simple(HiddenMean(), independent_rows=False)


class HiddenHistory(nn.Module):
    """Averages its last inputs, which it keeps in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Tensor] = []

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        self.history = [*self.history[-3:], x.mean(0)]
        h = 0.5 * h + x
        return h + torch.stack(self.history).mean(0), h


def make_hidden_history() -> Made:
    return simple(HiddenHistory(), independent_rows=False)


class AppendedHistory(nn.Module):
    """Looks at its input of the step before, in a list that it appends to."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        before = self.inputs[-1] if self.inputs else torch.zeros_like(x)
        self.inputs.append(x)
        h = 0.5 * h + x
        return h - (before if before.shape == h.shape else 0), h


def make_hidden_list_of_inputs() -> Made:
    return simple(AppendedHistory())


class Memory(nn.Module):
    """A GRU cell that keeps its own state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.memory = nn.GRUCell(3, 6), None

    def forward(self, x: Tensor) -> Tensor:
        if self.memory is None or self.memory.shape[0] != x.shape[0]:
            self.memory = x.new_zeros(x.shape[0], 6)
        self.memory = self.cell(x, self.memory)
        return self.memory


class HiddenInside(nn.Module):
    """A part of it has a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Memory(), nn.Linear(6, 3)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + self.head(self.encoder(x))
        return h, h


def make_hidden_memory_of_a_part() -> Made:
    torch.manual_seed(0)
    return simple(HiddenInside())


class HiddenDict(nn.Module):
    """Keeps the last output in a dict, and adds it to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = {"last": torch.zeros(3)}

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x + 0.1 * self.cache["last"]
        self.cache["last"] = h.mean(0)
        return h, h


def make_hidden_dict() -> Made:
    return simple(HiddenDict(), independent_rows=False)


class LearnsAsItRuns(nn.Module):
    """Changes a parameter at each step (Hebbian learning)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3) * 0.5)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = torch.tanh(h @ self.weight + x)
        with torch.no_grad():
            self.weight.lerp_((h.T @ x) / x.shape[0], 0.05)
        return h, h


def make_hidden_learning() -> Made:
    return simple(LearnsAsItRuns(), independent_rows=False)


class LateMemory(nn.Module):
    """Its gain falls after a hundred steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_done = 0

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        self.steps_done += 1
        h = 0.5 * h + (x if self.steps_done < 100 else 0.1 * x)
        return h, h


def make_hidden_count_that_matters_late() -> Made:
    return simple(LateMemory())


class GaussianNoise(nn.Module):
    """Adds noise to its state."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x + 0.1 * torch.randn_like(x)
        return h, h


def make_random_noise() -> Made:
    return simple(GaussianNoise())


class MonteCarloDropout(nn.Module):
    """Keeps dropout at work in evaluation."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + F.dropout(x, 0.2, training=True)
        return h, h


def make_random_dropout() -> Made:
    return simple(MonteCarloDropout())


class SampledAction(nn.Module):
    """Samples an action from its logits."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = 0.5 * h + x
        return torch.multinomial(h.softmax(-1), 1), h


def make_random_action() -> Made:
    return simple(SampledAction())


class DistributionSample(nn.Module):
    """Samples a Gaussian by torch.distributions."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return torch.distributions.Normal(h, 1.0, validate_args=False).rsample(), h


def make_random_distribution() -> Made:
    return simple(DistributionSample())


class StochasticDepth(nn.Module):
    """Draws a number of Python's at each step."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + (1 + random.random()) * x
        return h, h


def make_random_number_of_python() -> Made:
    return simple(StochasticDepth())


class NumpyNoise(nn.Module):
    """Draws noise from NumPy's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x + float(self.rng.normal())
        return h, h


def make_random_number_of_numpy() -> Made:
    return simple(NumpyNoise())


class Centred(nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return h - h.mean(0), h


def make_rows_minus_their_mean() -> Made:
    return simple(Centred())


class SoftmaxOverRows(nn.Module):
    """A softmax along the wrong axis."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return F.softmax(h, dim=0), h


def make_rows_by_softmax() -> Made:
    return simple(SoftmaxOverRows())


class LargestRow(nn.Module):
    """Scales the state by the largest value of the batch."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return x, h / h.abs().max().clamp(min=1)


def make_rows_by_their_maximum() -> Made:
    return simple(LargestRow())


class Shifted(nn.Module):
    """Gives each row the state of the row before."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h.roll(1, 0) + x
        return h, h


def make_rows_shifted() -> Made:
    return simple(Shifted())


class FirstRow(nn.Module):
    """Compares every row with the first."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return h - h[:1], h


def make_rows_minus_the_first() -> Made:
    return simple(FirstRow())


class NumberedRows(nn.Module):
    """Adds its number to each row."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return h + torch.arange(x.shape[0])[:, None], h


def make_rows_with_their_numbers() -> Made:
    return simple(NumberedRows())


class BatchStatistics(nn.Module):
    """Its normalisation stays in training mode whatever the module is told."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def train(self, mode: bool = True) -> BatchStatistics:
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + self.norm(x)
        return h, h


def make_rows_by_batch_norm_in_training() -> Made:
    return simple(BatchStatistics())


class PooledRows(nn.Module):
    """One output is a mean over the batch, without an axis for it."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Pair, Tensor]:
        h = 0.5 * h + x
        return (h, h.mean()), h


def make_output_without_rows() -> Made:
    return simple(PooledRows())


class DoubledRows(nn.Module):
    """Returns two rows for each."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return torch.cat((h, -h)), h


def make_output_with_more_rows() -> Made:
    return simple(DoubledRows())


class Decides(nn.Module):
    """Takes a branch by the sum of its inputs."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = h + x if x.sum() > 0 else 0.5 * h
        return h, h


def make_branch_on_a_value() -> Made:
    return simple(Decides(), independent_rows=False)


class Iterates(nn.Module):
    """Halves its state until it is small."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = h + x
        while h.norm() > 5:
            h = h / 2
        return h, h


def make_loop_until_a_value() -> Made:
    return simple(Iterates(), independent_rows=False)


class Items(nn.Module):
    """Reads a number out of a tensor and computes with Python's mathematics."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        scale = max(1.0, h.abs().max().item())
        return h / scale, h


def make_item_of_a_tensor() -> Made:
    return simple(Items(), independent_rows=False)


class ThroughNumpy(nn.Module):
    """Computes a part of its step in NumPy."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return torch.from_numpy(np.sort(h.detach().numpy(), axis=1)), h


def make_computation_in_numpy() -> Made:
    return simple(ThroughNumpy())


class LoopsOverRows(nn.Module):
    """Runs a cell for each row in a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        rows = []
        for row in range(len(x)):
            rows.append(self.cell(x[row], h[row]))
        h = torch.stack(rows)
        return h, h


def make_loop_over_rows() -> Made:
    torch.manual_seed(0)
    return simple(LoopsOverRows())


class UnpacksRows(nn.Module):
    """Goes through the rows of its input as an iterable."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + torch.stack([row / row.norm() for row in x])
        return h, h


def make_loop_over_a_tensor() -> Made:
    return simple(UnpacksRows())


class FixedBatch(nn.Module):
    """Was written for batches of eight."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x.view(8, 3)
        return h, h


def make_fixed_batch() -> Made:
    return simple(FixedBatch())


class LazyState(nn.Module):
    """Starts from None."""

    def forward(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        h = state["h"] if state["last"] is None else state["h"] + state["last"]
        return h, {"h": 0.5 * h + x, "last": x}


def make_none_in_state() -> Made:
    return simple(LazyState(), {"h": zeros(3), "last": None})


class LosesLeaf(nn.Module):
    """Its next state has None in place of a tensor."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        return x, (state[0] + x, None)


def make_none_in_next_state() -> Made:
    return simple(LosesLeaf(), (zeros(3), zeros(3)))


class NoneOutput(nn.Module):
    """Returns no attention weights."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[tuple[Tensor, None], Tensor]:
        h = 0.5 * h + x
        return (h, None), h


def make_none_in_outputs() -> Made:
    return simple(NoneOutput())


class StepNumber(nn.Module):
    """Has a Python number in its state."""

    def forward(self, x: Tensor, state: tuple[Tensor, int]) -> tuple[Tensor, tuple[Tensor, int]]:
        h, step = state
        h = h + (x - h) / (step + 1)
        return h, (h, step + 1)


def make_number_in_state() -> Made:
    return simple(StepNumber(), (zeros(3), 0))


class NumberOutput(nn.Module):
    """Returns a Python float beside its tensor."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[dict[str, Any], Tensor]:
        h = 0.5 * h + x
        return {"h": h, "rate": 0.5}, h


def make_number_in_outputs() -> Made:
    return simple(NumberOutput())


class TextOutput(nn.Module):
    """Returns the name of a mode."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[tuple[Tensor, str], Tensor]:
        h = 0.5 * h + x
        return (h, "tracking"), h


def make_text_in_outputs() -> Made:
    return simple(TextOutput())


class ArrayOutput(nn.Module):
    """Returns a NumPy array of constants."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Any, Tensor]:
        h = 0.5 * h + x
        return (h, np.zeros(3, np.float32)), h


def make_array_in_outputs() -> Made:
    return simple(ArrayOutput())


class Grows(nn.Module):
    """Appends each input to its state."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        return x, torch.cat((h, x), 1)


def make_next_state_of_another_shape() -> Made:
    return simple(Grows())


class Widens(nn.Module):
    """Its counter is divided, and so becomes a float."""

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        return x, count / 2 + 1


def make_next_state_of_another_dtype() -> Made:
    return simple(Widens(), zeros(3, dtype=torch.int64))


class AddsLeaf(nn.Module):
    """Returns a state with one leaf more."""

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, tuple[Tensor, ...]]:
        h = state[0] + x
        return h, (h, state[1], x)


def make_next_state_of_another_structure() -> Made:
    return simple(AddsLeaf(), (zeros(3), zeros(3)))


class RenamesLeaf(nn.Module):
    """Returns a dict with another key."""

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = state["h"] + x
        return h, {"hidden": h}


def make_next_state_with_another_key() -> Made:
    return simple(RenamesLeaf(), {"h": zeros(3)})


class OnlyState(nn.Module):
    """Returns its state and no output."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return 0.5 * h + x


def make_one_result() -> Made:
    return simple(OnlyState())


class ThreeResults(nn.Module):
    """Returns outputs and the two leaves of its state side by side."""

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Tensor, Tensor]:
        h, c = state
        return h, h + x, c


def make_three_results() -> Made:
    return simple(ThreeResults(), (zeros(3), zeros(3)))


class TwoStates(nn.Module):
    """Takes its two state tensors as two arguments."""

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Pair]:
        return h, (h + x, c)


def make_two_positional_states() -> Made:
    return simple(TwoStates(), (zeros(3), zeros(3)))


class NoState(nn.Module):
    """Has an empty tuple as state."""

    def forward(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return 2 * x, ()


def make_empty_state() -> Made:
    return simple(NoState(), ())


class Leaky(nn.Module):
    """A step that can be exported as it is."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return h, h


def make_unequal_rows_of_state() -> Made:
    return simple(Leaky(), torch.arange(24.0).view(8, 3))


def make_fewer_rows_of_state() -> Made:
    return simple(Leaky(), torch.zeros(1, 3))


class Layers(nn.Module):
    """A torch.nn.GRU inside, whose state has the batch as its second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 5, num_layers=2)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        y, h = self.rnn(x[None], h)
        return y[0], h


def make_layers_without_batch_axis() -> Made:
    torch.manual_seed(0)
    return simple(Layers(), torch.zeros(2, 8, 5))


def make_batch_axis_that_is_not_there() -> Made:
    torch.manual_seed(0)
    return simple(Layers(), torch.zeros(2, 8, 5), batch_axis=3)


def make_batch_axis_of_another_structure() -> Made:
    torch.manual_seed(0)
    return simple(Layers(), torch.zeros(2, 8, 5), batch_axis={"h": 1})


class Scripted(nn.Module):
    """A step for TorchScript."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return h, h


def make_scripted_module() -> Made:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and in use
        return simple(torch.jit.script(Scripted()))


def make_traced_part() -> Made:
    torch.manual_seed(0)
    module = Scripted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.cell = torch.jit.trace(module.cell, (torch.zeros(2, 3), torch.zeros(2, 3)))
    return simple(module)


class WithLinear(nn.Module):
    """A step with linear layers to quantise."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = torch.tanh(self.x(x) + self.h(h))
        return h, h


def make_quantised_module() -> Made:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and in use
        return simple(torch.ao.quantization.quantize_dynamic(WithLinear(), {nn.Linear}))


class SparseOutput(nn.Module):
    """Returns a sparse tensor."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return F.relu(h).to_sparse(), h


def make_sparse_output() -> Made:
    return simple(SparseOutput())


class ComplexOutput(nn.Module):
    """Returns a spectrum."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return torch.fft.rfft(h), h


def make_complex_output() -> Made:
    return simple(ComplexOutput())


class ComplexState(nn.Module):
    """Rotates a complex state."""

    def forward(self, x: Tensor, z: Tensor) -> Pair:
        z = z * torch.polar(torch.tensor(0.9), torch.tensor(0.3)) + x
        return z.real, z


def make_complex_state() -> Made:
    return simple(ComplexState(), zeros(3, dtype=torch.complex64))


class Fails(nn.Module):
    """Expects five features where there are three."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 3)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = self.cell(x, h)
        return h, h


def make_step_that_fails() -> Made:
    return simple(Fails())


class Growing(nn.Module):
    """Keeps the readings above zero, however many they are."""

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.5 * h + x
        return h[h > 0], h


def make_output_whose_size_depends_on_values() -> Made:
    return simple(Growing())


CASES = [
    Case(make_hidden_count, refused=r"count"),
    Case(make_hidden_running_mean, refused=r"running_mean"),
    Case(make_hidden_history, refused=r"history"),
    Case(make_hidden_list_of_inputs, refused=r"inputs"),
    Case(make_hidden_memory_of_a_part, refused=r"encoder\.memory"),
    Case(make_hidden_dict, refused=r"cache"),
    Case(make_hidden_learning, refused=r"weight"),
    Case(make_hidden_count_that_matters_late, refused=r"steps_done"),
    Case(make_random_noise, refused=r"(?i)random"),
    Case(make_random_dropout, refused=r"(?i)random"),
    Case(make_random_action, refused=r"(?i)random"),
    Case(make_random_distribution, refused=r"(?i)random"),
    Case(make_random_number_of_python, refused=r"(?i)random|differ"),
    Case(make_random_number_of_numpy, refused=r"(?i)random|differ|rng"),
    Case(make_rows_minus_their_mean, refused=r"rows"),
    Case(make_rows_by_softmax, refused=r"rows"),
    Case(make_rows_by_their_maximum, refused=r"rows"),
    Case(make_rows_shifted, refused=r"rows"),
    Case(make_rows_minus_the_first, refused=r"rows"),
    Case(make_rows_with_their_numbers, refused=r"rows"),
    Case(make_rows_by_batch_norm_in_training, refused=r"rows|norm|more than 1 value"),
    Case(make_output_without_rows, refused=r"rows|batch|shape"),
    Case(make_output_with_more_rows, refused=r"rows|batch|shape"),
    Case(make_branch_on_a_value, refused=r"value"),
    Case(make_loop_until_a_value, refused=r"value"),
    Case(make_item_of_a_tensor, refused=r"value|item"),
    Case(make_computation_in_numpy, refused=r"(?i)numpy|value|differ"),
    Case(make_loop_over_rows, refused=r"refused\.py:\d+"),
    Case(make_loop_over_a_tensor, refused=r"refused\.py:\d+"),
    Case(make_fixed_batch, refused=r"batch|rows|must return"),
    Case(make_none_in_state, refused=r"None"),
    Case(make_none_in_next_state, refused=r"None"),
    Case(make_none_in_outputs, refused=r"None"),
    Case(make_number_in_state, refused=r"number|int"),
    Case(make_number_in_outputs, refused=r"number|float"),
    Case(make_text_in_outputs, refused=r"str|text"),
    Case(make_array_in_outputs, refused=r"(?i)numpy|array|tensor"),
    Case(make_next_state_of_another_shape, refused=r"shape"),
    Case(make_next_state_of_another_dtype, refused=r"dtype|type|float32"),
    Case(make_next_state_of_another_structure, refused=r"structure|state"),
    Case(make_next_state_with_another_key, refused=r"structure|state"),
    Case(make_one_result, refused=r"must return"),
    Case(make_three_results, refused=r"must return"),
    Case(make_two_positional_states, refused=r"must return|argument"),
    Case(make_empty_state, refused=r"state"),
    Case(make_unequal_rows_of_state, refused=r"rows"),
    Case(make_fewer_rows_of_state, refused=r"rows|batch"),
    Case(make_layers_without_batch_axis, refused=r"batch_axis|rows|batch"),
    Case(make_batch_axis_that_is_not_there, refused=r"batch_axis"),
    Case(make_batch_axis_of_another_structure, refused=r"batch_axis"),
    Case(make_scripted_module, refused=r"(?i)torch\.?script|jit"),
    Case(make_traced_part, refused=r"(?i)torch\.?script|jit"),
    Case(make_quantised_module, refused=r"(?i)quanti[sz]"),
    Case(make_sparse_output, refused=r"sparse"),
    Case(make_complex_output, refused=r"complex"),
    Case(make_complex_state, refused=r"complex"),
    Case(make_step_that_fails, refused=r"must return|input"),
    Case(make_output_whose_size_depends_on_values, refused=r"value|shape|rows|data-dependent"),
]

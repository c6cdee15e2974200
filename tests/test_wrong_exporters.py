"""Mistakes that were planted in the exporter: the proof catches each, says what is wrong, and no
file is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.errors import VerificationError
from zoo.inference.artifact import GENERATE, SEQUENCE, STEP, ArtifactInfo, StateEntry
from zoo.models.language_model import LanguageModel
from zoo_onnx import export_step, exporter, sampler, tables
from zoo_onnx.tracing import trace
from zoo_ort import open_module

ROWS, TRACED_ROWS = 8, 3
START = 1_700_000_000_000_000_000  # nanoseconds since 1970

Values = tuple[Tensor, ...]
Step = Callable[..., Values]
Change = Callable[..., Values]
Edit = Callable[[ir.Graph], object]
Measure = Callable[[Tensor, Tensor], Any]
Trained = Callable[..., zoo.Run]


class Tracked(NamedTuple):
    clock: Tensor  # [B], int64
    fast: Tensor  # [B, 6]
    slow: Tensor  # [B, 6]


class Tracker(nn.Module):
    """Position and velocity from four readings, by two recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = nn.GRUCell(4, 6), nn.GRUCell(6, 6)
        self.position, self.velocity = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor, state: Tracked) -> tuple[dict[str, Tensor], Tracked]:
        fast = self.fast(x, state.fast)
        slow = self.slow(fast, state.slow)
        found = {"position": self.position(slow), "velocity": self.velocity(slow)}
        return found, Tracked(state.clock + 10_000_001, fast, slow)


def export_tracker() -> None:
    torch.manual_seed(0)
    state = Tracked(torch.full((ROWS,), START), torch.zeros(ROWS, 6), torch.zeros(ROWS, 6))
    export_step(Tracker(), torch.randn(ROWS, 4), state, "step.onnx")


class Changed(nn.Module):
    """A flat step whose results are those of `change(step, *arguments)`."""

    def __init__(self, step: nn.Module, change: Change) -> None:
        super().__init__()
        self.step, self.change = step, change

    def forward(self, *values: Tensor) -> Values:
        return tuple(value.clone() for value in self.change(self.step, *values))


@pytest.fixture
def change_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Has the graph compute something else than the step."""

    def plant(change: Change) -> None:
        monkeypatch.setattr(
            "zoo_onnx.modules.trace", lambda step, *rest: trace(Changed(step, change), *rest)
        )

    return plant


@pytest.fixture
def edit_graph(monkeypatch: pytest.MonkeyPatch) -> Callable[[Edit], None]:
    """Has a traced graph edited."""

    def plant(edit: Edit) -> None:
        def traced(*arguments: Any) -> ir.Model:
            model = trace(*arguments)
            edit(model.graph)
            return model

        monkeypatch.setattr("zoo_onnx.modules.trace", traced)

    return plant


def require_refused(export: Callable[[], object], told: str, file: str = r"step\.onnx") -> None:
    before = set(Path().iterdir())
    with pytest.raises(VerificationError, match=rf"^{file} was not written: {told}"):
        export()
    assert set(Path().iterdir()) == before


def name_of(value: Any) -> str:
    """In the name of a test; messages are left out."""
    return value if value in exporter.TRACED else getattr(value, "__name__", "")


# the results of a step


def nothing(step: Step, *values: Tensor) -> Values:
    return step(*values)


def state_is_one_step_late(step: Step, x: Tensor, *state: Tensor) -> Values:
    return *step(x, *state)[:2], *state


def layers_have_the_others_state(
    step: Step, x: Tensor, clock: Tensor, fast: Tensor, slow: Tensor
) -> Values:
    return step(x, clock, slow, fast)


def outputs_are_swapped(step: Step, *values: Tensor) -> Values:
    position, velocity, *after = step(*values)
    return velocity, position, *after


def rows_are_rolled(step: Step, *values: Tensor) -> Values:
    position, *others = step(*values)
    return position.roll(-1, 0), *others


def rows_beyond_the_traced_are_lost(step: Step, *values: Tensor) -> Values:
    position, *others = step(*values)
    kept = torch.arange(position.shape[0]) < TRACED_ROWS
    return position * kept[:, None], *others


def clock_is_float32(step: Step, x: Tensor, clock: Tensor, *others: Tensor) -> Values:
    return step(x, clock.to(torch.float32).to(torch.int64), *others)


def clock_is_float64(step: Step, x: Tensor, clock: Tensor, *others: Tensor) -> Values:
    return step(x, clock.to(torch.float64).to(torch.int64), *others)


def test_the_step_without_a_mistake_passes(change_step: Callable[[Change], None]) -> None:
    change_step(nothing)
    export_tracker()
    assert open_module("step.onnx").init_state(1)[0] == START


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (state_is_one_step_late, rf"clock\[0\] is {START} and should be {START + 10_000_001}"),
        (layers_have_the_others_state, r"(position|velocity|fast|slow)\[\d\] is"),
        (outputs_are_swapped, r"(position|velocity)\[\d\] is"),
        (rows_are_rolled, r"position\[\d\] is .* at batch size 5"),
        (
            rows_beyond_the_traced_are_lost,
            r"position\[\d\] is -?0 and should be .* at batch size 5",
        ),
        (clock_is_float32, r"clock\[0\] is \d+ and should be \d+, at step 0 of"),
        (clock_is_float64, r"clock\[0\] is \d+ and should be \d+, at step 1 of"),
    ],
    ids=name_of,
)
def test_wrong_results_of_a_step(
    change: Change, told: str, change_step: Callable[[Change], None]
) -> None:
    change_step(change)
    require_refused(export_tracker, told)


# weights and shapes


def map_weights(graph: ir.Graph, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for name, value in graph.initializers.items():
        assert value.const_value is not None
        weight = value.const_value.numpy()
        if weight.dtype == np.float32:
            value.const_value = ir.tensor(change(weight), name=name)


def map_constant(node: ir.Node, index: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    value.const_value = ir.tensor(change(value.const_value.numpy()), name=value.name)


def gates_are_swapped(graph: ir.Graph) -> None:
    """The reset gates and the update gates of GRUs, whose weights stand one behind the other."""

    def swap(weight: np.ndarray) -> np.ndarray:
        for axis, size in enumerate(weight.shape):
            if size in (18, 72):  # three gates
                reset, update, new = np.split(weight, 3, axis)
                return np.concatenate((update, reset, new), axis)
        return weight

    map_weights(graph, swap)


def bias_is_dropped(graph: ir.Graph) -> None:
    map_weights(graph, lambda weight: weight * 0 if weight.shape == (2,) else weight)


def weights_are_float16(graph: ir.Graph) -> None:
    map_weights(graph, lambda weight: weight.astype(np.float16).astype(np.float32))


def batch_is_in_a_reshape(graph: ir.Graph) -> None:
    insert(graph, "Reshape", np.array([TRACED_ROWS, 4]))


def batch_is_in_a_constant(graph: ir.Graph) -> None:
    insert(graph, "Add", np.zeros((TRACED_ROWS, 4), np.float32))


def later_rows_are_changed(graph: ir.Graph) -> None:
    """Any number of rows, of which those that the trace did not have are wrong."""
    x = graph.inputs[0]
    uses = list(x.uses())
    changes = np.zeros((99, 4), np.float32)
    changes[TRACED_ROWS:] = 1
    rows = ir.node("Shape", [x], {"end": 1}, name="rows")
    constants = [
        tables.make_initializer(graph, name, value)
        for name, value in (("changes", changes), ("zero", np.array([0])))
    ]
    part = ir.node("Slice", [constants[0], constants[1], rows.outputs[0]], name="part")
    changed = ir.node("Add", [x, part.outputs[0]], name="planted")
    graph.insert_before(graph.node(0), [rows, part, changed])
    for consumer, index in uses:
        consumer.replace_input_with(index, changed.outputs[0])


def insert(graph: ir.Graph, operator: str, constant: np.ndarray) -> None:
    """Has the first input pass through an operator."""
    other = tables.make_initializer(graph, "planted", constant)
    x = graph.inputs[0]
    uses = list(x.uses())
    node = ir.node(operator, [x, other], name="planted")
    graph.insert_before(graph.node(0), node)
    for consumer, index in uses:
        consumer.replace_input_with(index, node.outputs[0])


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (gates_are_swapped, r"(fast|slow|position|velocity)\[\d\] is"),
        (bias_is_dropped, r"(position|velocity)\[\d\] is"),
        (weights_are_float16, r"(fast|slow|position|velocity)\[\d\] is"),
        (batch_is_in_a_reshape, r".*position', float32 \[3, 2\] where its metadata says"),
        (batch_is_in_a_constant, r".*position', float32 \[3, 2\] where its metadata says"),
        (later_rows_are_changed, r"(fast|slow|position|velocity)\[\d\] is"),
    ],
    ids=name_of,
)
def test_wrong_weights_and_shapes(
    edit: Edit, told: str, edit_graph: Callable[[Edit], None]
) -> None:
    edit_graph(edit)
    require_refused(export_tracker, told)


# operators


class Meter(nn.Module):
    """What is measured on a frame of eight samples and six codes; the state is a dose with a limit,
    which is reached after some 200 steps."""

    limit = 2.0

    @staticmethod
    def measure(frame: Tensor, codes: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, frame: Tensor, codes: Tensor, dose: Tensor) -> tuple[Any, Tensor]:
        dose = (dose + 0.01 * frame.abs().mean(-1)).clamp(max=self.limit)
        return self.measure(frame, codes), dose


def export_meter() -> None:
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(ROWS, 8, generator=generator)
    frame[2] = 0  # silence
    frame[5] = 2 + 1e-3 * frame[5]  # hardly any variance
    codes = torch.randint(-6, 7, (ROWS, 6), generator=generator, dtype=torch.int32)
    codes[:4, 1] = codes[:4, 4] = -6
    export_step(Meter(), (frame, codes), torch.zeros(ROWS), "step.onnx")


@pytest.fixture
def change_meter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has Meter measure `right`, and something else or with another limit while it is traced."""

    def plant(right: Measure, wrong: Measure, limit: float = Meter.limit) -> None:
        def traced(*arguments: Any) -> ir.Model:
            with monkeypatch.context() as patch:
                patch.setattr(Meter, "measure", staticmethod(wrong))
                patch.setattr(Meter, "limit", limit)
                return trace(*arguments)

        monkeypatch.setattr(Meter, "measure", staticmethod(right))
        monkeypatch.setattr("zoo_onnx.modules.trace", traced)

    return plant


def power(x: Tensor, n: Tensor) -> Tensor:
    return (x * x).mean(-1)


def similarity(x: Tensor) -> Tensor:
    return (x[:, 1:] * x[:, :-1]).sum(-1)


def normalised(x: Tensor, epsilon: float) -> Tensor:
    middle = x - x.mean(-1, keepdim=True)
    variance = (middle * middle).mean(-1, keepdim=True)
    return middle / (variance + epsilon).sqrt().clamp(min=1e-20)


def scaled(x: Tensor, small: float) -> Tensor:
    return torch.cat((x[:, :4] * 1e3, x[:, 4:] * small), -1)


# name: what the module measures, what the graph computes in its place, what the proof says
OPERATORS: dict[str, tuple[Measure, Measure, str]] = {
    "floor for half to even": (
        lambda x, n: torch.round(n / 2),
        lambda x, n: torch.floor(n / 2 + 0.5),
        r"output\[\d\] is -?\d and should be -?\d at step",
    ),
    "truncated division": (
        lambda x, n: torch.div(n, 4, rounding_mode="floor"),
        lambda x, n: torch.div(n, 4, rounding_mode="trunc"),
        r"output\[0, \d\] is (-1|0) and should be -[12], at step",
    ),
    "last index of the least": (
        lambda x, n: n.argmin(-1),
        lambda x, n: 5 - n.flip(-1).argmin(-1),
        r"output\[\d\] is \d and should be \d, at step",
    ),
    "logarithm of zero": (
        lambda x, n: power(x, n).clamp(min=1e-8).log10(),
        lambda x, n: power(x, n).log10(),
        r"output\[\d\] is -inf and should be -8\.0, at step",
    ),
    "zero divided by zero": (
        lambda x, n: torch.where(power(x, n) > 0, similarity(x) / power(x, n), power(x, n)),
        lambda x, n: similarity(x) / power(x, n),
        r"output\[\d\] is nan and should be 0\.0, at step",
    ),
    "no epsilon": (
        lambda x, n: normalised(x, 1e-5),
        lambda x, n: normalised(x, 0.0),
        r"output\[\d\] is",
    ),
    "GELU by tanh": (
        lambda x, n: F.gelu(x),
        lambda x, n: F.gelu(x, approximate="tanh"),
        r"output\[\d\] is",
    ),
    "hard sigmoid": (
        lambda x, n: x.sigmoid(),
        lambda x, n: F.hardsigmoid(x),
        r"output\[\d\] is",
    ),
    "rational tanh": (
        lambda x, n: x.tanh(),
        lambda x, n: (x * (27 + x * x) / (27 + 9 * x * x)).clamp(-1, 1),
        r"output\[\d\] is",
    ),
    "small beside large": (
        lambda x, n: scaled(x, 1e-3),
        lambda x, n: scaled(x, 1.05e-3),
        r"output\[[4-7]\] is",
    ),
}


@pytest.mark.slow
def test_operators_without_a_mistake_pass(change_meter: Callable[..., None]) -> None:
    def measure(x: Tensor, n: Tensor) -> dict[str, Tensor]:
        return {f"output{i}": right(x, n) for i, (right, _, _) in enumerate(OPERATORS.values())}

    change_meter(measure, measure)
    export_meter()
    assert len(open_module("step.onnx").info.outputs) == len(OPERATORS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_wrong_operators(name: str, change_meter: Callable[..., None]) -> None:
    right, wrong, told = OPERATORS[name]
    change_meter(right, wrong)
    require_refused(export_meter, told)


@pytest.mark.slow
def test_a_limit_that_matters_late(change_meter: Callable[..., None]) -> None:
    change_meter(power, power, limit=np.inf)
    require_refused(export_meter, r"state is 2\.\d+ and should be 2 at step 2\d\d of 256")


# language models


@pytest.fixture
def gru(trained: Trained) -> zoo.Run:
    """Two layers of 24 units."""
    return trained("gru", layers=2, epochs=2)


@pytest.fixture
def edit_trace(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Edit], None]:
    """Has the traced graph of a kind edited."""

    def plant(kind: str, edit: Edit) -> None:
        right = exporter.TRACED[kind]

        def traced(model: LanguageModel, info: ArtifactInfo, fused: bool) -> ir.Model:
            made = right(model, info, fused)
            edit(made.graph)
            return made

        monkeypatch.setitem(exporter.TRACED, kind, traced)

    return plant


def layers_have_the_others_states(graph: ir.Graph) -> None:
    _, first, second = graph.inputs
    uses = [(first, node, index) for node, index in second.uses()]
    uses += [(second, node, index) for node, index in first.uses()]
    for value, node, index in uses:
        node.replace_input_with(index, value)


def last_state_is_one_step_late(graph: ir.Graph) -> None:
    after = graph.outputs[-1]
    node = ir.node("Identity", [graph.inputs[-1]], name="planted")
    graph.append(node)
    graph.outputs[-1] = node.outputs[0]
    node.outputs[0].name, after.name = after.name, "unused"
    node.outputs[0].type, node.outputs[0].shape = after.type, after.shape


def head_has_no_bias(graph: ir.Graph) -> None:
    head = graph.outputs[0].producer()
    assert head is not None
    map_constant(head, -1, lambda bias: bias * 0)


def time_runs_backwards(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type == "Scan":
            node.attributes.add(ir.AttrInt64s("scan_input_directions", [1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "edit", "told"),
    [
        (STEP, gates_are_swapped, r"(logits|layer\d\.h)\[\d+\] is"),
        (STEP, layers_have_the_others_states, r"(logits|layer\d\.h)\[\d+\] is"),
        (STEP, last_state_is_one_step_late, r"layer1\.h\[\d+\] is"),
        (STEP, head_has_no_bias, r"logits\[\d+\] is"),
        (STEP, weights_are_float16, r"(logits|layer\d\.h)\[\d+\] is"),
        (SEQUENCE, gates_are_swapped, r"(logits|layer\d\.h)\[\d+\] is"),
        (SEQUENCE, layers_have_the_others_states, r"(logits|layer\d\.h)\[\d+\] is"),
        (SEQUENCE, time_runs_backwards, r"(logits|layer\d\.h)\[\d+\] is .* over steps"),
        (GENERATE, gates_are_swapped, r"(tokens has \d+ and should have|layer\d\.h\[\d+\] is) "),
        (GENERATE, last_state_is_one_step_late, r"layer1\.h\[\d+\] is"),
        (GENERATE, head_has_no_bias, r"tokens has \d+ and should have \d+"),
    ],
    ids=name_of,
)
def test_wrong_graphs_of_a_language_model(
    kind: str, edit: Edit, told: str, gru: zoo.Run, edit_trace: Callable[[str, Edit], None]
) -> None:
    edit_trace(kind, edit)
    require_refused(lambda: zoo.export(gru, graph=kind, out="out"), told, rf"{kind}\.onnx")


@pytest.mark.slow
def test_the_graphs_without_a_mistake_pass(
    gru: zoo.Run, edit_trace: Callable[[str, Edit], None]
) -> None:
    for kind in (STEP, SEQUENCE, GENERATE):
        edit_trace(kind, lambda graph: None)
    assert len(zoo.export_all(gru, out="out")) == 3


@pytest.mark.slow
def test_a_lower_precision_that_loses_a_state(
    gru: zoo.Run, edit_trace: Callable[[str, Edit], None]
) -> None:
    edit_trace(STEP, last_state_is_one_step_late)
    told = r"its precision costs \d\.\d+ bits per token"
    require_refused(lambda: zoo.export(gru, precision="int8", out="out"), told, r"step\.int8\.onnx")


@pytest.mark.slow
def test_a_lookup_table_that_is_off_by_one_token(
    gru: zoo.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tabulate(graph: ir.Graph, merged: bool) -> None:
        tables.tabulate(graph, merged)
        for node in graph:
            if node.op_type == "Gather":
                map_constant(node, 0, lambda table: np.roll(table, 1, 0))

    monkeypatch.setattr(exporter, "tabulate", tabulate)
    require_refused(lambda: zoo.export(gru, out="out"), r"(logits|layer0\.h)\[\d+\] is")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("scaled = Div (wide, heat)", "scaled = Mul (wide, heat)"),
        ("enough = Mul (best_total, share)", "enough = Identity (share)"),
        ("few_scaled = Div (few_wide, heat)", "few_scaled = Identity (few_wide)"),
        ("GreaterOrEqual (all_weights, least)", "Greater (all_weights, least)"),
        ("CumSum <exclusive = 1> (falling", "CumSum (falling"),
        ("best_token = ArgMax <axis", "best_token = ArgMin <axis"),
    ],
)
def test_a_wrong_sampler(
    right: str, wrong: str, gru: zoo.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert right in sampler.CHOICE
    monkeypatch.setattr(sampler, "CHOICE", sampler.CHOICE.replace(right, wrong))
    told = r"tokens has \d+ and should have \d+, which was clear by"
    require_refused(lambda: zoo.export(gru, graph=GENERATE, out="out"), told, r"generate\.onnx")


@pytest.mark.slow
def test_the_last_token_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row of the lookup table is that of the last but one."""
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    Path("letters.txt").write_text(letters * 2, "utf-8")
    run = zoo.train("letters.txt", cell="gru", embedding=8, hidden=8, epochs=1, out="r")

    def tabulate(graph: ir.Graph, merged: bool) -> None:
        tables.tabulate(graph, merged)
        for node in graph:
            if node.op_type == "Gather":
                map_constant(node, 0, lambda table: np.concatenate((table[:-1], table[-2:-1])))

    monkeypatch.setattr(exporter, "tabulate", tabulate)
    require_refused(lambda: zoo.export(run, out="out"), r"(logits|layer0\.h)\[\d+\] is")


# small differences


def refused_of(module: nn.Module, examples: Tensor, state: Tensor, told: str) -> None:
    require_refused(lambda: export_step(module, examples, state, "step.onnx"), told)


class Pressure(nn.Module):
    """A slow mean of a pressure in hPa."""

    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        mean = mean + 1e-3 * (x - mean)
        return mean.clone(), mean


def test_a_slow_mean_that_stands_still(change_step: Callable[[Change], None]) -> None:
    """What is left of a step is a millionth of the mean, and ten times what float32 can tell."""
    change_step(lambda step, x, mean: (mean, mean))
    torch.manual_seed(0)
    examples = 1013 + torch.randn(ROWS, 1)
    refused_of(Pressure(), examples, torch.full((ROWS, 1), 1013.0), "(output|state)")


class Power(nn.Module):
    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        mean = 0.9 * mean + 0.1 * x * x
        return x * x + 0.02, mean


@pytest.mark.slow
def test_a_bias_that_is_dropped_beside_a_spike(change_step: Callable[[Change], None]) -> None:
    change_step(lambda step, x, mean: (x * x, step(x, mean)[1]))
    torch.manual_seed(0)
    examples = 0.1 * torch.randn(ROWS, 2)
    examples[4] = 100
    refused_of(Power(), examples, torch.zeros(ROWS, 2), r"output\[\d\] is")


class Normalised(nn.Module):
    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        y = normalised(x, torch.finfo(x.dtype).eps)
        return y, 0.9 * mean + 0.1 * y


@pytest.mark.slow
def test_an_epsilon_that_is_the_dtypes(change_step: Callable[[Change], None]) -> None:
    def without(step: Step, x: Tensor, mean: Tensor) -> Values:
        y = normalised(x, 0.0)
        return y, 0.9 * mean + 0.1 * y

    change_step(without)
    torch.manual_seed(0)
    examples = torch.randn(ROWS, 4) * torch.tensor([1, 1, 1, 1e-4, 1, 3e-4, 1, 1])[:, None]
    refused_of(Normalised(), examples, torch.zeros(ROWS, 4), r"(output|state)\[\d\] is")


class Rounded(nn.Module):
    def forward(self, x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        return torch.round(x), total + x


@pytest.mark.slow
def test_halves_that_are_rare(change_step: Callable[[Change], None]) -> None:
    """One value in 512, as of an analogue-to-digital converter."""
    change_step(lambda step, x, total: (torch.floor(x + 0.5), total + x))
    torch.manual_seed(0)
    examples = (torch.randint(0, 4096, (ROWS, 64)) + 0.25) / 1024
    examples[2, 3] = 2.5
    refused_of(Rounded(), examples, torch.zeros(ROWS, 64), "output")


# the state before the first step, which the file holds


@pytest.fixture
def change_initial_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def plant(change: Callable[[np.ndarray], np.ndarray]) -> None:
        right = StateEntry.from_row
        monkeypatch.setattr(
            StateEntry,
            "from_row",
            lambda name, row, bound=None: right(name, change(row).astype(row.dtype), bound),
        )

    return plant


@pytest.mark.slow
def test_a_wrong_initial_state_of_a_language_model(
    gru: zoo.Run, change_initial_rows: Callable[..., None]
) -> None:
    change_initial_rows(lambda row: row + 0.1)
    told = r"layer0\.h is not the initial state .*before the first step"
    require_refused(lambda: zoo.export(gru, out="out"), told)


class Count(nn.Module):
    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        count = count + 1
        return x * count, count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "stored"),
    [
        (torch.tensor([0.5, 1.0]), [0.5, 0.0]),
        (torch.tensor([1e-6, 1e-6]), [0.0, 0.0]),
        (torch.tensor([1_000_000, 1_000_000]), [1_000_003, 1_000_003]),
        (torch.tensor([2**60 + 1, 2**60 + 1]), [2**60, 2**60]),
    ],
    ids=["half", "small", "large", "very large"],
)
def test_a_wrong_initial_state(
    first: Tensor, stored: list[float], change_initial_rows: Callable[..., None]
) -> None:
    change_initial_rows(lambda row: np.array(stored, row.dtype))
    refused_of(Count(), torch.randn(ROWS, 2), first.expand(ROWS, 2), "state .*before the first")


@pytest.mark.slow
@pytest.mark.parametrize("start", [2**53 + 1, -3750763034362895579])
def test_an_initial_state_of_large_integers_is_stored_exactly(start: int) -> None:
    state = torch.full((ROWS, 2), start)
    export_step(Count(), torch.randn(ROWS, 2), state, "step.onnx")
    assert open_module("step.onnx").init_state(1)[0].tolist() == [[start, start]]


# constants that are nearly 1 or 0


class Leaky(nn.Module):
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = state * 0.999998 + x
        return state.tanh(), state


class Level(nn.Module):
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = 0.9 * state + 0.1 * x * x
        return torch.log(state + 1e-9), state


def test_a_factor_near_one_stays() -> None:
    torch.manual_seed(0)
    export_step(Leaky(), torch.randn(ROWS, 2), torch.zeros(ROWS, 2), "step.onnx")
    stepper = open_module("step.onnx")
    state = stepper.state_from_arrays({"state": np.ones((1, 2))})
    for _ in range(1000):
        _, state = stepper.step({"input": np.zeros((1, 2))}, state)
    np.testing.assert_allclose(state[0], 0.999998**1000, rtol=1e-4)


def test_an_addend_near_zero_stays() -> None:
    torch.manual_seed(0)
    export_step(Level(), torch.randn(ROWS, 2), torch.ones(ROWS, 2), "step.onnx")
    state = (np.zeros((1, 2), np.float32),)
    found, _ = open_module("step.onnx").step({"input": np.zeros((1, 2))}, state)
    np.testing.assert_allclose(found["output"], np.log(1e-9), rtol=1e-5)

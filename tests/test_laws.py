"""Every cell passes every law, alone, in stacked layers and bidirectional; and each law detects a
deliberately faulty cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo import CellSpec, ModelCard, StateField, hookimpl
from zoo.errors import VerificationError
from zoo.testing import LAWS, Subject, check_cell, parametrize_with_laws
from zoo.testing.laws import (
    CAUSAL_LAWS,
    LawBroken,
    forward_is_repeated_step,
    the_exported_graphs_are_the_model,
)

IN_PYTORCH = [law for law in LAWS if law is not the_exported_graphs_are_the_model]


@pytest.mark.parametrize("layers", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.every_cell
def test_every_law(name: str, layers: int) -> None:
    verdicts = list(check_cell(name, layers=layers, laws=IN_PYTORCH))
    assert [verdict for verdict in verdicts if not verdict.passed] == []


@pytest.mark.every_cell
def test_exported(name: str) -> None:
    (verdict,) = check_cell(name, laws=[the_exported_graphs_are_the_model])
    assert verdict.passed, verdict.finding
    assert verdict.exempt == ""


@pytest.mark.slow
@pytest.mark.every_cell
def test_in_both_directions(name: str) -> None:
    laws = [law for law in IN_PYTORCH if law not in CAUSAL_LAWS]
    verdicts = list(check_cell("bidirectional", options={"cell": name}, laws=laws))
    assert [verdict for verdict in verdicts if not verdict.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "rnn-scratch"])
def test_a_stack_in_both_directions(name: str) -> None:
    verdicts = list(check_cell("bidirectional", layers=3, options={"cell": name}))
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    exempt = {verdict.law for verdict in verdicts if verdict.exempt}
    assert exempt == {law.__name__ for law in CAUSAL_LAWS}


SCRATCH = [spec.name for spec in zoo.list_cells("*-scratch")]


@parametrize_with_laws(*SCRATCH, options={"std": 0.5})
def test_scratch_cells_with_larger_weights(check: Callable[[], object]) -> None:
    """Their initial weights are so small that a fault in the recurrence could go unnoticed."""
    check()


@parametrize_with_laws("gru-scratch", options={"reset": "after", "std": 0.5})
def test_gru_with_the_reset_after_the_product(check: Callable[[], object]) -> None:
    check()


@parametrize_with_laws("rnn", options={"nonlinearity": "relu"})
def test_rnn_with_relu(check: Callable[[], object]) -> None:
    check()


@parametrize_with_laws("deltanet", "gated-deltanet", options={"negative_eigenvalues": True})
def test_the_delta_rule_with_negative_eigenvalues(check: Callable[[], object]) -> None:
    check()


@parametrize_with_laws("lstm", "lstm-scratch", "peephole-lstm", options={"forget_bias": 1.0})
def test_lstms_with_a_forget_bias(check: Callable[[], object]) -> None:
    check()


@parametrize_with_laws("mamba", options={"complex_state": True})
def test_mamba_with_complex_states(check: Callable[[], object]) -> None:
    check()


# --- a correct cell, and for each law one with a fault


class State(NamedTuple):
    h: Tensor


class Pair(NamedTuple):
    h: Tensor
    c: Tensor


class Correct(zoo.Cell):
    """A cell that passes every law; the faulty cells are subclasses with one fault. Where
    `described` is empty, the card describes the state correctly."""

    described: ClassVar[tuple[StateField, ...]] = ()

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Parameter(torch.randn(input_size, hidden_size) * 0.5)
        self.U = nn.Parameter(torch.randn(hidden_size, hidden_size) * 0.3)
        self.b = nn.Parameter(torch.randn(hidden_size) * 0.1)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b

    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(z + state.h @ self.U)
        return h, State(h)


class LearnsItsInitialState(Correct):
    """Also correct: its initial state is a parameter."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.h0 = nn.Parameter(torch.randn(hidden_size) * 0.1)

    def init_state(self, batch_size: int) -> State:
        return State(self.h0.expand(batch_size, -1).clone())


class OtherForward(Correct):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return y * 1.000001, state


class OtherScan(Correct):
    def scan(self, z_T: Tensor, state: State) -> tuple[Tensor, State]:
        h, state = super().scan(z_T, state)
        return h, State(state.h * 1.000001)


class ForgetsInShortSequences(Correct):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if len(x) < 3:
            state = self.init_state(x.shape[1])
        return super().forward(x, state)


class ReadsAhead(Correct):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return super().forward(x + 0.01 * x.mean(0), state)


class BatchNormalised(Correct):
    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(z + state.h @ self.U)
        h = h - 0.1 * h.mean(0)
        return h, State(h)


class WithoutBias(Correct):
    def project(self, x: Tensor) -> Tensor:
        return (x * (1 + self.b.mean())) @ self.W


class InPlace(Correct):
    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(z + state.h @ self.U)
        if not torch.compiler.is_exporting():
            state.h.data.mul_(0.999)
        return h, State(h)


class OneTensorTwice(Correct):
    def init_state(self, batch_size: int) -> Pair:
        return Pair(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def advance(self, z: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        h = torch.tanh(z + (state.h + state.c) @ self.U)
        return h, Pair(h, h)


class DescribesAnotherLeaf(Correct):
    described = (StateField("c", "what it holds"),)


class DescribesALeafTooMany(Correct):
    described = (StateField("h", "what it holds"), StateField("c", "what it holds"))


class DescribesALeafTwice(Correct):
    described = (StateField("h", "what it holds"), StateField("h", "what it holds"))


class SaysNothing(Correct):
    described = (StateField("h", ""),)


class TwoLeaves(Correct):
    """Also correct, with two leaves."""

    def init_state(self, batch_size: int) -> Pair:
        return Pair(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def advance(self, z: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        h = torch.tanh(z + (state.h + state.c) @ self.U)
        return h, Pair(h, 0.5 * h)


class DescribesALeafTooFew(TwoLeaves):
    described = (StateField("h", "what it holds"),)


class DescribesInAnotherOrder(TwoLeaves):
    described = (StateField("c", "what it holds"), StateField("h", "what it holds"))


class Grows(Correct):
    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(z + state.h[:, : self.hidden_size] @ self.U)
        return h, State(torch.cat((h, h[:, :1]), 1))


class Unused(Correct):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.spare = nn.Parameter(torch.zeros(3))


class WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradient * (1 - y)


class WrongGradient(Correct):
    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        total = z + state.h @ self.U
        h = total.tanh() if torch.compiler.is_exporting() else WrongSlope.apply(total)
        return h, State(h)


class OwnRandomness(Correct):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        dice = np.random.default_rng().normal(size=hidden_size)
        self.b = nn.Parameter(torch.tensor(dice, dtype=torch.float32))


class Unsaved(Correct):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.scale = 0.5 + float(torch.rand(()))

    def project(self, x: Tensor) -> Tensor:
        return super().project(x) * self.scale


class Squeezes(Correct):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return (y.squeeze() if x.shape[:2] == (1, 1) else y), state


class Explodes(Correct):
    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h = z + 1.02 * state.h + 0.001 * torch.tanh(state.h @ self.U)
        return h, State(h)


class OtherInitialState(Correct):
    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.hidden_size) + 0.5)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if state is None:
            state = State(self.zeros(x.shape[1], self.hidden_size))
        return super().forward(x, state)


class IgnoresALeaf(Correct):
    def init_state(self, batch_size: int) -> Pair:
        return Pair(
            self.zeros(batch_size, self.hidden_size), self.zeros(batch_size, self.hidden_size)
        )

    def advance(self, z: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        h = torch.tanh(z + state.h @ self.U)
        return h, Pair(h, h * 2)


class ExportsSomethingElse(Correct):
    def advance(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(z + state.h @ self.U)
        if torch.compiler.is_exporting():
            h = h * 0.999
        return h, State(h)


class Unbounded(Correct):
    def state_bounds(self) -> dict[str, float]:
        return {"h": 0.9}


# the law that each is made for, and the laws that necessarily fail with it
FAULTS: dict[type[Correct], tuple[str, set[str]]] = {
    OtherForward: ("forward_is_repeated_step", set()),
    OtherScan: ("forward_is_repeated_step", {"chunks_equal_the_whole"}),
    ForgetsInShortSequences: ("chunks_equal_the_whole", {"the_exported_graphs_are_the_model"}),
    ReadsAhead: (
        "outputs_are_causal",
        {
            "forward_is_repeated_step",
            "chunks_equal_the_whole",
            "the_exported_graphs_are_the_model",
        },
    ),
    BatchNormalised: ("batch_rows_are_independent", {"the_exported_graphs_are_the_model"}),
    WithoutBias: ("the_state_keeps_its_form", set()),
    InPlace: ("the_state_keeps_its_form", {"every"}),
    DescribesAnotherLeaf: ("the_state_keeps_its_form", set()),
    DescribesALeafTooMany: ("the_state_keeps_its_form", set()),
    DescribesALeafTwice: ("the_state_keeps_its_form", set()),
    DescribesALeafTooFew: ("the_state_keeps_its_form", set()),
    DescribesInAnotherOrder: ("the_state_keeps_its_form", set()),
    SaysNothing: ("the_state_keeps_its_form", set()),
    OneTensorTwice: ("the_state_keeps_its_form", {"every_parameter_learns"}),
    Grows: ("methods_return_what_they_should", set()),
    Unused: ("every_parameter_learns", set()),
    WrongGradient: ("every_parameter_learns", set()),
    OwnRandomness: ("equal_inputs_give_equal_outputs", set()),
    Unsaved: ("saved_and_loaded_is_the_same", set()),
    Squeezes: ("a_batch_of_one_is_a_batch", {"the_exported_graphs_are_the_model"}),
    Explodes: ("a_long_run_stays_finite", set()),
    OtherInitialState: ("the_given_state_is_used", set()),
    IgnoresALeaf: ("the_given_state_is_used", set()),
    Unbounded: ("the_state_keeps_its_bounds", set()),
    ExportsSomethingElse: ("the_exported_graphs_are_the_model", set()),
}


def registered(cell: type[Correct], **spec: object) -> zoo.registry.Registry:
    leaves = cell(2, 2).init_state(1)._fields
    state = cell.described or tuple(StateField(name, "what it holds") for name in leaves)
    card = ModelCard(title="t", authors="a", year=2026, paper="p", equations=(), state=state)

    class Plugin:
        @hookimpl
        def zoo_cells(self) -> list[CellSpec]:
            return [CellSpec("wrong", f"{__name__}:{cell.__name__}", card, **spec)]

    return zoo.load_registry(Plugin())


def broken_laws(registry: zoo.registry.Registry) -> dict[str, str]:
    return {v.law: v.finding for v in check_cell("wrong", registry=registry) if not v.passed}


@pytest.mark.parametrize("cell", [Correct, LearnsItsInitialState, TwoLeaves])
def test_a_correct_cell_passes_every_law(cell: type[Correct]) -> None:
    assert broken_laws(registered(cell)) == {}


class ForwardUnlikeStep(Correct):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return y * 1.1, state


def test_a_cell_whose_forward_differs_from_its_step_is_not_exported(text_file: Path) -> None:
    """The proof, which compares single steps, would pass."""
    registry = registered(ForwardUnlikeStep)
    run = zoo.train(str(text_file), cell="wrong", hidden=8, epochs=1, registry=registry, out="r")
    with pytest.raises(
        VerificationError, match=r"whole sequence than step by step: logits differs"
    ):
        zoo.export(run, registry=registry)
    assert not list(Path("r").glob("export/*"))


@pytest.mark.parametrize("cell", FAULTS, ids=lambda cell: cell.__name__)
def test_the_law_detects_the_fault(cell: type[Correct]) -> None:
    law, also = FAULTS[cell]
    broken = broken_laws(registered(cell))
    assert law in broken
    assert broken[law]
    if "every" not in also:
        assert set(broken) == {law, *also}


def test_every_law_has_a_faulty_cell() -> None:
    assert {law for law, _ in FAULTS.values()} == {law.__name__ for law in LAWS}
    assert all(law.__doc__ for law in LAWS)


def test_an_exception_is_declared_with_its_reason() -> None:
    registry = registered(Explodes, exceptions={"a_long_run_stays_finite": "it grows by design"})
    (exempt,) = [v for v in check_cell("wrong", registry=registry) if v.exempt]
    assert (exempt.law, exempt.exempt) == ("a_long_run_stays_finite", "it grows by design")


def test_a_law_reports_the_difference() -> None:
    registry = registered(OtherForward)
    with pytest.raises(LawBroken, match=r"repeated step: differs by \d"):
        forward_is_repeated_step(Subject(registry.cells["wrong"], registry=registry))


class LogState(NamedTuple):
    total: Tensor


class LogSum(Correct):
    """A state that is the logarithm of a running sum, initially log 0 = -inf."""

    def init_state(self, batch_size: int) -> LogState:
        return LogState(self.zeros(batch_size, self.hidden_size) - torch.inf)

    def advance(self, z: Tensor, state: LogState) -> tuple[Tensor, LogState]:
        top = torch.maximum(state.total - 0.5, z)
        total = top + torch.log(torch.exp(state.total - 0.5 - top) + torch.exp(z - top))
        return torch.tanh(total @ self.U), LogState(total)


def test_an_initial_state_of_minus_infinity(text_file: Path) -> None:
    """It passes all laws, including the one on exported graphs, and generates as in PyTorch."""
    registry = registered(LogSum)
    assert broken_laws(registry) == {}
    sizes = {"hidden": 8, "epochs": 1, "batch_size": 4, "steps": 8}
    run = zoo.train(str(text_file), cell="wrong", registry=registry, out="r", **sizes)
    for graph in ("step", "generate"):
        file = zoo.export(run, graph=graph, registry=registry).path
        texts = [
            zoo.generate(source, "the ", length=60, temperature=1.0, registry=registry)
            for source in (run.path, file)
        ]
        assert texts[0] == texts[1]
        session = zoo.Session(file, registry=registry)
        before = session.snapshot()
        session.restore(before)
        assert session.snapshot() == before

"""`Cell.scan`: `forward` calls it, and the sequence graph replaces it, also in cells made of other
cells and in cells that override `forward`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo import Cell, CellSpec, ModelCard, StateField, hookimpl
from zoo.config import ModelConfig
from zoo.data.tokenizers import CharTokenizer
from zoo.exporting.export import describe
from zoo.models.language_model import LanguageModel
from zoo.testing import check_cell
from zoo_onnx.sequence import trace_sequence


class AroundGRU(Cell):
    def __init__(
        self, input_size: int, hidden_size: int, *, registry: zoo.registry.Registry
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.inner = registry.cells["gru"].build(input_size, hidden_size)

    def init_state(self, batch_size: int) -> Any:
        return self.inner.init_state(batch_size)


class Halved(AroundGRU):
    """Wraps a cell, without its own recurrence; reads its inner cell's parameters."""

    def forward(self, x_TBI: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.inner(x_TBI, state)
        return y / (2 + self.inner.rnn.bias_ih_l0.mean()), state

    def step(self, x_BI: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.inner.step(x_BI, state)
        return y / (2 + self.inner.rnn.bias_ih_l0.mean()), state


class Scaled(AroundGRU):
    """A recurrence over another cell's, with its own `forward`."""

    def project(self, x: Tensor) -> Any:
        return self.inner.project(x)

    def advance(self, z: Any, state: Any) -> tuple[Any, Any]:
        h, state = self.inner.advance(z, state)
        return 3 * h, state

    def forward(self, x_TBI: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.inner(x_TBI, state)
        return 3 * y, state


def registry_of(cell: type[Cell]) -> zoo.registry.Registry:
    state = (StateField("h", "the hidden state"),)
    card = ModelCard(title="t", authors="a", year=2026, paper="p", equations=(), state=state)

    class Plugin:
        @hookimpl
        def zoo_cells(self) -> list[CellSpec]:
            return [CellSpec("made-of-cells", f"{__name__}:{cell.__name__}", card)]

    return zoo.load_registry(Plugin())


@pytest.mark.parametrize("cell", [Halved, Scaled])
def test_a_cell_made_of_a_cell_passes_the_laws(cell: type[Cell]) -> None:
    """The law on exported graphs compares the sequence graph with PyTorch's steps."""
    registry = registry_of(cell)
    verdicts = list(check_cell("made-of-cells", registry=registry))
    assert [verdict for verdict in verdicts if not verdict.passed] == []


@pytest.mark.parametrize("cell", [Halved, Scaled])
def test_tracing_does_not_change_the_model(cell: type[Cell]) -> None:
    registry = registry_of(cell)
    config = ModelConfig(cell="made-of-cells", hidden=8, layers=2)
    tokenizer = CharTokenizer(characters="abcdefghij")
    model = LanguageModel(config, tokenizer.vocab_size, registry).eval()
    types = [type(module) for module in model.modules()]
    attributes = [set(vars(module)) for module in model.modules()]
    tokens = torch.randint(10, (7, 2))
    with torch.no_grad():
        before, _ = model(tokens)
        graph = trace_sequence(model, describe(model, tokenizer, "sequence"), fused=False).graph
        after, _ = model(tokens)
    assert sum(node.op_type == "Scan" for node in graph) == 2
    assert {node.domain for node in graph} == {""}
    assert [type(module) for module in model.modules()] == types
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert torch.equal(before, after)


def test_forward_is_project_then_scan_then_readout() -> None:
    """By hand, for h_t = h_{t-1} + 2 x_t from h_0 = 10, y_t = -h_t."""

    class Sums(Cell):
        def init_state(self, batch_size: int) -> tuple[Tensor]:
            return (torch.full((batch_size, 1), 10.0),)

        def project(self, x: Tensor) -> Tensor:
            return 2 * x

        def scan(self, z_T: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
            h_T = state[0] + z_T.cumsum(0)
            return h_T, (h_T[-1],)

        def readout(self, h: Tensor, z: Tensor) -> Tensor:
            return -h

    x = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    y, (end,) = Sums(1, 1)(x)
    assert y.flatten().tolist() == [-12.0, -16.0, -22.0]
    assert end.tolist() == [[22.0]]
    y, (end,) = Sums(1, 1)(x, (torch.zeros(1, 1),))
    assert y.flatten().tolist() == [-2.0, -6.0, -12.0]
    assert end.tolist() == [[12.0]]

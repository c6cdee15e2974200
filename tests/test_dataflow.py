"""Diagrams of a step's dataflow, against the equations."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.cli import run as zoo_run
from zoo.introspection.dataflow import Box, dataflow
from zoo.introspection.diagram import HEIGHT, arrange, place_layers


def edges(boxes: list[Box]) -> set[tuple[str, str]]:
    """The edges, with each box as its label and weights."""
    return {(_named(source), _named(box)) for box in boxes for source in box.sources}


def _named(box: Box) -> str:
    return " ".join([box.label, *sorted(box.weights)])


def test_an_lstm_by_its_equations() -> None:
    """Those of Hochreiter and Schmidhuber with the forget gate of Gers et al., edge by edge."""
    x, h, c = "x_{t}", "h_{t-1}", "c_{t-1}"
    gates = {k: f"σ W_h{k} W_x{k} b_{k}" for k in "ifo"}
    candidate = "tanh W_hc W_xc b_c"
    wanted = {(source, gate) for gate in (*gates.values(), candidate) for source in (x, h)}
    wanted |= {(source, "×") for source in (gates["f"], c, gates["i"], candidate, gates["o"])}
    wanted |= {("×", "+"), ("+", "tanh"), ("tanh", "×"), ("+", "c_{t}"), ("×", "y_{t}, h_{t}")}
    boxes = dataflow(zoo.get_cell("lstm-scratch"))
    assert edges(boxes) == wanted
    assert [box.label for box in boxes].count("×") == 3


def test_a_gru_resets_before_the_product() -> None:
    boxes = dataflow(zoo.get_cell("gru-scratch"))
    (candidate,) = [box for box in boxes if box.label == "tanh"]
    x, reset = candidate.sources
    assert x.label == "x_{t}"
    assert {_named(source) for source in reset.sources} == {"h_{t-1}", "σ W_hr W_xr b_r"}


class LeakyState(NamedTuple):
    h: Tensor


class Halves(zoo.Cell):
    """h' = h / 2 + a + b + 1, where a and b are halves of one product; and relu in position."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.inner = nn.ModuleList([nn.Linear(input_size, 2 * hidden_size) for _ in range(2)])

    def init_state(self, batch_size: int) -> LeakyState:
        return LeakyState(self.zeros(batch_size, self.hidden_size))

    def advance(self, z: Tensor, state: LeakyState) -> tuple[Tensor, LeakyState]:
        a, b = (self.inner[0](z) + self.inner[1](z)).chunk(2, -1)
        h = torch.relu_((state.h / 2 + (a + b)) + 1)
        return h, LeakyState(h)


class Leaky(zoo.Cell):
    """A third-party cell: h' = a h + (1 - a) relu(x W / 2), a = σ(α), with views that change
    nothing."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Parameter(torch.randn(input_size, hidden_size))
        self.alpha = nn.Parameter(torch.zeros(hidden_size))

    def init_state(self, batch_size: int) -> LeakyState:
        return LeakyState(self.zeros(batch_size, self.hidden_size))

    def advance(self, z: Tensor, state: LeakyState) -> tuple[Tensor, LeakyState]:
        a = torch.sigmoid(self.alpha)
        driven = torch.relu((z @ self.W).unsqueeze(1).squeeze(1) / 2)
        h = a * state.h + (1 - a) * driven
        return h, LeakyState(h)


@pytest.fixture
def leaky() -> zoo.CellSpec:
    card = zoo.get_cell("rnn").card
    return zoo.CellSpec(name="leaky", factory=f"{__name__}:Leaky", card=card)


def test_arithmetic_on_parameters_alone_has_no_box(leaky: zoo.CellSpec) -> None:
    assert edges(dataflow(leaky)) == {
        ("x_{t}", "linear W"),
        ("linear W", "÷ 2"),
        ("÷ 2", "relu"),
        ("relu", "× alpha"),
        ("h_{t-1}", "× alpha"),
        ("× alpha", "+"),
        ("+", "y_{t}, h_{t}"),
    }


def test_parts_of_one_product_constants_and_operations_in_place() -> None:
    card = zoo.get_cell("rnn").card
    boxes = dataflow(zoo.CellSpec(name="halves", factory=f"{__name__}:Halves", card=card))
    both = "linear inner.0.bias inner.0.weight inner.1.bias inner.1.weight"
    assert edges(boxes) == {
        ("x_{t}", both),
        (both, "+"),
        ("h_{t-1}", "÷ 2"),
        ("÷ 2", "+"),
        ("+", "+"),
        ("+", "+ 1"),
        ("+ 1", "relu"),
        ("relu", "y_{t}, h_{t}"),
    }
    place_layers(*arrange(boxes))


@pytest.mark.parametrize("name", ["lstm-scratch", "lem", "mamba", "sru"])
def test_boxes_do_not_overlap_and_lines_go_right(name: str) -> None:
    layers, lines = arrange(dataflow(zoo.get_cell(name)))
    position = place_layers(layers, lines)
    for layer in layers:
        heights = sorted(position[stop][1] for stop in layer if isinstance(stop, Box))
        assert all(below - above > HEIGHT for above, below in pairwise(heights))
    for line in lines:
        assert [position[b][0] - position[a][0] for a, b in pairwise(line)] == [1] * (len(line) - 1)


def test_every_causal_cell_has_a_diagram() -> None:
    for spec in zoo.list_cells():
        if spec.causal:
            boxes = dataflow(spec)
            arriving = [box.label for box in boxes if box.kind == "in"]
            assert arriving[0] == "x_{t}"
            assert len(arriving) == 1 + len(spec.card.state)
            leaving = {name for box in boxes if box.kind == "out" for name in box.label.split(", ")}
            assert leaving == {"y_{t}", *(name.replace("t-1", "t") for name in arriving[1:])}
            used = {source for box in boxes for source in box.sources}
            assert all(box in used for box in boxes if box.kind not in ("in", "out"))


def test_diagrams_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gru.svg", "gru.png"):
        assert zoo_run(["show", "gru", "--picture", str(tmp_path / name)]) == 0
    assert ElementTree.parse(tmp_path / "gru.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "gru.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert zoo_run(["show", "gru", "--picture", "gru.txt"]) == 2
    assert "a picture is a .png, .svg or .pdf file, and not gru.txt" in capsys.readouterr().err
    assert zoo_run(["show", "bidirectional", "--picture", "b.svg"]) == 2
    assert "cell 'bidirectional' is not causal; it has no step to draw" in capsys.readouterr().err

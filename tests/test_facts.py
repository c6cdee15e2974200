"""The cost of a cell, against counts by hand."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.cli import run as zoo_run
from zoo.introspection.cost import SIZES, cost_at, cost_formulas, polynomial


def test_an_lstm_by_hand() -> None:
    """Four gates: products of 5 inputs and 7 units, two biases each; for each unit 4 sums of the
    input's product and bias (b_ih), 4 of the state's (b_hh), 4 of both, 5 activations (3 σ,
    2 tanh), f c, i g, their sum, and o tanh(c)."""
    cost = cost_at(zoo.get_cell("lstm"), 5, 7)
    layer = torch.nn.LSTM(5, 7)
    assert cost.parameters == cost.trained == sum(p.numel() for p in layer.parameters())
    assert cost.state_bytes == 2 * 7 * 4
    assert cost.operations == 2 * 4 * 7 * (5 + 7) + (4 + 4 + 4 + 5 + 4) * 7


def test_formulas_are_exact_at_other_sizes() -> None:
    assert cost_formulas(zoo.get_cell("gru")) == {
        "parameters": "3·input·hidden + 3·hidden² + 6·hidden",
        "trained": "3·input·hidden + 3·hidden² + 6·hidden",
        "state_bytes": "4·hidden",
        "operations": "6·input·hidden + 6·hidden² + 17·hidden",
    }


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda i, h: 3 * i * h - h + 5, "3·input·hidden - hidden + 5"),
        (lambda i, h: h * h // 2 + 2 * i, "hidden²/2 + 2·input"),
        (lambda i, h: 0, "0"),
        (lambda i, h: 1_000_000, "1,000,000"),
        (lambda i, h: h**3, ""),
        (lambda i, h: i * h + (h == 256), ""),
    ],
)
def test_polynomials(function: object, text: str) -> None:
    assert polynomial([function(*sizes) for sizes in SIZES]) == text


def test_zoo_show_prints_the_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo_run(["show", "lstm"]) == 0
    said = capsys.readouterr().out
    assert "4·input·hidden + 4·hidden² + 8·hidden   526,336" in said
    assert "bytes of state per stream" in said


def test_every_card_names_the_reference_that_the_cell_is_tested_against() -> None:
    assert [spec.name for spec in zoo.list_cells() if not spec.card.checked_against] == []

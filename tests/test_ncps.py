"""The cells over ncps, against those of the package."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
import zoo_ncps

pytest.importorskip("ncps")

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64; a wrong equation differs by far more


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn_like(parameter))


def compare(cell: zoo.Cell, theirs: Any, start: Tensor) -> None:
    """Step by step, and over the whole sequence, from a nonzero state."""
    x = torch.randn(25, 3, 5).double()
    state = type(cell.init_state(1))(start)  # type: ignore[call-arg]
    whole, end = cell(x, state)
    h = start
    for time, step in enumerate(x):
        wanted, h = theirs(step, h, 1.0)
        y, state = cell.step(step, state)
        torch.testing.assert_close(y, wanted, **EXACT)
        torch.testing.assert_close(state[0], h, **EXACT)
        torch.testing.assert_close(whole[time], wanted, **EXACT)
    torch.testing.assert_close(end[0], h, **EXACT)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("mode", ["default", "no_gate", "pure"])
def test_cfc_equals_the_packages(mode: str, layers: int) -> None:
    from ncps.torch import CfCCell

    torch.manual_seed(0)
    cell: Any = zoo.get_cell("cfc").build(
        5, 8, mode=mode, backbone_units=11, backbone_layers=layers
    )
    theirs = CfCCell(5, 8, mode=mode, backbone_units=11, backbone_layers=layers).double()
    randomise(theirs)
    cell.double().rnn.load_state_dict(theirs.state_dict())
    compare(cell, theirs, torch.rand(3, 8).double() - 0.5)


@pytest.mark.parametrize("unfolds", [1, 6])
def test_ltc_equals_the_packages(unfolds: int) -> None:
    from ncps.torch import LTCCell
    from ncps.wirings import FullyConnected

    torch.manual_seed(0)
    cell: Any = zoo.get_cell("ltc").build(5, 8, ode_unfolds=unfolds).double()
    theirs = LTCCell(
        FullyConnected(8), 5, ode_unfolds=unfolds, implicit_param_constraints=True
    ).double()
    randomise(theirs)
    masks = {"sparsity_mask", "sensory_sparsity_mask"}
    weights = theirs.state_dict()
    assert all(bool((weights.pop(mask) == 1).all()) for mask in masks)  # fully connected
    cell.load_state_dict(weights)
    compare(cell, theirs, torch.randn(3, 8).double())


def test_ltc_converges_to_its_differential_equation() -> None:
    """With smaller steps the fused solver converges, at first order, to the paper's equation,
    solved by small explicit steps over a time of 1."""
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()
    start = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double()
    cells: dict[int, Any] = {}
    for unfolds in (50, 100):
        torch.manual_seed(0)
        cells[unfolds] = zoo.get_cell("ltc").build(3, 4, ode_unfolds=unfolds).double()
    cell = cells[100]
    count = 2000
    with torch.no_grad():
        w, sensory_w, cm, gleak = (
            parameter.exp().add(1).log()
            for parameter in (cell.w, cell.sensory_w, cell.cm, cell.gleak)
        )
        sensed = torch.sigmoid(cell.sensory_sigma * (x.unsqueeze(-1) - cell.sensory_mu))
        v = start
        for _ in range(count):
            gates = w * torch.sigmoid(cell.sigma * (v.unsqueeze(-1) - cell.mu))
            flow = gleak * (cell.vleak - v)
            flow = flow + (gates * (cell.erev - v.unsqueeze(1))).sum(1)
            flow = flow + (sensory_w * sensed * (cell.sensory_erev - v.unsqueeze(1))).sum(1)
            v = v + flow / cm / count
        errors = {
            unfolds: float((cell.step(x, type(cell.init_state(1))(start))[1].v - v).abs().max())
            for unfolds, cell in cells.items()
        }
    assert errors[100] < 0.02 < float((start - v).abs().max()) / 10
    assert errors[50] / errors[100] == pytest.approx(2, rel=0.1)


def test_without_the_package_the_plugin_provides_no_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {spec.name for spec in zoo_ncps.zoo_cells()} == {"cfc", "ltc"}
    real = importlib.util.find_spec
    monkeypatch.setattr(zoo_ncps, "find_spec", lambda name: None if name == "ncps" else real(name))
    registry = zoo.load_registry()  # a warning would be an error
    assert not {"cfc", "ltc"} & set(registry.cells)
    assert all(plugin.error is None for plugin in registry.plugins)

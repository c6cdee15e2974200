"""The torchrecurrent plugin: its cells equal torchrecurrent's, and it has all of them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
import zoo_torchrecurrent
from zoo.nn.state import flatten, map_leaves
from zoo_torchrecurrent.entry import Entry
from zoo_torchrecurrent.table import ENTRIES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torchrecurrent = pytest.importorskip("torchrecurrent")

BY_NAME = {entry.name: entry for entry in ENTRIES.values()}
STEPS, BATCH, INPUT, HIDDEN = 20, 3, 5, 8
# both run the same operations on the same numbers, so results are equal bit for bit, except where
# matrix products may be taken in another order
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def build(name: str, dtype: torch.dtype, **options: Any) -> Any:
    torch.manual_seed(4)
    return zoo.get_cell(name).build(INPUT, HIDDEN, **options).to(dtype)


def inputs(dtype: torch.dtype, seed: int = 5, steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, BATCH, INPUT, generator=generator, dtype=torch.float64).to(dtype)


def theirs_with_our_weights(entry: Entry, cell: Any) -> nn.Module:
    """torchrecurrent's own cell, with its defaults except for the options that the card names."""
    like = getattr(torchrecurrent, entry.cell)
    arguments = {k: v for k, v in entry.initial.items() if k == "nonlinearity"}
    for constant in ("epsilon", "gamma", "dt", "alpha"):
        if isinstance(value := getattr(cell.cell, constant, None), float):
            arguments[constant] = value
    size = HIDDEN if entry.cell == "IntersectionRNNCell" else INPUT
    theirs: nn.Module = like(size, HIDDEN, **arguments)
    theirs.to(next(cell.parameters()).dtype)
    theirs.load_state_dict(cell.cell.state_dict())
    return theirs


def drive(entry: Entry, theirs: nn.Module, x_TBI: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Runs the sequence through torchrecurrent's cell, passing states on as its layers do."""
    outputs = []
    kind = entry.cell
    past = list(state.past.unbind(1)) if kind == "tauGRUCell" else []
    carried: Any = tuple(state)
    if kind == "JANETCell":
        carried = (state.c, state.c)
    elif len(state) == 1 or past:
        carried = state[0]
    for x in x_TBI:
        if past:
            after = theirs(x, carried, past[0])
            past = [*past[1:], carried]
            carried = output = after
        elif kind in ("IntersectionRNNCell", "MCLSTMCell", "TLSTMCell"):
            output, carried = theirs(x, carried)
        else:
            carried = theirs(x, carried)
            output = carried[0] if isinstance(carried, tuple) else carried
        outputs.append(output)
    leaves = carried if isinstance(carried, tuple) else (carried,)
    if kind == "JANETCell":
        leaves = leaves[1:]
    if past:
        leaves = (*leaves, torch.stack(past, 1))
    return torch.stack(outputs), leaves


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", BY_NAME)
def test_twenty_steps_equal_torchrecurrents(name: str, dtype: torch.dtype) -> None:
    entry, cell = BY_NAME[name], build(name, dtype)
    # in float64 these fail if any of their tensors is still float32
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases are initialised to zero
        theirs = theirs_with_our_weights(entry, cell)
        _, start = cell(inputs(dtype, seed=6, steps=11))
        x = inputs(dtype)
        mapped = x if getattr(cell, "W_in", None) is None else x @ cell.W_in
        wanted, wanted_state = drive(entry, theirs, mapped, start)
        found, state, ys = [], start, cell(x, start)
        for x_t in x:
            y, state = cell.step(x_t, state)
            found.append(y)
    pairs = [(torch.stack(found), wanted), (ys[0], wanted)]
    pairs += [*zip(flatten(state), wanted_state, strict=True)]
    for ours, other in pairs:
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, other, rtol=0, atol=TOLERANCE[dtype])


def test_every_cell_of_torchrecurrent_has_an_entry() -> None:
    """Detects cells that a new version adds."""
    theirs = {name for name in torchrecurrent.__all__ if name.endswith("Cell")}
    assert set(ENTRIES) == theirs
    assert len(BY_NAME) == len(ENTRIES)


@pytest.mark.parametrize(
    ("name", "options", "attribute"),
    [
        ("tr-antisymmetric-rnn", {"epsilon": 0.5, "gamma": 0.2}, "epsilon"),
        ("tr-gated-antisymmetric-rnn", {"epsilon": 0.5, "gamma": 0.2}, "gamma"),
        ("tr-cornn", {"dt": 0.05, "gamma": 2.0, "epsilon": 3.0}, "epsilon"),
        ("tr-lem", {"dt": 0.5}, "dt"),
        ("tr-unicornn", {"dt": 0.2, "alpha": 0.9}, "alpha"),
        ("tr-miru1", {"update_coefficient": 0.25}, "update_coefficient"),
        ("tr-miru2", {"update_coefficient": 0.25, "reset_coefficient": 0.75}, "reset_coefficient"),
        ("tr-scrn", {"alpha": 0.9}, "alpha"),
        ("tr-janet", {"beta": 0.25}, "beta"),
    ],
)
def test_options_reach_the_cell(name: str, options: dict[str, float], attribute: str) -> None:
    wrapped = zoo.get_cell(name).build(INPUT, HIDDEN, **options).cell
    value = torch.as_tensor(getattr(wrapped, attribute)).detach()
    assert value.item() == pytest.approx(options[attribute])
    with pytest.raises(zoo.UsageError, match="has no option"):
        zoo.get_cell(name).build(INPUT, HIDDEN, nonsense=1)


@pytest.mark.parametrize("delay", [1, 4])
def test_the_delay_equals_that_of_torchrecurrents_layer(delay: int) -> None:
    cell = build("tr-taugru", torch.float64, delay=delay)
    layer = torchrecurrent.tauGRU(INPUT, HIDDEN, delay=delay).double()
    layer.cells[0].load_state_dict(cell.cell.state_dict())
    wanted, last = layer(inputs(torch.float64))
    found, state = cell(inputs(torch.float64))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.h, last[0], rtol=0, atol=1e-12)
    assert state.past.shape == (BATCH, delay, HIDDEN)


def test_an_intersection_rnn_of_equal_sizes_has_no_input_map() -> None:
    cell = zoo.get_cell("tr-intersection-rnn").build(HIDDEN, HIDDEN)
    assert all(name.startswith("cell.") for name, _ in cell.named_parameters())


def test_fastgrnn_has_the_papers_gate() -> None:
    """z by hand: with all weights zero and b_z = 2, h_1 = (σ(ζ)(1 - σ(2)) + σ(ν)) tanh(b_h)."""
    cell = zoo.get_cell("tr-fastgrnn").build(1, 1)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.cell.bias_ih.copy_(torch.tensor([2.0, 0.5]))
    h, _ = cell.step(torch.ones(1, 1), cell.init_state(1))
    # σ(0)(1 - 0.880797) + σ(0) = 0.5596015, tanh(0.5) = 0.4621172
    assert float(h.item()) == pytest.approx(0.5596015 * 0.4621172, abs=1e-6)


def test_lem_reads_the_previous_memory() -> None:
    """As the card says: y_1 does not depend on z_1."""
    cell = build("tr-lem", torch.float64)
    x = inputs(torch.float64)[0]
    zero = cell.init_state(BATCH)
    y, _ = cell.step(x, zero)
    with torch.no_grad():
        cell.cell.weight_ch.zero_()
    assert torch.equal(y, cell.step(x, zero)[0])


def test_an_input_kept_as_state_is_a_copy() -> None:
    for name in ("tr-tgru", "tr-tlstm"):
        cell, x = build(name, torch.float64), inputs(torch.float64)[0]
        _, state = cell.step(x, cell.init_state(BATCH))
        assert torch.equal(state.x, x)
        assert state.x.data_ptr() != x.data_ptr()


def test_states_have_the_cells_dtype_and_device() -> None:
    for name in BY_NAME:
        cell = zoo.get_cell(name).build(2, 3).to(torch.bfloat16)
        for _, tensor in [*cell.named_parameters(), *cell.named_buffers()]:
            assert tensor.dtype == torch.bfloat16, name
        map_leaves(lambda leaf: leaf.double(), cell.init_state(1))
        assert all(leaf.dtype == torch.bfloat16 for leaf in flatten(cell.init_state(1))), name


class OneStep(nn.Module):
    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        y, state = self.cell.step(x, type(self.cell.init_state(1))(*leaves))
        return (y.clone(), *flatten(state))


@pytest.mark.parametrize("name", ["tr-mgu", "tr-taugru"])
def test_a_traced_step_splits_no_parameter(name: str) -> None:
    """A part of a parameter is traced to a slice, which is folded. A Split would remain only for
    values that depend on the input, of which the two cells have none."""
    step = OneStep(build(name, torch.float32)).eval()
    given = (inputs(torch.float32)[0], *flatten(step.cell.init_state(BATCH)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's internal warnings
        program = torch.export.export(step, given)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("slice" in target for target in called)
    assert not {target for target in called if "split" in target or "chunk" in target}
    for ours, traced in zip(step(*given), program.module()(*given), strict=True):
        torch.testing.assert_close(traced, ours, rtol=0, atol=1e-6)


def test_without_torchrecurrent_there_are_no_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(list(zoo_torchrecurrent.zoo_cells())) == len(ENTRIES)
    monkeypatch.setattr(zoo_torchrecurrent, "find_spec", lambda name: None)
    assert list(zoo_torchrecurrent.zoo_cells()) == []


def test_listing_imports_neither_torch_nor_torchrecurrent() -> None:
    script = (
        "import sys, zoo; assert any(s.name == 'tr-mgu' for s in zoo.list_cells());"
        "print({'torch', 'torchrecurrent'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "set()"


def test_licences_are_those_of_the_package() -> None:
    from importlib.metadata import metadata

    assert metadata("torchrecurrent")["License"] == "MIT"
    licences = {entry.name: entry.licence for entry in ENTRIES.values()}
    assert licences.pop("tr-nas") == "MIT AND Apache-2.0"  # its file says so
    assert set(licences.values()) == {"MIT"}

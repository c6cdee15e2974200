"""mLSTM and sLSTM, against transformers, the authors' package and a sum over the past."""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import zoo
from zoo.testing import parametrize_with_laws
from zoo.testing.laws import forward_is_repeated_step

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64; a wrong equation differs by far more


def build(name: str, input_size: int, hidden_size: int, **options: int) -> zoo.Cell:
    """A cell with random parameters, none of which is zero."""
    torch.manual_seed(3)
    cell = zoo.get_cell(name).build(input_size, hidden_size, **options).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return cell


def run_steps(cell: zoo.Cell, x_TBI: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    outputs = []
    for x in x_TBI:
        y, state = cell.step(x, state)
        outputs.append(y)
    return torch.stack(outputs), state


@pytest.fixture
def native_xlstm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """transformers' own xLSTM, which it does not use if the package xlstm is installed."""
    name = "transformers.models.xlstm.modeling_xlstm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setattr("transformers.utils.is_xlstm_available", lambda: False)
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
    yield module
    sys.modules.pop(name, None)


def test_mlstm_equals_the_layer_of_transformers(native_xlstm: Any) -> None:
    """The whole layer, from a nonzero state, by steps and as a sequence. Theirs divides q by √d
    where the paper divides k, so that its bias of k and its state are √d times ours. It also caps
    its gates, at values that are not reached here."""
    config = native_xlstm.xLSTMConfig(
        hidden_size=24,
        num_heads=4,
        num_hidden_layers=1,
        qk_dim_factor=1.0,
        use_bias=True,
        norm_reduction_force_float32=False,
        gate_soft_cap=1e12,
        norm_eps=1e-4,
    )
    layer = native_xlstm.xLSTMLayer(config).double()
    layer.mlstm_backend._inference_fn = partial(  # the configuration refuses float64
        native_xlstm.mlstm_recurrent_sequence_native,
        return_last_states=True,
        eps=0.0,
        dtype_state=torch.float64,
    )
    cell: Any = build("mlstm", 24, 24)
    scale = math.sqrt(24 / 4)
    with torch.no_grad():
        for linear, weight, bias in (
            (layer.q, cell.W_q, cell.b_q),
            (layer.k, cell.W_k, cell.b_k * scale),
            (layer.v, cell.W_v, cell.b_v),
            (layer.ogate_preact, cell.W_o, cell.b_o),
            (layer.igate_preact, cell.W_i, cell.b_i),
            (layer.fgate_preact, cell.W_f, cell.b_f),
            (layer.out_proj, cell.W_out, torch.zeros(24)),
        ):
            linear.weight.copy_(weight.T)
            linear.bias.copy_(bias)
        layer.multihead_norm.weight.copy_(cell.scale)
        layer.multihead_norm.bias.zero_()
        x = torch.randn(70, 3, 24).double()
        _, start = run_steps(cell, x[:9], cell.init_state(3))
        theirs = (scale * start.C, scale * start.n, start.m.unsqueeze(-1))
        wanted, (C, n, m) = layer(x[9:].transpose(0, 1), theirs)
    for y, end in (cell(x[9:], start), run_steps(cell, x[9:], start)):
        torch.testing.assert_close(y, wanted.transpose(0, 1), **EXACT)
        torch.testing.assert_close(scale * end.C, C, **EXACT)
        torch.testing.assert_close(scale * end.n, n, **EXACT)
        torch.testing.assert_close(end.m, m.squeeze(-1), **EXACT)


def test_the_state_of_mlstm_equals_that_of_the_authors_package() -> None:
    """Sizes that the heads do not divide; theirs scales k and its bias by √d."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from xlstm.blocks.mlstm.backends import recurrent_step_stabilized_simple
    cell: Any = build("mlstm", 5, 18, heads=4)
    assert cell.units == 5
    x = 3 * torch.randn(40, 2, 5).double()
    _, start = cell(x[:9])
    _, end = cell(x[9:], start)
    theirs = start.C, start.n.unsqueeze(-1), start.m[..., None, None]
    largest = 0.0
    for step in x[9:]:
        z = cell.project(step)
        h, _ = cell.advance(z, type(start)(theirs[0], theirs[1][..., 0], theirs[2][..., 0, 0]))
        q, k, v = (part.unsqueeze(2) for part in (z.q, z.k * math.sqrt(5), z.v))
        gates = z.log_i[..., None, None], (step @ cell.W_f + cell.b_f)[..., None, None]
        wanted, theirs = recurrent_step_stabilized_simple(*theirs, q, k, v, *gates, eps=0.0)
        torch.testing.assert_close(h, wanted.squeeze(2), **EXACT)
        largest = max(largest, theirs[2].max().item())
    assert largest > 3  # the stabiliser has an effect
    torch.testing.assert_close(end.C, theirs[0], **EXACT)
    torch.testing.assert_close(end.n, theirs[1][..., 0], **EXACT)
    torch.testing.assert_close(end.m, theirs[2][..., 0, 0], **EXACT)


def test_mlstm_equals_attention_with_decay() -> None:
    """Equations 19 to 21 without a stabiliser, as a sum over the past, for values without overflow:
    h̃_t = Σ_s w_ts v_s / max(|Σ_s w_ts|, 1) with w_ts = i_s q_tᵀk_s Π_{s<r≤t} f_r."""
    cell: Any = build("mlstm", 5, 8, heads=2)
    x = torch.randn(25, 2, 5).double()
    with torch.no_grad():
        z = cell.project(x)
        outputs = []
        for t in range(25):
            total, values = torch.zeros(2, 2).double(), torch.zeros(2, 2, 4).double()
            for s in range(t + 1):
                kept = z.log_f[s + 1 : t + 1].exp().prod(0)
                w = z.log_i[s].exp() * kept * (z.q[t] * z.k[s]).sum(-1)
                total, values = total + w, values + w.unsqueeze(-1) * z.v[s]
            outputs.append(values / total.abs().clamp(min=1).unsqueeze(-1))
        wanted = cell.readout(torch.stack(outputs), z)
    torch.testing.assert_close(cell(x)[0], wanted, **EXACT)


@pytest.mark.parametrize("size", [-200.0, 200.0])
def test_mlstm_is_finite_with_large_gates(size: float) -> None:
    """exp(200) exceeds float32, but outputs and gradients are finite."""
    cell: Any = zoo.get_cell("mlstm").build(5, 8)
    with torch.no_grad():
        cell.b_i.fill_(size)
        cell.b_f.fill_(size)
    x = torch.randn(40, 2, 5)
    for y, _ in (cell(x), run_steps(cell, x, cell.init_state(2))):
        cell.zero_grad()
        y.square().sum().backward()
        values = [y, *(parameter.grad for parameter in cell.parameters())]
        assert all(bool(torch.isfinite(value).all()) for value in values)


def test_slstm_equals_the_authors_package() -> None:
    """From the initial state, and from another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from xlstm.blocks.slstm.src.vanilla import slstm_forward, slstm_pointwise_function_registry
    cell: Any = build("slstm", 5, 12)
    assert cell.heads == 4
    x = 2 * torch.randn(50, 3, 5).double()
    N, D = 4, 3
    # theirs are [S, B, gate, head, unit], R [head, gate and unit out, unit in]
    z = (x @ cell.W).unflatten(-1, (N, 4, D)).transpose(-3, -2).flatten(-3)
    R = cell.R.transpose(-1, -2)
    b = cell.b.unflatten(-1, (N, 4, D)).transpose(0, 1).flatten()
    pointwise = slstm_pointwise_function_registry["slstm"]

    wanted, end, _ = slstm_forward(z, torch.zeros(4, 3, 12).double(), R, b, pointwise)
    y, state = cell(x)
    torch.testing.assert_close(y, wanted[0, 1:], **EXACT)
    torch.testing.assert_close(torch.stack(state), end, **EXACT)

    wanted, end, _ = slstm_forward(z, torch.stack(state).flip(1), R, b, pointwise)
    y, state = cell(x, type(state)(*(leaf.flip(0) for leaf in state)))
    torch.testing.assert_close(y, wanted[0, 1:], **EXACT)
    torch.testing.assert_close(torch.stack(state), end, **EXACT)


def test_slstm_is_finite_with_large_gates() -> None:
    cell: Any = zoo.get_cell("slstm").build(5, 8)
    x = torch.randn(40, 2, 5)
    for size in (-200.0, 200.0):
        with torch.no_grad():
            cell.b.fill_(size)
        cell.zero_grad()
        y, _ = cell(x)
        y.square().sum().backward()
        values = [y, *(parameter.grad for parameter in cell.parameters())]
        assert all(bool(torch.isfinite(value).all()) for value in values)


@pytest.mark.parametrize(("hidden", "heads"), [(8, 4), (6, 3), (7, 1), (1, 1)])
def test_slstm_has_as_many_heads_as_divide(hidden: int, heads: int) -> None:
    assert zoo.get_cell("slstm").build(5, hidden).heads == heads


@parametrize_with_laws("mlstm", options={"heads": 1}, laws=[forward_is_repeated_step])
def test_mlstm_of_one_head(check: Callable[[], object]) -> None:
    check()

"""The linear cells whose gates depend on the input alone, against third-party implementations, and
against their papers' equations in NumPy, step by step in float64."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.nn.state import flatten, unflatten

EXACT = 1e-12  # float64, some tens of steps of values of about 1
SINGLE = 1e-5  # a reference that computes in float32
T, B, INPUTS, H = 24, 3, 5, 8

Array = np.ndarray[Any, Any]


def build(name: str, inputs: int = INPUTS, hidden: int = H, **options: Any) -> zoo.Cell:
    """A float64 cell with weights and biases from N(0, 0.5²), so that none is 0."""
    torch.manual_seed(4)
    cell = zoo.get_cell(name).build(inputs, hidden, **options).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(std=0.5)
    return cell


def draw(cell: zoo.Cell) -> tuple[Tensor, Any]:
    """Inputs [T, B, INPUTS], and a nonzero state that differs between rows."""
    x = torch.randn(T, B, cell.input_size, dtype=torch.float64)
    leaves = [torch.randn_like(leaf) if leaf.is_floating_point() else torch.arange(7, 7 + B)
              for leaf in flatten(cell.init_state(B))]  # fmt: skip
    return x, unflatten(cell.init_state(B), leaves)


def weights(cell: zoo.Cell) -> dict[str, Array]:
    return {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}


def scan_and_steps(cell: zoo.Cell, x_TBI: Tensor, state: Any) -> list[tuple[Tensor, Any]]:
    """Outputs and last state, of the whole sequence and of single steps."""
    outputs, stepped = [], state
    with torch.no_grad():
        for x in x_TBI:
            y, stepped = cell.step(x, stepped)
            outputs.append(y)
        return [cell(x_TBI, state), (torch.stack(outputs), stepped)]


def agree(cell: zoo.Cell, x: Tensor, state: Any, wanted: Array, *end: Array) -> None:
    for y, last in scan_and_steps(cell, x, state):
        np.testing.assert_allclose(y.numpy(), wanted, rtol=0, atol=EXACT)
        for found, leaf in zip(flatten(last), end, strict=True):
            np.testing.assert_allclose(found.numpy(), leaf, rtol=0, atol=EXACT)


def σ(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


def fla(path: str) -> ModuleType:
    """A file of fla-core that needs only torch; importing its package needs triton."""
    package = importlib.util.find_spec("fla")
    assert package is not None
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0], path)
    spec = importlib.util.spec_from_file_location("fla_naive", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# minGRU and minLSTM


def load_min(name: str) -> tuple[nn.Module, zoo.Cell]:
    """The layer of minGRU_pytorch, which has no biases, and the cell with its weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from minGRU_pytorch.minGRU import minGRU
        from minGRU_pytorch.minLSTM import minLSTM
    cell = build(name, H, H, candidate="positive")
    layer, order = (minGRU(H), "hz") if name == "mingru" else (minLSTM(H), "hfi")
    layer = layer.double()
    (weight,) = layer.parameters()
    with torch.no_grad():
        weight.normal_()
        for gate, rows in zip(order, weight.chunk(len(order)), strict=True):
            cell.get_parameter(f"W_{gate}").copy_(rows.T)
            cell.get_parameter(f"b_{gate}").zero_()
    return layer, cell


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_the_positive_form_equals_mingru_pytorchs(name: str) -> None:
    layer, cell = load_min(name)
    x = torch.randn(T, B, H, dtype=torch.float64)
    whole = layer(x.transpose(0, 1)).transpose(0, 1)  # in log space
    for y, _ in scan_and_steps(cell, x, cell.init_state(B)):
        torch.testing.assert_close(y, whole, rtol=0, atol=EXACT)

    start = torch.rand(B, H, dtype=torch.float64) + 0.1
    h, outputs = start.unsqueeze(1), []
    for x_B1I in x.unsqueeze(2):
        y, h = layer(x_B1I, h, return_next_prev_hidden=True)
        outputs.append(y.squeeze(1))
    for y, end in scan_and_steps(cell, x, type(cell.init_state(B))(start)):
        torch.testing.assert_close(y, torch.stack(outputs), rtol=0, atol=EXACT)
        torch.testing.assert_close(end.h, h.squeeze(1), rtol=0, atol=EXACT)


def test_mingru_follows_its_equations() -> None:
    cell = build("mingru")
    (x, state), w = draw(cell), weights(cell)
    h, wanted = state.h.numpy(), []
    for x_t in x.numpy():
        z = σ(x_t @ w["W_z"] + w["b_z"])
        h = (1 - z) * h + z * (x_t @ w["W_h"] + w["b_h"])
        wanted.append(h)
    agree(cell, x, state, np.stack(wanted), h)


def test_minlstm_follows_its_equations() -> None:
    cell = build("minlstm")
    (x, state), w = draw(cell), weights(cell)
    h, wanted = state.h.numpy(), []
    for x_t in x.numpy():
        f, i = (σ(x_t @ w[f"W_{gate}"] + w[f"b_{gate}"]) for gate in "fi")
        h = f / (f + i) * h + i / (f + i) * (x_t @ w["W_h"] + w["b_h"])
        wanted.append(h)
    agree(cell, x, state, np.stack(wanted), h)


def test_minlstm_is_finite_with_two_closed_gates() -> None:
    """f and i are zero in float32, and equal: f' = i' = 1/2."""
    cell = zoo.get_cell("minlstm").build(1, 1)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.get_parameter("b_f").fill_(-200)
        cell.get_parameter("b_i").fill_(-200)
        cell.get_parameter("b_h").fill_(3)
    y, _ = cell(torch.zeros(2, 1, 1))
    assert y.flatten().tolist() == [1.5, 2.25]


# QRNN


@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_qrnn_equals_a_convolution_and_pooling(pooling: str, window: int) -> None:
    cell = build("qrnn", window=window, pooling=pooling)
    x, state = draw(cell)
    gates = 1 + len(pooling)
    # conv1d wants [B, INPUTS, time] and kernels [gates · H, INPUTS, window]
    kernel = cell.get_parameter("W").unflatten(0, (window, INPUTS)).permute(2, 1, 0)
    seen = torch.cat((state.x, x.transpose(0, 1)), 1).transpose(1, 2)
    with torch.no_grad():
        sums = F.conv1d(seen, kernel, cell.get_parameter("b")).permute(2, 0, 1).numpy()
    c, wanted = state.c.numpy(), []
    for step in sums:
        z, f, *rest = np.split(step, gates, -1)
        z, f, rest = np.tanh(z), σ(f), [σ(gate) for gate in rest]
        c = f * c + (rest[1] if pooling == "ifo" else 1 - f) * z
        wanted.append(rest[0] * c if rest else c)
    agree(cell, x, state, np.stack(wanted), c, x[1 - window :].transpose(0, 1).numpy())


# SRU


@pytest.mark.parametrize("inputs", [INPUTS, H])
@pytest.mark.parametrize("peephole", [False, True])
def test_sru_follows_its_equations(peephole: bool, inputs: int) -> None:
    cell = build("sru", inputs, peephole=peephole, highway_bias=-1.5)
    (x, state), w = draw(cell), weights(cell)
    assert ("W_x" in w) == (inputs != H)
    α = (1 + 2 * np.exp(-1.5)) ** 0.5
    c, wanted = state.c.numpy(), []
    for x_t in x.numpy():
        skip = x_t @ w["W_x"] if inputs != H else x_t
        of_f, of_r = x_t @ w["W_f"] + w["b_f"], x_t @ w["W_r"] + w["b_r"]
        if peephole:
            of_f, of_r = of_f + w["v_f"] * c, of_r + w["v_r"] * c
        f, r = σ(of_f), σ(of_r)
        c = f * c + (1 - f) * (x_t @ w["W"])
        wanted.append(r * c + (1 - r) * skip * α if peephole else r * np.tanh(c) + (1 - r) * skip)
    agree(cell, x, state, np.stack(wanted), c)


@pytest.fixture
def authors_sru(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package of SRU's authors. On import it compiles kernels, which only its scripted
    inference needs; its naive implementation is pure PyTorch."""
    monkeypatch.setattr("torch.utils.cpp_extension.load", lambda *_, **__: None)
    monkeypatch.setattr("torch.jit.script", lambda function: function)
    return importlib.import_module("sru")


@pytest.mark.parametrize("inputs", [INPUTS, H])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.filterwarnings("ignore:Running SRU on CPU with grad_enabled")
def test_sru_equals_its_authors_package(
    peephole: bool, inputs: int, authors_sru: ModuleType
) -> None:
    """With our weights: its matrices are interleaved by unit, and its fourth one includes α."""
    cell = build("sru", inputs, peephole=peephole, highway_bias=-1.5)
    (x, state), w = draw(cell), dict(cell.named_parameters())
    theirs = authors_sru.SRUCell(
        inputs, H, highway_bias=-1.5, use_tanh=not peephole, v1=not peephole, rescale=peephole
    ).double()
    matrices = [w["W"], w["W_f"], w["W_r"]]
    if inputs != H:
        matrices.append(w["W_x"] * (1 + 2 * np.exp(-1.5)) ** 0.5 if peephole else w["W_x"])
    with torch.no_grad():
        theirs.weight.copy_(torch.stack(matrices, -1).flatten(1))
        theirs.bias.copy_(torch.cat([w["b_f"], w["b_r"]]))
        if peephole:
            theirs.scale_x.copy_(torch.tensor(1 + 2 * np.exp(-1.5)).sqrt())  # it was in float32
            theirs.weight_c.copy_(torch.cat([w["v_f"], w["v_r"]]))
    y, c = theirs(x, state.c)  # without gradients it calls a kernel
    agree(cell, x, state, y.detach().numpy(), c.detach().numpy())


def test_sru_initially_preserves_the_variance_of_its_input() -> None:
    """The purpose of α and the initial weights of the form with peepholes (section 3.2)."""
    torch.manual_seed(0)
    cell = zoo.get_cell("sru").build(256, 256, peephole=True, highway_bias=-1.0)
    torch.testing.assert_close(cell.get_parameter("b_r"), torch.full((256,), -1.0))
    x = torch.randn(200, 8, 256)
    y, _ = cell(x)
    assert 0.8 < y[100:].var().item() < 1.25


# HGRN2


def hgrn2_gates(w: dict[str, Array], x: Array, heads: int, β: float) -> list[Array]:
    """f, i and o [T, B, N, D]"""
    f = β + (1 - β) * σ(x @ w["W_f"] + w["b_f"])
    i = x @ w["W_i"] + w["b_i"]
    parts = f, i * σ(i), σ(x @ w["W_o"] + w["b_o"])
    return [part.reshape(*part.shape[:2], heads, -1) for part in parts]


def hgrn2_out(w: dict[str, Array], y: Array) -> Array:
    """From y [T, B, N, D]."""
    y = y.reshape(*y.shape[:2], -1)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    return np.asarray((w["scale"] * y + w["shift"]) @ w["W_y"] + w["b_y"])


@pytest.mark.parametrize(("heads", "β"), [(4, 0.0), (3, 0.4)])
def test_hgrn2_follows_its_equations(heads: int, β: float) -> None:
    cell = build("hgrn2", heads=heads, lower_bound=β)
    (x, state), w = draw(cell), weights(cell)
    S, found = state.S.numpy(), []
    for f, i, o in zip(*hgrn2_gates(w, x.numpy(), heads, β), strict=True):
        S = f[..., None] * S + (1 - f)[..., None] * i[..., None, :]
        found.append(np.einsum("bnk,bnkv->bnv", o, S))
    agree(cell, x, state, hgrn2_out(w, np.stack(found)), S)


def test_hgrn2_equals_flas_gated_linear_attention() -> None:
    naive = fla("ops/gla/naive.py").naive_recurrent_gla
    cell = build("hgrn2")
    (x, state), w = draw(cell), weights(cell)
    f, i, o = (
        torch.from_numpy(part).transpose(0, 1)  # [B, T, N, D]
        for part in hgrn2_gates(w, x.numpy(), 4, 0.0)
    )
    scaled = o * o.shape[-1] ** 0.5  # which is taken out again there
    y, S = naive(scaled, 1 - f, i, f.log(), state.S, output_final_state=True)
    wanted = torch.from_numpy(hgrn2_out(w, y.transpose(0, 1).double().numpy()))
    for found, end in scan_and_steps(cell, x, state):
        torch.testing.assert_close(found, wanted, rtol=0, atol=SINGLE)
        torch.testing.assert_close(end.S, S.double(), rtol=0, atol=SINGLE)


# RetNet


def retnet_inputs(
    w: dict[str, Array], x: Array, heads: int, n: Array
) -> tuple[Array, Array, Array, Array]:
    """q, k, v and the gate's pre-activation [T, B, N, …]; q and k are complex, [T, B, N, K / 2],
    and rotated by their positions, the first of which are `n` [B]."""

    def by_head(weight: Array) -> Array:
        sums = x @ weight
        return np.asarray(sums.reshape(*sums.shape[:2], heads, -1))

    q, k, v, gate = (by_head(w[name]) for name in ("W_Q", "W_K", "W_V", "W_G"))
    k = k / np.sqrt(k.shape[-1])
    pairs = k.shape[-1] // 2
    θ = 1 / 10_000 ** np.linspace(0, 1, pairs)
    rotation = np.exp(1j * θ * (n + np.arange(len(x))[:, None])[..., None, None])
    q, k = ((part[..., :pairs] + 1j * part[..., pairs:]) * rotation for part in (q, k))
    return q, k, v, gate


def retnet_out(w: dict[str, Array], y: Array, gate: Array) -> Array:
    """From y [T, B, N, V]."""
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    gated = gate * σ(gate) * y
    return np.asarray(gated.reshape(*gated.shape[:2], -1) @ w["W_O"])


@pytest.mark.parametrize(("heads", "hidden"), [(4, H), (2, H), (1, 3), (3, 11)])
def test_retnet_follows_its_equations(heads: int, hidden: int) -> None:
    """The parallel form of the paper (equation 5), with the contribution of the given state:
    complex numbers instead of rotations, powers of γ instead of a recurrence."""
    cell = build("retnet", hidden=hidden, heads=heads)
    (x, state), w = draw(cell), weights(cell)
    q, k, v, gate = retnet_inputs(w, x.numpy(), heads, state.n.numpy())
    pairs = q.shape[-1]
    S = state.S[:, :, :pairs].numpy() + 1j * state.S[:, :, pairs:].numpy()
    γ = 1 - 2.0 ** (-5 - np.arange(heads))
    time = np.arange(T)
    apart = time[:, None] - time
    D = np.where(apart >= 0, γ[:, None, None] ** np.maximum(apart, 0), 0)
    scores = np.einsum("tbnk,sbnk->bnts", q, k.conj()).real * D
    y = np.einsum("bnts,sbnv->tbnv", scores, v)
    faded = γ ** (time + 1)[:, None]  # [T, N]
    y += np.einsum("tbnk,bnkv,tn->tbnv", q, S.conj(), faded).real
    left = γ ** (T - 1 - time)[:, None]
    end = S * faded[-1][:, None, None] + np.einsum("tbnk,tbnv,tn->bnkv", k, v, left)
    end = np.concatenate((end.real, end.imag), -2)
    agree(cell, x, state, retnet_out(w, y, gate), end, state.n.numpy() + T)


def test_retnet_equals_flas_retention() -> None:
    naive = fla("ops/retention/naive.py").naive_retention
    cell = build("retnet")
    x, w = draw(cell)[0], weights(cell)
    q, k, v, gate = retnet_inputs(w, x.numpy(), 4, np.zeros(B))
    k = k * np.sqrt(2 * k.shape[-1])  # which fla applies to q
    turned = (np.concatenate((part.real, part.imag), -1) for part in (q, k))
    y = naive(*(torch.from_numpy(part).permute(1, 2, 0, 3) for part in (*turned, v)))
    wanted = torch.from_numpy(retnet_out(w, y.permute(2, 0, 1, 3).double().numpy(), gate))
    for found, _ in scan_and_steps(cell, x, cell.init_state(B)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=SINGLE)


def test_retnet_is_accurate_at_late_positions() -> None:
    """Only differences of positions count: the offset of a sequence changes nothing, even in
    float32 after ten million steps."""
    torch.manual_seed(2)
    cell = zoo.get_cell("retnet").build(INPUTS, 64)
    x, early = torch.randn(T, B, INPUTS), cell.init_state(B)
    late = early._replace(n=early.n + 10_000_000)
    for one, other in zip(
        scan_and_steps(cell, x, early), scan_and_steps(cell, x, late), strict=True
    ):
        torch.testing.assert_close(one[0], other[0], rtol=0, atol=SINGLE)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("hgrn2", {"heads": 3}, (3, 3, 3)),  # 8 hidden units: three heads of 3
        ("retnet", {"heads": 3}, (3, 4, 8)),  # keys have pairs of features
        ("retnet", {"value_factor": 1}, (4, 2, 2)),
    ],
)
def test_widths_that_heads_do_not_divide(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    cell = zoo.get_cell(name).build(INPUTS, H, **options)
    assert cell.init_state(2).S.shape == (2, *shape)
    y, end = cell(torch.randn(4, 2, INPUTS))
    assert y.shape == (4, 2, H)
    assert end.S.shape == (2, *shape)

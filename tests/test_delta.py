"""Cells whose state is a matrix: their recurrences against flash-linear-attention's naive ones, and
the layers against the papers' equations, row by row and head by head in numpy."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from zoo.nn import matrix
from zoo.nn.state import flatten, map_leaves
from zoo_delta import gla, rwkv7

T, B, INPUT, HIDDEN = 37, 3, 5, 26
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gla": ("gla", {}),
    "gla-2-heads": ("gla", {"heads": 2, "tau": 2.0}),
    "deltanet": ("deltanet", {}),
    "deltanet-unconvolved": ("deltanet", {"short_conv": False, "heads": 2}),
    "gated-deltanet": ("gated-deltanet", {}),
    "gated-deltanet-unconvolved": ("gated-deltanet", {"short_conv": False, "heads": 2}),
    "deltanet-negative": ("deltanet", {"negative_eigenvalues": True}),
    "gated-deltanet-negative": ("gated-deltanet", {"negative_eigenvalues": True}),
    "rwkv7": ("rwkv7", {}),
    "rwkv7-4-heads": ("rwkv7", {"head_size": 8}),
}


def naive(operation: str) -> ModuleType:
    """fla/ops/…/naive.py, which needs torch and einops alone; the package itself needs triton."""
    package = find_spec("fla")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], "ops", operation, "naive.py")
    spec = spec_from_file_location(f"naive_{operation.replace('/', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Case(NamedTuple):
    cell: zoo.Cell
    x: Tensor
    start: Any


def build(case: str, dtype: torch.dtype = torch.float64) -> Case:
    """A cell with random weights, so that none has a value without effect, inputs, and a state that
    is not zero."""
    name, options = CASES[case]
    torch.manual_seed(3)
    cell = zoo.get_cell(name).build(INPUT, HIDDEN, **options).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    x = torch.randn(T, B, INPUT, dtype=torch.float64)
    start = map_leaves(torch.randn_like, cell.init_state(B))
    return Case(cell.to(dtype), x.to(dtype), map_leaves(lambda leaf: leaf.to(dtype), start))


class Call(NamedTuple):
    """The arguments of `matrix_scan`, as [B, T, N, …], and its result."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_w: Tensor
    start: Tensor
    a: Tensor
    b: Tensor
    o: Tensor
    end: Tensor


def record(case: Case, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Call:
    calls = []
    scan = module.matrix_scan

    def spy(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_w: Tensor,
        start: Tensor,
        a: Tensor | None = None,
        b: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        o, end = scan(q, k, v, log_w, start, a, b)
        given = (q, k, v, log_w, start, a, b, o, end)
        calls.append(Call(*(_batch_first(each) for each in given)))
        return o, end

    monkeypatch.setattr(module, "matrix_scan", spy)
    with torch.no_grad():
        case.cell(case.x, case.start)
    (call,) = calls
    return call


def _batch_first(leaf: Tensor | None) -> Any:
    if leaf is None or len(leaf) != T:
        return leaf
    return leaf.transpose(0, 1)


def close(found: Tensor, wanted: Tensor) -> None:
    """Both are float32: a tolerance of some tens of roundings over T steps, relative to the
    largest."""
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp(min=1)


def test_gla_equals_flas(monkeypatch: pytest.MonkeyPatch) -> None:
    case = build("gla", torch.float32)
    call = record(case, gla, monkeypatch)
    root = call.q.shape[-1] ** 0.5  # theirs divides q by it
    o, end = naive("gla").naive_recurrent_gla(
        call.q * root, call.k, call.v, call.log_w, call.start, output_final_state=True
    )
    close(call.o, o)
    close(call.end, end)


@pytest.mark.parametrize("name", ["deltanet", "deltanet-unconvolved", "deltanet-negative"])
def test_the_delta_rule_equals_flas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = build(name, torch.float32)
    call = record(case, matrix, monkeypatch)
    beta = case.cell.project(case.x).beta.transpose(0, 1)
    root = call.q.shape[-1] ** 0.5
    q, k, v, beta = (x.transpose(1, 2) for x in (call.q * root, call.a, call.v, beta))
    o, end = naive("delta_rule").delta_rule_recurrence(q, k, v, beta, call.start)
    close(call.o, o.transpose(1, 2))
    close(call.end, end)


@pytest.mark.parametrize(
    "name", ["gated-deltanet", "gated-deltanet-unconvolved", "gated-deltanet-negative"]
)
def test_the_gated_delta_rule_equals_flas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = build(name, torch.float32)
    call = record(case, matrix, monkeypatch)
    z = map_leaves(lambda leaf: leaf.transpose(0, 1), case.cell.project(case.x))
    root = call.q.shape[-1] ** 0.5
    o, end = naive("gated_delta_rule").naive_recurrent_gated_delta_rule(
        call.q * root,
        call.a,
        call.v,
        z.beta,
        z.log_decay,
        initial_state=call.start,
        output_final_state=True,
    )
    close(call.o, o)
    close(call.end, end)


@pytest.mark.parametrize("name", ["rwkv7", "rwkv7-4-heads"])
def test_rwkv7_equals_flas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fla gives its rule -κ̂ and κ̂ ⊙ a (fla/ops/rwkv7)."""
    case = build(name, torch.float32)
    cell, before = case.cell, torch.cat((case.start.x.unsqueeze(0), case.x[:-1]))
    assert isinstance(cell, rwkv7.RWKV7)
    call = record(case, rwkv7, monkeypatch)
    mixed = map_leaves(lambda leaf: leaf.transpose(0, 1), cell._mix(case.x, before))
    root = call.q.shape[-1] ** 0.5
    given = (
        mixed.r * root,
        mixed.k,
        mixed.v,
        -mixed.removal,
        mixed.removal * mixed.a,
        mixed.log_decay,
    )
    by_head = (leaf.transpose(1, 2) for leaf in given)
    o, end = naive("generalized_delta_rule/dplr").dplr_recurrence(*by_head, call.start)
    close(call.o, o.transpose(1, 2))
    close(call.end, end)


Array: TypeAlias = Any  # numpy's, of float64


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def unit(x: Array, epsilon: float) -> Array:
    return x / np.sqrt(np.sum(x**2) + epsilon)


def rms_norm(x: Array, weight: Array) -> Array:
    return x / np.sqrt(np.mean(x**2) + 1e-5) * weight


Arrays: TypeAlias = dict[str, Array]


def gla_layer(x: Array, w: Arrays, state: Arrays, cell: Any) -> Array:
    """One row of the batch, [T, I] to [T, H]; `state` is replaced by the last one."""
    outputs = []
    for x_t in x:
        q, k, v, r = x_t @ w["W_q"], x_t @ w["W_k"], x_t @ w["W_v"], x_t @ w["W_r"]
        alpha = sigmoid(x_t @ w["W_a1"] @ w["W_a2"] + w["b_a"]) ** (1 / cell.tau)
        parts = []
        for n, S in enumerate(state["S"]):
            K, V = S.shape
            keys, values = slice(n * K, n * K + K), slice(n * V, n * V + V)
            S[:] = np.diag(alpha[keys]) @ S + np.outer(k[keys], v[values])
            o = q[keys] @ S / np.sqrt(K)
            parts.append(silu(r[values]) * rms_norm(o, w["norm"]))
        outputs.append(np.concatenate(parts) @ w["W_o"])
    return np.array(outputs)


def delta_layer(x: Array, w: Arrays, state: Arrays, cell: Any) -> Array:
    outputs = []
    N, K, V = state["S"].shape
    for x_t in x:
        qkv = x_t @ w["W_qkv"]
        if "window" in state:
            seen = np.vstack((state["window"], qkv))
            qkv = sum(tap * then for tap, then in zip(w["conv"], seen, strict=True))
            state["window"][:] = seen[1:]
        qkv = silu(qkv)
        beta = (2 if cell.negative_eigenvalues else 1) * sigmoid(x_t @ w["W_b"])
        gated = "A_log" in w
        alpha = np.ones(N)
        if gated:
            dt = np.log1p(np.exp(x_t @ w["W_a"] + w["dt_bias"]))
            alpha = np.exp(-np.exp(w["A_log"]) * dt)
        parts = []
        for n, S in enumerate(state["S"]):
            q = unit(qkv[n * K :][:K], 1e-6)
            k = unit(qkv[N * K + n * K :][:K], 1e-6)
            v = qkv[2 * N * K + n * V :][:V]
            kept = alpha[n] * (np.eye(K) - beta[n] * np.outer(k, k))
            S[:] = kept @ S + beta[n] * np.outer(k, v)
            parts.append(rms_norm(S.T @ q / np.sqrt(K), w["norm"]))
        out = np.concatenate(parts)
        if gated:
            out = silu(x_t @ w["W_g"]) * out
        outputs.append(out @ w["W_o"])
    return np.array(outputs)


def rwkv7_layer(x: Array, w: Arrays, state: Arrays, cell: Any) -> Array:
    """In the paper's layout: S is [values, keys]."""
    outputs = []
    K = cell.head_size
    for x_t in x:
        lerp = [x_t + mu * (state["x"] - x_t) for mu in w["mu"]]
        x_r, x_w, x_k, x_v, x_a, x_g = lerp
        state["x"][:] = x_t
        r, k, v = x_r @ w["W_r"], x_k @ w["W_k"], x_v @ w["W_v"]
        d = np.tanh(x_w @ w["W_w1"]) @ w["W_w2"] + w["b_w"]
        decay = np.exp(-np.exp(-0.5) * sigmoid(d))
        a = sigmoid(x_a @ w["W_a1"] @ w["W_a2"] + w["b_a"])
        g = sigmoid(x_g @ w["W_g1"]) @ w["W_g2"]
        kappa, replacement = k * w["xi"], k * ((1 - w["alpha"]) + a * w["alpha"])
        p = np.empty_like(v)
        for n, transposed in enumerate(state["S"]):
            head = slice(n * K, n * K + K)
            kappa_hat = kappa[head] / np.linalg.norm(kappa[head])
            S = transposed.T
            S = S @ (np.diag(decay[head]) - np.outer(kappa_hat, a[head] * kappa_hat))
            S = S + np.outer(v[head], replacement[head])
            transposed[:] = S.T
            o = S @ r[head]
            normed = (o - o.mean()) / np.sqrt(o.var() + K * 1e-5)
            bonus = np.sum(r[head] * w["rho"][head] * replacement[head]) * v[head]
            p[head] = normed * w["norm_weight"][head] + w["norm_bias"][head] + bonus
        outputs.append((g * p) @ w["W_o"])
    return np.array(outputs)


LAYERS = {
    "gla": gla_layer,
    "deltanet": delta_layer,
    "gated-deltanet": delta_layer,
    "rwkv7": rwkv7_layer,
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_follows_its_equations(case: str) -> None:
    """Both are float64: rounding over T steps is far below 1e-9. rwkv7 adds 1e-12 to the square of
    a norm, where the paper adds nothing: up to 1e-11 of the norms here."""
    cell, x, start = build(case)
    weights = {name: weight.detach().numpy() for name, weight in cell.named_parameters()}
    with torch.no_grad():
        y, end = cell(x, start)
        stepped = start
        for x_t in x:
            _, stepped = cell.step(x_t, stepped)
    layer = LAYERS[CASES[case][0]]
    for row in range(B):
        state = {name: leaf[row].numpy().copy() for name, leaf in start._asdict().items()}
        wanted = layer(x[:, row].numpy(), weights, state, cell)
        np.testing.assert_allclose(y[:, row].numpy(), wanted, rtol=1e-9, atol=1e-9)
        for name, leaf in state.items():
            for found in (end, stepped):
                np.testing.assert_allclose(
                    getattr(found, name)[row].numpy(), leaf, rtol=1e-9, atol=1e-9
                )


@pytest.mark.parametrize("hidden", [1, 3, 8, 100, 130])
@pytest.mark.parametrize("name", LAYERS)
def test_states_have_the_documented_sizes_and_outputs_the_hidden_size(
    name: str, hidden: int
) -> None:
    """Heads, keys and values as in the classes' docstrings: N = min(4, ⌊H / 8⌋), or one; rwkv7 has
    ⌈H / 64⌉."""
    heads = ceil(hidden / 64) if name == "rwkv7" else max(1, min(4, hidden // 8))
    share = ceil(hidden / heads)
    gated = ceil(3 * hidden / (4 * heads))
    wanted = {
        "gla": {"S": (heads, ceil(hidden / (2 * heads)), share)},
        "deltanet": {"S": (heads, share, share), "window": (3, 3 * heads * share)},
        "gated-deltanet": {"S": (heads, gated, 2 * gated), "window": (3, 4 * heads * gated)},
        "rwkv7": {"S": (heads, share, share), "x": (INPUT,)},
    }[name]
    cell = zoo.get_cell(name).build(INPUT, hidden)
    state = cell.init_state(2)
    assert {key: tuple(leaf.shape[1:]) for key, leaf in state._asdict().items()} == wanted
    y, _ = cell.step(torch.randn(2, INPUT), state)
    assert y.shape == (2, hidden)


@pytest.mark.parametrize("name", ["deltanet", "gated-deltanet"])
def test_transitions_have_negative_eigenvalues_with_the_option_alone(name: str) -> None:
    """The state after a step is linear in the one before: the steps from the rows of I and from 0
    differ by the transition, which is symmetric."""
    torch.manual_seed(0)
    x = torch.randn(64, INPUT, dtype=torch.float64)
    for given, lowest in (({"negative_eigenvalues": True}, -1), ({}, 0)):
        cell: Any = zoo.get_cell(name).build(INPUT, HIDDEN, **given).double()
        with torch.no_grad():
            cell.W_b.mul_(30)  # β near its bounds
            if name == "gated-deltanet":
                cell.A_log.fill_(-30)  # and no decay
            zero = cell.init_state(len(x))
            S = torch.eye(cell.key_size, cell.value_size, dtype=torch.float64).expand_as(zero.S)
            ends = [cell.step(x, state)[1].S for state in (zero._replace(S=S), zero)]
        transition = (ends[0] - ends[1])[..., : cell.key_size].numpy()
        np.testing.assert_allclose(transition, transition.swapaxes(-1, -2), rtol=0, atol=1e-12)
        eigenvalues = np.linalg.eigvalsh(transition)
        assert lowest - 1e-9 < eigenvalues.min() < lowest + 0.01
        assert 0.99 < eigenvalues.max() < 1 + 1e-9


def test_rwkv7s_decays_are_within_the_papers_bounds() -> None:
    """Within (exp(-e^{-1/2}), 1), about (0.545, 1), whatever the weights (section 4)."""
    cell, x, start = build("rwkv7")
    assert isinstance(cell, rwkv7.RWKV7)
    with torch.no_grad():
        for bias, wanted in ((50.0, 0.545239), (-50.0, 1.0)):
            cell.b_w.fill_(bias)
            w = cell._mix(x, start.x.expand_as(x)).log_decay.exp()
            torch.testing.assert_close(w, torch.full_like(w, wanted), rtol=0, atol=1e-6)


def test_the_matrix_state_stays_float32_under_autocast() -> None:
    for case in CASES:
        cell, x, start = build(case, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            _, end = cell(x, start)
            _, stepped = cell.step(x[0], start)
        assert {leaf.dtype for leaf in (*flatten(end), *flatten(stepped))} == {torch.float32}

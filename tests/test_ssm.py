"""Mamba and Mamba-2, against transformers' mixers in plain PyTorch with the same weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.nn.cell import Cell
from zoo.nn.state import flatten, map_leaves

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import DynamicCache, Mamba2Config, MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

HIDDEN, BATCH, STATE = 8, 3, 6
LONG = 150  # steps: several chunks of matrix_scan, and more than one chunk of Mamba's scan
EXACT = {"rtol": 1e-10, "atol": 1e-12}
ROUNDED = {"rtol": 1e-5, "atol": 1e-6}  # Mamba-2's norm rounds to float32 in transformers


class Pair(NamedTuple):
    cell: Cell
    mixer: nn.Module
    config: Any
    close: dict[str, float]  # of outputs; states agree to EXACT in both

    def cache(self) -> Any:
        return DynamicCache(config=self.config)


def mamba() -> Pair:
    cell = zoo.get_cell("mamba").build(HIDDEN, HIDDEN, state_size=STATE, dt_rank=3)
    config = MambaConfig(
        hidden_size=HIDDEN, state_size=STATE, time_step_rank=3, conv_kernel=4, num_hidden_layers=1
    )
    return Pair(cell, MambaMixer(config, 0), config, EXACT)


def mamba2(head_size: int = 4) -> Pair:
    cell = zoo.get_cell("mamba2").build(HIDDEN, HIDDEN, state_size=STATE, head_size=head_size)
    config = Mamba2Config(
        hidden_size=HIDDEN,
        state_size=STATE,
        num_heads=2 * HIDDEN // head_size,
        head_dim=head_size,
        n_groups=1,
        conv_kernel=4,
        chunk_size=16,
        num_hidden_layers=1,
    )
    return Pair(cell, Mamba2Mixer(config, 0), config, ROUNDED)


def in_their_terms(cell: Any, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """A property of each parameter (its value, its gradient), by the mixer's names."""
    common = {
        "in_proj.weight": of(cell.W_in).T,
        "conv1d.weight": of(cell.W_conv).T.unsqueeze(1),
        "conv1d.bias": of(cell.b_conv),
        "A_log": of(cell.A_log),
        "D": of(cell.D),
        "out_proj.weight": of(cell.W_out).T,
    }
    if hasattr(cell, "scale"):
        return common | {"dt_bias": of(cell.b_delta), "norm.weight": of(cell.scale)}
    return common | {
        "x_proj.weight": of(cell.W_x).T,
        "dt_proj.weight": of(cell.W_delta).T,
        "dt_proj.bias": of(cell.b_delta),
    }


@pytest.fixture(params=[mamba, mamba2, lambda: mamba2(16)], ids=["mamba", "mamba2", "one-head"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Both in float64; `.float()` in the mixers is patched to keep it. Parameters are changed from
    the ones and zeros that some are initialised to."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.manual_seed(0)
    pair: Pair = request.param()
    pair.cell.double()
    pair.mixer.double().eval()
    with torch.no_grad():
        for parameter in pair.cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    pair.mixer.load_state_dict(in_their_terms(pair.cell, torch.Tensor.detach))
    return pair


def inputs(steps: int) -> Tensor:
    return torch.randn(steps, BATCH, HIDDEN, dtype=torch.float64)


def assert_same_state(state: Any, cache: Any) -> None:
    window = cache.layers[0].conv_states[0][..., -3:]
    h = cache.layers[0].recurrent_states[0]
    torch.testing.assert_close(state.window, window.transpose(1, 2), **EXACT)
    # theirs is [B, D, N] and [B, heads, P, N]
    torch.testing.assert_close(state.h, h if h.ndim == 3 else h.transpose(2, 3), **EXACT)


def test_whole_sequences_and_their_gradients(pair: Pair) -> None:
    x, outside = inputs(LONG), inputs(LONG)
    y, _ = pair.cell(x)
    wanted = pair.mixer(x.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(y, wanted, **pair.close)
    for outputs in (y, wanted):
        (outputs * outside).sum().backward()
    theirs = dict(pair.mixer.named_parameters())
    ours = in_their_terms(pair.cell, lambda parameter: parameter.grad)
    assert theirs.keys() == ours.keys()
    for name, gradient in ours.items():
        found, wanted = gradient, theirs[name].grad
        assert (found - wanted).abs().max() <= pair.close["rtol"] * wanted.abs().max(), name


@torch.no_grad()
def test_states_step_by_step(pair: Pair) -> None:
    """From the state after a sequence, which differs between rows, through 25 steps."""
    cache = pair.cache()
    x = inputs(9)
    _, state = pair.cell(x)
    pair.mixer(x.transpose(0, 1), cache_params=cache)
    assert_same_state(state, cache)
    for x_BI in inputs(25):
        y, state = pair.cell.step(x_BI, state)
        wanted = pair.mixer(x_BI.unsqueeze(1), cache_params=cache).squeeze(1)
        torch.testing.assert_close(y, wanted, **pair.close)
        assert_same_state(state, cache)


def test_mamba2_by_its_equations_in_float64() -> None:
    """Section 7.1 and listing 1 of the paper, head by head and feature by feature, with the norm
    that transformers rounds."""
    torch.manual_seed(1)
    cell: Any = zoo.get_cell("mamba2").build(2, 3, state_size=2, head_size=3).double()
    assert (cell.heads, cell.head_size) == (2, 3)
    P, N, inner = 3, 2, 6
    x = torch.randn(6, 1, 2, dtype=torch.float64)
    y, _ = cell(x)
    before = [[0.0] * (inner + 2 * N) for _ in range(3)]
    h = [[[0.0] * N for _ in range(P)] for _ in range(2)]
    for x_t, y_t in zip(x[:, 0], y[:, 0], strict=True):
        z, xBC, dt = (x_t @ cell.W_in).tolist(), None, None
        z, xBC, dt = z[:inner], z[inner : 2 * inner + 2 * N], z[2 * inner + 2 * N :]
        before.append(xBC)
        c = [
            silu(sum(w * v[f] for w, v in zip(W_f, before[-4:], strict=True)) + bias)
            for f, (W_f, bias) in enumerate(
                zip(cell.W_conv.T.tolist(), cell.b_conv.tolist(), strict=True)
            )
        ]
        B, C = c[inner : inner + N], c[inner + N :]
        gated = []
        for head in range(2):
            delta = math.log1p(math.exp(dt[head] + cell.b_delta[head].item()))
            decay = math.exp(-delta * math.exp(cell.A_log[head].item()))
            for p in range(P):
                value = c[head * P + p]
                row = [decay * h[head][p][n] + delta * B[n] * value for n in range(N)]
                h[head][p] = row
                out = sum(a * b for a, b in zip(row, C, strict=True))
                out += cell.D[head].item() * value
                gated.append(out * silu(z[head * P + p]))
        rms = math.sqrt(sum(g * g for g in gated) / inner + 1e-5)
        wanted = torch.tensor([g / rms for g in gated], dtype=torch.float64) * cell.scale
        torch.testing.assert_close(y_t, wanted @ cell.W_out, **EXACT)


def test_mamba_with_complex_states_by_its_equations() -> None:
    """In NumPy's complex numbers, from a state that is not zero; 2 Re(C h) as in the authors'
    selective_scan_ref."""
    torch.manual_seed(4)
    N, rank = 3, 2
    cell: Any = zoo.get_cell("mamba").build(2, 4, state_size=N, dt_rank=rank, complex_state=True)
    cell.double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(7, 2, 2, dtype=torch.float64)
    zero = cell.init_state(2)
    start = map_leaves(torch.randn_like, zero)
    w = {name: weight.detach().numpy() for name, weight in cell.named_parameters()}
    A = -np.exp(w["A_log"]) + 1j * w["A_im"]
    h = start.h.re.numpy() + 1j * start.h.im.numpy()
    seen = [*start.window.numpy().swapaxes(0, 1)]
    wanted = []
    for x_t in x.numpy():
        inner, gate = np.split(x_t @ w["W_in"], 2, -1)
        seen.append(inner)
        u = sum(tap * then for tap, then in zip(w["W_conv"], seen[-4:], strict=True)) + w["b_conv"]
        u = u / (1 + np.exp(-u))
        parts = np.split(u @ w["W_x"], [rank, rank + N, rank + 2 * N, rank + 3 * N], -1)
        delta = np.log1p(np.exp(parts[0] @ w["W_delta"] + w["b_delta"]))[..., None]
        B, C = parts[1] + 1j * parts[2], parts[3] + 1j * parts[4]
        h = np.exp(delta * A) * h + delta * u[..., None] * B[:, None]
        y = 2 * np.einsum("bdn,bn->bd", h, C).real + w["D"] * u
        wanted.append((y * gate / (1 + np.exp(-gate))) @ w["W_out"])
    with torch.no_grad():
        whole, end = cell(x, start)
        state, steps = start, []
        for x_t in x:
            y, state = cell.step(x_t, state)
            steps.append(y)
    for found, last in ((whole, end), (torch.stack(steps), state)):
        torch.testing.assert_close(found, torch.from_numpy(np.array(wanted)), **EXACT)
        torch.testing.assert_close(torch.complex(*last.h), torch.from_numpy(h), **EXACT)


def silu(value: float) -> float:
    return value / (1 + math.exp(-value))


def test_long_sequences_store_few_states() -> None:
    """The backward pass of a long sequence stores less than all its states, and its gradient equals
    that of the loop over steps."""
    torch.manual_seed(2)
    cell: Any = zoo.get_cell("mamba").build(5, 8, state_size=64).double()
    x = torch.randn(384, 2, 5, dtype=torch.float64)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda kept: (sizes.append(kept.numel()), kept)[1], lambda kept: kept
    ):
        whole = cell(x)
    states = 384 * 2 * cell.A_log.numel()
    assert sum(sizes) < states / 2
    gradients = []
    for y, end in (whole, Cell.forward(cell, x)):
        cell.zero_grad()
        (y.square().sum() + end.h.square().sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in cell.parameters()])
    for found, wanted in zip(*gradients, strict=True):
        assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max()


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_initial_values_are_the_authors(name: str) -> None:
    """Δ within [0.001, 0.1], log-uniform; A as S4D-Real's, or within 1..16."""
    torch.manual_seed(3)
    cell: Any = zoo.get_cell(name).build(5, 512, **({} if name == "mamba" else {"head_size": 1}))
    delta = nn.functional.softplus(cell.b_delta.detach().double())
    assert 1e-3 * (1 - 1e-4) <= delta.min() < 1.1e-3
    assert 0.09 < delta.max() <= 0.1 * (1 + 1e-4)
    # of 1,024 uniform draws over a range of log 100, five standard deviations of their mean
    assert abs(delta.log().mean() - math.log(1e-2)) < 5 * math.log(100) / math.sqrt(12 * 1024)
    A = cell.A_log.exp()
    if name == "mamba":
        torch.testing.assert_close(A, torch.arange(1.0, 17).expand(1024, 16))
        lin: Any = zoo.get_cell(name).build(5, 8, complex_state=True)  # -1/2 + i n of S4D-Lin
        torch.testing.assert_close(lin.A_log.exp(), torch.full((16, 16), 0.5))
        torch.testing.assert_close(lin.A_im, torch.arange(16.0).expand(16, 16))
    else:
        assert 1 <= A.min() < 1.2
        assert 15.8 < A.max() <= 16 * (1 + 1e-6)
    assert (cell.D == 1).all()


@pytest.mark.parametrize(
    ("hidden", "head_size", "heads", "width"),
    [(8, 64, 1, 16), (256, 64, 8, 64), (100, 64, 4, 50), (3, 4, 2, 3), (5, 3, 4, 3)],
)
def test_heads_divide_the_width(hidden: int, head_size: int, heads: int, width: int) -> None:
    cell: Any = zoo.get_cell("mamba2").build(2, hidden, head_size=head_size)
    assert (cell.heads, cell.head_size) == (heads, width)
    y, state = cell(torch.randn(3, 2, 2))
    assert y.shape == (3, 2, hidden)
    assert [leaf.shape for leaf in flatten(state)] == [
        (2, 3, heads * width + 32),
        (2, heads, 16, width),
    ]

"""Scans over time, against the loop that they replace, and against float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from zoo.nn import linear, selective as selective_module
from zoo.nn.convolution import convolve, convolve_step
from zoo.nn.linear import Complex, linear_scan
from zoo.nn.matrix import matrix_scan, matrix_step
from zoo.nn.selective import selective_scan


def step_by_step(a_T: Tensor, b_T: Tensor, start: Tensor) -> Tensor:
    h, found = start, []
    for a, b in zip(a_T.expand(b_T.shape), b_T, strict=True):
        h = a * h + b
        found.append(h)
    return torch.stack(found)


def draw(steps: int, kind: torch.dtype, shape: tuple[int, ...] = (3, 4)) -> list[Tensor]:
    torch.manual_seed(steps)
    a = torch.rand(steps, *shape, dtype=kind)
    b, start = torch.randn(steps, *shape, dtype=kind), torch.randn(*shape, dtype=kind)
    return [a, b, start]


@pytest.fixture(params=["by-step", "in-pieces"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of work of few steps on a CPU, and that of other devices."""
    if request.param == "in-pieces":
        monkeypatch.setattr(linear, "FEW_STEPS", 0)
        monkeypatch.setattr(linear, "LARGE_STEP", 10**9)
        monkeypatch.setattr(selective_module, "_slabs", lambda x_T: [slice(0, len(x_T))])


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 16, 35, 120])
def test_the_scan_equals_the_loop(steps: int, kind: torch.dtype) -> None:
    a, b, start = draw(steps, kind)
    torch.testing.assert_close(
        linear_scan(a, b, start), step_by_step(a, b, start), rtol=1e-12, atol=1e-12
    )
    constant = a[0, 0]  # one decay for each unit, at all times
    torch.testing.assert_close(
        linear_scan(constant, b, start),
        step_by_step(constant.expand(b.shape), b, start),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 11])
def test_gradients_of_the_scan(steps: int, kind: torch.dtype) -> None:
    values = [value.requires_grad_() for value in draw(steps, kind, (2, 3))]
    assert torch.autograd.gradcheck(linear_scan, values)
    constant = values[0].detach()[0, 0].requires_grad_()
    assert torch.autograd.gradcheck(linear_scan, [constant, *values[1:]])


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("slowest", [0.9, 0.999, 1.0])
def test_float32_is_within_two_millionths_of_float64(slowest: float) -> None:
    """Outputs and all gradients, relative to the largest; the loop is no more accurate."""
    torch.manual_seed(0)
    a = slowest * torch.sigmoid(3 * torch.randn(1024, 4, 64, dtype=torch.float64))
    b = (1 - a) * torch.randn(1024, 4, 64, dtype=torch.float64)
    start = torch.randn(4, 64, dtype=torch.float64)
    outside = torch.randn(1024, 4, 64, dtype=torch.float64)
    results = []
    for method, kind in product((linear_scan, step_by_step), (torch.float64, torch.float32)):
        values = [v.to(kind).detach().clone().requires_grad_() for v in (a, b, start)]
        h = method(*values)
        (h * outside.to(kind)).sum().backward()
        results.append([h.detach(), *(v.grad for v in values)])
    exact, single, loop_exact, loop = results
    for wanted, found, plain_exact, plain in zip(exact, single, loop_exact, loop, strict=True):
        size = wanted.abs().max()
        assert (wanted - plain_exact).abs().max() < 1e-12 * size
        assert (found - wanted).abs().max() < 2e-6 * size
        assert (found - wanted).abs().max() < 2 * (plain - wanted).abs().max() + 1e-7 * size


def test_a_scan_keeps_the_dtype_of_the_state() -> None:
    a, b, start = draw(9, torch.float32)
    assert linear_scan(a.bfloat16(), b.bfloat16(), start).dtype == torch.float32


@pytest.mark.parametrize("delta", [False, True], ids=["plain", "delta"])
@pytest.mark.parametrize("decay", [None, 1, 4], ids=["kept", "by-head", "by-key"])
@pytest.mark.parametrize("steps", [1, 5, 16, 33, 70])
def test_the_chunked_form_equals_the_recurrence(steps: int, decay: int | None, delta: bool) -> None:
    values = draw_matrices(steps, decay, delta)
    o_T, end = matrix_scan(*values)
    wanted_T, wanted_end = matrix_steps(*values)
    torch.testing.assert_close(o_T, wanted_T, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(end, wanted_end, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("ends", [False, True], ids=["outputs", "with-the-state"])
@pytest.mark.parametrize("delta", [False, True], ids=["plain", "delta"])
@pytest.mark.parametrize("decay", [None, 1, 4], ids=["kept", "by-head", "by-key"])
@pytest.mark.parametrize("steps", [1, 5, 16, 33, 70])
def test_gradients_of_the_chunked_form(
    steps: int, decay: int | None, delta: bool, ends: bool
) -> None:
    """Of everything that goes in, with and without a gradient at the last state."""
    values = draw_matrices(steps, decay, delta)
    inputs = [value.requires_grad_() for value in values if value is not None]
    found = []
    for method in (matrix_scan, matrix_steps):
        torch.manual_seed(0)
        o, end = method(*values)
        total = (o * torch.randn(o.shape, dtype=o.dtype)).sum()
        if ends:
            total = total + (end * torch.randn(end.shape, dtype=end.dtype)).sum()
        found.append(torch.autograd.grad(total, inputs))
    for gradient, wanted in zip(*found, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("delta", [False, True], ids=["plain", "delta"])
@pytest.mark.parametrize("decay", [1, 32], ids=["by-head", "by-key"])
@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
def test_chunks_in_float32_are_as_accurate_as_the_steps(
    strength: float, decay: int, delta: bool
) -> None:
    """Outputs and all gradients, against float64, relative to the largest value. Where a head
    decays as one, logarithms are differences of sums over a chunk, rounded by 6e-8 of the sum."""
    rounding = 1e-6 + (6e-8 * 32 * 4 * strength if decay == 1 else 0)
    values = draw_matrices(100, decay, delta, features=32)
    log_w = values[3]
    assert log_w is not None
    values[3] = log_w * strength
    results = []
    for method, kind in product((matrix_scan, matrix_steps), (torch.float64, torch.float32)):
        torch.manual_seed(0)
        inputs = [None if v is None else v.detach().to(kind).requires_grad_() for v in values]
        o, end = method(*inputs)
        total = (o * torch.randn(o.shape).to(kind)).sum() + end.square().sum() / 2
        results.append([o, end, *torch.autograd.grad(total, [v for v in inputs if v is not None])])
    exact, single, _, loop = results
    for wanted, found, plain in zip(exact, single, loop, strict=True):
        size = wanted.abs().max()
        assert (found - wanted).abs().max() < 2 * (plain - wanted).abs().max() + rounding * size


def draw_matrices(
    steps: int, decay: int | None, delta: bool, features: int = 4
) -> list[Tensor | None]:
    """Arguments of `matrix_scan`; a and b such that the state does not grow."""
    torch.manual_seed(steps)
    like = {"dtype": torch.float64}
    q, k, a = (torch.randn(steps, 2, 3, features, **like) / 2 for _ in range(3))
    a = a / a.norm(dim=-1, keepdim=True)
    b = -a * torch.rand(steps, 2, 3, 1, **like)
    v = torch.randn(steps, 2, 3, 5, **like)
    log_w = None if decay is None else -torch.rand(steps, 2, 3, decay, **like) * 4
    start = torch.randn(2, 3, features, 5, **like)
    return [q, k, v, log_w, start, *((a, b) if delta else ())]


def matrix_steps(
    q_T: Tensor, k_T: Tensor, v_T: Tensor, log_w_T: Tensor | None, state: Tensor, *rest: Tensor
) -> tuple[Tensor, Tensor]:
    found = []
    for t in range(len(q_T)):
        log_w = None if log_w_T is None else log_w_T[t]
        o, state = matrix_step(q_T[t], k_T[t], v_T[t], log_w, state, *(x[t] for x in rest))
        found.append(o)
    return torch.stack(found), state


def test_a_step_is_the_recurrence_written_as_matrices() -> None:
    torch.manual_seed(0)
    q, k, a, b = torch.randn(4, 1, 1, 3, dtype=torch.float64).unbind(0)
    v, S = torch.randn(1, 1, 2, dtype=torch.float64), torch.randn(1, 1, 3, 2, dtype=torch.float64)
    log_w = -torch.rand(1, 1, 3, dtype=torch.float64)
    transition = torch.diag(log_w[0, 0].exp()) + torch.outer(b[0, 0], a[0, 0])
    wanted = transition @ S[0, 0] + torch.outer(k[0, 0], v[0, 0])
    o, state = matrix_step(q, k, v, log_w, S, a, b)
    torch.testing.assert_close(state[0, 0], wanted)
    torch.testing.assert_close(o[0, 0], wanted.T @ q[0, 0])


def test_strong_decays_do_not_overflow() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(40, 1, 2, 4) for _ in range(3))
    log_w = (-200 * torch.rand(40, 1, 2, 4)).requires_grad_()
    o, end = matrix_scan(q, k, v, log_w, torch.zeros(1, 2, 4, 4))
    (o.sum() + end.sum()).backward()
    assert torch.isfinite(o).all()
    assert torch.isfinite(log_w.grad).all()


def selective(*values: Tensor) -> tuple[Tensor, Tensor]:
    """`selective_scan` and its last state, of complex tensors too."""
    if not values[-1].is_complex():
        return selective_scan(*values)
    y, end = selective_scan(*values[:2], *(Complex(x.real, x.imag) for x in values[2:]))
    return y, torch.complex(*end)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_selective_scan_equals_its_equations(steps: int, kind: torch.dtype) -> None:
    torch.manual_seed(steps)
    like, of_state = {"dtype": torch.float64}, {"dtype": kind}
    u = torch.randn(steps, 2, 5, **like)
    B, C = (torch.randn(steps, 2, 3, **of_state) for _ in range(2))
    delta, start = torch.rand_like(u), torch.randn(2, 5, 3, **of_state)
    A = -torch.rand(5, 3, **like)
    if kind.is_complex:
        A = torch.complex(A, 2 * torch.randn_like(A))
    values = [v.requires_grad_() for v in (delta, u, A, B, C, start)]
    y, end = selective(*values)
    h, wanted = start, []
    for t in range(steps):
        decay = torch.exp(delta[t].unsqueeze(-1) * A)
        h = decay * h + (delta[t] * u[t]).unsqueeze(-1) * B[t].unsqueeze(-2)
        wanted.append(torch.einsum("bdn,bn->bd", h, C[t]).real)
    outside, outside_end = torch.randn(steps, 2, 5, **like), torch.randn(2, 5, 3, **of_state)
    torch.testing.assert_close(y, torch.stack(wanted), rtol=0, atol=1e-12)
    torch.testing.assert_close(end, h, rtol=0, atol=1e-12)
    pairs = (y, end), (torch.stack(wanted), h)
    for outsides in ((outside, outside_end), (outside, torch.zeros_like(h))):
        found, plain = (
            torch.autograd.grad(pair, values, outsides, retain_graph=True) for pair in pairs
        )
        for gradient, its in zip(found, plain, strict=True):
            torch.testing.assert_close(gradient, its, rtol=0, atol=1e-11)
    assert torch.autograd.gradcheck(lambda *v: selective(*v)[0], values)


def test_a_convolution_equals_torch_nns() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(5, 5, 4, groups=5, padding=3)
    x, weight = torch.randn(11, 2, 5), layer.weight.squeeze(1).T
    wanted = layer(x.permute(1, 2, 0))[..., :11].permute(2, 0, 1)
    y, window = convolve(x, torch.zeros(2, 3, 5), weight, layer.bias)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(window, x[-3:].transpose(0, 1))
    carried = torch.zeros(2, 3, 5)
    for x_t, wanted_t in zip(x, wanted, strict=True):
        y_t, carried = convolve_step(x_t, carried, weight, layer.bias)
        torch.testing.assert_close(y_t, wanted_t, rtol=0, atol=1e-6)
    torch.testing.assert_close(carried, window)

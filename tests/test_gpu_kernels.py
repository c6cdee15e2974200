"""Kernels on a CUDA device, those of fla-core and our own, against float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import zoo
from zoo.nn import delta_scan, fused, kernels, linear_scan, matrix_scan
from zoo.nn.state import flatten, map_leaves

pytestmark = pytest.mark.gpu
T, B, N, V = 75, 3, 2, 24


@pytest.fixture(autouse=True, scope="module")
def _kernels() -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")


@pytest.fixture
def flas() -> None:
    if not kernels.is_installed():
        pytest.skip("fla-core is not installed: pip install 'recurrent-zoo[fla]'")


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def case(name: str, K: int) -> tuple[Callable[..., Any], list[Tensor]]:
    """A scan, and its arguments up to the state."""
    torch.manual_seed(0)
    q, k, v = draw(T, B, N, K) / K**0.5, F.normalize(draw(T, B, N, K), dim=-1), draw(T, B, N, V)
    by_head, by_key = (F.logsigmoid(draw(T, B, N, D) + 2) for D in (1, K))
    state = draw(B, N, K, V)
    if name == "none":
        return lambda q, k, v, S: matrix_scan(q, k, v, None, S), [q, k, v, state]
    if name in ("by head", "by key"):
        return matrix_scan, [q, k, v, by_head if name == "by head" else by_key, state]
    if name == "corrected":
        a, b = k, -torch.rand(T, B, N, 1, dtype=torch.float64) * k
        return lambda q, k, v, w, a, b, S: matrix_scan(q, k, v, w, S, a, b), [
            q, draw(T, B, N, K), v, by_key, a, b, state,
        ]  # fmt: skip
    beta = torch.rand(T, B, N, dtype=torch.float64)
    if name == "delta":
        return lambda q, k, v, beta, S: delta_scan(q, k, v, beta, None, S), [q, k, v, beta, state]
    return delta_scan, [q, k, v, beta, by_head, state]


def outcome(scan: Callable[..., Any], arguments: list[Tensor]) -> list[Tensor]:
    """The outputs, the last state, and the gradient of each argument."""
    leaves = [leaf.detach().requires_grad_() for leaf in arguments]
    o, end = scan(*leaves)
    torch.manual_seed(1)
    weights = [torch.randn(leaf.shape, dtype=torch.float64).to(leaf) for leaf in (o, end)]
    total = (o * weights[0]).sum() + (end * weights[1]).sum()
    return [o, end, *torch.autograd.grad(total, leaves)]


def apart(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """The distance of each, as a share of its size."""
    return [
        float((one.cpu().double() - other).norm() / other.norm())
        for one, other in zip(found, wanted, strict=True)
    ]


@pytest.mark.parametrize("K", [16, 64, 96])
@pytest.mark.parametrize("name", ["none", "by head", "by key", "corrected", "delta", "gated delta"])
def test_kernels_compute_the_recurrence(
    name: str, K: int, flas: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, arguments = case(name, K)
    wanted = outcome(scan, arguments)
    on_gpu = [leaf.float().cuda() for leaf in arguments]
    used = []
    run = kernels._run
    monkeypatch.setattr(kernels, "_run", lambda *a, **k: used.append(a[0]) or run(*a, **k))
    with torch.autocast("cuda", torch.bfloat16):
        found = outcome(scan, on_gpu)
    count = len(used)
    assert count > 0  # the first of its size is tried before, and there may be several
    # bfloat16 keeps 8 bits of a factor: 0.4 % at most, and sums of many average that; but the
    # gradient of a decay is a difference of such sums
    assert max(apart(found, wanted)) < 0.05
    exact = outcome(scan, on_gpu)  # without autocast, our own
    assert len(used) == count
    assert max(apart(exact, wanted)) < 1e-4


@pytest.mark.parametrize("cell", ["gla", "retnet", "deltanet", "gated-deltanet", "mamba2", "rwkv7"])
def test_cells_learn_the_same_with_kernels(
    cell: str, flas: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against our own recurrence under the same autocast."""
    torch.manual_seed(0)
    made = zoo.get_cell(cell).build(20, 64).cuda()
    x = torch.randn(100, 4, 20, device="cuda")

    def gradients() -> list[Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            y, end = made(x)
        torch.manual_seed(1)
        total = (y * torch.randn(y.shape, device="cuda")).sum()
        found = torch.autograd.grad(total, list(made.parameters()))
        return [y.detach(), *flatten(map_leaves(torch.detach, end)), *found]

    with_kernels = gradients()
    monkeypatch.setattr(kernels, "is_installed", lambda: False)
    without = [leaf.cpu().double() for leaf in gradients()]
    assert max(apart(with_kernels, [leaf + 1e-9 for leaf in without])) < 0.05


def test_only_the_lower_precision_uses_kernels(flas: None) -> None:
    q, v = torch.zeros(1, 1, 1, 16).cuda(), torch.zeros(1, 1, 1, 8).cuda()
    state = torch.zeros(1, 1, 16, 8).cuda()
    suit = partial(kernels.suit, kernel=kernels.BY_HEAD)
    assert not suit(q, v, state)
    with torch.autocast("cuda", torch.bfloat16):
        assert suit(q, v, state)
        assert not suit(q, v, state.double())
        assert not suit(q.repeat(1, 1, 1, 20), v, state)
        assert not suit(q.cpu(), v, state)


def test_kernels_that_do_not_run_are_left_out(
    flas: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of shared memory")

    monkeypatch.setattr(kernels, "_run", fail)
    kernels._runs.cache_clear()
    scan, arguments = case("by head", 16)
    with torch.autocast("cuda", torch.bfloat16):
        found = scan(*(leaf.float().cuda() for leaf in arguments))
    kernels._runs.cache_clear()
    assert "do not run here: out of shared memory" in caplog.text
    assert max(apart(list(found), list(scan(*arguments)))) < 1e-4


@pytest.mark.parametrize(
    ("rows", "width", "columns"), [(32, 512, 512), (5, 33, 100), (16, 64, 2050)]
)
def test_products_of_few_rows_are_as_exact_as_float32(rows: int, width: int, columns: int) -> None:
    torch.manual_seed(0)
    left, right = draw(rows, width), draw(1, width, columns) / width**0.5
    wider = draw(rows, columns + 3)
    wanted = wider[:, :columns] + left @ right[0]
    on_gpu = [x.float().cuda() for x in (wider, left, right)]
    with torch.no_grad():
        assert fused._kernels_for(on_gpu[1]) is not None
        addend = on_gpu[0][:, :columns]
        found = fused.plus_product(addend.clone(), *on_gpu[1:])
        bent = fused.tanh_plus_product(addend.clone(), *on_gpu[1:], out=torch.empty_like(found))
        within = fused.plus_product(addend, *on_gpu[1:], out=addend)
    # of the size of 1 to 4, with 24 bits, over sums of `width`
    for result, exact in ((found, wanted), (within, wanted), (bent, wanted.tanh())):
        assert float((result.cpu().double() - exact).abs().max()) < 1e-5
    assert torch.equal(on_gpu[0][:, columns:].cpu(), wider[:, columns:].float())


@pytest.mark.parametrize(
    ("T", "shape", "of_a"),
    [
        (150, (3, 7), (150, 3, 7)), (512, (16, 300), (512, 16, 300)), (64, (2, 40), (1, 1, 40)),
        (1, (2, 3), (1, 2, 3)), (65, (4,), (65, 1)), (70, (2, 5, 3), (5, 3)),
    ],
)  # fmt: skip
def test_the_linear_scan_is_that_of_the_cpu(
    T: int, shape: tuple[int, ...], of_a: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    a, b, start = 0.5 + 0.5 * torch.rand(of_a), torch.randn(T, *shape), torch.randn(shape)
    found = []
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.float32)):
        leaves = [x.to(device, dtype).requires_grad_() for x in (a, b, start)]
        h = linear_scan(*leaves)
        torch.manual_seed(1)
        total = (h * torch.randn(h.shape).to(h)).sum()
        found.append([h, *torch.autograd.grad(total, leaves)])
    assert max(apart(found[1], found[0])) < 1e-5

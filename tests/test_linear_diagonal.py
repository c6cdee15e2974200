"""The diagonal cells, against their equations in numpy's complex arithmetic, the real systems
before diagonalisation, and another implementation."""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch

import zoo

EXACT = {"rtol": 0, "atol": 1e-11}  # float64; rounding adds up to about 1e-14 here
Array = npt.NDArray[np.float64]


def build(name: str, input_size: int = 5, hidden_size: int = 8, **options: object) -> zoo.Cell:
    """A cell in float64 whose parameters all differ from their initial values."""
    torch.manual_seed(7)
    cell = zoo.get_cell(name).build(input_size, hidden_size, **options).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return cell


def weights(cell: zoo.Cell) -> dict[str, Array]:
    return {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def draw_state(cell: zoo.Cell) -> tuple[object, npt.NDArray[np.complex128]]:
    """A state of one complex variable `h` for a batch of 2: the cell's, and in numpy."""
    state = cell.init_state(2)
    re, im = (torch.randn_like(leaf) for leaf in state.h)
    return type(state)(type(state.h)(re, im)), re.numpy() + 1j * im.numpy()


def check(cell: zoo.Cell, x: torch.Tensor, start: object, wanted: Array, end: Array) -> None:
    """Outputs and the last complex state, in one run and step by step."""
    y, state = cell(x, start)
    np.testing.assert_allclose(y.detach().numpy(), wanted, **EXACT)
    found = []
    for x_t in x:
        y_t, start = cell.step(x_t, start)
        found.append(y_t)
    np.testing.assert_allclose(torch.stack(found).detach().numpy(), wanted, **EXACT)
    for h in (state.h, start.h):
        np.testing.assert_allclose((h.re + 1j * h.im).detach().numpy(), end, **EXACT)


def gelu(y: Array) -> Array:
    return y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))


def sigmoid(y: Array) -> Array:
    return 1 / (1 + np.exp(-y))


def glu_of_gelu(y: Array, w: dict[str, Array]) -> Array:
    both = gelu(y) @ w["mixing.linear.weight"].T + w["mixing.linear.bias"]
    half = both.shape[-1] // 2
    return both[..., :half] * sigmoid(both[..., half:])


@pytest.mark.parametrize("states", [None, 6])
def test_lru_follows_its_equations(states: int | None) -> None:
    cell = build("lru", states=states)
    w = weights(cell)
    x, (start, h) = draw(40, 2, 5), draw_state(cell)
    lam = np.exp(-np.exp(w["nu"]) + 1j * np.exp(w["theta"]))
    B, C = w["B_re"] + 1j * w["B_im"], w["C_re"] + 1j * w["C_im"]
    wanted = []
    for x_t in x.numpy():
        h = lam * h + np.exp(w["log_gamma"]) * (x_t @ B)
        wanted.append(glu_of_gelu((h @ C).real + x_t @ w["D"], w))
    check(cell, x, start, np.stack(wanted), h)


def test_lru_is_initialised_on_the_ring_with_unit_state_variance() -> None:
    """|λ|² is uniform between the squares of the radii (Lemma 3.2), the phase up to its bound. With
    inputs of unit variance, γ gives a state unit variance for any λ: Σ_k |λ|^2k γ² = 1."""
    torch.manual_seed(0)
    cell = zoo.get_cell("lru").build(3, 2, states=4096, r_min=0.5, r_max=0.9, max_phase=0.3)
    w = {name: value.astype(np.float64) for name, value in weights(cell).items()}
    lam = np.exp(-np.exp(w["nu"]) + 1j * np.exp(w["theta"]))
    assert np.abs(lam).min() > 0.5 - 1e-6
    assert np.abs(lam).max() < 0.9 + 1e-6
    assert 0 < np.angle(lam).min() < np.angle(lam).max() < 0.3
    # means of 4096 uniform draws, within five standard deviations
    spread = 5 / math.sqrt(12 * 4096)
    assert np.mean(np.abs(lam) ** 2) == pytest.approx((0.25 + 0.81) / 2, abs=spread * 0.56)
    assert np.mean(np.angle(lam)) == pytest.approx(0.15, abs=spread * 0.3)
    sums = (np.abs(lam)[:, None] ** (2 * np.arange(400))).sum(1)
    np.testing.assert_allclose(sums * np.exp(2 * w["log_gamma"]), 1, rtol=1e-5)


@pytest.mark.parametrize("init", ["lin", "inv"])
def test_s4d_equals_the_convolution_with_its_kernel(init: str) -> None:
    """From the zero state, over all N modes (the cell omits the conjugates), and over several of
    the cell's chunks."""
    cell = build("s4d", modes=4, init=init)
    w = weights(cell)
    x = draw(150, 2, 5)
    A = -np.exp(w["log_decay"]) + 1j * w["frequency"]
    C = w["C_re"] + 1j * w["C_im"]
    A, C = np.concatenate((A, A.conj()), 1), np.concatenate((C, C.conj()), 1)
    A_bar = np.exp(np.exp(w["log_dt"])[:, None] * A)
    B_bar = (A_bar - 1) / A
    kernel = (C * B_bar * A_bar ** np.arange(150)[:, None, None]).sum(-1)  # [T, H]
    np.testing.assert_allclose(kernel.imag, 0, atol=1e-12)
    u = x.numpy() @ w["encoder.weight"].T + w["encoder.bias"]
    y = w["D"] * u
    for b in range(2):
        for channel in range(8):
            y[:, b, channel] += np.convolve(u[:, b, channel], kernel.real[:, channel])[:150]
    found, _ = cell(x)
    np.testing.assert_allclose(found.detach().numpy(), glu_of_gelu(y, w), **EXACT)


@pytest.mark.parametrize("steps", [20, 64, 131])
def test_s4d_follows_its_equations_from_any_state(steps: int) -> None:
    cell = build("s4d")
    w = weights(cell)
    x, (start, h) = draw(steps, 2, 5), draw_state(cell)
    A = -np.exp(w["log_decay"]) + 1j * w["frequency"]
    A_bar = np.exp(np.exp(w["log_dt"])[:, None] * A)
    wanted = []
    for x_t in x.numpy():
        u = x_t @ w["encoder.weight"].T + w["encoder.bias"]
        h = A_bar * h + (A_bar - 1) / A * u[..., None]
        y = 2 * ((w["C_re"] + 1j * w["C_im"]) * h).sum(-1).real + w["D"] * u
        wanted.append(glu_of_gelu(y, w))
    check(cell, x, start, np.stack(wanted), h)


def test_s4d_is_initialised_with_the_published_modes() -> None:
    """S4D-Lin: πn. S4D-Inv of N = 8: (8/π)(8/(2n+1) - 1)."""
    for init, frequencies in {
        "lin": [0, 3.14159265, 6.28318531, 9.42477796],
        "inv": [17.82535363, 4.24413182, 1.52788745, 0.36378273],
    }.items():
        cell = zoo.get_cell("s4d").build(3, 2, modes=4, init=init)
        poles = torch.complex(-cell.log_decay.exp(), cell.frequency).detach().numpy()
        wanted = -0.5 + 1j * np.array(frequencies)
        np.testing.assert_allclose(poles, np.stack((wanted, wanted)), atol=3e-6)


def test_s5_follows_its_equations() -> None:
    cell = build("s5", pairs=3)
    w = weights(cell)
    x, (start, h) = draw(40, 2, 5), draw_state(cell)
    poles = -np.exp(w["log_decay"]) + 1j * w["frequency"]
    decay = np.exp(poles * np.exp(w["log_dt"]))
    B, C = w["B_re"] + 1j * w["B_im"], w["C_re"] + 1j * w["C_im"]
    wanted = []
    for x_t in x.numpy():
        h = decay * h + (decay - 1) / poles * (x_t @ B)
        g = gelu(2 * (h @ C).real + x_t @ w["D"])
        wanted.append(g * sigmoid(g @ w["gate.weight"].T + w["gate.bias"]))
    check(cell, x, start, np.stack(wanted), h)


def hippo_n(size: int) -> Array:
    """The normal part of HiPPO-LegS, from its entries: HiPPO-LegS plus p pᵀ."""
    A = np.zeros((size, size))
    for n in range(size):
        for k in range(size):
            legs = n + 1 if n == k else math.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else 0
            A[n, k] = -legs + math.sqrt((n + 0.5) * (k + 0.5))
    return A


def test_s5_is_initialised_as_real_hippo_systems() -> None:
    """The modes give real matrices A, B and C, with HiPPO-N as each block of A. The cell computes
    the outputs of that real system, discretised with matrix exponentials."""
    from zoo_linear.s5 import hippo_normal

    torch.manual_seed(3)
    cell = zoo.get_cell("s5").build(5, 8, blocks=2, pairs=4, dt_min=0.05, dt_max=0.05).double()
    w = weights(cell)
    frequency, vectors = (value.numpy() for value in hippo_normal(8))
    A = hippo_n(8)
    both = np.concatenate((vectors, vectors.conj()), 1)
    poles = np.concatenate((-0.5 + 1j * frequency, -0.5 - 1j * frequency))
    np.testing.assert_allclose(both @ np.diag(poles) @ both.conj().T, A, **EXACT)
    np.testing.assert_allclose(w["frequency"], np.tile(frequency, 2), rtol=1e-6)

    with torch.no_grad():  # not rounded to float32, as initial weights are
        cell.frequency.copy_(torch.tensor(np.tile(frequency, 2)))
        cell.log_decay.fill_(math.log(0.5))
    A, V = np.kron(np.eye(2), A), np.kron(np.eye(2), vectors)
    B = 2 * (V @ (w["B_re"] + 1j * w["B_im"]).T).real  # [P, I]
    C = 2 * ((w["C_re"] + 1j * w["C_im"]).T @ V.conj().T).real  # [H, P]
    np.testing.assert_allclose(V.conj().T @ B, (w["B_re"] + 1j * w["B_im"]).T, atol=1e-6)
    A_bar = torch.linalg.matrix_exp(torch.tensor(A * np.exp(w["log_dt"][0]))).numpy()
    B_bar = np.linalg.solve(A, (A_bar - np.eye(16)) @ B)
    x, h, wanted = draw(30, 2, 5), np.zeros((2, 16)), []
    for x_t in x.numpy():
        h = h @ A_bar.T + x_t @ B_bar.T
        g = gelu(h @ C.T + x_t @ w["D"])
        wanted.append(g * sigmoid(g @ w["gate.weight"].T + w["gate.bias"]))
    check(cell, x, cell.init_state(2), np.stack(wanted), h @ V.conj())


def griffin(cell: zoo.Cell, input_size: int, width: int) -> torch.nn.Module:
    """RecurrentGemma's recurrent block with the cell's weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import RecurrentGemmaConfig
        from transformers.models.recurrent_gemma import modeling_recurrent_gemma as theirs
    config = RecurrentGemmaConfig(
        hidden_size=input_size,
        lru_width=cell.hidden_size,
        num_attention_heads=cell.blocks,
        conv1d_width=width,
        hidden_activation="gelu_pytorch_tanh",
    )
    block = theirs.RecurrentGemmaRecurrentBlock(config, 0).double()
    block.linear_out = torch.nn.Linear(cell.hidden_size, cell.hidden_size).double()
    # the state in float64, as everything else
    unit = block.rg_lru
    unit._rnn_scan = functools.partial(unit._rnn_scan, acc_dtype=torch.float64)
    ours = dict(cell.named_parameters())
    block.load_state_dict(
        {
            **{name: value for name, value in ours.items() if name.startswith("linear_")},
            "conv_1d.weight": ours["conv_weight"].T.unsqueeze(1),
            "conv_1d.bias": ours["conv_bias"],
            "rg_lru.recurrent_param": -ours["Lambda"],
            "rg_lru.input_gate_weight": ours["W_i"],
            "rg_lru.input_gate_bias": ours["b_i"],
            "rg_lru.recurrent_gate_weight": ours["W_a"],
            "rg_lru.recurrent_gate_bias": ours["b_a"],
        }
    )
    return block


@pytest.mark.parametrize(("blocks", "width"), [(None, 4), (1, 4), (2, 3)])
def test_rg_lru_equals_recurrentgemmas_block(blocks: int | None, width: int) -> None:
    """A sequence from its first step, with gradients, and one that continues another: positions
    after 0, with a carried state."""
    cell = build("rg-lru", blocks=blocks, width=width)
    block = griffin(cell, 5, width)
    x = draw(30, 2, 5).requires_grad_()
    positions = torch.arange(30).expand(2, 30)

    def theirs(x_TBI: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return block(x_TBI.transpose(0, 1), at, None, use_cache=False)[0].transpose(0, 1)

    wanted = theirs(x, positions)
    (whole, end), state, found = cell(x), cell.init_state(2), []
    for x_t in x:
        y, state = cell.step(x_t, state)
        found.append(y)
    for ours in (whole, torch.stack(found)):
        torch.testing.assert_close(ours, wanted, **EXACT)
    for last in (end, state):
        torch.testing.assert_close(last.h, block_state(block, x, positions), **EXACT)
    outside = draw(*wanted.shape)
    (gradient,) = torch.autograd.grad((whole * outside).sum(), x)
    (wanted_gradient,) = torch.autograd.grad((wanted * outside).sum(), x)
    torch.testing.assert_close(gradient, wanted_gradient, **EXACT)

    _, middle = cell(x[:11])
    later, _ = cell(x[11:], middle)
    torch.testing.assert_close(later, wanted[11:], **EXACT)


def block_state(block: torch.nn.Module, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The block's last recurrent state, which it keeps with use_cache."""
    block.conv1d_state = None
    block.hidden_size = block.lru_width  # its convolution cache requires equal sizes
    block(x.transpose(0, 1), positions, None, use_cache=True)
    state: torch.Tensor = block.rg_lru.recurrent_states
    return state


def test_rg_lrus_first_step_is_not_scaled() -> None:
    """One step with the gates half open: a = σ(Λ)^(8/2), h_1 = u/2, and the second step adds
    √(1 - a²) u/2."""
    cell = zoo.get_cell("rg-lru").build(1, 1).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.linear_x.weight.fill_(1)
        cell.conv_weight[-1] = 1
        cell.linear_y.bias.fill_(2)
        cell.Lambda.fill_(3)
    ones = torch.ones(1, 1, dtype=torch.float64)
    _, first = cell.step(ones, cell.init_state(1))
    _, second = cell.step(ones, first)
    a = sigmoid(3) ** 4
    assert first.h.item() == pytest.approx(0.5, abs=1e-12)
    assert second.h.item() == pytest.approx(a * 0.5 + math.sqrt(1 - a * a) * 0.5, abs=1e-12)
    assert (first.begun.item(), second.begun.item()) == (1, 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lru", {"r_min": 0.9, "r_max": 0.8}),
        ("s4d", {"dt_min": 0.2, "dt_max": 0.1}),
        ("s5", {"dt_min": 0.2, "dt_max": 0.1}),
        ("rg-lru", {"blocks": 3}),
    ],
)
def test_invalid_options_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(zoo.UsageError, match=name):
        zoo.get_cell(name).build(5, 8, **options)


@pytest.mark.parametrize("name", ["lru", "s4d", "s5", "rg-lru"])
def test_long_sequences_in_float32(name: str) -> None:
    """1,000 steps are within 1e-5 of float64, relative to the largest output; measured: 2e-6."""
    torch.manual_seed(1)
    cell = zoo.get_cell(name).build(5, 8)
    x = torch.randn(1000, 2, 5)
    found, _ = cell(x)
    wanted, _ = cell.double()(x.double())
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_the_zero_order_hold_is_accurate_for_slow_modes() -> None:
    """Within 1e-6 of float64 for ΔΛ of 0.0005 and more; a direct exp(ΔΛ) - 1 would have an error of
    6e-5."""
    from zoo_linear.diagonal import zero_order_hold

    delta, frequency = torch.tensor(1e-3), torch.linspace(0, 60, 100)
    poles = zoo.nn.Complex(torch.full_like(frequency, -0.5), frequency)
    decay, factor = (z.re.numpy() + 1j * z.im.numpy() for z in zero_order_hold(poles, delta))
    exact = -0.5 + 1j * frequency.double().numpy()
    step = exact * delta.double().item()
    np.testing.assert_allclose(decay, np.exp(step), rtol=1e-6)
    np.testing.assert_allclose(factor, np.expm1(step) / exact, rtol=1e-6)

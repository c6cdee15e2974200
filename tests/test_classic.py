"""The classic cells, against torchrecurrent, against NumPy, and against numbers worked by hand.

All in float64, where the two implementations differ by rounding only: over the 40 steps of these
sequences by less than 1e-12, where a wrong equation differs by far more.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchrecurrent

T, B, I, H = 40, 3, 5, 7  # noqa: E741
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
Weights = dict[str, Tensor]


def build(name: str, **options: Any) -> zoo.Cell:
    """A cell whose trained weights are all random, and large enough for the nonlinear range of
    every activation function."""
    torch.manual_seed(1)
    cell = zoo.get_cell(name).build(I, H, **options).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.6)
    return cell


def inputs() -> Tensor:
    return torch.randn(T, B, I, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def random_state(cell: zoo.Cell) -> Any:
    """A random state, also outside the cell's range; a counter starts at 5, 6, 7."""
    generator = torch.Generator().manual_seed(3)
    state = cell.init_state(B)
    return type(state)(
        *(
            torch.rand(leaf.shape, generator=generator, dtype=leaf.dtype) * 1.8 - 0.9
            if leaf.is_floating_point()
            else torch.arange(B) + 5
            for leaf in state
        )
    )


def single(cell: Any, **weights: str) -> Weights:
    """The weights of a cell that has them concatenated, under torchrecurrent's names."""
    names = {"x": "W_x", "h": "W_h", "b": "b"} | weights
    return {
        "weight_ih": getattr(cell, names["x"]).T,
        "weight_hh": getattr(cell, names["h"]).T,
        "bias_ih": getattr(cell, names["b"]),
    }


def mgu(cell: Any) -> Weights:
    return {
        "weight_ih": torch.cat((cell.W_xf, cell.W_xh), 1).T,
        "weight_hh": torch.cat((cell.W_hf, cell.W_hh), 1).T,
        "bias_ih": torch.cat((cell.b_f, cell.b_h)),
    }


def indrnn(cell: Any) -> Weights:
    clipped = cell.u.clamp(-cell.bound, cell.bound)
    return {"weight_ih": cell.W.T, "vector_u": clipped, "bias_ih": cell.b}


def cornn(cell: Any) -> Weights:
    return {"weight_ih": cell.V.T, "weight_hh": cell.W_y.T, "weight_ch": cell.W_z.T,
            "bias_ih": cell.b}  # fmt: skip


def unicornn(cell: Any) -> Weights:
    return {"weight_ih": cell.V.T, "weight_hh": cell.w, "weight_ch": cell.c, "bias_ih": cell.b}


def peephole(cell: Any) -> Weights:
    return single(cell) | {"weight_ph": torch.cat((cell.p_i, cell.p_f, cell.p_o))}


def janet(cell: Any) -> Weights:
    return single(cell, x="W", h="U") | {"beta": torch.tensor(cell.beta, dtype=torch.float64)}


def ligru(cell: Any) -> Weights:
    return single(cell, x="W", h="U")


Case = tuple[str, dict[str, Any], str, dict[str, Any], Callable[[Any], Weights]]
STEPS = {"dt": 0.3, "gamma": 1.7, "epsilon": 0.6}
CASES: list[Case] = [
    ("indrnn", {}, "IndRNNCell", {"nonlinearity": "relu"}, indrnn),
    ("indrnn", {"nonlinearity": "tanh", "bound": 0.4}, "IndRNNCell", {"nonlinearity": "tanh"},
     indrnn),
    ("cornn", STEPS, "coRNNCell", STEPS, cornn),
    ("unicornn", {"dt": 0.7, "alpha": 1.3}, "UnICORNNCell", {"dt": 0.7, "alpha": 1.3}, unicornn),
    ("peephole-lstm", {}, "PeepholeLSTMCell", {}, peephole),
    ("mgu", {}, "MGUCell", {}, mgu),
    ("ugrnn", {}, "UGRNNCell", {}, single),
    ("ligru", {}, "LiGRUCell", {}, ligru),
    ("janet", {"beta": 0.8}, "JANETCell", {}, janet),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "other_name", "other_options", "convert"),
    CASES,
    ids=[f"{case[0]}-{index}" for index, case in enumerate(CASES)],
)
def test_cells_equal_torchrecurrents_given_equal_weights(
    name: str,
    options: dict[str, Any],
    other_name: str,
    other_options: dict[str, Any],
    convert: Callable[[Any], Weights],
) -> None:
    cell = build(name, **options)
    other = getattr(torchrecurrent, other_name)(I, H, **other_options).double()
    weights = {k: v.detach() for k, v in convert(cell).items()}
    known = other.state_dict()
    # it has a second bias, the recurrent one, and some cells a third: they are zero
    zeros = {k: torch.zeros_like(v) for k, v in known.items() if "bias" in k}
    other.load_state_dict(zeros | weights)
    start = random_state(cell)
    with torch.no_grad():
        got, end = cell(inputs(), start)
        # a memory that is also the output is one leaf here, two in torchrecurrent
        theirs = tuple(start) if len(start) == 2 else (start[0], start[0])
        both = issubclass(type(other), torchrecurrent.base.DoubleStateCellBase)
        wanted = []
        for x in inputs():
            theirs = other(x, theirs) if both else (other(x, theirs[0]),)
            wanted.append(theirs[0])
    torch.testing.assert_close(got, torch.stack(wanted), **CLOSE)
    for leaf, wanted_leaf in zip(end, theirs, strict=False):
        torch.testing.assert_close(leaf, wanted_leaf, **CLOSE)
    assert got.std() > 0.05  # neither may be constant


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def arrays(cell: zoo.Cell) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}


def check(cell: zoo.Cell, start: Any, wanted: list[np.ndarray], ends: list[np.ndarray]) -> None:
    with torch.no_grad():
        got, end = cell(inputs(), start)
    np.testing.assert_allclose(got.numpy(), np.stack(wanted), **CLOSE)
    for leaf, wanted_leaf in zip(end, ends, strict=True):
        np.testing.assert_allclose(leaf.numpy(), wanted_leaf, **CLOSE)


@pytest.mark.parametrize("dt", [1.0, 0.4])
def test_lem_follows_equation_3(dt: float) -> None:
    cell = build("lem", dt=dt)
    start = random_state(cell)
    w = arrays(cell)
    V_1, V_2, V_z = np.split(w["V"], 3, 1)
    W_1, W_2, W_z = np.split(w["W"], 3, 1)
    b_1, b_2, b_z = np.split(w["b"], 3)
    y, z = start.y.numpy(), start.z.numpy()
    wanted = []
    for u in inputs().numpy():
        step_1 = dt * sigmoid(y @ W_1 + u @ V_1 + b_1)
        step_2 = dt * sigmoid(y @ W_2 + u @ V_2 + b_2)
        z = z + step_1 * (np.tanh(y @ W_z + u @ V_z + b_z) - z)
        y = y + step_2 * (np.tanh(z @ w["W_y"] + u @ w["V_y"] + w["b_y"]) - y)
        wanted.append(y)
    check(cell, start, wanted, [y, z])


def fill(cell: zoo.Cell, **weights: float) -> None:
    cell.load_state_dict({k: torch.full_like(cell.state_dict()[k], v) for k, v in weights.items()})


def test_a_step_of_lem_by_hand() -> None:
    """All weights are 0 but V_z = 2 and W_y = 3, so that both gates are one half:

    z = ½ · 0.2 + ½ tanh(2 · 0.5),   y = ½ · 0.1 + ½ tanh(3 z)

    An update of y by the old z would give 0.05 + ½ tanh(0.6) = 0.3185.
    """
    cell = zoo.get_cell("lem").build(1, 1).double()
    fill(cell, V=0, W=0, b=0, V_y=0, W_y=3, b_y=0)
    with torch.no_grad():
        cell.V[0, 2] = 2
        y, state = cell.step(
            torch.tensor([[0.5]]).double(),
            type(cell.init_state(1))(
                torch.tensor([[0.1]]).double(), torch.tensor([[0.2]]).double()
            ),
        )
    # tanh(1) = 0.7615942, z = 0.4807971; tanh(1.4423912) = 0.8941781, y = 0.4970890
    assert state.z.item() == pytest.approx(0.4807971, abs=1e-7)
    assert y.item() == pytest.approx(0.4970890, abs=1e-7)


def test_a_step_of_cornn_by_hand() -> None:
    """y = 0.4, z = -0.2, Δt = ½, γ = 2, ε = 3, and weights of 0 but b = 1. The force is
    tanh(1) - 2 · 0.4 = -0.0384058.

    explicit: z' = -0.2 + ½ (-0.0384058 + 0.6) = 0.0807971,  y' = 0.4 + ½ z' = 0.4403985
    implicit: z' = (-0.2 - 0.0192029) / (1 + 1.5) = -0.0876812,  y' = 0.3561594
    """
    wanted = {"explicit": (0.4403985, 0.0807971), "implicit": (0.3561594, -0.0876812)}
    for damping, (y_wanted, z_wanted) in wanted.items():
        cell = zoo.get_cell("cornn").build(1, 1, dt=0.5, gamma=2.0, epsilon=3.0, damping=damping)
        fill(cell, V=0, W_y=0, W_z=0, b=1)
        state = type(cell.init_state(1))(torch.tensor([[0.4]]), torch.tensor([[-0.2]]))
        y, end = cell.step(torch.tensor([[9.0]]), state)
        assert y.item() == pytest.approx(y_wanted, abs=1e-6)
        assert end.z.item() == pytest.approx(z_wanted, abs=1e-6)


def test_an_undriven_cornn_oscillates_as_documented() -> None:
    """Eigenvalues (1 ± i)/2 to the fourth power are -1/4: after four steps the state is -1/4 of the
    initial one."""
    cell = zoo.get_cell("cornn").build(1, 1)
    fill(cell, V=0, W_y=0, W_z=0, b=0)
    state = type(cell.init_state(1))(torch.tensor([[0.8]]), torch.tensor([[-0.3]]))
    y, end = cell(torch.zeros(4, 1, 1), state)
    assert y[-1].item() == pytest.approx(-0.2, abs=1e-6)
    assert end.z.item() == pytest.approx(0.075, abs=1e-6)


def test_implicit_damping_solves_the_implicit_equation() -> None:
    """For n̄ = n the new z occurs left and right of the equals sign."""
    cell = build("cornn", **STEPS, damping="implicit")
    w, (dt, gamma, epsilon) = arrays(cell), STEPS.values()
    state = random_state(cell)
    for u in inputs():
        with torch.no_grad():
            after = cell.step(u, state)[1]
        y, z = state.y.numpy(), state.z.numpy()
        force = np.tanh(y @ w["W_y"] + z @ w["W_z"] + u.numpy() @ w["V"] + w["b"]) - gamma * y
        new_z = z + dt * (force - epsilon * after.z.numpy())
        np.testing.assert_allclose(after.z.numpy(), new_z, **CLOSE)
        np.testing.assert_allclose(after.y.numpy(), y + dt * new_z, **CLOSE)
        state = after


def test_a_peephole_lstm_with_identity_squash_outputs_its_memory() -> None:
    cell = build("peephole-lstm", squash="identity")
    start = random_state(cell)
    w = arrays(cell)
    h, c = start.h.numpy(), start.c.numpy()
    wanted = []
    for x in inputs().numpy():
        i, f, g, o = np.split(x @ w["W_x"] + h @ w["W_h"] + w["b"], 4, -1)
        c = sigmoid(f + w["p_f"] * c) * c + sigmoid(i + w["p_i"] * c) * np.tanh(g)
        h = sigmoid(o + w["p_o"] * c) * c
        wanted.append(h)
    check(cell, start, wanted, [h, c])


@pytest.mark.parametrize(
    ("modules", "sizes"), [(3, [3, 2, 2]), (7, [1] * 7), (1, [7]), (20, [1] * 7)]
)
def test_a_clockwork_rnn_module_by_module(modules: int, sizes: list[int]) -> None:
    """As in section 3, without a mask: when it is due, a module reads itself and the slower ones.
    Rows start at steps 5, 6 and 7, so that different modules are due in each."""
    cell = build("clockwork-rnn", modules=modules)
    start = random_state(cell)
    w, ends = arrays(cell), np.cumsum(sizes)
    y, t = start.y.numpy().copy(), start.t.numpy()
    wanted = []
    for x in inputs().numpy():
        before = y.copy()
        for row in range(B):
            for index, (size, end) in enumerate(zip(sizes, ends, strict=True)):
                if t[row] % 2**index:
                    continue
                first = end - size
                total = w["W_H"][first:end, first:] @ before[row, first:]
                total += x[row] @ w["W_I"][:, first:end] + w["b"][first:end]
                y[row, first:end] = np.tanh(total)
        t = t + 1
        wanted.append(y.copy())
    check(cell, start, wanted, [y, t])


def test_all_modules_of_a_clockwork_rnn_run_at_step_0_and_then_by_their_period() -> None:
    cell = build("clockwork-rnn", modules=3)  # units 0-2, 3-4 and 5-6: every, 2nd and 4th step
    with torch.no_grad():
        y, end = cell(inputs())
    before = torch.cat((torch.zeros(1, B, H).double(), y[:-1]))
    changed = (y != before).all(1)  # in every row
    for t in range(T):
        due = [True] * 3 + [t % 2 == 0] * 2 + [t % 4 == 0] * 2
        assert changed[t].tolist() == due
    assert end.t.tolist() == [T] * B


@pytest.mark.parametrize("leak", [1.0, 0.3])
def test_an_echo_state_network_follows_its_equations(leak: float) -> None:
    cell = build("echo-state", leak=leak, sparsity=0.5)
    start = random_state(cell)
    w = arrays(cell)
    x = start.x.numpy()
    wanted = []
    for u in inputs().numpy():
        x = (1 - leak) * x + leak * np.tanh(u @ w["W_in"] + x @ w["W"] + w["b"])
        wanted.append(x)
    check(cell, start, wanted, [x])


@pytest.mark.parametrize("hidden", [1, 2, 3, 50, 200])
@pytest.mark.parametrize(("radius", "sparsity"), [(0.9, 0.9), (1.3, 0.0), (0.5, 0.99)])
def test_a_reservoir_has_the_spectral_radius_and_sparsity_of_its_options(
    hidden: int, radius: float, sparsity: float
) -> None:
    spec = zoo.get_cell("echo-state")
    torch.manual_seed(4)
    cell = spec.build(4, hidden, spectral_radius=radius, sparsity=sparsity)
    W = cell.W.numpy()
    # float32 weights have a rounding error of 6e-8; eigenvalues of a nonsymmetric matrix change by
    # more than its entries
    assert np.abs(np.linalg.eigvals(W.astype(float))).max() == pytest.approx(radius, rel=1e-4)
    connections = max(1, round((1 - sparsity) * hidden))
    assert ((W != 0).sum(0) == connections).all()
    assert not any(parameter.requires_grad for parameter in cell.parameters())
    torch.manual_seed(4)
    again = spec.build(4, hidden, spectral_radius=radius, sparsity=sparsity)
    assert all(
        torch.equal(a, b) for a, b in zip(cell.parameters(), again.parameters(), strict=True)
    )


def test_gradients_pass_through_a_reservoir() -> None:
    """So the layers below it are trained. The law on training does not apply to a cell without
    trained weights."""
    cell = build("echo-state", leak=0.4)
    given = [leaf.requires_grad_() for leaf in (inputs()[:4], *random_state(cell))]

    def run(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, end = cell(x, type(cell.init_state(B))(state))
        return y, end.x

    assert torch.autograd.gradcheck(run, given, eps=1e-6, atol=1e-7)


def test_an_echo_state_network_forgets_its_initial_state() -> None:
    """The echo state property: with the same input, two states converge."""
    torch.manual_seed(5)
    cell = zoo.get_cell("echo-state").build(I, 50).double()
    x = torch.randn(300, B, I).double()
    with torch.no_grad():
        one = cell(x)[1].x
        other = cell(x, type(cell.init_state(B))(torch.rand(B, 50).double()))[1].x
    torch.testing.assert_close(one, other, **CLOSE)


def test_indrnns_recurrent_weights_are_bounded() -> None:
    """A weight beyond the bound acts like one at the bound."""
    cell = build("indrnn")
    beyond = build("indrnn")
    with torch.no_grad():
        cell.u[:2] = torch.tensor([1.0, -1.0]).double()
        beyond.u.copy_(cell.u)
        beyond.u[:2] = torch.tensor([1.5, -7.0]).double()
        torch.testing.assert_close(cell(inputs())[0], beyond(inputs())[0], rtol=0, atol=0)


def test_the_memory_of_janet_reaches_its_bound() -> None:
    """Where the gate keeps nearly all of the state, it approaches e^β."""
    cell = zoo.get_cell("janet").build(1, 1, beta=1.5).double()
    assert cell.state_bounds() == {"c": math.exp(1.5)}
    fill(cell, W=0, U=0, b=0)
    with torch.no_grad():
        cell.b[0], cell.b[1] = 6, 30  # a forget gate of almost 1, and a candidate of 1
        _, end = cell(torch.zeros(20_000, 1, 1).double())
    # the fixed point is (1 - σ(4.5)) / (1 - σ(6)) = (1 + e^6) / (1 + e^4.5) = 4.4431
    assert end.c.item() == pytest.approx((1 + math.exp(6)) / (1 + math.exp(4.5)), abs=1e-9)


def test_janets_initial_memories_have_many_lengths() -> None:
    """1 / (1 - σ(b_f)) = 1 + e^b steps, uniform between 2 and T_max."""
    torch.manual_seed(6)
    cell = zoo.get_cell("janet").build(3, 4000, longest=50.0)
    spans = 1 + cell.b[:4000].detach().exp()
    assert spans.min() >= 2
    assert spans.max() <= 50
    # the mean of 4000 draws from U(2, 50), whose deviation is 48/√12 = 13.9: 0.22 for the mean
    assert spans.mean().item() == pytest.approx(26, abs=1)


def test_the_forget_bias_of_a_ugrnn_is_in_its_gate() -> None:
    spec = zoo.get_cell("ugrnn")
    torch.manual_seed(7)
    one = spec.build(2, 3, forget_bias=2.5)
    torch.manual_seed(7)
    other = spec.build(2, 3, forget_bias=0.0)
    difference = (one.b - other.b).detach()
    torch.testing.assert_close(
        difference, torch.tensor([0, 0, 0, 2.5, 2.5, 2.5]), rtol=0, atol=1e-6
    )

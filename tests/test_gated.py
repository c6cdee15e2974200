"""GRU and LSTM, against torch.nn, ONNX's own operator definitions, and hand calculations."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import zoo

LAYERS = {"gru": nn.GRU, "lstm": nn.LSTM}


def run_steps(cell: zoo.Cell, x_TBI: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
    outputs = []
    for x in x_TBI:
        y, state = cell.step(x, state)
        outputs.append(y)
    return torch.stack(outputs), state


def random_state(cell: zoo.Cell, batch_size: int) -> object:
    state = cell.init_state(batch_size)
    return type(state)(*(torch.rand_like(leaf) * 1.8 - 0.9 for leaf in state))


def scratch_weights(kind: str, layer: nn.RNNBase) -> dict[str, torch.Tensor]:
    """A torch.nn layer's weights under the scratch cell's names."""
    gates = {"gru": "rzh", "lstm": "ifco"}[kind]
    weights = {}
    for gate, W_x, W_h, b_x, b_h in zip(
        gates,
        layer.weight_ih_l0.chunk(len(gates)),
        layer.weight_hh_l0.chunk(len(gates)),
        layer.bias_ih_l0.chunk(len(gates)),
        layer.bias_hh_l0.chunk(len(gates)),
        strict=True,
    ):
        weights |= {f"W_x{gate}": W_x.T, f"W_h{gate}": W_h.T, f"b_{gate}": b_x + b_h}
        if kind == "gru" and gate == "h":
            weights |= {"b_h": b_x, "b_hh": b_h}
    return weights


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("kind", LAYERS)
def test_library_cells_equal_torch_nn(kind: str, batch_size: int) -> None:
    torch.manual_seed(1)
    cell, layer = zoo.get_cell(kind).build(7, 11).double(), LAYERS[kind](7, 11).double()
    cell.rnn.load_state_dict(layer.state_dict())
    assert {k: v.shape for k, v in cell.rnn.state_dict().items()} == {
        k: v.shape for k, v in layer.state_dict().items()
    }
    x, start = torch.randn(60, batch_size, 7).double(), random_state(cell, batch_size)
    given = tuple(leaf[None] for leaf in start)
    wanted, ends = layer(x, given if kind == "lstm" else given[0])
    ends = ends if kind == "lstm" else (ends,)
    for got, end in (cell(x, start), run_steps(cell, x, start)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
        for leaf, wanted_leaf in zip(end, ends, strict=True):
            torch.testing.assert_close(leaf, wanted_leaf[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("kind", LAYERS)
def test_scratch_and_library_agree_given_equal_weights(kind: str, batch_size: int) -> None:
    torch.manual_seed(2)
    options = {"reset": "after"} if kind == "gru" else {}
    library = zoo.get_cell(kind).build(28, 64)
    scratch = zoo.get_cell(f"{kind}-scratch").build(28, 64, **options)
    scratch.load_state_dict(scratch_weights(kind, library.rnn))
    x, start = torch.randn(100, batch_size, 28), random_state(library, batch_size)
    wanted, wanted_end = library(x, start)
    for got, end in (scratch(x, start), run_steps(scratch, x, start)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
        for leaf, wanted_leaf in zip(end, wanted_end, strict=True):
            torch.testing.assert_close(leaf, wanted_leaf, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("reset", "linear_before_reset"), [("before", 0), ("after", 1)])
def test_both_grus_equal_onnxs_operator(reset: str, linear_before_reset: int) -> None:
    """ONNX defines both: its attribute says whether the reset comes after the product."""
    torch.manual_seed(3)
    T, B, I, H = 20, 3, 4, 6  # noqa: E741
    cell = zoo.get_cell("gru-scratch").build(I, H, std=0.6, reset=reset)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.6)
    node = onnx.helper.make_node(
        "GRU", ["X", "W", "R", "B", "", "h0"], ["Y", "Y_h"], hidden_size=H,
        linear_before_reset=linear_before_reset,
    )  # fmt: skip
    float_ = onnx.TensorProto.FLOAT
    shapes = {"X": [T, B, I], "W": [1, 3 * H, I], "R": [1, 3 * H, H], "B": [1, 6 * H]}
    graph = onnx.helper.make_graph(
        [node], "gru",
        [onnx.helper.make_tensor_value_info(n, float_, s)
         for n, s in {**shapes, "h0": [1, B, H]}.items()],
        [onnx.helper.make_tensor_value_info("Y", float_, None)],
    )  # fmt: skip
    evaluator = ReferenceEvaluator(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    )
    x, start = torch.randn(T, B, I), random_state(cell, B)
    zeros = torch.zeros(H)
    feeds = {
        "X": x,
        "W": torch.cat((cell.W_xz, cell.W_xr, cell.W_xh), 1).T[None],
        "R": torch.cat((cell.W_hz, cell.W_hr, cell.W_hh), 1).T[None],
        "B": torch.cat(
            (cell.b_z, cell.b_r, cell.b_h, zeros, zeros, zeros if cell.b_hh is None else cell.b_hh)
        )[None],
        "h0": start.h[None],
    }
    (wanted,) = evaluator.run(None, {k: v.detach().numpy() for k, v in feeds.items()})
    got, _ = cell(x, start)
    np.testing.assert_allclose(got.detach().numpy(), wanted[:, 0], rtol=0, atol=1e-6)


def test_the_two_resets_differ() -> None:
    torch.manual_seed(4)
    before = zoo.get_cell("gru-scratch").build(3, 5, std=0.8)
    after = zoo.get_cell("gru-scratch").build(3, 5, reset="after")
    after.load_state_dict({**before.state_dict(), "b_hh": torch.zeros(5)})
    x = torch.randn(10, 2, 3)
    assert (before(x)[0] - after(x)[0]).abs().max() > 1e-3


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_two_steps_of_an_lstm_by_hand() -> None:
    cell = zoo.get_cell("lstm-scratch").build(1, 1)
    weights = {
        "W_xi": 0.5, "W_hi": 0.1, "b_i": 0.0, "W_xf": -0.3, "W_hf": 0.2, "b_f": 1.0,
        "W_xo": 0.7, "W_ho": -0.6, "b_o": 0.1, "W_xc": 1.1, "W_hc": 0.9, "b_c": -0.2,
    }  # fmt: skip
    cell.load_state_dict(
        {k: torch.full((1,) if k.startswith("b") else (1, 1), v) for k, v in weights.items()}
    )
    h = c = 0.0
    wanted = []
    for x in (1.0, -2.0):
        i = sigmoid(0.5 * x + 0.1 * h)
        f = sigmoid(-0.3 * x + 0.2 * h + 1)
        o = sigmoid(0.7 * x - 0.6 * h + 0.1)
        c = f * c + i * math.tanh(1.1 * x + 0.9 * h - 0.2)
        h = o * math.tanh(c)
        wanted.append(h)
    y, end = cell(torch.tensor([[[1.0]], [[-2.0]]]))
    assert y.flatten().tolist() == pytest.approx(wanted, abs=1e-6)
    assert (end.h.item(), end.c.item()) == pytest.approx((h, c), abs=1e-6)


@pytest.mark.parametrize("name", ["lstm", "lstm-scratch", "peephole-lstm"])
def test_the_forget_bias_is_in_the_forget_gate_alone(name: str) -> None:
    """From zero weights, and a memory of 1, a step leaves σ(b_f) of the memory: σ(1) = 0.731, and
    σ(0) without the option. With zero biases of the other gates, h is ½ tanh c."""
    for given, kept in (({"forget_bias": 1.0}, 0.7310585786), ({}, 0.5)):
        torch.manual_seed(0)
        cell = zoo.get_cell(name).build(2, 3, **given)
        torch.manual_seed(0)
        plain = zoo.get_cell(name).build(2, 3)
        with torch.no_grad():
            for parameter, same in zip(cell.parameters(), plain.parameters(), strict=True):
                parameter.sub_(same)
        state = cell.init_state(1)
        h, end = cell.step(torch.ones(1, 2), state._replace(c=torch.ones_like(state.c)))
        assert end.c[0].tolist() == pytest.approx([kept] * 3, abs=1e-6)
        assert h[0].tolist() == pytest.approx([math.tanh(kept) / 2] * 3, abs=1e-6)


def test_one_step_of_the_textbooks_gru_by_hand() -> None:
    cell = zoo.get_cell("gru-scratch").build(1, 2)
    with torch.no_grad():
        for name, value in {
            "W_xr": [[0.4, -0.2]], "W_hr": [[0.1, 0.3], [-0.5, 0.2]], "b_r": [0.1, 0.0],
            "W_xz": [[-0.6, 0.9]], "W_hz": [[0.2, 0.0], [0.4, -0.1]], "b_z": [0.0, 0.2],
            "W_xh": [[1.0, 0.5]], "W_hh": [[0.7, -0.3], [0.6, 0.8]], "b_h": [-0.1, 0.3],
        }.items():  # fmt: skip
            cell.get_parameter(name).copy_(torch.tensor(value))
    x, h = 1.5, (0.5, -0.25)
    r = [
        sigmoid(0.4 * x + 0.1 * h[0] - 0.5 * h[1] + 0.1),
        sigmoid(-0.2 * x + 0.3 * h[0] + 0.2 * h[1]),
    ]
    z = [sigmoid(-0.6 * x + 0.2 * h[0] + 0.4 * h[1]), sigmoid(0.9 * x - 0.1 * h[1] + 0.2)]
    rh = (r[0] * h[0], r[1] * h[1])
    n = [
        math.tanh(x + 0.7 * rh[0] + 0.6 * rh[1] - 0.1),
        math.tanh(0.5 * x - 0.3 * rh[0] + 0.8 * rh[1] + 0.3),
    ]
    wanted = [z[k] * h[k] + (1 - z[k]) * n[k] for k in range(2)]
    y, _ = cell.step(torch.tensor([[x]]), cell.init_state(1)._replace(h=torch.tensor([h])))
    assert y[0].tolist() == pytest.approx(wanted, abs=1e-6)

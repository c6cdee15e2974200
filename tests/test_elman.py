"""The two simple recurrent networks, against torch.nn.RNN, a hand calculation, and the lecture
note's identity."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import zoo


def copy_into_scratch(scratch: zoo.Cell, library: nn.RNN) -> None:
    """Copies the weights of a torch.nn.RNN (which has two biases and stores its matrices
    transposed) into the scratch cell."""
    scratch.load_state_dict(
        {
            "W_xh": library.weight_ih_l0.T,
            "W_hh": library.weight_hh_l0.T,
            "b_h": library.bias_ih_l0 + library.bias_hh_l0,
        }
    )


def test_a_bias_is_not_rounded_under_autocast() -> None:
    """bfloat16 has no 0.3001: it would be 0.30078."""
    cell = zoo.get_cell("rnn-scratch").build(3, 4)
    with torch.no_grad():
        cell.W_xh.zero_()
        cell.W_hh.zero_()
        cell.b_h.fill_(0.3001)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = cell(torch.ones(2, 1, 3))
    torch.testing.assert_close(y, torch.full((2, 1, 4), math.tanh(0.3001)), rtol=0, atol=1e-6)


def run_steps(cell: zoo.Cell, x_TBI: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
    outputs = []
    for x in x_TBI:
        y, state = cell.step(x, state)
        outputs.append(y)
    return torch.stack(outputs), state


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_library_cell_equals_torch_rnn(batch_size: int, nonlinearity: str) -> None:
    torch.manual_seed(1)
    cell = zoo.get_cell("rnn").build(7, 11, nonlinearity=nonlinearity).double()
    reference = nn.RNN(7, 11, nonlinearity=nonlinearity).double()
    cell.load_state_dict({f"rnn.{k}": v for k, v in reference.state_dict().items()})
    x, h = torch.randn(60, batch_size, 7).double(), torch.rand(batch_size, 11).double()
    wanted, wanted_h = reference(x, h[None])
    state = cell.init_state(batch_size)._replace(h=h)
    for got, end in (cell(x, state), run_steps(cell, x, state)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(end.h, wanted_h[0], rtol=0, atol=1e-12)


def test_initial_recurrent_weights() -> None:
    """Orthogonal ones keep every vector's length, the identity keeps the vector."""
    torch.manual_seed(3)
    h = torch.randn(11)
    for given in ("uniform", "orthogonal", "identity"):
        weight = zoo.get_cell("rnn").build(7, 11, recurrent_init=given).rnn.weight_hh_l0
        assert weight.requires_grad
        after = (weight @ h).detach()
        assert torch.allclose(after.norm(), h.norm(), rtol=1e-5) == (given != "uniform")
        assert torch.equal(after, h) == (given == "identity")
    torch.manual_seed(4)
    plain = zoo.get_cell("rnn").build(7, 11)
    torch.manual_seed(4)
    assert torch.equal(plain.rnn.weight_hh_l0, nn.RNN(7, 11).weight_hh_l0)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_scratch_and_library_agree_given_equal_weights(batch_size: int) -> None:
    torch.manual_seed(2)
    library, scratch = zoo.get_cell("rnn").build(28, 64), zoo.get_cell("rnn-scratch").build(28, 64)
    copy_into_scratch(scratch, library.rnn)
    x, h = torch.randn(100, batch_size, 28), torch.randn(batch_size, 64).tanh()
    wanted, wanted_end = library(x, library.init_state(batch_size)._replace(h=h))
    start = scratch.init_state(batch_size)._replace(h=h)
    for got, end in (scratch(x, start), run_steps(scratch, x, start)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(end.h, wanted_end.h, rtol=0, atol=1e-6)


def test_gradients_of_scratch_and_library_agree() -> None:
    torch.manual_seed(3)
    library = zoo.get_cell("rnn").build(5, 8).double()
    scratch = zoo.get_cell("rnn-scratch").build(5, 8).double()
    copy_into_scratch(scratch, library.rnn)
    x = torch.randn(40, 3, 5).double()
    for cell in (library, scratch):
        cell(x)[0].square().sum().backward()
    for found, wanted in (
        (scratch.W_xh.grad, library.rnn.weight_ih_l0.grad.T),
        (scratch.W_hh.grad, library.rnn.weight_hh_l0.grad.T),
        (scratch.b_h.grad, library.rnn.bias_ih_l0.grad),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_two_steps_by_hand() -> None:
    cell = zoo.get_cell("rnn-scratch").build(1, 1)
    cell.load_state_dict(
        {"W_xh": torch.tensor([[0.5]]), "W_hh": torch.tensor([[-2.0]]), "b_h": torch.tensor([0.1])}
    )
    y, end = cell(torch.tensor([[[1.0]], [[3.0]]]))
    first = math.tanh(0.5 * 1 + 0.1)
    second = math.tanh(0.5 * 3 - 2 * first + 0.1)
    assert y.flatten().tolist() == pytest.approx([first, second], abs=1e-6)
    assert end.h.item() == pytest.approx(second, abs=1e-6)


def test_the_notes_identity() -> None:
    """[X H] [W_xh; W_hh] = X W_xh + H W_hh: the recurrence as one product."""
    torch.manual_seed(4)
    cell = zoo.get_cell("rnn-scratch").build(3, 6, std=0.7).double()
    X, H = torch.randn(5, 3).double(), torch.randn(5, 6).double()
    joined = torch.cat((X, H), 1) @ torch.cat((cell.W_xh, cell.W_hh), 0)
    _, state = cell.step(X, cell.init_state(5)._replace(h=H))
    torch.testing.assert_close(state.h, torch.tanh(joined + cell.b_h), rtol=0, atol=1e-14)


def test_scratch_is_initialised_as_in_the_lecture_note() -> None:
    torch.manual_seed(5)
    cell = zoo.get_cell("rnn-scratch").build(200, 300)
    assert cell.b_h.abs().max() == 0
    for weight in (cell.W_xh, cell.W_hh):
        # mean and deviation of n draws of N(0, σ²): within five standard errors
        assert abs(weight.mean()) < 5 * 0.01 / math.sqrt(weight.numel())
        assert weight.std().item() == pytest.approx(0.01, rel=5 / math.sqrt(2 * weight.numel()))

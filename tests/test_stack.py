"""Stacked recurrent layers, dropout and residual connections."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.config import ModelConfig
from zoo.models.language_model import LanguageModel
from zoo.nn.state import named_leaves


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_stacked_layers_equal_torch_nns(kind: str) -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(cell=kind, hidden=9, layers=3), 12)
    reference = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](12, 9, num_layers=3)
    for index, cell in enumerate(model.stack.cells):
        cell.rnn.load_state_dict(
            {n: getattr(reference, n.replace("_l0", f"_l{index}")) for n in cell.rnn.state_dict()}
        )
    tokens = torch.randint(0, 12, (25, 3))
    wanted, _ = reference(nn.functional.one_hot(tokens, 12).float())
    logits, state = model(tokens)
    torch.testing.assert_close(logits, model.head(wanted), rtol=0, atol=1e-6)
    names = [name for name, _ in named_leaves(state)]
    leaves = ["h", "c"] if kind == "lstm" else ["h"]
    assert names == [f"layer{index}.{leaf}" for index in range(3) for leaf in leaves]


def test_residual_connections_add_the_input_where_sizes_are_equal() -> None:
    torch.manual_seed(1)
    plain = LanguageModel(ModelConfig(cell="gru", hidden=6, layers=3), 10)
    added = LanguageModel(ModelConfig(cell="gru", hidden=6, layers=3, residual=True), 10)
    added.load_state_dict(plain.state_dict())
    x = plain.encoder(torch.randint(0, 10, (7, 2)))
    wanted = x
    for cell in plain.stack.cells:
        y, _ = cell(wanted)
        wanted = wanted + y if wanted.shape == y.shape else y
    torch.testing.assert_close(added.stack(x)[0], wanted, rtol=0, atol=1e-6)
    assert (plain.stack(x)[0] - wanted).abs().max() > 1e-3


def test_dropout_acts_in_training_only_at_three_positions() -> None:
    torch.manual_seed(2)
    model = LanguageModel(ModelConfig(cell="rnn", hidden=6, layers=2, dropout=0.5, embedding=4), 10)
    tokens = torch.randint(0, 10, (7, 2))
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])
    calls = []
    for module in (model.dropout, model.stack.dropout):
        module.register_forward_hook(lambda *_, m=module: calls.append(m))
    model.train()
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    assert calls == [model.dropout, model.stack.dropout, model.dropout] * 2
    assert (model.dropout.p, model.stack.dropout.p) == (0.5, 0.5)


def test_one_hot_inputs_have_no_dropout() -> None:
    model = LanguageModel(ModelConfig(cell="rnn", hidden=6, dropout=0.9), 10).train()
    seen = []
    model.stack.cells[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens = torch.randint(0, 10, (7, 2))
    model(tokens)
    assert torch.equal(seen[0], torch.nn.functional.one_hot(tokens, 10).float())


def test_training_with_dropout_residuals_and_an_embedding(trained: object) -> None:
    run = trained("gru", layers=3, residual=True, dropout=0.1, embedding=24, epochs=2)
    exported = zoo.export(run)
    assert zoo.generate(exported.path, length=300) == zoo.generate(run.path, length=300)

"""Bidirectional models: what they compute, how they are trained, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.cli import run as zoo_run
from zoo.data.batches import Window
from zoo.errors import NoStepError, UsageError
from zoo.training.objectives import GivenTargets, MaskedToken, choose_objective


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_it_equals_torch_nns_bidirectional_layer(kind: str) -> None:
    torch.manual_seed(0)
    layer = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](5, 7, bidirectional=True)
    cell = zoo.get_cell("bidirectional").build(5, 7, cell=kind, registry=zoo.load_registry())
    weights = layer.state_dict()
    for side, suffix in ((cell.ahead, ""), (cell.behind, "_reverse")):
        side.rnn.load_state_dict({n: weights[n + suffix] for n in side.rnn.state_dict()})
    x = torch.randn(30, 3, 5)
    wanted, _ = layer(x)
    torch.testing.assert_close(cell(x)[0], wanted, rtol=0, atol=1e-6)
    assert cell.output_size == 14


def test_options_are_passed_to_the_wrapped_cell() -> None:
    spec = zoo.get_cell("bidirectional")
    registry = zoo.load_registry()
    cell = spec.build(3, 4, cell="rnn", nonlinearity="relu", registry=registry)
    assert cell.ahead.rnn.nonlinearity == "relu"
    with pytest.raises(UsageError, match="must be 'tanh' or 'relu'"):
        spec.build(3, 4, cell="rnn", nonlinearity="sine", registry=registry)
    with pytest.raises(UsageError, match="no option 'leak'"):
        spec.build(3, 4, cell="gru", leak=0.5, registry=registry)
    with pytest.raises(UsageError, match="wraps causal cells only, and 'bidirectional' is not"):
        spec.build(3, 4, cell="bidirectional", registry=registry)
    with pytest.raises(zoo.ZooError, match="did you mean 'gru'"):
        spec.build(3, 4, cell="grru", registry=registry)


def test_options_of_the_wrapped_cell_are_stored_with_types_and_defaults(text_file: Path) -> None:
    """As where the cell is trained without the wrapper."""
    sizes = {"hidden": 8, "epochs": 1, "batch_size": 4, "steps": 8}
    given = {"cell": "gru-scratch", "std": "0.5"}
    run = zoo.train(str(text_file), cell="bidirectional", options=given, out="both", **sizes)
    alone = zoo.train(
        str(text_file), cell="gru-scratch", options={"std": "0.5"}, out="one", **sizes
    )
    wanted = {"cell": "gru-scratch", "std": 0.5, "reset": "before"}
    assert (
        run.config.model.options == wanted == {"cell": "gru-scratch"} | alone.config.model.options
    )
    assert zoo.load("both").config == run.config
    with pytest.raises(UsageError, match="cell 'gru-scratch' has no option 'sdt'; did you mean"):
        zoo.train(str(text_file), cell="bidirectional", options={**given, "sdt": 1}, out="no")
    with pytest.raises(UsageError, match="option 'std' of cell 'gru-scratch': must be less than"):
        zoo.train(str(text_file), cell="bidirectional", options={**given, "std": 7}, out="no")


def test_exactly_the_masked_tokens_count_in_the_loss() -> None:
    tokens = torch.arange(40 * 50).view(40, 50) % 9
    window = Window(tokens, tokens + 1, fresh=True)
    inputs, targets, counted = MaskedToken(9).examples(window, torch.Generator().manual_seed(0))
    assert torch.equal(targets, tokens)
    assert (inputs[counted] == 9).all()
    assert torch.equal(inputs[~counted], tokens[~counted])
    share = counted.float().mean().item()
    assert abs(share - 0.15) < 5 * (0.15 * 0.85 / 2000) ** 0.5
    one = Window(tokens[:1, :1], tokens[:1, :1], fresh=True)
    for seed in range(20):
        assert MaskedToken(9).examples(one, torch.Generator().manual_seed(seed)).counted.all()


def test_the_objective_follows_from_the_spec(trained: object) -> None:
    bidirectional, causal = trained("bidirectional", epochs=1).model, trained("gru", epochs=1).model
    assert isinstance(choose_objective(bidirectional), MaskedToken)
    assert isinstance(choose_objective(causal), GivenTargets)
    assert bidirectional.mask_token == bidirectional.vocab_size
    with pytest.raises(UsageError, match="has no mask token"):
        _ = causal.mask_token


@pytest.mark.slow
def test_it_learns_to_fill_masked_tokens(
    trained: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("bidirectional", options={"cell": "gru"}, hidden=48, epochs=30)
    lines = run.metrics()
    assert lines[-1]["held_out_accuracy"] > 0.97
    filled = zoo.fill(run.path, "the quick br_wn fox j_mps over the la_y dog")
    assert filled.text == "the quick brown fox jumps over the lazy dog"
    assert [token.position for token in filled.masked] == [12, 21, 37]
    for token in filled.masked:
        shares = [share for _, share in token.candidates]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1 + 1e-6
    with pytest.warns(zoo.ZooWarning, match="read as <unk>: 'Ж'") as caught:
        assert zoo.fill(run.path, "Жthe l_zy dog Ж").text == "Жthe lazy dog Ж"
    assert len(caught) == 1
    assert zoo_run(["fill", str(run.path), "the qu_ck"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("the quick\n   6  'i' 0.9")


def test_every_command_that_needs_a_step_refuses_the_model(
    trained: object, fox_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("bidirectional", epochs=1)
    for arguments, what in (
        (["generate", str(run.path)], "this model"),
        (["export", str(run.path)], "cell 'bidirectional'"),
        (["export", str(run.path), "--graph", "generate"], "cell 'bidirectional'"),
    ):
        assert zoo_run(arguments) == 2
        assert capsys.readouterr().err == (
            f"zoo: error: {what} is not causal: it has no step to generate with or to export; fill "
            "masked tokens with `zoo fill`, export its sequence graph, or train a causal cell.\n"
        )
    with pytest.raises(NoStepError):
        run.model.step(torch.zeros(1, dtype=torch.int64), run.model.init_state(1))
    assert not (run.path / "export").exists()


def test_training_ends_with_the_commands_to_run_next(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--hidden", "8", "--epochs", "1", "--batch-size", "4", "--steps", "8"]
    for cell, following in (("bidirectional", 'zoo fill r "te_t"'), ("gru", "zoo export r")):
        arguments = ["train", str(text_file), "--cell", cell, *sizes, "--out", "r", "--overwrite"]
        assert zoo_run(arguments) == 0
        assert capsys.readouterr().err.endswith(f"the run is in r; next: {following}\n")


def test_fill_refuses_invalid_arguments(
    trained: object, capsys: pytest.CaptureFixture[str]
) -> None:
    bidirectional, causal = trained("bidirectional", epochs=1), trained("rnn")
    assert zoo_run(["fill", str(causal.path), "a_b"]) == 2
    assert "this model is causal and cannot fill masked tokens" in capsys.readouterr().err
    assert zoo_run(["fill", str(bidirectional.path), "no mask"]) == 2
    assert "the text has no masked token; write '_'" in capsys.readouterr().err
    assert zoo_run(["fill", str(bidirectional.path), "a_b", "--mask", "__"]) == 2
    assert "must be one character" in capsys.readouterr().err
    with pytest.raises(zoo.UsageError, match="top must be at least 1"):
        zoo.fill(bidirectional.path, "a_b", top=0)


@pytest.mark.slow
def test_a_masked_token_depends_on_left_and_right_context(trained: object) -> None:
    run = trained("bidirectional", options={"cell": "gru"}, hidden=48, epochs=30)
    model = run.model.eval()
    ids = run.tokenizer.encode("the dog and the dog sleeps on. ")
    ids[10] = model.mask_token
    from zoo.inference.infilling import fill_ids
    from zoo.models.torch_engine import ModelScorer

    engine = ModelScorer(model)
    base = fill_ids(engine, ids)[10]
    for position in (3, 20):
        changed = ids.copy()
        changed[position] = (changed[position] + 3) % model.vocab_size
        assert np.abs(fill_ids(engine, changed)[10] - base).max() > 1e-6

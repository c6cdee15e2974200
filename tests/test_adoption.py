"""Importing models that were trained in plain PyTorch."""

from __future__ import annotations

import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import zoo
from zoo.data.tokenizers import CharTokenizer
from zoo.errors import UsageError

SCRIPT = Path(__file__).parent / "plain_lstm.py"


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    spec = util.spec_from_file_location("plain_lstm", SCRIPT)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokenizer_of(model: object) -> CharTokenizer:
    return CharTokenizer(characters=model.vocabulary[1:])


def adopt(model: object) -> zoo.LanguageModel:
    return zoo.LanguageModel.from_torch(model.embedding, model.rnn, model.head, tokenizer_of(model))


@pytest.mark.slow
def test_an_imported_plain_lstm_generates_the_same_text_after_export(
    text_file: Path, plain: ModuleType
) -> None:
    """A script trains and saves it in a process of its own; 2,000 characters from the exported file
    equal those of the script's loop over nn.LSTM."""
    subprocess.run([sys.executable, str(SCRIPT), str(text_file), "weights.pt"], check=True)
    weights = torch.load("weights.pt", weights_only=True)
    model = plain.CharModel("\ufffd" + "".join(sorted(set(text_file.read_text()))))
    model.load_state_dict(weights)
    model.eval()
    run = zoo.save(adopt(model), tokenizer_of(model), "adopted", prompt="the quick")
    assert run.model.config.cell == "lstm"
    exported = zoo.export(run)
    wanted = plain.continue_text(model, "the quick", 2000)
    assert "jumps over" in wanted
    assert zoo.generate(exported.path, "the quick", length=2000) == "the quick" + wanted
    assert zoo.generate("adopted", length=2000) == "the quick" + wanted


@pytest.mark.parametrize(
    ("kind", "arguments", "cell"),
    [
        ("RNN", {}, "rnn"),
        ("RNN", {"nonlinearity": "relu"}, "rnn"),
        ("GRU", {}, "gru"),
        ("GRU", {"bias": False}, "gru"),
        ("LSTM", {"bias": False}, "lstm"),
        ("LSTM", {"dropout": 0.3}, "lstm"),
        ("LSTM", {"bidirectional": True}, "bidirectional"),
        ("GRU", {"bidirectional": True, "bias": False}, "bidirectional"),
    ],
)
def test_every_layer_type_computes_the_same(
    kind: str, arguments: dict[str, object], cell: str, plain: ModuleType
) -> None:
    torch.manual_seed(1)
    theirs = plain.CharModel("\ufffdabcdefgh", kind, **arguments).eval()
    ours = adopt(theirs)
    assert ours.config.cell == cell
    tokens = torch.randint(0, 9, (3, 50))
    with torch.no_grad():
        wanted, _ = theirs(tokens)
        found, state = ours(tokens.T)
        torch.testing.assert_close(found.transpose(0, 1), wanted, rtol=0, atol=1e-6)
        if ours.causal:
            state = ours.init_state(3)
            for step, column in enumerate(tokens.T):
                logits, state = ours.step(column, state)
                torch.testing.assert_close(logits, wanted[:, step], rtol=0, atol=1e-6)


def test_one_hot_inputs() -> None:
    torch.manual_seed(2)
    rnn, head = nn.GRU(6, 8), nn.Linear(8, 6, bias=False)
    model = zoo.LanguageModel.from_torch(None, rnn, head, CharTokenizer(characters="abcde"))
    tokens = torch.randint(0, 6, (20, 2))
    with torch.no_grad():
        wanted = head(rnn(nn.functional.one_hot(tokens, 6).float())[0])
        torch.testing.assert_close(model(tokens)[0], wanted, rtol=0, atol=1e-6)


def test_the_weights_are_copied(plain: ModuleType) -> None:
    theirs = plain.CharModel("\ufffdabc")
    ours = adopt(theirs)
    before = ours.head.weight.clone()
    with torch.no_grad():
        theirs.head.weight.zero_()
    assert torch.equal(ours.head.weight, before)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rnn": nn.LSTM(4, 8, proj_size=3)}, "proj_size=3 is not supported"),
        ({"rnn": nn.Linear(4, 8)}, "Linear is not a torch.nn.RNN, GRU or LSTM"),
        ({"rnn": nn.GRUCell(4, 8)}, "GRUCell is not a torch.nn.RNN, GRU or LSTM"),
        (
            {"rnn": nn.GRU(5, 8)},
            "the rnn takes 5 features, which its input embedding does not give",
        ),
        ({"head": nn.Linear(9, 4)}, "the head takes 9 features, which the rnn does not give"),
        ({"head": nn.Linear(8, 7)}, "the head gives 7 logits for 4 tokens"),
        ({"embedding": nn.Embedding(4, 4, max_norm=1.0)}, "max_norm=1.0 of the embedding"),
        ({"embedding": nn.Embedding(9, 4)}, "the embedding has 9 entries for 4 tokens"),
    ],
)
def test_unsupported_models_are_refused_with_the_reason(
    parts: dict[str, nn.Module], message: str
) -> None:
    given = {"embedding": None, "rnn": nn.GRU(4, 8), "head": nn.Linear(8, 4), **parts}
    with pytest.raises(UsageError, match="this model cannot be imported: ") as caught:
        zoo.LanguageModel.from_torch(**given, tokenizer=CharTokenizer(characters="abc"))
    assert message in str(caught.value)


def test_packed_input_is_refused(plain: ModuleType) -> None:
    model = adopt(plain.CharModel("\ufffdabc"))
    with pytest.raises(UsageError, match="packed sequences are not supported; pad them"):
        model(pack_sequence([torch.tensor([1, 2])]))

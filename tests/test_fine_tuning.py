"""Training on from another run: its weights in a new model, with more characters, some frozen."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

import zoo
from zoo.cli import run as zoo_command
from zoo.config import ModelConfig
from zoo.data import ByteTokenizer, CharTokenizer, Tokenizer
from zoo.errors import UsageError, ZooWarning
from zoo.exporting.export import text_to_judge_by
from zoo.training.fine_tuning import take_weights

REGISTRY = zoo.load_registry()
SIZES = {"batch_size": 2, "steps": 6, "epochs": 1}
LETTERS = "the quick brown fox jumps over the lazy dog\n" * 4
OTHER = "five boxing wizards jump quickly\n" * 5  # in letters of the first
FOREIGN = "vier große Füchse\n" * 9  # "v", "ß" and more


@pytest.fixture(autouse=True)
def texts(tmp_path: Path) -> None:
    for name, text in {"base": LETTERS, "other": OTHER, "foreign": FOREIGN}.items():
        Path(f"{name}.txt").write_text(text, "utf-8")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    folder = tmp_path_factory.mktemp("base")
    (folder / "base.txt").write_text(LETTERS)
    given = {**SIZES, "hidden": 6, "layers": 2, "embedding": 5, "learning_rate": 0.01}
    return zoo.train(str(folder / "base.txt"), cell="gru", out=folder / "run", **given)


def weights(run: zoo.Run) -> dict[str, Tensor]:
    return run.model.state_dict()


def furthest(run: zoo.Run, base: zoo.Run) -> float:
    """The largest difference of a weight."""
    assert weights(run).keys() == weights(base).keys()
    return max(
        float((leaf - weights(base)[name]).abs().max()) for name, leaf in weights(run).items()
    )


def told(*arguments: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a command prints on standard error."""
    capsys.readouterr()
    assert zoo_command(["train", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("zoo: error: ")


# beginning with the weights of a run


def test_a_run_begins_as_the_one_it_comes_from(base: zoo.Run) -> None:
    run = zoo.train("other.txt", from_run=base.path, out="r", learning_rate=1e-12, **SIZES)
    assert furthest(run, base) < 1e-9
    assert run.tokenizer == base.tokenizer
    assert run.config.model == base.config.model
    assert run.config.training.from_run == str(base.path)
    assert run.config.data.corpus == "other.txt"
    assert zoo.load("r").config == run.config
    assert zoo.resume("r").metrics() == run.metrics()
    trained = zoo.train("other.txt", from_run=str(base.path), out="more", **SIZES)
    assert furthest(trained, base) > 1e-4
    alone = zoo.train("other.txt", cell="gru", hidden=6, layers=2, embedding=5, out="a", **SIZES)
    assert alone.config.training.from_run is None
    score = [zoo.score(each.path, "other.txt").nats_per_token for each in (trained, alone)]
    assert score[0] < score[1]


def test_dropout_may_be_another(base: zoo.Run) -> None:
    run = zoo.train("other.txt", from_run=base.path, dropout=0.4, learning_rate=1e-12, **SIZES)
    assert run.config.model == base.config.model.model_copy(update={"dropout": 0.4})
    assert furthest(run, base) < 1e-9


def test_characters_that_are_new_are_named_once(base: zoo.Run) -> None:
    with pytest.warns(ZooWarning) as caught:
        run = zoo.train("foreign.txt", from_run=base.path, **SIZES)
    new = [str(w.message) for w in caught if "not in the vocabulary" in str(w.message)]
    assert new == [
        "3 characters of foreign.txt are not in the vocabulary of the run, and become <unk>: "
        "'ßFü'; --extend-vocabulary gives them tokens"
    ]
    assert run.tokenizer == base.tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = zoo.train("foreign.txt", from_run=base.path, extend_vocabulary=True, **SIZES)
    assert run.tokenizer.characters == base.tokenizer.characters + "ßFü"
    assert run.model.vocab_size == base.model.vocab_size + 3
    assert zoo.resume(run.path).tokenizer == run.tokenizer


def test_a_text_from_standard_input(base: zoo.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(OTHER.encode())))
    run = zoo.train("-", from_run=base.path, learning_rate=1e-12, **SIZES)
    assert furthest(run, base) < 1e-9


def test_the_text_that_an_integer_file_is_judged_by(
    base: zoo.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bpe.txt").write_text(LETTERS * 9)
    first = zoo.train("bpe.txt", tokenizer="bpe", vocab=265, hidden=6, out="b", **SIZES)
    Path("long.txt").write_text(OTHER * 9)
    for run in (
        zoo.train("long.txt", from_run=first.path, out="r", **SIZES),
        zoo.train("foreign.txt", from_run=base.path, extend_vocabulary=True, out="f", **SIZES),
    ):
        text, name = text_to_judge_by(run, REGISTRY)
        assert text is not None
        assert name == "held-out text"
        (corpus,) = run.config.data.corpora
        assert Path(corpus).read_text("utf-8").endswith(run.tokenizer.decode(text.tolist()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(OTHER.encode())))
    run = zoo.train("-", from_run=base.path, out="s", **SIZES)
    monkeypatch.setattr(sys, "stdin", None)  # nothing waits for it
    assert text_to_judge_by(run, REGISTRY) == (None, "")


def test_the_record_of_a_learned_vocabulary() -> None:
    first = zoo.train("base.txt", cell="rnn", hidden=4, tokenizer="bpe", vocab=270, **SIZES)
    run = zoo.train("foreign.txt", from_run=first.path, learning_rate=1e-12, **SIZES)
    assert run.tokenizer == first.tokenizer
    assert (run.config.data.tokenizer, run.config.data.vocab) == ("bpe", 270)
    assert furthest(run, first) < 1e-9
    with pytest.raises(UsageError, match="vocabulary of a 'bpe' tokenizer cannot be extended"):
        ByteTokenizer.extended(first.tokenizer, "x")


# a longer vocabulary

BEFORE = CharTokenizer(characters="abcdefghij")
NEW = "XYZ"
HIDDEN = 16
# some of each plugin, whose inputs enter as a product with a matrix
CELLS = [
    "rnn", "lstm-scratch", "gru", "mamba", "deltanet", "mingru", "s5", "slstm", "indrnn",
    "tr-ugrnn", "bidirectional",
]  # fmt: skip


def model_of(
    cell: str, embedding: int | None, residual: bool, vocab_size: int, seed: int
) -> zoo.LanguageModel:
    spec = REGISTRY.cells[cell]
    config = ModelConfig(
        cell=cell, hidden=HIDDEN, layers=2, embedding=embedding, residual=residual,
        options=spec.all_options({}, REGISTRY), mask_token=not spec.causal,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = zoo.LanguageModel(config, vocab_size, REGISTRY)
    with torch.no_grad():
        for parameter in model.parameters():  # those that are initialized with a constant too
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def extended(
    cell: str, embedding: int | None, residual: bool, before: Tokenizer, after: Tokenizer
) -> tuple[zoo.LanguageModel, zoo.LanguageModel]:
    models = [
        model_of(cell, embedding, residual, tokenizer.vocab_size, seed)
        for seed, tokenizer in enumerate((before, after))
    ]
    take_weights(models[1], models[0], before, after)
    return models[0], models[1]


def require_same_logits(
    cell: str,
    embedding: int | None,
    documents: bool,
    before: CharTokenizer = BEFORE,
    residual: bool = False,
) -> None:
    """On a text of the old characters, with an end and a mask where the model knows them."""
    before = before.changed(documents=documents)
    after = before.extended(NEW)
    one, other = extended(cell, embedding, residual, before, after)
    old = range(1 + len(before.characters))
    columns = [*old, after.vocab_size - 1] if documents else [*old]
    assert len(columns) == before.vocab_size
    where = torch.tensor([*columns, after.vocab_size])  # of each old token, the last is the mask
    count = len(where) if one.config.mask_token else len(where) - 1
    ids = torch.randint(0, count, (9, 2), generator=torch.Generator().manual_seed(0))
    ids[4] = count - 1
    with torch.no_grad():
        wanted, found = one(ids)[0], other(where[ids])[0]
    # float32, whose sums have zeros more
    torch.testing.assert_close(found[..., columns], wanted, rtol=1e-5, atol=1e-5)
    changed = model_of(cell, embedding, residual, after.vocab_size, 1)  # as it was initialized
    for name, leaf in other.state_dict().items():
        assert leaf.shape == changed.state_dict()[name].shape
    added = slice(1 + len(before.characters), 1 + len(after.characters))
    assert other.head.weight[added].equal(changed.head.weight[added])


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("embedding", [None, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_old_tokens_keep_their_logits(cell: str, embedding: int | None, documents: bool) -> None:
    require_same_logits(cell, embedding, documents)


@pytest.mark.parametrize("characters", ["abcdefghijkl", "abcdefghijklmno"])
@pytest.mark.parametrize(
    ("cell", "residual"),
    [("sru", False), ("tr-intersection-rnn", False), ("rnn", True), ("gru", False)],
)
def test_old_tokens_keep_their_logits_or_the_cell_is_refused(
    cell: str, residual: bool, characters: str
) -> None:
    """A layer may compute another thing where its inputs are as many as its hidden units: here they
    are so after, or before, the vocabulary is extended."""
    before = CharTokenizer(characters=characters)
    assert HIDDEN in (before.vocab_size, before.extended(NEW).vocab_size)
    try:
        require_same_logits(cell, None, False, before, residual)
    except UsageError as error:
        require_one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [*REGISTRY.cells])
def test_every_cell_keeps_its_logits_or_is_refused(cell: str) -> None:
    for documents in (False, True):
        require_same_logits(cell, 7, documents)
        try:
            require_same_logits(cell, None, documents)
        except UsageError as error:
            require_one_line(error)


def require_one_line(error: UsageError) -> None:
    assert str(error).startswith("the vocabulary cannot be extended: ")
    assert str(error).endswith("; train the first run with --embedding.")
    assert "\n" not in str(error)


@pytest.mark.parametrize("cell", ["cfc", "qrnn", "ltc"])
def test_a_cell_that_mixes_its_inputs_is_refused(cell: str) -> None:
    """CfC and QRNN have one matrix for more than one input; in LTC an input of 0 has an effect."""
    with pytest.raises(UsageError) as caught:
        extended(cell, None, False, BEFORE, BEFORE.extended(NEW))
    require_one_line(caught.value)
    require_same_logits(cell, 7, documents=False)


def test_a_run_with_documents_is_extended() -> None:
    Path("a.jsonl").write_text('{"text": "ab"}\n{"text": "ba"}\n' * 20)
    Path("b.jsonl").write_text('{"text": "abc"}\n{"text": "cab"}\n' * 20)
    given = {"out": "a", "documents": True, "cell": "rnn", "hidden": 4}
    first = zoo.train("a.jsonl", **given, **SIZES)
    assert (first.tokenizer.vocab_size, first.tokenizer.end_of_text) == (4, 3)
    run = zoo.train(
        "b.jsonl", from_run="a", extend_vocabulary=True, learning_rate=1e-12, out="b", **SIZES
    )
    assert run.config.data.documents
    assert run.tokenizer == CharTokenizer(characters="abc", documents=True)
    where = torch.tensor([0, 1, 2, 4])  # the end comes last again
    assert (run.model.head.weight[where] - first.model.head.weight).abs().max() < 1e-9
    inputs = [each.model.stack.cells[0].rnn.weight_ih_l0 for each in (run, first)]
    assert (inputs[0][:, where] - inputs[1]).abs().max() < 1e-9


# frozen parameters


def frozen_parts(run: zoo.Run, before: Mapping[str, Tensor]) -> set[str]:
    return {name for name, leaf in weights(run).items() if leaf.equal(before[name])}


def test_frozen_parameters_stay_as_they_are(base: zoo.Run) -> None:
    before = weights(base)
    kept = {"encoder.weight", *(name for name in before if name.startswith("stack.cells.0."))}
    patterns = ("encoder.*", "stack.cells.0.*")
    run = zoo.train("other.txt", from_run=base.path, freeze=patterns, out="r", **SIZES)
    assert frozen_parts(run, before) == kept
    assert zoo.load("r").config.training.freeze == patterns
    assert len(run.metrics()) == 1
    longer = zoo.resume("r", epochs=3)
    assert len(longer.metrics()) == 3
    assert frozen_parts(longer, before) == kept
    assert frozen_parts(zoo.load("r"), before) == kept
    new = zoo.train("other.txt", cell="rnn", hidden=4, freeze=("head.bias",), seed=3, **SIZES)
    torch.manual_seed(3)
    untrained = zoo.LanguageModel(new.config.model, new.tokenizer.vocab_size)
    assert frozen_parts(new, untrained.state_dict()) == {"head.bias"}


# the command line


def test_on_the_command_line(base: zoo.Run, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "foreign.txt", "--from", str(base.path), "--batch-size", "2"]
    given += ["--steps", "6", "--epochs", "1", "--out", "r"]
    assert zoo_command([*given, "--freeze", "head.*", "--freeze", "encoder.weight"]) == 0
    printed = capsys.readouterr().err.splitlines()
    assert len([line for line in printed if "not in the vocabulary of the run" in line]) == 1
    assert zoo.load("r").config.training.freeze == ("head.*", "encoder.weight")
    assert {"head.weight", "head.bias", "encoder.weight"} == frozen_parts(
        zoo.load("r"), weights(base)
    )
    assert zoo_command([*given, "--overwrite", "--extend-vocabulary"]) == 0
    assert "not in the vocabulary" not in capsys.readouterr().err
    assert zoo.load("r").tokenizer.vocab_size == base.tokenizer.vocab_size + 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hidden", "8"], "--from takes the model and the tokenizer from the run; leave out "
         "--hidden."),
        (["--recipe", "d2l-gru"], "leave out --recipe."),
        (["--tokenizer", "byte"], "leave out --tokenizer."),
        (["--vocab", "300"], "leave out --vocab."),
        (["--cell", "gru"], "leave out --cell."),
        (["--head-std", "0.1"], "leave out --head-std."),
        (["--option", "nonlinearity=relu"], "leave out --option."),
        (["--embedding", "5", "--dropout", "0.1"], "leave out --embedding."),
        (["--freeze", "nothing.*"], "--freeze 'nothing.*' is like no parameter; they are encoder."
         "weight, "),
        (["--freeze", "head.*", "--freeze", "heads"], "--freeze 'heads' is like no parameter; "),
        (["--freeze", "*"], "--freeze leaves nothing to train."),
        (["--documents"], "--documents: the run's tokenizer has no token for their end."),
    ],
)  # fmt: skip
def test_flags_that_clash(
    flags: list[str], message: str, base: zoo.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--batch-size", "2", "--steps", "6", "--epochs", "1"]
    line = told("other.txt", "--from", str(base.path), *small, *flags, code=2, capsys=capsys)
    assert message in line
    assert not Path("runs").exists()


def test_what_begins_with_no_run(base: zoo.Run, capsys: pytest.CaptureFixture[str]) -> None:
    line = told("other.txt", "--extend-vocabulary", code=2, capsys=capsys)
    assert line == "--extend-vocabulary goes with --from: it is that run's vocabulary."
    line = told("other.txt", "--from", "nowhere", code=1, capsys=capsys)
    assert line == "nowhere is not a run folder: it has no config.json."
    line = told("--resume", "--out", str(base.path), "--from", "r", code=2, capsys=capsys)
    assert "--resume takes every setting from the run" in line
    assert not Path("runs").exists()

"""Documents that a token ends: each begins from the initial state, in training, evaluation, scoring
and generation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.numpy import load as load_arrays
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.cli import run as zoo_command
from zoo.config import DataConfig, RunConfig
from zoo.data import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Dataset,
    LettersTokenizer,
    load_corpus,
    read_dataset,
    read_tokenizer,
)
from zoo.data.batches import BATCHES
from zoo.errors import TokenizerError, UsageError
from zoo.training import Report
from zoo.training.evaluation import evaluate
from zoo.training.trainer import training

REGISTRY = zoo.load_registry()
STEPS, ROWS, VOCAB, HIDDEN = 12, 3, 5, 7
END = VOCAB - 1
TINY = {"hidden": 6, "epochs": 1, "batch_size": 2, "steps": 8}
TEXTS = ["abca", "b", "cabbac" * 50, "acb", "ba" * 130]  # of which two are longer than 256


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Three documents, and an empty one, which does not count."""
    for name, text in {"a.txt": "ab", "b.txt": "ba b", "c/0.txt": "a", "d.txt": ""}.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path / "folder")


# tokens


def test_each_document_is_followed_by_the_last_token(folder: str) -> None:
    """ "a" and "b" come three times, the space once; 0 is what is unknown."""
    data = read_dataset(DataConfig(corpus=folder, documents=True, held_out=0.0))
    assert data.tokenizer.characters == "ab "
    assert (data.tokenizer.vocab_size, data.tokenizer.end_of_text) == (5, 4)
    assert data.train.tolist() == [1, 2, 4, 2, 1, 3, 2, 4, 1, 4]
    assert data.train_chars_per_token == 7 / 10
    Path("a.jsonl").write_text('{"text": "ab"}\n{"text": ""}\n{"text": "ba b"}\n{"text": "a"}\n')
    again = read_dataset(DataConfig(corpus="a.jsonl", documents=True, held_out=0.2))
    assert [*again.train.tolist(), *again.held_out.tolist()] == data.train.tolist()
    joined = read_dataset(DataConfig(corpus=folder, held_out=0.0))
    assert joined.tokenizer.decode(joined.train.tolist()) == "ab\n\nba b\n\na"
    assert joined.tokenizer.end_of_text is None


@given(st.lists(st.integers(0, 300)))
def test_the_end_of_a_text_is_never_shown(ids: list[int]) -> None:
    for plain in (
        CharTokenizer(characters="ab é"),
        LettersTokenizer(characters="ab"),
        ByteTokenizer(),
        BPETokenizer.from_text("tab é tab 🦊 🦊 tab " * 9, 270),
    ):
        tokenizer = plain.changed(documents=True)
        end = tokenizer.end_of_text
        assert end == plain.vocab_size == tokenizer.vocab_size - 1
        tokens = [token % (end + 1) for token in ids]
        assert tokenizer.decode(tokens) == plain.decode([t for t in tokens if t != end])
        assert "" not in tokenizer.stream(tokens)


def test_descriptions_say_whether_documents_have_an_end() -> None:
    older = '{"kind": "char", "characters": "ab"}'
    tokenizer = read_tokenizer(older, REGISTRY)
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (3, None)
    assert json.loads(tokenizer.model_dump_json()) == json.loads(older)
    changed = tokenizer.changed(documents=True)
    assert json.loads(changed.model_dump_json()) == {**json.loads(older), "documents": True}
    assert read_tokenizer(changed.model_dump_json(), REGISTRY) == changed != tokenizer
    with pytest.raises(TokenizerError, match=r"damaged: documents: .*valid boolean"):
        read_tokenizer('{"kind": "byte", "documents": "maybe"}', REGISTRY)


class NoEnd(CharTokenizer):
    ends_documents = False
    kind: str = "mine"


def test_a_tokenizer_without_an_end_is_refused(folder: str) -> None:
    class Plugin:
        @zoo.hookimpl
        def zoo_tokenizers(self) -> list[zoo.registry.TokenizerSpec]:
            return [zoo.registry.TokenizerSpec("mine", f"{NoEnd.__module__}:NoEnd")]

    registry = zoo.load_registry(Plugin())
    with pytest.raises(UsageError, match=r"^--documents needs a token .*, and 'mine' has none\.$"):
        zoo.train(folder, documents=True, tokenizer="mine", registry=registry)
    with pytest.raises(TokenizerError, match="'mine' has no token for the end of a document"):
        read_tokenizer('{"kind": "mine", "characters": "ab", "documents": true}', registry)


# training and evaluation


class PlainModel(nn.Module):
    """The model's weights in a torch cell that is run step by step, each row for itself."""

    def __init__(self, model: zoo.LanguageModel) -> None:
        super().__init__()
        rnn = model.stack.cells[0].rnn
        cell = nn.GRUCell if isinstance(rnn, nn.GRU) else nn.LSTMCell
        self.cell, self.head = cell(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.cell.load_state_dict({name: getattr(rnn, f"{name}_l0") for name in names})
        self.head.load_state_dict({"weight": model.head.weight, "bias": model.head.bias})

    def start(self) -> object:
        zeros = torch.zeros(1, HIDDEN)
        return zeros if isinstance(self.cell, nn.GRUCell) else (zeros, zeros)

    def row(self, tokens: Tensor, state: object) -> tuple[Tensor, object]:
        """Logits after each token, and the state at the end."""
        logits = []
        for token in tokens:
            state = self.cell(F.one_hot(token[None], VOCAB).float(), state)
            logits.append(self.head(state if isinstance(state, Tensor) else state[0])[0])
            if token == END:
                state = self.start()
        return torch.stack(logits), state


def detached(state: object) -> object:
    return state.detach() if isinstance(state, Tensor) else tuple(leaf.detach() for leaf in state)


def documents_of(count: int, seed: int = 0) -> tuple[np.ndarray, Dataset]:
    """Random tokens in which a document ends at one of four, and a dataset of them."""
    rng = np.random.default_rng(seed)
    tokens = np.where(rng.random(count) < 0.25, END, rng.integers(0, END, count)).astype(np.uint8)
    tokenizer = CharTokenizer(characters="abc", documents=True)
    Path("a.txt").write_text("abc")
    return tokens, Dataset(load_corpus("a.txt"), tokenizer, tokens, tokens[:0])


def model_of(cell: str) -> zoo.LanguageModel:
    config = RunConfig.build({"cell": cell, "hidden": HIDDEN})
    torch.manual_seed(1)
    model = zoo.LanguageModel(config.model, VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that the state counts
    return model


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("batches", ["sequential", "random"])
def test_training_begins_each_document_from_the_initial_state(cell: str, batches: str) -> None:
    """At a rate that leaves the weights as they are, the loss and the gradients of each window are
    those of rows that are read alone, step by step."""
    tokens, data = documents_of(230)
    model = model_of(cell)
    plain = PlainModel(model)
    config = RunConfig.build(
        {"epochs": 1, "batch_size": ROWS, "steps": STEPS, "learning_rate": 1e-12, "clip": 1e9,
         "batches": batches, "warmup": 0.0, "held_out": 0.0}
    ).training  # fmt: skip
    found: dict[str, list[Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: found[name].append(gradient.clone()))
    reports = [e.metrics for e in training(model, data, config, "a") if isinstance(e, Report)]

    windows = list(BATCHES[batches](tokens, ROWS, STEPS, np.random.default_rng(config.seed), 0))
    ends = torch.stack([window.inputs for window in windows]) == END
    assert ends[:, -1].any()  # at the last step of a window
    assert (ends[:, 1:] & ends[:, :-1]).any()  # two in a row
    assert (ends.sum(1) >= 3).any()
    losses, states = [], [plain.start()] * ROWS
    for number, (inputs, targets, fresh, _) in enumerate(windows):
        nats = torch.zeros(())
        for row in range(ROWS):
            before = plain.start() if fresh else detached(states[row])
            logits, states[row] = plain.row(inputs[:, row], before)
            nats = nats + F.cross_entropy(logits, targets[:, row], reduction="sum")
        loss = nats / targets.numel()
        plain.zero_grad()
        loss.backward()
        losses.append(loss.item())
        for name, parameter in plain.named_parameters():
            where = f"stack.cells.0.rnn.{name[5:]}_l0" if name.startswith("cell.") else name
            # float32: up to 36 terms of at most 1, in another order
            torch.testing.assert_close(found[where][number], parameter.grad, rtol=0, atol=2e-6)
    assert {len(gradients) for gradients in found.values()} == {len(windows)}
    (report,) = reports
    assert report.train_bits_per_token == pytest.approx(np.mean(losses) / math.log(2), rel=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_evaluation_begins_each_document_from_the_initial_state(cell: str) -> None:
    tokens, _ = documents_of(603)
    model = model_of(cell)
    plain = PlainModel(model)
    rows, length = 2, 301  # of at least 256 tokens
    nats = right = 0.0
    for row in range(rows):
        part = torch.from_numpy(tokens[row * length : (row + 1) * length + 1].astype(np.int64))
        logits, _ = plain.row(part[:-1], plain.start())
        nats += float(F.cross_entropy(logits, part[1:], reduction="sum").detach())
        right += int((logits.argmax(-1) == part[1:]).sum())
    found = evaluate(model, tokens, end=END)
    assert found.nats_per_token == pytest.approx(nats / (rows * length), rel=1e-5)
    assert found.accuracy == pytest.approx(right / (rows * length))
    assert evaluate(model, tokens).nats_per_token != pytest.approx(found.nats_per_token, rel=1e-4)


def test_the_precision_may_be_lower(folder: str) -> None:
    Path(folder, "e.txt").write_text("ab ba " * 30)
    for cell in ("mlstm", "bidirectional"):
        run = zoo.train(folder, cell=cell, documents=True, precision="bf16", out=cell, **TINY)
        assert math.isfinite(run.metrics()[-1]["train_perplexity"])


def test_compilation_is_refused(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(folder, "e.txt").write_text("ab ba " * 30)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    assert zoo_command(["train", folder, "--documents", "--compile", *arguments]) == 2
    told = "zoo: error: --documents goes without --compile and --cuda-graph.\n"
    assert capsys.readouterr().err == told
    assert not Path("runs").exists()


# scoring and generation


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    """A model of documents of a few letters. The end is the likeliest of its tokens, whatever it
    has read, and comes about half of the time."""
    model = model_of("gru")
    with torch.no_grad():
        model.head.weight.mul_(0.1)
        model.head.bias.copy_(torch.tensor([-9.0, 0.0, 0.0, 0.0, 1.0]))
    tokenizer = CharTokenizer(characters="abc", documents=True)
    return zoo.save(model, tokenizer, tmp_path_factory.mktemp("documents") / "run", "a")


@pytest.fixture(scope="module")
def sources(run: zoo.Run) -> dict[str, zoo.inference.Source]:
    paths = [run.path, *(exported.path for exported in zoo.export_all(run))]
    return {path.stem: zoo.open_source(path) for path in paths}


def test_run_and_files_have_the_tokenizer(
    run: zoo.Run, sources: dict[str, zoo.inference.Source]
) -> None:
    assert {*sources} == {"run", "step", "sequence", "generate"}
    assert {source.tokenizer for source in sources.values()} == {run.tokenizer}
    assert json.loads((run.path / "tokenizer.json").read_text())["documents"] is True


@pytest.mark.parametrize(("piece", "longest"), [(256, 300), (1, 6), (3, 8)])
def test_a_text_of_documents_has_the_nats_of_each_alone(
    piece: int, longest: int, run: zoo.Run, sources: dict[str, zoo.inference.Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("zoo.inference.scoring.PIECE", piece)
    Path("texts").mkdir()
    nats, tokens = 0.0, 0
    for number, text in enumerate(text[:longest] for text in TEXTS):
        Path(f"texts/{number}.txt").write_text(text)
        ids = torch.tensor([*run.tokenizer.encode(text).tolist(), 4])
        with torch.no_grad():
            logits, _ = run.model(ids[:-1, None])
        nats += float(F.cross_entropy(logits[:, 0].double(), ids[1:], reduction="sum"))
        tokens += len(text)
    for name in ("run", "step", "sequence"):
        found = zoo.score(sources[name], "texts")
        assert found.tokens == tokens
        # float32 logits differ by about 1e-6
        assert found.nats_per_token * tokens == pytest.approx(nats, rel=1e-5)
        assert found.nats_per_char == pytest.approx(nats / (tokens - len(TEXTS)), rel=1e-5)
        alone = [zoo.score(sources[name], f"texts/{number}.txt") for number in range(len(TEXTS))]
        total = sum(each.nats_per_token * each.tokens for each in alone)
        assert total == pytest.approx(nats, rel=1e-5)


def test_generation_stops_at_the_end_of_the_text(sources: dict[str, zoo.inference.Source]) -> None:
    for source in sources.values():
        assert zoo.generate(source, "ab", length=40) == "ab"
        assert list(zoo.stream(source, "ab", 40)) == []
        assert zoo.generate_batch(source, ["ab", "c"], length=40) == ["ab", "c"]


def test_a_session_says_that_the_text_has_ended(sources: dict[str, zoo.inference.Source]) -> None:
    for source in sources.values():
        session, fresh = zoo.Session(source), zoo.Session(source)
        session.feed("ab")
        assert session.sample(40) == ""
        for going_on in (session, session.fork()):
            with pytest.raises(UsageError) as caught:
                going_on.sample(1)
            assert str(caught.value) == "the text has ended; feed some to begin another."
        session.feed("ca")
        fresh.feed("ca")
        states = [load_arrays(each.snapshot()) for each in (session, fresh)]
        assert states[0].keys() == states[1].keys()
        for name in states[0].keys() - {"random"}:
            np.testing.assert_array_equal(states[0][name], states[1][name])
        assert session.sample(40) == ""


def test_run_and_files_end_the_same_texts(
    run: zoo.Run, sources: dict[str, zoo.inference.Source]
) -> None:
    prompts, hot = ["a", "bc", "cab"] * 4, {"length": 2, "temperature": 1.0}
    batches = [zoo.generate_batch(source, prompts, **hot) for source in sources.values()]
    assert all(batch == batches[0] for batch in batches)
    assert set("".join(batches[0])) == {*"abc"}
    added = [len(text) - len(prompt) for prompt, text in zip(prompts, batches[0], strict=True)]
    assert {*added} == {0, 1, 2}  # some end, and some do not
    for seed, (prompt, text) in enumerate(zip(prompts, batches[0], strict=True)):
        for source in sources.values():
            assert zoo.generate(source, prompt, seed=seed, **hot) == text


def test_on_the_command_line(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(folder, "e.txt").write_text("ab ba " * 30)
    arguments = ["--epochs", "1", "--hidden", "4", "--steps", "8", "--batch-size", "2"]
    assert zoo_command(["train", folder, "--documents", "--out", "r", *arguments]) == 0
    run = zoo.load("r")
    assert run.tokenizer == CharTokenizer(characters="ab ", documents=True)
    assert run.config.data.documents
    assert run.prompt == "ab"  # the first document
    assert zoo.resume("r").metrics() == run.metrics()
    capsys.readouterr()
    assert zoo_command(["generate", "r", "--length", "30", "--temperature", "1"]) == 0
    assert capsys.readouterr().out == zoo.generate(run.path, length=30, temperature=1.0) + "\n"

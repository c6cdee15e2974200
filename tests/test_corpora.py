"""Corpora: the embedded one, the downloaded one, the user's own, files, standard input."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st
from pyarrow import parquet

import zoo
from zoo.cli import run as zoo_command
from zoo.config import DataConfig
from zoo.data.corpora import load_corpus
from zoo.data.cutting import END
from zoo.data.dataset import read_dataset
from zoo.data.named import NamedText, add_text, named_texts, remove_text
from zoo.data.sources import Reading
from zoo.data.tokenizers import LettersTokenizer
from zoo.errors import CorpusError, UsageError, ZooWarning
from zoo.training.fine_tuning import Base

TINY = {"cell": "rnn", "hidden": 4, "epochs": 1, "batch_size": 2, "steps": 4, "held_out": 0}


@pytest.fixture
def _no_named_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CONFIG", str(tmp_path / "config"))


def test_python_docs_is_the_language_reference() -> None:
    text = load_corpus("python-docs").text
    assert len(text) > 300_000
    assert 'The "assert" statement' in text


@pytest.mark.usefixtures("time_machine")
def test_time_machine_is_preprocessed_as_in_the_textbook() -> None:
    """Section 9.2 of Dive into Deep Learning prints 28 entries and these frequencies, and 170,580
    characters."""
    data = read_dataset(DataConfig(corpus="time-machine", held_out=0.0))
    assert data.tokenizer.kind == "letters"
    assert data.tokenizer.vocab_size == 28
    counts = Counter(data.corpus.text)
    assert [(c, counts[c]) for c in data.tokenizer.characters[:5]] == [
        (" ", 29927), ("e", 17838), ("t", 13515), ("a", 11704), ("i", 10138)]  # fmt: skip
    assert len(data.train) == 170_580
    assert "himwas expounding" in data.corpus.text
    cut = read_dataset(DataConfig(corpus="time-machine", max_tokens=10_000, held_out=0.0))
    assert cut.tokenizer == data.tokenizer
    assert len(cut.train) == 10_000


def test_time_machine_without_a_network_is_an_error_that_names_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zoo.data.corpora.TIME_MACHINE_URL", "http://127.0.0.1:9/timemachine.txt")
    with pytest.raises(CorpusError, match="could not be downloaded") as caught:
        load_corpus("time-machine")
    assert str(tmp_path / "cache") in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_file_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    corpus = load_corpus(str(path))
    assert corpus.text == "one\ntwo\n"
    assert corpus.prompt == "one\ntwo\n"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("grüße".encode())))
    assert load_corpus("-").text == "grüße"


def test_a_registered_name_takes_precedence_over_a_file(tmp_path: Path) -> None:
    Path("python-docs").write_text("mine")
    assert load_corpus("python-docs").text != "mine"
    assert load_corpus("./python-docs").text == "mine"


def test_the_held_out_part_is_the_tail(text_file: Path) -> None:
    data = read_dataset(DataConfig(corpus=str(text_file), max_tokens=1000, held_out=0.25))
    assert (len(data.train), len(data.held_out)) == (750, 250)
    whole = data.tokenizer.encode(text_file.read_text())
    assert data.held_out.tolist() == whole[750:1000].tolist()
    assert data.held_out_chars_per_token == 1.0


def test_bytes_have_fewer_characters_than_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("é" * 100, "utf-8")
    data = read_dataset(DataConfig(corpus=str(path), tokenizer="byte", held_out=0.5))
    assert len(data.held_out) == 100
    assert data.held_out_chars_per_token == 0.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00abc", "is not UTF-8 text"),
        (b"abc\0def", "is not text: it holds zero bytes"),
    ],
)
def test_files_that_are_not_text_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        load_corpus(str(path))


def test_an_unknown_name_is_an_error_with_suggestions() -> None:
    with pytest.raises(zoo.ZooError, match="did you mean 'time-machine'"):
        load_corpus("time-machin")


@pytest.mark.usefixtures("_no_named_texts")
def test_a_flag_without_effect_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").mkdir()
    Path("rows").mkdir()
    Path("a.txt").write_text("a")
    Path("f/b.txt").write_text("b")
    Path("f/c.jsonl").write_text(json.dumps({"talk": "c" * 50, "text": "d"}))
    parquet.write_table(pa.table({"text": ["p"]}), "rows/p.parquet")
    mine = NamedText(path=str(Path("f/c.jsonl").absolute()), reading=Reading(field="talk"))
    add_text("mine", mine, zoo.load_registry())
    without_effect = {
        "python-docs": ["glob", "field", "encoding"], "mine": ["glob", "field", "encoding"],
        "a.txt": ["glob", "field"], "f/*.txt": ["glob", "field"], "rows": ["encoding"], "f": [],
    }  # fmt: skip
    for name, wrong in without_effect.items():
        for flag, value in {"glob": "*", "field": "text", "encoding": "utf-8"}.items():
            reading = Reading(**{flag: value})
            if flag not in wrong:
                assert load_corpus(name, reading=reading).text
                continue
            with pytest.raises(UsageError) as caught:
                load_corpus(name, reading=reading)
            pattern = rf"--{flag} has no effect on {re.escape(name)}, .*; leave it out\."
            assert re.fullmatch(pattern, str(caught.value))
    assert load_corpus(["a.txt", "f/c.jsonl"], reading=Reading(field="text")).text == "a\n\nd"
    with pytest.raises(UsageError, match="--field has no effect on any of the 2 texts; leave it"):
        load_corpus(["a.txt", "mine"], reading=Reading(field="talk"))
    for command in (["train"], ["tokenize"]):  # the same whatever command it is given to
        assert zoo_command([*command, "mine", "--field", "text"]) == 2
        assert capsys.readouterr().err.startswith("zoo: error: --field has no effect on mine, ")
    run = zoo.train("mine", **TINY)
    assert zoo.resume(run.path).metrics() == run.metrics()  # whose settings have all the fields


@pytest.mark.usefixtures("_no_named_texts")
@pytest.mark.parametrize("name", ["a\0b", "\0", "x" * 5000, "d/" * 3000, "a\nb", "", "*\0"])
def test_a_name_that_no_text_can_have_is_an_error_of_one_short_line(name: str) -> None:
    registry = zoo.load_registry()
    actions = [
        lambda: load_corpus(name), lambda: load_corpus(["python-docs", name]),
        lambda: add_text(name, NamedText(path="/a"), registry), lambda: remove_text(name),
    ]  # fmt: skip
    for action in actions:
        with pytest.raises(UsageError) as caught:
            action()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


@pytest.mark.usefixtures("_no_named_texts")
def test_a_named_text_is_where_it_was_when_it_was_added() -> None:
    Path("notes: 1.txt").write_text("some text")
    assert zoo_command(["corpora", "add", "notes", "notes: 1.txt"]) == 0
    assert named_texts()["notes"].path == str(Path("notes: 1.txt").absolute())
    assert load_corpus("notes").text == "some text"
    assert zoo_command(["corpora", "add", "other", "notes"]) == 2  # the name stands for the text


@pytest.mark.parametrize(
    ("name", "called"),
    [("f/*.txt", "f"), ("f/**/*.txt", "f"), ("f/", "f/"), ("f/a.txt", "f/a.txt"),
     ("f/../f/.", "f/../f/."), ("./f/..", "home"), (".", "home"), ("*/*.txt", "home")],
)  # fmt: skip
def test_what_a_run_is_named_after(
    name: str, called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "f").mkdir(parents=True)
    (home / "f" / "a.txt").write_text("text")
    monkeypatch.chdir(home)
    assert load_corpus(name).name == called


@given(st.lists(st.one_of(st.text(" \n1aBİKΣ你"), st.none())))
def test_letters_in_pieces_are_those_of_the_whole(flow: list[str | None]) -> None:
    """The Kelvin sign and the capital i with a dot are letters when they are in lower case."""
    whole: list[list[str]] = [[]]
    for piece in flow:
        whole[-1].append(piece) if piece is not END else whole.append([])
    found: list[list[str]] = [[]]
    for piece in LettersTokenizer.simplified(iter(flow)):
        found[-1].append(piece) if piece is not END else found.append([])
    wanted = [re.sub("[^a-z]+", " ", "".join(pieces).lower()) for pieces in whole]
    assert ["".join(pieces) for pieces in found] == wanted
    assert "" not in chain.from_iterable(found)


def test_a_long_run_without_letters_is_one_space() -> None:
    text = "ab" + "1 " * 200_000 + "ab" + "?" * 131_073 + "b"
    Path("a.txt").write_text(text)
    data = read_dataset(DataConfig(corpus="a.txt", tokenizer="letters", held_out=0.0))
    assert data.tokenizer.characters == "ba "  # three, two and two, in order of appearance
    assert data.tokenizer.decode(data.train.tolist()) == "ab ab b"


def test_one_unknown_character_is_told_in_the_singular(fox_run: zoo.Run) -> None:
    Path("a.txt").write_text("the qüick fox")
    with pytest.warns(
        ZooWarning, match=r"^1 character of a\.txt is not in .*, and becomes <unk>: 'ü'"
    ):
        Base(fox_run, extend=False).tokenizer_for(load_corpus("a.txt"))

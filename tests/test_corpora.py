"""Corpora: the embedded one, the downloaded one, files, standard input."""

from __future__ import annotations

import io
import sys
from collections import Counter
from pathlib import Path

import pytest

import zoo
from zoo.config import DataConfig
from zoo.data.corpora import load_corpus
from zoo.data.dataset import read_dataset
from zoo.errors import CorpusError


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

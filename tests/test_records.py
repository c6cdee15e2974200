"""Texts that are records: JSON lines, Parquet, and the datasets of the Hub's library, written by
the libraries themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from zoo.data.corpora import load_corpus
from zoo.data.cutting import END
from zoo.data.sources import Reading
from zoo.errors import CorpusError

WORDS = "the quick brown fox jumps over the lazy dog\n"


def documents(name: str, **reading: str) -> list[str]:
    corpus = load_corpus(name, reading=Reading(**reading))
    return ["".join(pieces) for pieces in corpus.source.documents()]


def told(name: str, **reading: str) -> str:
    """The message of the error that reading gives, which has one line."""
    with pytest.raises(CorpusError) as caught:
        documents(name, **reading)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_json_lines() -> None:
    lines = [{"text": "one"}, {"text": None, "body": 3}, {"n": 1, "text": "zw\u00f6i\n\U0001f98a"}]
    content = "\ufeff" + "\n\n".join(map(json.dumps, lines)) + "\r\n  \n"
    for name in ("a.jsonl", "b.ndjson", "c.JSONL"):
        Path(name).write_text(content, "utf-8")
        assert documents(name) == ["one", "", "zw\u00f6i\n\U0001f98a"]
    assert [*load_corpus(name).flow(separate=True)] == ["one", END, "zwöi\n🦊", END]
    Path("d.jsonl").write_text('{"body": "x \\ud83e y"}')
    assert documents("d.jsonl", field="body") == ["x ? y"]  # half of a character is none


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"test": "a"}', " has no field 'text'; did you mean 'test'?"),
        ('{"q": 1, "a": 2}', " has no field 'text'; it has 'q', 'a'; choose one by --field."),
        ("{}", " has no field 'text'; "),
        ('{"text": "a"', " is not JSON: Expecting ',' delimiter"),
        ("plain text", " is not JSON: Expecting value"),
        ("[" * 100_000, " is not JSON: maximum recursion depth exceeded"),
        ('["text"]', " is no object with fields."),
        ("null", " is no object with fields."),
        ('{"text": 7}', ": the field 'text' holds int, not text."),
        ('{"text": ["a"]}', ": the field 'text' holds list, not text."),
    ],
)
def test_json_lines_that_are_none(line: str, message: str) -> None:
    Path("a.jsonl").write_text(f'{{"text": "good"}}\n\n{line}\n')
    assert f"a.jsonl, line 3{message}" in told("a.jsonl")


def test_parquet() -> None:
    rows = ["one", None, "zwöi\r\n🦊", ""] * 300
    table = pa.table({"text": rows, "other": pa.array([*map(str, range(1200))], pa.large_string())})
    parquet.write_table(table, "a.parquet", row_group_size=7)
    assert documents("a.parquet") == [row or "" for row in rows]
    assert documents("a.parquet", field="other") == [*map(str, range(1200))]
    assert told("a.parquet", field="txt").endswith("has no field 'txt'; did you mean 'text'?")
    parquet.write_table(pa.table({"text": [1, 2], "raw": [b"a", b"b"]}), "b.parquet")
    assert "b.parquet: the field 'text' holds int, not text." in told("b.parquet")
    assert "the field 'raw' holds bytes, not text." in told("b.parquet", field="raw")
    Path("f").mkdir()
    Path("f/b.txt").write_text("text")
    shutil.copy("a.parquet", "f/a.parquet")
    assert documents("f") == [*(row or "" for row in rows), "text"]


def test_damaged_parquet() -> None:
    words = [WORDS * 20] * 500
    parquet.write_table(pa.table({"text": words}), "a.parquet", use_dictionary=False)
    raw = Path("a.parquet").read_bytes()
    for damaged in (
        raw[: len(raw) // 2],
        b"PAR1",
        WORDS.encode(),
        raw[:4] + b"x" * 900 + raw[904:],
    ):
        Path("a.parquet").write_bytes(damaged)
        assert "a.parquet cannot be read: " in told("a.parquet")
    latin = pa.array([b"gr\xfc\xdfe"], pa.binary()).view(pa.string())  # which arrow believes
    parquet.write_table(pa.table({"text": latin}), "a.parquet")
    assert "a.parquet cannot be read: 'utf-8' codec can't decode" in told("a.parquet")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets: Any = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_a_dataset_of_the_hubs_library() -> None:
    """From a local folder, which the library reads as it reads one of the Hub."""
    rows = [
        {"text": "one", "title": "A"},
        {"text": None, "title": "B"},
        {"text": "🦊", "title": ""},
    ]
    Path("d").mkdir()
    Path("d/train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("d/test.jsonl").write_text('{"text": "t"}')
    assert documents("hf:d") == ["one", "", "🦊"]
    assert documents("hf:./d", field="title") == ["A", "B", ""]
    assert documents("hf:d::test") == ["t"]
    first, again = (load_corpus("hf:d").source.identity for _ in range(2))
    assert first == again
    assert first != load_corpus("hf:d", reading=Reading(field="title")).source.identity
    assert told("hf:d", field="titel").startswith("hf:d has no field 'titel'; did you mean")
    assert "hf:d::dev cannot be read: Unknown split" in told("hf:d::dev")
    assert told("hf:nowhere").startswith("hf:nowhere cannot be read: ")
    Path("d/train.jsonl").write_text('{"text": "new"}')
    assert documents("hf:d") == ["new"]
    assert load_corpus("hf:d").source.identity != first

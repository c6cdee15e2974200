"""Texts of other machines: a server on this one, and fsspec's file system in memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.registry import _registry
from pyarrow import parquet

import zoo
from zoo.cli import run as zoo_command
from zoo.config import DataConfig
from zoo.data.corpora import load_corpus
from zoo.data.dataset import read_dataset
from zoo.data.sources import Reading
from zoo.errors import CorpusError, UsageError

from .file_servers import in_thread

LONG = (
    "a text that is much longer than what is looked at first\n" * 300_000
)  # 17 MB, more than a connection holds


class Server(ThreadingHTTPServer):
    """Serves `files`, with their versions if `tells`, and counts the bytes that it sends of each.
    It sends no part of a file that is asked for: not all servers do."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        self.files: dict[str, bytes] = {}
        self.tells = True
        self.sent: dict[str, int] = {}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        content = self.server.files.get(self.path.partition("?")[0][1:])
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "text/html")
        if self.server.tells:
            self.send_header("ETag", f'"{hash(content)}"')
        self.end_headers()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0][1:]
        self.do_HEAD()
        content = memoryview(self.server.files.get(name, b""))
        for start in range(0, len(content), 2**16):
            try:
                self.wfile.write(content[start : start + 2**16])
            except OSError:  # the reader has gone
                return
            sent = len(content[start : start + 2**16])
            self.server.sent[name] = self.server.sent.get(name, 0) + sent

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with in_thread(Server()) as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def text(name: str, **reading: str) -> str:
    return load_corpus(name, reading=Reading(**reading)).text


def rows(*texts: str) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": texts}), file)
    return file.getvalue()


def test_a_url_is_downloaded_once_for_all_commands(server: Server, cache: Path) -> None:
    server.files = {"a.txt": LONG.encode(), "b.txt.gz": gzip.compress(b"two")}
    url = server.url("a.txt")
    assert text(url) == LONG
    assert len(LONG) <= server.sent.pop("a.txt") < 2 * len(LONG)
    assert text(url) == LONG
    assert server.sent == {}
    (copy,) = (cache / "copies").iterdir()
    assert copy.read_bytes() == LONG.encode()
    server.files["a.txt"] = b"new"
    assert text(url) == "new"
    assert text(server.url("b.txt.gz")) == "two"
    assert len(list((cache / "copies").iterdir())) == 3


def test_only_the_beginning_is_fetched_where_the_tokens_are_known(
    server: Server, cache: Path
) -> None:
    server.files["a.txt"] = LONG.encode()
    config = DataConfig(corpus=server.url("a.txt"))
    data = read_dataset(config)
    (copy,) = (cache / "copies").iterdir()
    copy.unlink()
    server.sent.clear()
    again = read_dataset(config)
    assert again.fingerprint == data.fingerprint
    assert len(again.train) + len(again.held_out) == len(LONG)
    assert not copy.exists()
    assert server.sent["a.txt"] < 0.75 * len(LONG)


def test_what_has_no_version_is_fetched_anew(server: Server, cache: Path) -> None:
    server.tells = False
    server.files["a.txt"] = b"one"
    first = load_corpus(server.url("a.txt"))
    assert first.source.identity is None
    assert first.text == "one"
    server.files["a.txt"] = b"two"
    assert first.text == "one"  # as long as the command reads it
    assert text(server.url("a.txt")) == "two"
    assert not (cache / "copies").exists()


def test_files_of_every_kind_at_a_url(server: Server) -> None:
    records = "".join(json.dumps({"text": each}) + "\n" for each in ("one", "two"))
    server.files = {
        "a.jsonl": records.encode(), "a.parquet": rows("one", "two"),
        "a.jsonl.zst": pa.Codec("zstd").compress(records.encode(), asbytes=True),
    }  # fmt: skip
    for name in server.files:
        for query in ("", "?download=1&name=x.txt"):
            corpus = load_corpus(server.url(name) + query)
            assert ["".join(each) for each in corpus.source.documents()] == ["one", "two"]
            assert corpus.prompt == "one"


def test_a_page_is_a_text_and_an_index_is_a_folder(server: Server) -> None:
    page = '<a href="other.txt">other</a> <a href="?C=M">sorted</a>'
    server.files = {"a.html": page.encode(), "f/": page.encode(), "f/other.txt": b"other"}
    assert text(server.url("a.html")) == page
    assert text(server.url("f/")) == text(server.url("f/"), glob="*.txt") == "other"


def test_an_error_names_the_url(server: Server) -> None:
    server.files = {"a.txt": b"abc\xff", "a.jsonl": b'{"body": 1}', "a.gz": b"abc"}
    for name, message in {
        "a.txt": "is not UTF-8 text (byte 3)",
        "a.jsonl": "line 1 has no field 'text'; it has 'body'",
        "a.gz": "cannot be read: ",
    }.items():
        with pytest.raises(CorpusError) as caught:
            load_corpus(server.url(name))
        assert re.match(f"{server.url(name)},? {re.escape(message)}", str(caught.value))
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(
        UsageError, match=r"'http://127\.0\.0\.1:[0-9]+/none' is neither a corpus nor"
    ):
        load_corpus(server.url("none"))
    with pytest.raises(
        CorpusError, match=r"http://127\.0\.0\.1:9/a cannot be read: Connect call f"
    ):
        load_corpus("http://127.0.0.1:9/a")


def test_a_download_that_breaks_off_leaves_nothing(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.txt"] = LONG.encode()

    def cut_off(handler: Handler) -> None:
        handler.do_HEAD()
        handler.wfile.write(LONG.encode()[: 2**22])

    corpus = load_corpus(server.url("a.txt"))
    with monkeypatch.context() as patch:
        patch.setattr(Handler, "do_GET", cut_off)
        with pytest.raises(CorpusError, match=r"/a\.txt cannot be read: "):
            _ = corpus.text
    assert list((cache / "copies").iterdir()) == []
    assert corpus.text == LONG


def test_old_copies_make_room(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data.copies.KEPT_BYTES", 1500)
    memory.pipe({f"/{name}.txt": name.encode() * 1000 for name in "abcd"})
    for name in ("a", "b", "a"):
        assert text(f"memory://{name}.txt") == name * 1000
        for path in (cache / "copies").iterdir():  # so that no two have the same time
            _make_older(path)
    assert _kept(cache) == ["a", "b"]
    left = cache / "copies" / ".new-left"  # by a command that was killed
    left.write_text("x")
    assert text("memory://c.txt") == "c" * 1000
    assert _kept(cache) == ["a", "c", "x"]  # b was used longest ago; x may still be written
    os.utime(left, (0, 0))
    names = [f"memory://{name}.txt" for name in "dbc"]
    assert load_corpus(names).text == "\n\n".join(name * 1000 for name in "dbc")
    assert _kept(cache) == ["a", "b", "c", "d"]  # those of one command are kept together


def _make_older(path: Path) -> None:
    stat = path.stat()
    os.utime(path, (stat.st_atime, stat.st_mtime - 100))


def _kept(cache: Path) -> list[str]:
    return sorted(path.read_text()[0] for path in (cache / "copies").iterdir())


def test_a_cache_that_cannot_be_written(memory: Any, cache: Path) -> None:
    cache.write_text("a file")
    memory.pipe("/a.txt", b"one")
    corpus = load_corpus("memory://a.txt")
    assert [corpus.text, corpus.text] == ["one", "one"]


def test_https_without_aiohttp_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    for name in ("http", "https"):
        monkeypatch.delitem(_registry, name, raising=False)
    assert zoo_command(["tokenize", "https://example.org/a.txt"]) == 2
    assert capsys.readouterr().err == (
        "zoo: error: https://example.org/a.txt needs aiohttp; "
        "pip install 'recurrent-zoo[datasets]'.\n"
    )


def test_training_on_a_url(server: Server) -> None:
    server.files["book.txt"] = b"the quick brown fox jumps over the lazy dog\n" * 40
    run = zoo.train(
        server.url("book.txt") + "?token=secret", cell="rnn", hidden=4, epochs=1, batch_size=2,
        steps=4,
    )  # fmt: skip
    assert run.path == Path("runs/book-rnn")
    assert zoo.resume(run.path).metrics() == run.metrics()

"""Models at URLs: a server on this machine, and fsspec's file system in memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import ArtifactError, RunError, UsageError
from zoo.inference.runtime import open_artifact

from .file_servers import in_thread

SETTINGS: dict[str, Any] = {"length": 40, "temperature": 0.8, "seed": 3}


class Server(ThreadingHTTPServer):
    """Serves `files`, and leads from `moved` to others. Counts the downloads of each; says a
    version if `tells`; of what is `cut` it sends half."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.status: dict[str, int] = {}
        self.cut: set[str] = set()
        self.tells = self.measures = True
        self.downloads: dict[str, int] = {}

    def url(self, name: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> bool:
        name = self.path.partition("?")[0][1:]
        if name in self.server.moved:
            self.send_response(302)
            self.send_header("Location", f"/{self.server.moved[name]}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        if name not in self.server.files or name in self.server.status:
            self.send_error(self.server.status.get(name, 404))
            return False
        content = self.server.files[name]
        self.send_response(200)
        if self.server.measures:
            self.send_header("Content-Length", str(len(content)))
        if self.server.tells:
            self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        self.end_headers()
        return True

    def do_GET(self) -> None:
        name = self.path.partition("?")[0][1:]
        if self.do_HEAD():
            self.server.downloads[name] = self.server.downloads.get(name, 0) + 1
            content = self.server.files[name]
            self.wfile.write(content[: len(content) // 2] if name in self.server.cut else content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with in_thread(Server()) as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


@pytest.fixture(scope="module")
def graphs(fox_run: zoo.Run, fox_file: Path) -> dict[str, Path]:
    """The files of one run by graph."""
    written = zoo.export_all(fox_run, ("generate", "sequence"))
    return {"step": fox_file, **{exported.info.graph: exported.path for exported in written}}


def copies(cache: Path) -> set[Path]:
    return {path.relative_to(cache) for path in cache.glob("**/*.onnx")}


def place(file: Path, name: str | None = None) -> Path:
    """Where the copy of a file is, as the documentation says."""
    return Path(hashlib.sha256(file.read_bytes()).hexdigest(), name or file.name)


def test_a_file_is_downloaded_once_and_again_when_it_changes(
    server: Server, graphs: dict[str, Path], cache: Path
) -> None:
    server.files["a.onnx"] = graphs["generate"].read_bytes()
    url = server.url("a.onnx")
    text = zoo.generate(graphs["generate"], "the dog", **SETTINGS)
    for _ in range(3):
        assert zoo.generate(url, "the dog", **SETTINGS) == text
    assert server.downloads == {"a.onnx": 1}
    assert copies(cache) == {place(graphs["generate"], "a.onnx")}
    server.files["a.onnx"] = graphs["step"].read_bytes()
    for _ in range(2):
        assert zoo.open_source(url).info.graph == "step"
    assert server.downloads == {"a.onnx": 2}
    server.files["a.onnx"] = graphs["generate"].read_bytes()
    assert zoo.open_source(url).info.graph == "generate"


def test_what_has_no_version_is_downloaded_anew(server: Server, graphs: dict[str, Path]) -> None:
    server.tells = False
    for count, graph in enumerate(("generate", "step", "step"), start=1):
        server.files["a.onnx"] = graphs[graph].read_bytes()
        assert zoo.open_source(server.url("a.onnx")).info.graph == graph
        assert server.downloads["a.onnx"] == count


def test_a_damaged_copy_is_replaced(server: Server, graphs: dict[str, Path], cache: Path) -> None:
    server.files["a.onnx"] = graphs["generate"].read_bytes()
    zoo.open_source(server.url("a.onnx"))
    (copy,) = cache.glob("*/a.onnx")
    copy.write_bytes(copy.read_bytes()[:-1])
    assert zoo.open_source(server.url("a.onnx")).prompt == "the "
    assert server.downloads["a.onnx"] == 2
    assert copy.read_bytes() == server.files["a.onnx"]


@pytest.mark.parametrize("measures", [True, False])
def test_a_download_that_breaks_off_leaves_nothing(
    server: Server, graphs: dict[str, Path], cache: Path, measures: bool
) -> None:
    content = graphs["generate"].read_bytes()
    server.files["a.onnx"], server.measures = content, measures
    server.cut.add("a.onnx")
    # without a length, only the file itself tells that it is not whole
    kind, message = (RunError, "cannot be read") if measures else (ArtifactError, "is truncated")
    with pytest.raises(kind, match=rf"^{server.url('a.onnx')} .*{message}"):
        zoo.open_source(server.url("a.onnx"))
    if measures:
        assert list(cache.iterdir()) == []
    server.cut.clear()
    server.files["a.onnx"] = content + b""
    server.tells = measures
    assert zoo.open_source(server.url("a.onnx")).prompt == "the "


def test_a_redirect_is_followed(server: Server, graphs: dict[str, Path], cache: Path) -> None:
    server.files["blobs/1234"] = graphs["step"].read_bytes()
    server.moved["model/step.onnx"] = "blobs/1234"
    url = server.url("model/step.onnx")
    assert zoo.generate(url, length=5) == zoo.generate(graphs["step"], length=5)
    zoo.open_source(url)
    assert server.downloads == {"blobs/1234": 1}
    assert copies(cache) == {place(graphs["step"])}


def test_errors_name_the_url_and_no_secret(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"a.onnx": b"<html>", "b.onnx": b"x", "a.txt": b"text"}
    server.files["empty/"] = b'<a href="notes.txt">notes</a>'
    server.status["b.onnx"] = 403
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{closed.getsockname()[1]}/a.onnx"
    for name, message in {
        "none.onnx": "{} does not exist; give the URL of an exported file.",
        "none/": "{} does not exist; give the URL of an exported file.",
        "empty/": "{} holds no file that a runtime here opens (*.onnx).",
        "a.txt": "{} is no file that a runtime here opens (*.onnx).",
        "a.onnx": "{} is not an ONNX file, or is truncated; export it again.",
        "b.onnx": "{} cannot be read: Forbidden.",
    }.items():
        query, shown = ("", "") if name[-1] == "/" else ("?key=hidden", "?…")
        assert zoo_command(["generate", server.url(name, "me:hidden@") + query]) == 1
        shown = server.url(name) + shown
        assert capsys.readouterr().err == f"zoo: error: {message.format(shown)}\n"
    assert zoo_command(["score", refusing + "?key=hidden", "python-docs"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"zoo: error: {refusing}?… cannot be read: ")
    assert "onnect" in error
    assert "hidden" not in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/a.onnx", "s3://bucket/a.onnx needs s3fs; pip install s3fs."),
        ("nope://a.onnx", "nope://a.onnx cannot be opened: Protocol not known: nope."),
        ("http://[a.onnx", "http://… is no URL: Invalid IPv6 URL."),
        ("memory://a.onnx#sha256=12", "memory://a.onnx: a SHA-256 has 64 hexadecimal digits; "
         "give URL#sha256=HEX."),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_meant(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert zoo_command(["fill", url, "a_"]) == 2
    assert capsys.readouterr().err == f"zoo: error: {message}\n"


def test_a_pinned_file(server: Server, graphs: dict[str, Path], cache: Path) -> None:
    content = graphs["generate"].read_bytes()
    pin = "#sha256=" + hashlib.sha256(content).hexdigest().upper()
    url = server.url("generate.onnx")
    server.files["generate.onnx"] = graphs["step"].read_bytes()
    with pytest.raises(ArtifactError, match=rf"^{url} has the SHA-256 [0-9a-f]+, and not the one"):
        zoo.open_source(url + pin)
    assert copies(cache) == set()
    zoo.open_source(url)  # of no digest: it is there now, and is still not what was asked for
    with pytest.raises(ArtifactError, match="has the SHA-256"):
        zoo.open_source(url + pin)
    server.files["generate.onnx"] = content
    zoo.open_source(url + pin)
    server.files.clear()
    server.downloads.clear()
    assert zoo.open_source(url + pin).prompt == "the "  # the server is not asked
    assert server.downloads == {}


def test_a_file_that_is_too_large_is_not_read(
    server: Server, memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.inference.remote.MAX_FILE_BYTES", 1000)
    server.files = {"a.onnx": bytes(1001), "b.onnx": bytes(1001)}
    memory.pipe("/a.onnx", bytes(1001))
    for url in (server.url("a.onnx"), server.url("b.onnx"), "memory://a.onnx"):
        server.measures = "a.onnx" in url
        with pytest.raises(ArtifactError, match=rf"^{url} is too large; a model has at most"):
            zoo.open_source(url)
    assert set(server.downloads) == {"b.onnx"}  # its size is not told
    assert list(cache.iterdir()) == []


def test_a_folder_of_files(server: Server, graphs: dict[str, Path], memory: Any) -> None:
    """The generate graph writes, and the sequence graph scores, as in a local folder."""
    names = ["step.onnx", "generate.onnx", "sequence.onnx"]
    page = "".join(f'<a href="{name}">{name}</a>' for name in [*names, "notes.txt", "/other.onnx"])
    server.files = {f"model/{name}": graphs[name[:-5]].read_bytes() for name in names}
    server.files |= {"model/": page.encode(), "other.onnx": graphs["step"].read_bytes()}
    memory.pipe({f"/{path}": content for path, content in server.files.items() if path[-1] != "/"})
    memory.pipe({"/model/config.json": b"{}", "/model/inner/c.onnx": b""})
    Path("text.txt").write_text("the quick brown fox")
    folder = graphs["generate"].parent
    for url in (server.url("model/"), "memory://model", "memory://model/"):
        opened = zoo.open_source(url)
        assert opened.info.graph == "generate"
        assert zoo.open_source(url, scores=True).info.graph == "sequence"
        assert zoo.generate(url, "the " * 30, **SETTINGS) == zoo.generate(
            folder, "the " * 30, **SETTINGS
        )
        assert zoo.score(url, "text.txt") == zoo.score(folder, "text.txt")
        with pytest.raises(UsageError, match="holds several exported files; name one"):
            open_artifact(url, "cpu", zoo.load_registry())
        with pytest.raises(UsageError, match="is a folder, and a SHA-256 is that of one file"):
            zoo.open_source(f"{url}#sha256={'0' * 64}")
    assert {name.partition("/")[0] for name in server.downloads} == {"model"}


@pytest.mark.slow
def test_every_verb_takes_a_url(
    memory: Any, graphs: dict[str, Path], trained: Callable[..., zoo.Run],
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    run, both = trained(), trained("bidirectional", steps=16)
    filling = zoo.export(both, graph="sequence").path
    memory.pipe({"/step.onnx": graphs["step"].read_bytes(), "/fill.onnx": filling.read_bytes()})
    (tmp_path / "text.txt").write_text("the quick brown fox")
    for command in (
        ["generate", "{}", "--length", "5"],
        ["score", "{}", "text.txt"],
        ["bench", "{}", "--batch", "1", "--rounds", "1", "--seconds", "0.01", "--provider", "cpu",
         "--plot", "speeds.png"],
        ["verify", "{}", "--against", str(run.path), "--length", "20", "--seeds", "1"],
        ["fill", "{}", "the q_ick"],
    ):  # fmt: skip
        name, file = (
            ("fill.onnx", filling) if command[0] == "fill" else ("step.onnx", graphs["step"])
        )
        printed = []
        for source in (f"memory://{name}", str(file)):
            assert zoo_command([part.format(source) for part in command]) == 0
            printed.append(capsys.readouterr().out)
        if command[0] != "bench":
            assert printed[0] == printed[1]
    assert zoo_command(["verify", "memory://step.onnx", "--against", str(both.path)]) == 1
    assert "memory://step.onnx was exported from another model" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written(memory: Any, cache: Path, graphs: dict[str, Path]) -> None:
    cache.parent.write_text("a file")
    memory.pipe("/a.onnx", graphs["generate"].read_bytes())
    wanted = zoo.generate(graphs["generate"], "the", **SETTINGS)
    assert zoo.generate("memory://a.onnx", "the", **SETTINGS) == wanted


def test_old_copies_make_room(
    memory: Any, cache: Path, graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(graphs[graph].stat().st_size for graph in ("sequence", "step"))
    monkeypatch.setattr("zoo.data.copies.KEPT_BYTES", size)
    for number, graph in enumerate(("generate", "sequence", "step")):
        memory.pipe(f"/{graph}.onnx", graphs[graph].read_bytes())
        zoo.open_source(f"memory://{graph}.onnx")
        for path in cache.glob("*/*"):
            os.utime(path, (number - 10, path.stat().st_mtime - 100))
    assert copies(cache) == {place(graphs["sequence"]), place(graphs["step"])}


def test_it_needs_no_torch(server: Server, graphs: dict[str, Path], cache: Path) -> None:
    server.files["a.onnx"] = graphs["generate"].read_bytes()
    code = "import sys, zoo; zoo.generate(sys.argv[1], length=3); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "ZOO_CACHE": str(cache.parent)}
    subprocess.run([sys.executable, "-c", code, server.url("a.onnx")], check=True, env=environment)
    shutil.rmtree(cache)

"""Whole pages of the web in a headless Chromium: they write what Python writes.

ZOO_WEB_PICTURE=docs/_static/web-page.png python -m pytest tests/test_web_pages.py -k picture
draws the page for the documentation, with a model that is trained for it.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import warnings
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

import zoo
from zoo.errors import ZooWarning
from zoo_web import onnxruntime_web
from zoo_web.packager import WebPackager

pytestmark = pytest.mark.slow


PATIENCE = 150_000  # milliseconds: other tests may have the cores
ISOLATING = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
THREADS = "ort-wasm-simd-threaded.mjs"  # the module that starts threads, for a page of another host
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{onnxruntime_web.VERSION}/dist/"


@dataclass
class Site:
    """A server of packages, and a browser to open them with."""

    folder: Path
    origin: str
    isolating: str  # the origin of a server of the same packages that isolates its pages
    browser: Any
    runtime: Path
    packed: dict[str, list[Path]] = field(default_factory=dict)

    def package(self, name: str, files: list[Any], npm: bool = True) -> str:
        """The address of the package of these files, which is written once, with npm or without.
        Other files need another name."""
        if name not in self.packed:
            self.packed[name] = [made.path for made in files]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(onnxruntime_web, "vendor", self._link if npm else self._refuse)
                (self.folder / name).mkdir()
                with nullcontext() if npm else pytest.warns(ZooWarning, match="without npm"):
                    WebPackager(zoo.load_registry()).write(files, self.folder / name)
        assert self.packed[name] == [made.path for made in files]
        return f"{self.origin}/{name}/"

    def _link(self, folder: Path, names: list[str]) -> None:
        folder.mkdir()
        for name in names:
            os.link(self.runtime / name, folder / name)

    def _refuse(self, folder: Path, names: list[str]) -> None:
        raise onnxruntime_web.NotVendoredError("this is without npm")

    def _answer_for_the_cdn(self, route: Any) -> None:
        """With the tested package's files, and the headers that jsDelivr sends with each."""
        if not route.request.url.startswith(CDN):
            route.abort()
            return
        name = route.request.url.removeprefix(CDN)
        kind = "application/wasm" if name.endswith(".wasm") else "application/javascript"
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        route.fulfill(path=self.runtime / name, content_type=kind, headers=headers)

    def open(self, address: str) -> Any:
        """A page whose requests are recorded. The browser finds no host but this one; the test
        answers for the CDN."""
        page = self.browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.requested = []
        page.problems = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.route("https://cdn.jsdelivr.net/**", self._answer_for_the_cdn)
        page.goto(address)
        return page

    def write(self, address: str, **settings: Any) -> str:
        """The text that the page writes."""
        page = self.open(f"{address}?{urlencode({**settings, 'run': 1})}")
        text = finished(page)
        self.close(page)
        return text

    def close(self, page: Any, of_the_cdn: Sequence[str] = ()) -> None:
        """Closes a page that has asked its own host, and the CDN for these files."""
        assert page.problems == []
        own = (f"{self.origin}/", f"{self.isolating}/", f"blob:{self.isolating}/")
        others = {url for url in page.requested if not url.startswith(own)}
        assert others == {CDN + name for name in of_the_cdn}
        assert any(url.endswith(".wasm") for url in page.requested)
        page.close()


def finished(page: Any, state: str = "done") -> str:
    page.wait_for_selector("#text[data-state=done], #text[data-state=error]")
    text = page.text_content("#text")
    assert page.get_attribute("#text", "data-state") == state, text
    return str(text)


class Quiet(http.server.SimpleHTTPRequestHandler):
    added: Mapping[str, str] = {}  # headers of each answer

    def end_headers(self) -> None:
        for name, value in self.added.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Isolating(Quiet):
    added = ISOLATING


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page may be closed before it has all files."""


@contextmanager
def served(folder: Path, handler: type[Quiet]) -> Iterator[str]:
    """The origin of a server of this folder."""
    server = QuietServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    folder = tmp_path_factory.mktemp("pages")
    runtime = tmp_path_factory.mktemp("runtime") / "onnxruntime"
    try:
        names = [name for pair in onnxruntime_web.FILES.values() for name in pair]
        names.append(THREADS)
        onnxruntime_web.vendor(runtime, names)
    except onnxruntime_web.NotVendoredError as error:
        pytest.skip(f"onnxruntime-web: {error}")
    playwright = pytest.importorskip("playwright.sync_api")
    switches = (
        "--no-sandbox --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync "
        # a GPU in software, for WebGPU
        "--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --use-angle=swiftshader"
    )
    hosts = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with (
        served(folder, Quiet) as origin,
        served(folder, Isolating) as isolating,
        playwright.sync_playwright() as driver,
    ):
        args = [*switches.split(), hosts]
        browser = driver.chromium.launch(executable_path=chromium, args=args)
        yield Site(folder, origin, isolating, browser, runtime)
        browser.close()


SAMPLED = {"temperature": 0.8, "top_k": 12, "top_p": 0.95, "seed": 2**63 - 1}
CELLS = (
    "rnn-scratch", "lstm", "gru", "janet", "clockwork-rnn", "mingru", "lru", "mamba2",
    "gated-deltanet", "slstm", "cfc", "tr-lem",
)  # fmt: skip


def small(trained: Callable[..., zoo.Run], cell: str, **settings: Any) -> zoo.Run:
    if cell not in zoo.load_registry().cells:
        pytest.skip(f"{cell} is of a package that is not installed")
    return trained(cell, **{"epochs": 1, "hidden": 16, **settings})


@pytest.mark.rotates("cell", CELLS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_page_writes_what_python_writes(
    cell: str, pages: Site, trained: Callable[..., zoo.Run], tmp_path: Path
) -> None:
    run = small(trained, cell)
    (made,) = files = zoo.export_all(run, ("generate",), out=tmp_path)
    address = pages.package(cell, files)
    settings = {"prompt": "the quick ", "length": 2000, **SAMPLED}
    page = pages.open(f"{address}?{urlencode({**settings, 'run': 1})}")
    assert finished(page) == zoo.generate(made.path, **settings)
    page.fill("[name=temperature]", "0")
    page.click("#run")
    assert finished(page) == zoo.generate(made.path, "the quick ", length=2000)
    pages.close(page)


@pytest.fixture(scope="module")
def lstm(trained: Callable[..., zoo.Run], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """All graphs of an LSTM."""
    run = trained("lstm", hidden=16, epochs=2)
    return zoo.export_all(
        run, ("generate", "step", "sequence"), out=tmp_path_factory.mktemp("lstm")
    )


TOKENIZERS = {
    "bpe": {"tokenizer": "bpe", "vocab": 290, "documents": True},
    "byte": {"tokenizer": "byte"},
    "documents": {"documents": True},
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_subwords_bytes_and_documents(name: str, pages: Site, tmp_path: Path) -> None:
    texts = tmp_path / "talks"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number:02}.txt").write_text("häuser 😀 am see, " * (3 + number % 4), "utf-8")
    settings = {"hidden": 16, "epochs": 2, "batch_size": 4, "steps": 16, "prompt": "häu"}
    run = zoo.train(str(texts), cell="gru", out=tmp_path / "run", **settings, **TOKENIZERS[name])
    (made,) = files = zoo.export_all(run, ("generate",))
    address = pages.package(name, files)
    for wanted in ({"temperature": 1, "seed": 4}, {"temperature": 1.5, "seed": 5, "stop": "😀 am"}):
        given = {"prompt": "häuser ", "length": 400, **wanted}
        python = {**given, "stop": [given["stop"]]} if "stop" in given else given
        assert pages.write(address, **given) == zoo.generate(made.path, **python), given


def test_int8_files(pages: Site, trained: Callable[..., zoo.Run], tmp_path: Path) -> None:
    run = small(trained, "gru", hidden=32, epochs=4)
    (made,) = files = zoo.export_all(run, ("generate",), "int8", 1.0, out=tmp_path)
    given = {"prompt": "the ", "length": 1000, **SAMPLED}
    assert pages.write(pages.package("int8", files), **given) == zoo.generate(made.path, **given)


def test_unknown_characters_and_long_prompts(pages: Site, lstm: list[Any]) -> None:
    address = pages.package("all-graphs", lstm)
    prompt = "the quick brown fox jumps over the Ω lazy dog. " * 12
    page = pages.open(
        f"{address}?{urlencode({'prompt': prompt, 'length': 300, 'temperature': 0, 'run': 1})}"
    )
    text = finished(page)
    assert "Ω" in page.text_content("#status")
    assert any(url.endswith("/sequence.onnx") for url in page.requested)
    pages.close(page)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZooWarning)
        assert text == zoo.generate(lstm[0].path.parent, prompt, length=300)


def test_bad_addresses_are_explained(pages: Site, lstm: list[Any]) -> None:
    address = pages.package("all-graphs", lstm)
    for query, reason in (
        ("temperature=hot&run=1", "temperature must be a number"),
        ("length=-4", "length must be an integer"),
        ("top_p=7&run=1", "top-p must be"),
        ("prompt=&run=1", "prompt is empty"),
        ("seed=1&seed=2&run=1", "seed more than once"),
        ("device=abacus&run=1", 'device must be "wasm" or "webgpu"'),
    ):
        page = pages.open(f"{address}?{query}")
        assert reason in finished(page, "error"), query
        assert page.problems == []
        page.close()


def test_a_text_can_be_stopped(pages: Site, lstm: list[Any]) -> None:
    page = pages.open(pages.package("all-graphs", lstm) + "?prompt=the+&length=10000000&run=1")
    page.wait_for_selector("#speed:not(:empty)")
    page.click("#stop-writing")
    text = finished(page)
    assert text.startswith("the ")
    assert "seed=0" in page.url
    page.fill("[name=length]", "20")
    page.click("#run")
    assert len(finished(page)) == 24
    pages.close(page)


LIBRARY = """
    const { load } = await import("./zoo.js");
    const model = await load("./");
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const text = (bytes) => btoa(String.fromCharCode(...bytes));
    const all = async (pieces) => {
      let found = "";
      for await (const p of pieces) found += p;
      return found;
    };
"""


def test_sessions_move_between_the_browser_and_python(pages: Site, lstm: list[Any]) -> None:
    page = pages.open(pages.package("all-graphs", lstm))
    sampling = {"temperature": 0.9}
    python = zoo.Session(lstm[0].path.parent, seed=5)
    python.feed("the quick")
    parts = [python.sample(45, **sampling) for _ in range(4)]
    first, kept = page.evaluate(
        "async () => {" + LIBRARY + """
            const session = model.session({ seed: 5 });
            const other = model.session({ seed: 6 });
            await Promise.all([session.feed("the quick"), other.feed("dog")]);
            let first = "";
            const pieces = session.sample({ length: 200, temperature: 0.9 });
            const others = all(other.sample({ length: 200, temperature: 0.9 }));
            for await (const piece of pieces) if ((first += piece).length === 45) break;
            await others;
            return [first, text(await session.snapshot())];
        }"""
    )  # fmt: skip
    assert first == parts[0]
    restored = zoo.Session(lstm[0].path)
    restored.restore(b64decode(kept))
    assert restored.sample(45, **sampling) == parts[1]
    second, third = page.evaluate(
        "async (kept) => {" + LIBRARY + """
            const session = model.session();
            session.restore(bytes(kept));
            const second = await all(session.sample({ length: 45, temperature: 0.9 }));
            const fork = model.session();
            fork.restore(await session.snapshot());
            return [second, await all(fork.sample({ length: 45, temperature: 0.9 }))];
        }""",
        b64encode(restored.snapshot()).decode(),
    )  # fmt: skip
    assert [second, third] == parts[2:]
    refused = page.evaluate(
        "async (kept) => {" + LIBRARY + """
            const session = model.session();
            const attempts = [
              () => session.restore(bytes(kept).slice(0, 40)),
              () => session.restore(new Uint8Array(0)),
              () => session.sample({ length: 5 }),
              () => session.feed(""),
              () => session.sample({ length: 5, temperature: -1 }),
            ];
            const found = [];
            for (const attempt of attempts) {
              try { await attempt(); found.push("accepted"); } catch (e) { found.push(e.message); }
            }
            return found;
        }""",
        b64encode(zoo.Session(lstm[0].path).snapshot()).decode(),
    )  # fmt: skip
    assert "damaged" in refused[0]
    assert "damaged" in refused[1]
    assert "nothing has been read" in refused[2]
    assert "prompt is empty" in refused[3]
    assert "temperature" in refused[4]
    pages.close(page)


def test_on_webgpu_the_step_graph_writes_the_same(pages: Site, lstm: list[Any]) -> None:
    page = pages.open(
        pages.package("all-graphs", lstm)
        + "?prompt=the+&length=20&temperature=0.8&device=webgpu&run=1"
    )
    text = finished(page)
    if "WebAssembly" in page.text_content("#facts"):
        pytest.skip("this Chromium has no adapter for WebGPU")
    assert text == zoo.generate(lstm[0].path.parent, "the ", length=20, temperature=0.8)
    assert any(url.endswith("/step.onnx") for url in page.requested)
    pages.close(page)


@pytest.mark.parametrize(("device", "length"), [("wasm", 500), ("webgpu", 20)])
def test_without_npm_the_page_runs_with_the_files_of_the_cdn(
    device: str, length: int, pages: Site, lstm: list[Any]
) -> None:
    """Of the tested version only, and no other files."""
    given = {"prompt": "the quick brown fox jumps ", "length": length, **SAMPLED}
    address = pages.package("cdn", lstm, npm=False)
    page = pages.open(f"{address}?{urlencode({**given, 'device': device, 'run': 1})}")
    text = finished(page)
    if device == "webgpu" and "WebAssembly" in page.text_content("#facts"):
        pytest.skip("this Chromium has no adapter for WebGPU")
    assert text == zoo.generate(lstm[0].path.parent, **given)
    pages.close(page, onnxruntime_web.FILES[device])


def test_without_npm_scripts_of_the_page_can_use_the_module(pages: Site, lstm: list[Any]) -> None:
    """To them, unlike to the worker, the page's policy applies, which names hosts."""
    page = pages.open(pages.package("cdn", lstm, npm=False))
    text = page.evaluate(
        "async () => {" + LIBRARY + """
            const session = model.session();
            await session.feed("the quick ");
            return all(session.sample({ length: 100, temperature: 0 }));
        }"""
    )  # fmt: skip
    assert "the quick " + text == zoo.generate(lstm[0].path.parent, "the quick ", length=100)
    pages.close(page, onnxruntime_web.FILES["wasm"])


@pytest.fixture(scope="module")
def large(trained: Callable[..., zoo.Run], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The generate graph of a GRU that gets a second thread."""
    run = trained("gru", hidden=400, epochs=1)
    (made,) = files = zoo.export_all(run, ("generate",), out=tmp_path_factory.mktemp("large"))
    assert 2**21 < made.path.stat().st_size < 2**22
    return files


@pytest.mark.xdist_group("isolated pages")  # which need one large model
@pytest.mark.parametrize(
    ("model", "npm"), [("lstm", True), ("lstm", False), ("large", True), ("large", False)]
)
def test_an_isolated_page_writes_the_same(
    model: str, npm: bool, pages: Site, request: pytest.FixtureRequest
) -> None:
    """It alone may share memory between threads, which only a large model has."""
    files = request.getfixturevalue(model)
    given = {"prompt": "the quick brown fox jumps ", "length": 60, **SAMPLED}
    address = pages.package(f"isolated-{model}-{npm}", files, npm)
    address = address.replace(pages.origin, pages.isolating)
    page = pages.open(f"{address}?{urlencode({**given, 'run': 1})}")
    assert finished(page) == zoo.generate(files[0].path.parent, **given)
    assert page.evaluate("crossOriginIsolated")
    module, binary = onnxruntime_web.FILES["wasm"]
    (worker,) = (each for each in page.workers if each.url.endswith("/worker.js"))
    isolated, threads = worker.evaluate(
        "async (url) => [crossOriginIsolated, (await import(url)).env.wasm.numThreads]",
        (f"{address}onnxruntime/" if npm else CDN) + module,
    )
    assert isolated
    assert threads == (2 if model == "large" and os.cpu_count() != 1 else 1)
    assert len(page.workers) == threads
    pages.close(page, () if npm else [module, binary, *[THREADS][: threads - 1]])


def test_picture_of_the_page(pages: Site, time_machine: Path, tmp_path: Path) -> None:
    target = os.environ.get("ZOO_WEB_PICTURE")
    if target is None:
        pytest.skip("ZOO_WEB_PICTURE names no file to write")
    run = zoo.train("time-machine", cell="lstm", minutes=1.5, out=tmp_path / "run")
    address = pages.package("picture", zoo.export_all(run, ("generate",)))
    page = pages.open(f"{address}?prompt=time+traveller&length=240&temperature=0.7&seed=7&run=1")
    finished(page)
    page.set_viewport_size({"width": 1180, "height": page.evaluate("document.body.scrollHeight")})
    page.screenshot(path=tmp_path / "page.png")
    path = Path(__file__).parent.parent / target
    Image.open(tmp_path / "page.png").convert("RGB").quantize(128).save(path, optimize=True)
    assert path.stat().st_size < 200_000
    pages.close(page)

"""The page of `zoo serve`, in Chromium: what it shows is what the model writes, and it asks nobody
else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

import zoo

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives it")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
]

KEY = "a key"
PICTURE = Path(__file__).parent.parent / "docs" / "_static" / "server-page.png"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Open = Callable[..., Any]


def serving(source: Path, name: str = "model", **environment: str) -> Iterator[str]:
    """The address of a server of this model, in a process of its own."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "zoo",
            "serve",
            f"{name}={source}",
            "--port",
            "0",
            "--max-length",
            "300000",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        found = None
        while found is None:
            line = process.stdout.readline()
            assert line, "the server ended before it was ready"
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def file(trained: Callable[..., zoo.Run]) -> Path:
    return zoo.export(trained("gru"), "generate").path


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[str]:
    yield from serving(file)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a page with these settings in its address. After the test: no request has left the
    origin, and no script has failed."""
    contexts, problems = [], []

    def open_page(server: str, width: int = 1180, scheme: str = "light", **address: object) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 760}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(str(error)))

        def look(request: Any) -> None:
            if not request.url.startswith((f"{server}/", "data:")):
                problems.append(request.url)

        context.on("request", look)
        page.goto(f"{server}/?{urlencode(address)}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def ended(page: Any) -> str:
    """The text, once it is written."""
    page.wait_for_selector("#text[data-state=done], #text[data-state=error]")
    assert page.get_attribute("#text", "data-state") == "done", page.inner_text("#error")
    return str(page.text_content("#text"))


def wait_for_text(page: Any, length: int) -> None:
    """Returns once the text has so many characters."""
    last = time.monotonic() + 60
    while len(page.text_content("#text")) < length:
        assert time.monotonic() < last, page.text_content("#text")
        page.wait_for_timeout(10)


def colours(page: Any) -> int:
    """How many colours the heat map has."""
    page.wait_for_timeout(200)  # it is drawn with the next frame
    return int(
        page.evaluate("""() => {
            const {width, height} = document.querySelector("canvas");
            const pen = document.querySelector("canvas").getContext("2d");
            return new Set(new Uint32Array(pen.getImageData(0, 0, width, height).data.buffer)).size;
        }""")
    )


@pytest.mark.parametrize("temperature", [0, 0.9])
def test_the_text_is_that_of_generate(
    server: str, file: Path, opened: Open, temperature: float
) -> None:
    page = opened(server, prompt="the lazy ", temperature=temperature, seed=7, length=120, run=1)
    wanted = zoo.generate(file, "the lazy ", 120, temperature=temperature, seed=7)
    assert ended(page) == wanted
    assert "120 tokens" in page.inner_text("#status")
    assert colours(page) > 50
    assert "24 units of the state × 120 tokens" in page.inner_text("#caption")


def test_without_an_address_the_prompt_is_the_models(server: str, file: Path, opened: Open) -> None:
    page = opened(server)
    page.wait_for_selector("#write:enabled")
    assert page.input_value("#prompt") == "the "
    vocabulary = zoo.open_source(file).tokenizer.vocab_size
    assert f"vocabulary {vocabulary} · ONNX Runtime on CPU" == page.inner_text("#facts")
    page.fill("#prompt", "the dog")
    page.press("#prompt", "Control+Enter")
    assert ended(page).startswith("the dog")


def test_going_on_continues_the_text(server: str, file: Path, opened: Open) -> None:
    page = opened(server, prompt="fox", temperature=0.9, seed=3, length=50, run=1)
    ended(page)
    page.click("#more")
    wait_for_text(page, 103)
    assert ended(page) == zoo.generate(file, "fox", 100, temperature=0.9, seed=3)


def test_stop_stops_and_the_text_goes_on_where_it_stopped(
    server: str, file: Path, opened: Open
) -> None:
    page = opened(server, prompt="fox", temperature=0.9, seed=5, length=100_000, run=1)
    wait_for_text(page, 40)
    page.click("#halt")
    stopped = ended(page)
    assert 40 <= len(stopped) < 300_000
    assert "stopped" in page.inner_text("#status")
    page.wait_for_timeout(300)
    assert page.text_content("#text") == stopped
    page.fill("#length", "50")
    page.click("#more")
    wait_for_text(page, len(stopped) + 50)
    whole = zoo.generate(file, "fox", len(stopped) - 3 + 50, temperature=0.9, seed=5)
    assert ended(page) == whole


def test_a_string_to_stop_at(server: str, file: Path, opened: Open) -> None:
    page = opened(server, prompt="the ", temperature=0, length=200, stop="dog", run=1)
    assert ended(page) == zoo.generate(file, "the ", 200, stop=["dog"])


@pytest.mark.parametrize(
    ("wrong", "told", "field"),
    [
        ({"temperature": -1}, "temperature", "temperature"),
        ({"top_p": "half"}, "half is not a number", "top_p"),
        ({"length": 300_001}, "300,000 are allowed", "length"),
        ({"seed": -1}, "seed", "seed"),
    ],
)
def test_a_wrong_value_shows_an_error(
    server: str, opened: Open, wrong: dict[str, object], told: str, field: str
) -> None:
    page = opened(server, **{"prompt": "the ", "run": 1, **wrong})
    page.wait_for_selector("#text[data-state=error]")
    assert told in page.inner_text("#error")
    assert page.get_attribute(f"#{field}", "aria-invalid") == "true"
    page.fill(f"#{field}", "1")
    page.click("#write")
    assert ended(page).startswith("the ")
    assert not page.is_visible("#error")


def test_a_server_with_a_key_asks_for_it(file: Path, opened: Open) -> None:
    for server in serving(file, ZOO_API_KEY=KEY):
        page = opened(server, prompt="the ", length=20, run=1)
        page.wait_for_selector("#text[data-state=error]")
        assert "API key" in page.inner_text("#error")
        page.fill("#key", "another")
        page.press("#key", "Enter")
        page.wait_for_selector("#key[aria-invalid=true]")
        page.fill("#key", KEY)
        page.press("#key", "Enter")
        page.wait_for_selector("#text[data-state=done]")
        assert not page.is_visible("#key")
        page.reload()
        assert len(ended(page)) == 24


def test_streams_are_deleted(server: str, opened: Open) -> None:
    """Each text of a page has a stream, which the next text or the end of the page deletes."""

    def kept() -> float:
        with urlopen(f"{server}/metrics") as answer:
            (found,) = re.findall(r"^zoo_streams ([\d.]+)", answer.read().decode(), re.MULTILINE)
        return float(found)

    before = kept()
    page = opened(server, prompt="the ", length=30, run=1)
    ended(page)
    for _ in range(2):
        page.click("#write")
        ended(page)
    page.wait_for_timeout(300)
    assert kept() == before + 1
    page.goto("about:blank")
    page.wait_for_timeout(300)
    assert kept() == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_needs_no_scrolling_sideways(
    server: str, opened: Open, scheme: str
) -> None:
    page = opened(server, 360, scheme, prompt="the ", length=150, run=1)
    ended(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert colours(page) > 50


def test_every_field_has_a_name(server: str, opened: Open) -> None:
    page = opened(server)
    page.wait_for_selector("#write:enabled")
    assert page.get_by_role("combobox", name="Model", exact=True).count() == 1
    for name in ("Prompt", "Temperature", "Top-k", "Top-p", "Seed", "Length", "Stop at"):
        assert page.get_by_role("textbox", name=name, exact=True).count() == 1, name
    for name in ("Write", "Stop", "Go on"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1, name


@pytest.mark.skipif(os.environ.get("ZOO_PICTURES") != "1", reason="only where ZOO_PICTURES=1")
def test_the_picture_of_the_readme(time_machine: Path, tmp_path: Path, opened: Open) -> None:
    """Not a test of what the picture shows: it is made by what the tests above test."""
    run = zoo.train(
        str(time_machine),
        cell="gru",
        hidden=128,
        tokenizer="letters",
        dropout=0,
        recurrent_dropout=0,
        batch_size=32,
        minutes=3,
        prompt="the time traveller",
        out=tmp_path / "run",
    )
    file = zoo.export(run, "generate").path
    for server in serving(file, name="time-machine"):
        page = opened(server, temperature=0.5, seed=2, length=280, run=1)
        ended(page)
        page.wait_for_timeout(200)
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE, clip={"x": 0, "y": 0, "width": 1180, "height": 650})
    assert PICTURE.stat().st_size < 150_000

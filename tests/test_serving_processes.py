"""`zoo serve` as a process: how it stops, what outlives it, and several processes as one server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import zoo

from .servers import server_process, until

pytestmark = pytest.mark.slow
WARM = {"temperature": 0.7}


def post(url: str, **asked: Any) -> dict[str, Any]:
    """On a connection of its own."""
    answer = httpx.post(url, json=asked, timeout=60)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def session(source: Path, text: str, seed: int) -> zoo.Session:
    found = zoo.Session(source, seed=seed)
    found.feed(text)
    return found


def sample(path: str, length: int = 30) -> dict[str, Any]:
    return post(f"{path}/sample", length=length, **WARM)


def leftovers(folder: str) -> list[str]:
    """Files that are neither streams nor the lock of the folder."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return [path.name for path in files if path.suffix != ".stream" and path.name != ".lock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_finishes_its_work(fox_file: Path, number: int) -> None:
    wanted = zoo.generate(fox_file, "the ", 20_000, seed=1, **WARM)
    alike = session(fox_file, "dog", 2)
    with server_process(f"fox={fox_file}", "--state", "kept", "--max-length", "100000") as server:
        path = f"/v1/streams/{post(f'{server.url}/v1/streams', model='fox', seed=2)['id']}"
        post(f"{server.url}{path}/feed", text="dog")
        asked = {"model": "fox", "prompt": "the ", "max_tokens": 20_000, "seed": 1, **WARM}
        found: list[str] = []
        began = threading.Semaphore(0)

        def stream(url: str, **asked: Any) -> str:
            text = ""
            with httpx.stream("POST", server.url + url, json=asked, timeout=60) as answer:
                began.release()
                for line in filter(None, answer.iter_lines()):
                    if line != "data: [DONE]":
                        piece = json.loads(line.removeprefix("data: "))
                        text += piece["choices"][0]["text"] if "choices" in piece else piece["text"]
            return text

        with ThreadPoolExecutor() as pool:
            one = pool.submit(stream, "/v1/completions", stream=True, **asked)
            two = pool.submit(stream, f"{path}/sample", length=20_000, stream=True, **WARM)
            assert began.acquire(timeout=60)
            assert began.acquire(timeout=60)
            server.process.send_signal(number)
            found = [one.result(60), two.result(60)]
        assert server.stop() == 0
        assert "Traceback" not in server.errors
    assert found == [wanted.removeprefix("the "), alike.sample(20_000, **WARM)]
    with server_process(f"fox={fox_file}", "--state", "kept") as server:
        text = post(f"{server.url}{path}/sample", length=50, **WARM)["text"]
    assert text == alike.sample(50, **WARM)


def test_work_that_takes_too_long_is_cut_off(fox_file: Path) -> None:
    """The stream stands where it was cut off."""
    with server_process(
        f"fox={fox_file}", "--state", "kept", "--max-length", "100000000", "--drain", "1"
    ) as server:
        path = f"/v1/streams/{post(f'{server.url}/v1/streams', model='fox', seed=2)['id']}"
        post(f"{server.url}{path}/feed", text="dog")
        read = ""
        asked = {"length": 10**8, "stream": True, **WARM}
        with (
            suppress(httpx.RemoteProtocolError),  # it ends in the middle
            httpx.stream("POST", f"{server.url}{path}/sample", json=asked, timeout=60) as answer,
        ):
            for line in filter(None, answer.iter_lines()):
                if not read:
                    server.process.send_signal(signal.SIGTERM)
                read += json.loads(line.removeprefix("data: "))["text"]
        assert server.stop() == 0
    alike = session(fox_file, "dog", 2)
    assert alike.sample(len(read), **WARM) == read
    with server_process(f"fox={fox_file}", "--state", "kept") as server:
        after = post(f"{server.url}{path}/sample", length=200, **WARM)["text"]
    further = ""  # what was told may not have been sent
    while after not in further and len(further) < 50_000:
        further += alike.sample(500, **WARM)
    assert after in further


def test_a_killed_server_is_started_again(fox_file: Path) -> None:
    """What was saved goes on with the right text; nothing half-written stays in the folder."""
    texts: dict[str, str] = {}
    with server_process(f"fox={fox_file}", "--state", "kept") as server:
        for seed in range(20):
            path = f"/v1/streams/{post(f'{server.url}/v1/streams', model='fox', seed=seed)['id']}"
            post(f"{server.url}{path}/feed", text="dog")
            texts[path] = session(fox_file, "dog", seed).sample(5000, **WARM)
        with ThreadPoolExecutor(8) as pool:

            def load(path: str) -> None:
                try:
                    for _ in range(90):
                        post(f"{server.url}{path}/sample", length=50, **WARM)
                except httpx.TransportError:
                    return

            loads = [pool.submit(load, path) for path in texts]
            until(lambda: len([*Path("kept").glob("*/*.stream")]) >= 5)
            time.sleep(0.5)
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
            for each in loads:
                each.result(60)
    saved = {f"/v1/streams/{path.stem}" for path in Path("kept").glob("*/*.stream")}
    (folder,) = [path for path in Path("kept").iterdir() if path.is_dir()]
    (folder / ".half.stream.x").write_bytes(b"ha")  # as a writer leaves it that is killed
    with server_process(f"fox={fox_file}", "--state", "kept") as server:
        assert leftovers("kept") == []
        for path, whole in texts.items():
            if path in saved:
                asked = {"length": 200, **WARM}
                answer = httpx.post(f"{server.url}{path}/sample", json=asked, timeout=60)
                if answer.status_code == 409:  # it was saved before it was fed, and not again
                    post(f"{server.url}{path}/feed", text="dog")
                    after = sample(f"{server.url}{path}", 200)["text"]
                    assert whole.startswith(after)
                    continue
                after = answer.json()["text"]
                assert whole.find(after) % 50 == 0, "it stands where no answer ended"
            else:
                assert httpx.get(f"{server.url}{path}").status_code == 404
        assert server.stop() == 0


@pytest.mark.parametrize("state", [(), ("--state", "kept")])
def test_several_processes_are_one_server(fox_file: Path, state: tuple[str, ...]) -> None:
    with server_process(f"fox={fox_file}", "--workers", "2", *state) as server:
        made = [post(f"{server.url}/v1/streams", model="fox", seed=seed) for seed in range(6)]
        alike = [session(fox_file, "dog", seed) for seed in range(6)]
        paths = [f"{server.url}/v1/streams/{each['id']}" for each in made]
        with ThreadPoolExecutor(12) as pool:
            [*pool.map(lambda path: post(f"{path}/feed", text="dog"), paths)]
            for _ in range(6):
                # two at a time of each stream, on whatever process
                twice = [*paths, *paths]
                answers = [*pool.map(sample, twice)]
                for index, one in enumerate(alike):
                    found = {answers[index]["text"], answers[6 + index]["text"]}
                    assert found == {one.sample(30, **WARM), one.sample(30, **WARM)}
            asked = {"model": "fox", "prompt": "the ", "max_tokens": 60, **WARM}
            texts = pool.map(
                lambda seed: post(f"{server.url}/v1/completions", seed=seed, **asked), range(8)
            )
            for seed, answer in enumerate(texts):
                wanted = zoo.generate(fox_file, "the ", 60, seed=seed, **WARM)
                assert "the " + answer["choices"][0]["text"] == wanted
            # one who leaves in the middle must not leave the stream as it was in one process
            for _ in range(4):
                with httpx.stream(
                    "POST", f"{paths[0]}/sample", json={"length": 10_000, "stream": True, **WARM}
                ) as answer:
                    next(answer.iter_lines())
            after = post(f"{paths[0]}/sample", length=100, **WARM)["text"]
            assert after in alike[0].sample(40_200, **WARM)
            httpx.delete(paths[1]).raise_for_status()
            statuses = {httpx.get(paths[1]).status_code for _ in range(10)}
            assert statuses == {404}
        assert server.stop() == 0
        assert "Traceback" not in server.errors
    if state:
        with server_process(f"fox={fox_file}", *state) as server:
            text = post(f"{server.url}/v1/streams/{made[2]['id']}/sample", length=9, **WARM)["text"]
            assert text == alike[2].sample(9, **WARM)
            assert leftovers("kept") == []


def test_processes_that_cannot_start_are_not_started_again_and_again(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "zoo", "serve", "nothing", "--workers", "2", "--port", "0"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 1
    assert found.stderr == (
        "zoo: error: nothing does not exist; give a run folder or an exported file.\n"
    )

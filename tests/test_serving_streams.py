"""Streams of `zoo serve`: each is a `zoo.Session` over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays, save as save_arrays

import zoo

from .servers import Served, file, run, server, serving

__all__ = ["file", "run", "server"]  # fixtures

PROMPT = "the quick "
WARM = {"temperature": 0.7}


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


class Stream:
    """A stream of a server, as a client sees it."""

    def __init__(self, http: httpx.Client, model: str = "fox", seed: int | None = None) -> None:
        self._http = http
        answer = http.post("/v1/streams", json={"model": model, "seed": seed})
        assert answer.status_code == 201, answer.text
        self.id: str = answer.json()["id"]

    @property
    def path(self) -> str:
        return f"/v1/streams/{self.id}"

    def feed(self, text: str) -> None:
        answer = self._http.post(f"{self.path}/feed", json={"text": text})
        assert answer.status_code == 200, answer.text

    def sample(self, length: int, **settings: Any) -> str:
        asked = {"length": length, **settings}
        answer = self._http.post(f"{self.path}/sample", json=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()["text"]

    def snapshot(self) -> bytes:
        return self._http.get(f"{self.path}/snapshot").raise_for_status().content

    def restore(self, content: bytes) -> httpx.Response:
        return self._http.put(f"{self.path}/snapshot", content=content)


def session(source: Path, text: str, seed: int) -> zoo.Session:
    found = zoo.Session(source, seed=seed)
    found.feed(text)
    return found


@pytest.mark.parametrize("model", ["fox", "torch"])
def test_a_stream_is_a_session(http: httpx.Client, file: Path, model: str) -> None:
    stream, alike = Stream(http, model, seed=3), session(file, PROMPT, 3)
    stream.feed(PROMPT)
    assert stream.sample(50, **WARM) == alike.sample(50, **WARM)
    stream.feed(" and ")
    alike.feed(" and ")
    assert stream.sample(30) == alike.sample(30)  # greedy by default, as a session
    text = "".join(
        json.loads(event)["text"] for event in events(http, stream.path, length=50, **WARM)
    )
    assert text == alike.sample(50, **WARM)
    assert stream.sample(40, top_k=3, **WARM) == alike.sample(40, top_k=3, **WARM)
    wanted = alike.sample(200, stop=["o", "and"], **WARM)
    assert stream.sample(200, stop=["o", "and"], **WARM) == wanted
    assert stream.sample(20, **WARM) == alike.sample(20, **WARM)


def events(http: httpx.Client, path: str, **asked: Any) -> list[str]:
    with http.stream("POST", f"{path}/sample", json={"stream": True, **asked}) as answer:
        *found, last = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert last == "[DONE]"
    return found


def test_snapshots_go_to_sessions_and_back(http: httpx.Client, run: zoo.Run, file: Path) -> None:
    stream = Stream(http, seed=4)
    stream.feed(PROMPT)
    stream.sample(20, **WARM)
    kept = stream.snapshot()
    wanted = stream.sample(60, **WARM)
    for source in (file, file / "step.onnx", run.path):
        found = zoo.Session(source)
        found.restore(kept)
        assert found.sample(60, **WARM) == wanted
    other = Stream(http, "torch")
    other.restore(session(file, "a dog", 8).snapshot())
    assert other.sample(60, **WARM) == session(run.path, "a dog", 8).sample(60, **WARM)


def test_a_damaged_snapshot_changes_nothing(
    http: httpx.Client, file: Path, trained: Callable[..., zoo.Run]
) -> None:
    stream = Stream(http, seed=4)
    stream.feed(PROMPT)
    kept = stream.snapshot()
    wider = session(trained(tokenizer="bpe", vocab=290, epochs=1).path, "a", 0).snapshot()
    for content in (
        b"",
        kept[:-1],
        kept + b"0",
        b"\0" * 100,
        wider,
        kept.replace(b"PCG64", b"MT199"),
    ):
        assert stream.restore(content).status_code == 422
    assert stream.snapshot() == kept


def test_a_fork_goes_its_own_way(http: httpx.Client, file: Path) -> None:
    stream, alike = Stream(http, seed=3), session(file, PROMPT, 3)
    stream.feed(PROMPT)
    twin = Stream(http)
    twin.id = http.post(f"{stream.path}/fork").json()["id"]
    twin.feed("dog")
    assert stream.sample(50, **WARM) == alike.sample(50, **WARM)
    other = session(file, PROMPT, 3)
    other.feed("dog")
    assert twin.sample(50, **WARM) == other.sample(50, **WARM)


def test_a_deleted_stream_is_gone(http: httpx.Client) -> None:
    stream = Stream(http)
    assert http.get(stream.path).json() == {"id": stream.id, "object": "stream", "model": "fox"}
    assert http.delete(stream.path).status_code == 204
    answers = [
        http.delete(stream.path),
        http.get(stream.path),
        http.get(f"{stream.path}/snapshot"),
        http.put(f"{stream.path}/snapshot", content=b""),
        http.post(f"{stream.path}/feed", json={"text": "a"}),
        http.post(f"{stream.path}/sample", json={"length": 3}),
        http.post(f"{stream.path}/sample", json={"length": 3, "stream": True}),
        http.post(f"{stream.path}/fork"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.json()["error"]["code"] for answer in answers} == {"stream_not_found"}


def test_a_stream_needs_text(http: httpx.Client) -> None:
    stream = Stream(http)
    for path, asked, status in (
        ("sample", {"length": 3}, 409),
        ("sample", {"length": 0}, 400),
        ("sample", {"length": 10_001}, 400),
        ("feed", {"text": ""}, 400),
    ):
        answer = http.post(f"{stream.path}/{path}", json=asked)
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            status, "invalid_request_error",
        )  # fmt: skip


def test_samples_at_the_same_time_are_one_text(http: httpx.Client, file: Path) -> None:
    stream = Stream(http, seed=3)
    stream.feed(PROMPT)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(stream.sample(40, **WARM))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = session(file, PROMPT, 3).sample(160, **WARM)
    assert sorted(found) == sorted(whole[at : at + 40] for at in range(0, 160, 40))


def test_a_client_that_leaves_loses_nothing(http: httpx.Client, file: Path) -> None:
    """The stream stands after the last token that was told: what comes next continues it."""
    stream = Stream(http, seed=3)
    stream.feed(PROMPT)
    whole = session(file, PROMPT, 3).sample(10_000, **WARM)
    asked = {"length": 9000, "stream": True, **WARM}
    read = ""
    with http.stream("POST", f"{stream.path}/sample", json=asked) as answer:
        for line in answer.iter_lines():
            if line:
                read += json.loads(line.removeprefix("data: "))["text"]
            if len(read) > 50:
                break
    after = stream.sample(100, **WARM)
    assert whole.startswith(read)
    at = whole.find(after)
    assert len(read) <= at < 9000, "it was written to its end"


def test_watching_tells_the_state_after_each_token(
    http: httpx.Client, run: zoo.Run, file: Path
) -> None:
    stream = Stream(http, seed=3)
    stream.feed(PROMPT)
    answer = http.post(f"{stream.path}/sample", json={"length": 5, "watch": True, **WARM}).json()
    ids = run.tokenizer.encode(PROMPT + answer["text"])
    model, state = run.model.cpu().eval(), run.model.init_state(1)
    states = []
    with torch.no_grad():
        for token in torch.from_numpy(ids[:-1]):
            _, state = model.step(token[None], state)
            states.append(next(iter(zoo.nn.state.named_leaves(state)))[1].flatten().numpy())
    np.testing.assert_allclose(answer["state"], states[-5:], atol=1e-3)


def test_what_a_snapshot_does_not_need_is_forgotten(http: httpx.Client) -> None:
    stream = Stream(http, seed=4)
    stream.feed(PROMPT)
    kept = stream.snapshot()
    arrays = load_arrays(kept)
    random = json.loads(arrays["random"].tobytes()) | {"more": "x" * 100_000}
    arrays["random"] = np.frombuffer(json.dumps(random).encode(), np.uint8)
    assert stream.restore(save_arrays(arrays)).status_code == 200
    assert stream.snapshot() == kept


def test_texts_end_where_documents_do(tmp_path: Path) -> None:
    """A stream that has ended begins another text when it is fed."""
    lines = [json.dumps({"text": "ab" * (1 + number % 5)}) for number in range(200)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    run = zoo.train(
        str(tmp_path / "texts.jsonl"), cell="rnn", documents=True, out=tmp_path / "run",
        hidden=6, epochs=1, batch_size=2, steps=8, prompt="a",
    )  # fmt: skip
    hot = {"temperature": 1.0, "seed": 2}
    with (
        serving(f"run={run.path}") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        asked = {"model": "run", "prompt": "ab", "max_tokens": 500, **hot}
        (choice,) = http.post("/v1/completions", json=asked).json()["choices"]
        assert choice["finish_reason"] == "stop"
        assert "ab" + choice["text"] == zoo.generate(run.path, "ab", 500, **hot)
        stream, alike = Stream(http, "run", seed=2), session(run.path, "ab", 2)
        stream.feed("ab")
        assert stream.sample(500, temperature=1.0) == alike.sample(500, temperature=1.0)
        answer = http.post(f"{stream.path}/sample", json={"length": 3})
        assert answer.status_code == 409
        assert "feed the stream some text" in answer.json()["error"]["message"]
        for text in ("b", "ba"):
            stream.feed(text)
            alike.feed(text)
        assert stream.sample(9, temperature=1.0) == alike.sample(9, temperature=1.0)

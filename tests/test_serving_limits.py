"""What a server refuses, what it forgets, and what it survives."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import zoo
from zoo.errors import UsageError
from zoo.serving.jobs import Job
from zoo.serving.server import listen, serve
from zoo.serving.settings import ServeConfig

from .servers import Served, exchange, serving, until

PROMPT = "the quick "


@pytest.fixture(scope="module")
def server(fox_file: Path) -> Iterator[Served]:
    """One place to write in, and one to wait in."""
    small = {"rows": 1, "queue": 1, "max_body": 1000, "max_prompt": 50, "max_length": 10**8}
    with serving(f"fox={fox_file}", body_seconds=0.3, idle=0.1, max_streams=3, **small) as served:
        yield served


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


ENDLESS = {"model": "fox", "prompt": "the ", "max_tokens": 10**8, "stream": True}
SHORT = {"model": "fox", "prompt": "the ", "max_tokens": 5}


@contextmanager
def endless(server: Served) -> Iterator[None]:
    """A client that is being written for as long as it stays."""
    with (
        httpx.Client(base_url=server.url, timeout=60) as client,
        client.stream("POST", "/v1/completions", json=ENDLESS) as answer,
    ):
        assert answer.status_code == 200
        yield


def test_a_full_queue_is_told_until_one_leaves(server: Served, http: httpx.Client) -> None:
    scheduler = server.models["fox"].scheduler
    found: list[httpx.Response] = []
    with endless(server):
        until(lambda: scheduler.running == 1)
        with endless(server), openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="any", max_retries=0
        ) as client:  # fmt: skip
            answer = http.post("/v1/completions", json=SHORT)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert answer.json()["error"]["type"] == "rate_limit_error"
            with pytest.raises(openai.RateLimitError, match="try again"):
                client.completions.create(**SHORT)
        until(lambda: scheduler.waiting == 0)  # the second left, and with it its place
        assert scheduler.running == 1
        thread = threading.Thread(
            target=lambda: found.append(http.post("/v1/completions", json=SHORT))
        )
        thread.start()
        until(lambda: scheduler.waiting == 1)
    thread.join(60)
    assert found[0].status_code == 200
    until(lambda: scheduler.running == 0)


def test_requests_that_are_too_large(http: httpx.Client) -> None:
    for size in (1001, 30_000_000):
        answer = http.post("/v1/completions", content=b" " * size)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    answer = http.post("/v1/completions", content=iter([b" " * 600] * 3))  # no length declared
    assert answer.status_code == 413
    for wrong, message in (
        ({"prompt": "a" * 51}, "the prompt has 51 tokens, and 50 are allowed"),
        ({"max_tokens": 10**8 + 1}, "100,000,000 are allowed"),
        ({"n": 3}, "n asks for 3 texts, and 2 are allowed"),
        ({"prompt": ["a", "b"], "n": 2}, "prompt asks for 4 texts, and 2 are allowed"),
    ):
        answer = http.post("/v1/completions", json={**SHORT, **wrong})
        assert answer.status_code == 400
        assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/score", "/v1/streams"])
def test_a_slow_body_is_not_waited_for(server: Served, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{"
    answer = exchange(server.port, head.encode())
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_a_slow_head_is_not_waited_for(
    server: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first of a connection nor the next; a request in work is not cut off by it."""
    monkeypatch.setattr("zoo.serving.protocol.HEAD_SECONDS", 0.2)
    head = b"GET /health HTTP/1.1\r\nHost: a\r\n"
    assert exchange(server.port, head) == b""
    answer = exchange(server.port, head + b"\r\n" + head)
    assert (answer[:13], answer.count(b"HTTP/1.1")) == (b"HTTP/1.1 200 ", 1)
    asked = {"model": "fox", "prompt": "the ", "max_tokens": 12_000}
    text = http.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    assert len(text) == 12_000


def test_no_http_after_a_request(server: Served) -> None:
    """It is not answered in the middle of an answer, or twice."""
    head = b"POST /no HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"zz\r\n")
        assert connection.recv(65_536) == b""
    assert exchange(server.port, head + b"zz\r\n").startswith(b"HTTP/1.1 400 ")


def test_streams_go_to_the_disk_and_come_back(server: Served, http: httpx.Client) -> None:
    alike = zoo.Session(server.models["fox"].source, seed=2)
    path = f"/v1/streams/{http.post('/v1/streams', json={'model': 'fox', 'seed': 2}).json()['id']}"
    for text in ("the ", "dog "):
        alike.feed(text)
        http.post(f"{path}/feed", json={"text": text}).raise_for_status()
        until(lambda: "zoo_streams_in_memory 0.0" in http.get("/metrics").text)
        asked = {"length": 40, "temperature": 0.7}
        found = http.post(f"{path}/sample", json=asked).json()["text"]
        assert found == alike.sample(40, temperature=0.7)
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


def test_streams_have_a_limit(http: httpx.Client) -> None:
    made = [http.post("/v1/streams", json={"model": "fox"}) for _ in range(4)]
    assert [answer.status_code for answer in made] == [201, 201, 201, 429]
    assert "there are 3 streams; delete some" in made[3].json()["error"]["message"]
    first = f"/v1/streams/{made[0].json()['id']}"
    assert http.post(f"{first}/fork").status_code == 429
    for answer in made[:3]:
        assert http.delete(f"/v1/streams/{answer.json()['id']}").status_code == 204


def test_streams_need_no_memory(fox_file: Path, tmp_path: Path) -> None:
    with (
        serving(f"fox={fox_file}", max_memory=0, state=str(tmp_path / "state")) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        path = f"/v1/streams/{http.post('/v1/streams', json={'model': 'fox'}).json()['id']}"
        http.post(f"{path}/feed", json={"text": "the "}).raise_for_status()
        until(lambda: "zoo_streams_in_memory 0.0" in http.get("/metrics").text)
        wanted = zoo.generate(fox_file, "the ", 30).removeprefix("the ")
        assert http.post(f"{path}/sample", json={"length": 30}).json()["text"] == wanted


def test_a_key_is_asked_for(fox_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_API_KEY", "sésame")
    with serving(f"fox={fox_file}") as server:
        for path, status in (("/health", 200), ("/ready", 200), ("/", 200), ("/metrics", 401)):
            assert httpx.get(server.url + path).status_code == status
        given: dict[str, Any] = {"base_url": f"{server.url}/v1", "max_retries": 0}
        with (
            openai.OpenAI(api_key="open", **given) as client,
            pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"),
        ):
            client.models.list()
        header = {"Authorization": "Bearer sésame".encode()}
        assert httpx.get(f"{server.url}/v1/models", headers=header).status_code == 200


def test_metrics_count(server: Served, http: httpx.Client) -> None:
    before = server.models["fox"].scheduler.tokens_written
    http.post("/v1/completions", json=SHORT)
    told = http.get("/metrics").text
    assert f'zoo_tokens_written_total{{model="fox"}} {before + 5:.1f}' in told
    assert 'zoo_requests_total{path="/v1/completions",status="200"}' in told


def test_paths_and_hosts_that_are_none(server: Served, http: httpx.Client) -> None:
    for path in ("/v1", "/v1/models/", "/health/", "/v1/streams/a/b", "/%00", "/..%2f..%2fetc"):
        answer = http.get(path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            404,
            "invalid_request_error",
        )
    answer = http.put("/v1/completions")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    told = exchange(server.port, b"GET /no HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 404 ")
    body = b'{"model": "fox", "prompt": "a", "\\ud800": 1}'
    answer = http.post("/v1/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_jobs_are_released(server: Served, http: httpx.Client) -> None:
    http.post("/v1/completions", json=SHORT).raise_for_status()
    with http.stream("POST", "/v1/completions", json=ENDLESS) as answer:
        next(answer.iter_lines())
    until(lambda: server.models["fox"].scheduler.running == 0)

    def jobs_left() -> int:
        gc.collect()
        return sum(type(each) is Job for each in gc.get_objects())

    until(lambda: jobs_left() == 0)


# starting


def test_what_a_server_does_not_start_with(fox_file: Path, tmp_path: Path) -> None:
    with listen(ServeConfig(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be listened on: Address al"):
            serve([str(fox_file)], ServeConfig(port=port))
    with pytest.raises(UsageError, match="two models are called 'a'; name one with NAME="):
        serve([f"a={fox_file}", f"a={fox_file}"], ServeConfig(port=0))
    with pytest.raises(zoo.errors.RunError, match="nothing does not exist"):
        serve(["nothing"], ServeConfig(port=0, workers=2))
    (tmp_path / "file").write_text("")
    with pytest.raises(zoo.errors.RunError, match="file cannot be used for streams"):
        serve([str(fox_file)], ServeConfig(port=0, state=str(tmp_path / "file")))
    with (
        serving(f"fox={fox_file}", state="kept"),
        pytest.raises(UsageError, match="another server keeps its streams in kept"),
    ):
        serve([str(fox_file)], ServeConfig(port=0, state="kept"))


def test_streams_of_two_models_stay_apart(
    trained: Callable[..., zoo.Run], fox_run: zoo.Run, fox_file: Path
) -> None:
    """Also where both are run folders; and a file goes on with the streams of its run folder."""
    other = trained(hidden=16, epochs=1)
    ids = []
    with serving(f"a={fox_run.path}", f"b={other.path}", state="kept") as server:
        for model in ("a", "b"):
            made = httpx.post(f"{server.url}/v1/streams", json={"model": model, "seed": 1}).json()
            ids.append(made["id"])
            path = f"{server.url}/v1/streams/{made['id']}"
            httpx.post(f"{path}/feed", json={"text": "the "}).raise_for_status()
    with serving(f"b={other.path}", f"a={fox_file}", state="kept") as server:
        for id, model, source in zip(ids, "ab", (fox_file, other.path), strict=True):
            path = f"{server.url}/v1/streams/{id}"
            assert httpx.get(path).json()["model"] == model
            asked = {"length": 40, "temperature": 0.7}
            text = httpx.post(f"{path}/sample", json=asked, timeout=60).json()["text"]
            assert "the " + text == zoo.generate(source, "the ", 40, temperature=0.7, seed=1)


def test_a_disk_that_fails_stops_nothing(fox_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise zoo.errors.RunError(f"{path} cannot be written: No space left on device.")

    with serving(f"fox={fox_file}", idle=0.1, state="kept") as server:
        full = pytest.MonkeyPatch()
        full.setattr("zoo.serving.stream_store.write_atomically", fail)
        made = httpx.post(f"{server.url}/v1/streams", json={"model": "fox"}).json()
        path = f"/v1/streams/{made['id']}"
        httpx.post(f"{server.url}{path}/feed", json={"text": "the "}).raise_for_status()
        until(lambda: "streams cannot be saved" in caplog.text)
        full.undo()
        until(lambda: bool([*Path("kept").glob("*/*.stream")]))
        answer = httpx.post(f"{server.url}{path}/sample", json={"length": 30}, timeout=60)
        assert answer.json()["text"] == zoo.generate(fox_file, "the ", 30).removeprefix("the ")


def test_pages_of_other_sites_need_a_key(fox_folder: Path) -> None:
    """A browser sends where a page is from; without a key anyone's page could use the server."""
    with serving(f"fox={fox_folder}") as server, httpx.Client(base_url=server.url) as http:
        for origin, status in (
            ("https://elsewhere.example", 403),
            ("null", 403),
            (server.url, 200),
        ):
            assert http.get("/v1/models", headers={"Origin": origin}).status_code == status
        assert http.get("/v1/models").status_code == 200

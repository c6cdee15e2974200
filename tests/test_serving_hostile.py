"""A server among clients that mean no good: whatever comes is answered with a 4xx, and nothing of
what it says reaches the file system."""

from __future__ import annotations

import json
import os
import random
import socket
import string
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import httpx
import pytest

import zoo

from .servers import SECONDS, ServerProcess, exchange, server_process

pytestmark = pytest.mark.slow
REQUESTS = 1000
LIMIT = 100_000  # bytes of a body


@pytest.fixture(scope="module")
def server(fox_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with chdir(folder), server_process(
        f"fox={fox_file}", "--state", "kept", "--max-body", str(LIMIT), "--body-seconds", "2",
        "--max-prompt", "1000", "--max-length", "100", "--max-streams", "5",
    ) as found:  # fmt: skip
        yield found


WORDS = ["../../etc/passwd", "..", ".", "/", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "%00", "\0",
         "fox/../fox", "kept", "C:\\windows", "~root", "file:///etc/passwd", "a" * 5000, "\u202e",
         "fox\0", "FOX", "", " ", "${HOME}", "'; drop table", "<script>", "\r\nX: y",
         "🦊"]  # fmt: skip
NUMBERS = [-1, 0, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 1e308, -1e308, 0.5, 1e-320]


def anything(rng: random.Random, depth: int = 3) -> Any:
    """A value of JSON."""
    kind = rng.randrange(8 if depth else 6)
    if kind == 6:
        return [anything(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.choice(WORDS): anything(rng, depth - 1) for _ in range(rng.randrange(4))}
    return [None, True, rng.choice(WORDS), rng.choice(NUMBERS), [], {}][kind]


FORMS: dict[str, dict[str, Any]] = {
    "/v1/completions": {
        "model": "fox", "prompt": "the ", "max_tokens": 3, "temperature": 0.5, "top_p": 0.5,
        "top_k": 3, "stop": "x", "seed": 1, "n": 1, "stream": False, "logprobs": 1, "echo": True,
        "stream_options": {}, "logit_bias": {}, "include_stop": False, "best_of": 1,
    },
    "/v1/score": {"model": "fox", "input": "the dog"},
    "/v1/streams": {"model": "fox", "seed": 1},
    "/v1/streams/ID/feed": {"text": "the "},
    "/v1/streams/ID/sample": {"length": 3, "temperature": 0.5, "stream": False, "watch": True},
    "/v1/streams/ID/fork": {},
    "/v1/streams/ID/snapshot": {},
}  # fmt: skip


def wrong_body(rng: random.Random, form: dict[str, Any]) -> bytes:
    """A body that no request may have, of one of many kinds."""
    good = json.dumps(form).encode()
    deep = rng.choice([100, 1000, 20_000])
    kinds: list[Callable[[], bytes]] = [
        lambda: rng.randbytes(rng.randrange(1, 500)),
        lambda: good[: rng.randrange(len(good))],
        lambda: good + rng.choice([b"}", b"\xff", b"\0", b"{}"]),
        lambda: good.replace(b'"', b"'") + b"'",
        lambda: b"\xff\xfe" + good,
        lambda: json.dumps(form).encode("utf-16"),
        lambda: b"[" * deep + b"]" * deep,
        lambda: b'{"model":' * deep + b"1" + b"}" * deep,
        lambda: json.dumps(rng.choice([None, True, 1, "fox", [], [form]])).encode(),
        lambda: json.dumps({**form, rng.choice(WORDS) + "?": anything(rng)}).encode(),
        lambda: good[:-1] + b', "\\ud800": "\\udfff"}',
        lambda: good[:-1] + b', "x": NaN}',
        lambda: b'{"model": ' + b"9" * 5000 + b"}",
        lambda: b" " * (LIMIT + rng.randrange(1, 1000)),
        lambda: json.dumps({**form, "model": rng.choice(WORDS)}).encode(),
    ]
    return rng.choice(kinds)()


def odd_headers(rng: random.Random) -> list[tuple[bytes, bytes]]:
    kinds = [
        [(b"X-" + str(i).encode(), b"y" * 90) for i in range(rng.randrange(200))],
        [(b"X", b"y" * rng.randrange(30_000))],
        [(b"Host", rng.choice([b"[", b"a:b:c", b"\xff", b"..", b"/etc", b"a" * 3000]))],
        [(b"Content-Type", rng.choice([b"text/plain", b"multipart/form-data", b"\xff;charset=x"]))],
        [(b"Accept", b"*/*;q=9"), (b"Cookie", b"a=" + b"b" * 8000)],
        [(b"Content-Encoding", b"gzip")],
        [(b"Authorization", rng.choice([b"Bearer \xff", b"Basic", b"Bearer " + b"k" * 9000]))],
        [(b"Upgrade", b"websocket"), (b"Connection", b"upgrade")],
        [(b"Expect", b"100-continue")],
        [(b"Range", b"bytes=0-"), (b"If-None-Match", b"*")],
    ]
    return rng.choice(kinds)


def raw(method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    given = {name for name, _ in headers}
    more = [] if b"Host" in given else [(b"Host", b"a")]
    more += [(b"Content-Length", str(len(body)).encode()), (b"Connection", b"close")]
    more = [each for each in more if each[0] not in given]
    lines = [name + b": " + value for name, value in (*headers, *more)]
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", *lines, b"", body])


def odd_path(rng: random.Random) -> bytes:
    return rng.choice([
        b"/../../etc/passwd", b"/..%2f..%2fetc%2fpasswd", b"/%00", b"/v1/models/../../etc",
        b"/v1/models/%2e%2e%2fkept", b"/v1/streams/..%2f..%2fetc", b"/v1/streams/%00/snapshot",
        b"//etc/passwd", b"/v1/streams/" + b"f" * 32, b"/v1/streams/" + b"a" * 4000 + b"/snapshot",
        b"/v1/streams/%ff%fe", b"/v1/models/%ff", b"/static/../zoo", b"/" + b"x" * 8000,
        b"/v1/models/fox/..", b"/v1/models/kept%2f.lock", b"/page.html", b"/v1//models",
        b"/v1/streams/.lock", b"/v1/streams/*",
    ])  # fmt: skip


def malformed(rng: random.Random, id: str) -> bytes:
    """One request that is not to be granted, whole as bytes."""
    kind = rng.randrange(10)
    path, form = rng.choice([*FORMS.items()])
    known = rng.random() < 0.5
    target = path.replace("ID", id if known else rng.choice(["..", "%2e%2e", "0" * 32, "a" * 300]))
    has_id = "ID" in path
    headers = odd_headers(rng) if kind >= 8 else []
    if path.endswith("fork"):  # which takes no body
        target = target.replace(id, "f" * 32)
    if kind == 0:
        return raw(b"GET", odd_path(rng), [], b"")
    if kind == 1:
        method = rng.choice([b"PUT", b"PATCH", b"TRACE", b"OPTIONS", b"FOO", b"get", b"PROPFIND"])
        return raw(method, b"/v1/completions", [], b"")
    if kind == 2:
        name, value = rng.choice([*form]) if form else "text", anything(rng)
        wrong = {**form, name: value, rng.choice(WORDS) + "!": 1}
        return raw(b"POST", target.encode(), headers, json.dumps(wrong).encode())
    if kind == 3 and not has_id:
        return raw(
            b"POST", target.encode(), [], json.dumps({**form, "model": rng.choice(WORDS)}).encode()
        )
    if kind == 4:
        lines = [b"\0\1\2", b"GET", b"GET /x\r\n\r\n", b"GET /x HTTP/9.9\r\n\r\n",
                 rng.randbytes(50) + b"\r\n\r\n",
                 b"GET /x HTTP/1.1\r\nA\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n"]  # fmt: skip
        return rng.choice(lines)
    if path.endswith("snapshot"):
        return raw(b"PUT", target.encode(), headers, rng.randbytes(rng.randrange(2000)))
    body = wrong_body(rng, form)
    if kind == 5:  # cut off
        whole = raw(b"POST", target.encode(), headers, body)
        return whole[: rng.randrange(max(1, len(whole) - 1))]
    return raw(b"POST", target.encode(), headers, body)


def slow(port: int, answers: list[bytes]) -> None:
    """A body that comes byte by byte, and never wholly."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n"
        )
        connection.settimeout(0.2)
        answer = b""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                connection.sendall(b" ")
                part = connection.recv(65_536)
                answer += part
                if not part:
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    answers.append(answer)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_malformed_requests(server: ServerProcess, fox_file: Path) -> None:
    rng = random.Random(0)
    made = httpx.post(f"{server.url}/v1/streams", json={"model": "fox", "seed": 1}).json()["id"]
    httpx.post(f"{server.url}/v1/streams/{made}/feed", json={"text": "the "}).raise_for_status()
    snapshot = httpx.get(f"{server.url}/v1/streams/{made}/snapshot").content
    folder = Path(f"/proc/{server.process.pid}/cwd").resolve()
    time.sleep(2.5)  # the stream is saved
    before, files = files_below(folder), open_files(server)
    slow_answers: list[bytes] = []
    threads = [threading.Thread(target=slow, args=(server.port, slow_answers)) for _ in range(5)]
    for thread in threads:
        thread.start()
    statuses: dict[int, int] = {}
    for number in range(REQUESTS):
        request = malformed(rng, made)
        answer = exchange(server.port, request, closes=True)
        for status in statuses_of(answer):
            statuses[status] = statuses.get(status, 0) + 1
            assert 400 <= status < 500, (number, request[:300], answer[:500])
        if number % 100 == 0:
            assert httpx.get(f"{server.url}/health").status_code == 200
    for thread in threads:
        thread.join(SECONDS)
    assert [answer[:13] for answer in slow_answers] == [b"HTTP/1.1 408 "] * 5
    assert sum(statuses.values()) > 0.7 * REQUESTS, "most are answered"
    assert {400, 404, 405, 413} <= statuses.keys()
    assert "Traceback" not in server.errors, server.errors[-3000:]
    assert "Error" not in server.errors, server.errors[-3000:]
    # nothing happened, and all goes on
    assert files_below(folder) == before
    assert open_files(server) <= files
    assert httpx.get(f"{server.url}/v1/streams/{made}/snapshot").content == snapshot
    asked = {"model": "fox", "prompt": "the ", "max_tokens": 60, "temperature": 0}
    text = httpx.post(f"{server.url}/v1/completions", json=asked, timeout=60).json()
    assert "the " + text["choices"][0]["text"] == zoo.generate(fox_file, "the ", 60)
    told = httpx.get(f"{server.url}/metrics").text
    assert 'zoo_rows_running{model="fox"} 0.0' in told
    assert "zoo_streams 1.0" in told


def statuses_of(answer: bytes) -> list[int]:
    """Those of the answers on one connection, but for "100 Continue"."""
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    found = [int(line.split(b" ")[1]) for line in lines]
    return [status for status in found if status != 100]


def open_files(server: ServerProcess) -> set[str]:
    """The regular files that the process has open."""
    found = set()
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            continue
        if target.startswith("/") and not target.startswith(("/dev", "/proc")):
            found.add(target)
    return found


def test_damaged_snapshots_are_refused(server: ServerProcess) -> None:
    """Bytes that are flipped, cut off, or put in, of a snapshot: refused, or it is one still."""
    rng = random.Random(0)
    made = httpx.post(f"{server.url}/v1/streams", json={"model": "fox", "seed": 1}).json()["id"]
    path = f"{server.url}/v1/streams/{made}"
    httpx.post(f"{path}/feed", json={"text": "the "}).raise_for_status()
    with httpx.Client(timeout=SECONDS) as http:
        whole = http.get(f"{path}/snapshot").content
        for _ in range(400):
            content = bytearray(whole)
            for _ in range(rng.randrange(1, 4)):
                # the head and the random numbers, which have a form
                at = rng.choice([rng.randrange(len(content)), rng.randrange(300)]) % len(content)
                change = rng.randrange(3)
                if change == 0:
                    content[at] ^= 1 << rng.randrange(8)
                elif change == 1:
                    content[at] = rng.choice(string.printable.encode())
                else:
                    del content[at : at + rng.randrange(1, 9)]
            answer = http.put(f"{path}/snapshot", content=bytes(content))
            assert answer.status_code in (200, 422), answer.text
            if answer.status_code == 200:
                found = http.post(f"{path}/sample", json={"length": 3, "temperature": 0.5})
                assert found.status_code in (200, 409, 422), found.text
                http.put(f"{path}/snapshot", content=whole).raise_for_status()
        assert http.delete(path).status_code == 204
    assert "Traceback" not in server.errors, server.errors[-3000:]

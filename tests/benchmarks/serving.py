"""A server under load: many clients at once against `zoo serve`, on this machine alone.

    python tests/benchmarks/serving.py SOURCE [--clients 64] [--requests 512] [--minutes M]

Each client asks for one text after another by `/v1/completions`, streamed; the server is a process
of its own, the clients are in this one, in one thread. In the same run, one after the other:
`generate_batch` of as many rows, one stream of the server alone, and the load. Every text is then
compared with what `zoo.generate` writes for its prompt, settings and seed alone.

With `--minutes` the load is clients that join, leave in the middle and come again, spread over so
long, and the server's memory is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zoo
from zoo.inference.runtime import Source

LENGTH = 400


@dataclass
class Client:
    """One connection to the server, over which requests follow each other."""

    port: int
    first_seconds: list[float] = field(default_factory=list)

    async def complete(self, asked: dict[str, Any], leave_after: int | None = None) -> str:
        """The streamed text; after so many events the client leaves."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            body = json.dumps({**asked, "stream": True}).encode()
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            began, text, events = time.perf_counter(), [], 0
            async for line in reader:
                if not line.startswith(b"data: {"):
                    continue
                if not events:
                    self.first_seconds.append(time.perf_counter() - began)
                events += 1
                part = json.loads(line[6:])
                if "error" in part:
                    raise SystemExit(part["error"]["message"])
                text.append(part["choices"][0]["text"])
                if events == leave_after:
                    break
            return "".join(text)
        finally:
            writer.close()


class Server:
    """`zoo serve` in a process of its own, while the block runs."""

    def __init__(self, source: str) -> None:
        self._command = [sys.executable, "-m", "zoo", "serve", f"m={source}", "--port", "0"]

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if "http://" not in line:
            raise SystemExit(line + self.process.stderr.read())
        self.port = int(line.partition("http://127.0.0.1:")[2].partition(" ")[0])
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()

    def megabytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def requests(source: Source, count: int, length: int = LENGTH) -> Iterator[dict[str, Any]]:
    """Requests of different prompts, settings, lengths and seeds."""
    rng = random.Random(0)
    known = source.tokenizer.decode(range(source.tokenizer.vocab_size))
    letters = [c for c in known if c.isalpha() and c.isascii()] or list(known)
    for seed in range(count):
        prompt = "".join(rng.choices(letters, k=rng.randint(1, 60)))
        settings = rng.choice(({"temperature": 0.0}, {"temperature": 0.8}, {"temperature": 1.0}))
        yield {
            "model": "m",
            "prompt": prompt,
            "max_tokens": rng.randint(length // 2, 3 * length // 2),
            "seed": seed,
            **settings,
        }


async def load(port: int, asked: list[dict[str, Any]], clients: int) -> tuple[float, Any, Any]:
    """Seconds, the texts, and the clients, after all requests were answered."""
    waiting = list(reversed(list(enumerate(asked))))
    texts: dict[int, str] = {}
    every = [Client(port) for _ in range(clients)]

    async def work(client: Client) -> None:
        while waiting:
            index, request = waiting.pop()
            texts[index] = await client.complete(request)

    began = time.perf_counter()
    await asyncio.gather(*map(work, every))
    return time.perf_counter() - began, texts, every


async def churn(server: Server, source: Source, clients: int, count: int, seconds: float) -> None:
    """Clients that join, leave and cancel, about `count` requests in all; prints the memory."""
    asked = list(requests(source, 5000, 60))
    pause = 2 * seconds * clients / count
    rng = random.Random(1)
    until = time.monotonic() + seconds
    done = 0

    async def work() -> None:
        nonlocal done
        while time.monotonic() < until:
            await Client(server.port).complete(
                rng.choice(asked), rng.choice((None, None, None, 1, 2))
            )
            done += 1
            await asyncio.sleep(rng.random() * pause)

    async def watch() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(seconds / 30)
            print(f"{done:7,} requests  {server.megabytes():7.1f} MB", flush=True)

    await asyncio.gather(watch(), *(work() for _ in range(clients)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--minutes", type=float)
    given = parser.parse_args()
    source = zoo.open_source(given.source)
    with Server(given.source) as server:
        if given.minutes:
            seconds = 60 * given.minutes
            asyncio.run(churn(server, source, given.clients, given.requests, seconds))
            return
        prompts = [f"{request['prompt']}" for request in requests(source, given.clients)]
        zoo.generate_batch(source, prompts, length=64, temperature=1.0)
        began = time.perf_counter()
        zoo.generate_batch(source, prompts, length=LENGTH, temperature=1.0)
        batch = given.clients * LENGTH / (time.perf_counter() - began)
        alone = [{**r, "max_tokens": LENGTH} for r in requests(source, 8)]
        seconds, _, _ = asyncio.run(load(server.port, alone, 1))
        single = len(alone) * LENGTH / seconds
        asked = list(requests(source, given.requests))
        seconds, texts, clients = asyncio.run(load(server.port, asked, given.clients))
    total = sum(request["max_tokens"] for request in asked) / seconds
    firsts = [each for client in clients for each in client.first_seconds]
    different = 0
    for index, request in enumerate(asked):
        settings = {"temperature": request["temperature"], "seed": request["seed"]}
        own = zoo.generate(source, request["prompt"], length=request["max_tokens"], **settings)
        different += own != request["prompt"] + texts[index]
    print(f"generate_batch of {given.clients} rows   {batch:9,.0f} tokens/s")
    print(f"one stream alone             {single:9,.0f} tokens/s")
    print(f"{given.clients} clients                   {total:9,.0f} tokens/s")
    print(f"share of generate_batch {total / batch:.2f}, times one stream {total / single:.1f}")
    p95 = statistics.quantiles(firsts, n=20)[-1]
    print(f"time to the first token: median {statistics.median(firsts):.3f} s, p95 {p95:.3f} s")
    print(f"texts other than alone: {different} of {len(asked)}")


if __name__ == "__main__":
    main()

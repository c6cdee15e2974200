"""Servers for tests: in a thread of the test's process, or in a process of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn

import zoo
from zoo.serving.app import create_app
from zoo.serving.models import ServedModel, open_models
from zoo.serving.settings import ServeConfig

SECONDS = 60.0  # that anything may take on a busy machine


class Served:
    """A running server: its address, and the models that it serves."""

    def __init__(self, url: str, models: Mapping[str, ServedModel]) -> None:
        self.url, self.models = url, models

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def serving(*sources: str, **settings: object) -> Iterator[Served]:
    """A server of these sources in a thread, on a free port of the loopback."""
    from zoo.serving.server import listen, uvicorn_config

    config = ServeConfig.checked(port=0, **settings)
    models = open_models(sources, config, zoo.load_registry())
    with listen(config) as listening:
        server = uvicorn.Server(uvicorn_config(create_app(models, config), config))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", models)
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def run(fox_run: zoo.Run) -> zoo.Run:
    return fox_run


@pytest.fixture(scope="module")
def file(fox_folder: Path) -> Path:
    """The folder of all graphs of the run."""
    return fox_folder


@pytest.fixture(scope="module")
def server(run: zoo.Run, file: Path) -> Iterator[Served]:
    with serving(f"fox={file}", f"torch={run.path}", f"step={file / 'step.onnx'}") as served:
        yield served


class ServerProcess:
    """`zoo serve` in a process of its own. `errors` is what it wrote to standard error."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._log = Path(f"server-{time.monotonic_ns()}.log").resolve()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zoo", "serve", *arguments, "--port", "0"],
                stderr=log,
                env={**os.environ, **environment},
            )
        self.url = self._address()

    def _address(self) -> str:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            for word in self.errors.split():
                if word.startswith("http://"):
                    return word
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.errors}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def errors(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal, and gives the process' exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)


@contextmanager
def server_process(*arguments: str, **environment: str) -> Iterator[ServerProcess]:
    server = ServerProcess(*arguments, **environment)
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


def exchange(port: int, content: bytes, closes: bool = False, seconds: float = SECONDS) -> bytes:
    """What a server answers to these bytes until it closes the connection, perhaps before it has
    read them all. With `closes`, nothing more is sent after them."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with suppress(OSError):
            connection.sendall(content)
            if closes:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                answer += part
    return answer


def until(condition: Callable[[], bool]) -> None:
    """Waits for the condition."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

"""Running the application with uvicorn, in one process or in several."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from zoo.errors import UsageError
from zoo.registry.registry import load_registry
from zoo.serving.app import create_app
from zoo.serving.models import open_models
from zoo.serving.protocol import BoundedProtocol
from zoo.serving.settings import ServeConfig
from zoo.serving.stream_store import StreamStore

WAITING_CONNECTIONS = 2048
SERVED = "ZOO_SERVED"  # the environment variable that tells worker processes what to serve


def serve(
    sources: Sequence[str],
    config: ServeConfig,
    provider: str = "auto",
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the models until it is interrupted or terminated; requests in work are then finished
    within `config.drain` seconds. `ready` is told the address once it is listened on.

    Raises UsageError for an address that cannot be listened on, and what `open_models` raises.
    """
    listening = listen(config)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        if config.workers == 1:
            models = open_models(sources, config, load_registry(), provider)
            settings = uvicorn_config(create_app(models, config), config)
            ready(address)
            with _ignored_again():
                uvicorn.Server(settings).run(sockets=[listening])
            return
        with tempfile.TemporaryDirectory(prefix="zoo-streams-") as shared:
            if config.state is None:
                config = config.model_copy(update={"state": shared})
            _try_to_open(sources, config, provider)
            served = {"sources": [*sources], "provider": provider, "config": config.model_dump()}
            os.environ[SERVED] = json.dumps(served)
            settings = uvicorn_config("zoo.serving.server:worker_app", config, factory=True)
            ready(address)
            from uvicorn.supervisors import Multiprocess

            Multiprocess(settings, [listening]).run()
    finally:
        listening.close()


def _try_to_open(sources: Sequence[str], config: ServeConfig, provider: str) -> None:
    """Raises what a worker process would raise, and would be started again and again for. Removes
    what a killed server left half-written."""
    models = open_models(sources, config, load_registry(), provider)
    try:
        StreamStore(models, config).close()
    finally:
        for model in models.values():
            model.scheduler.close()


def worker_app() -> Starlette:
    """The application of one of several processes."""
    served = json.loads(os.environ[SERVED])
    config = ServeConfig(**served["config"])
    models = open_models(served["sources"], config, load_registry(), served["provider"])
    return create_app(models, config, shared=True)


@contextmanager
def _ignored_again() -> Iterator[None]:
    """uvicorn raises the signals that it stopped for once more when it has ended; they have had
    their effect, and the process ends as one that succeeded."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)


def listen(config: ServeConfig) -> socket.socket:
    """A socket at the address; connections wait in it until the server accepts them. UsageError
    where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(WAITING_CONNECTIONS)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise UsageError(
            f"{config.host}:{config.port} cannot be listened on: {error.strerror}; "
            f"choose another --port."
        ) from None
    return listening


def uvicorn_config(
    app: Starlette | str, config: ServeConfig, factory: bool = False
) -> uvicorn.Config:
    """How uvicorn is to run the application."""
    return uvicorn.Config(
        app,
        factory=factory,
        workers=config.workers if config.workers > 1 else None,
        http=BoundedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=config.drain,
        timeout_keep_alive=30,
        server_header=False,
    )

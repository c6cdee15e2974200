"""Running the application with uvicorn, in one process or in several."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Sequence

import uvicorn
from starlette.applications import Starlette

from zoo.errors import UsageError
from zoo.registry.registry import load_registry
from zoo.serving.app import create_app
from zoo.serving.models import open_models
from zoo.serving.settings import ServeConfig

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
    listening = _listen(config)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        if config.workers == 1:
            models = open_models(sources, config, load_registry(), provider)
            settings = _uvicorn(create_app(models, config), config)
            ready(address)
            uvicorn.Server(settings).run(sockets=[listening])
            return
        with tempfile.TemporaryDirectory(prefix="zoo-streams-") as shared:
            if config.state is None:
                config = config.model_copy(update={"state": shared})
            served = {"sources": [*sources], "provider": provider, "config": config.model_dump()}
            os.environ[SERVED] = json.dumps(served)
            settings = _uvicorn("zoo.serving.server:worker_app", config, factory=True)
            ready(address)
            from uvicorn.supervisors import Multiprocess

            Multiprocess(settings, [listening]).run()
    finally:
        listening.close()


def worker_app() -> Starlette:
    """The application of one of several processes."""
    served = json.loads(os.environ[SERVED])
    config = ServeConfig(**served["config"])
    models = open_models(served["sources"], config, load_registry(), served["provider"])
    return create_app(models, config, shared=True)


def _listen(config: ServeConfig) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UsageError(
            f"{config.host}:{config.port} cannot be listened on: {error.strerror}; "
            f"choose another --port."
        ) from None
    return listening


def _uvicorn(app: Starlette | str, config: ServeConfig, factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=factory,
        workers=config.workers if config.workers > 1 else None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=config.drain,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
        server_header=False,
    )

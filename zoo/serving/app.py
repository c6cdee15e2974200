"""The application: routes, access, and what begins and ends with the server."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from zoo.errors import printable
from zoo.serving import completions, scoring, streams
from zoo.serving.bridge import Bridge
from zoo.serving.metrics import Metrics
from zoo.serving.models import ServedModel
from zoo.serving.requests import ApiError, explained
from zoo.serving.server_state import ServerState
from zoo.serving.settings import API_KEY, ServeConfig
from zoo.serving.stream_store import StreamStore

Endpoint = Callable[[Request], Awaitable[Response]]
OPEN_PATHS = ("/", "/health", "/ready")  # without a key


def create_app(
    models: Mapping[str, ServedModel], config: ServeConfig, shared: bool = False
) -> Starlette:
    """The server of these models, as an ASGI application. `shared` is for one of several processes
    with one folder of streams. When it ends, the models' schedulers are closed. RunError or
    UsageError for a folder of streams that cannot be used."""
    store = StreamStore(models, config, shared)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.server = state = ServerState(
            config,
            models,
            Bridge(asyncio.get_running_loop()),
            store,
            Metrics(models, store),
        )
        tidying = asyncio.create_task(store.keep_tidy())
        try:
            yield
        finally:
            state.stopping = True
            tidying.cancel()
            with suppress(asyncio.CancelledError):
                await tidying
            for model in models.values():
                await asyncio.to_thread(model.scheduler.close)
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=5)
            await asyncio.to_thread(store.close)

    key = os.environ.get(API_KEY, "")
    routes = [
        Route(path, _guarded(endpoint, path, key), methods=[method])
        for method, path, endpoint in (
            ("GET", "/", page),
            ("GET", "/health", health),
            ("GET", "/ready", ready),
            ("GET", "/metrics", metrics),
            ("GET", "/v1/models", list_models),
            ("GET", "/v1/models/{name:path}", show_model),
            ("POST", "/v1/completions", completions.complete),
            ("POST", "/v1/score", scoring.score),
            ("POST", "/v1/streams", streams.create),
            ("GET", "/v1/streams/{id}", streams.show),
            ("DELETE", "/v1/streams/{id}", streams.delete),
            ("GET", "/v1/streams/{id}/snapshot", streams.snapshot),
            ("PUT", "/v1/streams/{id}/snapshot", streams.restore),
            ("POST", "/v1/streams/{id}/fork", streams.fork),
            ("POST", "/v1/streams/{id}/feed", streams.feed),
            ("POST", "/v1/streams/{id}/sample", streams.sample),
        )
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={404: _no_route, 405: _no_route, 500: _failed},
    )
    app.router.redirect_slashes = False
    return app


def _guarded(endpoint: Endpoint, path: str, key: str) -> Endpoint:
    """The endpoint, for those who have the key, with its errors as answers, and counted."""

    async def answer(request: Request) -> Response:
        state: ServerState = request.app.state.server
        request.state.began = time.perf_counter()
        try:
            if key and path not in OPEN_PATHS:
                _require_key(request, key)
            elif not key:
                _require_own_page(request)
            response = await endpoint(request)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it
        except Exception as error:  # those that are not ours are raised again
            response = explained(error).response()
        state.metrics.requests.labels(path, str(response.status_code)).inc()
        return response

    return answer


def _require_key(request: Request, key: str) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    # as bytes: Starlette reads headers as Latin-1
    wanted = key.encode("utf-8", "surrogateescape")
    if not secrets.compare_digest(given.encode("latin-1"), wanted):
        raise ApiError(401, "the API key is missing or wrong.", "invalid_api_key")


def _require_own_page(request: Request) -> None:
    """ApiError for a page of another site: in a browser here, it could use the server unasked."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise ApiError(403, "pages of other sites need an API key to ask.", "other_origin")


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    told = "there is no such path" if status == 404 else "this path has no such method"
    # request.url would be made of the Host header, which may hold anything
    path = printable(request.scope["path"][:200])
    response = ApiError(status, f"{told}: {request.method[:20]} {path}.").response()
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _failed(request: Request, error: Exception) -> Response:
    return ApiError(500, "the server failed; its log says why.").response()


async def page(request: Request) -> Response:
    return HTMLResponse(files("zoo.serving").joinpath("page.html").read_text("utf-8"))


async def health(request: Request) -> Response:
    """Whether the process answers."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Whether it takes new texts."""
    state: ServerState = request.app.state.server
    if state.stopping:
        raise ApiError(503, "the server stops.", "stopping")
    return JSONResponse({"status": "ready", "models": list(state.models)})


async def metrics(request: Request) -> Response:
    state: ServerState = request.app.state.server
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _shown(model: ServedModel) -> dict[str, object]:
    source = model.source
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "recurrent-zoo",
        "prompt": source.prompt,
        "runs_on": source.runs_on,
        "vocabulary": source.tokenizer.vocab_size,
        "scores": model.scheduler.scores,
    }


async def list_models(request: Request) -> Response:
    state: ServerState = request.app.state.server
    return JSONResponse({"object": "list", "data": [*map(_shown, state.models.values())]})


async def show_model(request: Request) -> Response:
    state: ServerState = request.app.state.server
    return JSONResponse(_shown(state.model(request.path_params["name"])))

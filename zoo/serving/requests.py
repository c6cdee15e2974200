"""Requests as they come: bodies within their bounds, JSON that is checked, and errors in the form
that clients of OpenAI's interface expect."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from zoo.errors import RunError, UsageError, ZooError, printable
from zoo.serving.jobs import CANCELLED
from zoo.serving.scheduler import QueueFullError, StoppedError
from zoo.serving.settings import ServeConfig
from zoo.validation import MAX_KEY, first_problem, parse_json

T = TypeVar("T")
# of errors. The rest of a body that is too large is read and forgotten: a client that is still
# sending it would not see the answer before a closed connection
HEADERS = {408: {"Connection": "close"}, 429: {"Retry-After": "1"}}
_log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer that is an error: its HTTP status, and what is wrong."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def response(self) -> Response:
        return JSONResponse(self._content(), self.status, HEADERS.get(self.status))

    def json(self) -> str:
        """The answer's body, as an event of one that has begun."""
        return json.dumps(self._content())

    def _content(self) -> dict[str, dict[str, str | None]]:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        told = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": told}


class RequestModel(BaseModel):
    """The body of a request: no other fields, no conversions but from whole numbers to floats."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


RequestT = TypeVar("RequestT", bound=RequestModel)


async def read_body(request: Request, config: ServeConfig) -> bytes:
    """The body; ApiError for one that is too large, or comes too slowly."""
    limit = int(config.max_body)
    too_large = ApiError(413, f"the body is larger than {limit:,} bytes.", "body_too_large")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(config.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise ApiError(
            408, f"the body did not come within {config.body_seconds:g} seconds.", "timeout"
        ) from None
    return b"".join(parts)


async def read_json(request: Request, form: type[RequestT], config: ServeConfig) -> RequestT:
    """The body as this model; ApiError, naming the first field that is wrong."""
    body = await read_body(request, config)
    try:
        content = parse_json(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        told = "not UTF-8" if isinstance(error, UnicodeError) else "no JSON"
        raise ApiError(400, f"the body is {told}.", "invalid_json") from None
    try:
        return form.model_validate(content)
    except ValidationError as error:
        where = error.errors(include_url=False, include_input=False)[0]["loc"]
        param = printable(str(where[0])[:MAX_KEY]) if where else None
        raise ApiError(400, first_problem(error), "invalid_value", param) from None


def explained(error: Exception) -> ApiError:
    """The answer to an error of ours; others are raised again."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        return ApiError(429, str(error), "queue_full")
    if isinstance(error, StoppedError):
        return ApiError(503, str(error), "stopping")
    if isinstance(error, RunError):  # the folder of streams
        return ApiError(500, str(error), "failed")
    if isinstance(error, UsageError):
        return ApiError(400, str(error), "invalid_value")
    if isinstance(error, ZooError):
        return ApiError(422, str(error), "failed")
    raise error


def finish_reason(finish: str | Exception | None) -> str | None:
    """Why a job ended, None if it has not; ApiError where it did not end as it should."""
    if finish == CANCELLED:
        raise ApiError(503, "the server stops; try again.", "stopping")
    if isinstance(finish, ZooError):
        raise explained(finish)
    if isinstance(finish, Exception):
        _log.error("a model could not be run", exc_info=finish)
        raise ApiError(500, "the model could not be run; the server's log says why.", "failed")
    return finish


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled when the client leaves, with ClientDisconnect."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _left(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

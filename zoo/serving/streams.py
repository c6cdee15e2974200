"""`/v1/streams`: sessions over HTTP, each with its own state and random numbers."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zoo.config import Sampling
from zoo.inference.position import Stops
from zoo.inference.snapshot import Snapshot, first_snapshot, read_snapshot, write_snapshot
from zoo.serving.bridge import Running
from zoo.serving.completions import SamplingRequest, Text, encode, require_length
from zoo.serving.events import EventStream
from zoo.serving.jobs import Job
from zoo.serving.models import ServedModel
from zoo.serving.requests import (
    ApiError,
    RequestModel,
    finish_reason,
    read_body,
    read_json,
    unless_disconnected,
)
from zoo.serving.server_state import ServerState
from zoo.serving.stream_store import Stream
from zoo.serving.texts import StoppedText

_log = logging.getLogger(__name__)
BINARY = "application/octet-stream"


class CreateRequest(RequestModel):
    model: str
    seed: int | None = Field(None, ge=0, lt=2**63)


class FeedRequest(RequestModel):
    text: Text


class SampleRequest(SamplingRequest):
    length: int = Field(200, ge=1, lt=2**31)
    stream: bool = False
    watch: bool = False  # some units of the state after each token are told too
    temperature: float | None = Field(0.0, ge=0, le=1000)


def _shown(stream: Stream) -> dict[str, Any]:
    return {"id": stream.id, "object": "stream", "model": stream.model.name}


async def create(request: Request) -> Response:
    """POST /v1/streams"""
    state: ServerState = request.app.state.server
    asked = await read_json(request, CreateRequest, state.config)
    model = state.model(asked.model)
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    stream = state.streams.create(model, first_snapshot(model.engine, seed))
    return JSONResponse(_shown(stream), 201)


async def show(request: Request) -> Response:
    """GET /v1/streams/{id}"""
    state: ServerState = request.app.state.server
    async with state.streams.use(request.path_params["id"]) as stream:
        return JSONResponse(_shown(stream))


async def delete(request: Request) -> Response:
    """DELETE /v1/streams/{id}"""
    state: ServerState = request.app.state.server
    await state.streams.delete(request.path_params["id"])
    return Response(status_code=204)


async def snapshot(request: Request) -> Response:
    """GET /v1/streams/{id}/snapshot"""
    state: ServerState = request.app.state.server
    async with state.streams.use(request.path_params["id"]) as stream:
        assert stream.position is not None
        content = write_snapshot(stream.model.engine, stream.position)
    return Response(content, media_type=BINARY)


async def restore(request: Request) -> Response:
    """PUT /v1/streams/{id}/snapshot"""
    state: ServerState = request.app.state.server
    content = await read_body(request, state.config)
    async with state.streams.use(request.path_params["id"]) as stream:
        stream.position = read_snapshot(stream.model.engine, content)
        stream.saved = False
        return JSONResponse(_shown(stream))


async def fork(request: Request) -> Response:
    """POST /v1/streams/{id}/fork"""
    state: ServerState = request.app.state.server
    async with state.streams.use(request.path_params["id"]) as stream:
        assert stream.position is not None
        twin = state.streams.create(stream.model, stream.position)
        return JSONResponse(_shown(twin), 201)


async def feed(request: Request) -> Response:
    """POST /v1/streams/{id}/feed"""
    state: ServerState = request.app.state.server
    asked = await read_json(request, FeedRequest, state.config)
    async with state.streams.use(request.path_params["id"]) as stream:
        ids = await encode(stream.model, asked.text, state.config.max_prompt)
        start = stream.position
        assert start is not None
        if start.last is not None and start.last == stream.model.source.tokenizer.end_of_text:
            start = Snapshot(stream.model.engine.init_state(1), None, start.random)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        job = Job(start, ids, 0, Sampling(), state.bridge.teller(queue), keeps=True)
        running = Running(stream.model.scheduler, [job], queue)

        async def read() -> None:
            async for _, progress in running.progress():
                finish_reason(progress.finish)

        try:
            await unless_disconnected(request, read())
        finally:
            running.cancel()
        _move(stream, job)
        return JSONResponse({**_shown(stream), "tokens": len(ids)})


async def sample(request: Request) -> Response:
    """POST /v1/streams/{id}/sample"""
    state: ServerState = request.app.state.server
    asked = await read_json(request, SampleRequest, state.config)
    require_length(asked.length, state.config, "length")
    started: asyncio.Future[Sampled] = asyncio.get_running_loop().create_future()
    # the stream moves to where it was left, whatever becomes of the request
    task = asyncio.create_task(_sample(state, request.path_params["id"], asked, started))
    state.tasks.add(task)
    task.add_done_callback(state.tasks.discard)
    sampled = await unless_disconnected(request, started)
    if asked.stream:
        return EventStream(
            state.timed(sampled.events(), request.state.began), sampled.running.cancel
        )
    try:
        return JSONResponse(await unless_disconnected(request, sampled.whole()))
    finally:
        sampled.running.cancel()


async def _sample(
    state: ServerState, id: str, asked: SampleRequest, started: asyncio.Future[Sampled]
) -> None:
    """Samples, and moves the stream on."""
    try:
        async with state.streams.use(id) as stream:
            if started.cancelled():  # the client left while others used the stream
                return
            sampled = Sampled(state, stream, asked)
            started.set_result(sampled)
            await sampled.run()
            _move(stream, sampled.job)
    except Exception as error:
        if not started.done():
            started.set_exception(error)
        elif not started.cancelled():  # the reader of the pieces has all of the text
            _log.error("the stream %s could not be kept: %s", id, error)


def _move(stream: Stream, job: Job) -> None:
    if job.end is not None:
        stream.position, stream.saved = job.end, False


class Sampled:
    """A text that is being written, piece by piece."""

    def __init__(self, state: ServerState, stream: Stream, asked: SampleRequest) -> None:
        model: ServedModel = stream.model
        tokenizer = model.source.tokenizer
        position = stream.position
        assert position is not None
        if position.last is None or position.last == tokenizer.end_of_text:
            raise ApiError(
                409, "there is nothing to continue; feed the stream some text.", "nothing_read"
            )
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._pieces: asyncio.Queue[dict[str, Any] | ApiError] = asyncio.Queue()
        # as `Session.sample`: the string to stop at is part of the text
        self._text = StoppedText(tokenizer)
        self.job = Job(
            position,
            np.empty(0, np.int64),
            asked.length,
            asked.sampling(),
            state.bridge.teller(self._queue),
            Stops(asked.stops(), tokenizer),
            keeps=True,
            watches=asked.watch,
        )
        self.running = Running(model.scheduler, [self.job], self._queue)

    async def run(self) -> None:
        async for _, progress in self.running.progress():
            finish = progress.finish
            if isinstance(finish, Exception):
                try:
                    finish_reason(finish)
                except ApiError as error:
                    self._pieces.put_nowait(error)
                return
            piece: dict[str, Any] = {
                "text": self._text.push(progress.tokens, finish is not None),
                "finish_reason": finish,
                "tokens": len(progress.tokens),
            }
            if progress.leaves is not None:
                piece["state"] = np.round(progress.leaves, 3).tolist()
            self._pieces.put_nowait(piece)

    async def _each(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            piece = await self._pieces.get()
            if isinstance(piece, ApiError):
                raise piece
            yield piece
            if piece["finish_reason"] is not None:
                return

    async def events(self) -> AsyncIterator[str]:
        try:
            async for piece in self._each():
                yield json.dumps(piece)
        except ApiError as error:
            yield error.json()
        yield "[DONE]"

    async def whole(self) -> dict[str, Any]:
        pieces = [piece async for piece in self._each()]
        found = {
            "text": "".join(piece["text"] for piece in pieces),
            "finish_reason": pieces[-1]["finish_reason"],
            "tokens": sum(piece["tokens"] for piece in pieces),
        }
        states = [row for piece in pieces for row in piece.get("state", ())]
        return {**found, "state": states} if states else found

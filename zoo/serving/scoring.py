"""`/v1/score`: how well a model predicts texts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zoo.config import Sampling
from zoo.inference.scoring import Score
from zoo.inference.snapshot import first_snapshot
from zoo.serving.bridge import Running
from zoo.serving.completions import Text, encode, require_few, require_scores
from zoo.serving.jobs import Job
from zoo.serving.models import ServedModel
from zoo.serving.requests import RequestModel, finish_reason, read_json, unless_disconnected
from zoo.serving.server_state import ServerState


class ScoreRequest(RequestModel):
    model: str
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=1000)]


async def score(request: Request) -> Response:
    """POST /v1/score: each text from the initial state on."""
    state: ServerState = request.app.state.server
    asked = await read_json(request, ScoreRequest, state.config)
    model = state.model(asked.model)
    require_scores(model, "model")
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    require_few(len(texts), state.config, "input")
    queue: asyncio.Queue[Any] = asyncio.Queue()
    jobs = []
    for text in texts:
        ids = await encode(model, text, state.config.max_prompt)
        start = first_snapshot(model.engine, 0)
        jobs.append(
            Job(start, ids, 0, Sampling(), state.bridge.teller(queue), logprobs=0, echoes=True)
        )
    running = Running(model.scheduler, jobs, queue)
    nats: dict[Job, list[float]] = {job: [] for job in jobs}

    async def all_scored() -> None:
        async for job, progress in running.progress():
            finish_reason(progress.finish)
            nats[job] += [-each.logprob for each in progress.likely if each.logprob is not None]

    try:
        await unless_disconnected(request, all_scored())
    finally:
        running.cancel()
    return JSONResponse(
        {
            "object": "list",
            "model": model.name,
            "data": [
                _scored(model, index, text, job, nats[job])
                for index, (text, job) in enumerate(zip(texts, jobs, strict=True))
            ],
        }
    )


def _scored(
    model: ServedModel, index: int, text: str, job: Job, nats: Sequence[float]
) -> dict[str, Any]:
    """The first token is not predicted."""
    total = float(np.sum(nats))
    rest = len(text) - len(model.source.tokenizer.decode(job.prompt[:1].tolist()))
    found = Score.of(total, len(nats), rest)
    told = {"tokens", "nats_per_token", "bits_per_char", "perplexity"}
    return {"index": index, "nats": total, **found.model_dump(include=told)}

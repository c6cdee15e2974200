"""`/v1/completions`, as OpenAI's interface describes it."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from asyncio import to_thread
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zoo.config import Sampling
from zoo.data.tokenizer import Ids
from zoo.errors import ZooError
from zoo.inference.position import Stops
from zoo.inference.snapshot import first_snapshot
from zoo.serving.bridge import Running
from zoo.serving.events import EventStream
from zoo.serving.jobs import Job, Likely
from zoo.serving.models import ServedModel
from zoo.serving.requests import (
    ApiError,
    RequestModel,
    finish_reason,
    read_json,
    unless_disconnected,
)
from zoo.serving.server_state import ServerState
from zoo.serving.settings import ServeConfig
from zoo.serving.texts import StoppedText

T = TypeVar("T")
Text = Annotated[str, Field(min_length=1, max_length=10**7)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Several = Annotated[list[T], Field(min_length=1)]
LONG_TEXT = 10_000  # characters
TokenList = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class StreamOptions(RequestModel):
    include_usage: bool = False
    include_obfuscation: bool = False


class SamplingRequest(RequestModel):
    """How tokens are chosen, in every request that writes some."""

    temperature: float | None = Field(1.0, ge=0, le=1000)
    top_p: float | None = Field(1.0, ge=0, le=1)
    top_k: int | None = Field(0, ge=0, lt=2**31)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-30),
        )

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class CompletionRequest(SamplingRequest):
    """The fields of OpenAI's request. `top_k` and `include_stop` are additions; what a recurrent
    model does not have is taken at its neutral value only."""

    model: str
    prompt: Text | TokenList | Several[Text] | Several[TokenList] | None
    max_tokens: int | None = Field(16, ge=0, lt=2**31)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(1, ge=1, le=128)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = False
    include_stop: bool = False
    user: Any = None
    best_of: int | None = None
    suffix: None = None
    frequency_penalty: Literal[0, None] | float = 0
    presence_penalty: Literal[0, None] | float = 0
    logit_bias: dict[str, float] | None = None

    def require_supported(self) -> None:
        """ApiError for what only other models can do."""
        neutral = {
            "best_of": self.best_of in (None, self.n or 1),
            "frequency_penalty": not self.frequency_penalty,
            "presence_penalty": not self.presence_penalty,
            "logit_bias": not self.logit_bias,
        }
        for name, is_neutral in neutral.items():
            if not is_neutral:
                raise ApiError(400, f"{name} is not supported; leave it out.", "unsupported", name)


async def encode(model: ServedModel, prompt: Any, limit: int) -> Ids:
    """The tokens of a prompt, or the tokens that it consists of. A long text takes a tokenizer that
    learned its tokens seconds, in which others are answered."""
    tokenizer = model.source.tokenizer
    if isinstance(prompt, str):
        try:
            is_long = len(prompt) > LONG_TEXT
            ids = await to_thread(tokenizer.encode, prompt) if is_long else tokenizer.encode(prompt)
        except ZooError as error:
            raise ApiError(400, str(error), "invalid_value", "prompt") from None
    else:
        ids = np.array(prompt, np.int64)
        if ids.max() >= tokenizer.vocab_size:
            raise ApiError(
                400,
                f"the prompt has a token {ids.max()}; the model's are 0 to "
                f"{tokenizer.vocab_size - 1}.",
                "invalid_value",
                "prompt",
            )
    if not len(ids):
        raise ApiError(400, "the prompt is empty; give some text.", "invalid_value", "prompt")
    if len(ids) > limit:
        raise ApiError(
            400, f"the prompt has {len(ids):,} tokens, and {limit:,} are allowed.",
            "prompt_too_long", "prompt",
        )  # fmt: skip
    return ids


def require_few(texts: int, config: ServeConfig, param: str) -> None:
    """ApiError for more than can ever be worked on at a time."""
    limit = config.rows + config.queue
    if texts > limit:
        raise ApiError(
            400, f"{param} asks for {texts:,} texts, and {limit:,} are allowed in one request.",
            "invalid_value", param,
        )  # fmt: skip


def require_length(length: int, config: ServeConfig, param: str) -> None:
    """ApiError for more tokens than one request may ask for."""
    if length > config.max_length:
        raise ApiError(
            400, f"{param} is {length:,}, and {config.max_length:,} are allowed.",
            "invalid_value", param,
        )  # fmt: skip


def require_scores(model: ServedModel, param: str) -> None:
    """ApiError for a model that does not tell how likely tokens are."""
    if not model.scheduler.scores:
        raise ApiError(
            400,
            "this model's files give no probabilities; export its sequence or step graph too.",
            "unsupported",
            param,
        )


class Choice:
    """One text of the answer, as it grows; `prompt` as the request has it."""

    def __init__(
        self, index: int, job: Job, model: ServedModel, asked: CompletionRequest, prompt: Any
    ) -> None:
        self.index, self.job, self._model = index, job, model
        # with the stop, the text is that of `zoo.generate`: it ends with the token that stopped it
        stop = () if asked.include_stop else asked.stops()
        self.text = StoppedText(model.source.tokenizer, stop)
        self.parts: list[str] = []
        self.echo = ""
        if asked.echo:
            is_text = isinstance(prompt, str)
            self.echo = prompt if is_text else model.source.tokenizer.decode(prompt)
        self.finish: str | None = None
        self._logprobs: list[tuple[int, Likely]] = []
        self._offset = 0
        self._echoed = 0  # tokens of the prompt that were told about; not those that were read
        if job.echoes:
            self.add_echoed([Likely(None, ())])

    def add_echoed(self, likely: Sequence[Likely]) -> None:
        """What was found about the next tokens of the prompt."""
        tokens = self.job.prompt[self._echoed : self._echoed + len(likely)].tolist()
        self._echoed += len(likely)
        self._logprobs += zip(tokens, likely, strict=True)

    def add_likely(self, tokens: Sequence[int], likely: Sequence[Likely]) -> None:
        if self.job.logprobs is not None:
            self._logprobs += zip(tokens, likely, strict=True)

    def take_logprobs(self) -> dict[str, Any] | None:
        """What was found since it was last taken, in OpenAI's form."""
        if self.job.logprobs is None:
            return None
        found, self._logprobs = self._logprobs, []
        spelled = [self._spell(token) for token, _ in found]
        offsets = []
        for word in spelled:
            offsets.append(self._offset)
            self._offset += len(word)
        top = [
            {self._spell(token): logprob for token, logprob in each.top} if each.top else None
            for _, each in found
        ]
        return {
            "tokens": spelled,
            "token_logprobs": [each.logprob for _, each in found],
            "top_logprobs": top if self.job.logprobs else None,
            "text_offset": offsets,
        }

    def _spell(self, token: int) -> str:
        """The text of a token; of one that is a part of a character, its bytes."""
        tokenizer = self._model.source.tokenizer
        if token == tokenizer.end_of_text:
            return "<|end|>"
        content = tokenizer.bytes_of(token)
        if content is not None:
            try:
                return content.decode()
            except UnicodeDecodeError:
                return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
        return tokenizer.decode([token])


class Completion:
    """A request to complete some prompts, from its jobs to its answer."""

    @classmethod
    async def begun(
        cls, asked: CompletionRequest, model: ServedModel, state: ServerState
    ) -> Completion:
        """The completion, in work; ApiError for a request that cannot be granted."""
        asked.require_supported()
        texts, n = _prompts(asked, model), asked.n or 1
        require_few(len(texts) * n, state.config, "prompt" if len(texts) > 1 else "n")
        prompts = [await encode(model, each, state.config.max_prompt) for each in texts]
        return cls(asked, model, state, texts, prompts)

    def __init__(
        self,
        asked: CompletionRequest,
        model: ServedModel,
        state: ServerState,
        texts: Sequence[Any],
        prompts: Sequence[Ids],
    ) -> None:
        self.asked, self._model = asked, model
        self.id, self.created = f"cmpl-{secrets.token_hex(12)}", int(time.time())
        length = 16 if asked.max_tokens is None else asked.max_tokens
        require_length(length, state.config, "max_tokens")
        if asked.logprobs is not None:
            require_scores(model, "logprobs")
        seed = secrets.randbits(63) if asked.seed is None else asked.seed % 2**63
        queue: asyncio.Queue[Any] = asyncio.Queue()
        tell = state.bridge.teller(queue)
        stops = Stops(asked.stops(), model.source.tokenizer)
        self.choices = list[Choice]()
        for index in range(len(prompts) * (asked.n or 1)):
            job = Job(
                start=first_snapshot(model.engine, seed + index),
                prompt=prompts[index // (asked.n or 1)],
                length=length,
                sampling=asked.sampling(),
                tell=tell,
                stops=stops,
                logprobs=asked.logprobs,
                echoes=bool(asked.echo) and asked.logprobs is not None,
            )
            self.choices.append(Choice(index, job, model, asked, texts[index // (asked.n or 1)]))
        self._by_job = {choice.job: choice for choice in self.choices}
        self.running = Running(model.scheduler, [c.job for c in self.choices], queue)

    async def pieces(self) -> AsyncIterator[tuple[Choice, str]]:
        """Each choice with what was added to its text, or with `finish` set."""
        for choice in self.choices:
            if choice.echo and not choice.job.echoes:
                yield choice, choice.echo
        async for job, progress in self.running.progress():
            choice = self._by_job[job]
            reason = finish_reason(progress.finish)
            if progress.read:
                choice.add_echoed(progress.likely)
                continue
            choice.add_likely(progress.tokens, progress.likely)
            ended = reason is not None
            text = choice.text.push(progress.tokens, ended)
            if choice.job.echoes and not choice.parts:
                text = choice.echo + text
            choice.finish = reason
            if text or ended:
                choice.parts.append(text)
                yield choice, text

    def usage(self) -> dict[str, int]:
        prompt = sum(len(c.job.prompt) for c in self.choices) // (self.asked.n or 1)
        written = sum(len(choice.job.written) for choice in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
        }

    def body(self, choices: Sequence[Any], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self._model.name,
            "choices": list(choices),
            **more,
        }

    async def whole(self) -> dict[str, Any]:
        """The answer, when all is written."""
        async for _ in self.pieces():
            pass
        parts = [
            {
                "text": ("" if c.job.echoes else c.echo) + "".join(c.parts),
                "index": c.index,
                "finish_reason": c.finish,
                "logprobs": c.take_logprobs(),
            }
            for c in self.choices
        ]
        return self.body(parts, usage=self.usage())

    async def events(self) -> AsyncIterator[str]:
        """The answer as the data of server-sent events."""
        try:
            async for choice, text in self.pieces():
                part = {
                    "text": text,
                    "index": choice.index,
                    "finish_reason": choice.finish,
                    "logprobs": choice.take_logprobs(),
                }
                yield json.dumps(self.body([part]))
            options = self.asked.stream_options
            if options is not None and options.include_usage:
                yield json.dumps(self.body([], usage=self.usage()))
        except ApiError as error:
            yield error.json()
        yield "[DONE]"


def _prompts(asked: CompletionRequest, model: ServedModel) -> list[Any]:
    prompt = model.source.prompt if asked.prompt is None else asked.prompt
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)


async def complete(request: Request) -> Response:
    """POST /v1/completions"""
    state: ServerState = request.app.state.server
    asked = await read_json(request, CompletionRequest, state.config)
    completion = await Completion.begun(asked, state.model(asked.model), state)
    if asked.stream:
        return EventStream(
            state.timed(completion.events(), request.state.began), completion.running.cancel
        )
    try:
        return JSONResponse(await unless_disconnected(request, completion.whole()))
    finally:
        completion.running.cancel()

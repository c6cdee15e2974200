"""Generating text from whatever computes a model. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import DEFAULT_LENGTH, Sampling
from zoo.data.tokenizer import encode_prompt
from zoo.errors import UsageError
from zoo.inference.engine import select_rows
from zoo.inference.position import Position, Stops
from zoo.inference.prompts import read_prompts
from zoo.inference.runtime import Source, open_source
from zoo.registry.registry import Registry


def stream(
    source: Source | str | Path,
    prompt: str | None = None,
    length: int = DEFAULT_LENGTH,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str | int] = (),
    provider: str = "auto",
    registry: Registry | None = None,
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece as it is generated; the prompt is not repeated.

    `source` is a run folder, an exported file, or an opened Source. Without a `prompt`, the one
    that the model was trained to show its samples with. `length` counts tokens; a token in `stop`,
    or a text that holds a string in `stop`, ends it before (and is part of it). The same seed gives
    the same text from every source of one model in full precision. Characters of the prompt that
    are not in the vocabulary become `<unk>`, with one ZooWarning. Raises UsageError for an empty
    prompt or a negative length.
    """
    if not isinstance(source, Source):
        source = open_source(source, provider, registry)
    sampling = Sampling.checked(temperature=temperature, top_k=top_k, top_p=top_p)
    return source.tokenizer.stream(continue_prompt(source, prompt, length, sampling, seed, stop))


def continue_prompt(
    source: Source,
    prompt: str | None,
    length: int,
    sampling: Sampling,
    seed: int = 0,
    stop: Sequence[str | int] = (),
) -> Iterator[int]:
    """The tokens whose text `stream` gives."""
    position = Position(source.writer(), seed, source.tokenizer.end_of_text)
    stops = Stops(stop, source.tokenizer)
    ids = encode_prompt(source.tokenizer, source.prompt if prompt is None else prompt)
    check_length(length)
    position.feed(ids)
    return position.write(length, sampling, stops)


def generate(
    source: Source | str | Path,
    prompt: str | None = None,
    length: int = DEFAULT_LENGTH,
    **settings: Any,
) -> str:
    """`prompt` and its continuation; takes what `stream` takes."""
    registry = settings.get("registry")
    if not isinstance(source, Source):
        source = open_source(source, settings.pop("provider", "auto"), registry)
    prompt = source.prompt if prompt is None else prompt
    return prompt + "".join(stream(source, prompt, length, **settings))


def generate_batch(
    source: Source | str | Path,
    prompts: Sequence[str],
    length: int = DEFAULT_LENGTH,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str | int] = (),
    provider: str = "auto",
    registry: Registry | None = None,
) -> list[str]:
    """Each prompt and its continuation, all computed together.

    Prompts may differ in length. Text number i is what `generate` gives for its prompt alone with
    the seed `seed + i`; each stops by itself. Otherwise as `stream`.
    """
    if not isinstance(source, Source):
        source = open_source(source, provider, registry)
    sampling = Sampling.checked(temperature=temperature, top_k=top_k, top_p=top_p)
    engine, stops = source.writer(), Stops(stop, source.tokenizer)
    check_length(length)
    ids = [encode_prompt(source.tokenizer, prompt) for prompt in prompts]
    randoms = [np.random.default_rng(seed + row) for row in range(len(prompts))]
    written: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    if not live or not length:
        return list(prompts)
    state, last = read_prompts(engine, ids)
    left = length
    while live and left:
        size = min(left, engine.chunk)
        draws = [randoms[row].random(size, dtype=np.float32) for row in live]
        tokens, state = engine.write(last, state, np.stack(draws, axis=1), sampling)
        last, left = tokens[-1], left - size
        going_on = [
            index
            for index, row in enumerate(live)
            if not stops.take(written[row], tokens[:, index])
        ]
        if len(going_on) < len(live):
            live = [live[index] for index in going_on]
            if live:
                state, last = select_rows(engine, state, going_on), last[going_on]
    return [
        prompt + source.tokenizer.decode(row) for prompt, row in zip(prompts, written, strict=True)
    ]


def check_length(length: int) -> None:
    if length < 0:
        raise UsageError(f"length must be at least 0 (got {length}).")

"""Generating text from whatever computes a model. Needs no torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.config import DEFAULT_LENGTH, Sampling
from zoo.engine import Engine, HasState, join_rows, select_rows
from zoo.errors import NoStepError, RunError, UsageError, ZooWarning
from zoo.position import Position, Stops
from zoo.registry import Registry, load_registry
from zoo.tokenizers import Ids, Tokenizer

if TYPE_CHECKING:
    from zoo.artifact import Runtime


@dataclass(frozen=True)
class Source:
    """Something that runs a model: a run in PyTorch, or an exported file.

    `engine` computes; what can be done with it is what protocols of `zoo.engine` it keeps. `prompt`
    is the one that the model was trained to show its samples with; `runs_on` names what computes.
    """

    engine: HasState
    tokenizer: Tokenizer
    prompt: str
    runs_on: str

    def writer(self) -> Engine:
        """The engine, if it can generate; NoStepError if it sees both sides of a token."""
        if not isinstance(self.engine, Engine):
            raise NoStepError("this model")
        return self.engine


def open_source(
    source: str | Path,
    provider: str = "auto",
    registry: Registry | None = None,
    *,
    scores: bool = False,
) -> Source:
    """A run folder, to be computed by PyTorch, or an exported file, by the runtime registered for
    its suffix; of a folder of exported files, the one that its runtime finds fastest, or one that
    `scores`. `provider` is "auto", "cpu" or "cuda"; ProviderError if it does not run here."""
    path = Path(source)
    registry = registry or load_registry()
    if path.is_dir():
        if exported := _exported_files(path, registry):
            runtime = find_runtime(exported[0], registry)
            return runtime.open(runtime.choose(exported, provider, scores=scores), provider)
        from zoo.run import open_run_source

        return open_run_source(path, provider, registry)
    if not path.exists():
        raise RunError(f"{path} does not exist; give a run folder or an exported file.")
    return find_runtime(path, registry).open(path, provider)


def _exported_files(folder: Path, registry: Registry) -> list[Path]:
    """The files in a folder that the runtime of the first of them opens."""
    for spec in registry.runtimes.values():
        if found := sorted(folder.glob(f"*{spec.suffix}")):
            return found
    return []


def find_runtime(path: Path, registry: Registry) -> Runtime:
    """The runtime registered for the suffix of the file at `path`."""
    for spec in registry.runtimes.values():
        if path.name.endswith(spec.suffix):
            runtime: Runtime = spec.load_factory()()
            return runtime
    suffixes = ", ".join(sorted(spec.suffix for spec in registry.runtimes.values())) or "none"
    raise RunError(
        f"{path} is neither a run folder nor a file that a runtime here opens ({suffixes})."
    )


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
    position = Position(source.writer(), seed)
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
            index for index, row in enumerate(live) if _take(written[row], tokens[:, index], stops)
        ]
        if len(going_on) < len(live):
            live = [live[index] for index in going_on]
            if live:
                state, last = select_rows(engine, state, going_on), last[going_on]
    return [
        prompt + source.tokenizer.decode(row) for prompt, row in zip(prompts, written, strict=True)
    ]


def _take(written: list[int], tokens: Ids, stops: Stops) -> bool:
    """Appends tokens up to the one to stop at; whether there was none."""
    for token in tokens.tolist():
        written.append(token)
        if stops.hit(written):
            return False
    return True


def read_prompts(engine: Engine, prompts: Sequence[Ids]) -> tuple[Any, Ids]:
    """The state of a batch in which each row has read its prompt but for the last token, and those
    last tokens. Prompts of one length are read together."""
    states: dict[int, Any] = {}
    for length in {len(prompt) for prompt in prompts}:
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        tokens = np.stack([prompts[row][:-1] for row in rows], axis=1)
        read = engine.read(tokens, engine.init_state(len(rows)))
        for index, row in enumerate(rows):
            states[row] = select_rows(engine, read, [index])
    joined = join_rows(engine, [states[row] for row in range(len(prompts))])
    return joined, np.array([prompt[-1] for prompt in prompts])


def check_length(length: int) -> None:
    if length < 0:
        raise UsageError(f"length must be at least 0 (got {length}).")


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> Ids:
    """The tokens of a prompt; UsageError if it is empty, one warning if a part is unknown."""
    if not prompt:
        raise UsageError("the prompt is empty; give at least one character to continue from.")
    if unknown := tokenizer.unknown(prompt):
        shown = unknown if len(unknown) <= 10 else unknown[:10] + "…"
        warnings.warn(
            f"the prompt has characters that the model never saw, read as <unk>: {shown!r}",
            ZooWarning,
            stacklevel=3,
        )
    return tokenizer.encode(prompt)

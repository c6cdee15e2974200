"""Generating text: one loop over one protocol, whatever computes the steps. Needs no torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.config import DEFAULT_LENGTH, Sampling
from zoo.errors import RunError, UsageError, ZooError, ZooWarning
from zoo.registry import Registry, load_registry
from zoo.sampling import choose
from zoo.tokenizers import Ids, Tokenizer

if TYPE_CHECKING:
    from zoo.artifact import Runtime

Logits: TypeAlias = npt.NDArray[np.floating]
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class Stepper(Protocol):
    """One step of a language model, with its state handed in and out.

    The type of the state is the stepper's own; nobody else looks inside. `state_to_arrays` gives
    its leaves by name ("layer0.h", batch-first), and `state_from_arrays` takes them back.
    """

    vocab_size: int

    def init_state(self, batch_size: int) -> Any:
        """The state before the first token."""

    def step(self, tokens: Ids, state: Any) -> tuple[Logits, Any]:
        """Logits [B, V] after one more token [B] in each row, and the next state."""

    def state_to_arrays(self, state: Any) -> Arrays:
        """The leaves of a state."""

    def state_from_arrays(self, arrays: Arrays) -> Any:
        """The state with these leaves."""


@dataclass(frozen=True)
class Source:
    """Something that text can be generated from: a run in PyTorch, or an exported file.

    `prompt` is the one it was trained to show its samples with; `runs_on` names what computes.
    """

    stepper: Stepper
    tokenizer: Tokenizer
    prompt: str
    runs_on: str


def generate_ids(
    stepper: Stepper, prompt: Ids, length: int, sampling: Sampling, seed: int = 0
) -> Iterator[int]:
    """`length` tokens that continue `prompt` (at least one token), one by one.

    The prompt warms the state up and gives no output. The draws are
    `numpy.random.default_rng(seed).random(dtype=float32)`, one for each token, whatever the
    temperature. Raises ZooError where the model's logits are not finite.
    """
    rng = np.random.default_rng(seed)
    state = stepper.init_state(1)
    for token in prompt[:-1]:
        _, state = stepper.step(np.array([token]), state)
    last = prompt[-1:]
    for index in range(length):
        logits, state = stepper.step(last, state)
        if not np.isfinite(logits).all():
            raise ZooError(f"the model's logits are not finite at generated token {index + 1}.")
        last = choose(logits, rng.random(1, dtype=np.float32), sampling)
        yield int(last[0])


def open_source(
    source: str | Path, provider: str = "auto", registry: Registry | None = None
) -> Source:
    """A run folder, to be computed by PyTorch, or an exported file, by the runtime registered for
    its suffix. `provider` is "auto", "cpu" or "cuda"; ProviderError if it does not run here."""
    path = Path(source)
    registry = registry or load_registry()
    if path.is_dir():
        from zoo.run import open_run_source

        return open_run_source(path, provider, registry)
    if not path.exists():
        raise RunError(f"{path} does not exist; give a run folder or an exported file.")
    return find_runtime(path, registry).open(path, provider)


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
    provider: str = "auto",
    registry: Registry | None = None,
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece as it is generated; the prompt is not repeated.

    `source` is a run folder, an exported file, or an opened Source. Without a `prompt`, the one
    that the model was trained to show its samples with. `length` counts tokens. The same seed gives
    the same text from every source of one model. Characters of the prompt that are not in the
    vocabulary become `<unk>`, with one ZooWarning. Raises UsageError for an empty prompt or a
    negative length.
    """
    if not isinstance(source, Source):
        source = open_source(source, provider, registry)
    sampling = Sampling.checked(temperature=temperature, top_k=top_k, top_p=top_p)
    ids = encode_prompt(source.tokenizer, source.prompt if prompt is None else prompt)
    if length < 0:
        raise UsageError(f"length must be at least 0 (got {length}).")
    return source.tokenizer.stream(generate_ids(source.stepper, ids, length, sampling, seed))


def generate(source: Source | str | Path, prompt: str | None = None, **settings: Any) -> str:
    """`prompt` and its continuation; takes what `stream` takes."""
    registry = settings.get("registry")
    if not isinstance(source, Source):
        source = open_source(source, settings.pop("provider", "auto"), registry)
    prompt = source.prompt if prompt is None else prompt
    return prompt + "".join(stream(source, prompt, **settings))


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

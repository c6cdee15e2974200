"""The ways to run a model, each as something to measure: PyTorch's, and those of exported files."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.benchmarking.roofline import Target
from zoo.config import Sampling
from zoo.data.tokenizers import Ids
from zoo.errors import ProviderError, one_line
from zoo.inference.artifact import SEQUENCE, STEP, ArtifactInfo
from zoo.inference.engine import Engine, Logits, Scorer
from zoo.inference.runtime import open_artifact
from zoo.models.device import choose_device
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelScorer, ModelStepper
from zoo.registry.registry import Registry

LOOP, COMPILED, FORWARD = "PyTorch loop", "PyTorch compiled", "PyTorch forward"
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
WINDOW = 64  # tokens of each row that are read at a time
COMPILE_SECONDS = 60.0  # most that torch.compile may take, for each batch size
CHUNKS = 16  # of random numbers; they come again and again
SAMPLING = Sampling(temperature=1.0)


@dataclass
class Workload:
    """Something to measure. `run` does a little of it and says how much: tokens, mostly. `reads` is
    whether they are read rather than written; `weight_bytes` those of one weight. Where it cannot
    be run, `reason` says why; `rates` are per second, as they are measured."""

    name: str
    batch: int
    run: Callable[[], int] = int
    reads: bool = False
    weight_bytes: int = 4
    reason: str = ""
    rates: list[float] = field(default_factory=list)

    def prepare(self) -> None:
        """Runs once, unmeasured; what has to be compiled for that is."""
        if self.name != COMPILED:
            self.run()
            return
        try:
            # without allow_rnn it refuses any model that holds a torch.nn layer, used or not
            with _deadline(COMPILE_SECONDS), torch._dynamo.config.patch(allow_rnn=True):
                self.run()
        except (Exception, _OutOfTime) as error:  # there is much that a compiler may stumble over
            self.reason = f"does not compile: {one_line(error)}"


class CompiledStepper(ModelStepper):
    """A ModelStepper whose step is translated by torch.compile, for each batch size."""

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        torch.compiler.reset()  # it keeps few translations, and counts those for other threads
        return torch.compile(self.model.step, fullgraph=True, dynamic=False)

    def step(self, tokens: Ids, state: tuple[Any, ...]) -> tuple[Logits, tuple[Any, ...]]:
        with torch.inference_mode():
            logits, state = self._compiled(torch.from_numpy(tokens).to(self._device), state)
            return logits.cpu().numpy(), state


def find_workloads(
    model: LanguageModel | None,
    files: Sequence[tuple[Path, ArtifactInfo]],
    place: Target,
    batches: Sequence[int],
    compiled: bool,
    registry: Registry,
) -> list[Workload]:
    """The ways to run the model and the files at this place, by batch size. A model in PyTorch is
    moved there. Of exported files only steps are tried on CUDA."""
    found = []
    for name, precision, reads, open_engine in _engines(model, files, place, compiled, registry):
        make: Callable[..., Callable[[], int]] = _reading if reads else writing
        size = WEIGHT_BYTES[precision]
        try:
            engine = open_engine()
            found += [Workload(name, batch, make(engine, batch), reads, size) for batch in batches]
        except ProviderError as error:
            reason = one_line(error)
            found += [Workload(name, batch, reads=reads, reason=reason) for batch in batches]
    return sorted(found, key=lambda way: batches.index(way.batch))


def _engines(
    model: LanguageModel | None,
    files: Sequence[tuple[Path, ArtifactInfo]],
    place: Target,
    compiled: bool,
    registry: Registry,
) -> Iterator[tuple[str, str, bool, Callable[[], Any]]]:
    """Name, precision, whether it reads, and how to get the engine."""
    kinds: dict[str, type[ModelScorer]] = {FORWARD: ModelScorer}
    if model is not None:
        if model.causal:
            kinds = {LOOP: ModelStepper, COMPILED: CompiledStepper, **kinds}
        for name, kind in kinds.items():
            if compiled or name != COMPILED:
                yield name, "fp32", name == FORWARD, partial(_open_model, kind, model, place)
    for path, info in files:
        if place.provider == "cpu" or info.graph == STEP:
            name = info.graph if info.precision == "fp32" else f"{info.graph} {info.precision}"
            open_engine = partial(_open_file, path, place, registry)
            yield name, info.precision, info.graph == SEQUENCE, open_engine


def _open_model(kind: type[ModelScorer], model: LanguageModel, place: Target) -> ModelScorer:
    return kind(model.to(choose_device(place.provider)))


def _open_file(path: Path, place: Target, registry: Registry) -> Any:
    return open_artifact(path, place.provider, registry, threads=place.threads).engine


def writing(engine: Engine, batch: int) -> Callable[[], int]:
    """Writes a chunk of tokens at each call, one text in each row."""
    rng = np.random.default_rng(0)
    chunks = cycle(rng.random((CHUNKS, engine.chunk, batch), dtype=np.float32))
    last, state = np.zeros(batch, np.int64), engine.init_state(batch)

    def run() -> int:
        nonlocal last, state
        tokens, state = engine.write(last, state, next(chunks), SAMPLING)
        last = tokens[-1]
        return tokens.size

    return run


def _reading(engine: Scorer, batch: int) -> Callable[[], int]:
    """Reads the same window at each call."""
    tokens = np.random.default_rng(0).integers(0, engine.vocab_size, (WINDOW, batch))
    state = engine.init_state(batch)

    def run() -> int:
        engine.logits(tokens, state)
        return tokens.size

    return run


class _OutOfTime(BaseException):
    """Not an Exception, so that nobody between takes it for one of their own."""


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """_OutOfTime in the block after so many seconds; on POSIX, and in the main thread, as nowhere
    else is there an alarm. One that was set before rings when it would have."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if sys.platform == "win32" or not in_main_thread:
        yield
        return

    def ring(*_: Any) -> None:
        raise _OutOfTime(f"not within {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    left, began = signal.setitimer(signal.ITIMER_REAL, seconds)[0], time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            rest = left - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(rest, 1e-3))

"""The workloads to run a model, each as something to measure: PyTorch's, and those of exported
files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.benchmarking.compiled import CompiledProcess, CompileError
from zoo.benchmarking.roofline import Target
from zoo.errors import ProviderError, one_line
from zoo.inference.artifact import SEQUENCE, STEP, ArtifactInfo
from zoo.inference.engine import Scorer
from zoo.inference.runtime import open_artifact
from zoo.inference.throughput import measure_throughput, writing
from zoo.models.device import choose_device
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelScorer, ModelStepper
from zoo.registry.registry import Registry
from zoo.registry.specs import FULL

LOOP, COMPILED, FORWARD = "PyTorch loop", "PyTorch compiled", "PyTorch forward"
WINDOW = 64  # tokens of each row that are read at a time
COMPILE_SECONDS = 60.0  # most that torch.compile may take, for each batch size


@dataclass
class Workload:
    """Something to measure. `run` does a little of it and says how much: tokens, mostly. `reads` is
    whether they are read rather than written, `precision` that of the weights. `reason` says why it
    cannot be run; `rates` are per second, as they are measured."""

    name: str
    batch: int
    run: Callable[[], int] = int
    reads: bool = False
    precision: str = FULL
    reason: str = ""
    rates: list[float] = field(default_factory=list)

    def prepare(self) -> None:
        """Runs once, unmeasured."""
        self.run()

    def measure(self, seconds: float, target: Target) -> float:
        """How much it does in a second, over at least so many."""
        return measure_throughput(self.run, seconds, target.synchronize)

    def close(self) -> None:
        """Ends what it has started."""


@dataclass
class CompiledWorkload(Workload):
    """Writing with a step through torch.compile, in a process of its own. `reason` says why where
    it does not compile, or not in time."""

    start: Callable[[], CompiledProcess] | None = None
    process: CompiledProcess | None = None

    def prepare(self) -> None:
        assert self.start is not None
        try:
            self.process = self.start()
        except CompileError as error:
            self.reason = f"does not compile: {error}"

    def measure(self, seconds: float, target: Target) -> float:
        assert self.process is not None
        return self.process.measure(seconds)

    def close(self) -> None:
        if self.process is not None:
            self.process.close()


def find_workloads(
    model: LanguageModel | None,
    files: Sequence[tuple[Path, ArtifactInfo]],
    target: Target,
    batches: Sequence[int],
    compiled: bool,
    registry: Registry,
    runtime: str | None = None,
) -> list[Workload]:
    """The workloads to run the model and the files at this target, by batch size. A model in
    PyTorch is moved there. Of exported files only steps are tried on CUDA."""
    found: list[Workload] = []
    for name, precision, reads, open_engine in _engines(model, files, target, registry, runtime):
        make: Callable[..., Callable[[], int]] = _reading if reads else writing
        try:
            engine = open_engine()
            found += [
                Workload(name, batch, make(engine, batch), reads, precision) for batch in batches
            ]
        except ProviderError as error:
            reason = one_line(error)
            found += [
                Workload(name, batch, reads=reads, precision=precision, reason=reason)
                for batch in batches
            ]
        if name == LOOP and compiled and model is not None:
            found += [_compiled(found[-1], model, target, batch) for batch in batches]
    return sorted(found, key=lambda workload: batches.index(workload.batch))


def _compiled(loop: Workload, model: LanguageModel, target: Target, batch: int) -> Workload:
    """Where PyTorch's loop does not run, a compiled one does not either."""
    if loop.reason:
        return Workload(COMPILED, batch, reason=loop.reason)
    start = partial(CompiledProcess, model, target, batch, COMPILE_SECONDS)
    return CompiledWorkload(COMPILED, batch, start=start)


def _engines(
    model: LanguageModel | None,
    files: Sequence[tuple[Path, ArtifactInfo]],
    target: Target,
    registry: Registry,
    runtime: str | None,
) -> Iterator[tuple[str, str, bool, Callable[[], Any]]]:
    """Name, precision, whether it reads, and how to get the engine."""
    kinds: dict[str, type[ModelScorer]] = {FORWARD: ModelScorer}
    if model is not None:
        if model.causal:
            kinds = {LOOP: ModelStepper, **kinds}
        for name, kind in kinds.items():
            yield name, FULL, name == FORWARD, partial(_open_model, kind, model, target)
    for path, info in files:
        if target.provider == "cpu" or info.graph == STEP:
            name = info.graph if info.precision == FULL else f"{info.graph} {info.precision}"
            open_engine = partial(_open_file, path, target, registry, runtime)
            yield name, info.precision, info.graph == SEQUENCE, open_engine


def _open_model(kind: type[ModelScorer], model: LanguageModel, target: Target) -> ModelScorer:
    return kind(model.to(choose_device(target.provider)))


def _open_file(path: Path, target: Target, registry: Registry, runtime: str | None) -> Any:
    return open_artifact(
        path, target.provider, registry, runtime=runtime, threads=target.threads
    ).engine


def _reading(engine: Scorer, batch: int) -> Callable[[], int]:
    """Reads the same window at each call."""
    tokens = np.random.default_rng(0).integers(0, engine.vocab_size, (WINDOW, batch))
    state = engine.init_state(batch)

    def run() -> int:
        engine.logits(tokens, state)
        return tokens.size

    return run

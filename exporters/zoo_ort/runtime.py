"""Opening exported files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort

from zoo.config import Sampling
from zoo.errors import ArtifactError, ProviderError, one_line
from zoo.inference.artifact import GENERATE, SEQUENCE, STEP, ArtifactInfo, SelfDescription
from zoo.inference.engine import Engine
from zoo.inference.runtime import Artifact, ProviderReport
from zoo.registry.registry import Registry
from zoo_ort.container import read_metadata
from zoo_ort.device_loop import DeviceEngine
from zoo_ort.engines import (
    INTERFACES,
    GenerateEngine,
    SequenceEngine,
    SequenceScorer,
    SessionEngine,
    StepEngine,
    interface,
)
from zoo_ort.inspection import inspect, read_file
from zoo_ort.providers import (
    CUDA,
    make_session,
    probe_providers,
    provider_name,
    resolve_provider,
)
from zoo_ort.tuning import choose_file, choose_threads

MEASURED_SECONDS, MEASURED_TOKENS = 0.03, 8  # at least, and at a time
DescriptionT = TypeVar("DescriptionT", bound=SelfDescription)


class OnnxRuntime:
    """See `zoo.inference.Runtime`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(self, path: Path, provider: str = "auto", threads: int | None = None) -> Artifact:
        info, as_checked = describe_file(path, ArtifactInfo)
        if info.graph not in INTERFACES:
            raise ArtifactError(f"{path} has a graph that this zoo does not run: {info.graph}.")
        if info.graph != STEP:
            if provider == "cuda":
                raise ProviderError(
                    f"{path} has a loop, and ONNX's loops run on the CPU; on CUDA use the step "
                    f"graph."
                )
            provider = "cpu"
        if threads is None:
            on_cpu = resolve_provider(provider) == "cpu"
            threads = choose_threads(path, self._speed) if on_cpu and info.causal else 1
        session = open_session(path, as_checked, provider, threads)
        check_interface(path, session, *interface(info))
        return Artifact(
            engine=self._engine(path, as_checked, session, info, threads),
            tokenizer=info.tokenizer,
            prompt=info.training.prompt,
            runs_on=f"ONNX Runtime on {provider_name(session)}",
            info=info,
        )

    def choose(self, paths: Sequence[Path], provider: str, *, scores: bool = False) -> Path:
        infos = {path: describe_file(path, ArtifactInfo)[0] for path in paths}
        if len({info.weights for info in infos.values()}) > 1:
            raise ArtifactError(f"{paths[0].parent} holds files of several models; name one.")
        full = [path for path in paths if infos[path].precision == "fp32"]
        by_graph = {infos[path].graph: path for path in reversed(full or paths)}
        if scores and (found := by_graph.get(SEQUENCE) or by_graph.get(STEP)):
            return found
        if resolve_provider(provider) == "cuda" and STEP in by_graph:
            return by_graph[STEP]
        writers = [by_graph[graph] for graph in (GENERATE, STEP) if graph in by_graph]
        return choose_file(writers, self._speed) if writers else next(iter(by_graph.values()))

    def probe(self) -> Sequence[ProviderReport]:
        return probe_providers()

    def _speed(self, path: Path, threads: int) -> float:
        """Tokens per second of one row, after a warm-up."""
        engine = self.open(path, "cpu", threads).engine
        if not isinstance(engine, Engine):
            raise ArtifactError(f"{path} does not generate.")
        last, state = np.zeros(1, np.int64), engine.init_state(1)
        uniform = np.full((min(engine.chunk, MEASURED_TOKENS), 1), 0.5, np.float32)
        _, state = engine.write(last, state, uniform, Sampling(temperature=1.0))
        tokens, seconds, began = 0, 0.0, time.perf_counter()
        while seconds < MEASURED_SECONDS:
            _, state = engine.write(last, state, uniform, Sampling(temperature=1.0))
            tokens += len(uniform)
            seconds = time.perf_counter() - began
        return tokens / seconds

    def _engine(
        self,
        path: Path,
        as_checked: tuple[int, ...],
        session: ort.InferenceSession,
        info: ArtifactInfo,
        threads: int,
    ) -> SessionEngine:
        if info.graph == SEQUENCE:
            return (SequenceEngine if info.causal else SequenceScorer)(session, info)
        if session.get_providers()[0] == CUDA:
            content = path.read_bytes()
            require_same(path, as_checked)
            return DeviceEngine(session, info, content, provider_name(session).lower())
        beside = cache(partial(self._sequence_beside, path, info, threads))
        if info.graph == GENERATE:
            return GenerateEngine(session, info, beside)
        return StepEngine(session, info, beside)

    def _sequence_beside(
        self, path: Path, info: ArtifactInfo, threads: int
    ) -> SequenceEngine | None:
        """The sequence graph in the same folder that is of the same weights and precision; None
        where there is none that can be opened. It reads long prompts on the CPU; without it they
        are read step by step."""
        other = path.with_name(path.name.replace(info.graph, SEQUENCE, 1))
        if other == path or not other.is_file():
            return None
        try:
            artifact = self.open(other, "cpu", threads)
        except ArtifactError:
            return None
        same = (artifact.info.weights, artifact.info.precision) == (info.weights, info.precision)
        engine = artifact.engine
        return engine if isinstance(engine, SequenceEngine) and same and info.weights else None


def describe_file(
    path: Path, description: type[DescriptionT]
) -> tuple[DescriptionT, tuple[int, ...]]:
    """What a file says of itself, after all of it was checked, and the identity of what was.

    The bytes are let go of: ONNX Runtime reads the file itself, and two copies would not fit where
    one does.
    """
    as_checked = _identity(path)
    content = read_file(path)
    try:
        info = description.from_metadata(read_metadata(path, content))
        inspect(path, content)
    except ArtifactError as error:
        message = str(error)
        raise ArtifactError(message if str(path) in message else f"{path}: {message}") from None
    return info, as_checked


def open_session(
    path: Path, as_checked: tuple[int, ...], provider: str, threads: int
) -> ort.InferenceSession:
    """A session on a file that was checked, and that has not changed since."""
    try:
        session = make_session(path, provider, threads)
    except ProviderError:
        raise
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        raise ArtifactError(f"ONNX Runtime cannot open {path}: {one_line(error)}") from None
    require_same(path, as_checked)
    return session


def require_same(path: Path, as_checked: tuple[int, ...]) -> None:
    """ArtifactError for a file that is no longer the one that was checked."""
    if _identity(path) != as_checked:
        raise ArtifactError(f"{path} changed while it was opened; open it again.")


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when a file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_interface(
    path: Path, session: ort.InferenceSession, inputs: list[str], outputs: list[str]
) -> None:
    """Compares the graph's inputs and outputs with what the metadata says of them."""
    for found, wanted in (
        ([value.name for value in session.get_inputs()], inputs),
        ([value.name for value in session.get_outputs()], outputs),
    ):
        if found != wanted:
            raise ArtifactError(f"{path} has {found} where its metadata says {wanted}.")

"""Opens exported files in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import onnxruntime as ort

from zoo.errors import ArtifactError, ProviderError
from zoo.inference.artifact import AGAIN, GENERATE, SEQUENCE, STEP, ArtifactInfo, SelfDescription
from zoo.inference.engine import Engine
from zoo.inference.runtime import MEASURE, Artifact, ProviderReport, Threads
from zoo.inference.throughput import measure_throughput, writing
from zoo.registry.registry import Registry
from zoo.registry.specs import FULL
from zoo_ort.container import read_metadata
from zoo_ort.device_loop import DeviceEngine
from zoo_ort.engines import (
    GenerateEngine,
    PromptReader,
    SequenceEngine,
    SequenceScorer,
    SessionEngine,
    StepEngine,
)
from zoo_ort.inspection import inspect, read_file
from zoo_ort.interface import GRAPHS, check_interface, language_interface
from zoo_ort.providers import (
    CUDA,
    make_session,
    probe_providers,
    provider_name,
    resolve_provider,
    told,
)
from zoo_ort.rules import WITHOUT
from zoo_ort.tuning import fastest_threads, usual_threads

MEASURED_SECONDS = 0.03  # minimum
DescriptionT = TypeVar("DescriptionT", bound=SelfDescription)


class OnnxRuntime:
    """See `zoo.inference.Runtime`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(
        self,
        files: Sequence[Path],
        provider: str = "auto",
        threads: Threads = None,
        *,
        scores: bool = False,
    ) -> Artifact:
        described = {path: describe_file(path, ArtifactInfo, self._registry) for path in files}
        infos = {path: info for path, (info, _) in described.items()}
        path = _choose(infos, provider, scores)
        info, as_checked = described[path]
        if info.graph not in GRAPHS:
            raise ArtifactError(
                f"{path} has a graph {info.graph!r}, which this version of the zoo cannot run; "
                f"{AGAIN}."
            )
        if info.graph != STEP:
            if provider == "cuda":
                raise ProviderError(
                    f"{path} has a loop, and ONNX's loops run on the CPU; on CUDA use the step "
                    f"graph."
                )
            provider = "cpu"
        on_cpu = resolve_provider(provider) == "cpu"
        writes = info.causal and info.tokenizer is not None
        if threads == MEASURE and on_cpu and writes:
            count = fastest_threads(path, self._speed)
        elif isinstance(threads, int):
            count = threads
        else:
            count = usual_threads(path) if on_cpu else 1
        session = open_session(path, as_checked, provider, count)
        check_interface(path, session, *language_interface(info))
        reader = cache(partial(self._prompt_reader, infos, info, count))
        return Artifact(
            engine=_engine(path, as_checked, session, info, reader),
            tokenizer_or_none=info.tokenizer,
            prompt=info.training.prompt,
            runs_on=f"ONNX Runtime on {provider_name(session)}",
            info=info,
        )

    def probe(self) -> Sequence[ProviderReport]:
        return probe_providers()

    def _speed(self, path: Path, threads: int) -> float:
        """Tokens per second at batch size 1, after a warm-up."""
        engine = self.open([path], "cpu", threads).engine
        if not isinstance(engine, Engine):
            raise ArtifactError(f"{path} does not generate.")
        write = writing(engine, batch=1)
        write()
        return measure_throughput(write, MEASURED_SECONDS)

    def _prompt_reader(
        self, infos: Mapping[Path, ArtifactInfo], info: ArtifactInfo, threads: int
    ) -> SequenceEngine | None:
        """The sequence graph among the files with the weights and precision of `info`, if any. It
        reads prompts on the CPU; without it they are read step by step."""
        for path, other in infos.items():
            same = _model(other) == _model(info)
            if other.graph == SEQUENCE and same and other.causal and info.weights:
                engine = self.open([path], "cpu", threads).engine
                assert isinstance(engine, SequenceEngine)
                return engine
        return None


def _choose(infos: Mapping[Path, ArtifactInfo], provider: str, scores: bool) -> Path:
    """The file to run, of the files of one model. Full precision is preferred; then a graph with
    logits if `scores`; the step graph on CUDA, where ONNX's loops do not run; else the generate
    graph."""
    if len({info.weights for info in infos.values()}) > 1:
        raise ArtifactError(f"{next(iter(infos)).parent} holds files of several models; name one.")
    full = [path for path, info in infos.items() if info.precision == FULL]
    by_graph = {infos[path].graph: path for path in reversed(full or list(infos))}
    if scores:
        order = (SEQUENCE, STEP)
    elif resolve_provider(provider) == "cuda":
        order = (STEP, GENERATE)
    else:
        order = (GENERATE, STEP)
    return next((by_graph[graph] for graph in order if graph in by_graph), next(iter(infos)))


def _model(info: ArtifactInfo) -> tuple[Any, ...]:
    """What two files have alike if one can go on from the other's state."""
    return info.weights, info.precision, info.tokenizer, info.interface, info.state


def _engine(
    path: Path,
    as_checked: tuple[int, ...],
    session: ort.InferenceSession,
    info: ArtifactInfo,
    reader: PromptReader,
) -> SessionEngine:
    if info.graph == SEQUENCE:
        return (SequenceEngine if info.causal else SequenceScorer)(session, info)
    if session.get_providers()[0] == CUDA and info.tokenizer is not None:
        content = path.read_bytes()
        require_same(path, as_checked)
        return DeviceEngine(session, info, content, provider_name(session).lower())
    return (GenerateEngine if info.graph == GENERATE else StepEngine)(session, info, reader)


def describe_file(
    path: Path,
    description: type[DescriptionT],
    registry: Registry | None = None,
    *,
    unlisted: str | None = WITHOUT,
) -> tuple[DescriptionT, tuple[int, ...]]:
    """The metadata of a file, all of which is checked, and the file's identity; `unlisted` as
    `inspect` takes it.

    The bytes are not kept: ONNX Runtime reads the file itself, and a second copy may not fit in
    memory.
    """
    as_checked = _identity(path)
    content = read_file(path)
    try:
        info = description.from_metadata(read_metadata(path, content), registry)
        inspect(path, content, unlisted)
    except ArtifactError as error:
        message = str(error)
        raise ArtifactError(message if str(path) in message else f"{path}: {message}") from None
    return info, as_checked


def open_session(
    path: Path, as_checked: tuple[int, ...], provider: str, threads: int
) -> ort.InferenceSession:
    """A session on a file that was checked and has not changed since."""
    try:
        session = make_session(path, provider, threads)
    except ProviderError:
        raise
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        raise ArtifactError(f"ONNX Runtime cannot open {path}: {told(error)}; {AGAIN}.") from None
    require_same(path, as_checked)
    return session


def require_same(path: Path, as_checked: tuple[int, ...]) -> None:
    """Raises ArtifactError for a file that changed after it was checked."""
    if _identity(path) != as_checked:
        raise ArtifactError(f"{path} changed while it was opened; open it again.")


def _identity(path: Path) -> tuple[int, ...]:
    """Attributes that change when a file is replaced or written."""
    try:
        status = path.stat()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

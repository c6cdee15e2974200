"""Opening exported files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from zoo.artifact import GENERATE, SEQUENCE, STEP, Artifact, ArtifactInfo, ProviderReport
from zoo.config import Sampling
from zoo.engine import Engine
from zoo.errors import ArtifactError, ProviderError, one_line
from zoo_ort.container import read_metadata
from zoo_ort.device_loop import DeviceEngine
from zoo_ort.engines import (
    INTERFACES,
    Beside,
    GenerateEngine,
    SequenceEngine,
    SequenceScorer,
    SessionEngine,
    StepEngine,
    interface,
)
from zoo_ort.inspection import inspect, read_file
from zoo_ort.providers import CUDA, make_session, probe_providers, provider_name
from zoo_ort.tuning import choose_file, choose_threads

MEASURED_SECONDS = 0.04


class OnnxRuntime:
    """See `zoo.artifact.Runtime`."""

    def open(self, path: Path, provider: str = "auto", threads: int | None = None) -> Artifact:
        content, info = read_artifact(path)
        if threads is None:
            threads = choose_threads(path, self._speed) if info.model.mask_token is False else 1
        try:
            session = make_session(content, provider, threads)
        except ProviderError as error:
            if info.graph == STEP:
                raise
            raise ProviderError(
                f"{one_line(error)} ONNX's loops run on the CPU; on CUDA use the step graph."
            ) from None
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise ArtifactError(f"ONNX Runtime cannot open {path}: {one_line(error)}") from None
        _check_interface(path, session, info)
        return Artifact(
            engine=self._engine(path, content, session, info, threads),
            tokenizer=info.tokenizer,
            prompt=info.training.prompt,
            runs_on=f"ONNX Runtime on {provider_name(session)}",
            info=info,
        )

    def choose(self, paths: Sequence[Path]) -> Path:
        infos = {path: read_artifact(path)[1] for path in paths}
        if len({info.weights for info in infos.values()}) > 1:
            raise ArtifactError(f"{paths[0].parent} holds files of several models; name one.")
        full = [path for path, info in infos.items() if info.precision == "fp32"]
        causal = [path for path in full or paths if not infos[path].model.mask_token]
        return choose_file(causal, self._speed) if causal else paths[0]

    def probe(self) -> Sequence[ProviderReport]:
        return probe_providers()

    def _speed(self, path: Path, threads: int) -> float:
        """Tokens per second of one row, after a warm-up."""
        engine = self.open(path, "cpu", threads).engine
        if not isinstance(engine, Engine):
            raise ArtifactError(f"{path} does not generate.")
        last, state = np.zeros(1, np.int64), engine.init_state(1)
        uniform = np.full((engine.chunk, 1), 0.5, np.float32)
        tokens, began = -engine.chunk, 0.0
        while not began or time.perf_counter() - began < MEASURED_SECONDS:
            began = began or time.perf_counter() if tokens >= 0 else 0.0
            _, state = engine.write(last, state, uniform, Sampling(temperature=1.0))
            tokens += engine.chunk
        return tokens / (time.perf_counter() - began)

    def _engine(
        self,
        path: Path,
        content: bytes,
        session: ort.InferenceSession,
        info: ArtifactInfo,
        threads: int,
    ) -> SessionEngine:
        if info.graph == SEQUENCE:
            return (SequenceScorer if info.model.mask_token else SequenceEngine)(session, info)
        provider = provider_name(session).lower()
        beside = self._find_beside(path, info, provider, threads)
        if info.graph == GENERATE:
            return GenerateEngine(session, info, beside)
        if session.get_providers()[0] == CUDA:
            return DeviceEngine(session, info, beside, content, provider)
        return StepEngine(session, info, beside)

    def _find_beside(self, path: Path, info: ArtifactInfo, provider: str, threads: int) -> Beside:
        """Finds, when it is first asked, the sequence graph in the same folder that is of the same
        weights and precision. It reads long prompts; without it they are read step by step."""
        found: list[SequenceEngine | None] = []

        def beside() -> SequenceEngine | None:
            if not found:
                other = path.with_name(path.name.replace(info.graph, SEQUENCE, 1))
                found.append(None)
                if other != path and other.is_file():
                    artifact = self.open(other, provider, threads)
                    same = (artifact.info.weights, artifact.info.precision)
                    if same == (info.weights, info.precision) and info.weights:
                        assert isinstance(artifact.engine, SequenceEngine)
                        found[0] = artifact.engine
            return found[0]

        return beside


def read_artifact(path: Path) -> tuple[bytes, ArtifactInfo]:
    """The file's bytes and what they say of themselves, after all of it was checked."""
    content = read_file(path)
    try:
        info = ArtifactInfo.from_metadata(read_metadata(path, content))
        inspect(path, content)
        if info.graph not in INTERFACES:
            raise ArtifactError(f"its graph is of a kind that this zoo does not run: {info.graph}.")
    except ArtifactError as error:
        message = str(error)
        raise ArtifactError(message if str(path) in message else f"{path}: {message}") from None
    return content, info


def _check_interface(path: Path, session: ort.InferenceSession, info: ArtifactInfo) -> None:
    """Compares the graph's inputs and outputs with what the metadata says of them."""
    inputs, outputs = interface(info)
    for found, wanted in (
        ([value.name for value in session.get_inputs()], inputs),
        ([value.name for value in session.get_outputs()], outputs),
    ):
        if found != wanted:
            raise ArtifactError(f"{path} has {found} where its metadata says {wanted}.")

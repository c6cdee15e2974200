"""Opening an exported file, and stepping it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from zoo.artifact import LOGITS, TOKEN, Artifact, ArtifactInfo, ProviderReport
from zoo.errors import ArtifactError, ProviderError, one_line
from zoo.generator import Arrays, Logits
from zoo.tokenizers import Ids
from zoo_ort.container import read_metadata
from zoo_ort.providers import make_session, probe_providers, provider_name

State = tuple[np.ndarray, ...]


class OnnxRuntime:
    """See `zoo.artifact.Runtime`."""

    def open(self, path: Path, provider: str) -> Artifact:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from None
        try:
            info = ArtifactInfo.from_metadata(read_metadata(path, content))
        except ArtifactError as error:
            message = str(error)
            raise ArtifactError(message if str(path) in message else f"{path}: {message}") from None
        try:
            session = make_session(content, provider)
        except ProviderError:
            raise
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise ArtifactError(f"ONNX Runtime cannot open {path}: {one_line(error)}") from None
        _check_interface(path, session, info)
        return Artifact(
            stepper=SessionStepper(session, info),
            tokenizer=info.tokenizer,
            prompt=info.training.prompt,
            runs_on=f"ONNX Runtime on {provider_name(session)}",
            info=info,
        )

    def probe(self) -> Sequence[ProviderReport]:
        return probe_providers()


class SessionStepper:
    """A session on `step.onnx` as a `zoo.generator.Stepper`; a state is the tuple of its leaves."""

    def __init__(self, session: ort.InferenceSession, info: ArtifactInfo) -> None:
        self.vocab_size = info.tokenizer.vocab_size
        self._session = session
        self._entries = info.state
        self._inputs = info.state_names("in")
        self._outputs = [LOGITS, *info.state_names("out")]

    def init_state(self, batch_size: int) -> State:
        return tuple(entry.initial_rows(batch_size) for entry in self._entries)

    def step(self, tokens: Ids, state: State) -> tuple[Logits, State]:
        feeds = {TOKEN: tokens, **dict(zip(self._inputs, state, strict=True))}
        logits, *leaves = self._session.run(self._outputs, feeds)
        return logits, tuple(leaves)

    def state_to_arrays(self, state: State) -> Arrays:
        return {entry.name: leaf for entry, leaf in zip(self._entries, state, strict=True)}

    def state_from_arrays(self, arrays: Arrays) -> State:
        return tuple(np.asarray(arrays[entry.name], entry.dtype) for entry in self._entries)


def _check_interface(path: Path, session: ort.InferenceSession, info: ArtifactInfo) -> None:
    """Compares the graph's inputs and outputs with what the metadata says of them."""
    for found, wanted in (
        ([value.name for value in session.get_inputs()], [TOKEN, *info.state_names("in")]),
        ([value.name for value in session.get_outputs()], [LOGITS, *info.state_names("out")]),
    ):
        if found != wanted:
            raise ArtifactError(f"{path} has {found} where its metadata says {wanted}.")

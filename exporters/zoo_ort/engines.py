"""Engines (see `zoo.inference.engine`) over ONNX Runtime sessions. A state is the tuple of its
leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from zoo.config import Sampling
from zoo.data.tokenizer import Ids
from zoo.errors import ArtifactError
from zoo.inference.artifact import AGAIN, SAMPLING_INPUTS, UNIFORM, ArtifactInfo
from zoo.inference.engine import Arrays, Logits, NotFiniteError, StepLoop, Uniform, is_finite
from zoo.inference.prompts import pieces
from zoo.inference.sampling import Samplings, rows_by_sampling
from zoo_ort.interface import language_interface, require_shapes
from zoo_ort.providers import run_session

State = tuple[np.ndarray, ...]
PromptReader = Callable[[], "SequenceEngine | None"]  # the sequence graph of the same model, if any

CHUNK = 32  # tokens per run of the generate graph
SEQUENCE_CHUNK = 256  # tokens per run of the sequence graph, which computes the logits of each


class SessionEngine:
    """Common to the engines of all graphs: the state, as the metadata describes it."""

    def __init__(self, session: ort.InferenceSession, info: ArtifactInfo) -> None:
        self.interface = info.ends
        self.vocab_size = self.interface.outputs
        self.mask_token = self.vocab_size if info.model.mask_token else None
        self.session = session
        self._entries = info.state
        self._inputs = info.state_names("in")
        self._outputs = info.state_names("out")
        (tokens, *_), (result, *_) = language_interface(info)
        self._tokens, self._result = tokens.name, result.name
        self._initial = self.init_state(1)

    def init_state(self, batch_size: int) -> State:
        return tuple(entry.initial_rows(batch_size) for entry in self._entries)

    def state_to_arrays(self, state: State) -> Arrays:
        return {entry.name: leaf for entry, leaf in zip(self._entries, state, strict=True)}

    def state_from_arrays(self, arrays: Arrays) -> State:
        return tuple(np.asarray(arrays[entry.name], entry.dtype) for entry in self._entries)

    def _require_finite(self, state: State) -> None:
        """Raises NotFiniteError for a state that is not finite: logits stay in the graph."""
        if not is_finite(state, self._initial):
            raise NotFiniteError

    def _run(
        self, tokens: Ids, state: State, shape: tuple[int, ...], **feeds: Any
    ) -> tuple[Any, State]:
        """One run on tokens [B] or [B, T]: the output, which is to be of this shape, and the next
        state."""
        feeds |= {self._tokens: tokens, **dict(zip(self._inputs, state, strict=True))}
        names = [self._result, *self._outputs]
        result, *leaves = found = run_session(self.session, names, feeds)
        states = [(len(tokens), *entry.shape) for entry in self._entries]
        require_shapes(names, found, [shape, *states])
        return result, tuple(leaves)

    def _require_tokens(self, tokens: Ids) -> None:
        """Raises ArtifactError for tokens that the tokenizer does not have."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            raise ArtifactError(
                f"the graph writes tokens from {tokens.min()} to {tokens.max()} and its tokenizer "
                f"has {self.vocab_size}; {AGAIN}."
            )


class StepEngine(SessionEngine, StepLoop):
    """step.onnx: each run returns logits, and the token is sampled here."""

    def __init__(
        self, session: ort.InferenceSession, info: ArtifactInfo, reader: PromptReader = lambda: None
    ) -> None:
        super().__init__(session, info)
        self._reader = reader

    def step(self, tokens: Ids, state: State) -> tuple[Logits, State]:
        return self._run(tokens, state, (len(tokens), self.vocab_size))

    def read(self, tokens: Ids, state: State) -> State:
        if len(tokens) and (sequence := self._reader()):
            return sequence.read(tokens, state)
        read: State = super().read(tokens, state)
        return read


class GenerateEngine(SessionEngine):
    """generate.onnx: the loop and the sampling are in the graph."""

    chunk = CHUNK

    def __init__(
        self, session: ort.InferenceSession, info: ArtifactInfo, reader: PromptReader = lambda: None
    ) -> None:
        super().__init__(session, info)
        self._reader = reader
        self._one_sampling = info.format == "1"

    def read(self, tokens: Ids, state: State) -> State:
        """Without a sequence graph each token is the input of a one-step run, whose sampled token
        is discarded."""
        if not len(tokens):
            return state
        if sequence := self._reader():
            return sequence.read(tokens, state)
        feeds = {**self._settings(Sampling(), tokens.shape[1])}
        feeds[UNIFORM] = np.zeros((1, tokens.shape[1]), np.float32)
        for column in tokens:
            written, state = self._run(column, state, (1, len(column)), **feeds)
        self._require_finite(state)
        self._require_tokens(written)
        return state

    def write(
        self, last: Ids, state: State, uniform: Uniform, sampling: Samplings
    ) -> tuple[Ids, State]:
        if self._one_sampling and not isinstance(sampling, Sampling):
            return self._write_apart(last, state, uniform, sampling)
        feeds = self._settings(sampling, len(last))
        feeds[UNIFORM] = uniform
        tokens, state = self._run(last, state, uniform.shape, **feeds)
        self._require_finite(state)
        self._require_tokens(tokens)
        return tokens, state

    def _settings(self, sampling: Samplings, rows: int) -> dict[str, Any]:
        if isinstance(sampling, Sampling):
            sampling = [sampling] * (1 if self._one_sampling else rows)
        columns: list[npt.NDArray[Any]] = [
            np.array([0.0 if each.greedy else each.temperature for each in sampling], np.float32),
            np.array([each.top_k for each in sampling], np.int64),
            np.array([each.top_p for each in sampling], np.float32),
        ]
        if self._one_sampling:
            columns = [column.reshape(()) for column in columns]
        return dict(zip(SAMPLING_INPUTS, columns, strict=True))

    def _write_apart(
        self, last: Ids, state: State, uniform: Uniform, sampling: Sequence[Sampling]
    ) -> tuple[Ids, State]:
        """Rows of other settings in other runs, as the graph takes one for all."""
        tokens = np.empty(uniform.shape, np.int64)
        after = tuple(np.empty_like(leaf) for leaf in state)
        for own, rows in rows_by_sampling(sampling, len(last)).items():
            some = tuple(leaf[rows] for leaf in state)
            tokens[:, rows], found = self.write(last[rows], some, uniform[:, rows], own)
            for leaf, part in zip(after, found, strict=True):
                leaf[rows] = part
        return tokens, after


class SequenceScorer(SessionEngine):
    """sequence.onnx: whole sequences."""

    def logits(self, tokens: Ids, state: State) -> tuple[Logits, State]:
        found = []
        for start in range(0, len(tokens), self.chunk_length(len(tokens))):
            piece = tokens[start : start + self.chunk_length(len(tokens))]
            chunk = np.ascontiguousarray(piece.swapaxes(0, 1))
            logits, state = self._run(chunk, state, (*chunk.shape[:2], self.vocab_size))
            found.append(logits.swapaxes(0, 1))
        return np.concatenate(found), state

    def chunk_length(self, length: int) -> int:
        """Tokens per run: all of them, as the model is not causal."""
        return length


class SequenceEngine(SequenceScorer, StepLoop):
    """sequence.onnx of a causal model: a step is a sequence of one."""

    def chunk_length(self, length: int) -> int:
        return SEQUENCE_CHUNK

    def step(self, tokens: Ids, state: State) -> tuple[Logits, State]:
        logits, state = self._run(tokens[:, None], state, (len(tokens), 1, self.vocab_size))
        return logits[:, 0], state

    def read(self, tokens: Ids, state: State) -> State:
        start = 0
        for size in pieces(len(tokens), self.vocab_size):
            piece = np.ascontiguousarray(tokens[start : start + size].swapaxes(0, 1))
            _, state = self._run(piece, state, (*piece.shape[:2], self.vocab_size))
            start += size
        return state

"""Sessions on exported graphs as engines (see `zoo.inference.engine`). A state is the tuple of its
leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort

from zoo.config import Sampling
from zoo.data.tokenizers import Ids
from zoo.errors import ArtifactError
from zoo.inference.artifact import (
    GENERATE,
    LOGITS,
    SAMPLING_INPUTS,
    SEQUENCE,
    STEP,
    TOKEN,
    TOKENS,
    UNIFORM,
    ArtifactInfo,
)
from zoo.inference.engine import Arrays, Logits, NotFiniteError, StepLoop, Uniform, is_finite
from zoo_ort.providers import run_session

State = tuple[np.ndarray, ...]
PromptReader = Callable[[], "SequenceEngine | None"]  # the sequence graph of the same model, if any

CHUNK = 32  # tokens that a run of the generate graph writes
LONG = 64  # tokens from which a prompt is worth opening the sequence graph for
PIECE = 256  # tokens that the sequence graph reads in one run: it computes the logits of each


class SessionEngine:
    """What engines over all kinds of graph share: the state, by the file's metadata."""

    def __init__(self, session: ort.InferenceSession, info: ArtifactInfo) -> None:
        self.vocab_size = info.tokenizer.vocab_size
        self.mask_token = self.vocab_size if info.model.mask_token else None
        self.session = session
        self._entries = info.state
        self._inputs = info.state_names("in")
        self._outputs = info.state_names("out")
        rank = 3 if info.graph == SEQUENCE else 2
        self._initial = self.init_state(1)
        self._ranks = [rank, *(1 + len(entry.shape) for entry in info.state)]

    def init_state(self, batch_size: int) -> State:
        return tuple(entry.initial_rows(batch_size) for entry in self._entries)

    def state_to_arrays(self, state: State) -> Arrays:
        return {entry.name: leaf for entry, leaf in zip(self._entries, state, strict=True)}

    def state_from_arrays(self, arrays: Arrays) -> State:
        return tuple(np.asarray(arrays[entry.name], entry.dtype) for entry in self._entries)

    def _require_finite(self, state: State) -> None:
        """NotFiniteError for a state with numbers that are not: logits are not seen here."""
        if not is_finite(state, self._initial):
            raise NotFiniteError

    def _run(self, output: str, state: State, **feeds: Any) -> tuple[Any, State]:
        """One run: the output by that name, and the next state."""
        feeds.update(zip(self._inputs, state, strict=True))
        result, *leaves = run_session(self.session, [output, *self._outputs], feeds)
        found = [result.ndim, *(leaf.ndim for leaf in leaves)]
        if found != self._ranks:  # ONNX Runtime does not hold a graph to the shapes it declares
            raise ArtifactError("the graph's outputs are not what it says; export the run again.")
        return result, tuple(leaves)


class StepEngine(SessionEngine, StepLoop):
    """step.onnx: logits come back at every step, and the token is chosen here."""

    def __init__(
        self, session: ort.InferenceSession, info: ArtifactInfo, reader: PromptReader = lambda: None
    ) -> None:
        super().__init__(session, info)
        self._reader = reader

    def step(self, tokens: Ids, state: State) -> tuple[Logits, State]:
        return self._run(LOGITS, state, **{TOKEN: tokens})

    def read(self, tokens: Ids, state: State) -> State:
        if len(tokens) >= LONG and (sequence := self._reader()):
            return sequence.read(tokens, state)
        read: State = super().read(tokens, state)
        return read


class GenerateEngine(SessionEngine):
    """generate.onnx: the loop and the choice of tokens are in the graph."""

    chunk = CHUNK

    def __init__(
        self, session: ort.InferenceSession, info: ArtifactInfo, reader: PromptReader = lambda: None
    ) -> None:
        super().__init__(session, info)
        self._reader = reader

    def read(self, tokens: Ids, state: State) -> State:
        """Each token is given to a run of one step, whose own choice is left aside."""
        if len(tokens) >= LONG and (sequence := self._reader()):
            return sequence.read(tokens, state)
        for column in tokens:
            nothing = np.zeros((1, len(column)), np.float32)
            _, state = self.write(column, state, nothing, Sampling())
        return state

    def write(
        self, last: Ids, state: State, uniform: Uniform, sampling: Sampling
    ) -> tuple[Ids, State]:
        settings = (
            np.float32(0.0 if sampling.greedy else sampling.temperature),
            np.int64(sampling.top_k),
            np.float32(sampling.top_p),
        )
        feeds = {name: np.array(v) for name, v in zip(SAMPLING_INPUTS, settings, strict=True)}
        tokens, state = self._run(TOKENS, state, **{TOKEN: last, UNIFORM: uniform}, **feeds)
        self._require_finite(state)
        return tokens, state


class SequenceScorer(SessionEngine):
    """sequence.onnx: whole sequences."""

    def logits(self, tokens: Ids, state: State) -> tuple[Logits, State]:
        found = []
        for start in range(0, len(tokens), self.piece(len(tokens))):
            piece = tokens[start : start + self.piece(len(tokens))]
            logits, state = self._run(LOGITS, state, **{TOKENS: np.ascontiguousarray(piece.T)})
            found.append(logits.swapaxes(0, 1))
        return np.concatenate(found), state

    def piece(self, length: int) -> int:
        """Tokens to give to one run: all of them, where later ones matter too."""
        return length


class SequenceEngine(SequenceScorer, StepLoop):
    """sequence.onnx of a model that reads in one direction: its steps are sequences of one."""

    def piece(self, length: int) -> int:
        return PIECE

    def step(self, tokens: Ids, state: State) -> tuple[Logits, State]:
        logits, state = self._run(LOGITS, state, **{TOKENS: tokens[:, None]})
        return logits[:, 0], state

    def read(self, tokens: Ids, state: State) -> State:
        return self.logits(tokens, state)[1] if len(tokens) else state


INTERFACES: dict[str, tuple[list[str], list[str], str]] = {
    STEP: ([TOKEN], [], LOGITS),
    GENERATE: ([TOKEN], [UNIFORM, *SAMPLING_INPUTS], TOKENS),
    SEQUENCE: ([TOKENS], [], LOGITS),
}


def interface(info: ArtifactInfo) -> tuple[list[str], list[str]]:
    """The inputs and the outputs of a graph of this kind, in order."""
    before, after, result = INTERFACES[info.graph]
    return (
        [*before, *info.state_names("in"), *after],
        [result, *info.state_names("out")],
    )

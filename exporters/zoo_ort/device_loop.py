"""Generation on a device: steps and sampling run there, and only whole chunks of tokens are copied
back.

ONNX's loops run their control flow on the host, and so cannot be captured in CUDA graphs. So
sampling is added to the step graph, and its outputs are the inputs of the next run: a double
buffer, each half bound once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from zoo.config import Sampling
from zoo.data.tokenizer import Ids
from zoo.inference.artifact import LOGITS, TOKEN, TOKENS, UNIFORM, ArtifactInfo
from zoo.inference.engine import Uniform
from zoo.inference.sampling import Samplings, filters
from zoo_ort.engines import CHUNK, State, StepEngine
from zoo_ort.fragment import DOUBLE, FLOAT, INT64, Node, ValueType, add_to_graph
from zoo_ort.providers import make_session, run_bound

POSITION, TEMPERATURE = "position", "temperature"
NEXT_TOKEN, NEXT_POSITION, MORE_TOKENS = "next_token", "next_position", "more_tokens"

# `zoo.inference.sampling.choose` for temperature alone, then the token is stored in the chunk. Both
# greedy and sampled tokens are computed: a branch would be decided on the host.
CHOICE = (
    Node("Cast", [LOGITS], ["wide"], to=DOUBLE),
    Node("Equal", [TEMPERATURE, "cold"], ["greedy"]),
    Node("Where", ["greedy", "any_heat", TEMPERATURE], ["warm"]),
    Node("Reshape", ["warm", "as_column"], ["warm_column"]),
    Node("Cast", ["warm_column"], ["heat"], to=DOUBLE),
    Node("Div", ["wide", "heat"], ["scaled"]),
    Node("Softmax", ["scaled"], ["weights"], axis=-1),
    Node("CumSum", ["weights", "last_axis"], ["mass"]),
    Node("Gather", [UNIFORM, POSITION], ["row"], axis=0),
    Node("Reshape", ["row", "as_column"], ["column"]),
    Node("Cast", ["column"], ["draw"], to=DOUBLE),
    Node("Greater", ["mass", "draw"], ["passed"]),
    Node("Cast", ["passed"], ["flags"], to=FLOAT),
    Node("ArgMax", ["flags"], ["drawn"], axis=-1, keepdims=0),
    Node("ArgMax", [LOGITS], ["best"], axis=-1, keepdims=0),
    Node("Where", ["greedy", "best", "drawn"], [NEXT_TOKEN]),
    Node("Reshape", [NEXT_TOKEN, "as_row"], ["token_row"]),
    Node("Reshape", [POSITION, "as_column"], ["index"]),
    Node("ScatterND", [TOKENS, "index", "token_row"], [MORE_TOKENS]),
    Node("Add", [POSITION, "one"], [NEXT_POSITION]),
)
CONSTANTS = {
    "last_axis": np.array(-1),
    "as_column": np.array([-1, 1]),
    "as_row": np.array([1, -1]),
    "cold": np.array(0, np.float32),
    "any_heat": np.array(1, np.float32),
    "one": np.array([1]),
}
INPUTS: dict[str, ValueType] = {
    UNIFORM: (FLOAT, ("steps", "batch")),
    TEMPERATURE: (FLOAT, ("batch",)),
    POSITION: (INT64, (1,)),
    TOKENS: (INT64, ("steps", "batch")),
}
OUTPUTS: dict[str, ValueType] = {
    NEXT_TOKEN: (INT64, ("batch",)),
    NEXT_POSITION: (INT64, (1,)),
    MORE_TOKENS: (INT64, ("steps", "batch")),
}


def with_choice(step: bytes) -> bytes:
    """A step graph's file with sampling of the next token added."""
    return add_to_graph(step, CHOICE, CONSTANTS, INPUTS, OUTPUTS)


@dataclass
class Loop:
    """A double buffer on the device for one batch size, with a binding for each direction between
    its halves."""

    bindings: tuple[ort.IOBinding, ort.IOBinding]
    buffers: tuple[dict[str, ort.OrtValue], dict[str, ort.OrtValue]]
    shared: dict[str, ort.OrtValue]
    options: tuple[ort.RunOptions, ort.RunOptions]


class DeviceEngine(StepEngine):
    """step.onnx on a device. Greedy decoding and sampling with temperature run there; top-k and
    top-p run on the host, from the logits of every step."""

    chunk = CHUNK

    def __init__(
        self,
        session: ort.InferenceSession,
        info: ArtifactInfo,
        content: bytes,
        device: str,
        graphs: bool = True,
    ) -> None:
        super().__init__(session, info)
        self._device = device
        self._loop_session = make_session(
            with_choice(content), device, graphs=graphs and device == "cuda"
        )
        self._graphs = graphs and device == "cuda"
        self._loops: dict[int, Loop] = {}
        self._resident: dict[int, tuple[State, int]] = {}

    def write(
        self, last: Ids, state: State, uniform: Uniform, sampling: Samplings
    ) -> tuple[Ids, State]:
        each = [sampling] * len(last) if isinstance(sampling, Sampling) else sampling
        if any(filters(self.vocab_size, own) for own in {*each}):
            return super().write(last, state, uniform, sampling)
        parts = []
        for start in range(0, len(uniform), CHUNK):
            tokens, state = self._write_chunk(last, state, uniform[start : start + CHUNK], each)
            last = tokens[-1]
            parts.append(tokens)
        return np.concatenate(parts), state

    def _write_chunk(
        self, last: Ids, state: State, uniform: Uniform, sampling: Sequence[Sampling]
    ) -> tuple[Ids, State]:
        steps, batch_size = uniform.shape
        if batch_size not in self._loops:
            self._loops[batch_size] = self._make_loop(batch_size)
        loop = self._loops[batch_size]
        resident, side = self._resident.get(batch_size, ((), 0))
        if resident is not state:
            side = 0
            for name, leaf in zip(self._inputs, state, strict=True):
                loop.buffers[0][name].update_inplace(np.ascontiguousarray(leaf))
        source = loop.buffers[side]
        source[TOKEN].update_inplace(np.ascontiguousarray(last))
        source[POSITION].update_inplace(np.zeros(1, np.int64))
        draws = np.zeros((CHUNK, batch_size), np.float32)
        draws[:steps] = uniform
        loop.shared[UNIFORM].update_inplace(draws)
        heats = [0.0 if own.greedy else own.temperature for own in sampling]
        loop.shared[TEMPERATURE].update_inplace(np.array(heats, np.float32))
        for _ in range(steps):
            run_bound(self._loop_session, loop.bindings[side], loop.options[side])
            side = 1 - side
        loop.bindings[1 - side].synchronize_outputs()
        target = loop.buffers[side]
        tokens: Ids = target[TOKENS].numpy()[:steps]
        after = tuple(target[name].numpy() for name in self._inputs)
        self._require_finite(after)
        self._resident = {batch_size: (after, side)}
        return tokens, after

    def _make_loop(self, batch_size: int) -> Loop:
        def on_device(array: Any) -> ort.OrtValue:
            return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)

        def allocate() -> dict[str, ort.OrtValue]:
            arrays = {
                TOKEN: np.zeros(batch_size, np.int64),
                POSITION: np.zeros(1, np.int64),
                TOKENS: np.zeros((CHUNK, batch_size), np.int64),
                **dict(zip(self._inputs, self.init_state(batch_size), strict=True)),
            }
            return {name: on_device(array) for name, array in arrays.items()}

        buffers = (allocate(), allocate())
        shared = {
            UNIFORM: on_device(np.zeros((CHUNK, batch_size), np.float32)),
            TEMPERATURE: on_device(np.zeros(batch_size, np.float32)),
            LOGITS: on_device(np.zeros((batch_size, self.vocab_size), np.float32)),
        }
        outputs = {
            NEXT_TOKEN: TOKEN,
            NEXT_POSITION: POSITION,
            MORE_TOKENS: TOKENS,
            **dict(zip(self._outputs, self._inputs, strict=True)),
        }
        bindings, options = [], []
        for number, (source, target) in enumerate((buffers, buffers[::-1])):
            binding = self._loop_session.io_binding()
            for name, value in {**source, **shared}.items():
                if name != LOGITS:
                    binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(LOGITS, shared[LOGITS])
            for name, buffer in outputs.items():
                binding.bind_ortvalue_output(name, target[buffer])
            run = ort.RunOptions()
            # runs are queued on the device; the host waits for a whole chunk only
            run.add_run_config_entry("disable_synchronize_execution_providers", "1")
            if (
                self._graphs
            ):  # a captured graph has fixed addresses: one for each direction and size
                graph_id = 2 * len(self._loops) + number + 1
                run.add_run_config_entry("gpu_graph_id", str(graph_id))
            bindings.append(binding)
            options.append(run)
        return Loop((bindings[0], bindings[1]), buffers, shared, (options[0], options[1]))

"""Writing, reading and scoring on a device, where many steps are recorded as one piece of work (see
`zoo_ort.loops`), and only whole pieces' tokens are copied back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime as ort

from zoo.config import Sampling
from zoo.data.tokenizer import Ids
from zoo.errors import one_line
from zoo.inference.artifact import LOGITS, ArtifactInfo
from zoo.inference.engine import Logits, NotFiniteError, Uniform
from zoo_ort.choice import NOT_FINITE, settings_array
from zoo_ort.cuda import DeviceMemoryError
from zoo_ort.engines import SessionEngine
from zoo_ort.interface import require_shapes
from zoo_ort.loops import CHUNK, READ, SCORE, WRITE, Choose, Device, Loop, PlannedStep
from zoo_ort.plan import PROBED, Part, StepGraph
from zoo_ort.products import MAX_ROWS as MAX_PRODUCT_ROWS
from zoo_ort.providers import make_session

MAX_ROWS = 2**20
KEPT_LOOPS = 8  # numbers of rows that recordings are kept for


class DeviceState:
    """A state that stays in the device's memory. Iterated, it gives its leaves as arrays."""

    def __init__(self, device: Device, leaves: list[Any]) -> None:
        self._device, self.leaves = device, leaves

    def __iter__(self) -> Iterator[np.ndarray]:
        with self._device.lock:
            self._device.enter()
            return iter([self._device.download(leaf) for leaf in self.leaves])

    def __len__(self) -> int:
        return len(self.leaves)


class DeviceEngine(SessionEngine):
    """step.onnx on a device: an Engine, a Stepper and a Scorer. Its states are tuples of arrays, or
    stay on the device.

    Numbers of rows are rounded up, and the rows added compute nothing that is used: so a batch
    whose texts end one by one needs few recordings. More rows than fit in memory take turns.
    """

    chunk = CHUNK

    def __init__(
        self,
        info: ArtifactInfo,
        content: bytes,
        device: Device,
        choose: Choose,
        records: bool = True,
    ) -> None:
        self._device, self._choose, self._records = device, choose, records
        self._graph = StepGraph(content)
        self._sessions: dict[bytes, ort.InferenceSession] = {}
        self._constants: dict[str, Any] = {}
        device.enter()
        # of many rows, all products are ONNX Runtime's: what does not run there is told now
        many = self._graph.plan([LOGITS, *info.state_names("out")], 2 * MAX_PRODUCT_ROWS)
        parts = (stage for stage in many.stages if isinstance(stage, Part))
        super().__init__(next(map(self._open, parts)), info)
        shapes = [(self.vocab_size,), *(entry.shape for entry in info.state)]
        names = [LOGITS, *self._outputs]
        promised = [(PROBED[0], *shape) for shape in shapes]
        require_shapes(names, [self._graph.outputs[name] for name in names], promised)
        self._loops: dict[int, Loop] = {}
        self._most_rows = MAX_ROWS

    def step(self, tokens: Ids, state: Any) -> tuple[Logits, Any]:
        logits, state = self.logits(tokens[None], state)
        return logits[0], state

    def read(self, tokens: Ids, state: Any) -> Any:
        if not len(tokens):
            return state

        def read(rows: slice, state: Any) -> tuple[Ids, Any]:
            return tokens[:0, rows], self._read(tokens[:, rows], state)

        return self._in_turns(tokens.shape[1], state, read)[1]

    def logits(self, tokens: Ids, state: Any) -> tuple[Logits, Any]:
        def score(rows: slice, state: Any) -> tuple[Logits, Any]:
            return self._score(tokens[:, rows], state)

        return self._in_turns(tokens.shape[1], state, score)

    def write(self, last: Ids, state: Any, uniform: Uniform, sampling: Sampling) -> tuple[Ids, Any]:
        def write(rows: slice, state: Any) -> tuple[Ids, Any]:
            return self._write(last[rows], state, uniform[:, rows], sampling)

        return self._in_turns(len(last), state, write)

    def _in_turns(
        self, rows: int, state: Any, run: Callable[[slice, Any], tuple[Any, Any]]
    ) -> tuple[Any, Any]:
        """Arrays [T, rows, …] and the state after `run`, for as many rows at a time as fit."""
        while True:
            most = min(rows, self._most_rows)
            try:
                if most == rows:
                    with self._device.lock:
                        return run(slice(0, rows), state)
                leaves, arrays, states = tuple(state), [], []
                for start in range(0, rows, most):
                    part = slice(start, start + most)
                    with self._device.lock:
                        array, after = run(part, tuple(leaf[part] for leaf in leaves))
                    arrays.append(array)
                    states.append(tuple(after))
                joined = tuple(np.concatenate(parts) for parts in zip(*states, strict=True))
                return np.concatenate(arrays, axis=1), joined
            except DeviceMemoryError as error:
                self._loops.clear()
                if most == 1:
                    raise DeviceMemoryError(
                        f"{one_line(error).rstrip('.')}: this model does not fit even with one "
                        f"row; free the GPU's memory, or run on the CPU (--provider cpu)."
                    ) from None
                self._most_rows = (most + 1) // 2

    def _read(self, tokens: Ids, state: Any) -> DeviceState:
        loop = self._begin(tokens.shape[1], state)
        for start, steps in pieces(len(tokens), CHUNK):
            self._upload_rows(tokens[start : start + steps], loop.tokens.part(0, steps))
            loop.run(READ, steps)
        after = self._end(loop, tokens.shape[1])
        self._device.wait()
        return after

    def _score(self, tokens: Ids, state: Any) -> tuple[Logits, DeviceState]:
        rows, found = tokens.shape[1], []
        loop = self._begin(rows, state)
        for start, steps in pieces(len(tokens), loop.scored):
            self._upload_rows(tokens[start : start + steps], loop.tokens.part(0, steps))
            loop.run(SCORE, steps)
            found.append(self._device.download(loop.all_logits.part(0, steps))[:, :rows])
        return np.concatenate(found), self._end(loop, rows)

    def _write(
        self, last: Ids, state: Any, uniform: Uniform, sampling: Sampling
    ) -> tuple[Ids, DeviceState]:
        rows, parts = len(last), []
        loop = self._begin(rows, state)
        self._upload_rows(last[None], loop.tokens.part(0, 1))
        self._device.upload(settings_array(sampling, self.vocab_size), loop.settings)
        for start, steps in pieces(len(uniform), CHUNK):
            self._upload_rows(uniform[start : start + steps], loop.uniform.part(0, steps))
            loop.run(WRITE, steps)
            self._device.copy(loop.tokens.row(steps), loop.tokens.row(0))
            tokens = self._device.download(loop.tokens.part(1, steps + 1))[:, :rows]
            if (tokens == NOT_FINITE).any():
                raise NotFiniteError
            parts.append(tokens)
        return np.concatenate(parts), self._end(loop, rows)

    def _begin(self, rows: int, state: Any) -> Loop:
        """The loop for that many rows, in this state."""
        self._device.enter()
        loop = self._loop(rows)
        on_device = isinstance(state, DeviceState)
        bring = self._device.copy if on_device else self._device.upload
        leaves = state.leaves if isinstance(state, DeviceState) else state
        for leaf, buffer in zip(leaves, loop.states[0], strict=True):
            bring(leaf, buffer)
        return loop

    def _end(self, loop: Loop, rows: int) -> DeviceState:
        """The loop's state, in memory of its own."""
        leaves = []
        for buffer in loop.states[0]:
            leaves.append(self._device.allocate((rows, *buffer.shape[1:]), buffer.dtype))
            self._device.copy(buffer, leaves[-1])
        return DeviceState(self._device, leaves)

    def _upload_rows(self, array: Any, buffer: Any) -> None:
        """An array [T, rows] into a buffer for as many rows or more."""
        if array.shape != buffer.shape:
            wide = np.zeros(buffer.shape, buffer.dtype)
            wide[:, : array.shape[1]] = array
            array = wide
        self._device.upload(array, buffer)

    def _loop(self, rows: int) -> Loop:
        size = rounded_up(rows)
        loop = self._loops.pop(size, None)
        if loop is None:
            while len(self._loops) >= KEPT_LOOPS:
                del self._loops[next(iter(self._loops))]
            loop = self._make_loop(size)
        self._loops[size] = loop  # the last one used is the last to be forgotten
        return loop

    def _make_loop(self, rows: int) -> Loop:
        def plan(kind: str) -> PlannedStep:
            return self._planned([*([LOGITS] if kind == WRITE else []), *self._outputs], rows)

        return Loop(
            self._device,
            plan,
            self._choose,
            self.init_state(rows),
            (self._inputs, self._outputs),
            self.vocab_size,
            self._records,
        )

    def _planned(self, wanted: list[str], rows: int) -> PlannedStep:
        plan = self._graph.plan(wanted, rows)

        def constant(name: str) -> Any:
            """On the device, once for all numbers of rows."""
            if name not in self._constants:
                array = plan.constants[name]
                self._constants[name] = self._device.allocate(array.shape, array.dtype)
                self._device.upload(array, self._constants[name])
            return self._constants[name]

        return PlannedStep(self._device, plan, self._open, constant)

    def _open(self, part: Part) -> ort.InferenceSession:
        if part.content not in self._sessions:
            options = self._device.provider_options
            session = make_session(part.content, self._device.name, cuda_options=options)
            self._sessions[part.content] = session
        return self._sessions[part.content]


def pieces(count: int, largest: int) -> Iterator[tuple[int, int]]:
    """`count` steps as powers of two of at most `largest`: where each begins, and its steps."""
    start = 0
    while start < count:
        steps = 1 << (min(count - start, largest).bit_length() - 1)
        yield start, steps
        start += steps


def rounded_up(rows: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, …"""
    power = 1 << max(0, rows - 1).bit_length()
    return power * 3 // 4 if power >= 4 and rows <= power * 3 // 4 else power

"""Steps on a device, and the pieces of many steps that are recorded there.

A step graph's plan is queued many times while the device's stream records, with the choice of the
next token (see `zoo_ort.choice`) after each, and the recording is what runs from then on. States
alternate between two buffers; every piece ends where it began, so that pieces follow each other in
any order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from zoo.config import Sampling
from zoo.errors import ArtifactError, ZooWarning, one_line
from zoo.inference.artifact import LOGITS, TOKEN
from zoo_ort.choice import settings_array
from zoo_ort.cuda import CudaError
from zoo_ort.engines import State
from zoo_ort.plan import LARGEST_BLOCK, Part, Plan
from zoo_ort.products import MANY_THREADS
from zoo_ort.providers import run_bound

CHUNK = 128  # steps of the largest piece; a power of two
SCORED_BYTES = 2**26  # of the logits that a piece keeps
WRITE, READ, SCORE = "write", "read", "score"  # what a piece does with its logits
WARM_UP = 3  # runs before a recording: ONNX Runtime allocates its memory in the first two
SMALL_BLOCK = 64  # threads; many small blocks keep all of a GPU busy


class Device(Protocol):
    """See `zoo_ort.cuda.Cuda`."""

    lock: RLock

    @property
    def name(self) -> str: ...
    @property
    def provider_options(self) -> dict[str, str]: ...
    def enter(self) -> None: ...
    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any: ...
    def upload(self, array: Any, buffer: Any) -> None: ...
    def download(self, buffer: Any) -> Any: ...
    def copy(self, source: Any, target: Any) -> None: ...
    def wait(self) -> None: ...
    def record(self, queue: Callable[[], None]) -> Callable[[], None]: ...
    def kernels(self, source: str, names: Sequence[str]) -> list[Callable[..., None]]: ...


Choose = Callable[[Any, Any, Any, Any], None]  # see `zoo_ort.choice.Choice`


class PlannedStep:
    """A plan's buffers, and the bindings of its parts, for a number of rows."""

    def __init__(
        self,
        device: Device,
        plan: Plan,
        open_part: Callable[[Part], ort.InferenceSession],
        constants: Callable[[str], Any],
    ) -> None:
        self._device, self._plan, self._constants = device, plan, constants
        kernels = [stage for stage in plan.stages if not isinstance(stage, Part)]
        names = [kernel.name for kernel in kernels]
        launches = device.kernels(plan.source, names) if kernels else []
        self._launches = dict(zip(names, launches, strict=True))
        parts = [stage for stage in plan.stages if isinstance(stage, Part)]
        self._sessions = {id(part): open_part(part) for part in parts}
        self._buffers: dict[str, Any] = {}
        self._bindings: dict[tuple[int, ...], ort.IOBinding] = {}
        self._options = ort.RunOptions()
        # runs are queued on the device; the host waits for whole pieces only
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def queue(self, given: Mapping[str, Any]) -> None:
        """One step, with the buffers of the graph's inputs and outputs."""
        for stage in self._plan.stages:
            if isinstance(stage, Part):
                self._run(stage, given)
                continue
            threads = SMALL_BLOCK if stage.threads < MANY_THREADS else LARGEST_BLOCK
            blocks = -(-stage.threads // threads)
            buffers = [self._find(name, given) for name in stage.buffers]
            self._launches[stage.name](blocks, threads, 0, *buffers)

    def _run(self, part: Part, given: Mapping[str, Any]) -> None:
        session = self._sessions[id(part)]
        buffers = [self._find(name, given) for name in (*part.inputs, *part.outputs)]
        key = (id(part), *(buffer.address for buffer in buffers))
        if key not in self._bindings:
            binding = self._bindings[key] = session.io_binding()
            binds = [binding.bind_input] * len(part.inputs)
            binds += [binding.bind_output] * len(part.outputs)
            for bind, name, buffer in zip(
                binds, (*part.inputs, *part.outputs), buffers, strict=True
            ):
                dtype = buffer.dtype.type
                bind(name, self._device.name, 0, dtype, buffer.shape, buffer.address)
        run_bound(session, self._bindings[key], self._options)

    def _find(self, name: str, given: Mapping[str, Any]) -> Any:
        if name in given:
            return given[name]
        if name in self._plan.constants:
            return self._constants(name)
        if name not in self._buffers:
            shape, dtype = self._plan.shapes[name], self._plan.dtypes[name]
            self._buffers[name] = self._device.allocate(shape, dtype)
        return self._buffers[name]


class Loop:
    """The buffers for a number of rows, and the pieces recorded over them. `plan` gives the step
    that reads, and the one that computes logits too."""

    def __init__(
        self,
        device: Device,
        plan: Callable[[str], PlannedStep],
        choose: Choose,
        initial: State,
        names: tuple[list[str], list[str]],
        vocab_size: int,
        records: bool,
    ) -> None:
        rows = len(initial[0])
        self._device, self._plan, self._choose = device, plan, choose
        self._steps: dict[str, PlannedStep] = {}
        self._names, self._records = names, records
        self.tokens = device.allocate((CHUNK + 1, rows), np.int64)  # the first row is read first
        self.uniform = device.allocate((CHUNK, rows), np.float32)
        self.settings = device.allocate((4,), np.float64)
        self._logits = device.allocate((rows, vocab_size), np.float32)
        self.scored = max(1, min(CHUNK, SCORED_BYTES // self._logits.nbytes))
        self.all_logits: Any = None
        self.states = [[device.allocate(leaf.shape, leaf.dtype) for leaf in initial] for _ in "ab"]
        for leaf, buffer in zip(initial, self.states[0], strict=True):
            device.upload(leaf, buffer)
        device.upload(np.zeros(self.tokens.shape, np.int64), self.tokens)
        device.upload(settings_array(Sampling(), vocab_size), self.settings)
        self._pieces: dict[tuple[str, int], Callable[[], None]] = {}

    def run(self, kind: str, steps: int) -> None:
        """Queues a piece of that many steps, a power of two, from the first row of `tokens` on."""
        if (kind, steps) not in self._pieces:
            self._pieces[kind, steps] = self._piece(kind, steps)
        self._pieces[kind, steps]()

    def _piece(self, kind: str, steps: int) -> Callable[[], None]:
        if kind == SCORE and self.all_logits is None:
            shape = (self.scored, *self._logits.shape)
            self.all_logits = self._device.allocate(shape, np.float32)

        def queue() -> None:
            for index in range(steps):
                self._queue_step(kind, index)
            if steps % 2:
                for after, before in zip(*self.states[::-1], strict=True):
                    self._device.copy(after, before)

        if not self._records:
            return queue
        for _ in range(WARM_UP):  # of a step whose results are not used
            self._queue_step(kind, 0)
        try:
            return self._recorded(queue)
        except (ArtifactError, CudaError) as error:
            warnings.warn(
                f"the steps of this graph cannot be recorded, and each is started by itself, which "
                f"is slower: {one_line(error)}",
                ZooWarning,
                stacklevel=2,
            )
            self._records = False
            return queue

    def _recorded(self, queue: Callable[[], None]) -> Callable[[], None]:
        """Recorded at the second try where the first failed: other libraries of this process may
        use the device meanwhile, which can spoil a recording."""
        try:
            return self._device.record(queue)
        except (ArtifactError, CudaError):
            return self._device.record(queue)

    def _queue_step(self, kind: str, index: int) -> None:
        inputs, outputs = self._names
        given = {TOKEN: self.tokens.row(index)}
        given |= zip(inputs, self.states[index % 2], strict=True)
        given |= zip(outputs, self.states[1 - index % 2], strict=True)
        if kind != READ:
            given[LOGITS] = self.all_logits.row(index) if kind == SCORE else self._logits
        computed = READ if kind == READ else WRITE
        if computed not in self._steps:
            self._steps[computed] = self._plan(computed)
        self._steps[computed].queue(given)
        if kind == WRITE:
            uniform, chosen = self.uniform.row(index), self.tokens.row(index + 1)
            self._choose(self._logits, uniform, self.settings, chosen)

"""Runs exported steps of recurrent modules other than language models, with any inputs and outputs.
Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from pydantic import Field

from zoo.errors import ArtifactError, UsageError, require_choice
from zoo.inference.artifact import (
    MAX_STATE_ELEMENTS,
    MAX_STATE_LEAVES,
    Dtype,
    SelfDescription,
    StateEntry,
)
from zoo.inference.engine import Arrays
from zoo.registry.specs import FULL, MODULE, WORD
from zoo.validation import MAX_MESSAGE, FrozenModel
from zoo_ort.interface import Value, check_interface, fits, require_shapes, state_values
from zoo_ort.providers import run_session
from zoo_ort.runtime import describe_file, open_session

State = tuple[npt.NDArray[Any], ...]

TRUST = 'if the file is your own, open it with trust="operators"'


class TensorEntry(FrozenModel):
    """An input or output: its name, its shape without the batch axis, and its dtype. A size is None
    where the number of steps in a chunk decides it."""

    name: str = Field(pattern=r"^[A-Za-z]\w*$", max_length=200)
    shape: tuple[Annotated[int, Field(ge=1, le=MAX_STATE_ELEMENTS)] | None, ...] = Field(
        max_length=8
    )
    dtype: Dtype

    @property
    def value(self) -> Value:
        return Value(self.name, self.dtype, (None, *self.shape))


class ModuleInfo(SelfDescription):
    """The metadata of a module's exported step, or of a module that takes chunks of a sequence.
    `weights` is the SHA-256 of the weights that it was exported from."""

    precision: str = Field(FULL, pattern=WORD, max_length=40)
    graph: Literal["module"] = MODULE  # type: ignore[assignment]
    weights: str = Field("", pattern=r"^[0-9a-f]*$", max_length=64)
    inputs: tuple[TensorEntry, ...] = Field(min_length=1, max_length=256)
    outputs: tuple[TensorEntry, ...] = Field(min_length=1, max_length=256)
    state: tuple[StateEntry, ...] = Field(min_length=1, max_length=MAX_STATE_LEAVES)

    @classmethod
    def check_graph(cls, graph: str) -> None:
        if graph != MODULE:
            raise ArtifactError(
                "it is a language model; open it with zoo.open_source, and verify it against its "
                "run."
            )


class ModuleStepper:
    """An opened step. A state is a tuple of arrays, batch-first; `step` takes it and returns the
    next."""

    def __init__(self, session: ort.InferenceSession, info: ModuleInfo) -> None:
        self.info = info
        self._session = session
        self._inputs, self._outputs = info.state_names("in"), info.state_names("out")
        self._shapes = [out.shape for out in info.outputs] + [leaf.shape for leaf in info.state]

    def init_state(self, batch_size: int) -> State:
        """The state before the first step, for a batch of `batch_size`."""
        return tuple(entry.initial_rows(batch_size) for entry in self.info.state)

    def step(self, inputs: Mapping[str, npt.ArrayLike], state: State) -> tuple[Arrays, State]:
        """Outputs by name, [B, …] each, from inputs by name, and the next state. Raises UsageError
        for inputs that are missing, unknown, or of another shape."""
        feeds = {entry.name: self._checked(entry, inputs, state) for entry in self.info.inputs}
        if unknown := set(inputs) - set(feeds):
            known = str(sorted(feeds))[:MAX_MESSAGE]
            raise UsageError(f"there is no input {sorted(unknown)[0]!r}; the inputs are {known}.")
        feeds.update(zip(self._inputs, state, strict=True))
        names = [*(entry.name for entry in self.info.outputs), *self._outputs]
        found = run_session(self._session, names, feeds)
        require_shapes(names, found, [(len(state[0]), *shape) for shape in self._shapes])
        count = len(self.info.outputs)
        return dict(zip(names[:count], found, strict=False)), tuple(found[count:])

    def state_to_arrays(self, state: State) -> Arrays:
        """The leaves of a state by name."""
        return {entry.name: leaf for entry, leaf in zip(self.info.state, state, strict=True)}

    def state_from_arrays(self, arrays: Arrays) -> State:
        """The state with these leaves."""
        return tuple(np.asarray(arrays[entry.name], entry.dtype) for entry in self.info.state)

    def _checked(
        self, entry: TensorEntry, inputs: Mapping[str, npt.ArrayLike], state: State
    ) -> npt.NDArray[Any]:
        if entry.name not in inputs:
            raise UsageError(f"input {entry.name!r} is missing.")
        value = np.asarray(inputs[entry.name], entry.dtype)
        wanted = (len(state[0]), *entry.shape)
        if not fits(value.shape, wanted):
            shown = f"({', '.join('any' if size is None else str(size) for size in wanted)})"
            raise UsageError(f"input {entry.name!r} has shape {value.shape} instead of {shown}.")
        return value


def open_module(
    path: str | Path,
    provider: str = "auto",
    threads: int = 1,
    trust: Literal["nothing", "operators"] = "nothing",
) -> ModuleStepper:
    """An exported step, checked and ready. A file of your own may have operators that a file from
    elsewhere may not: `trust="operators"` admits all of ONNX's. Raises ArtifactError for a file
    that the zoo did not export or that is damaged, ProviderError for a provider that does not
    run."""
    require_choice("trust", trust, ("nothing", "operators"))
    path = Path(path)
    advice = None if trust == "operators" else TRUST
    info, identity = describe_file(path, ModuleInfo, unlisted=advice)
    session = open_session(path, identity, provider, threads)
    check_interface(
        path,
        session,
        [*(entry.value for entry in info.inputs), *state_values(info, "in")],
        [*(entry.value for entry in info.outputs), *state_values(info, "out")],
    )
    return ModuleStepper(session, info)

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

from zoo.config import FrozenModel
from zoo.errors import ArtifactError, UsageError, require_choice
from zoo.inference.artifact import MAX_STATE_ELEMENTS, Dtype, SelfDescription
from zoo.inference.engine import Arrays
from zoo.registry.specs import MODULE
from zoo_ort.providers import run_session
from zoo_ort.runtime import check_interface, describe_file, open_session

State = tuple[npt.NDArray[Any], ...]


class TensorEntry(FrozenModel):
    """An input or output: its name, its shape without the batch axis, and its dtype."""

    name: str = Field(pattern=r"^[A-Za-z]\w*$", max_length=200)
    shape: tuple[Annotated[int, Field(ge=1, le=MAX_STATE_ELEMENTS)], ...] = Field(max_length=8)
    dtype: Dtype


class ModuleInfo(SelfDescription):
    """The metadata of the exported step of a module."""

    graph: Literal["module"] = MODULE  # type: ignore[assignment]
    inputs: tuple[TensorEntry, ...] = Field(min_length=1, max_length=256)
    outputs: tuple[TensorEntry, ...] = Field(min_length=1, max_length=256)

    @classmethod
    def check_graph(cls, graph: str) -> None:
        if graph != MODULE:
            raise ArtifactError("it is a language model; open it with zoo.open_source.")


class ModuleStepper:
    """An opened step. A state is a tuple of arrays, batch-first; `step` takes it and returns the
    next."""

    def __init__(self, session: ort.InferenceSession, info: ModuleInfo) -> None:
        self.info = info
        self._session = session
        self._inputs, self._outputs = info.state_names("in"), info.state_names("out")

    def init_state(self, batch_size: int) -> State:
        """The state before the first step, for a batch of `batch_size`."""
        return tuple(entry.initial_rows(batch_size) for entry in self.info.state)

    def step(self, inputs: Mapping[str, npt.ArrayLike], state: State) -> tuple[Arrays, State]:
        """Outputs by name, [B, …] each, from inputs by name, and the next state. Raises UsageError
        for inputs that are missing, unknown, or of another shape."""
        feeds = {entry.name: self._checked(entry, inputs, state) for entry in self.info.inputs}
        if unknown := set(inputs) - set(feeds):
            raise UsageError(
                f"there is no input {sorted(unknown)[0]!r}; the inputs are {sorted(feeds)}."
            )
        feeds.update(zip(self._inputs, state, strict=True))
        names = [entry.name for entry in self.info.outputs]
        found = run_session(self._session, [*names, *self._outputs], feeds)
        return dict(zip(names, found, strict=False)), tuple(found[len(names) :])

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
        if value.shape != wanted:
            raise UsageError(f"input {entry.name!r} has shape {value.shape} instead of {wanted}.")
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
    info, identity = describe_file(path, ModuleInfo, any_operator=trust == "operators")
    session = open_session(path, identity, provider, threads)
    check_interface(
        path,
        session,
        [*(entry.name for entry in info.inputs), *info.state_names("in")],
        [*(entry.name for entry in info.outputs), *info.state_names("out")],
    )
    return ModuleStepper(session, info)

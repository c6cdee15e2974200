"""Exporting one step of any recurrent torch module, which need not be a zoo cell or language
model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from zoo.errors import UsageError, VerificationError, one_line
from zoo.exporting.parity import prove_step
from zoo.files import new_folder, write_atomically
from zoo.inference.artifact import StateEntry
from zoo.inference.engine import Arrays
from zoo.nn.state import flatten, map_leaves, named_leaves, unflatten
from zoo_onnx.exporter import checked, seal
from zoo_onnx.step import TRACED_BATCH
from zoo_onnx.tracing import trace
from zoo_ort.modules import ModuleInfo, TensorEntry, open_module


def export_step(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    state: Any,
    path: str | Path,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> ModuleInfo:
    """Exports one step of a recurrent module, verifies it against PyTorch, and then writes it to
    `path`. Returns the file's metadata, with the proof.

    `module(*inputs, state)` must return the pair of its output (a tensor, or a tuple of them) and
    the next state, and keep no state of its own. Every tensor is batch-first. `example_inputs` are
    realistic values [B, …]: the proof draws inputs with their mean and standard deviation
    (integers: between their minimum and maximum). `state` is the state before the first step, a
    tensor or a tuple of them (a NamedTuple gives its leaves their names), [B, …] with equal rows.
    Run the file with `zoo_ort.open_module`.

    Raises UsageError for invalid arguments, ZooError for a module that cannot be traced, and
    VerificationError for a file whose results differ from the module's.
    """
    given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    inputs = tuple(value.detach().cpu() for value in given)
    state = map_leaves(lambda leaf: leaf.detach().cpu(), state)  # it may be a parameter
    module = deepcopy(module).cpu().eval()
    reference = TorchModule(module, inputs, state, input_names, output_names)
    info = reference.info
    step = _FlatStep(module, state)
    leaves = [leaf[:1].repeat_interleave(TRACED_BATCH, 0) for leaf in flatten(state)]
    rows = [value[:1].repeat_interleave(TRACED_BATCH, 0) for value in inputs]
    batch = torch.export.Dim("batch")
    graph = trace(
        step,
        (*rows, *leaves),
        [*(entry.name for entry in info.inputs), *info.state_names("in")],
        [*(entry.name for entry in info.outputs), *info.state_names("out")],
        (tuple({0: batch} for _ in (*rows, *leaves)),),
        f"the step of {type(module).__name__}",
    )
    built = checked(ir.to_proto(graph))
    path = Path(path)
    with new_folder(path.parent), tempfile.TemporaryDirectory(dir=path.parent) as staging:
        draft = Path(staging) / path.name
        draft.write_bytes(seal(built, info))
        try:
            proof = prove_step(reference, open_module(draft, "cpu"), draw=reference.draw)
        except VerificationError as error:
            raise VerificationError(f"{path.name} was not written: {error}") from None
        info = info.model_copy(update={"proof": proof})
        content = seal(built, info)
        draft.write_bytes(content)
        open_module(draft, "cpu")
        write_atomically(path, content)
    return info


class _FlatStep(nn.Module):
    """The module with its state as flat arguments, after its inputs."""

    def __init__(self, module: nn.Module, state: Any) -> None:
        super().__init__()
        self.module, self.state = module, state

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        count = len(values) - len(flatten(self.state))
        output, state = self.module(*values[:count], unflatten(self.state, values[count:]))
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(value.clone() for value in (*outputs, *flatten(state)))


class TorchModule:
    """The module as the proof's reference, with its names and shapes."""

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        state: Any,
        input_names: Sequence[str] | None,
        output_names: Sequence[str] | None,
    ) -> None:
        self.module, self.inputs, self.state = module, inputs, state
        names = [name.removeprefix("_0").lstrip(".") or "state" for name, _ in _leaves(state)]
        with torch.no_grad():
            try:
                output, after = module(*inputs, state)
                same = [leaf.shape for leaf in flatten(after)] == [
                    leaf.shape for leaf in flatten(state)
                ]
            except (TypeError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"module(*inputs, state) must return (output, next state): {one_line(error)}"
                ) from None
        if not same:
            raise UsageError("the next state must have the shapes of the state that was given.")
        if any((leaf != leaf[:1]).any() for leaf in flatten(state)):
            raise UsageError("the rows of the state before the first step must be equal.")
        outputs = output if isinstance(output, tuple) else (output,)
        self.info = ModuleInfo.checked(
            inputs=_entries(inputs, input_names, "input"),
            outputs=_entries(outputs, output_names, "output"),
            state=tuple(
                StateEntry.from_row(name, leaf[0].numpy())
                for name, leaf in zip(names, flatten(state), strict=True)
            ),
        )

    def init_state(self, batch_size: int) -> Any:
        return map_leaves(lambda leaf: leaf[:1].repeat_interleave(batch_size, 0), self.state)

    def step(self, inputs: Arrays, state: Any) -> tuple[Arrays, Any]:
        with torch.no_grad():
            values = [torch.from_numpy(inputs[entry.name]) for entry in self.info.inputs]
            output, state = self.module(*values, state)
        outputs = output if isinstance(output, tuple) else (output,)
        names = [entry.name for entry in self.info.outputs]
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}, state

    def state_to_arrays(self, state: Any) -> Arrays:
        return {
            entry.name: leaf.numpy()
            for entry, leaf in zip(self.info.state, flatten(state), strict=True)
        }

    def state_from_arrays(self, arrays: Arrays) -> Any:
        leaves = [torch.from_numpy(np.array(arrays[entry.name])) for entry in self.info.state]
        return unflatten(self.state, leaves)

    def draw(self, rng: np.random.Generator, batch_size: int) -> Arrays:
        """Random inputs with the distribution of the examples."""
        drawn = {}
        for entry, example in zip(self.info.inputs, self.inputs, strict=True):
            shape, values = (batch_size, *entry.shape), example.numpy()
            if values.dtype.kind == "f":
                spread = values.std() or 1.0
                drawn[entry.name] = rng.normal(values.mean(), spread, shape).astype(values.dtype)
            else:
                low, high = int(values.min()), int(values.max())
                drawn[entry.name] = rng.integers(low, high + 1, shape).astype(values.dtype)
        return drawn


def _leaves(state: Any) -> list[tuple[str, Tensor]]:
    return list(named_leaves((state,), prefix="_"))


def _entries(
    tensors: Sequence[Tensor], names: Sequence[str] | None, what: str
) -> tuple[TensorEntry, ...]:
    if names is None:
        names = [what] if len(tensors) == 1 else [f"{what}_{i}" for i in range(len(tensors))]
    if len(names) != len(tensors):
        raise UsageError(f"there are {len(tensors)} {what}s and {len(names)} names for them.")
    return tuple(
        TensorEntry.checked(
            name=name,
            shape=tuple(tensor.shape[1:]),
            dtype=str(tensor.dtype).removeprefix("torch."),
        )
        for name, tensor in zip(names, tensors, strict=True)
    )

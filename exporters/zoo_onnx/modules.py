"""Exporting one step of any recurrent torch module, which need not be a zoo cell or language
model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.errors import ArtifactError, VerificationError
from zoo.exporting.parity import prove_step
from zoo.files import new_folder, write_atomically
from zoo_onnx import trees
from zoo_onnx.draws import Inputs
from zoo_onnx.exporter import checked, seal
from zoo_onnx.kernels import widen_missing
from zoo_onnx.layers import WrittenOut
from zoo_onnx.reference import ModuleReference
from zoo_onnx.step import TRACED_BATCH
from zoo_onnx.tracing import trace
from zoo_ort.modules import ModuleInfo, open_module


def export_step(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    state: Any,
    path: str | Path,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    inputs: Inputs | None = None,
    batch_axis: Any = None,
    independent_rows: bool = True,
) -> ModuleInfo:
    """Exports one step of a recurrent module, proves it against PyTorch, and then writes it to
    `path`. Returns the file's metadata, with the proof. Nothing of the module, the examples or the
    state is changed.

    `module(*inputs, state)` must return the pair of its outputs and the next state, and remember
    nothing beside its state. It is run in evaluation mode. State and outputs are tensors, or
    tuples, lists, dicts, NamedTuples and dataclasses of them; the leaves are named by keys and
    fields. Every tensor is batch-first, [B, …]; `batch_axis` says where the batch of a state
    stands otherwise: a number, or numbers in the form of the state (1 for torch.nn's
    [layers, B, hidden], which is known for an nn.RNN, GRU or LSTM itself). The file's states are
    batch-first in any case.

    `example_inputs` are realistic values [B, …], some rows of them. The proof takes its inputs from
    these rows, with a little noise that leaves signs and ranges as they are; `inputs` may give
    others: a function `(rng, batch_size)` that draws the inputs of a step, or recorded steps.
    `state` is the state before the first step, [B, …] with equal rows. Rows must not depend on each
    other, unless `independent_rows` is False. Run the file with `zoo_ort.open_module`.

    Raises UsageError for arguments or a module that cannot be exported, ZooError for one that
    cannot be traced, and VerificationError for a file whose results differ from the module's.
    """
    given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    reference = ModuleReference(
        module,
        given,
        state,
        input_names=input_names,
        output_names=output_names,
        draws=inputs,
        batch_axis=batch_axis,
    )
    with reference.running():
        info = reference.inspect(independent_rows)
        graph = _trace(reference)
        widen_missing(graph)
        built = checked(ir.to_proto(graph))
        path = Path(path)
        with new_folder(path.parent), tempfile.TemporaryDirectory(dir=path.parent) as staging:
            draft = Path(staging) / path.name
            draft.write_bytes(seal(built, info))
            try:
                proof = prove_step(
                    reference,
                    open_module(draft, "cpu", trust="operators"),
                    draw=reference.draw,
                    precise=reference.precise_step,
                    explain=reference.explain,
                )
            except (VerificationError, ArtifactError) as error:
                told = str(error).replace(str(draft), path.name)
                if reference.remembered:
                    told += (
                        f" {reference.called} changes {reference.remembered[0]} in its step; what "
                        f"later steps need of it belongs in the state."
                    )
                raise VerificationError(f"{path.name} was not written: {told}") from None
            info = info.model_copy(update={"proof": proof})
            content = seal(built, info)
            draft.write_bytes(content)
            open_module(draft, "cpu", trust="operators")
            write_atomically(path, content)
    return info


def _trace(reference: ModuleReference) -> ir.Model:
    info = reference.info
    step = _FlatStep(reference)
    example = [
        x.movedim(axis, 0)[:1].repeat_interleave(TRACED_BATCH, 0)
        for x, axis in zip(
            (*reference.inputs, *reference.initial),
            (*reference.input_axes, *reference.state_axes),
            strict=True,
        )
    ]
    batch = torch.export.Dim("batch")
    with WrittenOut():
        return trace(
            step,
            tuple(example),
            [*(entry.name for entry in info.inputs), *info.state_names("in")],
            [*(entry.name for entry in info.outputs), *info.state_names("out")],
            (tuple({0: batch} for _ in example),),
            f"the step of {reference.called}",
        )


class _FlatStep(nn.Module):
    """The step with inputs and state as flat, batch-first arguments, over copies of the weights:
    what the module changes in place is changed nowhere else."""

    def __init__(self, reference: ModuleReference) -> None:
        super().__init__()
        self._reference = (reference,)  # whose module is no submodule of this one
        for number, value in enumerate(reference.tensors.values()):
            self.register_buffer(f"weight_{number}", value.clone())

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        (reference,) = self._reference
        axes = *reference.input_axes, *reference.state_axes
        moved = [value.movedim(0, axis).clone() for value, axis in zip(values, axes, strict=True)]
        count = len(reference.inputs)
        own = {
            name: getattr(self, f"weight_{number}").clone()
            if name in reference.buffers
            else getattr(self, f"weight_{number}")
            for number, name in enumerate(reference.tensors)
        }
        state = trees.unflatten(reference.form, moved[count:])
        output, after = functional_call(reference.module, own, (*moved[:count], state))
        outputs, _ = trees.flatten(output, "the output")
        leaves, _ = trees.flatten(after, "the next state")
        ends = [value.movedim(reference.output_axis, 0) for value in outputs]
        ends += [
            leaf.movedim(axis, 0) for leaf, axis in zip(leaves, reference.state_axes, strict=True)
        ]
        return tuple(value.clone() for value in ends)

"""Exporting any recurrent torch module, which need not be a zoo cell or language model: one step of
it, or chunks of a sequence."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from zoo.config import DEFAULT_MAX_COST
from zoo.errors import ArtifactError, UnknownNameError, UsageError, VerificationError, ZooError
from zoo.exporting.parity import STEPS, prove_step
from zoo.files import new_folder, write_atomically
from zoo.inference.artifact import Proof
from zoo.registry.specs import FULL
from zoo_onnx import trees
from zoo_onnx.draws import LENGTHS, Inputs
from zoo_onnx.exporter import checked, seal
from zoo_onnx.given import file_dtype
from zoo_onnx.inspected import InspectedModule
from zoo_onnx.kernels import widen_missing
from zoo_onnx.layers import WrittenOut
from zoo_onnx.memory import Attributes
from zoo_onnx.module_precision import Metric, lower, measure
from zoo_onnx.precision import PRECISIONS
from zoo_onnx.scans import Scans
from zoo_onnx.tracing import BATCH, TIME, TRACED_BATCH, trace
from zoo_onnx.weights import fingerprint
from zoo_ort.modules import ModuleInfo, ModuleStepper, open_module

CHUNKS = STEPS // 4  # of a proof over sequences, whose chunks are of several steps
TRACED_CHUNKS = 2  # of the least length, in the example that is traced


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
    precision: str = FULL,
    metric: Metric | None = None,
    max_cost: float = DEFAULT_MAX_COST,
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

    `precision` "fp16" or "int8" computes products with weights so. What that costs is measured on
    outputs of both, each from its own state, over steps drawn as for the proof: the largest share
    of an output's size by which it differs (root mean square), or what `metric(wanted, found)`
    makes of the outputs, arrays [steps, B, …] by name. VerificationError for more than `max_cost`.

    Raises UsageError for arguments or a module that cannot be exported, ZooError for one that
    cannot be traced, and VerificationError for a file whose results differ from the module's.
    """
    reference = InspectedModule(
        module,
        several(example_inputs),
        state,
        input_names=input_names,
        output_names=output_names,
        draws=inputs,
        batch_axis=batch_axis,
    )
    return _export(reference, Path(path), independent_rows, precision, metric, max_cost)


def export_sequence(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    state: Any,
    path: str | Path,
    *,
    time_axis: int | Sequence[int | None] = 1,
    multiple_of: int = 1,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    inputs: Inputs | None = None,
    batch_axis: Any = None,
    independent_rows: bool = True,
    precision: str = FULL,
    metric: Metric | None = None,
    max_cost: float = DEFAULT_MAX_COST,
) -> ModuleInfo:
    """Exports a module that takes chunks of a sequence, of any number of steps: see `export_step`,
    whose arguments these are. `zoo_ort.open_module` opens the file, and its `step` takes a chunk.

    The inputs are [B, T, …], or have the time at `time_axis` (a number, or one for each input, None
    for one that has no time; counted with the batch first, also for torch.nn's own layers). With
    `multiple_of`, T is a multiple of that, as strides ask for. An nn.RNN, GRU or LSTM in it becomes
    a loop over T, and so does `zoo_onnx.OverTime(step)`, which makes such a module from one of a
    single step; a Python loop over T cannot be traced.

    The proof runs chunks of several lengths, and what a chunk gives must not depend on where the
    sequence is cut: a chunk is the same as its parts, or its single steps, one after another.
    Outputs that have no time axis are those of a chunk as a whole.
    """
    if not isinstance(multiple_of, int) or multiple_of < 1:
        raise UsageError(f"multiple_of must be a number from 1 (got {multiple_of!r}).")
    reference = InspectedModule(
        module,
        several(example_inputs),
        state,
        input_names=input_names,
        output_names=output_names,
        draws=inputs,
        batch_axis=batch_axis,
        time_axis=time_axis,
        multiple_of=multiple_of,
    )
    return _export(reference, Path(path), independent_rows, precision, metric, max_cost)


def several(inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def _export(
    reference: InspectedModule,
    path: Path,
    independent_rows: bool,
    precision: str,
    metric: Metric | None,
    max_cost: float,
) -> ModuleInfo:
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    with reference.running():
        info = reference.inspect(independent_rows)
        info = info.model_copy(update={"weights": fingerprint(reference.module)})
        graph = _explained(reference, lambda: _traced(reference))
        with new_folder(path.parent), tempfile.TemporaryDirectory(dir=path.parent) as staging:
            draft = Path(staging) / path.name

            def opened(content: bytes) -> ModuleStepper:
                draft.write_bytes(content)
                return open_module(draft, "cpu", trust="operators")

            try:
                built = checked(ir.to_proto(graph))
                proof = prove(reference, opened(seal(built, info)))
                if precision != FULL:
                    lower(graph, precision)
                    built = checked(ir.to_proto(graph))
                    info = info.model_copy(update={"precision": precision})
                    proof = measure(reference, opened(seal(built, info)), metric, max_cost)
                info = info.model_copy(update={"proof": proof})
                content = seal(built, info)
                opened(content)
            except (VerificationError, ArtifactError) as error:
                told = str(error).replace(str(draft), path.name)
                raise VerificationError(
                    f"{path.name} was not written: {told}{reference.hint}"
                ) from None
            write_atomically(path, content)
    return info


def prove(reference: InspectedModule, stepper: ModuleStepper, seed: int = 0) -> Proof:
    """The proof of a file in full precision; the reference must be running and inspected."""
    return prove_step(
        reference,
        stepper,
        seed=seed,
        steps=CHUNKS if reference.axes.over_time else STEPS,
        draw=reference.draw,
        precise=reference.rounding.precise_step,
        explain=reference.rounding.explain,
        times=reference.output_times,
    )


def _traced(reference: InspectedModule) -> ir.Model:
    """The graph, with the batch axis of every input and output open, and the time axis of those
    that have one."""
    axes = reference.axes
    example = [
        x.to(file_dtype(x)).movedim(axis, 0)[:1].repeat_interleave(TRACED_BATCH, 0)
        for x, axis in zip(
            (*_traced_inputs(reference), *reference.initial),
            (*axes.inputs, *axes.states),
            strict=True,
        )
    ]
    opened: list[dict[int, Any]] = [{0: BATCH} for _ in example]
    for own, axis in zip(opened, axes.times, strict=False):
        if axis is not None:
            own[axis] = reference.multiple_of * TIME if reference.multiple_of > 1 else TIME
    scans, what = Scans(), f"the step of {reference.called}"
    kept = Attributes(reference.module)
    try:
        graph = _flat_graph(reference, example, opened, scans, what)
    finally:
        kept.put_back()  # what is traced is no tensor to keep
    passes.RemoveUnusedNodesPass()(graph)
    widen_missing(graph)
    return graph


def _flat_graph(
    reference: InspectedModule,
    example: Sequence[Tensor],
    opened: Sequence[dict[int, Any]],
    scans: Scans,
    what: str,
) -> ir.Model:
    info = reference.info
    with parametrize.cached():  # a parametrisation of weights is computed once, by torch
        for part in reference.module.modules():
            for name in getattr(part, "parametrizations", ()):
                getattr(part, name)
        graph = trace(
            _FlatStep(reference),
            tuple(example),
            [*(entry.name for entry in info.inputs), *info.state_names("in")],
            [*(entry.name for entry in info.outputs), *info.state_names("out")],
            (tuple(opened),),
            what,
            WrittenOut(scans if reference.axes.over_time else None),
        )
    scans.expand(graph, what, WrittenOut)
    return graph


def _traced_inputs(reference: InspectedModule) -> list[Tensor]:
    if not reference.axes.over_time:
        return reference.inputs
    length = TRACED_CHUNKS * reference.multiple_of
    while length in LENGTHS or length == TRACED_BATCH:  # that the proof would not tell it apart
        length += reference.multiple_of
    repeats = -(-length // reference.length)
    tiled = [
        x if time is None else torch.cat([x.movedim(axis, 0)] * repeats, time).movedim(0, axis)
        for x, axis, time in zip(
            reference.inputs, reference.axes.inputs, reference.axes.times, strict=True
        )
    ]
    return reference.part(tiled, 0, length)


def _explained(reference: InspectedModule, traced: Any) -> ir.Model:
    """What `traced` gives; its error tells of attributes that the module changes in its step."""
    try:
        graph: ir.Model = traced()
        return graph
    except UsageError:
        raise
    except ZooError as error:
        raise type(error)(f"{error}{reference.hint}") from None


class _FlatStep(nn.Module):
    """The step with inputs and state as flat, batch-first arguments, over copies of the weights:
    what the module changes in place is changed nowhere else."""

    def __init__(self, reference: InspectedModule) -> None:
        super().__init__()
        self._reference = (reference,)  # whose module is no submodule of this one
        for number, value in enumerate(reference.tensors.values()):
            self.register_buffer(f"weight_{number}", value.clone())

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        (reference,) = self._reference
        axes = reference.axes
        moved = [
            value.to(own.dtype).movedim(0, axis).clone()
            for value, own, axis in zip(
                values,
                (*reference.inputs, *reference.initial),
                (*axes.inputs, *axes.states),
                strict=True,
            )
        ]
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
        leaves, _ = trees.flatten(trees.in_order(after, reference.form), "the next state")
        ends = [value.movedim(axes.output, 0) for value in outputs]
        ends += [leaf.movedim(axis, 0) for leaf, axis in zip(leaves, axes.states, strict=True)]
        return tuple(value.to(file_dtype(value)).clone() for value in ends)

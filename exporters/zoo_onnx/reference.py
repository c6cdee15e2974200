"""A recurrent torch module as the reference of a proof: run on copies of what was given, with its
initial state, its names and shapes, and inputs like its examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.errors import UsageError, ZooError
from zoo.inference.artifact import StateEntry
from zoo.inference.engine import Arrays
from zoo.registry.locations import describe_raised
from zoo_onnx import trees
from zoo_onnx.axes import find_axes, open_shape
from zoo_onnx.draws import Inputs
from zoo_onnx.given import array_of, file_dtype, plain_module, plain_tensor
from zoo_onnx.memory import Attributes
from zoo_ort.modules import ModuleInfo, TensorEntry


class ModuleReference:
    """See `zoo_onnx.export_step` for the arguments. Within `with reference.running():` the module
    is in evaluation mode; afterwards it is as it was.

    States are lists of tensors, as the module takes them. Raises UsageError for a module, inputs or
    a state that cannot be exported.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        state: Any,
        *,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        draws: Inputs | None = None,
        batch_axis: Any = None,
        time_axis: Any = None,
        multiple_of: int = 1,
    ) -> None:
        self.module = plain_module(module)
        self.called = type(self.module).__name__
        leaves, self.form = trees.flatten(state, "the state")
        self.axes = find_axes(self.module, len(inputs), self.form, batch_axis, time_axis)
        self.multiple_of = multiple_of
        self.inputs = [plain_tensor(x, "an input") for x in inputs]
        self.initial = [plain_tensor(x, "the state") for x in leaves]
        self._require_batch()
        self.tensors = {
            **{name: p.detach().clone() for name, p in self.module.named_parameters()},
            **{name: buffer.detach().clone() for name, buffer in self.module.named_buffers()},
        }
        self.buffers = {name for name, _ in self.module.named_buffers()}
        self.remembered: list[str] = []
        self._last: tuple[Arrays, Sequence[Tensor], Arrays] | None = None
        self.draws = draws
        self._names = input_names, output_names
        self.out_form = trees.TENSOR

    @contextmanager
    def running(self) -> Iterator[None]:
        """The module computes as in use, without gradients; afterwards it is as it was before, and
        so are the random numbers."""
        before = Attributes(self.module)
        random = torch.get_rng_state()
        default = torch.get_default_dtype()
        try:
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                self.module.eval()
                self.attributes = Attributes(self.module)
                yield
        finally:
            torch.set_default_dtype(default)
            before.put_back()
            torch.set_rng_state(random)

    def call(
        self, inputs: Sequence[Tensor], leaves: Sequence[Tensor], tensors: Any = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and next state as lists of tensors, from copies of the arguments."""
        given = [x.clone() for x in inputs]
        state = trees.unflatten(self.form, [leaf.clone() for leaf in leaves])
        own = dict(self.tensors if tensors is None else tensors)
        own |= {name: own[name].clone() for name in self.buffers}
        used, versions = dict(own), {name: value._version for name, value in own.items()}
        try:
            result = functional_call(self.module, own, (*given, state))
        except ZooError:
            raise
        except Exception as error:  # of the user's code
            told = describe_raised(error, type(self.module).__module__.partition(".")[0])
            raise UsageError(f"{self.called}(*inputs, state) raised {told}.") from None
        changed = [
            name
            for name, value in own.items()
            if value is not used[name] or value._version != versions[name]
        ]
        weights = [name for name in changed if name not in self.buffers]
        if weights:  # that were not copied; from now on they are, as buffers are
            self.buffers.update(weights)
            original = dict(self.module.named_parameters())
            self.tensors |= {name: original[name].detach().clone() for name in weights}
            return self.call(inputs, leaves, tensors)
        if tensors is None:  # what the module keeps there stays, as in use
            self.tensors |= {name: own[name].detach().clone() for name in changed}
        return self._parted(result)

    def _parted(self, result: Any) -> tuple[list[Tensor], list[Tensor]]:
        if not (isinstance(result, tuple | list) and len(result) == 2):
            found = f"{len(result)} values" if isinstance(result, tuple | list) else None
            raise UsageError(
                f"{self.called}(*inputs, state) must return the pair (outputs, next state); it "
                f"returned {found or type(result).__name__}."
            )
        outputs, self.out_form = trees.flatten(result[0], f"the output of {self.called}")
        after, form = trees.flatten(trees.in_order(result[1], self.form),
                                    f"the next state of {self.called}")  # fmt: skip
        if not form.same_as(self.form):
            raise UsageError(
                f"the next state must have the form of the state that was given: it is {form} "
                f"instead of {self.form}."
            )
        return outputs, after

    # what a proof asks of a reference

    def init_state(self, batch_size: int) -> list[Tensor]:
        return [
            leaf.narrow(axis, 0, 1).repeat_interleave(batch_size, axis)
            for leaf, axis in zip(self.initial, self.axes.states, strict=True)
        ]

    def step(self, inputs: Arrays, state: Sequence[Tensor]) -> tuple[Arrays, list[Tensor]]:
        outputs, after = self.call(self.tensors_of(inputs), state)
        found = self._outputs(outputs)
        self._last = inputs, state, {**found, **self.state_to_arrays(after)}
        return found, after

    def results(self, inputs: Arrays, state: Sequence[Tensor]) -> Arrays:
        """Outputs and next state by name; what the module keeps is not kept."""
        if self._last is not None and self._last[0] is inputs and self._last[1] is state:
            return self._last[2]
        return self.named(self.call(self.tensors_of(inputs), state, self.tensors))

    def state_to_arrays(self, state: Sequence[Tensor]) -> Arrays:
        return {
            entry.name: array_of(leaf, axis)
            for entry, leaf, axis in zip(self.info.state, state, self.axes.states, strict=True)
        }

    def state_from_arrays(self, arrays: Arrays) -> list[Tensor]:
        return [
            torch.from_numpy(np.array(arrays[entry.name])).to(own.dtype).movedim(0, axis)
            for entry, own, axis in zip(
                self.info.state, self.initial, self.axes.states, strict=True
            )
        ]

    # the parts

    def _require_batch(self) -> None:
        sizes = {x.shape[axis] for x, axis in self._with_axes() if x.dim() > axis}
        if not self.initial:
            raise UsageError("the state holds no tensor; a module without a state needs no step.")
        if any(x.dim() <= axis for x, axis in self._with_axes()):
            raise UsageError(
                "every input and every tensor of the state needs a batch axis: [batch, …], or the "
                "axis that batch_axis says."
            )
        if len(sizes) != 1:
            raise UsageError(
                f"inputs and state have batches of {', '.join(map(str, sorted(sizes)))} rows; they "
                f"should have one size. Say by batch_axis where the batch of a state stands."
            )
        if sizes == {0}:
            raise UsageError("the examples have no rows; give at least one.")
        if self.axes.over_time:
            self._require_time()
        for leaf, axis, name in zip(
            self.initial, self.axes.states, trees.names(self.form, "state"), strict=True
        ):
            first = leaf.narrow(axis, 0, 1)
            if not torch.equal(leaf.nan_to_num(), first.expand_as(leaf).nan_to_num()):
                raise UsageError(
                    f"the rows of the state before the first step must be equal; those of {name} "
                    f"are not."
                )

    def _require_time(self) -> None:
        lengths = set()
        for x, axis, time in zip(self.inputs, self.axes.inputs, self.axes.times, strict=True):
            if time is not None and time >= x.dim():
                raise UsageError(
                    f"an input {_shown(x)} has no time axis {time}; time_axis says where it "
                    f"stands, with the batch first."
                )
            lengths |= {x.movedim(axis, 0).shape[time]} if time is not None else set()
        if len(lengths) != 1 or min(lengths) < 2 * self.multiple_of:
            raise UsageError(
                f"the examples have {' and '.join(map(str, sorted(lengths)))} steps; they should "
                f"have one length of at least {2 * self.multiple_of}."
            )

    def _with_axes(self) -> list[tuple[Tensor, int]]:
        tensors, axes = [*self.inputs, *self.initial], [*self.axes.inputs, *self.axes.states]
        return list(zip(tensors, axes, strict=True))

    def describe(self, outputs: Sequence[Tensor], after: Sequence[Tensor]) -> ModuleInfo:
        state_names = trees.names(self.form, "state")
        for name, before, leaf in zip(state_names, self.initial, after, strict=True):
            if (before.shape, before.dtype) != (leaf.shape, leaf.dtype):
                raise UsageError(
                    f"the next state must have the shapes and dtypes of the state that was given: "
                    f"{name} is {_shown(leaf)} instead of {_shown(before)}."
                )
        rows = self.rows
        names, given = _output_names(self.out_form), self._names[1]
        for name, value in zip(names, outputs, strict=True):
            plain_tensor(value, f"the output {name}")
            if value.dim() <= self.axes.output or value.shape[self.axes.output] != rows:
                raise UsageError(
                    f"the output {name} is {_shown(value)}; every output needs the batch of {rows} "
                    f"rows as its first axis."
                )
        given_shapes = [
            open_shape(x, axis, time)
            for x, axis, time in zip(self.inputs, self.axes.inputs, self.axes.times, strict=True)
        ]
        self.info = ModuleInfo.checked(
            inputs=_entries(self.inputs, given_shapes, self._names[0], None, "input"),
            outputs=_entries(outputs, self._open_shapes(outputs), given, names, "output"),
            state=tuple(
                StateEntry.from_row(name, array_of(leaf, axis)[0])
                for name, leaf, axis in zip(
                    state_names, self.initial, self.axes.states, strict=True
                )
            ),
        )
        return self.info

    def _open_shapes(self, outputs: Sequence[Tensor]) -> list[tuple[int | None, ...]]:
        """Those of the outputs without the batch; None for an axis whose size follows from the
        length of the inputs."""
        shapes = [open_shape(value, self.axes.output, None) for value in outputs]
        if not self.axes.over_time:
            return shapes
        others, _ = self.call(self.part(self.inputs, 0, self.multiple_of), self.initial)
        if len(others) != len(outputs) or any(
            one.dim() != other.dim() for one, other in zip(outputs, others, strict=True)
        ):
            raise UsageError(
                f"{self.called} gives outputs of another form for {self.multiple_of} steps than "
                f"for {self.length}."
            )
        return [
            tuple(size if size == now else None for size, now in zip(
                shape, open_shape(other, self.axes.output, None), strict=True))
            for shape, other in zip(shapes, others, strict=True)
        ]  # fmt: skip

    @property
    def output_times(self) -> dict[str, tuple[int, ...]]:
        """The time axes of the outputs that have some, with the batch as axis 0."""
        found = {
            entry.name: tuple(i + 1 for i, size in enumerate(entry.shape) if size is None)
            for entry in self.info.outputs
        }
        return {name: times for name, times in found.items() if times}

    @property
    def hint(self) -> str:
        """What to do about what the module changes in its step; empty where it changes nothing."""
        if not self.remembered:
            return ""
        return (
            f" {self.called} changes {self.remembered[0]} in its step; what later steps need of it "
            f"belongs in the state."
        )

    @property
    def rows(self) -> int:
        """The batch size of the examples."""
        return self.initial[0].shape[self.axes.states[0]]

    @property
    def length(self) -> int:
        """The number of steps in the examples."""
        return min(
            x.movedim(axis, 0).shape[time]
            for x, axis, time in zip(self.inputs, self.axes.inputs, self.axes.times, strict=True)
            if time is not None
        )

    def part(self, inputs: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
        """These steps of the inputs."""
        return [
            x if time is None
            else x.movedim(axis, 0).narrow(time, start, stop - start).movedim(0, axis)
            for x, axis, time in zip(inputs, self.axes.inputs, self.axes.times, strict=True)
        ]  # fmt: skip

    def named(self, parts: tuple[list[Tensor], list[Tensor]]) -> Arrays:
        return {**self._outputs(parts[0]), **self.state_to_arrays(parts[1])}

    def _outputs(self, outputs: Sequence[Tensor]) -> Arrays:
        names = [entry.name for entry in self.info.outputs]
        return {
            name: array_of(value, self.axes.output)
            for name, value in zip(names, outputs, strict=True)
        }

    def tensors_of(self, inputs: Arrays) -> list[Tensor]:
        return [
            torch.from_numpy(np.ascontiguousarray(inputs[entry.name]))
            .to(example.dtype)
            .movedim(0, axis)
            for entry, example, axis in zip(
                self.info.inputs, self.inputs, self.axes.inputs, strict=True
            )
        ]


def _shown(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _output_names(form: trees.Form) -> list[str]:
    names = [name.replace(".", "_") for name in trees.names(form, "output")]
    if names == ["0"]:
        return ["output"]
    return [name if name[0].isalpha() else f"output_{name}" for name in names]


def _entries(
    tensors: Sequence[Tensor],
    shapes: Sequence[tuple[int | None, ...]],
    given: Sequence[str] | None,
    own: Sequence[str] | None,
    what: str,
) -> tuple[TensorEntry, ...]:
    names = given if given is not None else own
    if names is None:
        names = [what] if len(tensors) == 1 else [f"{what}_{i}" for i in range(len(tensors))]
    if len(names) != len(tensors):
        raise UsageError(f"there are {len(tensors)} {what}s and {len(names)} names for them.")
    return tuple(
        TensorEntry.checked(
            name=name,
            shape=shape,
            dtype=str(file_dtype(tensor)).removeprefix("torch."),
        )
        for name, tensor, shape in zip(names, tensors, shapes, strict=True)
    )

"""A recurrent torch module as the reference of a proof: run on copies of what was given, with its
initial state, its names and shapes, and inputs like its examples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.errors import UsageError, ZooError
from zoo.exporting.comparison import Explain
from zoo.inference.artifact import StateEntry
from zoo.inference.engine import Arrays
from zoo.registry.locations import describe_raised
from zoo_onnx import trees
from zoo_onnx.draws import Draws, Inputs
from zoo_onnx.given import array_of, plain_module, plain_tensor
from zoo_onnx.memory import Attributes
from zoo_onnx.suitability import RandomOperators, require_independent_rows, require_no_memory
from zoo_ort.modules import ModuleInfo, TensorEntry

LAST_BITS = 4  # in the last place, by which inputs are changed to see whether a value is on an edge
NEARBY = 8  # runs with such changes


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
    ) -> None:
        self.module = plain_module(module)
        self.called = type(self.module).__name__
        leaves, self.form = trees.flatten(state, "the state")
        self.input_axes, self.output_axis = _own_axes(self.module, len(inputs))
        self.state_axes = _state_axes(self.module, batch_axis, self.form)
        self.inputs = [plain_tensor(x, "an input") for x in inputs]
        self.initial = [plain_tensor(x, "the state") for x in leaves]
        self._require_batch()
        self.tensors = {
            **{name: p.detach().clone() for name, p in self.module.named_parameters()},
            **{name: buffer.detach().clone() for name, buffer in self.module.named_buffers()},
        }
        self.buffers = {name for name, _ in self.module.named_buffers()}
        self.remembered: list[str] = []
        self._double: dict[str, Tensor] | None = None
        self._draws = draws
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

    def inspect(self, independent_rows: bool) -> ModuleInfo:
        """Runs the module on its examples and describes it. UsageError, in a sentence, for one that
        is no step of a recurrence: another form of results, memory outside the state, random
        numbers, or (unless `independent_rows` is False) rows that depend on each other."""
        random = torch.get_rng_state()
        with RandomOperators() as operators:
            outputs, after = self.call(self.inputs, self.initial)
        if operators.found and not torch.equal(random, torch.get_rng_state()):
            raise UsageError(
                f"{self.called} draws random numbers in its step ({operators.found[0]}); draw them "
                f"outside and pass them as an input."
            )
        info = self._describe(outputs, after)
        examples = [array_of(x, axis) for x, axis in zip(self.inputs, self.input_axes, strict=True)]
        self.draw = Draws(info.inputs, examples, self._draws)
        require_no_memory(self)
        self._double = self._in_float64()
        if independent_rows:
            require_independent_rows(self)
        return info

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
        if tensors is None:
            for name, value in own.items():  # what the module keeps there stays, as in use
                if value is not used[name] or value._version != versions[name]:
                    self.tensors[name] = value.detach().clone()
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
            for leaf, axis in zip(self.initial, self.state_axes, strict=True)
        ]

    def step(self, inputs: Arrays, state: Sequence[Tensor]) -> tuple[Arrays, list[Tensor]]:
        outputs, after = self.call(self._tensors_of(inputs), state)
        return self._outputs(outputs), after

    def precise_step(self, inputs: Arrays, state: Sequence[Tensor]) -> Arrays:
        """Outputs and next state in float64; where the module has no float64, those that differ
        most from its own among runs with other last bits of the inputs."""
        tensors = self._tensors_of(inputs)
        if self._double is not None:
            with self._in_double():
                outputs, after = self.call(_double(tensors), _double(state), self._double)
            return {**self._outputs(outputs), **self.state_to_arrays(after)}
        base = self.named(self.call(tensors, state, self.tensors))
        far = dict(base)
        for near in self._nearby(tensors, state):
            for name, value in near.items():
                if value.dtype.kind != "f":
                    continue
                with np.errstate(invalid="ignore", over="ignore"):
                    farther = np.abs(value - base[name]) > np.abs(far[name] - base[name])
                far[name] = np.where(farther, value, far[name])
        return far

    def explain(self, inputs: Arrays, state: Sequence[Tensor]) -> Explain:
        """See `zoo.exporting.comparison`: whether inputs and a state that differ in their last bits
        give the other value too."""
        runs: list[Arrays] = []

        def explained(
            name: str, wrong: npt.NDArray[np.bool_], found: npt.NDArray[Any]
        ) -> npt.NDArray[np.bool_]:
            if not runs:
                tensors = self._tensors_of(inputs)
                runs.append(self.named(self.call(tensors, state, self.tensors)))
                runs.extend(self._nearby(tensors, state))
            values = np.stack([run[name] for run in runs])
            if found.dtype.kind in "biu":
                on_edge: npt.NDArray[np.bool_] = wrong & (values == found).any(0)
                return on_edge
            low, high = np.nanmin(values, 0), np.nanmax(values, 0)
            pad = 1e-3 * (high - low)
            between: npt.NDArray[np.bool_] = (
                wrong & (low < high) & (found >= low - pad) & (found <= high + pad)
            )
            return between

        return explained

    def state_to_arrays(self, state: Sequence[Tensor]) -> Arrays:
        return {
            entry.name: array_of(leaf, axis)
            for entry, leaf, axis in zip(self.info.state, state, self.state_axes, strict=True)
        }

    def state_from_arrays(self, arrays: Arrays) -> list[Tensor]:
        return [
            torch.from_numpy(np.array(arrays[entry.name])).movedim(0, axis)
            for entry, axis in zip(self.info.state, self.state_axes, strict=True)
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
        for leaf, axis, name in zip(
            self.initial, self.state_axes, trees.names(self.form, "state"), strict=True
        ):
            first = leaf.narrow(axis, 0, 1)
            if not torch.equal(leaf.nan_to_num(), first.expand_as(leaf).nan_to_num()):
                raise UsageError(
                    f"the rows of the state before the first step must be equal; those of {name} "
                    f"are not."
                )

    def _with_axes(self) -> list[tuple[Tensor, int]]:
        tensors, axes = [*self.inputs, *self.initial], [*self.input_axes, *self.state_axes]
        return list(zip(tensors, axes, strict=True))

    def _describe(self, outputs: Sequence[Tensor], after: Sequence[Tensor]) -> ModuleInfo:
        state_names = trees.names(self.form, "state")
        for name, before, leaf in zip(state_names, self.initial, after, strict=True):
            if (before.shape, before.dtype) != (leaf.shape, leaf.dtype):
                raise UsageError(
                    f"the next state must have the shapes and dtypes of the state that was given: "
                    f"{name} is {_shown(leaf)} instead of {_shown(before)}."
                )
        rows = self.inputs[0].shape[self.input_axes[0]] if self.inputs else None
        rows = self.initial[0].shape[self.state_axes[0]] if rows is None else rows
        names, given = _output_names(self.out_form), self._names[1]
        for name, value in zip(names, outputs, strict=True):
            plain_tensor(value, f"the output {name}")
            if value.dim() <= self.output_axis or value.shape[self.output_axis] != rows:
                raise UsageError(
                    f"the output {name} is {_shown(value)}; every output needs the batch of {rows} "
                    f"rows as its first axis."
                )
        self.info = ModuleInfo.checked(
            inputs=_entries(self.inputs, self.input_axes, self._names[0], None, "input"),
            outputs=_entries(outputs, [self.output_axis] * len(outputs), given, names, "output"),
            state=tuple(
                StateEntry.from_row(name, array_of(leaf, axis)[0])
                for name, leaf, axis in zip(state_names, self.initial, self.state_axes, strict=True)
            ),
        )
        return self.info

    def _in_float64(self) -> dict[str, Tensor] | None:
        """Weights in float64; None where the module does not compute with them."""
        double = {
            name: value.double() if value.is_floating_point() else value
            for name, value in self.tensors.items()
        }
        if not any(x.is_floating_point() for x in (*double.values(), *self.inputs, *self.initial)):
            return double
        try:
            with self._in_double():
                outputs, after = self.call(_double(self.inputs), _double(self.initial), double)
        except UsageError:
            return None
        same = [x.shape for x in after] == [x.shape for x in self.initial]
        floats = [x for x in (*outputs, *after) if x.is_floating_point()]
        return double if same and any(x.dtype == torch.float64 for x in floats) else None

    @contextmanager
    def _in_double(self) -> Iterator[None]:
        """Tensors that the module makes for itself are float64 too; what it keeps is not kept."""
        before = torch.get_default_dtype()
        kept = Attributes(self.module) if self.remembered else None
        torch.set_default_dtype(torch.float64)
        try:
            if kept is not None:
                self.attributes.put_back()
            yield
        finally:
            torch.set_default_dtype(before)
            if kept is not None:
                kept.put_back()

    def _nearby(self, tensors: Sequence[Tensor], state: Sequence[Tensor]) -> Iterator[Arrays]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(NEARBY):
            near = [_nudged(x, generator) for x in tensors], [_nudged(x, generator) for x in state]
            yield self.named(self.call(*near, self.tensors))

    def named(self, parts: tuple[list[Tensor], list[Tensor]]) -> Arrays:
        return {**self._outputs(parts[0]), **self.state_to_arrays(parts[1])}

    def _outputs(self, outputs: Sequence[Tensor]) -> Arrays:
        names = [entry.name for entry in self.info.outputs]
        return {
            name: array_of(value, self.output_axis)
            for name, value in zip(names, outputs, strict=True)
        }

    def _tensors_of(self, inputs: Arrays) -> list[Tensor]:
        return [
            torch.from_numpy(np.ascontiguousarray(inputs[entry.name])).movedim(0, axis)
            for entry, axis in zip(self.info.inputs, self.input_axes, strict=True)
        ]


def _own_axes(module: nn.Module, inputs: int) -> tuple[list[int], int]:
    """Where the batch of each input and of the outputs stands."""
    axis = 1 if isinstance(module, nn.RNNBase) and not module.batch_first else 0
    return [axis] * inputs, axis


def _state_axes(module: nn.Module, given: Any, form: trees.Form) -> list[int]:
    if given is None:
        given = 1 if isinstance(module, nn.RNNBase) else 0
    return list(_axes(given, form))


def _axes(given: Any, form: trees.Form) -> Iterator[int]:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        yield from itertools.repeat(given, form.leaves)
        return
    parts = trees.children(given)
    if form.make is None or parts is None or tuple(map(str, parts[0])) != form.keys:
        raise UsageError(
            "batch_axis must be a number, or numbers in the form of the state: 1 for torch.nn's "
            "[layers, batch, hidden]."
        )
    for part, child in zip(parts[1], form.children, strict=True):
        yield from _axes(part, child)


def _nudged(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    size = LAST_BITS * torch.finfo(tensor.dtype).eps
    noise = (2 * torch.rand(tensor.shape, generator=generator) - 1).to(tensor.dtype)
    return torch.where(tensor.isfinite(), tensor * (1 + size * noise), tensor)


def _double(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [x.double() if x.is_floating_point() else x for x in tensors]


def _shown(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _output_names(form: trees.Form) -> list[str]:
    names = [name.replace(".", "_") for name in trees.names(form, "output")]
    if names == ["0"]:
        return ["output"]
    return [name if name[0].isalpha() else f"output_{name}" for name in names]


def _entries(
    tensors: Sequence[Tensor],
    axes: Sequence[int],
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
            shape=tuple(tensor.shape[:axis] + tensor.shape[axis + 1 :]),
            dtype=str(tensor.dtype).removeprefix("torch."),
        )
        for name, tensor, axis in zip(names, tensors, axes, strict=True)
    )

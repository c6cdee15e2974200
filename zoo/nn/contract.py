"""Whether a cell's methods return what the contract of `zoo.Cell` asks for. It is looked at once,
before a cell is trained, exported or tested, so that an author's mistake is reported as one: which
method, what it returned, what it should return, and where it is written."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.errors import ContractError, ZooError, is_out_of_memory, one_line
from zoo.nn.cell import Cell
from zoo.registry.attribution import find_author
from zoo.registry.cell_spec import CellSpec
from zoo.registry.locations import defined_at, shown_path
from zoo.registry.registry import Registry

STEPS, BATCH = 2, 3
FEW, MORE = 2, 5  # rows, between which the number of operations must not differ
TOOLS = "zoo.nn."
ARGUMENTS = {
    "init_state": "(batch_size)",
    "recurrent_weights": "()",
    "project": "(x)",
    "advance": "(z, state)",
    "scan": "(z_T, state)",
    "readout": "(h, z)",
    "step": "(x, state)",
    "forward": "(x, state=None)",
}
PAIRS = {"advance": "(h, next state)", "scan": "(h_T, next state)"}


def require_cell(made: Any, spec: CellSpec, registry: Registry) -> None:
    """ContractError where a factory made something that is not a `zoo.Cell`, or did not let
    `zoo.Cell` set the sizes."""
    factory = spec.load_factory()
    prefix = f"{registry.cells.describe(spec.name)}: {spec.factory}"
    if not isinstance(made, Cell):
        raise ContractError(
            f"{prefix} gives {_article(type(made).__name__)}; it should give a zoo.Cell. "
            f"See {defined_at(factory)}."
        )
    if "hidden_size" not in vars(made):
        raise ContractError(
            f"{prefix} does not call super().__init__(input_size, hidden_size); it should, before "
            f"anything else. See {defined_at(type(made))}."
        )


def check_contract(cell: Any, spec: CellSpec, registry: Registry) -> None:
    """Calls each method of a cell once or twice, with small batches. ContractError, in a line or
    two, for the first that does not take or return what it should. Leaves the random numbers and
    the cell as they are."""
    require_cell(cell, spec, registry)
    first = next(cell.parameters(), torch.empty(0))
    training = [module for module in cell.modules() if module.training]
    devices = [first.device] if first.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            _Check(cell.eval(), spec, registry, first).run()
        finally:
            for module in training:
                module.training = True


class _Check:
    def __init__(self, cell: Cell, spec: CellSpec, registry: Registry, first: Tensor) -> None:
        self.cell, self.spec, self.registry = cell, spec, registry
        self.dtype, self.device = first.dtype, first.device
        self.prefix = f"{registry.cells.describe(spec.name)}: "

    def run(self) -> None:
        if not isinstance(self.cell.output_size, int):
            raise self.wrong(
                "output_size", f"is {describe(self.cell.output_size)}", "be a whole number"
            )
        self.require_recurrent_weights()
        state = self.initial_state()
        x_TBI = self.inputs(BATCH)
        if self.spec.causal:
            self.check_parts("step", "advance", x_TBI[0], state)
        self.require_arguments("forward", x_TBI)
        self.check_parts("forward", "scan", x_TBI, state)
        self.require_no_loop_over_rows()

    def check_parts(self, whole: str, recurrence: str, x: Tensor, state: Any) -> None:
        """A step or a sequence: the method `whole` if the cell writes it, else its three parts."""
        if self.writes(whole):
            y, _ = self.pair(whole, self.call(whole, x, state), state)
            self.require_output(whole, y, x.shape[:-1])
            return
        z = self.call("project", x)
        if not all(isinstance(leaf, Tensor) for _, leaf in _leaves(z)):
            wanted = "return a tensor, or a NamedTuple of tensors"
            raise self.wrong("project", f"returned {describe(z)}", wanted)
        h, _ = self.pair(recurrence, self.call(recurrence, z, state), state)
        y = self.call("readout", h, z)
        author = "readout" if self.writes("readout") else self.author_of(recurrence)
        self.require_output(author, y, x.shape[:-1])

    def initial_state(self) -> Any:
        state = self.call("init_state", BATCH)
        returned = f"returned {describe(state)}"
        leaves = list(_leaves(state))
        if not hasattr(state, "_fields") or not all(isinstance(leaf, Tensor) for _, leaf in leaves):
            raise self.wrong("init_state", returned, "return a NamedTuple of tensors [batch, …]")
        for name, leaf in leaves:
            if leaf.shape[:1] != (BATCH,):
                wanted = f"give {name} the batch ({BATCH} here) as its first axis"
                raise self.wrong("init_state", returned, wanted)
            if leaf.is_floating_point() and leaf.dtype != self.dtype:
                wanted = f"give {name} the dtype of the parameters, {_name(self.dtype)} here, as "
                raise self.wrong("init_state", returned, f"{wanted}self.zeros does")
        return state

    def require_recurrent_weights(self) -> None:
        named = self.call("recurrent_weights")
        parameters = dict(self.cell.named_parameters())
        wanted = 'return a dict of parameters and axes, such as {"W_hh": 0}'
        if not isinstance(named, dict):
            raise self.wrong("recurrent_weights", f"returned {describe(named)}", wanted)
        for name, axis in named.items():
            if name not in parameters:
                raise self.wrong("recurrent_weights", f"names {name!r}, no parameter", wanted)
            axes = parameters[name].dim()
            if not isinstance(axis, int) or not -axes <= axis < axes:
                what = f"gives {axis!r} as the axis of {name}, which has {axes}"
                raise self.wrong("recurrent_weights", what, wanted)

    def inputs(self, batch: int) -> Tensor:
        count = STEPS * batch * self.cell.input_size
        numbers = torch.linspace(-1, 1, count, dtype=self.dtype, device=self.device)
        return numbers.view(STEPS, batch, self.cell.input_size)

    def require_output(self, method: str, y: Any, axes: tuple[int, ...]) -> None:
        wanted = (*axes, self.cell.output_size)
        if not isinstance(y, Tensor) or y.shape != wanted or y.dtype != self.dtype:
            over = f" for a sequence of {STEPS} steps" if len(axes) > 1 else ""
            form = f"[{', '.join(map(str, wanted))}] {_name(self.dtype)}"
            raise self.wrong(method, f"gave {describe(y)} as output{over}", f"give a tensor {form}")

    def pair(self, method: str, returned: Any, state: Any) -> tuple[Any, Any]:
        if isinstance(returned, tuple) and len(returned) == 2:
            if _form(returned[1]) == _form(state):
                return returned
            if _form(returned[0]) == _form(state):
                swapped = "returned the next state first and the output second"
                raise self.wrong(
                    method, swapped, f"return {PAIRS.get(method, '(output, next state)')}"
                )
        wanted = f"return {PAIRS.get(method, '(output, next state)')}"
        raise self.wrong(
            self.author_of(method),
            f"returned {describe(returned)}",
            f"{wanted}, the state as init_state gives it: {describe(state)}",
        )

    def require_no_loop_over_rows(self) -> None:
        """A Python loop over the rows of the batch would be traced for one batch size."""
        counts = []
        for rows in (FEW, MORE):
            x_TBI, state = self.inputs(rows), self.call("init_state", rows)
            with _OperationsByLine(self.spec.factory) as operations:
                if self.spec.causal:
                    self.call("step", x_TBI[0], state)
                else:
                    self.call("forward", x_TBI, state)
            counts.append(operations.lines)
        few, more = counts
        if few.total() == more.total():
            return
        line = max(more, key=lambda place: more[place] - few[place])
        raise ContractError(
            f"{self.prefix}a loop over the rows of the batch ({few.total()} operations for "
            f"{FEW} rows, {more.total()} for {MORE}) works for one batch size only when it is "
            f"exported; write it with operations on the whole tensor. See {line}."
        )

    def call(self, method: str, *arguments: Any) -> Any:
        self.require_arguments(method, *arguments)
        try:
            return getattr(self.cell, method)(*arguments)
        except Exception as error:
            if isinstance(error, ZooError) or is_out_of_memory(error):
                raise
            self.require_written(error)
            author = find_author(error, self.registry)
            written = getattr(type(self.cell), self.author_of(method))
            place = defined_at(written) if author is None else author[1]
            raise ContractError(
                f"{self.prefix}{method} raised {type(error).__name__}: {one_line(error)}, at "
                f"{place} (input_size={self.cell.input_size}, hidden_size={self.cell.hidden_size})."
            ) from error

    def require_arguments(self, method: str, *arguments: Any) -> None:
        signature = inspect.signature(getattr(self.cell, method))
        try:
            signature.bind(*arguments)
        except TypeError:
            wanted = f"take {ARGUMENTS[method]}"
            raise self.wrong(method, f"takes {signature}", wanted) from None

    def require_written(self, error: Exception) -> None:
        """For what a method of `zoo.Cell` raises that is to be overridden."""
        *_, (frame, _line) = walk_tb(error.__traceback__)
        if isinstance(error, NotImplementedError) and self.is_tool(frame.f_globals["__name__"]):
            missing = frame.f_code.co_name
            raise ContractError(
                f"{self.prefix}{type(self.cell).__name__} has no {missing}; it should define "
                f"{missing}{ARGUMENTS.get(missing, '(…)')}. See {defined_at(type(self.cell))}."
            ) from None

    def author_of(self, method: str) -> str:
        """The method that the cell itself writes and that decides what `method` returns."""
        chain = (method, "advance", "coefficients")
        return next((name for name in chain if self.writes(name)), method)

    def writes(self, method: str) -> bool:
        function = getattr(type(self.cell), method, None)
        return function is not None and not self.is_tool(function.__module__)

    @staticmethod
    def is_tool(module: str) -> bool:
        return module.startswith(TOOLS)

    def wrong(self, method: str, found: str, wanted: str) -> ContractError:
        function = getattr(type(self.cell), method)
        written = function.fget if isinstance(function, property) else function
        return ContractError(
            f"{self.prefix}{method} {found}; it should {wanted}. See {defined_at(written)}."
        )


class _OperationsByLine(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations by the line of the plugin that asks for them."""

    def __init__(self, factory: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.package = factory.partition(":")[0].partition(".")[0]
        self.lines: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        frame = sys._getframe()
        while frame.f_back and frame.f_globals["__name__"].partition(".")[0] != self.package:
            frame = frame.f_back
        self.lines[f"{shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"] += 1
        return func(*args, **(kwargs or {}))


def describe(value: Any) -> str:
    """A value by its types, shapes and dtypes: "(tensor [3, 8] float32, State(h [3, 8] …))"."""
    if isinstance(value, Tensor):
        return f"a tensor {_shape(value)}"
    if hasattr(value, "_fields"):
        leaves = (
            f"{name} {_shape(leaf) if isinstance(leaf, Tensor) else describe(leaf)}"
            for name, leaf in _leaves(value)
        )
        return f"{type(value).__name__}({', '.join(leaves)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(describe, value))})"
    return "None" if value is None else _article(type(value).__name__)


def _shape(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {_name(tensor.dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its name in the NamedTuple."""
    if not isinstance(tree, tuple):
        yield name, tree
        return
    for field, branch in zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True):
        yield from _leaves(branch, f"{name}.{field}" if name else str(field))


def _form(tree: Any) -> Any:
    """What a state must keep: its type, and the names, shapes and dtypes of its leaves."""
    return type(tree), [(name, describe(leaf)) for name, leaf in _leaves(tree)]

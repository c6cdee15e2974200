"""Recurrences over time in a traced graph, each of which becomes a Scan, or two.

While a module is traced, one node stands for the recurrence over a sequence (`Scans.emit`). Then
its body, the recurrence of one step, is traced by itself, and replaces the node (`Scans.expand`).
A recurrence that computes many steps at once becomes a Scan over chunks of that many steps, and one
over the steps that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor, nn

from zoo_onnx.chunks import put_chunked
from zoo_onnx.tracing import BATCH, TRACED_BATCH, trace
from zoo_onnx.writer import add_prefix

Capturing = Callable[[], AbstractContextManager[object]]
DOMAIN, RECURRENCE, INDEX = "zoo", "Recurrence", "number"


@dataclass(frozen=True)
class Leaf:
    """A tensor's shape and dtype, and the axis of the batch; None for weights, which have none."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    axis: int | None

    @classmethod
    def of(cls, tensor: Tensor, axis: int | None) -> Leaf:
        sizes = [TRACED_BATCH if i == axis else int(size) for i, size in enumerate(tensor.shape)]
        return cls(tuple(sizes), tensor.dtype, axis)

    def example(self, steps: int | None = None) -> Tensor:
        """A tensor of this form, or one for each of so many steps."""
        shape = self.shape if steps is None else (steps, *self.shape)
        return torch.zeros(shape, dtype=self.dtype)

    def axes(self, steps: int | None = None) -> dict[int, object]:
        """The dynamic axes of the example."""
        return {} if self.axis is None else {self.axis + (steps is not None): BATCH}


@dataclass(frozen=True)
class Recurrence:
    """`body` takes states, inputs of a step and weights, and gives the next states and outputs.
    `chunk`, if there is one, takes the inputs [C, B, …] of so many `steps`, and gives the states
    after them and the outputs [C, B, …]; it is used for fewer than so many `rows`."""

    body: nn.Module
    chunk: nn.Module | None
    steps: int
    rows: int | None
    states: tuple[Leaf, ...]
    inputs: tuple[Leaf, ...]
    weights: tuple[Leaf, ...]
    outputs: int


class Scans:
    """The recurrences of one trace."""

    def __init__(self) -> None:
        self._found: list[Recurrence] = []

    def emit(
        self,
        body: nn.Module,
        states: Sequence[Tensor],
        inputs_T: Sequence[Tensor],
        weights: Sequence[Tensor] = (),
        state_axes: Sequence[int] | None = None,
        chunk: nn.Module | None = None,
        steps: int = 0,
        rows: int | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The last states, and the outputs [T, B, …] of every step, of the recurrence over inputs
        [T, B, …]. `state_axes` are the batch axes of the states, 0 by default. The body runs once,
        for the shapes of its outputs. `chunk` computes so many `steps` at once, and
        is used for fewer than so many `rows`."""
        axes = state_axes if state_axes is not None else [0] * len(states)
        first = [x[0] for x in inputs_T]
        outputs = body(*states, *first, *weights)[len(states) :]
        results = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{RECURRENCE}",
            (*states, *inputs_T, *weights),
            {INDEX: len(self._found)},
            dtypes=[leaf.dtype for leaf in (*states, *outputs)],
            shapes=[
                *(leaf.shape for leaf in states),
                *((inputs_T[0].shape[0], *leaf.shape) for leaf in outputs),
            ],
            version=1,
        )
        self._found.append(
            Recurrence(
                body,
                chunk,
                steps,
                rows,
                tuple(map(Leaf.of, states, axes)),
                tuple(Leaf.of(x, 0) for x in first),
                tuple(Leaf.of(w, None) for w in weights),
                len(outputs),
            )
        )
        return list(results[: len(states)]), list(results[len(states) :])

    def expand(self, model: ir.Model, what: str, capturing: Capturing = nullcontext) -> None:
        """Turns each node that stands for a recurrence into its Scans. `what` names the module in
        errors; bodies are traced within `capturing()`."""
        for node in list(model.graph):
            if node.domain == DOMAIN:
                number = node.attributes[INDEX].as_int()
                _expand(model.graph, node, self._found[number], f"scan{number}_", what, capturing)
        model.graph.opset_imports.pop(DOMAIN, None)


def _expand(
    graph: ir.Graph,
    node: ir.Node,
    recurrence: Recurrence,
    prefix: str,
    what: str,
    capturing: Capturing,
) -> None:
    """The bodies' constants move to `graph`, where ONNX Runtime packs them once; the weights are
    values of `graph`."""
    step = _traced(recurrence, None, prefix, what, capturing)
    chunk = _traced_chunk(recurrence, len(step), f"{prefix}chunk_", what, capturing)
    bodies = [step] if chunk is None else [step, chunk]
    for body in bodies:
        graph.opset_imports.update(body.opset_imports)
        for name, value in list(body.initializers.items()):
            del body.initializers[name]
            graph.register_initializer(value)
    scanned = len(recurrence.states) + len(recurrence.inputs)
    for index in reversed(range(scanned, len(node.inputs))):
        for body in bodies:
            weight = node.inputs[index]
            assert weight is not None
            body.inputs[index].replace_all_uses_with(weight)
            del body.inputs[index]
    node.resize_inputs(scanned)
    if chunk is not None:
        states, steps, rows = len(recurrence.states), recurrence.steps, recurrence.rows
        put_chunked(node, states, step, chunk, steps, rows, prefix)
        return
    node.domain, node.op_type, node.version = "", "Scan", None
    node.attributes.clear()
    node.attributes.add(ir.AttrGraph("body", step))
    node.attributes.add(ir.AttrInt64("num_scan_inputs", len(recurrence.inputs)))


def _traced_chunk(
    recurrence: Recurrence, nodes: int, prefix: str, what: str, capturing: Capturing
) -> ir.Graph | None:
    """The graph of a chunk; None where there is none that is less work than as many steps, of so
    many `nodes` each."""
    if recurrence.chunk is None:
        return None
    chunk = _traced(recurrence, recurrence.steps, prefix, what, capturing)
    return chunk if len(chunk) < recurrence.steps * (nodes + 1) else None


def _traced(
    recurrence: Recurrence, steps: int | None, prefix: str, what: str, capturing: Capturing
) -> ir.Graph:
    """The graph of the body or, of so many steps, of the chunk, with names that begin with
    `prefix`."""
    module = recurrence.body if steps is None else recurrence.chunk
    assert module is not None
    leaves: list[tuple[Leaf, int | None]] = [(leaf, None) for leaf in recurrence.states]
    leaves += [(leaf, steps) for leaf in recurrence.inputs]
    leaves += [(leaf, None) for leaf in recurrence.weights]
    body = trace(
        module,
        tuple(leaf.example(over) for leaf, over in leaves),
        [f"in{index}" for index in range(len(leaves))],
        [f"out{index}" for index in range(len(recurrence.states) + recurrence.outputs)],
        (tuple(leaf.axes(over) for leaf, over in leaves),),
        what,
        capturing(),
    ).graph
    add_prefix(body, prefix)
    return body

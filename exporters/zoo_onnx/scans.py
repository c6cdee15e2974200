"""Recurrences over time in a traced graph, each of which becomes a Scan.

While a module is traced, one node stands for the recurrence over a sequence (`Scans.emit`). Then
its body, the recurrence of one step, is traced by itself, and replaces the node (`Scans.expand`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor, nn

from zoo_onnx.tracing import BATCH, TRACED_BATCH, trace

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

    def example(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype)


@dataclass(frozen=True)
class Recurrence:
    """`body` takes states, inputs of a step and weights, and gives the next states and outputs."""

    body: nn.Module
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
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The last states, and the outputs [T, B, …] of every step, of the recurrence over inputs
        [T, B, …]. `state_axes` are the batch axes of the states, 0 by default. The body runs once,
        for the shapes of its outputs."""
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
                tuple(map(Leaf.of, states, axes)),
                tuple(Leaf.of(x, 0) for x in first),
                tuple(Leaf.of(w, None) for w in weights),
                len(outputs),
            )
        )
        return list(results[: len(states)]), list(results[len(states) :])

    def expand(self, model: ir.Model, what: str, capturing: Capturing = nullcontext) -> None:
        """Turns each node that stands for a recurrence into its Scan. `what` names the module in
        errors; bodies are traced within `capturing()`."""
        for node in list(model.graph):
            if node.domain == DOMAIN:
                number = node.attributes[INDEX].as_int()
                _become_scan(
                    model.graph, node, self._found[number], f"scan{number}_", what, capturing
                )
        model.graph.opset_imports.pop(DOMAIN, None)


def _become_scan(
    graph: ir.Graph,
    node: ir.Node,
    recurrence: Recurrence,
    prefix: str,
    what: str,
    capturing: Capturing,
) -> None:
    """The body's constants move to `graph`, where ONNX Runtime packs them once; its weights are
    values of `graph`."""
    leaves = [*recurrence.states, *recurrence.inputs, *recurrence.weights]
    body = trace(
        recurrence.body,
        tuple(leaf.example() for leaf in leaves),
        [f"in{index}" for index in range(len(leaves))],
        [f"out{index}" for index in range(len(node.outputs))],
        (tuple({} if leaf.axis is None else {leaf.axis: BATCH} for leaf in leaves),),
        what,
        capturing(),
    ).graph
    inner = [value for part in body.all_nodes() for value in part.outputs]
    for value in {*inner, *body.inputs, *body.initializers.values()}:
        value.name = prefix + str(value.name)
    for part in body.all_nodes():
        part.name = prefix + str(part.name)
    for name, value in list(body.initializers.items()):
        del body.initializers[name]
        graph.register_initializer(value)
    scanned = len(recurrence.states) + len(recurrence.inputs)
    for index in reversed(range(scanned, len(leaves))):
        outer = node.inputs[index]
        assert outer is not None
        body.inputs[index].replace_all_uses_with(outer)
        del body.inputs[index]
    node.resize_inputs(scanned)
    node.domain, node.op_type, node.version = "", "Scan", None
    node.attributes.clear()
    node.attributes.add(ir.AttrGraph("body", body))
    node.attributes.add(ir.AttrInt64("num_scan_inputs", len(recurrence.inputs)))

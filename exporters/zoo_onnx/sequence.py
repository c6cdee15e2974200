"""sequence.onnx: whole sequences, in which only the recurrence is a loop.

The model's `forward` is traced once, with each cell's `scan` replaced by a placeholder node. Each
recurrence (`Cell.advance`) is then traced separately, and becomes the body of a Scan that replaces
the placeholder. The rest is in the first trace, outside the Scans: `project`, `readout`, the output
head, and the wiring of cells made of other cells.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from zoo.inference.artifact import LOGITS, TOKENS, ArtifactInfo
from zoo.models.language_model import LanguageModel
from zoo.nn.cell import Cell
from zoo.nn.state import flatten, map_leaves, unflatten
from zoo_onnx.step import TRACED_BATCH
from zoo_onnx.tracing import trace

TRACED_TIME = 4
DOMAIN, RECURRENCE, INDEX = "zoo", "Recurrence", "cell"


class WholeSequence(nn.Module):
    """A model's forward, batch first, with its state as flat arguments."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model
        self.like = model.init_state(1)

    def forward(self, tokens_BT: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        logits_TBV, state = self.model(tokens_BT.T, unflatten(self.like, leaves))
        return (logits_TBV.transpose(0, 1), *(leaf.clone() for leaf in flatten(state)))


@dataclass(frozen=True)
class Leaf:
    """A tensor's shape without its batch axis, and its dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Leaf:
        return cls(tuple(int(size) for size in tensor.shape[1:]), tensor.dtype)

    def example(self) -> Tensor:
        return torch.zeros(TRACED_BATCH, *self.shape, dtype=self.dtype)


class Recurrence(nn.Module):
    """`cell.advance` with flat arguments in the order of a Scan's body: states and z to next states
    and h. `state` and `z` are trees of Leaf."""

    def __init__(self, cell: Cell, state: Any, z: Any) -> None:
        super().__init__()
        self.cell, self.state, self.z = cell, state, z

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        states = len(flatten(self.state))
        h, state = self.cell.advance(
            unflatten(self.z, leaves[states:]), unflatten(self.state, leaves[:states])
        )
        # each output gets its own node, even a tensor that is returned twice or is an input
        return tuple(leaf.clone() for leaf in [*flatten(state), *flatten(h)])


def trace_sequence(model: LanguageModel, info: ArtifactInfo) -> ir.Model:
    """The graph, with the batch and time axes of every input and output dynamic."""
    tokens = torch.zeros(TRACED_BATCH, TRACED_TIME, dtype=torch.int64)
    leaves = flatten(model.init_state(TRACED_BATCH))
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    what = f"cell {info.model.cell!r}, over a sequence,"
    with_placeholders, recurrences = _with_placeholders(model)
    traced = trace(
        WholeSequence(with_placeholders),
        (tokens, *leaves),
        [TOKENS, *info.state_names("in")],
        [LOGITS, *info.state_names("out")],
        ({0: batch, 1: time}, tuple({0: batch} for _ in leaves)),
        what,
    )
    for node in list(traced.graph):
        if node.domain == DOMAIN:
            index = node.attributes[INDEX].as_int()
            _become_scan(traced.graph, node, recurrences[index], f"cell{index}_", what)
    del traced.graph.opset_imports[DOMAIN]
    return traced


def _with_placeholders(model: LanguageModel) -> tuple[LanguageModel, dict[int, Recurrence]]:
    """A copy of the model that shares its parameters, in which each cell with its own recurrence is
    traced to a placeholder node. After tracing, the returned dict has the recurrences by the index
    attribute of their nodes."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copy = deepcopy(model, shared)
    found: dict[int, Recurrence] = {}
    cells = [module for module in copy.modules() if isinstance(module, Cell)]
    for index, cell in enumerate(cells):
        if type(cell).advance is not Cell.advance:
            cell.__class__ = _with_placeholder(type(cell), index, found)
    return copy, found


def _with_placeholder(
    cell_type: type[Cell], index: int, found: dict[int, Recurrence]
) -> type[Cell]:
    """The cell type with a `scan` that emits the placeholder and records the recurrence in `found`.
    `forward` is `Cell.forward`, since an override may not call `scan`."""

    def scan(cell: Cell, z_T: Any, state: Any) -> tuple[Any, Any]:
        z = map_leaves(lambda leaf: leaf[0], z_T)
        h, _ = cell.advance(z, state)  # for its shapes; nothing depends on its values
        found[index] = Recurrence(cell, map_leaves(Leaf.of, state), map_leaves(Leaf.of, z))
        states, inputs, outputs = flatten(state), flatten(z_T), flatten(h)
        results = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{RECURRENCE}",
            (*states, *inputs),
            {INDEX: index},
            dtypes=[leaf.dtype for leaf in [*states, *outputs]],
            shapes=[
                *(leaf.shape for leaf in states),
                *((inputs[0].shape[0], *leaf.shape) for leaf in outputs),
            ],
            version=1,
        )
        h_T, end = results[len(states) :], results[: len(states)]
        return unflatten(h, h_T), unflatten(state, end)

    return type(cell_type.__name__, (cell_type,), {"forward": Cell.forward, "scan": scan})


def _become_scan(
    graph: ir.Graph, node: ir.Node, recurrence: Recurrence, prefix: str, what: str
) -> None:
    """Turns the placeholder into a Scan over the traced recurrence. The body's weights move to
    `graph`, where ONNX Runtime packs them once."""
    leaves = [*flatten(recurrence.state), *flatten(recurrence.z)]
    batch = torch.export.Dim("batch")
    body = trace(
        recurrence,
        tuple(leaf.example() for leaf in leaves),  # type: ignore[attr-defined]
        [f"in{index}" for index in range(len(leaves))],
        [f"out{index}" for index in range(len(node.outputs))],
        (tuple({0: batch} for _ in leaves),),
        what,
    ).graph
    inner = [value for part in body.all_nodes() for value in part.outputs]
    for value in {*inner, *body.inputs, *body.initializers.values()}:
        value.name = prefix + str(value.name)
    for part in body.all_nodes():
        part.name = prefix + str(part.name)
    for name, value in list(body.initializers.items()):
        del body.initializers[name]
        graph.register_initializer(value)
    node.domain, node.op_type, node.version = "", "Scan", None
    node.attributes.clear()
    node.attributes.add(ir.AttrGraph("body", body))
    node.attributes.add(ir.AttrInt64("num_scan_inputs", len(flatten(recurrence.z))))

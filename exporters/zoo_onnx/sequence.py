"""sequence.onnx: whole sequences, in which only recurrences are loops.

The model's `forward` is traced once. A cell with a `scan` of its own runs it there, with the tools
of `zoo.nn` in the forms of `zoo_onnx.tools`; of any other the recurrence becomes a Scan over
`Cell.advance` (see `zoo_onnx.scans`). The rest is outside the Scans: `project`, `readout`, the
output head, and the wiring of cells made of other cells.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.inference.artifact import ArtifactInfo
from zoo.models.language_model import LanguageModel
from zoo.nn.cell import Cell
from zoo.nn.state import flatten, map_leaves, unflatten
from zoo_onnx.scans import Scans
from zoo_onnx.step import example_inputs, random_inputs
from zoo_onnx.tools import Tools
from zoo_onnx.tracing import BATCH, TIME, TRACED_BATCH, trace
from zoo_ort.providers import SILENT

TRACED_TIME = 4
WHOLE, CHUNKS, STEPS = "whole", "chunks", "steps"  # what a cell's own `scan` runs on
CHUNK = 32  # steps
TRIED = ((1, 1), (2, 7), (5, 150))  # rows and steps
TOLERANCE = 1e-2  # whole recurrences amplify rounding


class WholeSequence(nn.Module):
    """A model's forward, batch first, with its state as flat arguments."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model
        self.like = model.init_state(1)

    def forward(self, tokens_BT: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        logits_TBV, state = self.model(tokens_BT.transpose(0, 1), unflatten(self.like, leaves))
        return (logits_TBV.transpose(0, 1), *(leaf.clone() for leaf in flatten(state)))


class Chunk(nn.Module):
    """`cell.scan` with flat arguments, states and z of many steps, to next states and h. `state`
    and `z` are values of the right form."""

    def __init__(self, cell: Cell, scan: Any, state: Any, z: Any, fused: bool) -> None:
        super().__init__()
        self.cell, self.scan, self.state, self.z, self.fused = cell, scan, state, z, fused

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        states = len(flatten(self.state))
        z_T, state = unflatten(self.z, leaves[states:]), unflatten(self.state, leaves[:states])
        with Tools(self.fused):
            h_T, state = self.scan(self.cell, z_T, state)
        return tuple(leaf.clone() for leaf in [*flatten(state), *flatten(h_T)])


class Advance(nn.Module):
    """`cell.advance` with flat arguments, states and z, to next states and h. `state` and `z` are
    values of the right form."""

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


def trace_sequence(model: LanguageModel, info: ArtifactInfo, fused: bool) -> ir.Model:
    """The graph, with the batch and time axes of every input and output dynamic.

    A cell with a `scan` of its own, which computes a whole sequence, runs it in the trace; where
    that cannot be traced for a sequence of any length, on chunks of it; else every cell is a loop
    over its steps. `fused` operators are used where they can be had.
    """
    for how in (WHOLE, CHUNKS):
        try:
            found = _traced(model, info, Scans(), fused, how)
        except ZooError:
            continue
        if _computes_the_same(found, model):
            return found
    return _traced(model, info, Scans(), fused, STEPS)


def _computes_the_same(graph: ir.Model, model: LanguageModel) -> bool:
    """Whether the graph computes what the model does, for other rows and steps than it was traced
    with. A number that the tracer took for a constant shows in this; the proof is stricter."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = SILENT
    content = ir.to_proto(graph).SerializeToString()
    whole, generator = WholeSequence(model), torch.Generator().manual_seed(0)
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for rows, steps in TRIED:
            shape = rows, steps
            inputs = random_inputs(model.interface, shape, generator)
            given = (inputs, *flatten(model.init_state(rows)))
            names = [each.name for each in session.get_inputs()]
            feeds = {name: x.numpy() for name, x in zip(names, given, strict=True)}
            with torch.no_grad():
                wanted = whole(*given)
            for found, expected in zip(session.run(None, feeds), wanted, strict=True):
                tolerance = TOLERANCE * max(1.0, float(expected.abs().max()))
                if not np.allclose(found, expected.numpy(), TOLERANCE, tolerance, equal_nan=True):
                    return False
    except Exception:  # ONNX Runtime's errors have no common type
        return False
    return True


def _traced(
    model: LanguageModel, info: ArtifactInfo, scans: Scans, fused: bool, how: str
) -> ir.Model:
    inputs = example_inputs(info, TRACED_BATCH, TRACED_TIME)
    leaves = flatten(model.init_state(TRACED_BATCH))
    what = f"cell {info.model.cell!r}, over a sequence,"
    traced = trace(
        WholeSequence(_with_recurrences(model, scans, fused, how)),
        (inputs, *leaves),
        [info.input_name, *info.state_names("in")],
        [info.output_name, *info.state_names("out")],
        ({0: BATCH, 1: TIME}, tuple({0: BATCH} for _ in leaves)),
        what,
    )
    scans.expand(traced, what)
    return traced


def _with_recurrences(model: LanguageModel, scans: Scans, fused: bool, how: str) -> LanguageModel:
    """A copy of the model that shares its parameters, in which each cell with its own recurrence
    emits it to `scans`; one with a `scan` of its own runs that on the WHOLE sequence, or on
    CHUNKS."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copy = deepcopy(model, shared)
    for cell in [module for module in copy.modules() if isinstance(module, Cell)]:
        if type(cell).advance is not Cell.advance:
            cell.__class__ = _with_recurrence(type(cell), scans, fused, how)
    return copy


def _with_recurrence(cell_type: type[Cell], scans: Scans, fused: bool, how: str) -> type[Cell]:
    """The cell type with a `scan` that emits the recurrence. `forward` is `Cell.forward`, since an
    override may not call `scan`."""
    own = cell_type.scan
    if own is Cell.scan:
        how = STEPS

    def scan(cell: Cell, z_T: Any, state: Any) -> tuple[Any, Any]:
        if how == WHOLE:
            with Tools(fused, scans):
                return own(cell, z_T, state)
        z = map_leaves(lambda leaf: leaf[0], z_T)
        h, _ = cell.advance(z, state)  # for its form; nothing depends on its values
        chunk = Chunk(cell, own, state, z, fused) if how == CHUNKS else None
        end, h_T = scans.emit(
            Advance(cell, state, z), flatten(state), flatten(z_T), chunk=chunk, steps=CHUNK
        )
        return unflatten(h, h_T), unflatten(state, end)

    return type(cell_type.__name__, (cell_type,), {"forward": Cell.forward, "scan": scan})

"""Makes an exported graph one that Triton can batch, where it is not yet.

Triton concatenates the requests of a batch along the first axis of every input, and splits every
output along it. A request is a row, without a name for the axis in the configuration. So an input
must not have time first, and a state leaf must have an axis besides that of the batch: Triton gives
a leaf without one an initial state of zero bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zoo.inference.artifact import GENERATE, PREFIX, TOKENS, UNIFORM, ArtifactInfo

OWN = "zoo_triton."  # how the names of added values begin; the exporter writes no dots
AXIS = OWN + "axis"  # the axis that a state leaf without axes gets


def fit(model: onnx.ModelProto, info: ArtifactInfo) -> bool:
    """Rewrites the graph where Triton needs another; returns whether anything was changed.

    - `uniform` and `tokens` of a generate graph become `[batch, steps]`.
    - A leaf of shape `[batch]` becomes `[batch, 1]`.
    - A non-causal graph loses its state: every request is a whole sequence, so its initial state
      becomes part of the graph.

    A changed graph is no longer the file that the metadata describes, and loses the metadata.
    """
    graph = model.graph
    changed = False
    if info.graph == GENERATE:
        _convert_input(graph, UNIFORM, ("batch", "steps"), "Transpose", perm=[1, 0])
        _convert_output(graph, TOKENS, ("batch", "steps"), "Transpose", perm=[1, 0])
        changed = True
    pairs = list(zip(info.state_names("in"), info.state_names("out"), strict=True))
    if not info.causal:
        _give_initial_state(graph, info)
        changed = True
    elif scalars := [pair for pair, leaf in zip(pairs, info.state, strict=True) if not leaf.shape]:
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), AXIS))
        for given, returned in scalars:
            _convert_input(graph, given, ("batch", 1), "Squeeze", AXIS)
            _convert_output(graph, returned, ("batch", 1), "Unsqueeze", AXIS)
        changed = True
    if changed:
        described = [entry for entry in model.metadata_props if entry.key.startswith(PREFIX)]
        for entry in described:
            model.metadata_props.remove(entry)
        onnx.checker.check_model(model)
    return changed


def _convert_input(
    graph: onnx.GraphProto,
    name: str,
    shape: Sequence[str | int],
    operator: str,
    *others: str,
    **attributes: Any,
) -> None:
    """Gives the input the shape, and the graph what `operator` makes of it."""
    inner = OWN + name
    _rename(graph, {name: inner})
    graph.node.insert(0, helper.make_node(operator, [name, *others], [inner], **attributes))
    _declare(graph.input, name, shape)


def _convert_output(
    graph: onnx.GraphProto,
    name: str,
    shape: Sequence[str | int],
    operator: str,
    *others: str,
    **attributes: Any,
) -> None:
    """Gives the output the shape; it is then what `operator` makes of what the graph computes."""
    inner = OWN + name
    _rename(graph, {name: inner})
    graph.node.append(helper.make_node(operator, [inner, *others], [name], **attributes))
    _declare(graph.output, name, shape)


def _declare(values: Sequence[onnx.ValueInfoProto], name: str, shape: Sequence[str | int]) -> None:
    (value,) = (value for value in values if value.name == name)
    declared = helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, shape)
    value.CopyFrom(declared)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Renames values within a graph and the graphs nested in it, which may use the values of the
    outer one. The graph's own inputs and outputs stay."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for nested in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                _rename(nested, names)
                for value in nested.output:
                    value.name = names.get(value.name, value.name)
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)


def _give_initial_state(graph: onnx.GraphProto, info: ArtifactInfo) -> None:
    """Replaces the state inputs by the initial state, repeated for every row of `tokens`, and
    removes the state outputs."""
    state = {*info.state_names("in"), *info.state_names("out")}
    for values in (graph.input, graph.output):
        kept = [value for value in values if value.name not in state]
        del values[:]
        values.extend(kept)
    rows = OWN + "rows"  # [1]: the number of rows
    added = [helper.make_node("Shape", [TOKENS], [rows], start=0, end=1)]
    for name, leaf in zip(info.state_names("in"), info.state, strict=True):
        row, sizes, shape = f"{OWN}{name}.row", f"{OWN}{name}.sizes", f"{OWN}{name}.shape"
        graph.initializer.append(numpy_helper.from_array(leaf.initial_rows(1), row))
        graph.initializer.append(numpy_helper.from_array(np.array(leaf.shape, np.int64), sizes))
        added.append(helper.make_node("Concat", [rows, sizes], [shape], axis=0))
        added.append(helper.make_node("Expand", [row, shape], [name]))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*added, *nodes])

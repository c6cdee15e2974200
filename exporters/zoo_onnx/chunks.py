"""A recurrence over time in chunks of many steps: a Scan over the chunks, and one over the steps
that are left. ONNX Runtime refuses a Scan of no iterations, and few steps are faster in one Scan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

Values = list[ir.Value]


def put_chunked(
    node: ir.Node,
    states: int,
    step: ir.Graph,
    chunk: ir.Graph,
    steps: int,
    rows: int | None,
    prefix: str,
) -> None:
    """Replaces a node of a graph, whose inputs are `states` [B, …] and inputs [T, B, …], and whose
    outputs are the states after them and outputs [T, B, …]. `step` and `chunk` are the bodies of
    the Scans, of one step and of so many `steps`; chunks are for fewer than so many rows. New names
    begin with `prefix`."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    given, results = [value for value in node.inputs if value is not None], len(node.outputs)
    before, inputs = given[:states], given[states:]

    main = _Writer(graph, f"{prefix}chunks_")
    size, zero = main.constant("size", steps), main.constant("zero", 0)
    length = main.op("Shape", [inputs[0]], start=0, end=1)
    in_steps = main.op("Less", [length, size])
    if rows is not None:
        batch = main.op("Shape", [inputs[0]], start=1, end=2)
        are_many = main.op("GreaterOrEqual", [batch, main.constant("rows", rows)])
        in_steps = main.op("Or", [in_steps, are_many])

    few = _Writer(graph, f"{prefix}few_")
    found = few.scan(step.clone(allow_outer_scope_values=True), before, inputs, results)

    many = _Writer(graph, f"{prefix}many_")
    count = many.op("Div", [length, size])
    whole = many.op("Mul", [count, size])
    cut = []
    for x in inputs:
        shape = many.op("Concat", [count, size, many.op("Shape", [x], start=1)], axis=0)
        cut.append(many.op("Reshape", [many.op("Slice", [x, zero, whole, zero]), shape]))
    after = many.scan(chunk, before, cut, results)
    for index, y in enumerate(after[states:], states):
        shape = many.op("Concat", [whole, many.op("Shape", [y], start=2)], axis=0)
        after[index] = many.op("Reshape", [y, shape])

    rest = _Writer(graph, f"{prefix}rest_")
    left = [rest.op("Slice", [x, whole, length, zero]) for x in inputs]
    ends = rest.scan(step, after[:states], left, results)
    for index, (y, z) in enumerate(zip(after[states:], ends[states:], strict=True), states):
        ends[index] = rest.op("Concat", [y, z], axis=0)
    none = _Writer(graph, f"{prefix}none_")
    same = [none.op("Identity", [value]) for value in after]
    is_left = many.op("Less", [whole, length])
    ended = many.choose(is_left, rest.graph(ends), none.graph(same))

    chosen = main.choose(in_steps, few.graph(found), many.graph(ended))
    graph.insert_before(node, main.nodes)
    for old, new in zip(node.outputs, chosen, strict=True):
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node)


class _Writer:
    """Nodes that are written one after the other, whose names begin with `prefix`; constants go to
    `outer`."""

    def __init__(self, outer: ir.Graph, prefix: str) -> None:
        self._outer, self._prefix = outer, prefix
        self.nodes: list[ir.Node] = []

    def constant(self, name: str, number: int) -> ir.Value:
        tensor = ir.tensor(np.array([number], np.int64), name=self._prefix + name)
        value = ir.Value(name=tensor.name, const_value=tensor)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape([1])
        self._outer.register_initializer(value)
        return value

    def op(self, kind: str, inputs: Values, **attributes: Any) -> ir.Value:
        (output,) = self._several(kind, inputs, 1, **attributes)
        return output

    def scan(self, body: ir.Graph, states: Values, inputs: Values, outputs: int) -> Values:
        return self._several(
            "Scan", [*states, *inputs], outputs, body=body, num_scan_inputs=len(inputs)
        )

    def choose(self, condition: ir.Value, yes: ir.Graph, no: ir.Graph) -> Values:
        return self._several("If", [condition], len(yes.outputs), then_branch=yes, else_branch=no)

    def graph(self, outputs: Values) -> ir.Graph:
        """The nodes as a graph of its own."""
        return ir.Graph([], outputs, nodes=self.nodes, name=self._prefix.rstrip("_"))

    def _several(self, kind: str, inputs: Values, outputs: int, **attributes: Any) -> Values:
        node = ir.node(kind, inputs, attributes, num_outputs=outputs)
        node.name = f"{self._prefix}{kind}_{len(self.nodes)}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}_{index}"
        self.nodes.append(node)
        return list(node.outputs)

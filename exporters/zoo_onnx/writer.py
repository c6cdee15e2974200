"""Nodes of a graph that are written by hand, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Values = list[ir.Value]


class Writer:
    """Nodes whose names begin with `prefix`; constants go to `outer`."""

    def __init__(self, outer: ir.Graph, prefix: str) -> None:
        self._outer, self._prefix = outer, prefix
        self.nodes: list[ir.Node] = []

    def constant(self, name: str, *numbers: int) -> ir.Value:
        """A vector of whole numbers."""
        tensor = ir.tensor(np.array(numbers, np.int64), name=self._prefix + name)
        value = ir.Value(name=tensor.name, const_value=tensor)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape([len(numbers)])
        self._outer.register_initializer(value)
        return value

    def op(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        (output,) = self._several(kind, inputs, 1, **attributes)
        return output

    def scan(self, body: ir.Graph, states: Values, inputs: Values, outputs: int) -> Values:
        """A loop over the inputs, with all outputs of it: the last states, and what is stacked."""
        return self._several(
            "Scan", [*states, *inputs], outputs, body=body, num_scan_inputs=len(inputs)
        )

    def choose(self, condition: ir.Value, yes: ir.Graph, no: ir.Graph) -> Values:
        return self._several("If", [condition], len(yes.outputs), then_branch=yes, else_branch=no)

    def graph(self, outputs: Values) -> ir.Graph:
        """The nodes as a graph of its own."""
        return ir.Graph([], outputs, nodes=self.nodes, name=self._prefix.rstrip("_"))

    def _several(
        self, kind: str, inputs: Sequence[ir.Value], outputs: int, **attributes: Any
    ) -> Values:
        node = ir.node(kind, inputs, attributes, num_outputs=outputs)
        node.name = f"{self._prefix}{kind}_{len(self.nodes)}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}_{index}"
        self.nodes.append(node)
        return list(node.outputs)


def add_prefix(graph: ir.Graph, prefix: str) -> None:
    """Makes the names of a graph that becomes a part of another its own. Those of values from
    around it stay."""
    computed = [value for node in graph.all_nodes() for value in node.outputs]
    for value in {*computed, *graph.inputs, *graph.initializers.values()}:
        value.name = prefix + str(value.name)
    for node in graph.all_nodes():
        node.name = prefix + str(node.name)

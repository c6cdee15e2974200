"""The versions that a file declares: the oldest that hold all it uses, so that old runtimes open
it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import TensorProto

OPSET = 20  # of graphs while they are built
OLDEST_OPSET = 19
IR_VERSION = 9  # came with opset 19, and is enough for 20

Types = Mapping[str, str]  # of values by name, as schemas have them: "tensor(float)"


def declare_oldest(model: onnx.ModelProto) -> None:
    """Sets the versions of a model of opset 20, in place.

    The opset becomes 19 where each operator that opset 20 changed is the same in 19 for this model:
    it has the same inputs, outputs and attributes, and 19 has the types that the model uses.
    """
    model.ir_version = IR_VERSION
    (opset,) = (each for each in model.opset_import if not each.domain)
    changed = any(map(_is_changed, _nodes(model.graph)))
    # types are inferred only where something depends on them
    if not changed or _fits(onnx.shape_inference.infer_shapes(model).graph, {}):
        opset.version = OLDEST_OPSET


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph and of the graphs within it."""
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _nodes(inner)


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    graphs: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        graphs += [attribute.g] if attribute.HasField("g") else []
        graphs += attribute.graphs
    return graphs


def _is_changed(node: onnx.NodeProto) -> bool:
    if node.domain:
        return False
    return bool(onnx.defs.get_schema(node.op_type, OPSET, "").since_version > OLDEST_OPSET)


def _fits(graph: onnx.GraphProto, outer: Types) -> bool:
    """Whether the older opset has all operators of the graph in its types. `outer` are the types
    of values that the graph reads from around it."""
    types = dict(outer)
    for tensor in graph.initializer:
        types[tensor.name] = _type_name(tensor.data_type)
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = _type_name(value.type.tensor_type.elem_type)
    return all(
        (not _is_changed(node) or _is_in_older(node, types))
        and all(_fits(inner, types) for inner in _subgraphs(node))
        for node in graph.node
    )


def _type_name(element: int) -> str:
    return f"tensor({TensorProto.DataType.Name(element).lower()})"


def _is_in_older(node: onnx.NodeProto, types: Types) -> bool:
    """Whether the older opset has the operator, as it is, for these types."""
    newer = onnx.defs.get_schema(node.op_type, OPSET, "")
    if not onnx.defs.has(node.op_type, OLDEST_OPSET, ""):
        return False
    older = onnx.defs.get_schema(node.op_type, OLDEST_OPSET, "")
    return _signature(older) == _signature(newer) and all(
        types.get(name) in parameter.types
        for names, parameters in ((node.input, older.inputs), (node.output, older.outputs))
        for name, parameter in zip(names, parameters, strict=False)
        if name
    )


def _signature(schema: onnx.defs.OpSchema) -> Any:
    """What two versions of an operator have in common if they differ in types alone. What it
    computes is the same then; where it is not, attributes or their defaults differ as well."""
    return (
        [(parameter.name, parameter.option) for parameter in (*schema.inputs, *schema.outputs)],
        {
            name: (attribute.required, attribute.default_value.SerializeToString())
            for name, attribute in schema.attributes.items()
        },
    )

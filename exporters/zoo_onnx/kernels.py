"""Nodes for which ONNX Runtime has no kernel of their type, computed in a wider one.

ONNX Runtime is asked: it names the first node that it cannot run. That node then gets casts around
it, to a type that holds every value of its own and back. Integers wrap around in the cast back, as
they do in their own type.
"""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir
import onnxruntime as ort

from zoo.errors import ZooError
from zoo_ort.providers import SILENT

MAX_NODES = 1000  # that get casts
MISSING = re.compile(r"Could not find an implementation for (\w+)\(\d+\) node with name '([^']*)'")
WIDER = {
    ir.DataType.BOOL: ir.DataType.UINT8,
    ir.DataType.INT8: ir.DataType.INT32,
    ir.DataType.UINT8: ir.DataType.INT32,
    ir.DataType.INT16: ir.DataType.INT32,
    ir.DataType.UINT16: ir.DataType.INT32,
    ir.DataType.INT32: ir.DataType.INT64,
    ir.DataType.UINT32: ir.DataType.INT64,
    ir.DataType.UINT64: ir.DataType.INT64,
    ir.DataType.FLOAT16: ir.DataType.FLOAT,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
}


def widen_missing(model: ir.Model) -> None:
    """Puts casts around each node of the main graph that ONNX Runtime has no kernel for, in place.
    ZooError for one that cannot be widened."""
    widened: dict[str, int] = {}
    for _ in range(MAX_NODES):
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
        missing = _missing(proto.SerializeToString())
        if missing is None:
            return
        op, name = missing
        types = _types(proto)
        node = next((node for node in model.graph if node.name == name), None)
        widened[name] = widened.get(name, 0) + 1
        if node is None or widened[name] > 2 or not _widen(model, node, types):
            inputs = node.inputs if node is not None else ()
            kinds = {types.get(value.name or "") for value in inputs if value is not None}
            shown = " and ".join(sorted(kind.name.lower() for kind in kinds if kind is not None))
            raise ZooError(
                f"ONNX Runtime cannot compute {op}{f' of {shown}' if shown else ''} in the dtype "
                f"that the module has there; use another, float32 for example."
            )


def _missing(content: bytes) -> tuple[str, str] | None:
    """Operator and name of the first node without a kernel."""
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        found = MISSING.search(str(error))
        return (found[1], found[2]) if found else None
    return None


def _types(proto: onnx.ModelProto) -> dict[str, ir.DataType]:
    graph = proto.graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: ir.DataType(value.type.tensor_type.elem_type) for value in values}
    return types | {tensor.name: ir.DataType(tensor.data_type) for tensor in graph.initializer}


def _widen(model: ir.Model, node: ir.Node, types: dict[str, ir.DataType]) -> bool:
    """Casts before and behind the node; False if nothing of it can be wider. The first input of a
    Where is its condition, which stays boolean."""
    changed = False
    for index, value in enumerate(node.inputs):
        if value is None or (node.op_type == "Where" and index == 0):
            continue
        own = types.get(value.name or "")
        if own not in WIDER:
            continue
        cast = ir.node("Cast", [value], {"to": WIDER[own]}, name=f"{node.name}_wide_{index}")
        cast.outputs[0].name = f"{value.name}_wide_{node.name}_{index}"
        model.graph.insert_before(node, cast)
        node.replace_input_with(index, cast.outputs[0])
        changed = True
    if not changed:
        return False
    for output in node.outputs:
        own = types.get(output.name or "")
        if own not in WIDER or (own == ir.DataType.BOOL and node.op_type != "Where"):
            continue
        name = output.name
        wide = ir.Value(name=f"{name}_wide")
        cast = ir.node("Cast", [output], {"to": own}, name=f"{node.name}_narrow")
        narrow = cast.outputs[0]
        for user, position in list(output.uses()):
            if user is not cast:
                user.replace_input_with(position, narrow)
        for position, value in enumerate(model.graph.outputs):
            if value is output:
                model.graph.outputs[position] = narrow
        model.graph.insert_after(node, cast)
        narrow.name, output.name = name, wide.name
        narrow.type, narrow.shape = output.type, output.shape
        output.type = ir.TensorType(WIDER[own])
    return True

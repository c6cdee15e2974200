"""generate.onnx: many steps with sampling in one run of the graph.

The loop is a Scan over the random numbers rather than a Loop: it has as many iterations as there
are numbers, whatever the file says, and less overhead per iteration in ONNX Runtime.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from zoo.inference.artifact import LOGITS, SAMPLING_INPUTS, TOKEN, TOKENS, UNIFORM, ArtifactInfo
from zoo_onnx.sampler import choice_graph, settings_graph

INSIDE = "step_"


def build_generate(step: ir.Model, info: ArtifactInfo) -> onnx.ModelProto:
    """The loop around a step graph. The step's constants are outside the loop."""
    inputs = [TOKEN, *info.state_names("in")]
    ends = info.state_names("out")
    outer = ir.to_proto(step)
    computed = [value for node in step.graph.all_nodes() for value in node.outputs]
    for value in {*step.graph.inputs, *computed}:
        value.name = f"{INSIDE}{value.name}"
    inner = ir.to_proto(step.graph)
    settings, choice = settings_graph(info.ends.outputs), choice_graph()
    for node in choice.node:
        _rename(node, {"logits": INSIDE + LOGITS})
    token_again = "token_again"  # the next step's token and a row of `tokens` are two outputs
    (chosen,) = choice.output
    body = helper.make_graph(
        [*inner.node, *choice.node, helper.make_node("Identity", [chosen.name], [token_again])],
        "one_token",
        [*inner.input, choice.input[1]],
        [
            chosen,
            *(value for value in inner.output if value.name != INSIDE + LOGITS),
            helper.make_tensor_value_info(token_again, TensorProto.INT64, ["batch"]),
        ],
    )
    scan = helper.make_node(
        "Scan",
        [*inputs, settings.output[0].name],
        ["next_token", *ends, TOKENS],
        body=body,
        num_scan_inputs=1,
    )
    graph = helper.make_graph(
        [*settings.node, scan],
        "generate",
        [*outer.graph.input, *settings.input],
        [
            helper.make_tensor_value_info(TOKENS, TensorProto.INT64, ["steps", "batch"]),
            *(value for value in outer.graph.output if value.name != LOGITS),
        ],
        [*inner.initializer, *settings.initializer, *choice.initializer],
    )
    assert [value.name for value in settings.input] == [UNIFORM, *SAMPLING_INPUTS]
    model = helper.make_model(graph, opset_imports=outer.opset_import, ir_version=outer.ir_version)
    model.producer_name = outer.producer_name
    return model


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Renames what a node, and every node of its subgraphs, reads."""
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            _rename(inner, names)

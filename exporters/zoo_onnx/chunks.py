"""A recurrence over time in chunks of many steps: a Scan over the chunks, and one over the steps
that are left. ONNX Runtime refuses a Scan of no iterations, and few steps are faster in one Scan.
"""

from __future__ import annotations

import onnx_ir as ir

from zoo_onnx.writer import Writer


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

    main = Writer(graph, f"{prefix}chunks_")
    size, zero = main.constant("size", steps), main.constant("zero", 0)
    length = main.op("Shape", inputs[0], start=0, end=1)
    in_steps = main.op("Less", length, size)
    if rows is not None:
        batch = main.op("Shape", inputs[0], start=1, end=2)
        are_many = main.op("GreaterOrEqual", batch, main.constant("rows", rows))
        in_steps = main.op("Or", in_steps, are_many)

    few = Writer(graph, f"{prefix}few_")
    found = few.scan(step.clone(allow_outer_scope_values=True), before, inputs, results)

    many = Writer(graph, f"{prefix}many_")
    count = many.op("Div", length, size)
    whole = many.op("Mul", count, size)
    cut = []
    for x in inputs:
        shape = many.op("Concat", count, size, many.op("Shape", x, start=1), axis=0)
        cut.append(many.op("Reshape", many.op("Slice", x, zero, whole, zero), shape))
    after = many.scan(chunk, before, cut, results)
    for index, y in enumerate(after[states:], states):
        shape = many.op("Concat", whole, many.op("Shape", y, start=2), axis=0)
        after[index] = many.op("Reshape", y, shape)

    rest = Writer(graph, f"{prefix}rest_")
    left = [rest.op("Slice", x, whole, length, zero) for x in inputs]
    ends = rest.scan(step, after[:states], left, results)
    for index, (y, z) in enumerate(zip(after[states:], ends[states:], strict=True), states):
        ends[index] = rest.op("Concat", y, z, axis=0)
    none = Writer(graph, f"{prefix}none_")
    same = [none.op("Identity", value) for value in after]
    is_left = many.op("Less", whole, length)
    ended = many.choose(is_left, rest.graph(ends), none.graph(same))

    chosen = main.choose(in_steps, few.graph(found), many.graph(ended))
    graph.insert_before(node, main.nodes)
    for old, new in zip(node.outputs, chosen, strict=True):
        new.type, new.shape = old.type, old.shape
        new.name, old.name = old.name, f"{prefix}{old.name}_of_one_loop"  # it may be an output's
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node)

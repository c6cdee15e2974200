"""Loops that do less in each step: what a step computes of its state that the step before has
computed already is carried over, and constants stand within the loop.

ONNX Runtime plans the memory of a loop's body ahead only if all values that the body takes from
around it have some memory. Weights that it has packed have none any more. Within the body they are
no such values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from zoo_onnx.tables import constant_of, make_initializer

SMALL = 64  # elements of a constant of which a loop gets a copy, if others use it too
# Bytes of constants that move into a loop, where ONNX Runtime keeps a second copy of them. With 4
# MiB the plan saves a fiftieth of a step's time.
MOST = 2**23
BODY, SCANNED = "body", "num_scan_inputs"


def tighten_loops(graph: ir.Graph) -> None:
    """Rewrites each Scan of the graph, in place. No result changes."""
    for loop in [node for node in graph if node.op_type == "Scan"]:
        states = _states(loop)
        found = _unread_removed(_carried(graph, loop, _shared(graph, loop, states)))
        if found != states:
            _rebuild(graph, loop, found)
    for loop in [node for node in graph if node.op_type == "Scan"]:
        _place_constants(graph, loop.attributes[BODY].as_graph())


@dataclass(frozen=True)
class State:
    """What a loop hands from step to step; `last` is None for a state that is new."""

    first: ir.Value  # around the loop, for the first step
    before: ir.Value  # in the body
    after: ir.Value  # in the body, for the next step
    last: ir.Value | None  # around the loop, of the last step

    @property
    def is_read_outside(self) -> bool:
        last = self.last
        return last is not None and (last.is_graph_output() or bool(last.uses()))


def _states(loop: ir.Node) -> list[State]:
    body = loop.attributes[BODY].as_graph()
    count = len(loop.inputs) - loop.attributes[SCANNED].as_int()
    parts = zip(loop.inputs[:count], body.inputs, body.outputs, loop.outputs, strict=False)
    return [State(first, *others) for first, *others in parts if first is not None]


def _shared(graph: ir.Graph, loop: ir.Node, states: Sequence[State]) -> list[State]:
    """With a state for each value that a step computes of the state before it in the way in which
    it computes another of the state after it."""
    body, found = loop.attributes[BODY].as_graph(), list(states)
    for node in list(body):
        given = {state.before: state for state in found}
        twin = _twin(body, node, given) if _depends_on(node, given) else None
        if twin is None or twin.outputs[0].is_graph_output():
            continue
        known = next((state for state in found if state.after is twin.outputs[0]), None)
        if known is None:
            found.append(_carry(graph, loop, node, given, twin.outputs[0]))
        else:  # that of another node, which computes the same
            node.outputs[0].replace_all_uses_with(known.before)
            body.remove(node, safe=True)
    return found


def _carried(graph: ir.Graph, loop: ir.Node, states: Sequence[State]) -> list[State]:
    """With what is looked up for a state in place of the state, where that is all it is for: the
    step before looks it up."""
    body, found = loop.attributes[BODY].as_graph(), list(states)
    for state in states:
        given = {state.before: state}
        readers = list(state.before.consumers())
        if state.is_read_outside or not all(
            node.op_type == "Gather" and node.graph is body and _depends_on(node, given)
            for node in readers
        ):
            continue
        for node in readers:
            (output,) = node.outputs
            later = _copy(node, {state.before: _source(state.after)}, f"{output.name}_after")
            body.append(later)
            found.append(_carry(graph, loop, node, given, later.outputs[0]))
    return found


def _unread_removed(states: Sequence[State]) -> list[State]:
    return [
        state
        for state in states
        if state.is_read_outside or state.before.uses() or state.before.is_graph_output()
    ]


def _depends_on(node: ir.Node, given: dict[ir.Value, State]) -> bool:
    """Whether the node has one output, for the same step alone, of these states and constants."""
    read = [value for value in node.inputs if value is not None and constant_of(value) is None]
    return (
        len(node.outputs) == 1
        and not node.outputs[0].is_graph_output()
        and not any(attribute.type == ir.AttributeType.GRAPH for attribute in _attributes(node))
        and bool(read)
        and all(value in given for value in read)
    )


def _twin(body: ir.Graph, node: ir.Node, given: dict[ir.Value, State]) -> ir.Node | None:
    """The node that computes of the states after the step what `node` computes of those before."""
    for other in body:
        if (
            other is not node
            and (other.op_type, len(other.inputs)) == (node.op_type, len(node.inputs))
            and _values(other) == _values(node)
            and all(
                _same_constants(one, two) if state is None else two in _names(state.after)
                for one, two, state in (
                    (one, two, given.get(one) if one is not None else None)
                    for one, two in zip(node.inputs, other.inputs, strict=True)
                )
            )
        ):
            return other
    return None


def _same_constants(one: ir.Value | None, two: ir.Value | None) -> bool:
    if one is two:
        return True
    first, second = constant_of(one), constant_of(two)
    return (
        first is not None
        and second is not None
        and first.dtype == second.dtype
        and np.array_equal(first, second)
    )


def _attributes(node: ir.Node) -> list[ir.Attr]:
    return list(node.attributes.values())


def _values(node: ir.Node) -> dict[str, object]:
    return {attribute.name: attribute.value for attribute in _attributes(node)}


def _source(value: ir.Value) -> ir.Value:
    """The value of which this one is a copy, or itself."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Identity" and producer.inputs[0] is not None:
        return producer.inputs[0]
    return value


def _names(value: ir.Value) -> tuple[ir.Value, ir.Value]:
    return value, _source(value)


def _copy(node: ir.Node, values: dict[ir.Value, ir.Value], name: str) -> ir.Node:
    """The node with other inputs; its output has this name."""
    old = node.outputs[0]
    inputs = [values.get(value, value) if value is not None else None for value in node.inputs]
    output = ir.Value(name=name, type=old.type, shape=old.shape)
    return ir.node(node.op_type, inputs, dict(node.attributes), outputs=[output])


def _carry(
    graph: ir.Graph, loop: ir.Node, node: ir.Node, given: dict[ir.Value, State], after: ir.Value
) -> State:
    """The new state in place of the node in the body. Its first value is computed before the
    loop."""
    (output,) = node.outputs
    firsts = {before: state.first for before, state in given.items()}
    first = _copy(node, firsts, f"{output.name}_first")
    graph.insert_before(loop, first)
    before = ir.Value(name=f"{output.name}_before", type=output.type, shape=output.shape)
    output.replace_all_uses_with(before)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return State(first.outputs[0], before, after, None)


def _rebuild(graph: ir.Graph, loop: ir.Node, states: Sequence[State]) -> None:
    """The loop with other states."""
    body = loop.attributes[BODY].as_graph()
    before = len(_states(loop))
    scanned = loop.attributes[SCANNED].as_int()
    names = [str(state.last.name if state.last else f"{state.first.name}_last") for state in states]
    new = ir.node(
        "Scan",
        [*(state.first for state in states), *loop.inputs[before:]],
        {BODY: body, SCANNED: scanned},
        outputs=[
            *(ir.Value(name=name) for name in names),
            *(ir.Value(name=value.name) for value in loop.outputs[before:]),
        ],
    )
    body.inputs[:] = [*(state.before for state in states), *body.inputs[before:]]
    body.outputs[:] = _originals(body, [*(state.after for state in states), *body.outputs[before:]])
    kept = [(state.last, value) for state, value in zip(states, new.outputs, strict=False)]
    kept += zip(loop.outputs[before:], new.outputs[len(states) :], strict=True)
    replaced = [(old, value) for old, value in kept if old is not None]
    ir.convenience.replace_nodes_and_values(
        graph, loop, [loop], [new], [old for old, _ in replaced], [value for _, value in replaced]
    )


def _originals(body: ir.Graph, outputs: Sequence[ir.Value]) -> list[ir.Value]:
    """The outputs, with what a node of the body computes in place of its copy, unless that is an
    output itself."""
    found = list(outputs)
    for index, value in enumerate(outputs):
        source = _source(value)
        producer = source.producer()
        if source not in found and producer is not None and producer.graph is body:
            found[index] = source
    return found


def _place_constants(graph: ir.Graph, body: ir.Graph) -> None:
    """Moves the constants that only the body reads into it, unless they are large together. Of a
    small one that others read too, it gets a copy."""
    within = set(body.all_nodes())
    inside = {
        value: uses
        for value in graph.initializers.values()
        if (uses := [use for use in value.uses() if use.node in within])
    }
    own = [value for value, uses in inside.items() if len(uses) == len(value.uses())]
    if sum(value.const_value.nbytes for value in own if value.const_value is not None) > MOST:
        return
    for value in own:
        del graph.initializers[str(value.name)]
        body.register_initializer(value)
    for value, uses in inside.items():
        constant = constant_of(value)
        is_small = constant is not None and constant.size <= SMALL
        if len(uses) < len(value.uses()) and constant is not None and is_small:
            copy = make_initializer(body, f"{value.name}_inside", constant)
            for use in uses:
                use.node.replace_input_with(use.idx, copy)

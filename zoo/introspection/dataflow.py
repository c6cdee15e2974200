"""The dataflow of a cell's step, from a trace of the step.

The step is traced, and what a reader does not want to see is taken away: changes of shape, and
arithmetic among parameters. Sums of products with weights become one box, as in the pictures of
papers, together with the nonlinearity that takes the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from zoo.errors import UsageError
from zoo.nn.state import flatten, named_leaves, unflatten
from zoo.registry.cell_spec import CellSpec
from zoo.registry.registry import Registry

BATCH, SIZE = 2, 8
SHAPES = {
    "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "transpose", "permute", "t",
    "expand", "slice", "select", "split", "split_with_sizes", "clone", "detach", "alias",
    "_to_copy", "getitem", "unbind", "lift_fresh_copy", "repeat", "constant_pad_nd",
}  # fmt: skip
CONSTANTS = {
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full",
}  # fmt: skip
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
SYMBOLS = {
    "sigmoid": "σ", "mul": "×", "add": "+", "sub": "−", "div": "÷", "neg": "−", "rsub": "−",
    "maximum": "max", "pow": "^", "reciprocal": "1/", "cat": "join", "stack": "join", "sum": "Σ",
    "rsqrt": "1/√", "sqrt": "√", "le": "≤", "ge": "≥", "gt": ">", "lt": "<", "where": "choose",
    "clamp_min": "max",
}  # fmt: skip
NONLINEAR = {"σ", "tanh", "relu", "silu", "gelu", "exp", "softplus", "sin", "cos"}


@dataclass(eq=False)
class Box:
    """One operation, or what comes in (`kind` "in") or goes out ("out"). `weights` are the names of
    the parameters that act in it; `sources` the boxes whose values it takes."""

    label: str
    kind: str = "operation"
    weights: list[str] = field(default_factory=list)
    sources: list[Box] = field(default_factory=list)


def dataflow(spec: CellSpec, registry: Registry | None = None) -> list[Box]:
    """The boxes of one step of the cell with its default options, each after its sources: x and the
    state come in, y and the state after go out. UsageError for a non-causal cell, which
    has no step."""
    if not spec.causal:
        raise UsageError(f"cell {spec.name!r} is not causal; it has no step to draw.")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        hidden = spec.sizes_taken({}, registry).at_least(SIZE)
        cell = spec.build(SIZE, hidden, registry=registry).eval()
        state = cell.init_state(BATCH)

        def step(x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
            y, after = cell.step(x, unflatten(state, leaves))
            return y, *flatten(after)

        # functionalised, so that an operation in place is one like any other
        traced = make_fx(functionalize(step))(torch.zeros(BATCH, SIZE), *flatten(state))
    traced.graph.eliminate_dead_code()
    names = [name.removeprefix("layer0.") for name, _ in named_leaves((state,))]
    return _merged(_read(traced, cell, names))


def _read(traced: GraphModule, cell: nn.Module, names: list[str]) -> list[Box]:
    """A box for each operation on what is not a parameter alone."""
    parameters = _short_names(cell)
    arriving = iter(["x_{t}", *(f"{name}_{{t-1}}" for name in names)])
    leaving = [f"{name}_{{t}}" for name in ("y", *names)]
    boxes: list[Box] = []
    of: dict[Node, Box | None] = {}  # None for what depends on parameters alone
    weights: dict[Node, list[str]] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            of[node] = Box(next(arriving), "in")
            boxes.append(of[node])  # type: ignore[arg-type]
        elif node.op == "get_attr":
            of[node] = None
            name = parameters.get(id(getattr(traced, node.target)))
            weights[node] = [name] if name else []
        elif node.op == "output":
            found: dict[Box | None, list[str]] = {}
            for name, result in zip(leaving, node.args[0], strict=True):
                found.setdefault(of[result], []).append(name)
            for box, out in found.items():
                label = ", ".join(_distinct(out))
                boxes.append(Box(label, "out", sources=[box] if box else []))
        else:
            inputs = node.all_input_nodes
            used = _distinct(w for i in inputs if of[i] is None for w in weights[i])
            name = getattr(node.target, "overloadpacket", node.target).__name__
            arrived = [] if name in CONSTANTS else [of[i] for i in inputs]
            sources = _distinct(box for box in arrived if box is not None)
            if not sources:
                of[node], weights[node] = None, used
            elif len(sources) == 1 and (name in SHAPES or _changes_nothing(name, node)):
                of[node] = sources[0]
            else:
                of[node] = _box(node, name, used, sources)
                boxes.append(of[node])  # type: ignore[arg-type]
    return boxes


def _short_names(cell: nn.Module) -> dict[int, str]:
    """The name of each parameter and buffer by its id, without its path where that is enough."""
    paths = {id(p): path for path, p in [*cell.named_parameters(), *cell.named_buffers()]}
    last = Counter(path.rpartition(".")[2] for path in paths.values())
    shortened = {key: (path, path.rpartition(".")[2]) for key, path in paths.items()}
    return {key: name if last[name] == 1 else path for key, (path, name) in shortened.items()}


def _changes_nothing(name: str, node: Node) -> bool:
    return name in ("mul", "div") and 1 in node.args[1:]


def _box(node: Node, name: str, used: list[str], sources: list[Box]) -> Box:
    constants = [argument for argument in node.args if isinstance(argument, int | float)]
    operands = [argument for argument in node.args if isinstance(argument, Node)]
    if name in PRODUCTS:
        return Box("linear", "linear", used, sources) if used else Box("product", sources=sources)
    if name == "add" and used and len(sources) == 1:
        return Box("+", "bias", used, sources)
    label = SYMBOLS.get(name, name)
    if len(operands) == 2 and operands[0] is operands[1]:
        label = {"mul": "square", "add": "× 2"}.get(name, label)
    elif constants and name == "rsub":
        label = f"{constants[0]:g} −"
    elif constants and name == "pow" and not isinstance(node.args[0], Node):
        label = f"{constants[0]:g} ^"
    elif constants and len(sources) == 1 and name in ("add", "mul", "div", "sub", "pow"):
        label = f"{label} {constants[0]:g}"
    return Box(label, "operation", used, sources)


def _merged(boxes: list[Box]) -> list[Box]:
    """Sums of products with weights, and the nonlinearity that takes one, as one box each."""
    for box in list(boxes):
        alone = all(len(_users(source, boxes)) == 1 for source in box.sources)
        if not alone or any(source.kind != "linear" for source in box.sources):
            continue
        adds = len(box.sources) > 1 and not box.weights
        if box.label == "+" and (box.kind == "bias" or adds):
            _absorb(box, boxes)
            box.kind = box.label = "linear"
        elif box.kind == "operation" and box.label in NONLINEAR:
            _absorb(box, boxes)
            box.kind = "gate"
    return boxes


def _absorb(box: Box, boxes: list[Box]) -> None:
    """Takes the sources into the box."""
    sources = box.sources
    box.weights = _distinct([*(w for source in sources for w in source.weights), *box.weights])
    box.sources = _distinct(origin for source in sources for origin in source.sources)
    for source in sources:
        boxes.remove(source)


def _users(box: Box, boxes: list[Box]) -> list[Box]:
    return [other for other in boxes if box in other.sources]


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))

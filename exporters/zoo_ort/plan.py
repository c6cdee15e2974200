"""How a step graph runs on a device: the products and whatever else ONNX Runtime computes in parts,
and between those parts kernels for all that is pointwise (see `zoo_ort.pointwise`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from zoo_ort.graph import Array, Graph, Node, encoded, parse_graph, with_outputs
from zoo_ort.pointwise import COSTLY, MAX_ELEMENTS, Kernel, is_pointwise
from zoo_ort.products import Product, Shapes, is_product
from zoo_ort.providers import make_session, run_session

PROBED = (2, 3)  # numbers of rows that tell which axes are rows
LARGEST_BLOCK = 256  # threads
SHARED = 8  # how many elements use a value, from which it is computed once for all of them


@dataclass(frozen=True)
class Part:
    """Nodes that ONNX Runtime runs at once: a file of them, what it reads, and what it computes for
    others."""

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Launch:
    """Kernels that do not read each other's results, as one function: `name(p0, …)`, to be started
    for at least `threads` threads. `buffers` are its arguments."""

    def __init__(self, name: str, members: Sequence[Product | Kernel]) -> None:
        self.name, self._members = name, members
        self.buffers = tuple(dict.fromkeys(b for member in members for b in member.buffers))
        self.threads = sum(map(_padded, members))

    @property
    def source(self) -> str:
        names = {buffer: f"p{number}" for number, buffer in enumerate(self.buffers)}
        arguments = ", ".join(f"void* {name}" for name in names.values())
        lines, start = ["const int at = blockIdx.x * blockDim.x + threadIdx.x;"], 0
        for member in self._members:
            passed = "".join(f", {names[buffer]}" for buffer in member.buffers)
            own = f"at - {start}" if start else "at"
            inside = f"at >= {start} && {own} < {member.elements}"
            lines.append(f"if ({inside}) return {member.name}({own}{passed});")
            start += _padded(member)
        body = "\n  ".join(lines)
        # registers are to be had: so few threads run that loads had better wait together
        bounds = f"__launch_bounds__({LARGEST_BLOCK}, 1)"
        head = f'extern "C" __global__ {bounds} void {self.name}({arguments})'
        function = f"{head} {{\n  {body}\n}}\n"
        return "\n".join([*(member.source for member in self._members), function])


def _padded(member: Product | Kernel) -> int:
    """Its threads, so that those of a block are all of one kernel."""
    return -(-member.elements // LARGEST_BLOCK) * LARGEST_BLOCK


@dataclass(frozen=True)
class Plan:
    """Parts and kernels in the order in which they run, for one number of rows."""

    stages: tuple[Part | Launch, ...]
    shapes: Shapes
    dtypes: Mapping[str, np.dtype]
    constants: Mapping[str, Array]

    @property
    def source(self) -> str:
        """All kernels, as CUDA C++."""
        return "\n".join(stage.source for stage in self.stages if not isinstance(stage, Part))


class StepGraph:
    """A step graph that was parsed, with the shapes of all its values for any number of rows."""

    def __init__(self, content: bytes) -> None:
        graph = parse_graph(content)
        names = [name for node in graph.nodes for name in node.outputs if name]
        further = [name for name in names if name not in graph.outputs]
        session = make_session(with_outputs(content, further), "cpu")
        probes = [_probe(session, rows) for rows in PROBED]
        probes = [{**probe, **graph.constants} for probe in probes]
        self._probes = probes
        self.outputs = {name: probes[0][name] for name in graph.outputs}  # of PROBED[0] rows
        self.dtypes = {name: array.dtype for name, array in probes[0].items()}
        self._graph = graph

    def plan(self, wanted: Sequence[str], rows: int) -> Plan:
        """For the outputs `wanted`, of so many rows."""
        shapes = {
            name: tuple(_scaled(*sizes, rows) for sizes in zip(one.shape, other.shape, strict=True))
            for (name, one), other in zip(
                self._probes[0].items(), self._probes[1].values(), strict=True
            )
        }
        graph = self._without_sizes(rows)
        nodes = _needed(graph.nodes, wanted)
        producers = {name: node for node in nodes for name in node.outputs}
        pointwise = {
            id(node)
            for node in nodes
            if is_pointwise(node, graph, shapes, self.dtypes)
            and all(prod(shapes[name]) <= MAX_ELEMENTS for name in (*node.reads, *node.outputs))
        }
        products = {id(node) for node in nodes if is_product(node, graph, shapes, self.dtypes)}
        return _arranged(graph, nodes, producers, pointwise, products, wanted, shapes, self.dtypes)

    def _without_sizes(self, rows: int) -> Graph:
        """The graph for so many rows, in which what is computed from sizes alone is constant. ONNX
        Runtime computes that on the CPU, which would keep the graph from the device."""
        constants, bytes_of = dict(self._graph.constants), dict(self._graph.encoded)
        left = []
        for node in self._graph.nodes:
            arrays = [[probe[name] for probe in self._probes] for name in node.outputs if name]
            small = all(one.dtype == np.int64 and one.size <= 64 for one, _ in arrays)
            still = all(one.shape == other.shape for one, other in arrays)
            of_sizes = node.op in ("Shape", "Size") or all(n in constants for n in node.reads)
            if not (of_sizes and small and still):
                left.append(node)
                continue
            for name, (one, other) in zip(filter(None, node.outputs), arrays, strict=True):
                pairs = zip(one.flat, other.flat, strict=True)
                numbers = [_scaled(int(a), int(b), rows) for a, b in pairs]
                constants[name] = np.array(numbers, np.int64).reshape(one.shape)
                bytes_of[name] = encoded(name, constants[name])
        return replace(self._graph, nodes=tuple(left), constants=constants, encoded=bytes_of)


def _probe(session: Any, rows: int) -> dict[str, Array]:
    """All values of one run, of zeros; those of the inputs too."""
    dtypes = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(float16)": np.float16}
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else rows for size in value.shape]
        name = value.type.removeprefix("tensor(").removesuffix(")")
        feeds[value.name] = np.zeros(shape, dtypes.get(value.type, name))
    names = [value.name for value in session.get_outputs()]
    return {**feeds, **dict(zip(names, run_session(session, names, feeds), strict=True))}


def _scaled(one: int, other: int, rows: int) -> int:
    """A size for so many rows, from those of the two numbers that were probed."""
    few, more = PROBED
    return one + (other - one) // (more - few) * (rows - few)


def _needed(nodes: Sequence[Node], wanted: Iterable[str]) -> list[Node]:
    names, found = set(wanted), []
    for node in reversed(nodes):
        if names & set(node.outputs):
            found.append(node)
            names.update(node.reads)
    return found[::-1]


def _arranged(
    graph: Graph,
    nodes: Sequence[Node],
    producers: Mapping[str, Node],
    pointwise: set[int],
    products: set[int],
    wanted: Sequence[str],
    shapes: Shapes,
    dtypes: Mapping[str, np.dtype],
) -> Plan:
    """A value has a level: parts of ONNX Runtime and products come one level after the kernels that
    they read, kernels in that of the parts that they read. A kernel computes again what its level
    has not stored, so only what a part reads, what many elements share, and the results are
    stored."""
    shared = _shared(nodes, pointwise, shapes)
    read_by_parts = {n for node in nodes if id(node) not in pointwise for n in node.reads}
    of_kernels = pointwise | products  # what kernels can write
    level: dict[str, int] = {}
    for node in nodes:
        is_kernel = id(node) in pointwise
        levels = [0 if is_kernel else 1]
        for name in node.reads:
            made = producers.get(name)
            of_kernel = made is not None and id(made) in of_kernels
            levels.append(level.get(name, 0) + (of_kernel and (not is_kernel or name in shared)))
        level.update(dict.fromkeys(node.outputs, max(levels)))
    stored = {
        name
        for node in nodes
        if id(node) in of_kernels
        for name in node.outputs
        if name in shared or name in read_by_parts or name in wanted
    }
    stages: list[Part | Launch] = []
    made_here: dict[str, Product] = {}
    count = 0
    for number in range(max(level.values(), default=0) + 1):
        here = [node for node in nodes if level[node.outputs[0]] == number]
        parts = [node for node in here if id(node) not in of_kernels]
        if parts:
            stages.append(_part(graph, parts, nodes, wanted, dtypes))
        multiplied = [node for node in here if id(node) in products]
        for node in multiplied:
            made_here[node.outputs[0]] = Product(f"product_{len(made_here)}", node, shapes)
        if multiplied:
            members = [made_here[node.outputs[0]] for node in multiplied]
            stages.append(Launch(f"stage_{len(stages)}", members))
        values = [n for node in here if id(node) in of_kernels for n in node.outputs if n in stored]

        def loads(name: str, number: int = number) -> bool:
            producer = producers.get(name)
            if producer is None or id(producer) not in of_kernels:
                return True
            return name in stored and level[name] < number

        kernels: list[Kernel] = []
        for shape in dict.fromkeys(shapes[name] for name in values):
            alike = [name for name in values if shapes[name] == shape]
            if prod(shape):
                title, count = f"kernel_{count}", count + 1
                given = (graph, producers, shapes, dtypes, loads, made_here)
                kernels.append(Kernel(title, alike, *given))
        if kernels:
            stages.append(Launch(f"stage_{len(stages)}", kernels))
    for product in made_here.values():
        shapes = {**shapes, product.parts: product.shape}
        dtypes = {**dtypes, product.parts: np.dtype(np.float32)}
    return Plan(tuple(stages), shapes, dtypes, graph.constants)


def _shared(nodes: Sequence[Node], pointwise: set[int], shapes: Shapes) -> set[str]:
    """Values with a costly operator, elements of which are used for many others."""
    costly: dict[str, bool] = {}
    shared: set[str] = set()
    for node in nodes:
        if id(node) not in pointwise:
            continue
        size = max(prod(shapes[name]) for name in node.outputs)
        for name in node.reads:
            if costly.get(name) and size >= SHARED * max(1, prod(shapes[name])):
                shared.add(name)
        heavy = node.op in COSTLY or any(costly.get(n) and n not in shared for n in node.reads)
        costly.update(dict.fromkeys(node.outputs, heavy))
    return shared


def _part(
    graph: Graph,
    parts: Sequence[Node],
    nodes: Sequence[Node],
    wanted: Sequence[str],
    dtypes: Mapping[str, np.dtype],
) -> Part:
    made = {name for node in parts for name in node.outputs}
    ids = {id(node) for node in parts}
    elsewhere = {name for node in nodes if id(node) not in ids for name in node.reads}
    outputs = tuple(n for node in parts for n in node.outputs if n in elsewhere or n in wanted)
    read = dict.fromkeys(name for node in parts for name in node.reads)
    inputs = tuple(n for n in read if n not in made and n not in graph.constants)
    return Part(graph.file_of(parts, dtypes, outputs), inputs, outputs)

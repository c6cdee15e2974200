"""What each node of the loop in `generate.onnx` costs, and which share of the limit is reached.

    python tests/benchmarks/nodes.py [--nodes] [CELL.PRECISION …]

512 units, vocabulary 28, batch 1, one thread, random weights. The limit is that of `zoo bench` for
memory: the time of reading the weights, with nothing else to do. The products are those with
weights alone, by ONNX Runtime's own kernels, in a loop that does nothing else; both are given as
shares of a token's time. What the sampler costs is the difference to a loop that takes the best
token. All loops of a file are run alternately; times are the least of all rounds, in microseconds
for a token. By `--nodes`, each node is also measured by itself, many times in a loop, on the values
of a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from onnx_ir.passes import common as passes

from zoo.benchmarking.probes import reading
from zoo.config import ModelConfig
from zoo.data.tokenizers import CharTokenizer
from zoo.exporting.export import describe
from zoo.models.language_model import LanguageModel
from zoo_onnx.exporter import OnnxExporter

HIDDEN, VOCAB_SIZE = 512, 28
FILES = [f"{cell}.{precision}" for cell in ("rnn", "gru", "lstm") for precision in ("fp32", "int8")]
STEPS, ROUNDS, SESSIONS, COPIES = 32, 40, 2, 16
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger")

Feeds = dict[str, np.ndarray[Any, Any]]


class Runs(Protocol):
    """A session, mostly."""

    def run(self, outputs: Sequence[str] | None, given: Feeds) -> object: ...


Loop = tuple[Runs, Feeds]


class Reading:
    """Reads so many bytes many times. `times` is how often."""

    def __init__(self, size: int) -> None:
        self._read = reading(size, 1, torch.device("cpu"))
        self.times = self._read() / size

    def run(self, outputs: Sequence[str] | None, given: Feeds) -> None:
        self._read()


def export(name: str) -> onnx.ModelProto:
    cell, precision = name.split(".")
    tokenizer = CharTokenizer(characters="".join(chr(0x4E00 + i) for i in range(VOCAB_SIZE - 1)))
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(cell=cell, hidden=HIDDEN), VOCAB_SIZE).eval()
    info = describe(model, tokenizer, "generate", precision)
    return onnx.ModelProto.FromString(OnnxExporter().build(model, info))


def body_of(model: onnx.ModelProto) -> onnx.GraphProto:
    (loop,) = (node for node in model.graph.node if node.op_type == "Scan")
    return next(attribute.g for attribute in loop.attribute if attribute.name == "body")


def open_session(model: onnx.ModelProto, optimized: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimized:  # nodes without readers stay
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def feeds(session: ort.InferenceSession) -> Feeds:
    rng = np.random.default_rng(0)
    known = {
        "token": np.ones(1, np.int64),
        "uniform": rng.random((STEPS, 1), dtype=np.float32),
        "temperature": np.ones(1, np.float32),
        "top_k": np.zeros(1, np.int64),
        "top_p": np.ones(1, np.float32),
    }
    return {
        each.name: known[each.name]
        if each.name in known
        else np.zeros((1, *each.shape[1:]), np.float32)
        for each in session.get_inputs()
    }


def with_choice(model: onnx.ModelProto, choice: onnx.NodeProto) -> onnx.ModelProto:
    """The model with this node in place of the sampler, and without what nothing reads then."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = body_of(copy).node
    (index,) = (i for i, node in enumerate(nodes) if node.op_type == "If")
    choice.output.append(nodes[index].output[0])
    nodes[index].CopyFrom(choice)
    changed = ir.from_proto(copy)
    passes.RemoveUnusedNodesPass()(changed)
    return ir.to_proto(changed)


def repeated(
    nodes: Sequence[onnx.NodeProto], values: Feeds, constants: Iterable[onnx.TensorProto]
) -> onnx.ModelProto:
    """A loop over `uniform` with these nodes, which read the values from around it."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [*nodes, *(helper.make_node("Identity", [f"{x}_in"], [f"{x}_out"]) for x in "xy")],
        "step",
        [value("x_in", TensorProto.FLOAT, [1]), value("y_in", TensorProto.FLOAT, ["batch"])],
        [value("x_out", TensorProto.FLOAT, [1]), value("y_out", TensorProto.FLOAT, ["batch"])],
        list(constants),
    )
    inputs = [
        value(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in values.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("Scan", ["x", "uniform"], ["end", "y"], body=body, num_scan_inputs=1)],
        "repeated",
        [
            value("x", TensorProto.FLOAT, [1]),
            value("uniform", TensorProto.FLOAT, [STEPS, 1]),
            *inputs,
        ],
        [value("y", TensorProto.FLOAT, [STEPS, 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def copies(node: onnx.NodeProto, count: int) -> list[onnx.NodeProto]:
    found = []
    for number in range(count):
        found.append(onnx.NodeProto())
        found[-1].CopyFrom(node)
        found[-1].ClearField("name")
        for index, name in enumerate(node.output):
            found[-1].output[index] = f"{name} copy {number}"
    return found


def microseconds(loops: dict[str, list[Loop]]) -> dict[str, float]:
    """The least time of a step; of several sessions of a loop the mean, since where memory lies
    counts too."""
    least = {(name, i): float("inf") for name, found in loops.items() for i in range(len(found))}
    for number in range(ROUNDS + 1):
        for name, i in sorted(least, reverse=bool(number % 2)):
            session, given = loops[name][i]
            for _ in range(3):
                began = time.perf_counter()
                session.run(None, given)
                taken = time.perf_counter() - began
                least[name, i] = min(least[name, i], taken) if number else float("inf")
    return {
        name: 1e6 / STEPS * sum(least[name, i] for i in range(len(found))) / len(found)
        for name, found in loops.items()
    }


def values_of_a_step(model: onnx.ModelProto) -> tuple[Feeds, list[onnx.TensorProto]]:
    """What the nodes of the body read in a step, and its constants."""
    body, outer = body_of(model), onnx.ModelProto()
    outer.CopyFrom(model)
    (loop,) = (node for node in outer.graph.node if node.op_type == "Scan")
    constants = [*model.graph.initializer, *body.initializer]
    before = {value.name: name for value, name in zip(body.input, loop.input, strict=True)}
    index = list(outer.graph.node).index(loop)
    del outer.graph.node[index:]
    # the first of the random numbers is that of the step
    draw = body.input[len(body.input) - 1].name
    first = [
        helper.make_node("Identity", [name], [inner])
        for inner, name in before.items()
        if inner != draw
    ]
    first.append(helper.make_node("Gather", [before[draw], "first_step"], [draw], axis=0))
    outer.graph.node.extend([*first, *body.node])
    for node in outer.graph.node:
        node.ClearField("name")
    outer.graph.initializer.extend(body.initializer)
    outer.graph.initializer.append(helper.make_tensor("first_step", TensorProto.INT64, [], [0]))
    del outer.graph.output[:]
    names = [name for node in outer.graph.node for name in node.output]
    outer.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(outer, optimized=False)
    given = feeds(session)
    return {**given, **dict(zip(names, session.run(names, given), strict=True))}, constants


def read_by(node: onnx.NodeProto) -> set[str]:
    """The values that the node and its subgraphs read."""
    inner = (read_by(part) for attribute in node.attribute for part in attribute.g.node)
    return set(node.input).union(*inner)


def alone(
    nodes: Sequence[onnx.NodeProto], values: Feeds, constants: Sequence[onnx.TensorProto]
) -> list[Loop]:
    """Sessions of a loop with these nodes alone."""
    read = set().union(*map(read_by, nodes))
    inside = [tensor for tensor in constants if tensor.name in read]
    known = {tensor.name for tensor in inside}
    given = {name: values[name] for name in sorted(read - known) if name in values}
    model = repeated(nodes, given, inside)
    rest = {"x": np.zeros(1, np.float32), "uniform": np.zeros((STEPS, 1), np.float32)}
    return [(open_session(model, optimized=False), {**rest, **given}) for _ in range(SESSIONS)]


def measure(name: str, each_node: bool) -> None:
    model = export(name)
    values, constants = values_of_a_step(model)
    nodes = list(body_of(model).node)
    weights = {tensor.name: tensor for tensor in constants}
    products = [node for node in nodes if node.op_type in PRODUCTS and node.input[1] in weights]
    (sampler,) = (node for node in nodes if node.op_type == "If")
    (logits,) = (n for n in read_by(sampler) if n.endswith("logits"))
    greedy = helper.make_node("ArgMax", [logits], [], axis=-1, keepdims=0)
    models = {"all": model, "best token": with_choice(model, greedy)}
    loops = {
        key: [(session, feeds(session)) for session in map(open_session, [each] * SESSIONS)]
        for key, each in models.items()
    }
    loops |= {"products": alone(products, values, constants), "empty": alone([], {}, [])}
    single = {f"{i:2} {node.op_type}": node for i, node in enumerate(nodes) if each_node}
    count = {key: 1 if node in products else COPIES for key, node in single.items()}
    loops |= {
        key: alone(copies(node, count[key]), values, constants) for key, node in single.items()
    }
    read = sum(np.prod(weights[node.input[1]].dims) for node in products)
    size = read * (1 if name.endswith("int8") else 4)
    reads = Reading(size)
    found = microseconds(loops | {"reading": [(reads, {})]})
    limit = found["reading"] * STEPS / reads.times
    multiplying = found["products"] - found["empty"]
    sampling = found["all"] - found["best token"]
    rest = found["best token"] - multiplying - found["empty"]
    parts = [found["all"], limit, multiplying, found["empty"], sampling, rest]
    figures = "".join(f"{part:10.2f}" for part in parts)
    shares = "".join(f"{part / found['all']:10.2f}" for part in (multiplying, limit))
    print(f"{name:10}  {figures}{size / limit / 1e3:8.0f}{shares}", flush=True)
    for key in single:
        print(f"    {key:24} {(found[key] - found['empty']) / count[key]:6.2f}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    print("file             token     limit  products      loop   sampler      rest    GB/s"
          "  products     limit")  # fmt: skip
    for file in [each for each in arguments if each != "--nodes"] or FILES:
        measure(file, "--nodes" in arguments)

"""Reading and writing with cells that are linear in their state, against the files of another
source tree: times the tokens per second.

    git worktree add /tmp/older COMMIT
    python tests/benchmarks/linear_cells.py /tmp/older [CELL ...]

256 units, a vocabulary of 28, random weights, one thread. `sequence` reads 1,024 tokens of one row
and of 16, with the operators that the installed ONNX Runtime computes fastest and with standard
ones alone; `generate` writes 256 tokens of one row, greedily. The files are run alternately, and
ratios are medians over rounds. Beside them stands the time in which the products with weights alone
are computed, as a share of the older file's time: no ratio can be larger than one over it. The last
column is the largest difference in any output of `sequence`, relative to the output's largest
value.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from older_tree import HERE, export_in, open_file
from onnx import TensorProto, helper, numpy_helper

MATRIX = ["gated-deltanet", "gla", "retnet", "mamba2", "hgrn2", "deltanet", "mlstm", "rwkv7"]
CELLS = [
    *MATRIX, "lru", "mingru", "minlstm", "qrnn", "sru", "s4d", "s5", "rg-lru", "mamba",
]  # fmt: skip
HIDDEN, VOCAB_SIZE, LENGTH, WRITTEN = 256, 28, 1024, 256
ROUNDS = {1: 15, 16: 7}

Feeds = dict[str, np.ndarray[Any, Any]]
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(double)": np.float64}


def feeds(session: ort.InferenceSession, rows: int) -> Feeds:
    rng = np.random.default_rng(1)
    known: Feeds = {
        "tokens": rng.integers(1, VOCAB_SIZE, (rows, LENGTH)),
        "token": np.ones(rows, np.int64),
        "uniform": rng.random((WRITTEN, rows), dtype=np.float32),
        "temperature": np.zeros(rows, np.float32),
        "top_k": np.zeros(rows, np.int64),
        "top_p": np.ones(rows, np.float32),
    }
    return {
        each.name: known[each.name]
        if each.name in known
        else np.zeros((rows, *each.shape[1:]), DTYPES[each.type])
        for each in session.get_inputs()
    }


def seconds(session: ort.InferenceSession, given: Feeds) -> float:
    began = time.perf_counter()
    session.run(None, given)
    return time.perf_counter() - began


def compare(sessions: list[ort.InferenceSession], rows: int) -> list[list[float]]:
    """The seconds of each session in each round."""
    given = [feeds(session, rows) for session in sessions]
    for session, each in zip(sessions, given, strict=True):
        session.run(None, each)
    found: list[list[float]] = [[] for _ in sessions]
    for _ in range(ROUNDS[rows]):
        for times, session, each in zip(found, sessions, given, strict=True):
            times.append(seconds(session, each))
    return found


def ratio(older: list[float], newer: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(older, newer, strict=True))


def products(path: Path, rows: int) -> ort.InferenceSession:
    """A graph of the file's products with weights alone, each of all rows and steps at once."""
    graph = onnx.load(path).graph
    weights = {each.name: tuple(each.dims) for each in graph.initializer if len(each.dims) == 2}
    rng = np.random.default_rng(0)
    nodes, constants, outputs = [], [], []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
            continue
        inner, outer = weights[node.input[1]]
        if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            inner, outer = outer, inner
        x, w, y = (f"{name}{len(nodes)}" for name in "xwy")
        for name, shape in ((x, (rows * LENGTH, inner)), (w, (inner, outer))):
            value = rng.standard_normal(shape).astype(np.float32)
            constants.append(numpy_helper.from_array(value, name))
        nodes.append(helper.make_node("MatMul", [x, w], [y]))
        outputs.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, None))
    model = helper.make_model(
        helper.make_graph(nodes, "products", [], outputs, constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"],
        disabled_optimizers=["ConstantFolding"],
    )  # fmt: skip


def difference(sessions: list[ort.InferenceSession], rows: int) -> float:
    found = [session.run(None, feeds(session, rows)) for session in sessions]
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / max(1e-6, np.abs(a).max()))
        for a, b in zip(*found, strict=True)
    )


def main(other: Path, cells: list[str]) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)

        def export(tree: Path, name: str, graph: str, operators: str = "auto") -> dict[str, Path]:
            return export_in(tree, folder / name, cells, HIDDEN, VOCAB_SIZE, graph, operators)

        older = export(other, "older", "sequence")
        newer = export(HERE, "newer", "sequence")
        standard = export(HERE, "standard", "sequence", "standard")
        writing = [export(tree, name, "generate") for tree, name in
                   ((other, "older"), (HERE, "newer"))]  # fmt: skip
        print(f"ONNX Runtime {ort.__version__}; times the tokens per second of the older file")
        print("| cell | reading, 1 row | 16 rows | standard, 1 row | 16 rows "
              "| products' share, 1 row | 16 rows | writing | difference |")  # fmt: skip
        print("|---" * 9 + "|")
        for cell in cells:
            sessions = [open_file(files[cell]) for files in (older, newer, standard)]
            row, shares = [], []
            for rows in ROUNDS:
                bare = products(newer[cell], rows)
                times = compare([*sessions, bare], rows)
                row.append([ratio(times[0], each) for each in times[1:3]])
                shares.append(1 / ratio(times[0], times[3]))
            wrote = compare([open_file(files[cell]) for files in writing], 1)
            cells_of_row = [row[0][0], row[1][0], row[0][1], row[1][1], *shares, ratio(*wrote)]
            print(f"| `{cell}` | " + " | ".join(f"{each:.2f}" for each in cells_of_row)
                  + f" | {max(difference(sessions[:2], rows) for rows in ROUNDS):.0e} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or CELLS)

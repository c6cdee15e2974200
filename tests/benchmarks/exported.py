"""The speed of exported models, against alternatives without the zoo: PyTorch's eager loop, a loop
over torch.onnx's export of torch.nn's layers, and a graph with ONNX's LSTM operator.

One thread, random weights, hidden size 512, temperature 1 unless stated otherwise. The workloads of
a comparison are interleaved, ten rounds; medians and their ratios are printed.

    python tests/benchmarks/exported.py
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import zoo
from zoo.config import ModelConfig, Sampling
from zoo.data.tokenizers import CharTokenizer
from zoo.exporting.export import describe
from zoo.exporting.exporter import find_exporters
from zoo.exporting.staging import ExportBuilder
from zoo.inference.runtime import open_artifact
from zoo.inference.sampling import choose
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelStepper

HIDDEN, ROUNDS, SLICE = 512, 10, 0.15
HOT = Sampling(temperature=1.0)
torch.set_num_threads(1)

Workload = Callable[[], int]  # runs for a while and returns the number of tokens


def compare(workloads: dict[str, Workload]) -> dict[str, float]:
    """Median tokens per second of each workload, interleaved."""
    for workload in workloads.values():
        workload()
    rates: dict[str, list[float]] = {name: [] for name in workloads}
    for _ in range(ROUNDS):
        for name, workload in workloads.items():
            tokens, began = 0, time.perf_counter()
            while time.perf_counter() - began < SLICE:
                tokens += workload()
            rates[name].append(tokens / (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in rates.items()}


def show(title: str, rates: dict[str, float], ratios: list[tuple[str, str, str]]) -> None:
    print(f"\n{title}")
    for name, rate in rates.items():
        print(f"  {name:<44} {rate:>12,.0f} tokens/s")
    for one, other, bound in ratios:
        print(f"  {one} / {other}: {rates[one] / rates[other]:.2f} (wanted: {bound})")


def make_model(cell: str, vocab_size: int, embedding: int | None = None) -> tuple[object, object]:
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, hidden=HIDDEN, embedding=embedding)
    tokenizer = CharTokenizer(characters="".join(chr(0x4E00 + i) for i in range(vocab_size - 1)))
    return LanguageModel(config, vocab_size).eval(), tokenizer


def export(
    model: LanguageModel, tokenizer: object, folder: Path, precision: str
) -> dict[str, Path]:
    registry = zoo.load_registry()
    room = ExportBuilder(model, folder, registry)
    files = {}
    for graph, exporter in find_exporters(None, precision, registry).items():
        draft = room.draft(exporter, describe(model, tokenizer, graph, precision))
        draft.path.write_bytes(draft.content)
        files[graph] = draft.path
    return files


def open_engine(path: Path) -> object:
    return open_artifact(path, "cpu", zoo.load_registry(), threads=1).engine


def writer(
    engine: object, batch_size: int = 1, tokens: int = 32, sampling: Sampling = HOT
) -> Workload:
    rng = np.random.default_rng(0)
    carried = [np.zeros(batch_size, np.int64), engine.init_state(batch_size)]

    def write() -> int:
        uniform = rng.random((tokens, batch_size), dtype=np.float32)
        found, carried[1] = engine.write(carried[0], carried[1], uniform, sampling)
        carried[0] = found[-1]
        return tokens * batch_size

    return write


def plain_torch(cell: str, vocab_size: int) -> Workload:
    """The loop of the lecture note over torch.nn's layer."""
    layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](vocab_size, HIDDEN)
    head = nn.Linear(HIDDEN, vocab_size)
    carried: list[object] = [torch.zeros(1, 1, dtype=torch.int64), None]

    @torch.inference_mode()
    def write() -> int:
        for _ in range(32):
            x = nn.functional.one_hot(carried[0], vocab_size).float()
            y, carried[1] = layer(x, carried[1])
            weights = head(y[0]).softmax(-1)
            carried[0] = torch.multinomial(weights, 1)
        return 32

    return write


class TorchModel(nn.Module):
    """torch.nn's layer with an embedding and a head, for torch.onnx to export."""

    def __init__(self, cell: str, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.eye(vocab_size))
        self.layer = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](vocab_size, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, vocab_size)

    def forward(self, token: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, state = self.layer(self.embedding(token), state if len(state) > 1 else state[0])
        return (self.head(y[:, 0]), *(state if isinstance(state, tuple) else (state,)))


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def torch_onnx_step_loop(cell: str, vocab_size: int) -> Workload:
    states = 2 if cell == "lstm" else 1
    example = (
        torch.zeros(1, 1, dtype=torch.int64),
        *(torch.zeros(1, 1, HIDDEN) for _ in range(states)),
    )
    names = [f"s{index}" for index in range(states)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            TorchModel(cell, vocab_size).eval(),
            example,
            dynamo=True,
            input_names=["token", *names],
            verbose=False,
        )
    run = session(program.model_proto.SerializeToString()).run
    rng = np.random.default_rng(0)
    carried = [np.zeros(1, np.int64), [np.zeros((1, 1, HIDDEN), np.float32)] * states]

    def write() -> int:
        for _ in range(32):
            feeds = {"token": carried[0][:, None], **dict(zip(names, carried[1], strict=True))}
            logits, *carried[1] = run(None, feeds)
            carried[0] = choose(logits, rng.random(1, dtype=np.float32), HOT)
        return 32

    return write


def onnx_lstm(vocab_size: int, embedding: int) -> Workload:
    """A graph around ONNX's LSTM operator, over sequences."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.normal(size=shape) * 0.05).astype(np.float32), name)

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["tokens"], ["by_time"], perm=[1, 0]),
            helper.make_node("Gather", ["E", "by_time"], ["x"]),
            helper.make_node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y", "hn", "cn"],
                             hidden_size=HIDDEN),
            helper.make_node("Squeeze", ["y", "one"], ["y1"]),
            helper.make_node("MatMul", ["y1", "head"], ["z"]),
            helper.make_node("Add", ["z", "bias"], ["logits"]),
        ],
        "lstm",
        [value("tokens", TensorProto.INT64, ["b", "t"]),
         value("h", TensorProto.FLOAT, [1, "b", HIDDEN]),
         value("c", TensorProto.FLOAT, [1, "b", HIDDEN])],
        [value("logits", TensorProto.FLOAT, ["t", "b", vocab_size]),
         value("hn", TensorProto.FLOAT, [1, "b", HIDDEN]),
         value("cn", TensorProto.FLOAT, [1, "b", HIDDEN])],
        [weight("E", vocab_size, embedding), weight("W", 1, 4 * HIDDEN, embedding),
         weight("R", 1, 4 * HIDDEN, HIDDEN), weight("B", 1, 8 * HIDDEN),
         weight("head", HIDDEN, vocab_size), weight("bias", vocab_size),
         numpy_helper.from_array(np.array([1]), "one")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    run = session(model.SerializeToString()).run
    feeds = {"h": np.zeros((1, 1, HIDDEN), np.float32), "c": np.zeros((1, 1, HIDDEN), np.float32)}
    tokens = rng.integers(0, vocab_size, (1, 64))

    def score() -> int:
        run(None, {"tokens": tokens, **feeds})
        return 64

    return score


def scorer(engine: object, vocab_size: int, length: int = 64) -> Workload:
    tokens = np.random.default_rng(0).integers(0, vocab_size, (length, 1))
    state = engine.init_state(1)

    def score() -> int:
        engine.logits(tokens, state)
        return length

    return score


def product(rows: int, columns: int, inner: int) -> Workload:
    """One product by ONNX Runtime's own kernel; its tokens are floating-point operations."""
    value = helper.make_tensor_value_info
    weight = np.random.default_rng(0).normal(size=(inner, columns)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [value("x", TensorProto.FLOAT, ["b", inner])],
        [value("y", TensorProto.FLOAT, ["b", columns])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    run = session(model.SerializeToString()).run
    x = np.random.default_rng(0).normal(size=(rows, inner)).astype(np.float32)

    def multiply() -> int:
        run(None, {"x": x})
        return 2 * rows * columns * inner

    return multiply


def children(path: Path) -> None:
    """Opening time and peak memory of a process that only generates."""
    program = """
import sys, time
began = time.perf_counter()
import zoo
source = zoo.open_source(sys.argv[1])
opened = time.perf_counter() - began
again = time.perf_counter()
zoo.open_source(sys.argv[1])
again = time.perf_counter() - again
zoo.generate(source, source.tokenizer.decode([1, 2]), length=500, temperature=1.0)
status = open("/proc/self/status").read()  # excludes what a process inherits
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(f"  process start to opened {opened:.2f} s, opening alone {again:.3f} s, "
      f"peak {peak:.0f} MB resident")
"""
    print(f"  {path.name}, {path.stat().st_size / 1e6:.1f} MB:")
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, "
          f"onnxruntime {onnxruntime.__version__}, one thread")  # fmt: skip
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        for cell in ("rnn", "gru", "lstm"):
            model, tokenizer = make_model(cell, 28)
            folder = Path(temporary) / cell
            folder.mkdir()
            began = time.perf_counter()
            files = export(model, tokenizer, folder, "fp32")
            seconds = time.perf_counter() - began
            small = export(model, tokenizer, folder, "int8")
            engines = {name: open_engine(path) for name, path in files.items()}
            integers = open_engine(small["generate"])
            greedy = Sampling()
            workloads = {
                "PyTorch eager, torch.nn layer": plain_torch(cell, 28),
                "PyTorch eager, the zoo's step": writer(ModelStepper(model)),
                "step loop": writer(engines["step"]),
                "generate": writer(engines["generate"]),
                "generate greedy": writer(engines["generate"], sampling=greedy),
                "generate int8": writer(integers),
            }
            ratios = [
                ("generate", "PyTorch eager, torch.nn layer", ">= 2.2 for rnn"),
                ("generate", "PyTorch eager, the zoo's step", ">= 2.2 for rnn"),
                ("generate int8", "step loop", ">= 3"),
                ("generate greedy", "generate", "<= 1.15"),
            ]
            if cell != "rnn":
                workloads["step loop over torch.onnx's export"] = torch_onnx_step_loop(cell, 28)
                bound = ">= 5" if cell == "lstm" else ">= 4"
                ratios.append(("generate int8", "step loop over torch.onnx's export", bound))
            show(f"{cell}, vocabulary 28, batch 1", compare(workloads), ratios)
            print(f"  all three graphs exported and proved in {seconds:.1f} s (wanted: < 15)")

            gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
            work = 2 * (gates * HIDDEN * HIDDEN + HIDDEN * 28)
            rates = compare(
                {
                    "generate": writer(engines["generate"], 256, 8),
                    "product": product(256, gates * HIDDEN, HIDDEN),
                }
            )
            wide = rates["generate"]
            share = wide * work / rates["product"]
            print(f"  batch 256: {wide:,.0f} tokens/s, {share:.2f} of the product's rate "
                  f"(wanted: >= 0.6)")  # fmt: skip
            children(files["generate"])
            children(small["generate"])

        model, tokenizer = make_model("lstm", 8192, 256)
        folder = Path(temporary) / "large"
        folder.mkdir()
        files = export(model, tokenizer, folder, "fp32")
        engines = {name: open_engine(path) for name, path in files.items()}
        rates = compare(
            {
                "step loop": scorer(engines["step"], 8192, 16),
                "sequence": scorer(engines["sequence"], 8192),
                "around ONNX's LSTM": onnx_lstm(8192, 256),
                "generate": writer(engines["generate"]),
                "generate greedy": writer(engines["generate"], sampling=Sampling()),
            }
        )
        show(
            "lstm, vocabulary 8,192, embedding 256, batch 1", rates,
            [("sequence", "step loop", ">= 2.8"), ("sequence", "around ONNX's LSTM", ">= 0.85"),
             ("generate greedy", "generate", "<= 1.4")],
        )  # fmt: skip
        children(files["generate"])


if __name__ == "__main__":
    main()

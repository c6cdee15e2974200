"""Training on a CUDA device: updates as replays of CUDA graphs, and step by step.

    python tests/benchmarks/gpu_training.py              # everything, in under four minutes
    python tests/benchmarks/gpu_training.py recipe step  # the parts whose names begin so

"recipe:" are the textbook's experiments. "step:" is one recorded update at 1,024 hidden units, 16
rows of 512 steps, bf16: tokens a second, and the most memory. "compare:" is the same step by step,
and how far the losses are apart. "without:" leaves out kernels. "kernels:" lists what the device
does in one update. "warm:" compiles the kernels of a cell, which are then on disk.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from watched import run_watched

import zoo
from zoo.config import RunConfig
from zoo.data.dataset import read_dataset
from zoo.models.language_model import LanguageModel
from zoo.nn import fused, kernels, linear
from zoo.training.events import Report
from zoo.training.trainer import Trainer

BEFORE = {  # tokens a second on an H200, before whole updates were recorded
    "d2l-scratch": 918_668, "d2l-concise": 825_298, "lstm": 363_000, "lstm-scratch": 51_000,
    "rnn-scratch": 145_000, "slstm": 11_800, "mingru": 1_404_000, "lru": 1_028_000,
    "mamba2": 623_000, "mlstm": 501_000, "retnet": 452_000, "gla": 396_000,
    "gated-deltanet": 319_000, "rwkv7": 135_000,
}  # fmt: skip
GOALS = {
    "d2l-scratch": 2e6, "d2l-concise": 2.5e6, "lstm-scratch": 181_500, "slstm": 118_000,
    "mamba2": 1_869_000, "retnet": 1_356_000, "gla": 1_188_000, "gated-deltanet": 957_000,
    "rwkv7": 405_000,
}  # fmt: skip
MATRICES = "gla", "gated-deltanet", "rwkv7", "retnet", "mamba2"  # whose recurrence has kernels
CELLS = ("lstm-scratch", "slstm", "mingru", *MATRICES, "rnn-scratch", "lstm", "mlstm", "lru")
SECONDS = 0.8  # of updates that are timed
D2L = {
    "hidden": 512, "batch_size": 32, "steps": 35, "optimizer": "sgd", "learning_rate": 1.0,
    "schedule": "constant", "warmup": 0.0, "precision": "fp32",
}  # fmt: skip
LARGE = {
    "hidden": 1024, "batch_size": 16, "steps": 512, "precision": "bf16", "learning_rate": 1e-3,
}  # fmt: skip


def text() -> str:
    """A file of letters in random order; its losses are compared, not its perplexity."""
    path = Path(tempfile.gettempdir()) / "letters.txt"
    if not path.exists():
        letters = np.random.default_rng(0).integers(97, 123, 16 * 512 * 12, dtype=np.uint8)
        path.write_bytes(letters.tobytes())
    return str(path)


def make_trainer(**settings: Any) -> tuple[Trainer, Any]:
    config = RunConfig.build({"held_out": 0.0, "epochs": 100, "corpus": text(), **settings})
    data = read_dataset(config.data)
    torch.manual_seed(0)
    model = LanguageModel(config.model, data.tokenizer.vocab_size).cuda()
    trainer = Trainer(model, data, config.training, "a")
    model.train()
    trainer.clock.start(0.0, new=True)
    return trainer, cycle(list(trainer._rest_of_epoch()))


def updates(trainer: Trainer, windows: Any, count: int) -> float:
    """The mean loss of so many updates."""
    trainer._meter.restart(0.0)
    for window in islice(windows, count):
        trainer._learn([window])
    return float(trainer._meter.nats_per_token())


def rate(trainer: Trainer, windows: Any) -> float:
    torch.cuda.synchronize()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        trainer._learn([next(windows)])
        count += 1
    torch.cuda.synchronize()
    tokens = count * trainer._config.batch_size * trainer._config.steps
    return tokens / (time.perf_counter() - began)


def versus(name: str, found: float) -> str:
    goal = GOALS.get(name)
    reached = "" if goal is None else f", goal {goal:,.0f}: {'reached' if found >= goal else 'NOT'}"
    return f"before {BEFORE[name]:,}{reached}"


def time_recipe(name: str, graph: bool | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        events = zoo.train_events(
            recipe=name, out=f"{folder}/run", epochs=60, device="cuda", cuda_graph=graph
        )
        lines = [event.metrics for event in events if isinstance(event, Report)]
    found = float(np.median([line.tokens_per_second for line in lines[-30:]]))
    how = "step by step" if graph is False else "recorded"
    print(
        f"{name}, {how}: {found:,.0f} tokens/s ({versus(name, found)}); perplexities "
        f"{[round(line.train_perplexity, 4) for line in lines[9:60:10]]}",
        flush=True,
    )


def time_step(cell: str, graph: bool = True) -> list[float]:
    """The mean losses of its first three pairs of updates."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    began = time.perf_counter()
    trainer, windows = make_trainer(**LARGE, cell=cell, cuda_graph=graph)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        losses = [updates(trainer, windows, 2) for _ in range(3)]
    start = time.perf_counter() - began
    found = rate(trainer, windows)
    gigabytes = (torch.cuda.max_memory_allocated() - before) / 1e9
    how = "recorded" if trainer._updates.recorded is not None else "step by step"
    print(
        f"{cell}, {how}: {found:,.0f} tokens/s ({versus(cell, found)}); {gigabytes:.2f} GB; the "
        f"first 6 updates took {start:.1f} s; losses {', '.join(f'{one:.5f}' for one in losses)}"
        f"{''.join(f'; {one.message}' for one in told)}",
        flush=True,
    )
    return losses


def compare_step(cell: str) -> None:
    pairs = zip(time_step(cell), time_step(cell, graph=False), strict=True)
    print(f"{cell}: losses apart by {max(abs(a - b) / b for a, b in pairs):.1e}", flush=True)


def without(work: Callable[[], None], module: Any, name: str, value: Any) -> None:
    kept = getattr(module, name)
    setattr(module, name, value)
    print(f"without {module.__name__}.{name}:", flush=True)
    try:
        work()
    finally:
        setattr(module, name, kept)


def warm(cell: str) -> None:
    trainer, windows = make_trainer(**LARGE, cell=cell)
    updates(trainer, windows, 1)


def list_kernels(**settings: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    trainer, windows = make_trainer(**settings)
    updates(trainer, windows, 4)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        updates(trainer, windows, 3)
        torch.cuda.synchronize()
    rows = [row for row in found.key_averages() if row.self_device_time_total > 0]
    rows.sort(key=lambda row: -row.self_device_time_total)
    total = sum(row.self_device_time_total for row in rows) / 3
    count = sum(row.count for row in rows) / 3
    print(f"{settings['cell']}: {count:,.0f} kernels in {total:,.0f} µs an update", flush=True)
    for row in rows[:8]:
        each = row.self_device_time_total / row.count
        print(f"  {row.count / 3:6,.0f} × {each:7.1f} µs  {row.key[:90]}", flush=True)


def time_products() -> None:
    """What the product of a step takes in a graph, where nothing else is in the way."""
    for rows, width, columns in ((32, 512, 512), (16, 1024, 4096), (16, 4096, 1024)):
        left, right = torch.randn(rows, width).cuda(), torch.randn(width, columns).cuda()
        total = torch.randn(rows, columns).cuda()
        for precision in ("ieee", "tf32"):
            torch.backends.cuda.matmul.fp32_precision = precision
            found = {}
            ways: dict[str, Callable[[], Any]] = {
                "PyTorch's": lambda: total.addmm_(left, right),  # noqa: B023
            }
            if find_spec("triton") is not None:
                from zoo.nn.few_rows import plus_product

                ways["ours"] = lambda: plus_product(total, left, right, total)  # noqa: B023
            for way, work in ways.items():
                work()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    for _ in range(100):
                        work()
                graph.replay()
                torch.cuda.synchronize()
                began = time.perf_counter()
                graph.replay()
                torch.cuda.synchronize()
                found[way] = f"{(time.perf_counter() - began) * 1e4:.1f} µs"
            print(f"[{rows}, {width}] [{width}, {columns}], {precision}: {found}", flush=True)
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def name_the_card() -> None:
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)


def parts() -> dict[str, tuple[float, Callable[[], Any]]]:
    found: dict[str, tuple[float, Callable[[], Any]]] = {"card": (30, name_the_card)}
    scratch = partial(time_recipe, "d2l-scratch")
    found["recipe:d2l-scratch"] = (30, scratch)
    found["without:few rows, d2l-scratch"] = (
        20, partial(without, scratch, fused, "MOST_ROWS", 0),
    )  # fmt: skip
    found["recipe:d2l-concise"] = (20, partial(time_recipe, "d2l-concise"))
    found["products"] = (20, time_products)
    for cell in CELLS:
        found[f"step:{cell}"] = (60, partial(time_step, cell))
    found["without:few rows, lstm-scratch"] = (
        20, partial(without, partial(time_step, "lstm-scratch"), fused, "MOST_ROWS", 0),
    )  # fmt: skip
    found["without:time scan, mingru"] = (
        20, partial(without, partial(time_step, "mingru"), linear, "_time_scan", lambda: None),
    )  # fmt: skip
    for cell in MATRICES:
        work = partial(time_step, cell)
        found[f"without:fla, {cell}"] = (
            20, partial(without, work, kernels, "is_installed", lambda: False),
        )  # fmt: skip
    for cell in ("slstm", "lstm-scratch", *MATRICES[:2]):
        found[f"kernels:{cell}"] = (20, partial(list_kernels, **LARGE, cell=cell))
    found["kernels:d2l-scratch"] = (20, partial(list_kernels, **D2L, cell="rnn-scratch"))
    for name in ("d2l-scratch", "d2l-concise"):
        found[f"compare:{name}"] = (30, partial(time_recipe, name, False))
    for cell in CELLS:
        found[f"compare:{cell}"] = (40, partial(compare_step, cell))
    for cell in MATRICES:
        found[f"warm:{cell}"] = (90, partial(warm, cell))
    return found


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device")
    run_watched(parts(), seconds=225)

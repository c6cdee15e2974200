"""On a CUDA device: how fast exported step graphs write, read and score, beside PyTorch, and
whether their texts are those of the CPU.

Each step prints as it goes, under a time limit of its own; all together take about two minutes.
"Before" are the rates of a loop that chose tokens in the graph and recorded one step at a time, on
an H200 with ONNX Runtime 1.31.1.

    python tests/benchmarks/gpu_generation.py [STEP ...]
"""

from __future__ import annotations

import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zoo
from zoo.config import ModelConfig, Sampling
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelStepper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from step_files import (
    EXPANDING,
    export_step,
    registry_with_expanding,
    text_ties,
)

HOT = Sampling(temperature=1.0)
SAMPLINGS = {
    "greedy": Sampling(),
    "temperature": Sampling(temperature=0.8),
    "top-k": Sampling(temperature=1.0, top_k=5),
    "top-p": Sampling(temperature=1.2, top_p=0.8),
}
BEFORE = {
    ("rnn", 1): 29_328, ("rnn", 16): 362_910, ("rnn", 256): 3_538_629,
    ("gru", 1): 19_464, ("gru", 16): 239_393, ("gru", 256): 2_452_269,
    ("lstm", 1): 20_638, ("lstm", 16): 249_876, ("lstm", 256): 2_415_861,
}  # fmt: skip
VOCAB = 27 + 1  # of `export_step`, with that for unknown characters


def say(*parts: object) -> None:
    print(*parts, flush=True)


def exported(folder: Path, cell: str, hidden: int, precision: str = "fp32") -> Path:
    """The step graph; exported now if it is not there."""
    place = folder / f"{cell}-{hidden}-{precision}"
    if not (place / "step.onnx").exists():
        place.mkdir(exist_ok=True)
        registry = registry_with_expanding()
        export_step(place, cell, hidden, precision=precision, registry=registry)
    return place / "step.onnx"


def opened(path: Path, provider: str = "cuda") -> Any:
    return zoo.open_source(path, provider).engine


def rate(work: Callable[[], int], seconds: float = 0.25) -> float:
    """The median of tokens per second, after two runs that record and warm up."""
    work()
    work()
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        count = work()
        found.append(count / (time.perf_counter() - start))
    return statistics.median(found)


def writing(engine: Any, rows: int, sampling: Sampling = HOT, steps: int = 512) -> float:
    rng = np.random.default_rng(0)
    uniform = rng.random((steps, rows), dtype=np.float32)
    last, state = np.zeros(rows, np.int64), engine.init_state(rows)

    def work() -> int:
        engine.write(last, state, uniform, sampling)
        return steps * rows

    return rate(work)


FILES = [
    *((cell, 64, "fp32") for cell in ("gru", "mamba2", EXPANDING)),
    *((cell, 512, "fp32") for cell in ("rnn", "gru", "lstm", "gated-deltanet")),
    ("lstm", 512, "fp16"),
]


def export(folder: Path) -> None:
    """The files that the steps open: each in a process of its own, without the device."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, __file__, "export", str(folder)]
    running = [
        subprocess.Popen([*command, cell, str(hidden), precision], env=environment)
        for cell, hidden, precision in FILES
    ]
    for process in running:
        process.wait()


def texts(folder: Path) -> None:
    """100,000 tokens in 40 rows, on CUDA and on the CPU."""
    for cell in ("gru", "mamba2", EXPANDING):
        path = exported(folder, cell, 64)
        try:
            engines = opened(path, "cpu"), opened(path)
            for label, sampling in SAMPLINGS.items():
                began = time.perf_counter()
                ties = text_ties(*engines, 40, 2500, sampling)
                took = time.perf_counter() - began
                say(f"{cell} 64, {label}: 100,000 tokens equal but for {ties} ties ({took:.1f} s)")
        except Exception as error:
            say(f"{cell} 64: FAILED: {type(error).__name__}: {str(error)[:400]}")


def speed(folder: Path, cell: str, sizes: tuple[int, ...]) -> None:
    engine = opened(exported(folder, cell, 512))
    for rows in sizes:
        found = writing(engine, rows, steps=512 if rows < 256 else 128)
        before = BEFORE.get((cell, rows))
        against = f"; before {before:,}: {found / before:.2f} x" if before else ""
        step = f"{1e6 * rows / found:.1f} us a step"
        say(f"{cell} 512, {rows} rows: {found:,.0f} tokens/s, {step}{against}")


def rnn(folder: Path) -> None:
    speed(folder, "rnn", (1, 16, 256, 1024))
    engine = opened(exported(folder, "rnn", 512))
    for label, sampling in SAMPLINGS.items():
        rates = [f"{writing(engine, rows, sampling):,.0f}" for rows in (1, 16)]
        say(f"rnn 512, {label}, 1 and 16 rows: {' and '.join(rates)} tokens/s")


def gru(folder: Path) -> None:
    speed(folder, "gru", (1, 16, 256))


def lstm(folder: Path) -> None:
    speed(folder, "lstm", (1, 16, 256, 1024))


def parts(folder: Path) -> None:
    """Where the time of a step goes: with the choice and without, and what a call costs."""
    for cell in ("rnn", "lstm"):  # the calls' own cost
        engine = opened(exported(folder, cell, 512))
        reading = rate(partial(reading_once, engine))
        one = rate(partial(writing_once, engine))
        say(f"{cell} 512, 1 row: {1e6 / reading:.1f} us a step without the choice; "
            f"{1e6 / one:.0f} us for a call that writes one token")  # fmt: skip


def reading_once(engine: Any) -> int:
    logits, _ = engine.logits(np.zeros((512, 1), np.int64), engine.init_state(1))
    return len(logits)


def writing_once(engine: Any) -> int:
    state = engine.init_state(1)
    engine.write(np.zeros(1, np.int64), state, np.zeros((1, 1), np.float32), HOT)
    return 1


def pytorch(folder: Path) -> None:
    """PyTorch's own CUDA graphs: one step with its choice, compiled; and its loop as it is."""
    for cell, sizes in (("rnn", (1, 16, 1024)), ("lstm", (1, 16))):
        torch.manual_seed(0)
        model = LanguageModel(ModelConfig(cell=cell, hidden=512), VOCAB).eval().cuda()
        for rows in sizes:
            ours = writing(opened(exported(folder, cell, 512)), rows, steps=256)
            eager = writing(ModelStepper(model), rows, steps=16)
            try:
                compiled = compiled_rate(model, rows)
            except Exception as error:
                say(f"{cell} 512, {rows} rows: torch.compile: {str(error)[:200]}")
                continue
            say(f"{cell} 512, {rows} rows: PyTorch eager {eager:,.0f}, with reduce-overhead "
                f"{compiled:,.0f}, ours {ours:,.0f} tokens/s: {ours / compiled:.2f} x")  # fmt: skip


def compiled_rate(model: LanguageModel, rows: int) -> float:
    """Tokens per second of a compiled step that also draws the next token on the device."""

    def step(tokens: Any, draws: Any, state: Any) -> tuple[Any, Any]:
        logits, state = model.step(tokens, state)
        mass = torch.softmax(logits.double(), -1).cumsum(-1)
        return (mass > draws[:, None]).int().argmax(-1), state

    torch._dynamo.reset()
    compiled = torch.compile(step, mode="reduce-overhead", dynamic=False)
    uniform = torch.rand(64, rows, device="cuda", dtype=torch.float64)

    def work() -> int:
        tokens = torch.zeros(rows, dtype=torch.int64, device="cuda")
        state, written = model.init_state(rows), []
        for draws in uniform:
            torch.compiler.cudagraph_mark_step_begin()
            tokens, state = compiled(tokens, draws, state)
            tokens, state = tokens.clone(), torch.utils._pytree.tree_map(torch.clone, state)
            written.append(tokens)
        torch.stack(written).cpu()
        return rows * len(uniform)

    with torch.no_grad():
        return rate(work)


def reading(folder: Path) -> None:
    """16 rows of 1,024 tokens, and one row."""
    for cell in ("lstm", "gru", "gated-deltanet"):
        try:
            engine = opened(exported(folder, cell, 512))
            for rows in (16, 1):
                tokens = np.random.default_rng(0).integers(0, VOCAB, (1024, rows))
                state = engine.init_state(rows)

                def read(engine: Any = engine, tokens: Any = tokens, state: Any = state) -> int:
                    engine.read(tokens, state)
                    return int(tokens.size)

                def score(engine: Any = engine, tokens: Any = tokens, state: Any = state) -> int:
                    engine.logits(tokens, state)
                    return int(tokens.size)

                say(f"{cell} 512, {rows} rows of 1,024: reads {rate(read):,.0f}, scores "
                    f"{rate(score):,.0f} tokens/s")  # fmt: skip
        except Exception as error:
            say(f"{cell} 512: FAILED: {type(error).__name__}: {str(error)[:400]}")


def scores(folder: Path) -> None:
    """`zoo.score` on CUDA and on the CPU, and what half precision costs."""
    text = folder / "text.txt"
    letters = np.random.default_rng(0).choice(list("abc def ghij"), 20_000)
    text.write_text("".join(letters))
    full: dict[str, float] = {}
    for precision in ("fp32", "fp16"):
        path = exported(folder, "lstm", 512, precision)
        for provider in ("cpu", "cuda"):
            began = time.perf_counter()
            found = zoo.score(zoo.open_source(path, provider, scores=True), str(text))
            took = time.perf_counter() - began
            full[precision + provider] = found.nats_per_token
            say(f"lstm 512, {precision}, {provider}: {found.nats_per_token:.7f} nats/token "
                f"({found.tokens / took:,.0f} tokens/s)")  # fmt: skip
    engine = opened(exported(folder, "lstm", 512, "fp16"))
    say(f"lstm 512, fp16: {writing(engine, 1):,.0f} and {writing(engine, 16):,.0f} tokens/s")


def memory(folder: Path) -> None:
    engine = opened(exported(folder, "lstm", 512))
    for rows in (10_000, 100_000):
        began = time.perf_counter()
        try:
            tokens, _ = engine.write(
                np.zeros(rows, np.int64), engine.init_state(rows),
                np.zeros((16, rows), np.float32), HOT,
            )  # fmt: skip
            took = time.perf_counter() - began
            say(f"lstm 512, {rows:,} rows: {tokens.size / took:,.0f} tokens/s with the recording, "
                f"{engine._most_rows:,} rows at a time")  # fmt: skip
        except Exception as error:
            say(f"lstm 512, {rows:,} rows: FAILED: {type(error).__name__}: {str(error)[:300]}")


STEPS: dict[str, tuple[int, Callable[[Path], None]]] = {
    "rnn": (20, rnn),
    "lstm": (20, lstm),
    "gru": (15, gru),
    "reading": (20, reading),
    "texts": (25, texts),
    "scores": (20, scores),
    "parts": (10, parts),
    "memory": (15, memory),
    "pytorch": (60, pytorch),
}


def main(names: list[str]) -> None:
    say(torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device")
    left = names or list(STEPS)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        export(Path(folder))
        say(f"exported in {time.perf_counter() - began:.0f} s")
        while left:
            left = left[watched(left, folder) :]


def watched(names: list[str], folder: str) -> int:
    """Runs steps in a process, which ends when one of them takes too long; how many were begun."""
    command = [sys.executable, __file__, "run", folder, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        begun, started = 0, time.perf_counter()
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
        while True:
            limit = STEPS[names[max(0, begun - 1)]][0] + (20 if not begun else 0)
            try:
                line = lines.get(timeout=max(0.1, limit - (time.perf_counter() - started)))
            except queue.Empty:
                say(f"stopped after {limit} s")
                process.kill()
                return max(1, begun)
            if line is None:
                return max(1, begun)
            if line.startswith("== "):
                begun, started = begun + 1, time.perf_counter()
            say(line.rstrip())


def _pass_on(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def run(folder: Path, names: list[str]) -> None:
    for name in names:
        say(f"== {name}")
        began = time.perf_counter()
        try:
            STEPS[name][1](folder)
        except Exception as error:
            say(f"{name}: FAILED: {type(error).__name__}: {str(error)[:400]}")
        say(f"   {name} took {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["export", place, cell_name, size, kind]:
            exported(Path(place), cell_name, int(size), kind)
        case ["run", place, *steps]:
            run(Path(place), steps)
        case steps:
            main(steps)

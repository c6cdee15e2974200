"""What a run's model costs: the speed of its training, and speed and size once it is exported."""

from __future__ import annotations

import math
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import torch

from zoo.exporting.export import export
from zoo.inference.artifact import GENERATE
from zoo.inference.runtime import open_artifact
from zoo.inference.throughput import measure_throughput, writing
from zoo.registry.registry import Registry
from zoo.runs.run import load
from zoo.training.distributed import ALONE
from zoo.training.malloc import keep_freed_memory
from zoo.training.reading import read_data
from zoo.training.trainer import Trainer

ROUNDS, SECONDS = 5, 0.3
SECONDS_OF_TRAINING = 2.0


class Measured(TypedDict):
    """Tokens per second of the training, with all threads, and of writing one text with
    generate.onnx in fp32 and int8, with one; and the bytes of these files."""

    training_tokens_per_second: float | None
    generate_tokens_per_second: float
    generate_int8_tokens_per_second: float
    file_bytes: int
    file_int8_bytes: int


def measure_run(
    run: Path, registry: Registry, *, exporter: str | None = None, runtime: str | None = None
) -> Measured:
    """Measures on the machine as it is now, and leaves the run as it is. `exporter` and `runtime`
    write and open the files, where several can. Raises what `zoo.export` raises."""
    training = _training_speed(run, registry)
    with tempfile.TemporaryDirectory(prefix="zoo-measure-") as folder:
        full, integer = (
            export(
                run,
                GENERATE,
                precision,
                math.inf,
                folder,
                registry,
                exporter=exporter,
                runtime=runtime,
            ).path
            for precision in ("fp32", "int8")
        )
        rates = _writing_speeds((full, integer), registry, runtime)
        return Measured(
            training_tokens_per_second=training,
            generate_tokens_per_second=rates[0],
            generate_int8_tokens_per_second=rates[1],
            file_bytes=full.stat().st_size,
            file_int8_bytes=integer.stat().st_size,
        )


def _training_speed(path: Path, registry: Registry) -> float | None:
    """From the median time of a step, of those that two seconds of more training take; None where
    there are not two steps to take."""
    keep_freed_memory()  # as a training does
    run = load(path, registry)
    config = run.config.training
    data = read_data(run.config.data, registry, run.tokenizer_or_none)
    device = ALONE.device(config.device)
    trainer = Trainer(run.model.to(device), data, config, run.prompt, registry=registry)
    times: list[float] = []

    def enough() -> bool:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())
        return times[-1] - times[0] > SECONDS_OF_TRAINING

    for _ in trainer.events(enough):
        pass
    steps = [after - before for before, after in pairwise(times)]
    return config.batch_size * config.steps / median(steps) if steps else None


def _writing_speeds(
    files: tuple[Path, ...], registry: Registry, runtime: str | None
) -> list[float]:
    """The files, in five rounds; a speed is the median."""
    engines: list[Any] = [
        open_artifact(file, "cpu", registry, runtime=runtime, threads=1).engine for file in files
    ]
    workloads = [writing(engine, batch=1) for engine in engines]
    rates: list[list[float]] = [[] for _ in workloads]
    for workload in workloads:
        workload()
    for _ in range(ROUNDS):
        for workload, found in zip(workloads, rates, strict=True):
            found.append(measure_throughput(workload, SECONDS))
    return [median(found) for found in rates]

"""What a trained model is worth once it is exported: the speed and size of its file."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

from zoo.artifact import GENERATE
from zoo.exporter import export
from zoo.generator import find_runtime
from zoo.registry import Registry
from zoo.ways import writing

ROUNDS, SECONDS = 5, 0.3


class ExportedFigures(TypedDict):
    """Tokens per second of one text on one thread, and bytes: of generate.onnx in fp32 and int8."""

    generate_tokens_per_second: float
    generate_int8_tokens_per_second: float
    file_bytes: int
    file_int8_bytes: int


def measure_exported(run: Path, registry: Registry) -> ExportedFigures:
    """Exports the run's model into a temporary folder, proves the files, and measures them, the two
    in turn; a speed is the median of five rounds. Raises what `zoo.export` raises."""
    with tempfile.TemporaryDirectory(prefix="zoo-measure-") as folder:
        full, integer = (
            export(run, GENERATE, precision, math.inf, folder, registry).path
            for precision in ("fp32", "int8")
        )
        engines: list[Any] = [
            find_runtime(file, registry).open(file, "cpu", threads=1).engine
            for file in (full, integer)
        ]
        ways = [writing(engine, batch=1) for engine in engines]
        rates: list[list[float]] = [[], []]
        for way in ways:
            way()
        for _ in range(ROUNDS):
            for way, found in zip(ways, rates, strict=True):
                began, tokens = time.perf_counter(), 0
                while time.perf_counter() - began < SECONDS:
                    tokens += way()
                found.append(tokens / (time.perf_counter() - began))
        return ExportedFigures(
            generate_tokens_per_second=median(rates[0]),
            generate_int8_tokens_per_second=median(rates[1]),
            file_bytes=full.stat().st_size,
            file_int8_bytes=integer.stat().st_size,
        )

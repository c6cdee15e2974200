"""How many tokens per second a model writes or reads, in each workload, and how near that is
to the machine's limits.

Workloads and limits are measured in rounds, each once a round: where the machine's speed drifts, it
drifts for all of them, and the ratios hold.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from zoo.benchmarking.roofline import Limits, Target, describe_machine, matrix_products, probes
from zoo.benchmarking.workloads import FORWARD, LOOP, Workload, find_workloads
from zoo.config import PROVIDERS
from zoo.errors import ArtifactError, ProviderError, RunError, UsageError, require_choice
from zoo.exporting.export import export_all
from zoo.inference.artifact import GENERATE, SEQUENCE, STEP, ArtifactInfo
from zoo.inference.cpu import usable_cores
from zoo.inference.runtime import exported_files, local_files, open_artifact
from zoo.inference.urls import shown_source
from zoo.models.language_model import LanguageModel, fingerprint
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import FULL
from zoo.runs.metadata import CONFIG
from zoo.runs.run import load

EXPORTED = {"fp32": (STEP, GENERATE, SEQUENCE), "int8": (STEP, GENERATE)}
SETTLE_SECONDS = 0.05  # threads of a runtime may wait 20 ms for more work before they sleep
NO_LOOPS = "on CUDA only the step graph runs; measure that, or use the CPU."
File = tuple[Path, ArtifactInfo]


@dataclass(frozen=True)
class Row:
    """One workload, on one target and at one batch size; `reads` is whether it reads tokens
    rather than writing them.

    `tokens_per_second`, of all rows of the batch together, is the median over the rounds; `lowest`
    and `highest` are the extremes. `ratio` is that median by the median of PyTorch's loop at the
    same target and batch size, or, of a workload that reads, by that of PyTorch's forward pass. The
    shares are those of the target's Limits, as if each step read the weights once. What was not
    measured is None; where that is all, `reason` says why.
    """

    workload: str
    reads: bool
    target: Target
    batch: int
    reason: str = ""
    tokens_per_second: float | None = None
    lowest: float | None = None
    highest: float | None = None
    ratio: float | None = None
    memory_share: float | None = None
    arithmetic_share: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """What was measured, on which machine. `multiply_adds` are those of one token; 0 where the
    model's cell is not installed, so that its cost is not known."""

    machine: Mapping[str, Any]
    multiply_adds: int
    limits: Sequence[Limits]
    rows: Sequence[Row]


def benchmark(source: str | Path, **settings: Any) -> Benchmark:
    """The result of `benchmark_events`, which takes the same."""
    *_, result = benchmark_events(source, **settings)
    assert isinstance(result, Benchmark)
    return result


def benchmark_events(
    source: str | Path,
    *,
    batches: Sequence[int] = (1, 16, 256),
    rounds: int = 5,
    seconds: float = 0.2,
    provider: str = "auto",
    compiled: bool = True,
    exporter: str | None = None,
    runtime: str | None = None,
    registry: Registry | None = None,
) -> Iterator[str | Benchmark]:
    """Measures; yields what is being done, a line at a time, and in the end the result.

    `source` is a run folder (what is not in its `export` is exported into a temporary folder), a
    folder of exported files, one of them, or a URL of these. Each workload gets `rounds` slices of
    `seconds`, at each of the `batches`; on a CPU with one thread, then with one for each core.
    `provider` "cuda" measures CUDA alone, "auto" the CPU, and CUDA where it runs. `compiled` is
    whether to try torch.compile. `exporter` and `runtime` are the names of those that write and
    open files, where several can. Raises UsageError for values out of bounds, RunError and
    ArtifactError for a source that is not one, ProviderError for CUDA that was asked for and does
    not run.
    """
    if not batches or min(batches) < 1 or rounds < 1 or not 0 < seconds < math.inf:
        raise UsageError("batch sizes and rounds must be at least 1, and seconds above 0.")
    require_choice("provider", provider, PROVIDERS)
    registry = registry or load_registry()
    batches = list(dict.fromkeys(batches))
    cpu, cuda = (
        [Target("cpu", count) for count in sorted({1, usable_cores()})],
        Target("cuda", None),
    )
    targets = {"cpu": cpu, "cuda": [cuda], "auto": [*cpu, cuda]}[provider]
    machine = describe_machine()
    limits: list[Limits] = []
    rows: list[Row] = []
    threads_before = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as made:
        try:
            model, files = yield from _open_source(source, Path(made), registry, exporter, runtime)
            info = files[0][1]
            products = matrix_products(info.model, info.tokenizer.vocab_size, registry)
            for target in targets:
                workloads = find_workloads(
                    model, files, target, batches, compiled, registry, runtime
                )
                if all(workload.reason for workload in workloads):
                    if provider == "cuda":
                        raise ProviderError(workloads[0].reason if workloads else NO_LOOPS)
                    continue
                torch.set_num_threads(target.threads or threads_before)
                bounds = [Workload("", *probe) for probe in probes(products, target, batches)]
                try:
                    yield from _measure([*workloads, *bounds], target, rounds, seconds)
                finally:
                    for workload in workloads:
                        workload.close()
                limit = _limit(target, bounds) if bounds else None
                limits += [limit] if limit else []
                rows += [
                    _row(workload, workloads, sum(products.values()), target, limit)
                    for workload in workloads
                ]
        finally:
            torch.set_num_threads(threads_before)
    yield Benchmark(machine, sum(products.values()), limits, rows)


def _open_source(
    source: str | Path, made: Path, registry: Registry, exporter: str | None, runtime: str | None
) -> Generator[str | Benchmark, None, tuple[LanguageModel | None, list[File]]]:
    """The model, if its run is there, and the files to measure."""
    path = Path(source)
    if not (path / CONFIG).is_file():
        paths = exported_files(path, registry) if path.is_dir() else local_files(source, registry)
        files = _read_files(paths, registry, runtime)
        if not files:
            raise RunError(f"{path} is not a run folder, and holds no exported files.")
        if len({info.weights for _, info in files}) > 1:
            raise ArtifactError(f"{shown_source(source)} holds files of several models; name one.")
        return None, sorted(files, key=_in_order)
    files = []
    run = load(path, registry)
    weights = fingerprint(run.model)
    found: dict[tuple[str, str], File] = {
        (info.graph, info.precision): (file, info)
        for file, info in _read_files(exported_files(path / "export", registry), registry, runtime)
        if info.weights == weights
    }
    for precision, graphs in EXPORTED.items():
        wanted = [graph for graph in graphs if run.model.causal or graph == SEQUENCE]
        if missing := [graph for graph in wanted if (graph, precision) not in found]:
            yield f"exporting in {precision}: {', '.join(missing)}"
            written = export_all(
                run,
                missing,
                precision,
                math.inf,
                made,
                registry,
                exporter=exporter,
                runtime=runtime,
            )
            for exported in written:
                found[exported.info.graph, precision] = exported.path, exported.info
        files += [found[graph, precision] for graph in wanted]
    return run.model, sorted(files, key=_in_order)


def _read_files(paths: Sequence[Path], registry: Registry, runtime: str | None) -> list[File]:
    return [
        (path, open_artifact(path, "cpu", registry, runtime=runtime, threads=1).info)
        for path in paths
    ]


def _in_order(file: File) -> tuple[bool, bool, str, bool]:
    """Those that write before those that read, then by precision, step before generate."""
    _, info = file
    full = info.precision == FULL
    return info.graph == SEQUENCE, not full, info.precision, info.graph != STEP


def _measure(
    workloads: Sequence[Workload], target: Target, rounds: int, seconds: float
) -> Iterator[str]:
    """Fills in the rates of all workloads, or the reason why there are none."""
    yield f"{target}: warming up"
    for workload in workloads:
        if not workload.reason:
            workload.prepare()
    for number in range(1, rounds + 1):
        yield f"{target}: round {number} of {rounds}"
        for workload in workloads:
            if not workload.reason:
                time.sleep(SETTLE_SECONDS)
                workload.rates.append(workload.measure(seconds, target))


def _limit(target: Target, bounds: Sequence[Workload]) -> Limits:
    """Of several products at one batch size, the fastest."""
    best: dict[int, float] = {}
    for workload in bounds:
        best[workload.batch] = max(median(workload.rates), best.get(workload.batch, 0.0))
    return Limits(target, best.pop(0), best)


def _row(
    workload: Workload,
    others: Sequence[Workload],
    multiply_adds: int,
    target: Target,
    limit: Limits | None,
) -> Row:
    if workload.reason:
        return Row(workload.name, workload.reads, target, workload.batch, workload.reason)
    speed = median(workload.rates)
    ratio = memory = arithmetic = None
    for other in others:
        if (other.name, other.batch) == (FORWARD if workload.reads else LOOP, workload.batch):
            ratio = speed / median(other.rates) if other.rates else None
    if limit is not None:
        if workload.weight_bytes is not None:
            read = multiply_adds * workload.weight_bytes
            memory = speed / workload.batch * read / limit.bytes_per_second
        arithmetic = speed * multiply_adds / limit.multiply_adds_per_second[workload.batch]
    figures = speed, min(workload.rates), max(workload.rates), ratio, memory, arithmetic
    return Row(workload.name, workload.reads, target, workload.batch, "", *figures)

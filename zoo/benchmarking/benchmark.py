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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from zoo.benchmarking.probes import Probes, describe_machine, find_probes, product_name
from zoo.benchmarking.roofline import Limits, Target, Work
from zoo.benchmarking.work import find_work
from zoo.benchmarking.workloads import COMPILED, FORWARD, LOOP, WINDOW, Workload, find_workloads
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
    rather than writing them, `precision` that of its weights.

    `tokens_per_second`, of all rows of the batch together, is the median over the rounds; `lowest`
    and `highest` are the extremes. `ratio` is the median, over the rounds, of the ratio to
    PyTorch's loop at the same target and batch size, or, of a workload that reads, to its forward
    pass; `compiled_ratio` that to the loop through torch.compile.

    `limit` is the most tokens per second that the target allows (see Limits), `limited_by` what
    sets it, "memory" or "arithmetic", and `share` the speed as a part of it. `operations_per_byte`
    says where on the roofline that is. What was not measured is None; where that is all, `reason`
    says why.
    """

    workload: str
    reads: bool
    target: Target
    batch: int
    precision: str
    reason: str = ""
    tokens_per_second: float | None = None
    lowest: float | None = None
    highest: float | None = None
    ratio: float | None = None
    compiled_ratio: float | None = None
    operations_per_byte: float | None = None
    limit: float | None = None
    limited_by: str | None = None
    share: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """What was measured, on which machine. `work` is that of one token; None where the model's cell
    is not installed, so that it is not known, and neither are limits."""

    machine: Mapping[str, Any]
    work: Work | None
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
    threads: Sequence[int] = (),
    compiled: bool = True,
    exporter: str | None = None,
    runtime: str | None = None,
    registry: Registry | None = None,
) -> Iterator[str | Benchmark]:
    """Measures; yields what is being done, a line at a time, and in the end the result.

    `source` is a run folder (what is not in its `export` is exported into a temporary folder), a
    folder of exported files, one of them, or a URL of these. Each workload gets `rounds` slices of
    `seconds`, at each of the `batches`. `provider` "cuda" measures CUDA alone, "auto" the CPU, and
    CUDA where it runs; `threads` are those on a CPU, one after another, or none for one and for one
    on each core. `compiled` is whether to try torch.compile. `exporter` and `runtime` are the names
    of those that write and open files, where several can. Raises UsageError for values out of
    bounds, RunError and ArtifactError for a source that is not one, ProviderError for CUDA that was
    asked for and does not run.
    """
    threads = threads or (1, usable_cores())
    if not batches or min(*batches, *threads, rounds) < 1 or not 0 < seconds < math.inf:
        raise UsageError("batch sizes, threads and rounds must be at least 1, seconds above 0.")
    require_choice("provider", provider, PROVIDERS)
    registry = registry or load_registry()
    batches = list(dict.fromkeys(batches))
    cpu, cuda = [Target("cpu", count) for count in dict.fromkeys(threads)], Target("cuda", None)
    targets = {"cpu": cpu, "cuda": [cuda], "auto": [*cpu, cuda]}[provider]
    machine = describe_machine()
    limits: list[Limits] = []
    rows: list[Row] = []
    threads_before = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as made:
        try:
            model, files = yield from _open_source(source, Path(made), registry, exporter, runtime)
            info = files[0][1]
            work = find_work(info.model, info.text_tokenizer.vocab_size, registry)
            for target in targets:
                workloads = find_workloads(
                    model, files, target, batches, compiled, registry, runtime
                )
                if all(workload.reason for workload in workloads):
                    if provider == "cuda":
                        raise ProviderError(workloads[0].reason if workloads else NO_LOOPS)
                    continue
                torch.set_num_threads(target.threads or threads_before)
                precisions = list(dict.fromkeys(workload.precision for workload in workloads))
                probes = find_probes(work, target, batches, precisions)
                try:
                    yield from _measure([*workloads, *probes.workloads], target, rounds, seconds)
                finally:
                    for workload in workloads:
                        workload.close()
                products = []
                if work is not None:
                    limits += probes.limits(target, work)
                    products = _products(probes, work, batches)
                rows += [_row(each, workloads, target, work, limits) for each in workloads]
                rows += [_row(each, [], target, work, limits) for each in products]
        finally:
            torch.set_num_threads(threads_before)
    yield Benchmark(machine, work, limits, rows)


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


def _products(probes: Probes, work: Work, batches: Sequence[int]) -> list[Workload]:
    """The products alone, as if a model did nothing else: what PyTorch's kernels leave of the limit
    at these batch sizes."""
    found = []
    for precision, batch in probes.products:
        if batch in batches:
            rates = [rate / work.multiply_adds for rate in probes.product_rates(precision, batch)]
            name = product_name(precision)
            found.append(Workload(name, batch, precision=precision, rates=rates))
    return found


def _row(
    workload: Workload,
    others: Sequence[Workload],
    target: Target,
    work: Work | None,
    limits: Sequence[Limits],
) -> Row:
    name, reads, batch = workload.name, workload.reads, workload.batch
    if workload.reason:
        return Row(name, reads, target, batch, workload.precision, workload.reason)
    speed = median(workload.rates)
    found = Row(
        name,
        reads,
        target,
        batch,
        workload.precision,
        tokens_per_second=speed,
        lowest=min(workload.rates),
        highest=max(workload.rates),
        ratio=_ratio(workload, FORWARD if reads else LOOP, others),
        compiled_ratio=None if reads else _ratio(workload, COMPILED, others),
    )
    for limit in limits:
        if work is not None and (limit.target, limit.precision) == (target, workload.precision):
            steps = WINDOW if reads else 1
            allowed, limited_by = limit.tokens_per_second(work, batch, steps)
            return replace(
                found,
                operations_per_byte=work.operations_per_byte(limit.precision, batch, steps),
                limit=allowed,
                limited_by=limited_by,
                share=speed / allowed,
            )
    return found


def _ratio(workload: Workload, name: str, others: Sequence[Workload]) -> float | None:
    """To the workload of this name at the same batch size: the median of the rounds' ratios."""
    for other in others:
        if (other.name, other.batch) == (name, workload.batch) and other.rates:
            return median(
                rate / base for rate, base in zip(workload.rates, other.rates, strict=True)
            )
    return None

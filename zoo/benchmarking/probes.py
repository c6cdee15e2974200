"""What a machine can do at most, as something to measure: reading as many bytes as a model's
weights are, and matrix products of its shapes."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from zoo.benchmarking.roofline import Limits, Target, Work
from zoo.benchmarking.workloads import Workload
from zoo.errors import ProviderError
from zoo.inference.cpu import usable_cores
from zoo.models.device import choose_device
from zoo.registry.specs import FULL

PRODUCT = "PyTorch product"
MANY_ROWS = 256  # a product of so many reads each weight so seldom that memory does not slow it
READ_AT_ONCE = 2**24  # bytes, in one call: its own cost vanishes beside them
CACHE_LINE = 64
# Those that can compute a product of weights in this precision: what is stored in eight bits may
# still be multiplied in float32, where that is faster.
PRODUCTS = {
    "cpu": {"fp32": ("fp32",), "fp16": ("fp32",), "int8": ("int8", "fp32")},
    "cuda": {"fp32": ("fp32",), "fp16": ("fp16", "fp32")},
}
# How the right factor is stored: by rows, by columns, or as oneDNN packs it, whose product can be
# a quarter faster than torch.mm.
ROWS, COLUMNS, PACKED = "rows", "columns", "packed"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.int8}


@dataclass(frozen=True)
class Probes:
    """`reads` give bytes per second, by precision; `products` multiply-adds per second, by
    precision and batch size, with each layout of the right factor."""

    reads: dict[str, Workload]
    products: dict[tuple[str, int], tuple[Workload, ...]]

    @property
    def workloads(self) -> list[Workload]:
        return [*self.reads.values(), *(each for pair in self.products.values() for each in pair)]

    def product_rates(self, precision: str, batch: int) -> list[float]:
        """Multiply-adds per second at this batch size, round by round, of the fastest layout."""
        return max((each.rates for each in self.products[precision, batch]), key=median)

    def limits(self, target: Target, work: Work) -> list[Limits]:
        """For each precision the medians over the rounds, of the fastest product."""
        best: dict[str, float] = {}
        for (kind, _), pair in self.products.items():
            best[kind] = max(best.get(kind, 0.0), *(median(each.rates) for each in pair))
        return [
            Limits(
                target,
                precision,
                work.weight_bytes(precision),
                median(read.rates),
                max(best[kind] for kind in PRODUCTS[target.provider][precision]),
            )
            for precision, read in self.reads.items()
        ]


def find_probes(
    work: Work | None, target: Target, batches: Sequence[int], precisions: Sequence[str]
) -> Probes:
    """Those for these precisions, of which some have no products here. Empty where PyTorch does not
    run, or the work is unknown."""
    probes = Probes({}, {})
    if work is None:
        return probes
    try:
        device = choose_device(target.provider)
    except ProviderError:
        return probes
    for precision in precisions:
        if precision not in PRODUCTS[target.provider]:
            continue
        read = reading(work.weight_bytes(precision), target.threads or 1, device)
        probes.reads[precision] = Workload("", 1, read)
        for kind in PRODUCTS[target.provider][precision]:
            for batch in (*batches, MANY_ROWS):
                if (kind, batch) not in probes.products:
                    size, columns = work.shape
                    probes.products[kind, batch] = tuple(
                        Workload("", batch, multiplying(batch, size, columns, kind, layout, device))
                        for layout in _layouts(kind, target)
                    )
    return probes


def reading(size: int, threads: int, device: torch.device) -> Callable[[], int]:
    """Reads about `size` bytes again and again, and returns how many it has read: each thread a
    part of its own, as the columns of a product are shared out.

    Each time begins a cache line later, so that one call reads a megabyte many times: PyTorch's
    call costs as much as reading a tenth of that.
    """
    part = max(1, size // (4 * threads))
    times = max(1, READ_AT_ONCE // (4 * part * threads))
    line = CACHE_LINE // 4
    numbers = torch.rand(part * threads + times * line, device=device)
    windows = numbers.as_strided((threads, times, part), (part, line, 1))

    def run() -> int:
        windows.sum()
        return 4 * windows.numel()

    return run


def _layouts(precision: str, target: Target) -> list[str]:
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    packs = has_onednn and target.provider == "cpu" and precision == FULL
    return [ROWS, COLUMNS, PACKED] if packs else [ROWS, COLUMNS]


def multiplying(
    rows: int, size: int, columns: int, precision: str, layout: str, device: torch.device
) -> Callable[[], int]:
    """The product [rows, size] × [size, columns], its right factor in this layout; returns the
    multiply-adds."""
    kind = DTYPES[precision]
    left = _numbers(rows, size, kind, device)
    if layout == PACKED:
        right = torch.ops.mkldnn._reorder_linear_weight(_numbers(columns, size, kind, device), rows)
        product = partial(torch.ops.mkldnn._linear_pointwise, left, right, None, "none", [], "")
    else:
        by_columns = layout == COLUMNS
        right = _numbers(*((columns, size) if by_columns else (size, columns)), kind, device)
        result = torch.int32 if kind == torch.int8 else kind
        out = torch.empty(rows, columns, dtype=result, device=device)
        multiply = torch._int_mm if kind == torch.int8 else torch.mm
        product = partial(multiply, left, right.T if by_columns else right, out=out)

    def run() -> int:
        product()
        return rows * size * columns

    return run


def _numbers(rows: int, columns: int, kind: torch.dtype, device: torch.device) -> Tensor:
    if kind == torch.int8:
        return torch.randint(-127, 128, (rows, columns), dtype=kind, device=device)
    return torch.rand(rows, columns, dtype=kind, device=device)


def product_name(precision: str) -> str:
    return PRODUCT if precision == FULL else f"{PRODUCT} {precision}"


def describe_machine() -> dict[str, Any]:
    """The processor, the GPU (None without one), the cores that this process may use, and `load`,
    the processes that wanted one on average over the last minute."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "processor": names[0] if names else platform.processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }

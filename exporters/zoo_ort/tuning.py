"""The number of CPU threads for a graph.

Threads synchronise at every step. A second thread therefore pays off only where the weights exceed
one core's cache, as it adds its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zoo.inference.cpu import usable_cores

ONE_CORES_CACHE = 2**21  # bytes; second-level caches are from half a megabyte to two


def usual_threads(path: Path) -> int:
    """One thread for each started 2 MiB of the file, at most one for each core that this process
    may use."""
    return min(usable_cores(), -(-path.stat().st_size // ONE_CORES_CACHE) or 1)


def fastest_threads(path: Path, speed: Callable[[Path, int], float]) -> int:
    """The fastest, by `speed`, of one thread, `usual_threads` and one for each core."""
    candidates = sorted({1, usual_threads(path), usable_cores()})
    return max(candidates, key=lambda threads: speed(path, threads))

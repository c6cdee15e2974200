"""Runs the parts of a benchmark one after the other in a process of its own, each under its own
limit: a part that hangs, or breaks the device, costs its own figures and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from queue import Empty, Queue
from threading import Thread

PART, ENDED = ">>> ", "<<<"
Parts = Mapping[
    str, tuple[float, Callable[[], object]]
]  # the seconds each may take, and what it is


def run_watched(parts: Parts, seconds: float) -> None:
    """Runs the parts whose names begin with one of the command line's words (all, without), in so
    many seconds together. What they print comes as they print it."""
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        _run_here(parts, sys.argv[2:])
        return
    wanted = tuple(sys.argv[1:])
    left = [name for name in parts if not wanted or name.startswith(wanted)]
    end = time.monotonic() + seconds
    while left and time.monotonic() < end:
        left = _run_child(parts, left, end)
    for name in left:
        print(f"{name}: no time was left", flush=True)


def _run_here(parts: Parts, names: list[str]) -> None:
    for name in names:
        print(f"{PART}{name}", flush=True)
        try:
            parts[name][1]()
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            told = str(error).splitlines()[0][:300] if str(error) else ""
            where = f"{os.path.basename(place.filename)}:{place.lineno}"
            print(f"{name}: {type(error).__name__}: {told} ({where})", flush=True)
            if "CUDA error" in str(error):  # nothing more runs in this process
                sys.exit(1)
    print(ENDED, flush=True)


def _run_child(parts: Parts, names: list[str], end: float) -> list[str]:
    """Which parts are left when the process ends."""
    command = [sys.executable, "-u", sys.argv[0], "--child", *names]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines: Queue[str | None] = Queue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    Thread(target=read, daemon=True).start()
    left, limit = list(names), time.monotonic() + 60  # to start
    while True:
        try:
            line = lines.get(timeout=max(0.1, min(limit, end) - time.monotonic()))
        except Empty:
            child.kill()
            child.wait()
            if left and len(left) < len(names) + 1:
                print(f"{left[0]}: stopped, its time is over", flush=True)
            return left[1:]
        if line is None:
            child.wait()
            return left[1:]
        if line == ENDED:
            child.wait()
            return []
        if line.startswith(PART):
            name = line.removeprefix(PART)
            left = left[left.index(name) :]
            limit = time.monotonic() + parts[name][0]
        else:
            print(line, flush=True)

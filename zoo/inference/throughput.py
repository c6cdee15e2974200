"""How fast something runs: the one loop that every measurement here is made with."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle

import numpy as np

from zoo.config import Sampling
from zoo.inference.engine import Engine

CHUNKS = 16  # of random numbers; they come again and again
SAMPLING = Sampling(temperature=1.0)


def measure_throughput(
    run: Callable[[], int], seconds: float, synchronize: Callable[[], object] = lambda: None
) -> float:
    """How much `run` does in a second. Each call does some work and returns how much: tokens,
    mostly. It is called again and again for at least `seconds`, and once at least, as other work on
    the machine may take all of that time. `synchronize` waits for what was only queued, as on a
    GPU."""
    began = time.perf_counter()
    done = run()
    while time.perf_counter() - began < seconds:
        done += run()
    synchronize()
    return done / (time.perf_counter() - began)


def writing(engine: Engine, batch: int) -> Callable[[], int]:
    """Writes a chunk of tokens at each call, one text in each row."""
    rng = np.random.default_rng(0)
    chunks = cycle(rng.random((CHUNKS, engine.chunk, batch), dtype=np.float32))
    last, state = np.zeros(batch, np.int64), engine.init_state(batch)

    def run() -> int:
        nonlocal last, state
        tokens, state = engine.write(last, state, next(chunks), SAMPLING)
        last = tokens[-1]
        return tokens.size

    return run

"""Which sizes, dropout and rows suit a short training on a GPU: validation loss on the last tenth
of `python-docs` and of the Time Machine. zoo/training/defaults.py takes its constants from here.

    python tests/benchmarks/gpu_defaults.py grid       # about two minutes
    python tests/benchmarks/gpu_defaults.py chosen     # what `zoo train` chooses for 20 and 60 s

The grid counts its trainings in epochs, so several can share the device: what they reach does not
depend on their speed.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from typing import Any

PROCESSES, SECONDS = 6, 115.0
CORPORA = "python-docs", "time-machine"
BASE = {"cell": "lstm", "hidden": 1024, "dropout": 0.5, "batch_size": 64, "steps": 64}
# in the order of what they tell
CHANGES: list[dict[str, Any]] = [
    {"epochs": 20}, {"epochs": 40}, {"epochs": 20, "hidden": 512}, {"epochs": 20, "hidden": 2048},
    {"epochs": 20, "dropout": 0.3}, {"epochs": 20, "dropout": 0.65}, {"epochs": 10},
    {"epochs": 20, "batch_size": 32}, {"epochs": 20, "batch_size": 128},
    {"epochs": 20, "steps": 128}, {"epochs": 20, "layers": 2, "hidden": 768},
    {"epochs": 20, "weight_decay": 0.1}, {"epochs": 20, "embedding": 128},
    {"epochs": 40, "hidden": 2048, "dropout": 0.65}, {"epochs": 40, "dropout": 0.65},
    {"epochs": 20, "ema": 0.998}, {"epochs": 20, "batch_size": 16},
    {"epochs": 20, "learning_rate": 2e-3}, {"epochs": 20, "learning_rate": 8e-3},
]  # fmt: skip


def train(corpus: str, settings: dict[str, Any]) -> None:
    """Prints one line."""
    import zoo
    from zoo.training.events import Finished, Report, Started

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lines, chosen = [], {}
        for event in zoo.train_events(corpus, device="cuda", out=f"{folder}/run", **settings):
            if isinstance(event, Started):
                config = event.run.config
                names = "hidden", "layers", "dropout", "embedding"
                chosen = {name: getattr(config.model, name) for name in names}
                names = "batch_size", "steps", "learning_rate", "patience"
                chosen |= {name: getattr(config.training, name) for name in names}
            elif isinstance(event, Report):
                lines.append(event.metrics)
            elif isinstance(event, Finished):
                best, early = event.metrics, event.early
    nats = (best.held_out_bits_per_char or math.nan) * math.log(2)
    asked = ", ".join(
        f"{name} {value}"
        for name, value in settings.items()
        if name not in BASE or value != BASE[name]
    )
    told = ", ".join(f"{name} {value}" for name, value in chosen.items())
    print(
        f"{corpus}, {asked}: {nats:.4f} nats a character, best at epoch {best.epoch} of "
        f"{lines[-1].epoch}{', stopped early' if early else ''}, {time.monotonic() - began:.0f} s, "
        f"{lines[-1].tokens_per_second:,.0f} tokens/s ({told})",
        flush=True,
    )


def run_grid() -> None:
    trainings = [(corpus, {**BASE, **change}) for change in CHANGES for corpus in CORPORA]
    end = time.monotonic() + SECONDS
    program = [sys.executable, "-u", sys.argv[0]]
    children = [
        subprocess.Popen([*program, json.dumps(trainings[first::PROCESSES])])
        for first in range(PROCESSES)
    ]
    for child in children:
        try:
            child.wait(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()


def run_each(trainings: list[tuple[str, dict[str, Any]]]) -> None:
    for corpus, settings in trainings:
        try:
            train(corpus, settings)
        except Exception as error:
            told = str(error).splitlines()[:1]
            print(f"{corpus}, {settings}: {type(error).__name__}: {told}", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else "grid"
    if wanted == "grid":
        run_grid()
    elif wanted == "chosen":
        run_each([(c, {"minutes": s / 60}) for s in (20, 60) for c in CORPORA])
    else:
        run_each(json.loads(wanted))

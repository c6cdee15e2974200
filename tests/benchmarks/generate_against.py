"""The time of a token in `generate.onnx`, against that of the files of another source tree.

    git worktree add /tmp/older COMMIT
    python tests/benchmarks/generate_against.py /tmp/older

Each tree exports the same models in a process of its own; then the files are run alternately, with
one thread, equal settings in all rows, and calls of 32 tokens, as the zoo makes them. The ratio is
of the least time of each side. It is checked that both write the same tokens.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from older_tree import HERE, export_in, open_file

CELLS, HIDDEN, VOCAB_SIZE = ("rnn", "gru", "lstm"), (64, 512), 96
SETTINGS = {"temperature 1": (1, 0), "greedy": (0, 0), "top-k 40": (1, 40)}
BATCHES, STEPS, ROUNDS = (1, 16), 32, 150


def feeds(session: ort.InferenceSession, batch: int, temperature: float, top_k: int) -> Any:
    """Inputs of one call. In files of format 1 the settings are scalars."""
    rng = np.random.default_rng(1)
    found: dict[str, Any] = {
        "token": np.ones(batch, np.int64),
        "uniform": rng.random((STEPS, batch), dtype=np.float32),
    }
    for name, value in (
        ("temperature", np.float32(temperature)),
        ("top_k", np.int64(top_k)),
        ("top_p", np.float32(1)),
    ):
        (shape,) = [each.shape for each in session.get_inputs() if each.name == name]
        found[name] = np.full(batch, value) if shape else np.array(value)
    for each in session.get_inputs():
        if each.name not in found:
            found[each.name] = np.zeros((batch, *each.shape[1:]), np.float32)
    return found


def seconds(session: ort.InferenceSession, given: Any) -> float:
    began = time.perf_counter()
    session.run(["tokens"], given)
    return time.perf_counter() - began


def ratio(sides: list[tuple[ort.InferenceSession, Any]]) -> float:
    """Of the second side's least time to the first's."""
    tokens = [session.run(["tokens"], given)[0] for session, given in sides]
    if tokens[0].tolist() != tokens[1].tolist():
        raise SystemExit("the two files write other tokens")
    least = [float("inf")] * 2
    for number in range(2 * ROUNDS):
        for side in (0, 1) if number % 2 else (1, 0):
            least[side] = min(least[side], seconds(*sides[side]))
    return least[1] / least[0]


def main(other: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        print("cell and hidden  batch  " + "".join(f"{name:>15}" for name in SETTINGS))
        for hidden in HIDDEN:
            older, newer = (
                export_in(tree, Path(made) / name, list(CELLS), hidden, VOCAB_SIZE, "generate")
                for name, tree in (("older", other.resolve()), ("newer", HERE))
            )
            for cell in CELLS:
                sessions = [open_file(files[cell]) for files in (older, newer)]
                for batch in BATCHES:
                    found = [
                        ratio([(session, feeds(session, batch, *each)) for session in sessions])
                        for each in SETTINGS.values()
                    ]
                    row = "".join(f"{each:15.3f}" for each in found)
                    print(f"{f'{cell}-{hidden}':15}  {batch:5}  {row}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The time of a token in `generate.onnx`, against that of the files of another source tree.

    git worktree add /tmp/older COMMIT
    python tests/benchmarks/generate_against.py /tmp/older

Each tree exports the same models in a process of its own; then the files are run alternately, with
one thread, equal settings in all rows, and calls of 32 tokens, as the zoo makes them. The ratio is
of the least time of each side. It is checked that both write the same tokens.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

CELLS, HIDDEN, VOCAB_SIZE = ("rnn", "gru", "lstm"), (64, 512), 96
SETTINGS = {"temperature 1": (1, 0), "greedy": (0, 0), "top-k 40": (1, 40)}
BATCHES, STEPS, ROUNDS = (1, 16), 32, 150


def export(folder: Path) -> None:
    """The files of the tree that is imported."""
    import torch

    from zoo.config import ModelConfig
    from zoo.data.tokenizers import CharTokenizer
    from zoo.exporting.export import describe
    from zoo.models.language_model import LanguageModel
    from zoo_onnx.exporter import OnnxExporter

    tokenizer = CharTokenizer(characters="".join(chr(0x4E00 + i) for i in range(VOCAB_SIZE - 1)))
    for cell in CELLS:
        for hidden in HIDDEN:
            torch.manual_seed(0)
            model = LanguageModel(ModelConfig(cell=cell, hidden=hidden), VOCAB_SIZE).eval()
            info = describe(model, tokenizer, "generate")
            exporter = OnnxExporter()
            content = exporter.seal(exporter.build(model, info), info)
            (folder / f"{cell}-{hidden}.onnx").write_bytes(content)


def export_in(tree: Path, folder: Path) -> Path:
    folder.mkdir()
    paths = [str(tree / part) for part in ("", "plugins", "exporters")]
    subprocess.run(
        [sys.executable, __file__, "--export", folder],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    return folder


def open_file(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


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
        here = Path(__file__).resolve().parent.parent.parent
        folders = [export_in(other.resolve(), Path(made) / "other")]
        folders.append(export_in(here, Path(made) / "here"))
        print("cell and hidden  batch  " + "".join(f"{name:>15}" for name in SETTINGS))
        for name in [f"{cell}-{hidden}" for cell in CELLS for hidden in HIDDEN]:
            sessions = [open_file(folder / f"{name}.onnx") for folder in folders]
            for batch in BATCHES:
                found = [
                    ratio([(session, feeds(session, batch, *settings)) for session in sessions])
                    for settings in SETTINGS.values()
                ]
                row = "".join(f"{each:15.3f}" for each in found)
                print(f"{name:15}  {batch:5}  {row}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--export":
        export(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))

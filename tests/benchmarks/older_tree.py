"""Exports of the same models by this source tree and by another one, each in a process of its own,
for programs that compare their speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort

HERE = Path(__file__).resolve().parent.parent.parent


def export_in(
    tree: Path,
    folder: Path,
    cells: list[str],
    hidden: int,
    vocab_size: int,
    graph: str,
    operators: str = "auto",
) -> dict[str, Path]:
    """The files of the cells, with random weights, by cell. An older tree that knows no sets of
    operators has the standard ones."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(tree / part) for part in ("", "plugins", "exporters")]
    files = {cell: folder / f"{cell}-{hidden}-{graph}.onnx" for cell in cells}
    wanted = {cell: str(path) for cell, path in files.items()}
    subprocess.run(
        [sys.executable, __file__, json.dumps([wanted, hidden, vocab_size, graph, operators])],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    return files


def open_file(path: Path) -> ort.InferenceSession:
    """A session with one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export(files: dict[str, str], hidden: int, vocab_size: int, graph: str, operators: str) -> None:
    """The files of the tree that is imported."""
    import torch

    from zoo.config import ModelConfig
    from zoo.data.tokenizers import CharTokenizer
    from zoo.exporting.export import describe
    from zoo.models.language_model import LanguageModel
    from zoo_onnx.exporter import OnnxExporter

    tokenizer = CharTokenizer(characters="".join(chr(0x4E00 + i) for i in range(vocab_size - 1)))
    for cell, path in files.items():
        torch.manual_seed(0)
        model = LanguageModel(ModelConfig(cell=cell, hidden=hidden), vocab_size).eval()
        info = describe(model, tokenizer, graph)
        if "operators" in type(info).model_fields:
            info = info.model_copy(update={"operators": operators})
        exporter = OnnxExporter()
        Path(path).write_bytes(exporter.seal(exporter.build(model, info), info))


if __name__ == "__main__":
    export(*json.loads(sys.argv[1]))

"""Writes the model repository: a folder for each graph, the tokenizer, and a README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx

from zoo.errors import UsageError
from zoo.exporting.export import Exported
from zoo.inference.artifact import GENERATE, SEQUENCE, STEP
from zoo.registry.registry import Registry
from zoo_triton.config import INITIAL_STATE, config, initial_bytes
from zoo_triton.readme import readme
from zoo_triton.rewriting import fit

GRAPHS = (STEP, GENERATE, SEQUENCE)


class TritonPackager:
    """Each file becomes a model, named after it:

    ```
    README.md
    tokenizer.json
    step/config.pbtxt
    step/1/model.onnx
    step/initial_state/state_03_layer0_m_in    of each leaf that does not begin with zeros
    ```

    A file that Triton can serve as it is stays as it is, byte for byte.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def write(self, files: Sequence[Exported], folder: Path) -> None:
        """Writes the repository into the empty `folder`. UsageError for a file that Triton cannot
        serve: of another format than ONNX, of an unknown kind, or a generate graph of format 1,
        which has one temperature for all rows where Triton needs one for each."""
        for file in files:
            _check(file)
        models = {file.path.stem.replace(".", "_"): file for file in files}
        for name, file in models.items():
            self._write_model(file, folder / name)
        info = files[0].info
        tokenizer = json.dumps(info.text_tokenizer.model_dump(mode="json"))
        (folder / "tokenizer.json").write_text(tokenizer + "\n", "utf-8")
        infos = {name: file.info for name, file in models.items()}
        (folder / "README.md").write_text(readme(infos), "utf-8")

    def _write_model(self, file: Exported, folder: Path) -> None:
        content = file.path.read_bytes()
        model = onnx.load_model_from_string(content)
        if fit(model, file.info):
            content = model.SerializeToString()
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.onnx").write_bytes(content)
        text = config(model, file.info, len(content))
        (folder / "config.pbtxt").write_text(text, "utf-8")
        if not file.info.causal:
            return
        for name, leaf in zip(file.info.state_names("in"), file.info.state, strict=True):
            if (row := initial_bytes(leaf)) is not None:
                (folder / INITIAL_STATE).mkdir(exist_ok=True)
                (folder / INITIAL_STATE / name).write_bytes(row)


def _check(file: Exported) -> None:
    if file.path.suffix != ".onnx":
        raise UsageError(f"Triton's ONNX Runtime reads .onnx files; {file.path.name} is none.")
    if file.info.graph not in GRAPHS:
        raise UsageError(
            f"{file.path.name} is a {file.info.graph!r} graph; the Triton package has a place for "
            f"{', '.join(GRAPHS)}."
        )
    if file.info.graph == GENERATE and file.info.format == "1":
        raise UsageError(
            f"{file.path.name} has one temperature for all rows (format 1), which Triton cannot "
            "batch; export it again."
        )

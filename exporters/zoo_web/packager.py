"""Writes the folder that a static host serves: the page, the modules in JavaScript, the model's
files with `model.json`, and ONNX Runtime."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import UsageError, ZooWarning
from zoo.exporting.export import Exported
from zoo.inference.artifact import GENERATE, STEP, ArtifactInfo
from zoo.inference.prompts import largest_piece
from zoo.registry.registry import Registry
from zoo_web import onnxruntime_web
from zoo_web.onnxruntime_web import NotVendoredError

SITE = Path(__file__).with_name("site")  # what every package has
TOKENIZERS = ("letters", "char", "byte", "bpe")  # that tokenizer.js knows
RUNTIME = "onnxruntime"  # the folder of its files
CONTENT_SOURCE = "{{runtime-source}}"  # in index.html: what the page may fetch from besides


class WebPackager:
    """`zoo export RUN --to web`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def write(self, files: Sequence[Exported], folder: Path) -> None:
        """Writes the package into the empty folder `folder`. UsageError for a model with a
        tokenizer that the page does not know, or that does not write text."""
        info = files[0].info
        graphs = {exported.info.graph: exported.path for exported in files}
        if not {GENERATE, STEP} & graphs.keys():
            raise UsageError("a page needs a generate graph or a step graph to write text with.")
        if info.text_tokenizer.kind not in TOKENIZERS:
            raise UsageError(
                f"the page knows the tokenizers {', '.join(TOKENIZERS)}, not "
                f"{info.text_tokenizer.kind!r}; export the files alone, by `zoo export`."
            )
        shutil.copytree(SITE, folder, dirs_exist_ok=True)
        for path in graphs.values():
            shutil.copyfile(path, folder / path.name)
        source, runtime = self._runtime(folder, with_gpu=STEP in graphs)
        content = {
            "graphs": {
                graph: {"file": path.name, "bytes": path.stat().st_size}
                for graph, path in graphs.items()
            },
            "runtime": runtime,
            "reading": {"largest_piece": largest_piece(info.text_tokenizer.vocab_size)},
            **self._described(info),
        }
        text = json.dumps(content, indent=1, allow_nan=False)
        (folder / "model.json").write_text(text + "\n", "utf-8")
        page = folder / "index.html"
        page.write_text(
            page.read_text("utf-8").replace(CONTENT_SOURCE, source and f" {source}"), "utf-8"
        )

    def _runtime(self, folder: Path, with_gpu: bool) -> tuple[str, Mapping[str, Any]]:
        """Where ONNX Runtime's files are, besides the folder, and the addresses of those that each
        device needs."""
        devices = {
            device: names
            for device, names in onnxruntime_web.FILES.items()
            if with_gpu or device == "wasm"
        }
        source, prefix = "", f"{RUNTIME}/"
        try:
            onnxruntime_web.vendor(folder / RUNTIME, [n for pair in devices.values() for n in pair])
        except NotVendoredError as error:
            source = onnxruntime_web.CDN_ORIGIN
            prefix = onnxruntime_web.CDN
            warnings.warn(
                f"the page will load ONNX Runtime from {source}, as {error}; export it again with "
                f"npm to have all files in the folder.",
                ZooWarning,
                stacklevel=3,
            )
        return source, {
            device: {"module": prefix + module, "binary": prefix + binary}
            for device, (module, binary) in devices.items()
        }

    def _described(self, info: ArtifactInfo) -> dict[str, Any]:
        """What JavaScript needs of the metadata, which ONNX Runtime does not show it there."""
        rows = info.model_dump(mode="json", include={"state"})["state"]
        sides = zip(info.state_names("in"), info.state_names("out"), strict=True)
        state = [
            {**row, "input": inward, "output": outward}
            for row, (inward, outward) in zip(rows, sides, strict=True)
        ]
        kept = {"tokenizer", "model", "training", "precision", "weights"}
        described = info.model_dump(mode="json", include=kept)
        corpus = re.split(r"[/\\]", info.training.corpus)[-1]  # not the folders of its machine
        return {
            **described,
            "training": {**described["training"], "corpus": corpus},
            "prompt": info.training.prompt,
            "state": state,
            "card": self._card(info.model.cell),
        }

    def _card(self, cell: str) -> dict[str, Any] | None:
        if cell not in self._registry.cells:
            return None
        card = self._registry.cells[cell].card
        return {
            "title": card.title,
            "authors": card.authors,
            "year": card.year,
            "paper": card.paper,
            "equations": card.equations,
        }

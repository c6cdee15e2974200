"""Which runtimes open exported files, and write the same tokens: ONNX Runtime in several versions,
and OpenVINO, each installed by pip into a virtual environment of its own.

Small models with random weights, all causal cells or the given ones. The texts are compared with
those of the newest ONNX Runtime. `--cache FOLDER` keeps the environments for the next time, and
`--write` writes the tables into docs/reference/runtimes.md.

    python tests/benchmarks/runtimes.py [CELL …] [--cache FOLDER] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import takewhile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import zoo
from zoo.config import ModelConfig
from zoo.data.tokenizers import CharTokenizer
from zoo.exporting.export import describe
from zoo.exporting.exporter import find_exporters
from zoo.models.language_model import LanguageModel
from zoo.models.torch_engine import ModelStepper

HIDDEN, VOCAB_SIZE, ROWS = 16, 28, 2
NEWEST = "onnxruntime"
# What pip installs for each column, the reference last of ONNX Runtime's.
WHEELS = {
    "onnxruntime==1.16.*": ["onnxruntime==1.16.*", "numpy<2"],
    "onnxruntime==1.17.*": ["onnxruntime==1.17.*", "numpy<2"],
    "onnxruntime==1.20.*": ["onnxruntime==1.20.*"],
    NEWEST: ["onnxruntime"],
    "openvino": ["openvino"],
}
GRAPHS = ("step", "generate", "sequence")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "runtimes.md"
START, END = "<!-- runtimes -->", "<!-- end of runtimes -->"
Results = dict[str, dict[str, object]]  # by file


def export(folder: Path, cell: str) -> str:
    """Writes all graphs of a model of the cell, and its initial state; the problem, if any."""
    torch.manual_seed(0)
    registry = zoo.load_registry()
    characters = "".join(chr(0x4E00 + index) for index in range(VOCAB_SIZE - 1))
    model = LanguageModel(ModelConfig(cell=cell, hidden=HIDDEN), VOCAB_SIZE).eval()
    stepper = ModelStepper(model)
    values = stepper.state_to_arrays(stepper.init_state(ROWS)).values()
    try:
        for graph, exporter in find_exporters(None, "fp32", registry).items():
            info = describe(model, CharTokenizer(characters=characters), graph, "fp32")
            content = exporter.seal(exporter.build(model, info), info)
            (folder / f"{cell}.{graph}.onnx").write_bytes(content)
            state = dict(zip(info.state_names("in"), values, strict=True))
            np.savez(folder / f"{cell}.{graph}.npz", vocab_size=VOCAB_SIZE, **state)
    except zoo.ZooError as error:
        return f"{cell}: {error}"
    return ""


def install(cache: Path, packages: list[str]) -> Path:
    """The Python of a virtual environment with the packages."""
    folder = cache / re.sub(r"[^\w.]+", "-", " ".join(packages)).strip("-")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *packages],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        (folder / "complete").touch()
    return python


def version(python: Path, package: str) -> str:
    program = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def run_in(python: Path, package: str, folder: Path) -> Results:
    """What each file of the folder does in the runtime. A process that a file ends is started
    again for the files after it."""
    results = folder / f"{python.parent.parent.name}.jsonl"
    results.write_text("", "utf-8")
    script = Path(__file__).with_name("other_runtime.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    for _ in list(folder.glob("*.onnx")):
        done = subprocess.run(
            [python, script, package, folder, results],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode == 0:
            break
    lines = map(json.loads, results.read_text("utf-8").splitlines())
    return {line["file"]: line for line in lines}  # of two lines for a file, the last


def verdict(found: dict[str, object], reference: dict[str, object]) -> str:
    """Empty for the same texts."""
    if "error" in found:
        kind, _, told = str(found["error"]).partition(": ")
        return f"{kind}: {reason(told)}" if told else kind
    if "error" in reference or found["texts"] == reference["texts"]:
        return ""
    pairs = [
        (one, other)
        for one, other in zip(found["texts"], reference["texts"], strict=True)  # type: ignore[call-overload]
        if one != other
    ]
    same = min(len(list(takewhile(lambda p: p[0] == p[1], zip(*pair)))) for pair in pairs)  # noqa: B905
    return f"other tokens after {same // ROWS}"


def reason(told: str) -> str:
    """The line of a runtime's error that says most, without names of values."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    telling = [
        line for line in lines if re.search(r"Check|NOT_IMPLEMENTED|Opset|Unsupported", line)
    ]
    line = (telling or lines or [""])[-1]
    return re.sub(r"^.*?Check", "Check", line)[:160]


def tables(columns: dict[str, Results], cells: list[str]) -> str:
    """How many cells' files write the reference's tokens, by graph and runtime, and the others."""
    newest = columns[next(name for name in columns if name.startswith("newest"))]
    shown = [name.removeprefix("newest ") for name in columns]
    rows, others = [], []
    for graph in GRAPHS:
        counts = []
        for column, results in zip(shown, columns.values(), strict=True):
            bad: dict[str, list[str]] = {}
            for cell in cells:
                name = f"{cell}.{graph}"
                if said := verdict(results[name], newest[name]):
                    bad.setdefault(said, []).append(cell)
            failed = sum(map(len, bad.values()))
            counts.append("all" if not failed else f"{len(cells) - failed} of {len(cells)}")
            for said, found in bad.items():
                listed = "all" if len(found) == len(cells) else ", ".join(f"`{c}`" for c in found)
                others.append(f"| {column} | `{graph}` | {listed} | {said} |")
        rows.append(f"| `{graph}` | {' | '.join(counts)} |")
    text = [f"{len(cells)} cells: {', '.join(f'`{cell}`' for cell in cells)}.", ""]
    text += [f"| graph | {' | '.join(shown)} |", "|" + "---|" * (len(shown) + 1), *rows]
    if others:
        text += ["", "| runtime | graph | cells | what happens |", "|---|---|---|---|", *others]
    return "\n".join(text)


def write(text: str) -> None:
    """Puts the tables in their place in the docs."""
    page = PAGE.read_text("utf-8")
    before, after = page.split(START)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{fill(text)}\n{END}{after}", "utf-8")


def fill(text: str) -> str:
    """Paragraphs within the width of the docs; tables as they are."""
    return "\n".join(
        line
        if line.startswith("|") or not line
        else textwrap.fill(line, 100, break_on_hyphens=False)
        for line in text.splitlines()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="CELL")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--write", action="store_true", help="write the tables into the docs")
    arguments = parser.parse_args()
    known = zoo.load_registry().cells
    cells = arguments.cells or [name for name in known if known[name].causal]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        cache = (arguments.cache or Path(temporary) / "environments").absolute()
        with ProcessPoolExecutor(
            2, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            for problem in filter(None, pool.map(partial(export, folder), cells)):
                sys.exit(problem)
        print(f"{len(cells)} cells exported, {time.perf_counter() - began:.0f} s", file=sys.stderr)
        columns: dict[str, Results] = {}
        for name, packages in WHEELS.items():
            python, package = install(cache, packages), re.split("=", name)[0]
            title = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[package]
            label = f"{title} {version(python, package)}"
            columns[f"newest {label}" if name == NEWEST else label] = run_in(
                python, package, folder
            )
            print(f"{label}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    text = tables(columns, cells)
    print(text)
    if arguments.write:
        write(text)


if __name__ == "__main__":
    main()

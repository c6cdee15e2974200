"""What share of the machine's limits exported models reach: the figures of the README and the docs.

`zoo bench` for each cell: 512 units, a vocabulary of 28, one thread, one text and sixteen together.
`--keep` takes models and exported files from a folder where they are there, and leaves them there.
`--write` writes the tables and the picture into README.md and docs/reference/performance.md.

    python tests/benchmarks/shares.py [--keep FOLDER] [--rounds 9] [--seconds 0.2]
                                      [--no-compile] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import onnxruntime
import torch

ROOT = Path(__file__).parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "reference" / "performance.md"
PICTURE = ROOT / "docs" / "_static" / "roofline.png"
CELLS, PICTURED, HIDDEN = ("rnn", "gru", "lstm"), "lstm", "512"
SETTINGS = ("--threads", "1", "--batch", "1", "--batch", "16", "--provider", "cpu")
LISTED = ("PyTorch loop", "PyTorch compiled", "step", "generate", "step int8", "generate int8")
GENERATE = {"generate": "`generate`", "generate int8": "`generate`, int8"}
FILES = [("step", "fp32"), ("generate", "fp32"), ("sequence", "fp32"),
         ("step", "int8"), ("generate", "int8")]  # fmt: skip
Found = dict[str, Any]  # what `zoo bench --json` prints


def zoo(*arguments: str, cwd: Path) -> str:
    """What the command prints, with its notes on standard error where they always are."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-m", "zoo", *arguments], cwd=cwd, check=True, text=True,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip


def make(cell: str, folder: Path) -> None:
    """A run after one epoch of random letters, with its files: speeds do not depend on the
    weights, and a lower precision may cost what it will."""
    text = folder / "text.txt"
    text.write_text("".join(random.Random(0).choices(string.ascii_lowercase + " ", k=20_000)))
    if not (folder / cell).exists():
        zoo("train", text.name, "--cell", cell, "--hidden", HIDDEN, "--tokenizer", "letters",
            "--epochs", "1", "--out", cell, cwd=folder)  # fmt: skip
    for graph, precision in FILES:
        middle = "" if precision == "fp32" else f".{precision}"
        if not (folder / cell / "export" / f"{graph}{middle}.onnx").exists():
            zoo("export", cell, "--graph", graph, "--precision", precision, "--max-loss", "inf",
                cwd=folder)  # fmt: skip


def rows(found: Found, batch: int) -> dict[str, Found]:
    return {row["workload"]: row for row in found["rows"] if row["batch"] == batch}


def overview(found: dict[str, Found]) -> str:
    """The shares of the limit, with the speeds."""
    lines = [f"| | {' | '.join(f'`{cell}`' for cell in found)} |", "|---" * (len(found) + 1) + "|"]
    for batch, together in {1: "one text", 16: "16 texts together"}.items():
        for workload, name in GENERATE.items():
            measured = [rows(each, batch)[workload] for each in found.values()]
            cells = [f"{row['share']:.2f} ({row['tokens_per_second']:,.0f})" for row in measured]
            lines.append(f"| {name}, {together} | {' | '.join(cells)} |")
    return "\n".join([machine(found), "", *lines])


def machine(found: dict[str, Found]) -> str:
    """The machine and its limits, as those of the largest model."""
    last = found[PICTURED]
    about = last["machine"]
    limits = "; ".join(
        f"{1e-6 * limit['weight_bytes']:.1f} MB of weights in {limit['precision']} are read at "
        f"{1e-9 * limit['bytes_per_second']:.0f} GB/s and multiplied at "
        f"{2e-9 * limit['multiply_adds_per_second']:.0f} GFLOP/s"
        for limit in last["limits"]
    )
    return textwrap.fill(
        f"One thread of {about['processor']} ({about['vector_instructions']}), PyTorch "
        f"{torch.__version__}, ONNX Runtime {onnxruntime.__version__}, load {about['load']:.1f} "
        f"before. Of the `{PICTURED}`, {limits}.",
        width=100,
        break_on_hyphens=False,
    )


def table(found: dict[str, Found]) -> str:
    lines = [
        "| cell | workload | texts | tokens per second | times PyTorch | times compiled "
        "| limit | set by | share of the limit | PyTorch's product alone |",
        "|---" * 10 + "|",
    ]
    for cell, each in found.items():
        for batch in (1, 16):
            measured = rows(each, batch)
            for name in LISTED:
                row = measured.get(name)
                if row is None or row["share"] is None:
                    continue
                precision = "" if row["precision"] == "fp32" else f" {row['precision']}"
                product = measured[f"PyTorch product{precision}"]["share"]
                ratio, compiled = (
                    "" if value is None else f"{value:.2f}"
                    for value in (row["ratio"], row["compiled_ratio"])
                )
                lines.append(
                    f"| `{cell}` | {name} | {batch} | {row['tokens_per_second']:,.0f} | {ratio} "
                    f"| {compiled} | {row['limit']:,.0f} | {row['limited_by']} "
                    f"| {row['share']:.2f} | {product:.2f} |"
                )
    return "\n".join([machine(found), "", *lines])


def write(page: Path, text: str) -> None:
    """Puts the text in its place on the page."""
    start, end = "<!-- shares -->", "<!-- end of shares -->"
    content = page.read_text("utf-8")
    before, after = content.split(start)[0], content.split(end)[1]
    page.write_text(f"{before}{start}\n{text}\n{end}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", default="9")
    parser.add_argument("--seconds", default="0.2")
    parser.add_argument("--no-compile", action="append_const", dest="others", const="--no-compile",
                        default=[], help="without torch.compile, which takes minutes")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="write into the README and the docs")
    arguments = parser.parse_args()
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for cell in CELLS:
            make(cell, folder)
            others = ["--rounds", arguments.rounds, "--seconds", arguments.seconds]
            others += [*arguments.others, "--json"]
            others += ["--roofline", "roofline.png"] if cell == PICTURED else []
            found[cell] = json.loads(zoo("bench", cell, *SETTINGS, *others, cwd=folder))
        if arguments.write:
            PICTURE.write_bytes((folder / "roofline.png").read_bytes())
    print(overview(found), table(found), sep="\n\n")
    if arguments.write:
        write(README, overview(found))
        write(PAGE, table(found))


if __name__ == "__main__":
    main()

"""Runs the console sessions of a documentation page, and compares them with the page or updates it.

    python tests/sessions.py docs/tutorial/from-d2l-to-onnxruntime.md

runs the page in an empty folder and writes what was printed into the page. A session is a block of
the language `console`; a `python` block that a `text` block follows is a program and its output,
and one that begins with `# name.py` and is followed by a session is that file. A line `⋮` in an
output stands for any number of lines. Commands of `make` are for a checkout, and are left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

LEFT_OUT = "⋮"
FILE = re.compile(r"# (\w+\.py)\n")
WRITE = "import sys; open(sys.argv[1], 'w', encoding='utf-8').write(sys.argv[2])"
BLOCK = re.compile(r"^```(console|python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Step(NamedTuple):
    """A command of a page, its output in the page, and the output's position."""

    command: list[str]
    shown: str
    output: str
    span: tuple[int, int]


def steps_of(page: str) -> Iterator[Step]:
    blocks = list(BLOCK.finditer(page))
    for block, following in zip_longest(blocks, blocks[1:]):
        language, content = block.groups()
        start = block.start(2)
        if language == "console":
            yield from _commands(content, start)
        elif language == "python" and following is not None and following[1] == "text":
            program = [sys.executable, "-c", content]
            if not page[block.end() : following.start()].strip():
                yield Step(program, content, following[2], following.span(2))
        elif (
            language == "python"
            and following is not None
            and following[1] == "console"
            and (named := FILE.match(content))
        ):
            program = [sys.executable, "-c", WRITE, named[1], content]
            yield Step(program, content, "", (block.end(), block.end()))


def _commands(content: str, start: int) -> Iterator[Step]:
    lines = content.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for first, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        last = first + 1
        while _is_open(command := "".join(lines[first:last])[2:].rstrip("\n")):
            last += 1
        if command.startswith("make "):
            continue
        before, output = "".join(lines[:last]), "".join(lines[last:end])
        span = start + len(before), start + len(before) + len(output)
        yield Step(["bash", "-c", command], command, output, span)


def _is_open(command: str) -> bool:
    """Whether the command ends within quotation marks: it continues on the next line."""
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return command.endswith("\\")


def run_step(step: Step, folder: Path) -> str:
    """What the command prints, stderr and stdout together in the order of printing; RuntimeError if
    it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        step.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    if found.returncode and "error" not in step.output:
        raise RuntimeError(f"{step.shown} ended with {found.returncode}:\n{found.stdout}")
    return found.stdout


def shortened(step: Step, printed: str) -> str:
    """The output, abridged as in the page: as many lines as the page has before and after each
    `⋮`."""
    if LEFT_OUT not in (shown := step.output.splitlines()):
        return printed
    lines, mark = printed.splitlines(), shown.index(LEFT_OUT)
    after = len(shown) - mark - 1
    kept = [*lines[:mark], LEFT_OUT, *lines[len(lines) - after :]]
    return "".join(f"{line}\n" for line in kept)


def write_page(path: Path, folder: Path) -> None:
    page = path.read_text("utf-8")
    written, end = "", 0
    for step in steps_of(page):
        print(f"$ {step.shown}", flush=True)
        printed = shortened(step, run_step(step, folder))
        print(printed, flush=True)
        written += page[end : step.span[0]] + printed
        end = step.span[1]
    path.write_text(written + page[end:], "utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write_page(Path(sys.argv[1]).absolute(), Path(made))

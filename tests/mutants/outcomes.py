"""What becomes of mutants: from a process that tries them, and as a line for each."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from zoo.errors import ZooError

MAX_LINES, MAX_CHARACTERS = 2, 500  # of an error


def count_outcomes(module: str, *arguments: str, count: int) -> Counter[str]:
    """The outcomes of `count` mutants by their first words, from a process of its own that runs
    a module of this folder."""
    done = subprocess.run(
        [sys.executable, "-m", f"mutants.{module}", *arguments],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"it ended after {lines[-1:]}: {done.stderr[-500:]}"
    assert [line.split()[0] for line in lines] == [str(number) for number in range(count)]
    assert [line for line in lines if "FAULT" in line] == []
    assert done.stderr == ""
    return Counter(line.split()[2] for line in lines)


def told(error: ZooError, path: Path) -> str:
    """The error as one line; "FAULT" with it where it is longer, or not for a terminal."""
    message = str(error).replace(f"{path.parent}/", "")
    lines = message.split("\n")
    plain = all(line and line.isprintable() for line in lines)
    fits = len(lines) <= MAX_LINES and len(message) <= MAX_CHARACTERS
    return f"{'' if plain and fits else 'FAULT: '}{type(error).__name__}: {message!r}"

"""Third-party packages, the one that `zoo new` writes and one among the tests: installed into a
folder of their own, trained, exported and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.cli import run as zoo_run

THIRD_PARTY = Path(__file__).parent / "third_party" / "zoo-leaky"


def install(package: Path, site: Path) -> dict[str, str]:
    """Installs a package into the folder `site`; returns the environment in which it is found."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", str(site), str(package)],
        check=True,
    )  # fmt: skip
    return {**os.environ, "PYTHONPATH": str(site)}


def zoo_command(environment: dict[str, str], *arguments: str) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "zoo", *arguments], env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def train_export_and_generate(cell: str, environment: dict[str, str], text: Path) -> None:
    cells = json.loads(zoo_command(environment, "cells", "--json"))
    assert cell in [row["name"] for row in cells]
    verdicts = json.loads(zoo_command(environment, "check", cell, "--json"))
    assert len(verdicts) == 14
    assert all(verdict["passed"] and not verdict["exempt"] for verdict in verdicts)
    zoo_command(
        environment, "train", str(text), "--cell", cell, "--option", "leak=0.7", "--hidden", "24",
        "--epochs", "2", "--batch-size", "8", "--out", "r", "--prompt", "the ",
    )  # fmt: skip
    file = zoo_command(environment, "export", "r").strip()
    arguments = ("--length", "300", "--temperature", "0.8", "--seed", "2")
    text_of_file = zoo_command(environment, "generate", file, *arguments)
    assert text_of_file == zoo_command(environment, "generate", "r", *arguments)
    # running the file needs no plugin
    alone = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    assert zoo_command(alone, "generate", file, *arguments) == text_of_file


@pytest.mark.slow
def test_a_third_party_package_trains_exports_and_generates(
    text_file: Path, tmp_path: Path
) -> None:
    train_export_and_generate("leaky", install(THIRD_PARTY, tmp_path / "site"), text_file)


@pytest.mark.slow
def test_the_package_that_zoo_new_writes_works_unchanged(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo_run(["new", "my-first-cell"]) == 0
    assert "zoo check my-first-cell" in capsys.readouterr().out
    package = tmp_path / "my-first-cell"
    files = sorted(str(p.relative_to(package)) for p in package.rglob("*") if p.is_file())
    assert files == [
        "my_first_cell/__init__.py", "my_first_cell/cell.py", "pyproject.toml",
        "tests/test_my_first_cell.py",
    ]  # fmt: skip
    test = package / "tests" / "test_my_first_cell.py"
    assert len(test.read_text().splitlines()) <= 20
    environment = install(package, tmp_path / "site")
    train_export_and_generate("my-first-cell", environment, text_file)
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        env=environment, capture_output=True, text=True, cwd=package,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout
    assert "28 passed" in found.stdout
    subprocess.run([sys.executable, "-m", "ruff", "check", str(package)], check=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Cell", "is not kebab-case"),
        ("lstm", "there is a cell 'lstm' in the zoo already"),
        ("taken", "taken exists already"),
        ("torch", "'torch' means something in Python already"),
        ("lambda", "'lambda' means something in Python already"),
    ],
)
def test_invalid_names_are_refused(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").mkdir()
    assert zoo_run(["new", name]) in (1, 2)
    assert message in capsys.readouterr().err
    assert [p.name for p in Path().iterdir()] == ["taken"]

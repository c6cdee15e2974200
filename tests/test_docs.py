"""The documentation builds without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import zoo
from zoo.testing import LAWS, check_cell

from .sessions import run_step, steps_of
from .test_readme import assert_same, without_trained_text

ROOT = Path(__file__).parent.parent


def test_the_table_of_laws_is_complete() -> None:
    """It has a row for each cell and a column for each law; its values are not checked."""
    text = (ROOT / "docs" / "reference" / "laws.md").read_text("utf-8")
    tables = re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE)
    laws = [law.__name__.replace("_", " ") for law in LAWS]
    for table, pattern in zip(tables, ("[!t]*", "*-scratch"), strict=True):
        header, _, *rows = table.splitlines()
        assert [part.strip() for part in header.split("|")[2:-1]] == laws
        cells = [row.split("|")[1].strip(" `") for row in rows]
        assert cells == [spec.name for spec in zoo.list_cells(pattern)]
        assert "BROKEN" not in table


STATE = (zoo.StateField("h", "the average"),)


def test_the_parallel_cell_of_the_how_to_passes_the_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "how-to" / "write-a-plugin.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (source,) = [block for block in blocks if "class MovingAverage" in block]
    Path("moving_average.py").write_text(source)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    card = zoo.ModelCard(title="", authors="", year=2024, paper="", equations=(), state=STATE)

    class Plugin:
        @zoo.hookimpl
        def zoo_cells(self) -> list[zoo.CellSpec]:
            return [zoo.CellSpec("average", "moving_average:MovingAverage", card)]

    registry = zoo.load_registry(Plugin())
    assert [v for v in check_cell("average", registry=registry) if not v.passed] == []


def test_the_scan_of_the_how_to_equals_glas() -> None:
    page = (ROOT / "docs" / "how-to" / "write-a-plugin.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (excerpt,) = [block for block in blocks if "def scan(" in block]
    source = (ROOT / "plugins" / "zoo_delta" / "gla.py").read_text("utf-8")
    for function in excerpt.split("\n\n\n"):
        assert textwrap.indent(function, "    ") in source


def without_talk(line: str) -> str:
    """A line without what a model of talks writes."""
    return re.sub(r"^(Ada|Alan|Grace|Kurt)\b.*", "talk", without_trained_text(line))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_about_texts_prints_its_output(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "train-on-your-texts.md").read_text("utf-8")
    steps = list(steps_of(page))
    assert len(steps) > 15
    for step in steps:
        assert_same(step, run_step(step, tmp_path), without_talk)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_docs_build_without_warnings(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-b", "html",
         "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "html" / "index.html").exists()

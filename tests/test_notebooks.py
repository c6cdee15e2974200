"""The notebooks run from their first cell to their last, in a kernel of their own, in the short
form that they offer."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from .notebooks import executed

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
NOTEBOOK = EXAMPLES / "from_idea_to_row.ipynb"


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(each.get("text", "") for each in cell.get("outputs", ()))


@pytest.mark.slow
def test_from_an_idea_to_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell of the notebook keeps every law, gets its rows, and writes from its file."""
    monkeypatch.setenv("ZOO_SHORT", "1")
    notebook = executed(NOTEBOOK, Path(), 500)
    outputs = "\n".join(printed(cell) for cell in notebook.cells)
    assert "BROKEN" not in outputs
    assert outputs.count("kept   ") == 14
    lines = [json.loads(line) for line in Path("rank/rank.jsonl").read_text().splitlines()]
    assert [line["cell"] for line in lines] == ["mingru", "signed-mingru"]
    assert all(line["sequences"] > 0 and line["tests"] for line in lines)
    assert len(Path("sweep/sweep.csv").read_text().splitlines()) == 3
    assert Path("sweep/signed-mingru-seed0/export/generate.onnx").stat().st_size > 10_000
    pictures = [each for cell in notebook.cells for each in cell.get("outputs", ())
                if "image/png" in each.get("data", {})]  # fmt: skip
    assert len(pictures) == 1


def test_the_page_shows_what_the_notebook_gave() -> None:
    """It is kept as it ran in full: every program of it has run, in order, and none failed."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(each.output_type != "error" for cell in cells for each in cell.outputs)
    shown = "\n".join(map(printed, cells))
    assert "task:parity" in shown
    assert "BROKEN" not in shown

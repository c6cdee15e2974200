"""The documentation builds without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo.testing import LAWS

ROOT = Path(__file__).parent.parent


def test_the_matrix_of_laws_is_complete() -> None:
    """Its figures are those of the day it was made; its rows and columns are all there are."""
    text = (ROOT / "docs" / "reference" / "laws.md").read_text("utf-8")
    tables = re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE)
    laws = [law.__name__.replace("_", " ") for law in LAWS]
    for table, pattern in zip(tables, ("*", "*-scratch"), strict=True):
        header, _, *rows = table.splitlines()
        assert [part.strip() for part in header.split("|")[2:-1]] == laws
        cells = [row.split("|")[1].strip(" `") for row in rows]
        assert cells == [spec.name for spec in zoo.list_cells(pattern)]
        assert "BROKEN" not in table


@pytest.mark.timeout(300)
def test_docs_build_without_warnings(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-b", "html",
         "-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "html" / "index.html").exists()

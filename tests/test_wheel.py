"""The wheel: its top level has exactly our packages, and the installed package works."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder), str(ROOT)], check=True,
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return path


def test_top_level_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "zoo", "zoo_bidirectional", "zoo_classic", "zoo_delta", "zoo_elman", "zoo_gated",
        "zoo_linear", "zoo_ncps", "zoo_ssm", "zoo_tasks_memory", "zoo_tasks_series",
        "zoo_tasks_state", "zoo_torchrecurrent", "zoo_xlstm", "zoo_onnx", "zoo_ort",
        "zoo_triton", "zoo_web", "recurrent_zoo-0.1.0.dist-info",
    }  # fmt: skip
    assert "zoo/recipes/d2l-scratch.toml" in names
    assert "zoo/scaffold/cell.py.txt" in names
    assert "zoo/py.typed" in names
    assert "zoo_web/site/index.html" in names
    assert "zoo/serving/page.html" in names


def test_cells_are_listed_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site),
         str(wheel)], check=True,
    )  # fmt: skip
    code = "import zoo; print(zoo.__file__); print(*[c.name for c in zoo.list_cells()])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    location, cells = found.stdout.splitlines()
    assert Path(location).is_relative_to(site)
    assert {"rnn", "rnn-scratch"} <= set(cells.split())

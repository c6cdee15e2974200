"""Exported files in the oldest ONNX Runtime that opens them, installed by pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .benchmarks.runtimes import GRAPHS, WHEELS, export, install, run_in, verdict

OLDEST = "onnxruntime==1.16.*" if sys.version_info < (3, 12) else "onnxruntime==1.17.*"
# among them both forms of GELU, an integer in the state, and products of states
CELLS = ["gru", "lru", "rg-lru", "retnet", "gated-deltanet"]


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with it."""
    try:
        return install(tmp_path_factory.mktemp("environments"), WHEELS[OLDEST])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"pip cannot install {OLDEST}: {error.stderr.strip().splitlines()[-1]}")


@pytest.mark.slow
@pytest.mark.rotates("name", CELLS)
@pytest.mark.xdist_group("runtimes")
@pytest.mark.parametrize("name", CELLS)
def test_the_oldest_runtime_writes_the_same_tokens(name: str, oldest: Path, tmp_path: Path) -> None:
    assert export(tmp_path, name) == ""
    present = run_in(Path(sys.executable), "onnxruntime", tmp_path)
    found = run_in(oldest, "onnxruntime", tmp_path)
    files = {f"{name}.{graph}" for graph in GRAPHS}
    assert {*present} == {*found} == files
    for file in files:
        assert "error" not in present[file]
        assert verdict(found[file], present[file]) == ""

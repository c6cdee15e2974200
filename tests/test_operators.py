"""The two sets of operators of exported files: standard ones, and those of one runtime too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import zoo
from zoo.cli import run as zoo_command
from zoo.errors import UnknownNameError, UsageError
from zoo_ort.fused import FUSED_DOMAIN, has_fused_operators

Train = Callable[..., zoo.Run]
pytestmark = pytest.mark.skipif(
    not has_fused_operators(), reason="this ONNX Runtime has no fused operators"
)


def domains(path: Path) -> set[str]:
    return {each.domain for each in onnx.load(path).opset_import}


def test_without_a_word_the_fastest_operators_are_used(
    trained: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says so, and the file says what it needs."""
    run = trained("gla", epochs=1)
    assert zoo_command(["export", str(run.path), "--out", str(tmp_path / "f")]) == 0
    told = capsys.readouterr()
    assert "operators of one runtime (fused); for others export with --operators standard" in (
        told.err
    )
    fused = Path(told.out.strip())
    assert domains(fused) == {"", FUSED_DOMAIN}
    out = str(tmp_path / "s")
    assert zoo_command(["export", str(run.path), "--operators", "standard", "--out", out]) == 0
    told = capsys.readouterr()
    assert "one runtime" not in told.err
    standard = Path(told.out.strip())
    assert domains(standard) == {""}
    for path, words in (
        (fused, "operators    fused: for operators of one runtime too"),
        (standard, "operators    standard: for any ONNX runtime"),
    ):
        assert zoo_command(["show", str(path)]) == 0
        shown = capsys.readouterr().out
        assert words in shown
        assert "cell         gla" in shown
        assert "largest difference" in shown
    text = zoo.generate(fused, "the", length=200, temperature=1.0, seed=1)
    assert text == zoo.generate(standard, "the", length=200, temperature=1.0, seed=1)


def test_a_cell_without_a_fused_form_has_standard_operators(trained: Train, tmp_path: Path) -> None:
    exported = zoo.export(trained("gru", epochs=1), out=tmp_path, operators="fused")
    assert exported.info.operators == "standard"
    assert domains(exported.path) == {""}


def test_heads_that_a_gpu_refuses_have_standard_operators(trained: Train, tmp_path: Path) -> None:
    """A head's state must fit into the memory of one block of CUDA."""
    run = trained("gla", hidden=160, options={"heads": 1}, epochs=1)
    exported = zoo.export(run, out=tmp_path)
    assert exported.info.operators == "standard"


def test_names_that_are_no_set_of_operators(fox_run: zoo.Run, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"operators 'fussed' .*did you mean 'fused'"):
        zoo.export(fox_run, out=tmp_path, operators="fussed")
    assert zoo_command(["export", str(fox_run.path), "--operators", "portable"]) == 2
    assert not [*tmp_path.iterdir()]


def test_a_package_runs_anywhere(
    trained: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("gla", epochs=1)
    out = tmp_path / "page"
    command = ["export", str(run.path), "--to", "web", "--out", str(out)]
    assert zoo_command([*command, "--operators", "fused"]) == 2
    assert "a package is to run anywhere" in capsys.readouterr().err
    assert not out.exists()
    assert zoo_command(command) == 0
    assert {domain for file in out.rglob("*.onnx") for domain in domains(file)} == {""}


def test_an_older_runtime_writes_standard_operators(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("gla", epochs=1)
    monkeypatch.setattr("zoo_onnx.exporter.has_fused_operators", lambda: False)
    assert zoo.export(run, out=tmp_path / "s").info.operators == "standard"
    with pytest.raises(UsageError, match=r"has no fused operators; install 1.26 or newer"):
        zoo.export(run, out=tmp_path / "f", operators="fused")
    assert not (tmp_path / "f").exists()

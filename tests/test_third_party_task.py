"""A third-party task meets a third-party cell: train, resume, sweep, export, score and verify, with
the zoo's own commands and nothing changed in the zoo."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import zoo
from zoo.cli import run
from zoo.errors import UnknownNameError
from zoo.testing import check_task

THIRD_PARTY = Path(__file__).parent / "third_party"
PACKAGES = {"zoo-latch": "latch", "zoo-leaky": "leaky"}
SMALL = ["--hidden", "12", "--batch-size", "16", "--learning-rate", "0.02"]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[None]:
    """Both packages are on the path, with entry points, as pip would install them."""
    paths = [str(tmp_path / "site")]
    for package, module in PACKAGES.items():
        info = tmp_path / "site" / f"{package.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[zoo]\n{module} = {module}\n")
        paths.append(str(THIRD_PARTY / package))
    sys.path[:0] = paths
    yield
    sys.path[:] = [path for path in sys.path if path not in paths]
    for name in [n for n in sys.modules if n.partition(".")[0] in PACKAGES.values()]:
        del sys.modules[name]


def test_the_task_keeps_its_law() -> None:
    check_task("latch")


def test_they_meet(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["train", "task:latch", "--cell", "leaky", *SMALL, "--epochs", "3", "--out", "r"]) == 0
    )
    assert run(["export", "r", "--graph", "all"]) == 0
    assert run(["export", "r", "--precision", "int8"]) == 0
    files = sorted(Path("r/export").iterdir())
    assert [file.name for file in files] == ["sequence.onnx", "step.int8.onnx", "step.onnx"]
    found = {}
    for source in ("r", *map(str, files)):
        capsys.readouterr()
        assert run(["score", source, "task:latch", "--json"]) == 0
        found[source] = json.loads(capsys.readouterr().out)["settings"]
    assert [setting["name"] for setting in found["r"]] == ["length 20", "length 80"]
    accuracies = {source: [s["accuracy"] for s in settings] for source, settings in found.items()}
    assert accuracies["r"][0] > 0.9  # a guess is right half of the time
    assert accuracies["r/export/step.onnx"] == accuracies["r/export/sequence.onnx"]
    for values in accuracies.values():
        assert values == pytest.approx(accuracies["r"], abs=0.02)
    for file in files:
        assert run(["verify", str(file), "--against", "r"]) == 0
    assert run(["tasks", "latch"]) == 0
    assert "zoo-latch 0.1.0" in capsys.readouterr().out


def test_the_file_answers_without_the_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    """The step graph, run on by hand as its metadata says, keeps a bit."""
    assert run(["train", "task:latch", "--cell", "gru", *SMALL, "--epochs", "3", "--out", "r"]) == 0
    assert run(["export", "r"]) == 0
    session = onnxruntime.InferenceSession("r/export/step.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["zoo.interface"]) == {
        "reads": "tokens", "inputs": 3, "gives": "classes", "outputs": 2,
    }  # fmt: skip
    assert "zoo.tokenizer" not in metadata
    (entry,) = json.loads(metadata["zoo.state"])
    for bit in (0, 1):
        state = np.full((1, *entry["shape"]), entry["initial"], entry["dtype"])
        for token in (1 - bit, bit, *[2] * 15):
            name = session.get_inputs()[1].name
            logits, state = session.run(None, {"token": np.array([token]), name: state})
        assert logits.argmax() == bit


def test_a_sweep_and_a_resumed_run() -> None:
    command = [
        "sweep",
        "task:latch",
        "--cells",
        "leaky,gru",
        *SMALL,
        "--epochs",
        "2",
        "--seeds",
        "1",
    ]
    assert run([*command, "--out", "s"]) == 0
    rows = zoo.sweep(
        "task:latch", cells="leaky", seeds=1, hidden=12, batch_size=16, learning_rate=0.02,
        epochs=2, out="s",
    )  # fmt: skip
    assert rows[0].held_out_accuracy == max(
        line["held_out_accuracy"] for line in zoo.load("s/leaky-seed0").metrics()
    )
    assert rows[0].held_out_bits_per_char is None


def test_they_are_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a cell of the zoo; and the run that stays is scored as the row says."""
    command = ["rank", "leaky,gru", "--tasks", "latch", "--parameters", "2k", "--workers", "0"]
    assert run([*command, "--out", "k", "--json"]) == 0
    rows = {row["cell"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["task"] for name, row in rows.items()} == dict.fromkeys(
        ("gru", "leaky"), "task:latch"
    )
    assert rows["gru"]["verdict"] == "solved"
    (folder,) = Path("k/runs/latch").glob("leaky-*")
    assert run(["score", str(folder), "task:latch", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)["settings"]
    assert [test["accuracy"] for test in scored] == [
        test["accuracy"] for test in rows["leaky"]["tests"]
    ]


def test_without_the_package_a_run_and_its_files_still_open(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["train", "task:latch", "--cell", "gru", *SMALL, "--epochs", "1", "--out", "r"]) == 0
    monkeypatch.setenv("ZOO_DISABLE_PLUGINS", "latch")
    assert run(["export", "r"]) == 0
    with pytest.raises(UnknownNameError, match="task 'latch' is not in the zoo"):
        zoo.inference.score_task("r", "task:latch")
    assert run(["train", "--resume", "--out", "r"]) != 0
    assert "task 'latch' is not in the zoo" in capsys.readouterr().err

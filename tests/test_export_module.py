"""`zoo export-module` and `zoo verify` of a module that a Python file defines, and the mistakes that
such a file can have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.cli import run
from zoo.errors import FactoryError, UnknownNameError, UsageError, VerificationError
from zoo.exporting import ModuleSpec
from zoo.exporting.exporter import find_module_exporter
from zoo.exporting.modules import NAMES, TYPES, read_module_spec
from zoo.inference.artifact import Proof
from zoo.registry import ExporterSpec
from zoo_onnx import export_step, module_exporter, verify_module
from zoo_ort import open_module

NETWORKS = """\
import torch
from torch import nn


class Policy(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, hidden), nn.Linear(hidden, 2)

    def forward(self, x, h):
        h = self.cell(x, h)
        return self.head(h).ACTIVATION(), h
""".replace("ACTIVATION", "tanh")

SPEC = """\
import torch
from networks import Policy

print("making the policy")
torch.manual_seed(0)
model = module = Policy()
input = torch.randn(4, 3)
example_inputs = (input,)
state = torch.zeros(4, 6)
output_names = ["action"]
"""

# a module that is quick to make, whose file is not written
SMALL = """\
import torch
from torch import nn


class Leaky(nn.Module):
    def forward(self, x, h):
        h = 0.9 * h + 0.1 * x
        return h, h


module = Leaky()
example_inputs = torch.randn(4, 2)
state = torch.zeros(4, 2)
"""


def write(text: str, file: str = "mine.py") -> Path:
    path = Path(file)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def files(folder: str | Path = ".") -> set[Path]:
    return set(Path(folder).rglob("*"))


@pytest.fixture
def unchanged() -> Iterator[None]:
    """What belongs to the process is as it was before the test."""
    before = sys.path[:], sys.argv[:], sys.dont_write_bytecode, sys.stdout
    own = {"networks", "__module_spec__", "parts", "broken"}
    yield
    assert (sys.path, sys.argv, sys.dont_write_bytecode, sys.stdout) == before
    assert not own & {name.partition(".")[0] for name in sys.modules}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the policy's Python files, and the exported file."""
    folder = tmp_path_factory.mktemp("policy")
    write(NETWORKS, str(folder / "networks.py"))
    write(SPEC, str(folder / "policy.py"))
    file = folder / "file" / "policy.onnx"
    assert run(["export-module", str(folder / "policy.py"), "--out", str(file)]) == 0
    return folder, file


def error_of(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    """The error, of a line or two, of a command that writes nothing."""
    before = files()
    capsys.readouterr()
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[-1].startswith("zoo: error: ")
    assert len(lines) == 1 + lines.count("making the policy")
    assert files() == before
    return lines[-1].removeprefix("zoo: error: ")


# exporting and verifying


@pytest.mark.usefixtures("unchanged")
def test_a_module_is_exported_proved_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    write(NETWORKS, "robot/networks.py")
    write(SPEC, "robot/policy.py")
    assert run(["export-module", "robot/policy.py"]) == 0
    out, err = capsys.readouterr()
    assert out == "policy.onnx\n"
    told = "policy.onnx: proved over 256 steps at batch sizes 1 and 5: largest difference "
    first, second = err.splitlines()
    assert first == "making the policy"
    assert second.startswith(told)
    assert files("robot") == {Path("robot/networks.py"), Path("robot/policy.py")}
    assert files() == files("robot") | {Path("robot"), Path("policy.onnx")}

    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(NETWORKS, names)
    x, module, stepper = torch.randn(3, 3), names["Policy"](), open_module("policy.onnx")
    torch.manual_seed(0)
    module = names["Policy"]()
    outputs, state = stepper.step({"input": x.numpy()}, stepper.init_state(3))
    with torch.no_grad():
        action, h = module(x, torch.zeros(3, 6))
    np.testing.assert_allclose(outputs["action"], action, atol=1e-6)
    np.testing.assert_allclose(state[0], h, atol=1e-6)

    found = subprocess.run(
        [sys.executable, "-m", "zoo", "verify", "policy.onnx", "--against", "robot/policy.py"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stderr == "making the policy\n"
    (line,) = found.stdout.splitlines()
    assert line.startswith(told.removeprefix("policy.onnx: "))
    assert line != second.removeprefix("policy.onnx: ")  # other inputs


@pytest.mark.parametrize(
    ("where", "old", "new", "told"),
    [
        ("policy", "manual_seed(0)", "manual_seed(1)", "exported with other weights than those of"),
        ("networks", "tanh()", "sin()", r"does not compute what Policy computes: action\[\d\] is"),
        ("networks", "h = self", "h = 1.001 * self", "does not compute what Policy computes: "),
        ("policy", "torch.zeros(4, 6)", "torch.ones(4, 6)",
         "another value in the state 'state', float32 [6] before the first step, and Policy has"),
        ("policy", '["action"]', '["force"]',
         "has the output 'action', float32 [2], and Policy has the output 'force', float32 [2]."),
        ("networks", "return self.head(h).tanh(), h", "return (self.head(h).tanh(), x), h",
         "expected"),
        ("policy", "output_names", "sequence = True  #", "takes single steps, and its module is"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchanged")
def test_another_module_is_not_the_files(
    where: str,
    old: str,
    new: str,
    told: str,
    policy: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = {"networks": NETWORKS, "policy": SPEC}
    assert old in texts[where]
    texts[where] = texts[where].replace(old, new)
    for name, text in texts.items():
        write(text, f"{name}.py")
    error = error_of(capsys, ["verify", str(policy[1]), "--against", "policy.py"], 1)
    assert error == told


def test_placeholder() -> None:
    _ = (np, Tensor, nn, Callable, UnknownNameError, UsageError, VerificationError, FactoryError,
         ModuleSpec, find_module_exporter, NAMES, TYPES, read_module_spec, Proof, ExporterSpec,
         export_step, module_exporter, verify_module, zoo)

"""`zoo export-module` and `zoo verify` of a module that a Python file defines, and the mistakes
that such a file can have."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
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
from zoo.exporting.modules import NAMES, read_module_spec
from zoo.inference.artifact import Proof
from zoo.registry import ExporterSpec
from zoo_onnx import export_step, verify_module
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
        return self.head(h).tanh(), h
"""

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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def files(folder: str = ".") -> set[Path]:
    return set(Path(folder).rglob("*"))


@pytest.fixture
def unchanged() -> Iterator[None]:
    """What belongs to the process is as it was before the test."""
    before = sys.path[:], sys.argv[:], sys.dont_write_bytecode, sys.stdout
    own = {"networks", "__user_script__", "parts", "broken"}
    yield
    assert (sys.path, sys.argv, sys.dont_write_bytecode, sys.stdout) == before
    assert not own & {name.partition(".")[0] for name in sys.modules}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported policy."""
    folder = tmp_path_factory.mktemp("policy")
    write(NETWORKS, str(folder / "networks.py"))
    write(SPEC, str(folder / "policy.py"))
    file = folder / "policy.onnx"
    assert run(["export-module", str(folder / "policy.py"), "--out", str(file)]) == 0
    return file


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
    proved = "proved over 256 steps at batch sizes 1 and 5: largest difference "
    first, second = err.splitlines()
    assert first == "making the policy"
    assert second.startswith(f"policy.onnx: {proved}")
    assert files("robot") == {Path("robot/networks.py"), Path("robot/policy.py")}
    assert files() == files("robot") | {Path("robot"), Path("policy.onnx")}

    names: dict[str, Any] = {}
    exec(NETWORKS, names)
    torch.manual_seed(0)
    module, x, stepper = names["Policy"](), torch.randn(3, 3), open_module("policy.onnx")
    outputs, state = stepper.step({"input": x.numpy()}, stepper.init_state(3))
    with torch.no_grad():
        action, h = module(x, torch.zeros(3, 6))
    np.testing.assert_allclose(outputs["action"], action, rtol=0, atol=1e-6)
    np.testing.assert_allclose(state[0], h, rtol=0, atol=1e-6)

    found = subprocess.run(
        [sys.executable, "-m", "zoo", "verify", "policy.onnx", "--against", "robot/policy.py"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "making the policy\n")
    (line,) = found.stdout.splitlines()
    assert line.startswith(proved)
    assert line != second.removeprefix("policy.onnx: ")  # other inputs


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("manual_seed(0)", "manual_seed(1)",
         "was exported with other weights than those of this Policy; give the module the weights"),
        ("tanh()", "sin()", "does not compute what Policy computes: action["),
        ("torch.zeros(4, 6)", "torch.ones(4, 6)",
         "from another module: it has another value in the state 'state', float32 [6] before the"),
        ('["action"]', '["force"]',
         "was exported from another module: it has the output 'action', float32 [2], and Policy "
         "has the output 'force', float32 [2]."),
        ("h).tanh(), h", "h).tanh(), (h,)", "the next state must have the form of the state"),
        ("output_names", "sequence = True  #",
         "takes single steps, and its module is given as one that takes chunks of a sequence."),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchanged")
def test_a_file_of_another_module(
    old: str, new: str, told: str, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in NETWORKS + SPEC
    write(NETWORKS.replace(old, new), "networks.py")
    write(SPEC.replace(old, new), "policy.py")
    code = 2 if "must" in told else 1
    error = error_of(capsys, ["verify", str(policy), "--against", "policy.py"], code)
    assert told in error
    assert error.startswith(str(policy)) or code == 2


def test_a_lower_precision_and_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    write(NETWORKS, "networks.py")
    write(SPEC + "max_cost = 1e-6\n", "policy.py")
    command = ["export-module", "policy.py", "--precision", "int8"]
    error = error_of(capsys, command, 1)
    assert error.startswith("policy.onnx was not written: its precision costs 0.0")
    assert run([*command, "--max-cost", "0.1", "--out", "files/small.onnx"]) == 0
    out, err = capsys.readouterr()
    assert out == "files/small.onnx\n"
    assert re.search(r"\nthe precision costs 0\.0\d+ \(root mean square of the outputs\)\n", err)
    verify = ["verify", "files/small.onnx", "--against", "policy.py"]
    assert run([*verify, "--max-cost", "0.1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == err.splitlines()[-1]
    assert "its precision costs 0.0" in error_of(capsys, verify, 1)


SEQUENCE = """\
import torch
from torch import nn


class Smooth(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x, h):
        y, h = self.net(x, h)
        return self.head(y), h


def inputs(rng, batch_size):
    return rng.normal(size=(batch_size, 2 * rng.integers(1, 5), 3))


def metric(wanted, found):
    return abs(wanted["output"] - found["output"]).max()


torch.manual_seed(0)
module = Smooth()
example_inputs = torch.randn(4, 8, 3)
state = torch.zeros(1, 4, 5)
batch_axis, multiple_of, input_names, precision = 1, 2, ["samples"], "fp16"
"""


@pytest.mark.slow
def test_a_sequence_with_all_that_it_may_say(capsys: pytest.CaptureFixture[str]) -> None:
    write(SEQUENCE)
    assert run(["export-module", "mine.py"]) == 0
    told = capsys.readouterr().err
    assert "mine.onnx: proved over 256 chunks at batch sizes 1 and 5" in told
    assert re.search(r"\nthe precision costs 0\.\d+ \(the metric given\)\n", told)
    assert run(["verify", "mine.onnx", "--against", "mine.py"]) == 0
    assert capsys.readouterr().out == told.removeprefix("mine.onnx: ")
    stepper = open_module("mine.onnx")
    assert [(entry.name, entry.shape) for entry in stepper.info.inputs] == [("samples", (None, 3))]
    step = SEQUENCE.replace("multiple_of", "_").replace(", 8, 3)", ", 3)")
    write(step.replace("self.net(x", "self.net(x[:, None]").replace("head(y)", "head(y[:, 0])"))
    told = error_of(capsys, ["verify", "mine.onnx", "--against", "mine.py"], 1)
    assert "takes chunks of a sequence, and its module is given as one that takes single" in told


class Leaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.leak = nn.Linear(2, 3), nn.Parameter(torch.full((3,), 0.1))

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = h + self.leak * (self.mix(x) - h)
        return h.clone(), h


class Rewritten(nn.Module):
    """Leaky with other names for its weights."""

    def __init__(self, leaky: Leaky) -> None:
        super().__init__()
        self.weight, self.bias, self.a = leaky.mix.weight, leaky.mix.bias, leaky.leak

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = h + self.a * (x @ self.weight.T + self.bias - h)
        return h.clone(), h


def test_verifying_in_python() -> None:
    """The weights that count are those of the module, whatever their names; a change that no proof
    can see is one."""
    torch.manual_seed(0)
    module, x, state = Leaky(), torch.randn(5, 2), torch.zeros(5, 3)
    settings: dict[str, Any] = {"output_names": ["mean"], "inputs": [x, 2 * x], "max_cost": 0.5}
    export_step(module, x, state, "leaky.onnx", **settings)
    proof = verify_module("leaky.onnx", module, x, state, **settings)
    assert (proof.steps, proof.cost) == (256, None)
    assert verify_module("leaky.onnx", Rewritten(module), x, state, **settings).difference < 1e-6
    with pytest.raises(VerificationError, match=r"leaky\.onnx is fp32 and should be int8"):
        verify_module("leaky.onnx", module, x, state, precision="int8", **settings)
    with torch.no_grad():
        module.mix.bias[0] = torch.nextafter(module.mix.bias[0], torch.tensor(1.0))
    with pytest.raises(VerificationError, match=r"exported with other weights .* this Leaky"):
        verify_module("leaky.onnx", module, x, state, **settings)


def test_files_of_modules_and_of_language_models_are_told_apart(
    policy: Path, fox_run: zoo.Run, fox_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(SMALL)
    for file, against, code, told in (
        (fox_file, ["mine.py"], 1, "it is a language model; open it with zoo.open_source, and "
                                   "verify it against its run."),
        (policy, [str(fox_run.path)], 1, "it is no language model; open it with zoo_ort."
                                         "open_module, and verify it against the Python file"),
        (policy, ["mine.py", "--seeds", "3"], 2, "--seeds is for language models, and "),
        (policy, ["mine.py", "--runtime", "onnxruntime"], 2, "--runtime is for language models"),
        (fox_file, [str(fox_run.path), "--max-cost", "1"], 2, "--max-cost is for modules, and "),
        (Path("nowhere.onnx"), ["mine.py"], 1, "nowhere.onnx cannot be read: No such file"),
    ):  # fmt: skip
        assert told in error_of(capsys, ["verify", str(file), "--against", *against], code)


# mistakes of the Python file

LINE = SMALL.count("\n") + 1  # of what is appended
REPLACED = [
    (SMALL, "", "mine.py does not define 'module'; it should define module, example_inputs and "
                "state."),
    ("example_inputs", "example_input", "mine.py does not define 'example_inputs'; did you mean "
                                        "that by 'example_input'?"),
    ("state =", "initial_state =", "'state'; did you mean that by 'initial_state'?"),
    ("module =", "policy =", "'module'; did you mean that by 'policy'?"),
    ("= Leaky()", "= Leaky", "mine.py: module must be a torch.nn.Module (got the class Leaky, not "
                             "an instance)."),
    ("torch.randn(4, 2)", "{}", "must be a tensor or a sequence of tensors (got dict)."),
    ("torch.zeros(4, 2)", "None", "the state is None; use a tensor in its place"),
    ("torch.zeros(4, 2)", "torch.zeros(3, 2)", "inputs and state have batches of 3, 4"),
    ("0.9 * h", "h / (1 / 0)", "Leaky(*inputs, state) raised ZeroDivisionError: division by zero, "
                               "at mine.py:7."),
    ("h = 0.9 * h", "raise SystemExit(3); h", "mine.py raised SystemExit: 3, at mine.py:7."),
]  # fmt: skip
APPENDED = {
    "output_name = ['y']": "mine.py defines 'output_name', which is not used; did you mean "
    "'output_names'? A name of your own can begin with _.",
    "input_name = 'x'": "did you mean 'input_names'?",
    "precison = 'int8'": "did you mean 'precision'?",
    "max_costs = 0.1": "did you mean 'max_cost'?",
    "independent_row = False": "did you mean 'independent_rows'?",
    "batch_axes = (0, 1)": "did you mean 'batch_axis'?",
    "def metrics(wanted, found): return 0.0": "did you mean 'metric'?",
    "def input(rng, batch_size): return example_inputs": "did you mean 'inputs'?",
    "precision = 'int9'": "precision 'int9' is not in the zoo; did you mean 'int8'",
    "max_cost = '0.1'": "mine.py: max_cost must be a number (got str).",
    "max_cost = True": "mine.py: max_cost must be a number (got bool).",
    "independent_rows = 0": "mine.py: independent_rows must be True or False (got int).",
    "input_names = 'x'": "mine.py: input_names must be a list of texts (got str).",
    "input_names = ['x', 'y']": "there are 1 inputs and 2 names for them.",
    "inputs = 3": "mine.py: inputs must be a function or recorded steps (got int).",
    "time_axis, sequence = 1, False": "mine.py: time_axis is of sequences, and sequence is False.",
    "1 / 0": f"mine.py raised ZeroDivisionError: division by zero, at mine.py:{LINE}.",
    "def f(:": f"mine.py raised SyntaxError: invalid syntax, at mine.py:{LINE}.",
    "import sys; sys.exit('no')": f"mine.py raised SystemExit: no, at mine.py:{LINE}.",
    "import nowhere_at_all": f"No module named 'nowhere_at_all', at mine.py:{LINE}.",
    "import broken": "mine.py raised ValueError: bad, at broken.py:2.",
    "torch.load('weights.pt')": f"No such file or directory: 'weights.pt', at mine.py:{LINE}.",
    "# \0": "mine.py raised ",
}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *((SMALL.replace(old, new), told) for old, new, told in REPLACED),
        *((SMALL + line, told) for line, told in APPENDED.items()),
    ],
    ids=[*(told for _, _, told in REPLACED), *APPENDED.values()],
)
@pytest.mark.usefixtures("unchanged")
def test_mistakes_in_the_file(text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("import math\nraise ValueError('bad')", "broken.py")
    write(text)
    assert told in error_of(capsys, ["export-module", "mine.py"], 2)


def test_what_is_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    write(SMALL)
    write("x", "folder.py/x")
    Path("latin.py").write_bytes("name = 'Prüfung'".encode("latin-1"))
    for arguments, told in (
        (["nowhere.py"], "nowhere.py cannot be read: No such file or directory."),
        (["folder.py"], "folder.py cannot be read: Is a directory."),
        (["latin.py"], "latin.py raised SyntaxError: (unicode error) 'utf-8' codec can't decode"),
        (["mine"], "mine is no Python file; give one (NAME.py) that defines module, example_inputs "
                   "and state."),
        (["mine.py", "--out", "mine.py"], "--out mine.py should be a file, mine.onnx."),
        (["mine.py", "--out", "folder"], "--out folder should be a file, folder.onnx."),
        (["mine.py", "--exporter", "onx"], "exporter 'onx' is not in the zoo; did you mean 'onnx'"),
        (["mine.py", "--precision", "fp31"], "precision 'fp31' is not in the zoo; did you mean"),
    ):  # fmt: skip
        assert error_of(capsys, ["export-module", *arguments], 2).startswith(told)


@pytest.mark.usefixtures("unchanged")
def test_an_error_in_a_function_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """It is raised while the file is proved, in a module that was imported by then."""
    write("def draw():\n    raise ValueError('no data')", "parts.py")
    text = "\n\ndef inputs(rng, batch_size):\n    import parts\n\n    parts.draw()\n"
    write(SMALL + text)
    error = error_of(capsys, ["export-module", "mine.py", "--out", "new/mine.onnx"], 2)
    assert error == "mine.py raised ValueError: no data, at parts.py:2."


@pytest.mark.parametrize(
    "text",
    [
        "n_inputs = 2",
        "input = torch.zeros(2)",
        "input = nn.Linear(2, 2)",
        "input_dim, state_size, path, name = 2, 3, 'x', 'y'",
        "metrics, sequences, states = [], [1, 2], [state]",
        "from math import dist as metrics",
        "import os as inputs",
        "class Module: pass",
        "_output_name = ['y']",
        "batch_axes = 0\nbatch_axis = batch_axes",
        "output_name = ['y']\noutput_names = output_name",
        "metric = input_names = None",
    ],
)
def test_names_that_are_the_files_own(text: str) -> None:
    with read_module_spec(write(SMALL + text)) as spec:
        assert spec.metric is None
        assert spec.inputs is None
        assert not spec.sequence


@pytest.mark.usefixtures("unchanged")
def test_the_file_runs_as_a_script_does(capsys: pytest.CaptureFixture[str]) -> None:
    """It imports what lies beside it, packages too, and not what another folder had before; code
    for a script of that name alone does not run."""
    text = """
from __future__ import annotations
import sys
from dataclasses import dataclass
from parts.numbers import COUNT

assert sys.argv == [__file__]

@dataclass
class Settings:
    rows: "int" = COUNT

if __name__ == "__main__":
    raise ValueError("is not run")
print("prints")
"""
    for count in (3, 5):
        write("", f"{count}/parts/__init__.py")
        write(f"COUNT = {count}", f"{count}/parts/numbers.py")
        more = "\nexample_inputs, state = torch.zeros(Settings().rows, 2), torch.zeros(COUNT, 2)"
        file = write(text + SMALL + more, f"{count}/mine.py")
        with read_module_spec(file) as spec:
            assert len(spec.state) == len(spec.example_inputs) == count
        assert not list(Path(f"{count}").rglob("__pycache__"))
    assert capsys.readouterr() == ("", "prints\n" * 2)


# exporters


class Recorder:
    """An exporter of another format, which writes the names that it was given."""

    suffix = ".txt"

    def export(self, spec: ModuleSpec, path: Path) -> Proof:
        assert isinstance(spec.module, nn.Module)
        shown = {name: getattr(spec, name) for name in NAMES[3:]}
        path.write_text(repr(shown))
        return Proof(steps=3, batch_sizes=(1,), difference=0.0)

    def verify(self, path: Path, spec: ModuleSpec, provider: str = "auto") -> Proof:
        return Proof(steps=len(path.read_text()), batch_sizes=(1,), difference=0.0)


class Plugin:
    @zoo.hookimpl
    def zoo_exporters(self) -> list[ExporterSpec]:
        own = f"{Recorder.__module__}:Recorder"
        return [
            ExporterSpec("recorder", "nowhere:It", "", ("lookup",), ("fp32", "int4"), modules=own),
            ExporterSpec("tables", "nowhere:It", "", ("lookup",)),
        ]


def test_exporters_of_modules_are_chosen_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = zoo.load_registry(Plugin())
    for name, precision, file in (
        ("recorder", None, None), (None, "int4", None), (None, None, Path("a.txt"))
    ):  # fmt: skip
        found = find_module_exporter(registry, name, precision=precision, file=file)
        assert type(found).__name__ == "Recorder"
    found = find_module_exporter(registry, file=Path("a.onnx"))
    assert type(found).__name__ == "OnnxModuleExporter"
    with pytest.raises(
        UsageError, match=r"onnx and recorder both write modules; .*--exporter NAME"
    ):
        find_module_exporter(registry, precision="fp32")
    with pytest.raises(UsageError, match="the exporter tables writes language models only"):
        find_module_exporter(registry, "tables")
    with pytest.raises(
        UnknownNameError, match=r"precision 'int5' .* did you mean 'int8' or 'int4'"
    ):
        find_module_exporter(registry, precision="int5")
    monkeypatch.setenv("ZOO_DISABLE_PLUGINS", "onnx")
    with pytest.raises(UsageError, match="no exporter that is installed writes modules"):
        find_module_exporter(zoo.load_registry())
    missing = ExporterSpec("mine", "nowhere:It", "", ("lookup",), modules="nowhere_at_all:It")
    with pytest.raises(FactoryError, match="mine: nowhere_at_all:It cannot be imported: ModuleNot"):
        missing.load_modules()


def test_another_exporter_gets_all_that_the_file_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = zoo.load_registry(Plugin())
    monkeypatch.setattr("zoo.registry.registry.load_registry", lambda: registry)
    said = {
        "input_names": ["x"], "output_names": ["y"], "inputs": [1], "batch_axis": 0,
        "independent_rows": False, "precision": "int4", "metric": None, "max_cost": 0.5,
        "sequence": True, "time_axis": 2, "multiple_of": 3,
    }  # fmt: skip
    text = SMALL + "\n".join(f"{name} = {value!r}" for name, value in said.items())
    write(text.replace("sequence = True", ""))
    assert run(["export-module", "mine.py"]) == 0
    assert capsys.readouterr().out == "mine.txt\n"
    assert Path("mine.txt").read_text() == repr(said)
    command = ["export-module", "mine.py", "--max-cost", "2", "--precision", "fp32"]
    assert run([*command, "--exporter", "recorder"]) == 0
    assert "mine.txt: proved over 3 chunks at batch sizes 1: " in capsys.readouterr().err
    changed = {**said, "precision": "fp32", "max_cost": 2.0}
    assert Path("mine.txt").read_text() == repr(changed)
    assert run(["verify", "mine.txt", "--against", "mine.py"]) == 0
    assert f"proved over {len(repr(changed))} chunks" in capsys.readouterr().out

"""The README's sessions print what the README says, and its plugin works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import zoo

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
# what a run measures differs from run to run; what it counts and says does not
MEASURED = re.compile(
    r"\d+(?:[.,:]\d+)*(?:e[+-]\d+)?(?= tok/s| per second)|\d\.\de[+-]\d\d|\d:\d\d"
)
LEARNED = re.compile(r"train ppl [\d.]+  val ppl [\d.]+ \([\d.]+ bits/char\)  acc [\d.]+ %")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def same_form(text: str) -> list[str]:
    """The lines without what is measured, sorted: notes and output are two streams, whose order a
    pipe does not keep. Which epoch is the best, and how many lines there are on the way to it,
    differs from machine to machine."""
    lines = LEARNED.sub("train ppl …", MEASURED.sub("…", text)).splitlines()
    early = re.compile(r"^early stopping: the validation loss stopped improving; ")
    by_epoch = {
        re.sub(r"\bepoch \d+(, step [\d,]+)?", "epoch", early.sub("", line)) for line in lines
    }
    return sorted(by_epoch)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `zoo` of this environment goes before any other."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("shell")
def test_the_session_prints_what_the_readme_says() -> None:
    _, session = blocks("console")
    for command, wanted in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE):
        found = subprocess.run(
            ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert found.returncode == 0, found.stdout
        assert same_form(found.stdout) == same_form(wanted)

    program = blocks("python")[0]
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == blocks("text")[0]


def test_the_plugin_works_as_it_stands(monkeypatch: pytest.MonkeyPatch, text_file: Path) -> None:
    (source,) = [block for block in blocks("python") if block.startswith("# my_cells.py")]
    Path("my_cells.py").write_text(source)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    registry = zoo.load_registry(import_module("my_cells"))
    run = zoo.train(
        str(text_file), cell="leaky", options={"leak": "0.5"}, hidden=16, epochs=1, prompt="the",
        out="r", registry=registry,
    )  # fmt: skip
    assert run.config.model.options == {"leak": 0.5}
    exported = zoo.export(run, registry=registry)
    assert len(zoo.generate(exported.path, length=10)) == 13


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    commands = re.findall(r"^\$ make (\S+)", blocks("console")[0], re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert f"\n{command}:" in makefile


def test_the_table_of_cells_is_complete() -> None:
    section = README.partition("\n## Cells\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w-]+)`", section))
    cells = zoo.load_registry().cells
    assert {name for name in cells if not name.startswith("tr-")} <= named
    assert f"its {sum(name.startswith('tr-') for name in cells)} cells" in section


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (root / target).exists(), target

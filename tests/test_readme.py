"""The sessions of README and tutorial print the documented output, and the README's plugin
works."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import zoo

from .sessions import LEFT_OUT, Step, run_step, steps_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# measurements differ from run to run; counts and messages do not
MEASURED = re.compile(
    r"\d+(?:[.,:]\d+)*(?:e[+-]\d+)?(?= tok/s| per second)|\d\.\de[+-]\d\d|\d:\d\d"
)
LEARNED = re.compile(r"train ppl [\d.]+(  val ppl [\d.]+ \([\d.]+ bits/char\)  acc [\d.]+ %)?")
EARLY = re.compile(r"^early stopping: the validation loss stopped improving; ")
EPOCH = re.compile(r"\bepoch \d+(, step [\d,]+)?")
PHASES = re.compile(r"^\d+\.\d s: (reading|starting|training|evaluating|saving|[ \d.,])+$")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def without_measurements(line: str) -> str:
    """A line without measurements. The best epoch, and the times of progress lines, differ between
    machines."""
    if PHASES.match(line):
        return re.sub(r"\d+\.\d", "…", line)
    line = LEARNED.sub("train ppl …", MEASURED.sub("…", line))
    return EPOCH.sub("epoch", EARLY.sub("", line))


def without_trained_text(line: str) -> str:
    """A line without generated text: training on another machine gives other weights, which
    generate other texts of the same length."""
    line = re.sub(r"^(epoch): '(.*)'$", r"\1: sample", without_measurements(line))
    line = re.sub(r"^((?:greedy|temperature) .*2000).*", r"\1", line)
    line = re.sub(r"^(travelle|time tra)[a-z ]*$", lambda text: f"{len(text[0])} characters", line)
    line = re.sub(r"('.' )+$", "pieces", line)
    return re.sub(r"\d+\.\d+(e[+-]\d+)?", "…", line)


def assert_same(step: Step, printed: str, form: Callable[[str], str]) -> None:
    """The same lines in the same order. Of lines of the same form only the last one counts: how
    often progress is shown depends on the machine."""
    wanted, found = last_of_each(step.output, form), last_of_each(printed, form)
    if LEFT_OUT in wanted:
        wanted.remove(LEFT_OUT)
        found = [line for line in found if line in wanted]
    assert wanted == found, f"{step.shown}\n{printed}"


def last_of_each(output: str, form: Callable[[str], str]) -> list[str]:
    return list(dict.fromkeys(form(line) for line in reversed(output.splitlines())))[::-1]


def test_the_session_prints_the_output_in_the_readme(tmp_path: Path) -> None:
    steps = list(steps_of(README))
    assert len(steps) == 5
    for step in steps:
        assert_same(step, run_step(step, tmp_path), without_measurements)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tutorial_prints_its_output(tmp_path: Path, time_machine: Path) -> None:
    page = (ROOT / "docs" / "tutorial" / "from-d2l-to-onnxruntime.md").read_text("utf-8")
    steps = list(steps_of(page))
    assert len(steps) > 15
    for step in steps:
        assert_same(step, run_step(step, tmp_path), without_trained_text)


def test_the_plugin_in_the_readme_works(monkeypatch: pytest.MonkeyPatch, text_file: Path) -> None:
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


def test_links_have_a_target() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (root / target).exists(), target

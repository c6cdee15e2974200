"""Errors for common mistakes in cells: one message, with the method, what it returned and should
return, and the line; the same in `zoo check`, `zoo train` and for a saved run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.cli import run
from zoo.config import ModelConfig
from zoo.errors import ContractError
from zoo.models.language_model import LanguageModel
from zoo.models.parameter_budget import largest_hidden
from zoo.registry import Registry
from zoo.registry.attribution import describe_failure
from zoo.testing import LAWS, check_cell, parametrize_with_laws

PACKAGE = Path(__file__).parent / "third_party" / "zoo-mistakes"
CELLS = PACKAGE / "mistakes" / "cells.py"
STATE = "State(h [3, 8] float32)"

# cell: the message, and the line of cells.py that it names
MISTAKES = {
    "no-next-state": (
        "advance returned a tensor [3, 8] float32; it should return (h, next state), the state as "
        f"init_state gives it: {STATE}.",
        ("class NoNextState", 1),
    ),
    "swapped": (
        "advance returned the next state first and the output second; it should return "
        "(h, next state).",
        ("class Swapped", 1),
    ),
    "wrong-width": (
        "readout gave a tensor [3, 16] float32 as output; it should give a tensor [3, 8] float32.",
        ("class WrongWidth", 1),
    ),
    "wider-state": (
        "advance returned (a tensor [3, 8] float32, State(h [3, 16] float32)); it should return "
        f"(h, next state), the state as init_state gives it: {STATE}.",
        ("class WiderState", 1),
    ),
    "float64-leaf": (
        "init_state returned State(h [3, 8] float64); it should give h the dtype of the "
        "parameters, float32 here, as self.zeros does.",
        ("class Float64Leaf", 1),
    ),
    "no-advance": (
        "NoAdvance has no advance; it should define advance(z, state).",
        ("class NoAdvance", 0),
    ),
    "no-sizes": (
        "mistakes.cells:NoSizes takes () -> None; it should take (input_size, hidden_size), then "
        "its options.",
        ("class NoSizes", 0),
    ),
    "sizes-not-handed-on": (
        "mistakes.cells:SizesNotHandedOn raised TypeError: Cell.__init__() missing 2 required "
        "positional arguments: 'input_size' and 'hidden_size'",
        ("class SizesNotHandedOn", 2),
    ),
    "not-a-cell": (
        "mistakes.cells:NotACell gives a NotACell; it should give a zoo.Cell.",
        ("class NotACell", 0),
    ),
    "one-leaf-more": (
        "advance returned (a tensor [3, 8] float32, Pair(h [3, 8] float32, c [3, 8] float32)); it "
        f"should return (h, next state), the state as init_state gives it: {STATE}.",
        ("class OneLeafMore", 1),
    ),
    "fixed-view": (
        "advance raised RuntimeError: shape '[32, -1]' is invalid for input of size 24",
        ("class FixedView", 2),
    ),
    "loop-over-rows": (
        "a loop over the rows of the batch (",
        ("class LoopOverRows", 2),
    ),
    "own-exception": ("project raised KeyError: 'y'", ("class OwnException", 2)),
    "raises-when-built": (
        "mistakes.cells:RaisesWhenBuilt raised ValueError: not today",
        ("class RaisesWhenBuilt", 3),
    ),
    "tuple-state": (
        "init_state returned (a tensor [3, 8] float32); it should return a NamedTuple of tensors "
        "[batch, …].",
        ("class TupleState", 1),
    ),
    "forward-without-state": (
        "forward takes (x_TBI: torch.Tensor, state: Any) -> Any; it should take (x, state=None).",
        ("class ForwardWithoutState", 1),
    ),
    "scan-gives-last-output": (
        "scan gave a tensor [3, 8] float32 as output for a sequence of 2 steps; it should give a "
        "tensor [2, 3, 8] float32.",
        ("class ScanGivesLastOutput", 1),
    ),
    "coefficients-of-no-state": (
        "advance raised ValueError: zip() argument 2 is longer than argument 1",
        ("class CoefficientsOfNoState", 11),
    ),
}
SMALL = ["--hidden", "8", "--epochs", "1", "--batch-size", "4", "--steps", "8", "--out", "r"]


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is on the path, with an entry point, as pip would install it."""
    info = tmp_path / "site" / "zoo_mistakes-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-mistakes\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nmistakes = mistakes\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(PACKAGE))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "mistakes"]:
        del sys.modules[name]


def line_of(anchor: str, below: int) -> int:
    lines = CELLS.read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.startswith(anchor)) + below


def assert_reported(message: str, cell: str) -> None:
    expected, location = MISTAKES[cell]
    assert expected in message
    assert f"{CELLS}:{line_of(*location)}" in message
    assert f"cell {cell!r}" in message
    assert "bug" not in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("cell", MISTAKES)
def test_zoo_check_reports_the_mistake_once(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["check", cell])
    out, err = capsys.readouterr()
    assert code != 0
    message = out if out else err  # a cell without sizes has no options in its signature
    assert_reported(message.strip(), cell)


@pytest.mark.parametrize("cell", MISTAKES)
def test_zoo_train_reports_the_same(
    cell: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(text_file), "--cell", cell, *SMALL]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert_reported(err.strip(), cell)
    assert not Path("r").exists()


def test_the_plugin_is_named(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["train", str(text_file), "--cell", "own-exception", *SMALL])
    assert "cell 'own-exception' (plugin 'mistakes' (zoo-mistakes 0.1.0)): project raised" in (
        capsys.readouterr().err
    )


def test_loading_a_run_reports_a_mistake_in_its_changed_cell(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(text_file), "--cell", "heads", *SMALL]) == 0
    from mistakes import cells

    monkeypatch.setattr(cells.Heads, "advance", cells.NoNextState.advance)
    capsys.readouterr()
    for verb in (["export", "r"], ["generate", "r"]):
        assert run(verb) == 1
        require = "advance returned a tensor [3, 8] float32; it should return (h, next state)"
        assert require in capsys.readouterr().err


def test_the_check_keeps_random_state_and_training_mode() -> None:
    registry = zoo.load_registry()
    model = LanguageModel(ModelConfig(cell="tr-nas", hidden=8), 5, registry).train()
    before = torch.get_rng_state()
    model.stack.check_contract(registry.cells["tr-nas"], registry)
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in model.modules())


def test_every_registered_cell_passes_the_check() -> None:
    registry = zoo.load_registry()
    names = [name for name in registry.cells if name not in MISTAKES]
    for name in names:
        (verdict,) = check_cell(name, registry=registry, laws=LAWS[:1])
        assert verdict.passed, verdict.finding


def test_a_test_of_laws_reports_the_mistake_and_skips_the_rest() -> None:
    mark = parametrize_with_laws("swapped", laws=LAWS[:2], registry=zoo.load_registry()).mark
    first, second = (case.values[0] for case in mark.args[1])
    with pytest.raises(AssertionError, match="the next state first and the output second"):
        first()
    with pytest.raises(pytest.skip.Exception):
        second()


# --- exceptions outside the contract


def test_an_exception_of_a_plugin_is_not_a_bug_of_the_zoo(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raised in training, after the check of the methods has passed."""
    from mistakes import cells

    source = "def late(z):\n    return z.view(3, 9)\n"
    exec(compile(source, str(CELLS), "exec"), vars(cells))

    def guarded(self: Any, z: Any, state: Any) -> Any:
        if z.requires_grad:
            cells.late(z)
        return cells.Right.advance(self, z, state)

    monkeypatch.setattr(cells.Heads, "advance", guarded)
    assert run(["train", str(text_file), "--cell", "heads", *SMALL]) == 1
    err = capsys.readouterr().err
    assert re.search(
        r"plugin 'mistakes' \(zoo-mistakes 0.1.0\) raised RuntimeError: shape '\[3, 9\]' is "
        rf"invalid .*, at {re.escape(str(CELLS))}:2\n",
        err,
    )
    assert "bug" not in err


def test_exceptions_of_a_corpus_and_an_exporter_name_the_plugin(
    text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = PACKAGE / "mistakes" / "__init__.py"
    lines = hooks.read_text().splitlines()
    plugin = "zoo: error: plugin 'mistakes' (zoo-mistakes 0.1.0) raised"
    assert run(["train", "torn-page"]) == 1
    line = lines.index('    return ["a page"][1]') + 1
    wanted = f"{plugin} IndexError: list index out of range, at {hooks}:{line}\n"
    assert capsys.readouterr().err == wanted
    assert run(["train", str(text_file), "--cell", "rnn", *SMALL]) == 0
    capsys.readouterr()
    assert run(["export", "r", "--graph", "brittle"]) == 1
    line = lines.index('        raise RuntimeError("no pen\\nand no paper")') + 1
    assert capsys.readouterr().err == f"{plugin} RuntimeError: no pen, at {hooks}:{line}\n"


def test_an_exception_of_the_core_called_by_a_plugin_is_the_cores() -> None:
    registry = zoo.load_registry()
    from mistakes import cells

    cells.core = lambda: LanguageModel(None, 3, registry)
    exec(compile("def calls_the_core():\n    core()\n", str(CELLS), "exec"), vars(cells))
    with pytest.raises(AttributeError) as caught:
        cells.calls_the_core()
    assert describe_failure(caught.value, registry).startswith("AttributeError: 'NoneType'")


# --- sizes


@pytest.fixture
def registry() -> Registry:
    return zoo.load_registry()


def test_the_laws_and_check_use_sizes_that_the_cell_supports(
    capsys: pytest.CaptureFixture[str],
) -> None:
    laws = [law for law in LAWS if law.__name__ != "the_exported_graphs_are_the_model"]
    for options in ({}, {"heads": 5}):
        verdicts = list(check_cell("heads", options=options, laws=laws))
        assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert run(["check", "heads", "--hidden", "10"]) == 2
    assert capsys.readouterr().err == (
        "zoo: error: cell 'heads' does not take hidden=10; it takes 4, 8, 12, …; near 10: 8 and "
        "12.\n"
    )


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_training_refuses_a_size_that_the_cell_does_not_support(
    command: str, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = ["--cell", "heads"] if command == "train" else ["--cells", "gru,heads"]
    arguments = [command, str(text_file), *cell, "--hidden", "9", "--out", "r", "--epochs", "1"]
    assert run(arguments) == 2
    assert "does not take hidden=9; it takes 4, 8, 12, …; near 9: 8 and 12." in (
        capsys.readouterr().err
    )
    assert not Path("r").exists()


def test_a_wrapper_supports_the_sizes_of_the_wrapped_cell(registry: Registry) -> None:
    spec = registry.cells["bidirectional"]
    sizes = spec.sizes_taken({"cell": "heads", "heads": 6}, registry)
    assert [size for size in range(1, 20) if size in sizes] == [6, 12, 18]
    with pytest.raises(zoo.UsageError, match=r"'bidirectional' does not take hidden=8; it takes 6"):
        spec.build(3, 8, cell="heads", heads=6, registry=registry)
    assert [n for n in range(1, 9) if n in spec.sizes_taken({}, registry)] == list(range(1, 9))


def test_chosen_sizes_are_sizes_that_the_cell_supports(registry: Registry, text_file: Path) -> None:
    """With 48 heads the default 256 becomes 240. A model of 10 tokens has 10 H + H² weights in the
    cell and 10 H + 10 in the head."""
    settings: dict[str, Any] = {"epochs": 1, "options": {"heads": 48}, "max_tokens": 600}
    made = zoo.train(str(text_file), cell="heads", out="r", registry=registry, **settings)
    assert made.config.model.hidden == 240
    (row,) = zoo.sweep(
        str(text_file), cells="heads", seeds=1, out="s", registry=registry, **settings
    )
    assert row.hidden == 240
    spec = registry.cells["heads"]
    config = ModelConfig(cell="heads", options={"heads": 6})
    for parameters in (200, 1_000, 5_000):
        best = max(h for h in range(6, 600, 6) if 20 * h + h * h + 10 <= parameters)
        assert largest_hidden(parameters, config, spec, 10, registry) == best


def test_zoo_show_prints_the_supported_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "heads"]) == 0
    assert "takes hidden sizes 4, 8, 12, … with its default options\n" in capsys.readouterr().out


def test_a_failure_at_one_size_hints_at_hidden_sizes(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    spec = replace(registry.cells["heads"], hidden_sizes="")
    monkeypatch.setitem(registry.cells._specs, "heads", spec)
    (verdict,) = check_cell("heads", registry=registry)
    assert "advance raised RuntimeError" in verdict.finding
    assert verdict.finding.endswith("says so in its spec, by `hidden_sizes`.")


def test_contract_errors_are_errors_of_the_zoo() -> None:
    with pytest.raises(ContractError, match="raised ValueError: not today"):
        zoo.get_cell("raises-when-built").build(3, 8)


def test_the_summary_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "swapped", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["law"], row["passed"]) == ("methods_return_what_they_should", False)

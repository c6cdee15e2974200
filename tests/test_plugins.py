"""Finding plugins: built-in and third-party ones are loaded the same way, and a fault in one gives
one warning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import zoo
from zoo import Cell, CellSpec, ModelCard, hookimpl
from zoo.errors import DuplicateNameError, FactoryError, PluginWarning, UnknownNameError, UsageError
from zoo.registry.discovery import build_plugin_manager

CARD = ModelCard(title="t", authors="a", year=2000, paper="p", equations=(), state=())


class Supplies:
    """A plugin object with one cell."""

    def __init__(self, cell: str, name: str = "mine") -> None:
        self.cell, self.__name__ = cell, name

    @hookimpl
    def zoo_cells(self) -> list[CellSpec]:
        return [CellSpec(self.cell, "zoo_elman.scratch:RNNScratch", CARD)]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a distribution with one module and an entry point for it, as pip would."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def install_(module: str, source: str) -> None:
        (folder / f"{module}.py").write_text(source)
        info = folder / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[zoo]\n{module} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install_


def test_built_in_plugins_are_found_by_their_entry_points() -> None:
    _, found = build_plugin_manager()
    ours = {plugin.name for plugin in found if plugin.distribution == "recurrent-zoo"}
    assert ours >= {"builtin", "elman", "onnx", "onnxruntime"}
    assert all(plugin.error is None for plugin in found)


def test_each_manager_is_fresh() -> None:
    zoo.load_registry(Supplies("my-cell"))
    assert "my-cell" not in zoo.load_registry().cells


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys; sys.exit(3)", "exits when imported (code 3)"),
        ("def (:", "SyntaxError"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cells(a): ...", "hookimpl definition"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cellz(): ...", "unknown hook"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cells(): return [7]", "gave 7, not a CellSpec"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cells(): return 7", "'int' object is not iterable"),
        ("import zoo\n@zoo.hookimpl\ndef zoo_cells(): raise SystemExit(1)", "SystemExit"),
        (
            "import zoo\n@zoo.hookimpl\ndef zoo_cells():\n"
            "  return [zoo.CellSpec('My Cell', 'a:b', None)]",
            "name 'My Cell' is not kebab-case",
        ),
        ("def zoo_cells(): return []", "supplies nothing; mark its hooks with @zoo.hookimpl"),
        (
            "import zoo\n@zoo.hookimpl\ndef zoo_cells(): return [zoo.CellSpec('a', 'a:b', None)]",
            "a: card must be a ModelCard (got None)",
        ),
        (
            "import zoo\n@zoo.hookimpl\ndef zoo_cells():\n"
            "  return [zoo.CellSpec('a', 'a:b', zoo.ModelCard('', '', 2020, '', 'h = 1', ()))]",
            "a card's equations must be a tuple (got 'h = 1')",
        ),
        (
            "import zoo\n@zoo.hookimpl\ndef zoo_cells():\n"
            "  return 2 * [zoo.CellSpec('a', 'a:b', zoo.ModelCard('', '', 2020, '', (), ()))]",
            "zoo_cells gave 'a' twice",
        ),
    ],
)
def test_a_plugin_that_fails_gives_one_warning(
    install: Callable[[str, str], None], source: str, cause: str
) -> None:
    install("faulty", source)
    with pytest.warns(PluginWarning) as caught:
        registry = zoo.load_registry()
    (warning,) = caught
    assert str(warning.message).startswith("plugin 'faulty' (faulty 1.5) failed: ")
    assert cause in str(warning.message)
    assert len(str(warning.message).splitlines()) == 1
    (record,) = [plugin for plugin in registry.plugins if plugin.name == "faulty"]
    assert cause in record.error
    assert registry.cells["rnn"].build(3, 4).hidden_size == 4


def test_a_bad_plugin_is_one_line_on_standard_error(
    install: Callable[[str, str], None], tmp_path: Path
) -> None:
    install("faulty", "raise RuntimeError('first line\\nsecond line')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import zoo.cli"
    found = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(zoo.cli.run(['cells']))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "rnn-scratch" in found.stdout
    assert found.stderr == (
        "zoo: warning: plugin 'faulty' (faulty 1.5) failed: RuntimeError: first line, "
        "at site/faulty.py:1\n"
    )


def test_plugins_can_be_disabled(
    install: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("faulty", "1 / 0")
    monkeypatch.setenv("ZOO_DISABLE_PLUGINS", "elman, faulty")
    cells = zoo.load_registry().cells
    assert "rnn" not in cells
    assert "gru" in cells


def test_a_third_party_cell_trains_exports_and_generates(text_file: Path) -> None:
    registry = zoo.load_registry(Supplies("my-cell"))
    run = zoo.train(
        str(text_file), cell="my-cell", hidden=8, epochs=1, out="r", registry=registry, prompt="the"
    )
    exported = zoo.export(run, registry=registry)
    assert zoo.generate(exported.path, length=9) == zoo.generate(
        run.path, length=9, registry=registry
    )


def my_text() -> str:
    return "a rose is a rose is a rose. " * 40


def empty_text() -> str:
    return ""


class Texts:
    """A plugin object with corpora that omit all optional fields."""

    @hookimpl
    def zoo_corpora(self) -> list[zoo.registry.CorpusSpec]:
        return [
            zoo.registry.CorpusSpec("rose", f"{__name__}:my_text", "a rose"),
            zoo.registry.CorpusSpec("odd", f"{__name__}:my_text", "a rose", tokenizer="bits"),
            zoo.registry.CorpusSpec("nothing", f"{__name__}:empty_text", "nothing"),
        ]


def test_training_on_a_third_party_corpus() -> None:
    registry = zoo.load_registry(Texts())
    sizes = {"hidden": 8, "epochs": 1, "batch_size": 4, "steps": 8, "registry": registry}
    run = zoo.train("rose", out="r", **sizes)
    assert run.config.training.prompt == "a rose is a rose"
    with pytest.raises(UnknownNameError, match="tokenizer 'bits' is not in the zoo"):
        zoo.train("odd", out="s", **sizes)
    with pytest.raises(zoo.ZooError, match="nothing is empty"):
        zoo.train("nothing", out="s", **sizes)
    assert not Path("s").exists()


def test_two_plugins_with_one_name_are_an_error_that_names_both() -> None:
    registry = zoo.load_registry(Supplies("rnn", "mine"))
    with pytest.raises(DuplicateNameError) as caught:
        registry.cells["rnn"]
    assert "'rnn' comes from both plugin 'elman' (recurrent-zoo" in str(caught.value)
    assert "plugin 'mine'" in str(caught.value)
    assert registry.corpora["python-docs"].name == "python-docs"


def test_an_unknown_cell_is_an_error_with_suggestions() -> None:
    with pytest.raises(UnknownNameError, match="cell 'rnn-scrach' is not in the zoo; did you mean"):
        zoo.get_cell("rnn-scrach")
    with pytest.raises(UnknownNameError, match="`zoo cells` lists what there is"):
        zoo.get_cell("zzzz")


def test_list_cells_takes_a_pattern() -> None:
    assert [spec.name for spec in zoo.list_cells("*-scratch")] == [
        "gru-scratch", "lstm-scratch", "rnn-scratch",
    ]  # fmt: skip


def test_options_are_read_from_the_factory() -> None:
    spec = zoo.get_cell("rnn-scratch")
    option = spec.options()["std"]
    assert (option.default, option.type_name) == (0.01, "float, > 0, <= 1")
    assert spec.parse_options({"std": "0.5"}) == {"std": 0.5}
    assert zoo.get_cell("rnn").options()["nonlinearity"].type_name == "tanh | relu"


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("rnn-scratch", {"std": "-1"}, "option 'std' of cell 'rnn-scratch': must be greater"),
        ("rnn-scratch", {"std": "wide"}, "must be a valid number"),
        ("rnn", {"nonlinearity": "sin"}, "must be 'tanh' or 'relu'"),
        ("rnn", {"nonlinarity": "tanh"}, "no option 'nonlinarity'; did you mean 'nonlinearity'"),
        ("rnn", {"zzz": "1"}, "has no option 'zzz'; it has: nonlinearity"),
    ],
)
def test_options_out_of_bounds_are_errors(cell: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        zoo.get_cell(cell).build(3, 4, **options)


def test_get_returns_the_default_for_an_unknown_name() -> None:
    cells = zoo.load_registry().cells
    assert cells.get("lstmm") is None
    assert cells.get("lstm") is cells["lstm"]


class Loose(Cell):
    """Its option has no annotation."""

    def __init__(self, input_size: int, hidden_size: int, leak=0.3) -> None:  # type: ignore[no-untyped-def]
        super().__init__(input_size, hidden_size)


class Demanding(Cell):
    """Its option has no default."""

    def __init__(self, input_size: int, hidden_size: int, leak: float) -> None:
        super().__init__(input_size, hidden_size)


def test_an_option_without_annotation_has_the_type_of_its_default() -> None:
    spec = CellSpec("loose", f"{__name__}:Loose", CARD)
    assert spec.options()["leak"].type_name == "float"
    assert spec.parse_options({"leak": "0.5"}) == {"leak": 0.5}
    with pytest.raises(UsageError, match="option 'leak' of cell 'loose'"):
        spec.parse_options({"leak": "much"})


def test_an_option_without_a_default_is_refused() -> None:
    spec = CellSpec("demanding", f"{__name__}:Demanding", CARD)
    with pytest.raises(FactoryError, match=r"option 'leak' of .*Demanding has no default"):
        spec.options()

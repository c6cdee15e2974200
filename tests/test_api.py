"""The public API is declared in one list, and importing it is fast."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import grimp
import pytest

import zoo

ROOT = Path(__file__).parent.parent


def test_every_public_name_exists() -> None:
    assert sorted(zoo.__all__) == zoo.__all__
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None


def test_each_name_is_declared_once() -> None:
    """In the stub, which both type checkers and the lazy import read."""
    tree = ast.parse(Path(zoo.__file__).with_suffix(".pyi").read_text())
    names = [alias.name for node in tree.body for alias in node.names]
    assert sorted(set(names)) == sorted(names)
    assert len(names) <= 40
    assert dir(zoo) == sorted(names) == zoo.__all__


def test_public_functions_are_not_shadowed_by_modules() -> None:
    for module in ("training.trainer", "inference.generation", "exporting.export", "runs.run"):
        import_module(f"zoo.{module}")
    assert callable(zoo.train)
    assert callable(zoo.generate)
    assert callable(zoo.export)
    assert dir(zoo) == zoo.__all__


@pytest.mark.parametrize(
    "package",
    ["registry", "nn", "data", "inference", "models", "introspection", "runs", "training",
     "exporting", "benchmarking", "sweeps", "testing", "tasks"],
)  # fmt: skip
def test_every_package_has_a_docstring_and_all(package: str) -> None:
    room = import_module(f"zoo.{package}")
    assert room.__doc__
    assert room.__all__
    for name in room.__all__:
        assert getattr(room, name) is not None


def test_there_are_no_import_cycles() -> None:
    """Imports inside functions and for type checkers count too."""
    graph = grimp.build_graph(
        "zoo", "zoo_onnx", "zoo_ort", "zoo_triton", exclude_type_checking_imports=False
    )
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # CycleError shows the cycle


def test_plugins_import_public_packages_only() -> None:
    cells = {"zoo", "zoo.nn", "zoo.nn.fused", "zoo.registry", "zoo.tasks", "zoo.testing"}
    public = {*cells, "zoo.data", "zoo.training"}  # for tokenizers, and for loggers
    for file in [*(ROOT / "plugins").rglob("*.py"), *(ROOT / "tests/third_party").rglob("*.py"),
                 *(ROOT / "zoo" / "scaffold").glob("*.txt")]:  # fmt: skip
        found = re.findall(r"^\s*(?:from|import) (zoo(?:\.\w+)*)\b", file.read_text(), re.MULTILINE)
        assert set(found) <= (public if "third_party" in file.parts else cells), file


def test_no_module_imports_an_underscored_name() -> None:
    for folder in ("zoo", "exporters", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo"):
                    private = [alias.name for alias in node.names if alias.name[0] == "_"]
                    assert not private, file


def test_no_file_is_long() -> None:
    for folder in ("zoo", "exporters"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 400, file


def test_importing_the_zoo_imports_no_torch() -> None:
    code = "import sys, zoo; zoo.list_cells(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_hook_is_documented() -> None:
    from zoo.registry import hookspecs

    text = (Path(__file__).parent.parent / "docs" / "reference" / "hooks.md").read_text()
    hooks = [name for name in vars(hookspecs) if name.startswith("zoo_")]
    assert hooks == [f"zoo_{table}" for table in zoo.load_registry().tables()]
    for hook in hooks:
        assert f"autofunction:: zoo.registry.hookspecs.{hook}\n" in text
        assert f": `{hook}`\n" in text  # a section of its own
        assert getattr(hookspecs, hook).__doc__


def test_the_console_script_is_the_command_line() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="zoo")
    assert script.load() is import_module("zoo.cli").main

"""The public API is one list, and importing it is quick."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import zoo


def test_every_public_name_exists() -> None:
    assert sorted(zoo.__all__) == zoo.__all__
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None


def test_lazy_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(zoo.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in checked.body for alias in node.names}
    assert seen == zoo._LAZY


def test_functions_are_not_hidden_by_modules_of_their_name() -> None:
    for module in ("trainer", "generator", "exporter", "experiment", "run"):
        import_module(f"zoo.{module}")
    assert callable(zoo.train)
    assert callable(zoo.generate)
    assert callable(zoo.export)


def test_importing_the_zoo_imports_no_torch() -> None:
    code = "import sys, zoo; zoo.list_cells(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_hook_is_documented() -> None:
    from zoo import hookspecs

    text = (Path(__file__).parent.parent / "docs" / "reference" / "hooks.md").read_text()
    hooks = [name for name in vars(hookspecs) if name.startswith("zoo_")]
    assert len(hooks) == 4
    for hook in hooks:
        assert hook in text
        assert getattr(hookspecs, hook).__doc__


def test_the_console_script_is_the_command_line() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="zoo")
    assert script.load() is import_module("zoo.cli").main

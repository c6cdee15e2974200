"""A new package with a cell of one's own: what `zoo new` writes."""

from __future__ import annotations

import keyword
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

from zoo.errors import RunError, UsageError
from zoo.files import new_folder
from zoo.registry.registry import Registry, load_registry
from zoo.registry.specs import NAME


def write_package(name: str, folder: Path, registry: Registry | None = None) -> list[Path]:
    """Writes the package of a cell called `name` (kebab-case) into `folder`, which must not exist
    yet, and returns the files. UsageError for a name that is taken, by a cell or a module, or not
    kebab-case."""
    if not NAME.fullmatch(name):
        raise UsageError(f"name {name!r} is not kebab-case (like 'my-cell').")
    if name in (registry or load_registry()).cells:
        raise UsageError(f"there is a cell {name!r} in the zoo already; choose another name.")
    module = name.replace("-", "_")
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another name or --out.")
    if keyword.iskeyword(module) or find_spec(module) is not None:
        raise UsageError(f"{module!r} means something in Python already; choose another name.")
    words = {
        "name": name,
        "module": module,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
    }
    written = []
    with new_folder(folder):
        for target, source in (
            ("pyproject.toml", "pyproject.toml.txt"),
            (f"{module}/__init__.py", "init.py.txt"),
            (f"{module}/cell.py", "cell.py.txt"),
            (f"tests/test_{module}.py", "test.py.txt"),
        ):
            template = Template((resources.files("zoo.scaffold") / source).read_text("utf-8"))
            path = folder / target
            path.parent.mkdir(exist_ok=True)
            path.write_text(template.substitute(words), "utf-8")
            written.append(path)
    return written

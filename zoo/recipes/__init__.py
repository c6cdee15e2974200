"""Named experiments: a TOML file each, with a title and the sections of `RunConfig`. The zoo's own
stand here; plugins bring theirs, and a path names a file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from zoo.config import Recipe
from zoo.errors import FactoryError, RunError, one_line
from zoo.registry.registry import Registry

SUFFIX = ".toml"


def load_recipe(name: str, registry: Registry) -> Recipe:
    """The recipe registered as `name`, or that in the file of a name that ends in ".toml".

    UnknownNameError for a name that nothing is registered under, RunError for a file that cannot be
    read or is no recipe.
    """
    if name.endswith(SUFFIX):
        try:
            return parse_recipe(Path(name).stem, Path(name).read_text("utf-8"))
        except OSError as error:
            raise RunError(f"recipe {name} cannot be read: {error.strerror}.") from None
    spec = registry.recipes[name]
    try:
        text = (resources.files(spec.package) / f"{name}{SUFFIX}").read_text("utf-8")
    except (OSError, ModuleNotFoundError):
        raise FactoryError(
            f"recipe {name!r} ({registry.recipes.origin(name)}): there is no {name}{SUFFIX} in the "
            f"package {spec.package}."
        ) from None
    return parse_recipe(name, text)


def parse_recipe(name: str, text: str) -> Recipe:
    try:
        sections = tomllib.loads(text)
        title = sections.pop("title", "")
        return Recipe(name, str(title), sections)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"recipe {name} is damaged: {one_line(error)}.") from None


def list_recipes(registry: Registry) -> dict[str, str]:
    """The registered recipes, and the title of each."""
    return {name: load_recipe(name, registry).title for name in registry.recipes}

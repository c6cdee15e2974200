"""Named experiments: a TOML file each, with a title and the sections of `RunConfig`. Here stand the
zoo's own; a path names one's own file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from zoo.config import Recipe
from zoo.errors import RunError, UnknownNameError, one_line

SUFFIX = ".toml"


def load_recipe(name: str) -> Recipe:
    """The recipe registered as `name`, or that in the file of a name that ends in ".toml".

    UnknownNameError for a name that nothing is registered under, RunError for a file that cannot be
    read or is no recipe.
    """
    if name.endswith(SUFFIX):
        try:
            return parse_recipe(Path(name).stem, Path(name).read_text("utf-8"))
        except OSError as error:
            raise RunError(f"recipe {name} cannot be read: {error.strerror}.") from None
    known = list_recipes()
    if name not in known:
        raise UnknownNameError("recipe", name, known, "`zoo train --help`")
    return parse_recipe(name, (resources.files("zoo") / "recipes" / f"{name}.toml").read_text())


def parse_recipe(name: str, text: str) -> Recipe:
    try:
        sections = tomllib.loads(text)
        title = sections.pop("title", "")
        return Recipe(name, str(title), sections)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"recipe {name} is damaged: {one_line(error)}.") from None


def list_recipes() -> dict[str, str]:
    """The named experiments, and what each is in one line."""
    folder = resources.files("zoo") / "recipes"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(SUFFIX))
    found = [parse_recipe(name.removesuffix(SUFFIX), (folder / name).read_text()) for name in names]
    return {recipe.name: recipe.title for recipe in found}

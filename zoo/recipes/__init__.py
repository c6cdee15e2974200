"""Named experiments: a TOML file each, with a title and the sections of `RunConfig`. The zoo's own
stand here; plugins bring theirs, and a path names a file."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path

from zoo.config import SECTIONS, Recipe
from zoo.errors import FactoryError, RunError, ZooError, near_names, one_line
from zoo.registry.registry import Registry

SUFFIX = ".toml"


def load_recipe(name: str, registry: Registry) -> Recipe:
    """The recipe registered as `name`, or that in the file of a name that ends in ".toml", whose
    corpus may be a file beside it.

    UnknownNameError for a name that nothing is registered under, RunError for a file that cannot be
    read or is no recipe, FactoryError for a plugin's recipe that is not there.
    """
    if name.endswith(SUFFIX):
        path = Path(name)
        try:
            recipe = parse_recipe(path.stem, path.read_text("utf-8"))
        except OSError as error:
            raise RunError(f"recipe {name} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise RunError(f"recipe {name} is not UTF-8 text.") from None
        return _beside(path.parent, recipe)
    spec = registry.recipes[name]
    try:
        text = (resources.files(spec.package) / f"{name}{SUFFIX}").read_text("utf-8")
    except (OSError, ModuleNotFoundError, TypeError, ValueError):  # a module, or no name of one
        raise FactoryError(
            f"{registry.recipes.describe(name)}: there is no {name}{SUFFIX} in the package "
            f"{spec.package!r}."
        ) from None
    return parse_recipe(name, text)


def parse_recipe(name: str, text: str) -> Recipe:
    """RunError for a text that is no TOML, or has other parts than a title and sections."""
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"recipe {name} is damaged: {one_line(error)}.") from None
    title = sections.pop("title", "")
    for part, settings in sections.items():
        if part not in SECTIONS:
            near = near_names(part, SECTIONS)
            hint = (
                f"did you mean {near}?" if near else f"it has the sections {', '.join(SECTIONS)}."
            )
            raise RunError(f"recipe {name}: {part!r} is no section of a recipe; {hint}")
        if not isinstance(settings, dict):
            raise RunError(f"recipe {name}: {part!r} must be a section, [{part}], of settings.")
        known = SECTIONS[part].model_fields
        for setting in settings:
            if setting not in known:
                near = near_names(setting, known)
                hint = f"; did you mean {near}?" if near else ""
                raise RunError(f"recipe {name}: [{part}] has no setting {setting!r}{hint}")
    return Recipe(name, str(title), sections)


def _beside(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe, with the path of a corpus that stands in `folder`."""
    data = recipe.sections.get("data", {})
    path = folder / str(data.get("corpus", ""))
    if not path.is_file():
        return recipe
    sections = {**recipe.sections, "data": {**data, "corpus": str(path)}}
    return replace(recipe, sections=sections)


def list_recipes(registry: Registry) -> dict[str, str]:
    """The registered recipes, and the title of each; what is wrong with one that cannot be read."""
    titles = {}
    for name in registry.recipes:
        try:
            titles[name] = load_recipe(name, registry).title
        except ZooError as error:
            titles[name] = f"cannot be read: {error}"
    return titles

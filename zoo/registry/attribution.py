"""Whose code an exception comes from: the plugin, the file and the line."""

from __future__ import annotations

from traceback import walk_tb

from zoo.errors import ZooError, one_line
from zoo.registry.discovery import Plugin
from zoo.registry.locations import shown_path
from zoo.registry.registry import Registry

CORE, TOOLS = "zoo", "zoo.nn"  # what is raised in the tools of cell authors is for who called them


def find_author(error: BaseException, registry: Registry) -> tuple[Plugin, str] | None:
    """The plugin whose code raised the error, and "file:line" in it; None where that was the core.

    That is the innermost frame of a plugin, if no frame of the core lies further in. Frames of
    libraries do not count: what torch raises is for whoever called torch.
    """
    modules = _modules(registry)
    for frame, line in reversed(list(walk_tb(error.__traceback__))):
        name = str(frame.f_globals.get("__name__", ""))
        parts = name.split(".")
        related = [module for module in modules if module.split(".")[0] == parts[0] != CORE]
        if related:
            nearest = max(related, key=lambda module: _shared(module.split("."), parts))
            return modules[nearest], f"{shown_path(frame.f_code.co_filename)}:{line}"
        if parts[0] == CORE and ".".join(parts[:2]) != TOOLS:
            return None
    return None


def describe_failure(error: BaseException, registry: Registry) -> str:
    """An exception in a line, with plugin, file and line where it comes from a plugin's code."""
    message = f"{type(error).__name__}: {one_line(error)}"
    author = find_author(error, registry)
    return message if author is None else f"{author[0]} raised {message}, at {author[1]}"


def _modules(registry: Registry) -> dict[str, Plugin]:
    """The plugin behind each module that is known to be one's: those of hooks and factories."""
    modules = {plugin.module: plugin for plugin in registry.plugins if plugin.module}
    for table in registry.tables().values():
        modules |= table.modules
    return modules


def _shared(one: list[str], other: list[str]) -> int:
    """How many leading parts two module names share."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def describe_error(error: Exception, registry: Registry) -> str:
    """An error in a line, ours or a plugin's."""
    return one_line(error) if isinstance(error, ZooError) else describe_failure(error, registry)

"""Finding plugins. There is no global manager: each call builds a fresh one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import pluggy

from zoo.errors import one_line
from zoo.registry import hookspecs
from zoo.registry.locations import describe_raised

GROUP = "zoo"
DISABLE_VARIABLE = "ZOO_DISABLE_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """One plugin that was found, loaded or not.

    `distribution` and `version` are those of the installed package that declares the entry point,
    empty for a plugin that was passed in as an object. `error` is the cause in one line, None for
    a plugin that works. `module` is the name of the module with its hooks.
    """

    name: str
    distribution: str = ""
    version: str = ""
    error: str | None = None
    module: str = ""

    def __str__(self) -> str:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"plugin {self.name!r}{origin}"


def build_plugin_manager(*extra: object) -> tuple[pluggy.PluginManager, list[Plugin]]:
    """A fresh manager holding every plugin that loads, and a record of each one found.

    `extra` are plugin objects (modules, usually) to register beside the installed ones: for tests
    and notebooks. Entry points named in the environment variable `ZOO_DISABLE_PLUGINS` (separated
    by commas or spaces) are left out. A plugin that fails is recorded with its error and is
    otherwise absent.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    records = []
    disabled = set(os.environ.get(DISABLE_VARIABLE, "").replace(",", " ").split())
    for entry_point in sorted(entry_points(group=GROUP), key=lambda ep: ep.name):
        if entry_point.name not in disabled:
            records.append(_load(manager, entry_point))
    for plugin in extra:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        module = name if isinstance(plugin, ModuleType) else type(plugin).__module__
        records.append(Plugin(name, error=_register(manager, plugin, name), module=module))
    return manager, records


def _load(manager: pluggy.PluginManager, entry_point: EntryPoint) -> Plugin:
    distribution, version = "", ""
    if entry_point.dist is not None:
        distribution, version = entry_point.dist.name, entry_point.dist.version
    try:
        plugin = entry_point.load()
    except SystemExit as exit_:
        error: str | None = f"exits when imported (code {exit_.code})"
    except Exception as failure:  # whatever a third-party module raises must not take the zoo down
        error = describe_raised(failure, entry_point.module)
    else:
        error = _register(manager, plugin, entry_point.name)
    return Plugin(entry_point.name, distribution, version, error, entry_point.module)


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> str | None:
    """Registers `plugin` as `name`; returns why it could not be, or None."""
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as failure:
        if manager.has_plugin(name) and manager.get_plugin(name) is plugin:
            manager.unregister(plugin)
        return one_line(ValueError(" ".join(str(failure).split())))
    if not manager.get_hookcallers(plugin):
        manager.unregister(plugin)
        return "supplies nothing; mark its hooks with @zoo.hookimpl"
    return None

"""Everything that the installed plugins supply, by name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from zoo.errors import ContractError, DuplicateNameError, PluginWarning, UnknownNameError
from zoo.registry.cell_spec import CellSpec
from zoo.registry.discovery import Plugin, build_plugin_manager
from zoo.registry.locations import defined_at, describe_raised
from zoo.registry.specs import (
    CorpusSpec,
    ExporterSpec,
    LoggerSpec,
    Named,
    OptimizerSpec,
    PackageSpec,
    RecipeSpec,
    RuntimeSpec,
    ScheduleSpec,
    TokenizerSpec,
)
from zoo.registry.task_spec import TaskSpec

if TYPE_CHECKING:
    import pluggy

SpecT = TypeVar("SpecT", bound=Named)


class SpecTable(Mapping[str, SpecT], Generic[SpecT]):
    """The registered specs of one kind, by name, in order of name."""

    def __init__(self, spec_type: type[SpecT], kind: str, listed_by: str = "`zoo plugins`") -> None:
        self.spec_type, self.kind, self.listed_by = spec_type, kind, listed_by
        self._specs: dict[str, SpecT] = {}
        self._origin: dict[str, Plugin] = {}
        self.modules: dict[str, Plugin] = {}  # those of the factories
        self.duplicates: list[str] = []

    def add(self, spec: SpecT, plugin: Plugin) -> None:
        if spec.name in self._specs:
            self.duplicates.append(
                f"{self.kind} {spec.name!r} comes from both {self._origin[spec.name]} and {plugin};"
                f" uninstall one, or name it in ZOO_DISABLE_PLUGINS."
            )
        else:
            self._specs[spec.name], self._origin[spec.name] = spec, plugin
            self.modules[spec.module] = plugin

    def origin(self, name: str) -> Plugin:
        """The plugin that supplies `name`."""
        self[name]
        return self._origin[name]

    def describe(self, name: str) -> str:
        """ "logger 'csv' (plugin 'words')": how errors name what is registered."""
        return f"{self.kind} {name!r} ({self.origin(name)})"

    def load_function(self, name: str, *arguments: str) -> Any:
        """The function that is the factory of `name`; ContractError unless it can be called with
        these positional arguments."""
        spec: Any = self[name]
        factory = spec.load_factory()
        try:
            inspect.signature(factory).bind(*arguments)
        except TypeError:
            takes = "is no function"
            if callable(factory):
                takes = f"takes {inspect.signature(factory)}"
            raise ContractError(
                f"{self.describe(name)}: {spec.factory} {takes}; it should take "
                f"({', '.join(arguments)}). See {defined_at(factory)}."
            ) from None
        except ValueError:  # a builtin without a signature
            pass
        return factory

    def origins(self) -> dict[str, Plugin]:
        """The plugin behind each name, in order of name."""
        return dict(sorted(self._origin.items()))

    def __getitem__(self, name: str) -> SpecT:
        self._refuse_duplicates()
        if name not in self._specs:
            raise UnknownNameError(self.kind, name, self._specs, self.listed_by)
        return self._specs[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The spec, or `default` where nothing is registered under the name."""
        self._refuse_duplicates()
        return self._specs.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __iter__(self) -> Any:
        self._refuse_duplicates()
        return iter(sorted(self._specs))

    def __len__(self) -> int:
        return len(self._specs)

    def _refuse_duplicates(self) -> None:
        if self.duplicates:
            raise DuplicateNameError(self.duplicates[0])


class Registry:
    """Everything that the plugins of one manager supply. Each table is filled by the hook of its
    name: `cells` by `zoo_cells`."""

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self.cells = SpecTable(CellSpec, "cell", "`zoo cells`")
        self.corpora = SpecTable(CorpusSpec, "corpus", "`zoo corpora`")
        self.tasks = SpecTable(TaskSpec, "task", "`zoo tasks`")
        self.tokenizers = SpecTable(TokenizerSpec, "tokenizer")
        self.optimizers = SpecTable(OptimizerSpec, "optimizer")
        self.schedules = SpecTable(ScheduleSpec, "schedule")
        self.recipes = SpecTable(RecipeSpec, "recipe", "`zoo train --help`")
        self.loggers = SpecTable(LoggerSpec, "logger")
        self.exporters = SpecTable(ExporterSpec, "exporter")
        self.packages = SpecTable(PackageSpec, "package")
        self.runtimes = SpecTable(RuntimeSpec, "runtime")

    def tables(self) -> dict[str, SpecTable[Any]]:
        """The tables by their names."""
        return {name: table for name, table in vars(self).items() if isinstance(table, SpecTable)}

    def supplied_by(self, plugin: Plugin) -> list[tuple[str, str]]:
        """Kind and name of everything on the tables that came from `plugin`."""
        return [
            (table.kind, name)
            for table in self.tables().values()
            for name, origin in table.origins().items()
            if origin == plugin
        ]

    def duplicates(self) -> list[str]:
        """The names that two plugins provide, each as the error that using its kind raises."""
        return [message for table in self.tables().values() for message in table.duplicates]


def load_registry(*extra: object) -> Registry:
    """Asks every installed plugin, and the plugin objects in `extra`, what it supplies.

    A plugin that fails costs one PluginWarning and is recorded in `Registry.plugins`.
    """
    manager, found = build_plugin_manager(*extra)
    registry = Registry()
    for plugin in found:
        if plugin.error is None:
            plugin = _collect(manager, plugin, registry)
        if plugin.error is not None:
            warnings.warn(f"{plugin} failed: {plugin.error}", PluginWarning, stacklevel=2)
        registry.plugins.append(plugin)
    return registry


def _collect(manager: pluggy.PluginManager, plugin: Plugin, registry: Registry) -> Plugin:
    """Adds what `plugin` supplies, all of it or, if any of it is bad, none."""
    supplied: list[tuple[SpecTable[Any], Any]] = []
    try:
        for table_name, table in registry.tables().items():
            hook = getattr(manager.hook, f"zoo_{table_name}")
            for implementation in hook.get_hookimpls():
                if implementation.plugin_name != plugin.name:
                    continue
                specs: Any = implementation.function()
                for spec in specs:
                    if not isinstance(spec, table.spec_type):
                        expected = table.spec_type.__name__
                        raise TypeError(f"{hook.name} gave {spec!r}, not a {expected}")
                    if any(table is other and spec.name == known.name for other, known in supplied):
                        raise ValueError(f"{hook.name} gave {spec.name!r} twice")
                    supplied.append((table, spec))
    except (Exception, SystemExit) as failure:  # a plugin's own code
        return replace(plugin, error=describe_raised(failure, plugin.module))
    for table, spec in supplied:
        table.add(spec, plugin)
    return plugin


def list_cells(pattern: str = "*", registry: Registry | None = None) -> list[CellSpec]:
    """The registered cells whose names match the shell pattern (`*gru*`), in order of name."""
    cells = (registry or load_registry()).cells
    return [cells[name] for name in cells if fnmatchcase(name, pattern)]


def get_cell(name: str, registry: Registry | None = None) -> CellSpec:
    """The cell registered as `name`; UnknownNameError lists the near names."""
    return (registry or load_registry()).cells[name]

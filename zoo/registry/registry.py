"""Everything that the installed plugins supply, found again by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from zoo.errors import DuplicateNameError, PluginWarning, UnknownNameError
from zoo.registry.discovery import Plugin, build_plugin_manager
from zoo.registry.places import describe_raised
from zoo.registry.specs import CellSpec, CorpusSpec, ExporterSpec, RuntimeSpec, Spec

if TYPE_CHECKING:
    import pluggy

SpecT = TypeVar("SpecT", bound=Spec)


class SpecTable(Mapping[str, SpecT], Generic[SpecT]):
    """The registered specs of one kind, by name, in order of name."""

    def __init__(self, kind: str, listed_by: str) -> None:
        self.kind, self.listed_by = kind, listed_by
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
            self.modules[spec.factory.partition(":")[0]] = plugin

    def origin(self, name: str) -> Plugin:
        """The plugin that supplies `name`."""
        self[name]
        return self._origin[name]

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


@dataclass
class Registry:
    """Everything that the plugins of one manager supply."""

    plugins: list[Plugin] = field(default_factory=list)
    cells: SpecTable[CellSpec] = field(default_factory=lambda: SpecTable("cell", "`zoo cells`"))
    corpora: SpecTable[CorpusSpec] = field(
        default_factory=lambda: SpecTable("corpus", "`zoo corpora`")
    )
    exporters: SpecTable[ExporterSpec] = field(
        default_factory=lambda: SpecTable("exporter", "`zoo plugins`")
    )
    runtimes: SpecTable[RuntimeSpec] = field(
        default_factory=lambda: SpecTable("runtime", "`zoo plugins`")
    )

    def tables(self) -> tuple[SpecTable[Any], ...]:
        return self.cells, self.corpora, self.exporters, self.runtimes

    def supplied_by(self, plugin: Plugin) -> list[tuple[str, str]]:
        """Kind and name of everything on the tables that came from `plugin`."""
        return [
            (shelf.kind, name)
            for shelf in self.tables()
            for name, origin in shelf.origins().items()
            if origin == plugin
        ]

    def duplicates(self) -> list[str]:
        """The names that two plugins provide, each as the error that using its kind raises."""
        return [message for shelf in self.tables() for message in shelf.duplicates]


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
    hooks: list[tuple[pluggy.HookCaller, type[Spec], SpecTable[Any]]] = [
        (manager.hook.zoo_cells, CellSpec, registry.cells),
        (manager.hook.zoo_corpora, CorpusSpec, registry.corpora),
        (manager.hook.zoo_exporters, ExporterSpec, registry.exporters),
        (manager.hook.zoo_runtimes, RuntimeSpec, registry.runtimes),
    ]
    supplied: list[tuple[SpecTable[Any], Any]] = []
    try:
        for hook, spec_type, shelf in hooks:
            for implementation in hook.get_hookimpls():
                if implementation.plugin_name != plugin.name:
                    continue
                specs: Any = implementation.function()
                for spec in specs:
                    if not isinstance(spec, spec_type):
                        raise TypeError(f"{hook.name} gave {spec!r}, not a {spec_type.__name__}")
                    if any(shelf is other and spec.name == known.name for other, known in supplied):
                        raise ValueError(f"{hook.name} gave {spec.name!r} twice")
                    supplied.append((shelf, spec))
    except (Exception, SystemExit) as failure:  # a stranger's code, as when it is imported
        return replace(plugin, error=describe_raised(failure, plugin.module))
    for shelf, spec in supplied:
        shelf.add(spec, plugin)
    return plugin


def list_cells(pattern: str = "*", registry: Registry | None = None) -> list[CellSpec]:
    """The registered cells whose names match the shell pattern (`*gru*`), in order of name."""
    cells = (registry or load_registry()).cells
    return [cells[name] for name in cells if fnmatchcase(name, pattern)]


def get_cell(name: str, registry: Registry | None = None) -> CellSpec:
    """The cell registered as `name`; UnknownNameError lists the near names."""
    return (registry or load_registry()).cells[name]

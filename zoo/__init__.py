"""The recurrent zoo: recurrent cells as plugins, one trainer, one generator, proved export.

What needs torch is imported when it is first used: `import zoo` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, ZooError, ZooWarning
from zoo.hookspecs import hookimpl
from zoo.registry import (
    CellSpec,
    CorpusSpec,
    ExporterSpec,
    ModelCard,
    Registry,
    RuntimeSpec,
    StateField,
    get_cell,
    list_cells,
    load_registry,
)

if TYPE_CHECKING:
    from zoo.adoption import Adopted, adopt_layer, single_layer
    from zoo.cell import Cell
    from zoo.experiment import train, train_events
    from zoo.exporter import export, verify
    from zoo.filling import fill
    from zoo.generator import Source, Stepper, generate, open_source, stream
    from zoo.model import LanguageModel
    from zoo.run import Run, load, save
    from zoo.session import Session
    from zoo.torch_cell import TorchCell

_LAZY = {
    "Adopted": "zoo.adoption",
    "Cell": "zoo.cell",
    "LanguageModel": "zoo.model",
    "Run": "zoo.run",
    "Session": "zoo.session",
    "Source": "zoo.generator",
    "Stepper": "zoo.generator",
    "TorchCell": "zoo.torch_cell",
    "adopt_layer": "zoo.adoption",
    "export": "zoo.exporter",
    "fill": "zoo.filling",
    "generate": "zoo.generator",
    "load": "zoo.run",
    "open_source": "zoo.generator",
    "save": "zoo.run",
    "single_layer": "zoo.adoption",
    "stream": "zoo.generator",
    "train": "zoo.experiment",
    "train_events": "zoo.experiment",
    "verify": "zoo.exporter",
}

__all__ = [
    "Adopted",
    "Cell",
    "CellSpec",
    "CorpusSpec",
    "ExporterSpec",
    "LanguageModel",
    "ModelCard",
    "Registry",
    "Run",
    "RuntimeSpec",
    "Session",
    "Source",
    "StateField",
    "Stepper",
    "TorchCell",
    "UsageError",
    "ZooError",
    "ZooWarning",
    "adopt_layer",
    "export",
    "fill",
    "generate",
    "get_cell",
    "hookimpl",
    "list_cells",
    "load",
    "load_registry",
    "open_source",
    "save",
    "single_layer",
    "stream",
    "train",
    "train_events",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

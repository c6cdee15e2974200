from .discovery import Plugin as Plugin
from .hookspecs import hookimpl as hookimpl
from .registry import (
    Registry as Registry,
    SpecTable as SpecTable,
    get_cell as get_cell,
    list_cells as list_cells,
    load_registry as load_registry,
)
from .sizes import HiddenSizes as HiddenSizes
from .specs import (
    CellSpec as CellSpec,
    CorpusSpec as CorpusSpec,
    ExporterSpec as ExporterSpec,
    ModelCard as ModelCard,
    Option as Option,
    RuntimeSpec as RuntimeSpec,
    StateField as StateField,
)

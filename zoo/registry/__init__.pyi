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
    LoggerSpec as LoggerSpec,
    ModelCard as ModelCard,
    OptimizerSpec as OptimizerSpec,
    Option as Option,
    RecipeSpec as RecipeSpec,
    RuntimeSpec as RuntimeSpec,
    ScheduleSpec as ScheduleSpec,
    StateField as StateField,
    TokenizerSpec as TokenizerSpec,
)

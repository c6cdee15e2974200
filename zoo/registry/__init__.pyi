from .cell_spec import (
    CellSpec as CellSpec,
    ModelCard as ModelCard,
    Option as Option,
    StateField as StateField,
)
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
    CorpusSpec as CorpusSpec,
    ExporterSpec as ExporterSpec,
    LoggerSpec as LoggerSpec,
    OptimizerSpec as OptimizerSpec,
    PackageSpec as PackageSpec,
    RecipeSpec as RecipeSpec,
    RuntimeSpec as RuntimeSpec,
    ScheduleSpec as ScheduleSpec,
    TokenizerSpec as TokenizerSpec,
)
from .task_spec import (
    TaskCard as TaskCard,
    TaskSpec as TaskSpec,
    Trial as Trial,
)

from .discovery import Plugin as Plugin
from .hookspecs import hookimpl as hookimpl
from .registry import (
    Registry as Registry,
)
from .registry import (
    SpecTable as SpecTable,
)
from .registry import (
    get_cell as get_cell,
)
from .registry import (
    list_cells as list_cells,
)
from .registry import (
    load_registry as load_registry,
)
from .specs import (
    CellSpec as CellSpec,
)
from .specs import (
    CorpusSpec as CorpusSpec,
)
from .specs import (
    ExporterSpec as ExporterSpec,
)
from .specs import (
    ModelCard as ModelCard,
)
from .specs import (
    Option as Option,
)
from .specs import (
    RuntimeSpec as RuntimeSpec,
)
from .specs import (
    StateField as StateField,
)

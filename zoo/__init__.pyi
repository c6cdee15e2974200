from . import nn as nn
from .errors import (
    UsageError as UsageError,
    ZooError as ZooError,
    ZooWarning as ZooWarning,
)
from .exporting.export import (
    export as export,
    export_all as export_all,
)
from .exporting.verification import verify as verify
from .inference.generation import (
    generate as generate,
    generate_batch as generate_batch,
    stream as stream,
)
from .inference.infilling import fill as fill
from .inference.runtime import open_source as open_source
from .inference.scoring import score as score
from .inference.session import Session as Session
from .models.language_model import LanguageModel as LanguageModel
from .nn.cell import Cell as Cell
from .registry.cell_spec import (
    CellSpec as CellSpec,
    ModelCard as ModelCard,
    StateField as StateField,
)
from .registry.hookspecs import hookimpl as hookimpl
from .registry.registry import (
    get_cell as get_cell,
    list_cells as list_cells,
    load_registry as load_registry,
)
from .runs.run import (
    Run as Run,
    load as load,
    save as save,
)
from .sweeps.runner import (
    sweep as sweep,
    sweep_events as sweep_events,
)
from .training.experiment import (
    resume as resume,
    resume_events as resume_events,
    train as train,
    train_events as train_events,
)

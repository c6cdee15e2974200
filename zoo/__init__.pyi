from . import nn as nn
from .errors import (
    UsageError as UsageError,
)
from .errors import (
    ZooError as ZooError,
)
from .errors import (
    ZooWarning as ZooWarning,
)
from .exporting.export import (
    export as export,
)
from .exporting.export import (
    export_all as export_all,
)
from .exporting.verification import verify as verify
from .inference.generation import (
    generate as generate,
)
from .inference.generation import (
    generate_batch as generate_batch,
)
from .inference.generation import (
    stream as stream,
)
from .inference.infilling import fill as fill
from .inference.runtime import open_source as open_source
from .inference.scoring import score as score
from .inference.session import Session as Session
from .models.language_model import LanguageModel as LanguageModel
from .nn.cell import Cell as Cell
from .registry.hookspecs import hookimpl as hookimpl
from .registry.registry import (
    get_cell as get_cell,
)
from .registry.registry import (
    list_cells as list_cells,
)
from .registry.registry import (
    load_registry as load_registry,
)
from .registry.specs import (
    CellSpec as CellSpec,
)
from .registry.specs import (
    ModelCard as ModelCard,
)
from .registry.specs import (
    StateField as StateField,
)
from .runs.run import (
    Run as Run,
)
from .runs.run import (
    load as load,
)
from .runs.run import (
    save as save,
)
from .sweeps.runner import (
    sweep as sweep,
)
from .sweeps.runner import (
    sweep_events as sweep_events,
)
from .training.experiment import (
    resume as resume,
)
from .training.experiment import (
    resume_events as resume_events,
)
from .training.experiment import (
    train as train,
)
from .training.experiment import (
    train_events as train_events,
)
